"""The official OpenAI clients, unchanged (make clients)."""
import os
import shutil
import subprocess
import unittest

from context import HERE, ROOT, Case, skip, tiny

try:
    import openai
except ImportError:
    openai = None


class Clients(Case):
    MODEL = staticmethod(tiny)
    OPTIONS = ("--slots", "2", "--queue", "0")

    def setUp(self):
        if openai is None:
            skip(self, "the package openai is not installed; make clients")
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.s.port}/v1", api_key="none", max_retries=0)
        self.addCleanup(self.client.close)

    def test_basics(self):
        (model,) = self.client.models.list()
        self.assertEqual(self.client.models.retrieve(model.id).id, "tiny")
        got = self.client.chat.completions.create(
            model=model.id, messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            temperature=0, max_completion_tokens=9, logprobs=True, top_logprobs=2, seed=5,
            extra_body={"ignore_eos": True})
        self.assertEqual(got.usage.completion_tokens, 9)
        self.assertEqual(got.choices[0].finish_reason, "length")
        self.assertEqual(len(got.choices[0].logprobs.content), 9)
        text = self.client.completions.create(model=model.id, prompt="Hi", max_tokens=4, temperature=0, logprobs=1)
        self.assertEqual(text.usage.total_tokens, text.usage.prompt_tokens + text.usage.completion_tokens)

    def test_streams(self):
        ask = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0, "max_tokens": 12,
               "extra_body": {"ignore_eos": True}}
        whole = self.client.chat.completions.create(**ask)
        chunks = list(self.client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.completion_tokens, 12)
        with self.client.chat.completions.create(**{**ask, "max_tokens": 400}, stream=True) as stream:
            next(iter(stream))  # and leaves
        after = self.client.completions.create(model="tiny", prompt="x", max_tokens=1,
                                               extra_body={"ignore_eos": True})
        self.assertEqual(after.usage.completion_tokens, 1)

    def test_errors(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.chat.completions.create(model="tiny", messages=[])
        self.assertEqual(caught.exception.param, "messages")
        self.assertEqual(caught.exception.type, "invalid_request_error")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("other")
        with self.assertRaises(openai.NotFoundError):
            self.client.embeddings.create(model="tiny", input="x")


class Node(Case):
    MODEL = staticmethod(tiny)
    OPTIONS = ("--slots", "2", "--queue", "0")

    def test_client(self):
        modules = os.path.join(ROOT, "build/clients/node_modules")
        if not shutil.which("node"):
            self.skipTest("node is not installed")  # which no registry cures
        if not os.path.exists(os.path.join(modules, "openai")):
            skip(self, "node's package openai is not installed; make clients")
        got = subprocess.run(["node", os.path.join(HERE, "client.cjs"), modules, str(self.s.port)],
                             capture_output=True, text=True, timeout=120)
        self.assertEqual((got.returncode, got.stdout), (0, "ok\n"), got.stderr)


if __name__ == "__main__":
    unittest.main()
