"""run.py [TLR] - the page of tlr serve in headless Chromium, through chromedriver.

Plain Python: WebDriver is JSON over HTTP (https://www.w3.org/TR/webdriver2/).
Needs chromium, chromedriver and the measuring pair (make pair); what is missing
is a counted skip.  Screenshots go to build/web/.
"""
import base64
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
here = os.path.dirname(os.path.abspath(__file__))
root = os.path.dirname(os.path.dirname(here))
sys.path.insert(0, os.path.join(root, "tests/serve"))
if len(sys.argv) > 1:
    os.environ["TLR"] = sys.argv.pop(1)

from context import TLR, Server, skip  # noqa: E402

SHOTS = os.path.join(root, "build/web")
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    def __init__(self, dark=False, width=1000):
        self.process = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        for line in self.process.stdout:
            if "successfully on port" in line:
                self.port = int(line.rstrip(".\n").rsplit(" ", 1)[1])
                break
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
        if dark:
            arguments.append("--force-dark-mode")
        capabilities = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
        self.base = ""
        self.base = "/session/" + self.call("POST", "/session", {
            "capabilities": {"alwaysMatch": capabilities}})["sessionId"]

    def call(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        c.request(method, self.base + path, json.dumps(body or {}) if method == "POST" else None)
        value = json.loads(c.getresponse().read())["value"]
        c.close()
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(value["message"])
        return value

    def close(self):
        try:
            self.call("DELETE", "")
        finally:
            self.process.terminate()
            self.process.wait()
            self.process.stdout.close()

    def open(self, url):
        self.call("POST", "/url", {"url": url})

    def run(self, script):
        return self.call("POST", "/execute/sync", {"script": script, "args": []})

    def find(self, css):
        return self.call("POST", "/element", {"using": "css selector", "value": css})[ELEMENT]

    def keys(self, css, text):
        self.call("POST", f"/element/{self.find(css)}/value", {"text": text})

    def click(self, css):
        self.call("POST", f"/element/{self.find(css)}/click")

    def text(self, css):
        return self.call("GET", f"/element/{self.find(css)}/text")

    def until(self, script, seconds=90):
        end = time.monotonic() + seconds
        while not self.run("return " + script):
            if time.monotonic() > end:
                raise AssertionError("never true: " + script)
            time.sleep(0.05)

    def shot(self, name):
        os.makedirs(SHOTS, exist_ok=True)
        with open(os.path.join(SHOTS, name + ".png"), "wb") as f:
            f.write(base64.b64decode(self.call("GET", "/screenshot")))


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        models = [os.path.join(root, "models", name) for name in ("csqa-slm.bin", "csqa-llm.bin")]
        if not all(os.path.exists(m) for m in models):
            skip(None, "make pair has not made the two models")
        if not shutil.which("chromedriver"):
            skip(None, "chromedriver is not installed")
        cls.s = Server(TLR, models[0], "--slots", "2", "--llm", "model:" + models[1], "--policy", "maxprob",
                       "--tau", "0.5", "--ctx", "512")
        cls.addClassCleanup(cls.s.close)
        cls.b = Browser()
        cls.addClassCleanup(cls.b.close)

    def setUp(self):
        self.b.open(f"http://127.0.0.1:{self.s.port}/")
        self.b.until("document.getElementById('model').textContent.includes('csqa-slm')")

    def ask(self, text, tau, n=40):
        b = self.b
        b.run(f"""document.getElementById('max').value = {n};
                  const t = document.getElementById('tau'); t.value = {tau}; t.dispatchEvent(new Event('input'));""")
        b.run("document.getElementById('prompt').value = ''")
        b.keys("#prompt", text)
        b.click("#send")
        b.until("document.getElementById('status').textContent.startsWith('Done')")

    def count(self, css):
        return self.b.run(f"return document.querySelectorAll({json.dumps(css)}).length")

    def test_weight_and_quiet(self):
        status, headers, text = self.s.request("GET", "/")
        self.assertEqual(status, 200)
        self.assertLess(len(text), 60000)
        self.assertIn("default-src 'none'", headers["Content-Security-Policy"])
        self.assertNotIn(b"://", text.replace(b"http://www.w3.org/2000/svg", b""))
        other = self.b.run("""return performance.getEntriesByType('resource')
                              .filter(e => !e.name.startsWith(location.origin)).length""")
        self.assertEqual(other, 0)

    def test_first_paint(self):
        """It is there, and what it takes is reported: a time is no test."""
        script = """performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)"""
        times = []
        for _ in range(5):
            self.b.open(f"http://127.0.0.1:{self.s.port}/")
            self.b.until(script + ".length === 1")
            times += self.b.run("return " + script)
        self.assertEqual(len(times), 5)
        self.assertTrue(all(t > 0 for t in times))
        print("first contentful paint on loopback, ms:", " ".join(f"{t:.0f}" for t in times))

    def test_threshold_moves_the_share(self):
        self.ask("Where would you keep a spare key?", 0.2)
        few = self.count("#talk .llm")
        self.b.click("#reset")
        self.ask("Where would you keep a spare key?", 0.9)
        many = self.count("#talk .llm")
        self.b.shot("routed")
        self.assertGreater(many, few)
        self.assertEqual(self.b.text("#f-routed"), str(many))
        self.assertEqual(self.count(".tok"), len(self.b.run("return tokens")))
        style = self.b.run("""const s = getComputedStyle(document.querySelector('#talk .llm'));
                              return [s.textDecorationLine, s.color, getComputedStyle(document.body).color]""")
        self.assertEqual(style[0], "underline")
        self.assertNotEqual(style[1], style[2])
        self.assertGreater(self.count("#chart ellipse"), 5)

    def test_tokens_come_as_they_are_made(self):
        b = self.b
        b.run("document.getElementById('max').value = 120")
        b.keys("#prompt", "\ue009\ue007\ue000")  # Ctrl-Enter
        b.until("tokens.length > 2")
        self.assertFalse(b.run("return document.getElementById('status').textContent.startsWith('Done')"))
        b.click("#stop")
        b.until("document.getElementById('status').textContent === 'Stopped.'")

    def test_keyboard_and_detail(self):
        b = self.b
        self.ask("Name a fruit.", 0.5, 12)
        b.run("document.querySelector('.tok').focus()")
        self.assertIn("Token 1 ", b.text("#detail"))
        b.run("""document.activeElement.dispatchEvent(new KeyboardEvent('keydown',
                 {key: 'ArrowRight', bubbles: true}))""")
        self.assertIn("Token 2 ", b.text("#detail"))
        for word in ("trust", "entropy", "candidates"):
            self.assertIn(word, b.text("#detail"))
        unnamed = b.run("""return [...document.querySelectorAll('input, select, textarea, button')]
                           .filter(e => !(e.labels && e.labels.length) && !e.textContent.trim()
                                        && !e.getAttribute('aria-label')).length""")
        self.assertEqual(unnamed, 0)

    def test_errors_in_words(self):
        b = self.b
        b.run("document.getElementById('max').value = ''; document.getElementById('max').removeAttribute('min')")
        b.click("#send")
        b.until("!document.getElementById('error').hidden")
        self.assertIn("max_tokens", b.text("#error"))

    def test_dark_and_narrow(self):
        phone = Browser(dark=True, width=400)
        self.addCleanup(phone.close)
        phone.open(f"http://127.0.0.1:{self.s.port}/")
        phone.until("document.getElementById('model').textContent.includes('csqa-slm')")
        wide = phone.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        self.assertLessEqual(wide, 0)
        phone.shot("narrow")


if __name__ == "__main__":
    result = unittest.main(argv=[sys.argv[0]], exit=False).result
    failed = len(result.failures) + len(result.errors)
    for test, why in result.skipped:
        print(f"skip: {test}: {why}")
    print(f"web: {result.testsRun - failed - len(result.skipped)} passed, {failed} failed, "
          f"{len(result.skipped)} skipped")
    sys.exit(1 if failed else 0)
