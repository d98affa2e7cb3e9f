"""Clients that are hostile, careless or too many."""
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from context import TLR, Case, Server, pair, real, tiny, wordless

LONG = {"prompt": "Once upon a time", "max_tokens": 4000, "temperature": 0, "ignore_eos": True}


def read_all(c):
    parts = []
    try:
        while True:
            part = c.recv(65536)
            if not part:
                break
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


class Hostile(Case):
    MODEL = staticmethod(tiny)
    OPTIONS = ("--slots", "2", "--queue", "2", "--receive-seconds", "1")

    def alive(self):
        self.assertEqual(self.s.get("/health")[0], 200)
        self.assertEqual(self.s.post("/v1/completions", {"prompt": "x", "max_tokens": 1})[0], 200)

    def test_malformed(self):
        for text in (b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x00" * 64 + b"\r\n\r\n",
                     b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
                     b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                     b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 4000 + b"\r\n",
                     b"GET /" + b"a" * 60000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            with self.subTest(text=text[:40]):
                with self.s.connect() as c:
                    try:
                        c.sendall(text)
                        c.shutdown(socket.SHUT_WR)
                    except OSError:
                        pass
                    reply = read_all(c)
                self.assertFalse(reply.startswith(b"HTTP/1.1 200"), reply[:80])
        self.alive()

    def test_slow_headers_and_bodies(self):
        for text in (b"GET /health HTTP/1.1\r\nHost: loc",
                     b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"):
            with self.s.connect() as c:
                c.sendall(text)
                begun, gone = time.monotonic(), False
                while time.monotonic() - begun < 20 and not gone:
                    time.sleep(0.2)
                    try:
                        c.sendall(b"a")  # a byte now and then keeps other timeouts away
                    except OSError:
                        gone = True
                self.assertTrue(gone, "a slow client was never shown the door")
        self.alive()

    def test_too_large(self):
        body = b'{"prompt": "' + b"x" * (2 << 20) + b'"}'
        status, reply = self.s.post("/v1/completions", body)
        self.assertEqual((status, reply["error"]["code"]), (413, "too_large"))
        with self.s.connect() as c:  # of a length that is not said
            c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
                      b"Connection: close\r\n\r\n")
            for _ in range(40):
                c.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            c.sendall(b"0\r\n\r\n")
            self.assertTrue(read_all(c).startswith(b"HTTP/1.1 413"))
        with self.s.connect() as c:  # one that would not end
            c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
            self.assertTrue(read_all(c).startswith(b"HTTP/1.1 413"))
        deep = b"[" * 100000
        self.assertEqual(self.s.post("/v1/completions", deep)[0], 400)
        self.alive()

    def test_other_sites_are_kept_out(self):
        ask = json.dumps({"prompt": "x", "max_tokens": 1})
        for headers, status in [({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
                                ({"Host": "evil.example"}, 403), ({"Host": "127.0.0.1.evil.example"}, 403),
                                ({"Host": "localhost:1"}, 200), ({"Host": "[::1]:80"}, 200),
                                ({"Host": "localhost", "Origin": "http://localhost"}, 200)]:
            with self.subTest(headers=headers):
                got, answered, _ = self.s.request("POST", "/v1/completions", ask, headers)
                self.assertEqual(got, status)
                self.assertNotIn("Access-Control-Allow-Origin", answered)

    def test_half_closed(self):
        """Whoever closes the sending half has gone, and a slot is free again."""
        ask = json.dumps({**LONG, "stream": True}).encode()
        for _ in range(6):
            with self.s.connect() as c:
                c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(ask)
                          + ask)
                c.shutdown(socket.SHUT_WR)
                read_all(c)
        self.alive()

    def test_keep_alive(self):
        with self.s.connect() as c:
            for _ in range(3):
                c.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                got = b""
                while b'{"status":"ok"}' not in got:
                    got += c.recv(4096)


class Wordless(Case):
    """Random weights have no tokenizer: ids in, ids out."""
    MODEL = staticmethod(wordless)
    OPTIONS = ("--slots", "2")

    def test_ids_only(self):
        status, got = self.s.post("/generate", {"input_ids": [1, 2, 3], "sampling_params": {
            "max_new_tokens": 5, "temperature": 0}, "top_logprobs_num": 1})
        self.assertEqual((status, got["text"], len(got["output_ids"])), (200, "", 5))
        status, got = self.s.post("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 5, "temperature": 0,
                                                      "logprobs": 1, "tlr": {"records": True}})
        self.assertEqual((status, got["choices"][0]["text"], len(got["tlr"]["tokens"])), (200, "", 5))
        for path, body in (("/v1/completions", {"prompt": "x"}), ("/tokenize", {"prompt": "x"}),
                           ("/detokenize", {"tokens": [1]}),
                           ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})):
            status, got = self.s.post(path, body)
            self.assertEqual((status, got["error"]["code"]), (400, "unsupported"))


class Keys(unittest.TestCase):
    def test_keys(self):
        model = tiny(self)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "keys")
            with open(path, "w", encoding="ascii") as f:
                f.write("# mine\n0123456789abcdef\n\nfedcba9876543210 \n")
            s = Server(TLR, model, "--host", "0.0.0.0", "--api-key-file", path, "--slots", "1")
            try:
                self.assertEqual(s.get("/health")[0], 200)
                for key, status in ((None, 401), ("Bearer x", 401), ("Bearer ", 401), ("Basic 0123456789abcdef", 401),
                                    ("Bearer 0123456789abcdeF", 401), ("Bearer 0123456789abcdef0", 401),
                                    ("Bearer 0123456789abcdef", 200), ("bearer fedcba9876543210", 200)):
                    with self.subTest(key=key):
                        headers = {"Authorization": key} if key else {}
                        self.assertEqual(s.get("/v1/models", headers)[0], status)
                        self.assertEqual(s.get("/metrics", headers)[0], status)
                        self.assertEqual(s.post("/tokenize", {"prompt": "x"}, headers)[0], status)
            finally:
                s.close()

    def fails(self, *options, status):
        got = subprocess.run([TLR, "serve", tiny(self), "--port", "0", *options], capture_output=True, timeout=60)
        self.assertEqual(got.returncode, status, got.stderr)
        return got.stderr.decode()

    def test_what_does_not_start(self):
        for host in ("0.0.0.0", "::", "::ffff:127.0.0.1", "192.0.2.1"):  # which others may reach, or look so
            self.assertIn("--api-key-file", self.fails("--host", host, status=2))
        self.assertIn("no such", self.fails("--api-key-file", "nowhere", status=1).lower())
        self.assertIn("expected", self.fails("--slots", "9", status=2))
        self.assertIn("--llm", self.fails("--mode", "large", status=2))
        with tempfile.NamedTemporaryFile("w") as f:
            f.write("short\n")
            f.flush()
            self.assertIn("16 or more", self.fails("--api-key-file", f.name, status=1))
        with socket.create_server(("127.0.0.1", 0)) as taken:
            got = subprocess.run([TLR, "serve", tiny(self), "--port", str(taken.getsockname()[1])],
                                 capture_output=True, timeout=60)
            self.assertEqual(got.returncode, 1)
            self.assertIn(b"is it taken?", got.stderr)


class Crowd(Case):
    """The real model, whose texts take a while."""
    MODEL = staticmethod(real)
    OPTIONS = ("--slots", "3", "--queue", "2", "--ctx", "512")

    def wait_for(self, name, value):
        until = time.monotonic() + 30
        while self.s.metrics()[name] != value:
            self.assertLess(time.monotonic(), until, f"{name} never became {value}: {self.s.metrics()[name]}")
            time.sleep(0.02)

    def begin(self):
        c = self.s.connect()
        ask = json.dumps({**LONG, "stream": True}).encode()
        c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(ask) + ask)
        return c

    def test_disconnects_free_their_slots(self):
        before = self.s.metrics()['tlr_requests_total{finish="cancelled"}']
        clients = [self.begin() for _ in range(5)]
        self.wait_for("tlr_running_requests", 3)
        self.wait_for("tlr_waiting_requests", 2)
        for c in clients:
            c.close()
        self.wait_for("tlr_running_requests", 0)
        self.wait_for("tlr_waiting_requests", 0)
        self.assertEqual(self.s.metrics()['tlr_requests_total{finish="cancelled"}'] - before, 5)

    def test_storm(self):
        clients = [self.begin() for _ in range(5)]
        try:
            self.wait_for("tlr_waiting_requests", 2)
            memory = self.s.resident()
            statuses, retries = [], []
            def ask():
                status, headers, _ = self.s.request("POST", "/v1/completions", json.dumps(LONG))
                statuses.append(status)
                retries.append(headers["Retry-After"])
            threads = [threading.Thread(target=ask) for _ in range(50)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.assertEqual(statuses, [429] * 50)
            self.assertTrue(all(1 <= int(r) <= 60 for r in retries))
            self.assertLess(self.s.resident() - memory, 32 << 20)
            self.assertEqual(self.s.metrics()["tlr_running_requests"], 3)
        finally:
            for c in clients:
                c.close()
        self.wait_for("tlr_running_requests", 0)

    def test_company_changes_nothing(self):
        """Greedy ids alone and among others, which come and go."""
        prompts = ["The capital of France is", "def fibonacci(n):", "Once upon a time", "1, 2, 3, 4,",
                   "Dear Sir or Madam,"]
        ask = {"temperature": 0, "max_tokens": 40, "return_token_ids": True}
        alone = [self.s.post("/v1/completions", {"prompt": p, **ask})[1]["choices"][0]["token_ids"] for p in prompts]
        together = [None] * len(prompts)
        def run(i):
            together[i] = self.s.post("/v1/completions", {"prompt": prompts[i], **ask})[1]["choices"][0]["token_ids"]
        steps = self.s.metrics()
        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(prompts))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(together, alone)
        after = self.s.metrics()
        n_steps = after["tlr_decode_steps_total"] - steps["tlr_decode_steps_total"]
        n_tok = after["tlr_decode_step_tokens_total"] - steps["tlr_decode_step_tokens_total"]
        self.assertGreater(n_tok / n_steps, 1.5)  # they did share steps


class Pair(unittest.TestCase):
    """One tlr as another's large model, and both ways to route."""

    def test_serves_tlr_run(self):
        small, large = pair(self, "csqa-slm.bin"), pair(self, "csqa-llm.bin")
        question = "Where would you keep a spare key?"
        routing = ["--policy", "maxprob", "--tau", "0.6"]
        def run(llm):
            out = subprocess.run([TLR, "run", small, question, "--json", "--temp", "0", "-n", "32", "--llm", llm,
                                  *routing], check=True, capture_output=True, timeout=120).stdout
            return json.loads(out)
        want = run("model:" + large)
        self.assertGreater(want["routing"]["llm_tokens"], 3)
        s = Server(TLR, large, "--slots", "2", "--ctx", "512")
        try:
            got = run(f"http://127.0.0.1:{s.port}")
            self.assertEqual(got["ids"], want["ids"])
            self.assertEqual(got["routing"]["llm_tokens"], want["routing"]["llm_tokens"])
            self.assertEqual(got["routing"]["failed"], 0)
        finally:
            s.close()
        s = Server(TLR, small, "--slots", "2", "--ctx", "512", "--llm", "model:" + large, *routing)
        try:
            status, reply = s.post("/v1/chat/completions", {
                "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 32,
                "return_token_ids": True, "tlr": {"records": True}})
            self.assertEqual(status, 200)
            self.assertEqual(reply["choices"][0]["token_ids"][:len(want["ids"])], want["ids"])
            self.assertEqual(reply["tlr"]["llm_tokens"], want["routing"]["llm_tokens"])
            self.assertEqual([t["from"] for t in reply["tlr"]["tokens"]], [t["from"] for t in want["tokens"]])
        finally:
            s.close()


class End(unittest.TestCase):
    def test_finishes_what_it_streams(self):
        s = Server(TLR, real(self), "--slots", "1", "--queue", "4", "--ctx", "512")
        try:
            ask = {"prompt": "Once upon a time", "max_tokens": 120, "temperature": 0, "ignore_eos": True}
            events = s.stream("/v1/completions", ask)
            next(events)
            waiting = []
            t = threading.Thread(target=lambda: waiting.append(s.post("/v1/completions", ask)))
            t.start()
            while s.metrics()["tlr_waiting_requests"] != 1:
                time.sleep(0.01)
            s.process.send_signal(signal.SIGTERM)
            rest = list(events)
            self.assertEqual(rest[-1], "[DONE]")
            self.assertEqual(rest[-2]["choices"][0]["finish_reason"], "length")
            t.join()
            self.assertEqual(waiting[0][0], 503)
            self.assertEqual(s.process.wait(timeout=30), 0)
        finally:
            s.close()

    def test_idle_end(self):
        s = Server(TLR, tiny(self), "--slots", "1")
        self.assertEqual(s.stop(signal.SIGINT), 0)
        s.folder.cleanup()


if __name__ == "__main__":
    unittest.main()
