"""load.py [--tlr ./tlr] [--model M.bin] [--streams 8] [--seconds 60] [--storm]

What a crowd gets from tlr serve on loopback: tokens per second of one stream and
of several together, time to first token, memory; with --storm also what streams
in flight keep while ten times the capacity asks.  Without --model a model of
random weights in the shape of Qwen2.5-0.5B, 4 bits; prompts are ids.  Prints
one JSON object.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests/serve"))
from server import Server  # noqa: E402

PROMPT_TOK, TEXT_TOK = 32, 128


class Crowd:
    """n streams, one text after the other, until `seconds` are over."""

    def __init__(self, server, n, seconds):
        self.server, self.until = server, time.monotonic() + seconds
        self.first_s, self.n_tok, self.errors = [], 0, []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(n)]
        self.begun = time.monotonic()
        for t in self.threads:
            t.start()

    def run(self, who):
        turn = 0
        while time.monotonic() < self.until:
            turn += 1
            ids = [(who * 7919 + turn * 104729 + i * 31) % 30000 + 5 for i in range(PROMPT_TOK)]
            begun = time.monotonic()
            seen = 0
            try:
                for event in self.server.stream("/generate", {"input_ids": ids, "sampling_params": {
                        "max_new_tokens": TEXT_TOK, "temperature": 0, "ignore_eos": True}}):
                    if event == "[DONE]":
                        break
                    n = len(event["output_ids"])
                    with self.lock:
                        if not seen:
                            self.first_s.append(time.monotonic() - begun)
                        self.n_tok += n - seen
                    seen = n
            except Exception as e:  # whatever it is, it counts
                with self.lock:
                    self.errors.append(repr(e))
                return

    def end(self):
        for t in self.threads:
            t.join()
        return self.n_tok / (time.monotonic() - self.begun)


def storm(server, seconds, n):
    """n askers that come again as soon as they are refused; their statuses."""
    statuses = {}
    until = time.monotonic() + seconds

    def ask():
        while time.monotonic() < until:
            status = server.request("POST", "/generate", json.dumps({
                "input_ids": [5], "sampling_params": {"max_new_tokens": 1}}))[0]
            statuses[status] = statuses.get(status, 0) + 1
            time.sleep(0.1)
    threads = [threading.Thread(target=ask) for _ in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return statuses


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tlr", default=os.path.join(ROOT, "tlr"))
    p.add_argument("--model")
    p.add_argument("--streams", type=int, default=8)
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--storm", action="store_true")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = a.model
        if not model:
            model = os.path.join(folder, "random.bin")
            subprocess.run([a.tlr, "convert", "random:qwen2.5-0.5b", "-o", model, "--type", "q4"], check=True,
                           stdout=subprocess.DEVNULL)
        server = Server(a.tlr, model, "--slots", str(min(a.streams, 8)), "--queue", "0", "--ctx", "1024")
        try:
            Crowd(server, 1, 1).end()  # warm
            one = Crowd(server, 1, a.seconds / 4).end()
            before = server.resident()
            crowd = Crowd(server, a.streams, a.seconds)
            many = crowd.end()
            first = sorted(crowd.first_s)
            out = {"one_tok_s": one, "streams": a.streams, "all_tok_s": many, "ratio": many / one,
                   "texts": len(first), "errors": crowd.errors,
                   "ttft_p50_ms": first[len(first) // 2] * 1000, "ttft_p95_ms": first[len(first) * 95 // 100] * 1000,
                   "resident_mib": [before >> 20, server.resident() >> 20]}
            if a.storm:
                crowd = Crowd(server, a.streams, a.seconds / 2)
                time.sleep(1)
                out["storm_statuses"] = storm(server, a.seconds / 2 - 2, 10 * a.streams)
                kept = crowd.end()
                out["storm_errors"] = crowd.errors
                out["storm_keeps"] = kept / many
                out["storm_resident_mib"] = server.resident() >> 20
            print(json.dumps(out, indent=1))
        finally:
            server.close()


main()
