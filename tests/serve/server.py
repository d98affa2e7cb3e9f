"""A `tlr serve` to test against, and plain sockets to it."""
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time


def heed_interrupts():
    """A shell's background jobs, such as the tests may be, ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Server:
    """Starts on a free port; stop() ends it by SIGTERM and returns its status."""

    def __init__(self, tlr, model, *options):
        self.folder = tempfile.TemporaryDirectory(prefix="tlr-serve.")
        port_file = os.path.join(self.folder.name, "port")
        self.log_path = os.path.join(self.folder.name, "log")
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(
            [tlr, "serve", model, "--port", "0", "--port-file", port_file, *options],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            preexec_fn=heed_interrupts)
        until = time.monotonic() + 60
        while not os.path.exists(port_file):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the server did not start: " + self.messages())
            time.sleep(0.02)
        with open(port_file, encoding="ascii") as f:
            self.port = int(f.read())

    def messages(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(timeout=60)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.log.close()

    def close(self):
        self.stop()
        self.folder.cleanup()

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def request(self, method, path, body=None, headers=None, timeout=60):
        """(status, headers, bytes)"""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request(method, path, body, headers or {})
            r = c.getresponse()
            return r.status, r.headers, r.read()
        finally:
            c.close()

    def post(self, path, body, headers=None, timeout=60):
        """(status, parsed JSON)"""
        data = body if isinstance(body, (bytes, str)) else json.dumps(body)
        status, _, text = self.request("POST", path, data, headers, timeout)
        return status, json.loads(text)

    def get(self, path, headers=None):
        status, _, text = self.request("GET", path, None, headers)
        return status, text

    def metrics(self):
        """{name with labels: value}"""
        lines = self.get("/metrics")[1].decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def resident(self):
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stream(self, path, body, timeout=60):
        """The events of a stream, parsed; the last one is "[DONE]"."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request("POST", path, json.dumps({**body, "stream": True}))
            r = c.getresponse()
            if r.status != 200:
                yield {"status": r.status, **json.loads(r.read())}
                return
            if r.headers["Content-Type"] != "text/event-stream":
                raise AssertionError(r.headers["Content-Type"])
            for line in r:
                line = line.decode("utf-8").rstrip("\r\n")
                if line.startswith("data: "):
                    data = line[6:]
                    yield data if data == "[DONE]" else json.loads(data)
                elif line:
                    raise AssertionError("not an event: " + line)
        finally:
            c.close()
