"""load.py [--tlr ./tlr] [--model M.bin] [--streams 8] [--seconds 60] [--rest 0] [--storm]

What a crowd gets from tlr serve on loopback: tokens per second of one stream and
of several together, time to first token, memory over the run.  --rest pauses each
stream between its texts, for long runs at low load.

With --storm also what streams in flight keep while ten times the capacity asks:
the same streams, each with one text from before to after, in three windows: calm,
storm, calm.  They keep the rate of the second over the mean of the other two, so
that growing contexts weigh alike on both.

Without --model a model of random weights in the shape of Qwen2.5-0.5B, 4 bits;
prompts are ids.  Prints one JSON object.
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
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests/serve"))
from server import Server  # noqa: E402

PROMPT_TOK, TEXT_TOK, CTX = 32, 128, 2048


class Streams:
    """n readers, each with one text after the other, until end()."""

    def __init__(self, server, n, text_tok=TEXT_TOK, rest=0.0):
        self.server, self.text_tok, self.rest = server, text_tok, rest
        self.first_s, self.n_tok, self.n_texts, self.errors = [], 0, 0, []
        self.lock, self.over = threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(n)]
        self.begun = time.monotonic()
        for t in self.threads:
            t.start()

    def run(self, who):
        turn = 0
        while not self.over.is_set():
            turn += 1
            ids = [(who * 7919 + turn * 104729 + i * 31) % 30000 + 5 for i in range(PROMPT_TOK)]
            try:
                self.read(ids)
            except Exception as e:  # whatever it is, it counts
                with self.lock:
                    self.errors.append(repr(e))
                return
            self.over.wait(self.rest)

    def read(self, ids):
        begun, seen = time.monotonic(), 0
        for event in self.server.stream("/v1/completions", {
                "prompt": ids, "max_tokens": self.text_tok, "temperature": 0, "ignore_eos": True,
                "return_token_ids": True}):
            if event == "[DONE]":
                with self.lock:
                    self.n_texts += 1
                return
            n = len(event["choices"][0]["token_ids"])
            with self.lock:
                if n and not seen:
                    self.first_s.append(time.monotonic() - begun)
                self.n_tok += n
            seen += n
            if self.over.is_set():
                return  # and hangs up

    def rate_over(self, seconds):
        """Tokens per second from now on for that long."""
        before, begun = self.n_tok, time.monotonic()
        time.sleep(seconds)
        return (self.n_tok - before) / (time.monotonic() - begun)

    def end(self):
        self.over.set()
        for t in self.threads:
            t.join()
        while self.server.metrics()["tlr_running_requests"]:  # those that were hung up on
            time.sleep(0.05)


def crowd(server, a, out):
    warm = Streams(server, 1)
    warm.rate_over(1)
    warm.end()
    one = Streams(server, 1)
    out["one_tok_s"] = one.rate_over(min(a.seconds / 4, 15))
    one.end()
    many = Streams(server, a.streams, rest=a.rest)
    parts = []
    out["resident_mib"] = [server.resident() >> 20]
    for _ in range(10):
        parts.append(many.rate_over(a.seconds / 10))
        out["resident_mib"].append(server.resident() >> 20)
    many.end()
    first = sorted(many.first_s)
    out.update({"streams": a.streams, "all_tok_s": sum(parts) / len(parts),
                "ratio": sum(parts) / len(parts) / out["one_tok_s"], "texts": many.n_texts,
                "errors": one.errors + many.errors, "ttft_p50_ms": first[len(first) // 2] * 1000,
                "ttft_p95_ms": first[len(first) * 95 // 100] * 1000})


def storm(server, a, out):
    window = max(a.seconds / 10, 5)
    held = Streams(server, a.streams, text_tok=CTX - PROMPT_TOK)
    while len(held.first_s) < a.streams and not held.errors:
        time.sleep(0.05)
    before = server.resident()
    calm = [held.rate_over(window)]
    askers = subprocess.Popen([sys.executable, os.path.join(HERE, "storm.py"), str(server.port), str(10 * a.streams),
                               str(window + 1)], stdout=subprocess.PIPE)
    time.sleep(0.5)
    kept = held.rate_over(window)
    resident = server.resident()
    out["storm"] = json.loads(askers.communicate()[0])
    calm.append(held.rate_over(window))
    out["storm"].update({"calm_tok_s": calm, "storm_tok_s": kept, "keeps": 2 * kept / sum(calm),
                         "texts_that_ended": held.n_texts, "errors": held.errors,
                         "resident_mib": [before >> 20, resident >> 20]})
    held.end()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tlr", default=os.path.join(ROOT, "tlr"))
    p.add_argument("--model")
    p.add_argument("--streams", type=int, default=8)
    p.add_argument("--seconds", type=float, default=60)
    p.add_argument("--rest", type=float, default=0)
    p.add_argument("--storm", action="store_true")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = a.model
        if not model:
            model = os.path.join(folder, "random.bin")
            subprocess.run([a.tlr, "convert", "random:qwen2.5-0.5b", "-o", model, "--type", "q4"], check=True,
                           stdout=subprocess.DEVNULL)
        server = Server(a.tlr, model, "--slots", str(min(a.streams, 8)), "--queue", "0", "--ctx", str(CTX))
        try:
            out = {}
            crowd(server, a, out)
            if a.storm:
                storm(server, a, out)
            print(json.dumps(out, indent=1))
        finally:
            server.close()


main()
