"""What clients get: formats, equality with tlr run, errors by name."""
import json
import math
import subprocess
import unittest

from context import TLR, Case, tiny


def ids_of_run(model, prompt, *options):
    out = subprocess.run([TLR, "run", model, prompt, "--json", "--temp", "0", *options],
                         check=True, capture_output=True).stdout
    return json.loads(out)


class Api(Case):
    MODEL = staticmethod(tiny)
    OPTIONS = ("--slots", "3", "--queue", "4")

    def test_health_and_models(self):
        self.assertEqual(json.loads(self.s.get("/health")[1]), {"status": "ok"})
        status, text = self.s.get("/v1/models")
        self.assertEqual(status, 200)
        (model,) = json.loads(text)["data"]
        self.assertEqual((model["id"], model["object"], model["max_model_len"]), ("tiny", "model", 512))
        self.assertEqual(json.loads(self.s.get("/v1/models/tiny")[1])["id"], "tiny")
        self.assertEqual(self.s.get("/v1/models/other")[0], 404)

    def test_text_is_that_of_run(self):
        want = ids_of_run(self.model, "Hello world", "--raw", "-n", "24")
        status, got = self.s.post("/v1/completions", {
            "prompt": "Hello world", "temperature": 0, "max_tokens": 24, "repetition_penalty": 1.1,
            "return_token_ids": True})
        self.assertEqual(status, 200)
        choice = got["choices"][0]
        self.assertEqual(choice["text"], want["text"])
        self.assertEqual(choice["token_ids"][:len(want["ids"])], want["ids"])
        self.assertEqual(choice["finish_reason"], want["finish_reason"])
        self.assertEqual(got["usage"]["prompt_tokens"], want["prompt_tokens"])
        self.assertEqual(got["usage"]["completion_tokens"], want["completion_tokens"])

    def test_chat_is_that_of_run(self):
        want = ids_of_run(self.model, "Hi there", "-n", "20")
        status, got = self.s.post("/v1/chat/completions", {
            "messages": [{"role": "user", "content": "Hi there"}], "temperature": 0, "max_tokens": 20,
            "return_token_ids": True})
        self.assertEqual(status, 200)
        self.assertEqual(got["object"], "chat.completion")
        choice = got["choices"][0]
        self.assertEqual(choice["message"]["role"], "assistant")
        self.assertEqual(choice["message"]["content"], want["text"])
        self.assertEqual(choice["token_ids"][:len(want["ids"])], want["ids"])

    def test_parts_and_developer(self):
        a = self.s.post("/tokenize", {"messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}]})
        b = self.s.post("/tokenize", {"messages": [
            {"role": "system", "content": "Be brief."}, {"role": "user", "content": "a b"}]})
        self.assertEqual(a[0], 200)
        self.assertEqual(a[1]["tokens"], b[1]["tokens"])

    def test_ids_in_and_out(self):
        text = "Ids as a prompt: é 你好"
        ids = self.s.post("/tokenize", {"prompt": text})[1]["tokens"]
        want = subprocess.run([TLR, "tokenize", self.model, text], check=True, capture_output=True).stdout.split()
        self.assertEqual(ids, [int(i) for i in want])
        self.assertEqual(self.s.post("/detokenize", {"tokens": ids})[1]["prompt"], text)
        ask = {"temperature": 0, "max_tokens": 8, "return_token_ids": True}
        a = self.s.post("/v1/completions", {"prompt": ids, **ask})[1]["choices"][0]
        b = self.s.post("/v1/completions", {"prompt": text, **ask})[1]["choices"][0]
        c = self.s.post("/v1/completions", {"prompt": [ids], **ask})[1]["choices"][0]
        self.assertEqual(a["token_ids"], b["token_ids"])
        self.assertEqual(a["token_ids"], c["token_ids"])
        self.assertEqual(a["prompt_token_ids"], ids)

    def test_stream_is_the_whole(self):
        ask = {"messages": [{"role": "user", "content": "Tell me."}], "temperature": 0, "max_tokens": 30}
        whole = self.s.post("/v1/chat/completions", ask)[1]
        events = list(self.s.stream("/v1/chat/completions", {**ask, "stream_options": {"include_usage": True}}))
        self.assertEqual(events.pop(), "[DONE]")
        usage = events.pop()
        self.assertEqual(usage["choices"], [])
        self.assertEqual({k: usage["usage"][k] for k in ("prompt_tokens", "completion_tokens", "total_tokens")},
                         {k: whole["usage"][k] for k in ("prompt_tokens", "completion_tokens", "total_tokens")})
        self.assertEqual(events[0]["choices"][0]["delta"]["role"], "assistant")
        self.assertTrue(all(e["object"] == "chat.completion.chunk" for e in events))
        self.assertEqual(len({e["id"] for e in events}), 1)
        text = "".join(e["choices"][0]["delta"].get("content", "") for e in events)
        self.assertEqual(text, whole["choices"][0]["message"]["content"])
        reasons = [e["choices"][0]["finish_reason"] for e in events]
        self.assertEqual(reasons[-1], whole["choices"][0]["finish_reason"])
        self.assertEqual(set(reasons[:-1]), {None} if len(reasons) > 1 else set())

    def test_stop_strings(self):
        ask = {"prompt": "Hello world", "temperature": 0, "max_tokens": 60, "ignore_eos": True}
        text = self.s.post("/v1/completions", ask)[1]["choices"][0]["text"]
        self.assertGreater(len(text), 12)
        stop = text[6:9]
        cut = text[:text.index(stop)]
        for stops in (stop, ["never there", stop]):
            status, got = self.s.post("/v1/completions", {**ask, "stop": stops})
            self.assertEqual(status, 200)
            self.assertEqual(got["choices"][0]["text"], cut)
            self.assertEqual(got["choices"][0]["finish_reason"], "stop")
            self.assertEqual(got["choices"][0]["stop_reason"], stop)
        streamed = "".join(e["choices"][0]["text"] for e in self.s.stream("/v1/completions", {**ask, "stop": stop})
                           if e != "[DONE]")
        self.assertEqual(streamed, cut)

    def test_seed_decides(self):
        ask = {"prompt": "Once", "temperature": 1.5, "max_tokens": 16, "return_token_ids": True}
        texts = [self.s.post("/v1/completions", {**ask, "seed": seed})[1]["choices"][0]["token_ids"]
                 for seed in (7, 7, 8)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])

    def test_logprobs(self):
        got = self.s.post("/v1/chat/completions", {
            "messages": [{"role": "user", "content": "x"}], "temperature": 0, "max_tokens": 6, "logprobs": True,
            "top_logprobs": 3, "return_token_ids": True, "repetition_penalty": 1})[1]["choices"][0]
        content = got["logprobs"]["content"]
        self.assertEqual(len(content), len(got["token_ids"]))
        for token in content:
            top = [t["logprob"] for t in token["top_logprobs"]]
            self.assertEqual(len(top), 3)
            self.assertEqual(top, sorted(top, reverse=True))
            self.assertEqual(token["logprob"], top[0])  # greedy takes the best
            self.assertLess(token["logprob"], 0)
        got = self.s.post("/v1/completions", {"prompt": "x", "temperature": 0, "max_tokens": 4, "logprobs": 2})[1]
        logprobs = got["choices"][0]["logprobs"]
        self.assertEqual({len(logprobs[k]) for k in ("tokens", "token_logprobs", "top_logprobs", "text_offset")},
                         {len(logprobs["tokens"])})

    def test_logprobs_are_of_a_whole_distribution(self):
        """Against the router's view of the same state, and for drawn tokens, too."""
        ask = {"prompt": "Some words", "max_tokens": 12, "ignore_eos": True, "return_token_ids": True,
               "repetition_penalty": 1, "logprobs": 20, "tlr": {"policy": "maxprob", "tau": 0, "records": True}}
        got = self.s.post("/v1/completions", {**ask, "temperature": 0})[1]
        for logprob, record in zip(got["choices"][0]["logprobs"]["token_logprobs"], got["tlr"]["tokens"], strict=True):
            self.assertAlmostEqual(math.exp(logprob), record["trust"], delta=1e-4)
        got = self.s.post("/generate", {"text": "Some words", "top_logprobs_num": 20, "sampling_params": {
            "temperature": 2, "top_k": 20, "seed": 4, "max_new_tokens": 30, "ignore_eos": True}})[1]["meta_info"]
        ranks = set()
        for (logprob, token, _), top in zip(got["output_token_logprobs"], got["output_top_logprobs"], strict=True):
            self.assertLess(sum(math.exp(t[0]) for t in top), 1 + 1e-6)
            rank = [t[1] for t in top].index(token)
            self.assertAlmostEqual(logprob, top[rank][0], delta=1e-6)
            ranks.add(rank)
        self.assertGreater(len(ranks), 3)  # it did draw

    def test_generate(self):
        ids = self.s.post("/tokenize", {"prompt": "Some words"})[1]["tokens"]
        params = {"temperature": 0, "max_new_tokens": 5, "top_p": 1, "top_k": -1, "repetition_penalty": 1.1}
        status, one = self.s.post("/generate", {"input_ids": ids, "sampling_params": params, "rid": "mine",
                                                "top_logprobs_num": 2})
        self.assertEqual(status, 200)
        want = ids_of_run(self.model, "Some words", "--raw", "-n", "5")
        self.assertEqual(one["output_ids"][:len(want["ids"])], want["ids"])
        self.assertEqual(one["text"], want["text"])
        meta = one["meta_info"]
        self.assertEqual((meta["id"], meta["prompt_tokens"]), ("mine", len(ids)))
        self.assertEqual([t[1] for t in meta["output_token_logprobs"]], one["output_ids"])
        self.assertEqual([len(t) for t in meta["output_top_logprobs"]], [2] * len(one["output_ids"]))
        status, batch = self.s.post("/generate", {"input_ids": [ids], "sampling_params": params})
        self.assertEqual(batch[0]["output_ids"], one["output_ids"])
        events = list(self.s.stream("/generate", {"text": "Some words", "sampling_params": params}))
        self.assertEqual(events.pop(), "[DONE]")
        for a, b in zip(events, events[1:]):  # cumulative
            self.assertTrue(b["text"].startswith(a["text"]))
            self.assertEqual(b["output_ids"][:len(a["output_ids"])], a["output_ids"])
        self.assertEqual(events[-1]["output_ids"], one["output_ids"])

    def test_prefix_is_kept(self):
        prompt = "A prefix that is long enough to be worth keeping, word by word, for the next request. "
        first = self.s.post("/v1/completions", {"prompt": prompt + "One", "max_tokens": 2, "temperature": 0})[1]
        again = self.s.post("/v1/completions", {"prompt": prompt + "Two", "max_tokens": 2, "temperature": 0})[1]
        cached = again["usage"]["prompt_tokens_details"]["cached_tokens"]
        self.assertGreater(cached, first["usage"]["prompt_tokens"] // 2)
        self.assertLess(cached, again["usage"]["prompt_tokens"])

    def test_context_is_the_end(self):
        status, got = self.s.post("/v1/completions", {"prompt": "x", "max_tokens": 100000, "temperature": 0,
                                                      "ignore_eos": True})
        self.assertEqual(status, 200)
        self.assertEqual(got["choices"][0]["finish_reason"], "length")
        self.assertEqual(got["usage"]["total_tokens"], 513)  # the last one needs no place

    def test_routing_fields(self):
        ask = {"prompt": "Route me", "max_tokens": 8, "temperature": 0}
        got = self.s.post("/v1/completions", {**ask, "tlr": {"policy": "maxprob", "tau": 2.0, "records": True}})[1]
        tlr = got["tlr"]
        self.assertEqual((tlr["mode"], tlr["policy"], tlr["tau"], tlr["asked"]), ("joint", "maxprob", 2, 8))
        self.assertEqual("".join(t["text"] for t in tlr["tokens"]), got["choices"][0]["text"])
        self.assertTrue(all(t["from"] == "slm" and t["asked"] and 0 < t["trust"] <= 1 for t in tlr["tokens"]))
        none = self.s.post("/v1/completions", {**ask, "tlr": {"policy": "maxprob", "tau": 0.0}})[1]
        self.assertEqual(none["tlr"]["asked"], 0)
        self.assertEqual(none["choices"][0]["text"], got["choices"][0]["text"])
        self.assertNotIn("tlr", self.s.post("/v1/completions", ask)[1])
        explained = self.s.post("/v1/completions", {**ask, "tlr": {"policy": "entropy", "tau": 0.5,
                                                                   "explain": True}})[1]
        self.assertTrue(all(t["entropy"] > 0 for t in explained["tlr"]["tokens"]))

    def test_metrics(self):
        before = self.s.metrics()
        got = self.s.post("/v1/completions", {"prompt": "count me", "max_tokens": 7, "ignore_eos": True})[1]
        after = self.s.metrics()
        def grew(name):
            return after[name] - before[name]
        self.assertEqual(grew("tlr_generated_tokens_total"), 7)
        self.assertEqual(grew("tlr_prompt_tokens_total"), got["usage"]["prompt_tokens"])
        self.assertEqual(grew('tlr_requests_total{finish="length"}'), 1)
        self.assertEqual(grew("tlr_time_to_first_token_seconds_count"), 1)
        self.assertEqual(grew("tlr_time_between_tokens_seconds_count"), 6)
        self.assertEqual(after["tlr_slots"], 3)
        self.assertEqual(after["tlr_kv_capacity_tokens"], 3 * 512)

    def refused(self, path, body, param, status=400):
        got, reply = self.s.post(path, body)
        self.assertEqual(got, status, reply)
        self.assertEqual(set(reply["error"]), {"message", "type", "param", "code"})
        self.assertEqual(reply["error"]["param"], param)
        self.assertNotIn("/", reply["error"]["message"].replace("/v1/completions", ""))
        return reply["error"]

    def test_what_is_wrong_is_named(self):
        chat, text = "/v1/chat/completions", "/v1/completions"
        good = {"messages": [{"role": "user", "content": "x"}]}
        for body, param in [
                (b"", None), (b"{", None), (b"[]", None), (b"\xff\xfe", None), (b'{"a":1,"a":2}', None),
                (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", None),
                ({}, "messages"), ({"messages": []}, "messages"), ({"messages": "x"}, "messages"),
                ({"messages": [1]}, "messages"), ({"messages": [{"role": "x", "content": "y"}]}, "messages"),
                ({"messages": [{"role": "user"}]}, "messages"),
                ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
                ({**good, "n": 2}, "n"), ({**good, "tools": [{"type": "function"}]}, "tools"),
                ({**good, "temperature": -1}, "temperature"), ({**good, "temperature": "hot"}, "temperature"),
                ({**good, "top_p": 0}, "top_p"), ({**good, "max_tokens": 0}, "max_tokens"),
                ({**good, "max_tokens": 1.5}, "max_tokens"), ({**good, "stream": "yes"}, "stream"),
                ({**good, "stop": ""}, "stop"), ({**good, "stop": [1]}, "stop"), ({**good, "stop": ["x"] * 17}, "stop"),
                ({**good, "seed": 1.5}, "seed"), ({**good, "top_logprobs": 2}, "top_logprobs"),
                ({**good, "logprobs": True, "top_logprobs": 99}, "top_logprobs"),
                ({**good, "presence_penalty": 0.5}, "presence_penalty"),
                ({**good, "logit_bias": {"5": 1}}, "logit_bias"),
                ({**good, "response_format": {"type": "json_object"}}, "response_format"),
                ({**good, "tlr": {"mode": "tiny"}}, "tlr.mode"), ({**good, "tlr": {"mode": "large"}}, "tlr.mode"),
                ({**good, "tlr": {"policy": "mlp"}}, "tlr.policy"), ({**good, "tlr": {"policy": "x"}}, "tlr.policy"),
                ({**good, "tlr": {"policy": "entropy", "target": 0.1}}, "tlr.target"), ({**good, "tlr": 5}, "tlr")]:
            with self.subTest(body=body):
                self.refused(chat, body, param)
        for body, param in [
                ({}, "prompt"), ({"prompt": ""}, "prompt"), ({"prompt": []}, "prompt"),
                ({"prompt": [1, "x"]}, "prompt"), ({"prompt": [320]}, "prompt"), ({"prompt": [-1]}, "prompt"),
                ({"prompt": ["a", "b"]}, "prompt"), ({"prompt": {"a": 1}}, "prompt"),
                ({"prompt": [5] * 512}, "prompt"), ({"prompt": "x", "echo": True}, "echo"),
                ({"prompt": "x", "best_of": 3}, "best_of"), ({"prompt": "x", "suffix": "y"}, "suffix")]:
            with self.subTest(body=body):
                self.refused(text, body, param)
        self.refused("/generate", {"text": "x", "input_ids": [1]}, "text")
        self.refused("/generate", {"text": "x", "rid": "r" * 64}, "rid")
        self.refused("/generate", {"text": "x", "sampling_params": {"regex": "a*"}}, "regex")
        self.refused("/generate", {"text": "x", "sampling_params": {"n": 2}}, "n")
        self.refused("/generate", {"text": "x", "sampling_params": {"frequency_penalty": 0.1}}, "frequency_penalty")
        self.refused("/detokenize", {"tokens": "x"}, "tokens")
        self.refused("/tokenize", {}, "prompt")
        self.assertEqual(self.refused(text, {"prompt": [5] * 512}, "prompt")["code"], "context_length_exceeded")

    def test_null_is_absent(self):
        status, got = self.s.post("/v1/completions", {
            "prompt": "x", "max_tokens": 2, "temperature": None, "stop": None, "n": None, "logprobs": None,
            "user": "me", "metadata": {"a": "b"}, "model": "whatever"})
        self.assertEqual(status, 200)
        self.assertIsNone(got["choices"][0]["logprobs"])

    def test_paths_and_methods(self):
        self.assertEqual(self.s.get("/nothing")[0], 404)
        self.assertEqual(self.s.get("/v1/completions")[0], 405)
        self.assertEqual(self.s.post("/health", {})[0], 405)
        self.assertEqual(self.s.request("HEAD", "/health")[0], 200)
        self.assertEqual(self.s.get("/../../etc/passwd")[0], 404)


if __name__ == "__main__":
    unittest.main()
