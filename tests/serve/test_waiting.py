"""Texts that wait for the large model, and those beside them."""
import json
import signal
import subprocess
import threading
import time
import unittest

from context import TLR, Server, tiny
from llm import Llm

ASK = {"temperature": 0, "ignore_eos": True, "return_token_ids": True}
ALWAYS = {"policy": "maxprob", "tau": 2.0, "records": True}
SMALL = {"mode": "small"}


class Text(threading.Thread):
    """A stream, read by a thread of its own."""

    def __init__(self, server, **fields):
        super().__init__(daemon=True)
        self.events, self.server, self.fields = [], server, fields
        self.start()

    def run(self):
        for event in self.server.stream("/v1/completions", {**ASK, "prompt": "Once upon", **self.fields},
                                        timeout=120):
            self.events.append(event)

    def n_tokens(self):
        return sum(len(e["choices"][0]["token_ids"]) for e in self.events if e != "[DONE]" and e["choices"])


class Waiting(unittest.TestCase):
    OPTIONS = ("--llm-timeout", "20", "--policy", "maxprob", "--tau", "2")

    def setUp(self):
        self.model = tiny(self)
        self.llm = Llm(TLR, self.model, fails=0)
        self.addCleanup(self.llm.close)
        self.s = Server(TLR, self.model, "--slots", "3", "--queue", "1", *self.llm.options(), *self.OPTIONS)
        self.addCleanup(self.s.close)

    def wait_for(self, name, value):
        until = time.monotonic() + 60
        while self.s.metrics()[name] != value:
            self.assertLess(time.monotonic(), until, f"{name} never became {value}: {self.s.metrics()[name]}")
            time.sleep(0.02)

    def small(self, n):
        return self.s.post("/v1/completions", {**ASK, "prompt": "Beside it", "max_tokens": n, "tlr": SMALL})[1]

    def ways(self):
        """All ways in which a text can wait: ahead of replies, and standing still."""
        return (("ahead", {"tlr": ALWAYS}), ("logprobs", {"tlr": ALWAYS, "logprobs": 1}),
                ("explain", {"tlr": {**ALWAYS, "explain": True}}),
                ("large", {"tlr": {"mode": "large", "records": True}}))

    def test_others_go_on(self):
        """The gate opens only after the other text is whole."""
        alone = self.small(40)["choices"][0]["token_ids"]
        for way, fields in self.ways():
            with self.subTest(way=way):
                self.llm.gate.clear()
                waiting = Text(self.s, max_tokens=6, **fields)
                self.assertTrue(self.llm.asked.acquire(timeout=60))
                self.wait_for("tlr_parked_requests", 1)
                beside = self.small(40)
                self.assertEqual(beside["choices"][0]["token_ids"], alone)
                self.assertEqual(waiting.n_tokens(), 0)
                self.llm.gate.set()
                waiting.join()
                self.assertEqual(waiting.n_tokens(), 6)
                tlr = [e["tlr"] for e in waiting.events if e != "[DONE]" and "llm_tokens" in e.get("tlr", {})][-1]
                self.assertEqual((tlr["llm_tokens"], tlr["failed"]), (6, 0))
                self.wait_for("tlr_parked_requests", 0)

    def test_all_wait(self):
        """Then nothing is computed, and each goes on."""
        self.llm.gate.clear()
        texts = [Text(self.s, max_tokens=5, prompt="x" * (i + 1), tlr=ALWAYS) for i in range(3)]
        self.wait_for("tlr_parked_requests", 3)
        steps = self.s.metrics()["tlr_decode_steps_total"]
        self.wait_for("tlr_parked_requests", 3)
        self.assertEqual(self.s.metrics()["tlr_decode_steps_total"], steps)
        self.llm.gate.set()
        for t in texts:
            t.join()
            self.assertEqual((t.n_tokens(), t.events[-1]), (5, "[DONE]"))

    def test_reader_leaves(self):
        for way, fields in self.ways():
            with self.subTest(way=way):
                self.llm.gate.clear()
                c = self.s.connect()
                ask = json.dumps({**ASK, "prompt": "Once upon", "max_tokens": 50, "stream": True, **fields}).encode()
                c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(ask)
                          + ask)
                self.wait_for("tlr_parked_requests", 1)
                c.close()
                self.wait_for("tlr_running_requests", 0)
                self.wait_for("tlr_parked_requests", 0)
                self.llm.gate.set()
        self.assertEqual(self.small(3)["usage"]["completion_tokens"], 3)

    def test_end_waits_for_replies(self):
        self.llm.gate.clear()
        waiting = Text(self.s, max_tokens=5, tlr=ALWAYS)
        self.wait_for("tlr_parked_requests", 1)
        self.s.process.send_signal(signal.SIGTERM)
        self.llm.gate.set()
        waiting.join()
        self.assertEqual((waiting.n_tokens(), waiting.events[-1]), (5, "[DONE]"))
        self.assertEqual(self.s.process.wait(timeout=60), 0)


class Silent(Waiting):
    """A large model that never answers."""
    OPTIONS = ("--llm-timeout", "1", "--llm-retries", "0", "--policy", "maxprob", "--tau", "2")
    test_others_go_on = test_all_wait = test_reader_leaves = test_end_waits_for_replies = None

    def test_own_tokens_stand(self):
        own = self.s.post("/v1/completions", {**ASK, "prompt": "Once upon", "max_tokens": 8, "tlr": SMALL})[1]
        for way, fields in self.ways()[:3]:
            with self.subTest(way=way):
                self.llm.gate.clear()
                got = self.s.post("/v1/completions", {**ASK, "prompt": "Once upon", "max_tokens": 8, **fields})[1]
                self.assertEqual(got["choices"][0]["token_ids"], own["choices"][0]["token_ids"])
                self.assertEqual((got["tlr"]["llm_tokens"], got["tlr"]["failed"]), (0, 8))


class Same(unittest.TestCase):
    """Each text among the others is what tlr run writes with a serial loop."""

    def test_company_changes_nothing(self):
        model = tiny(self)
        llm = Llm(TLR, model, fails=2)
        self.addCleanup(llm.close)
        prompts = ["The capital", "def f(n):", "Once upon", "1, 2, 3,", "Dear Sir", "zzz"]
        policy = ("--policy", "margin", "--tau", "0.05")
        def alone(prompt):
            out = subprocess.run([TLR, "run", model, prompt, "--raw", "--json", "--temp", "0", "-n", "40", "--serial",
                                  *llm.options(), *policy], check=True, capture_output=True, timeout=120).stdout
            return json.loads(out)
        want = [alone(p) for p in prompts]
        self.assertGreater(sum(w["routing"]["llm_tokens"] for w in want), 20)
        self.assertGreater(sum(w["routing"]["failed"] for w in want), 5)
        llm.most_ms = 40
        s = Server(TLR, model, "--slots", "4", *llm.options(), *policy)
        self.addCleanup(s.close)
        ways = [{}, {"logprobs": 1}, {"tlr": {"explain": True}}]
        got = {}
        def run(i, k):
            ask = {"temperature": 0, "max_tokens": 40, "return_token_ids": True, "prompt": prompts[i], **ways[k]}
            ask["tlr"] = {**ask.get("tlr", {}), "records": True}
            got[i, k] = s.post("/v1/completions", ask)[1]
        threads = [threading.Thread(target=run, args=(i, k)) for k in range(3) for i in range(len(prompts))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for (i, k), reply in got.items():
            with self.subTest(prompt=prompts[i], way=ways[k]):
                ids = want[i]["ids"]
                self.assertEqual(reply["choices"][0]["token_ids"][:len(ids)], ids)
                self.assertEqual([t["from"] for t in reply["tlr"]["tokens"]], [t["from"] for t in want[i]["tokens"]])
                self.assertEqual(reply["tlr"]["failed"], want[i]["routing"]["failed"])


if __name__ == "__main__":
    unittest.main()
