"""The way to a large model's server: certificates and proxies, which the fixtures of tests/net do not speak."""
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import unittest

from context import TLR, skip, tiny
from llm import NAME, Llm

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def certificate(folder, host):
    """A self-signed certificate and its key."""
    cert, key = os.path.join(folder, host + ".pem"), os.path.join(folder, host + ".key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=" + host,
                    "-addext", "subjectAltName=DNS:" + host, "-keyout", key, "-out", cert],
                   check=True, capture_output=True)
    return cert, key


class Proxy:
    """Takes CONNECT for any host to one port of this machine."""

    def __init__(self, port):
        self.port = port
        self.asked = []  # HOST:PORT of each tunnel
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:  # closed
                return
            threading.Thread(target=self.tunnel, args=(client,), daemon=True).start()

    def tunnel(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(4096)
        self.asked.append(head.split()[1].decode())
        server = socket.create_connection(("127.0.0.1", self.port))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=self.copy, args=(server, client), daemon=True)
        back.start()
        self.copy(client, server)
        back.join()
        client.close()
        server.close()

    @staticmethod
    def copy(source, sink):
        try:
            while True:
                part = source.recv(65536)
                if not part:
                    break
                sink.sendall(part)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.listener.close()


class Wire(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model = tiny(cls)

    def setUp(self):
        if not shutil.which("openssl"):
            skip(self, "no openssl")
        folder = tempfile.TemporaryDirectory(prefix="tlr-wire.")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def serve(self, host):
        """A large model behind TLS; its certificate's file."""
        cert, key = certificate(self.folder, host)
        llm = Llm(TLR, self.model, tls=(cert, key))
        self.addCleanup(llm.close)
        return llm, cert

    def run_tlr(self, url, *options, **variables):
        """Six tokens, each asked for: who wrote them, what was sent, what was said."""
        env = {k: v for k, v in os.environ.items() if k.lower() not in PROXIES}
        env.update(variables)
        done = subprocess.run([TLR, "run", self.model, "the and", "--temp", "0", "-n", "6", "--policy", "random", "--tau",
                               "1", "--json", "--llm", url, "--llm-model", NAME, "--llm-retries", "0", *options],
                              capture_output=True, text=True, env=env, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        out = json.loads(done.stdout)
        return {t["from"] for t in out["tokens"]}, out["network"], done.stderr

    def test_certificate_of_nobody(self):
        llm, cert = self.serve("localhost")
        writers, network, said = self.run_tlr(llm.url)
        self.assertEqual((writers, network["sent_tokens"]), ({"slm"}, 0))
        self.assertIn("--cacert", said)
        writers, network, said = self.run_tlr(llm.url, "--cacert", cert)
        self.assertEqual(writers, {"llm"}, said)
        self.assertGreater(network["sent_tokens"], 0)
        self.assertNotIn("--insecure", said)
        writers, _, said = self.run_tlr(llm.url, "--insecure")
        self.assertEqual(writers, {"llm"})
        self.assertIn("--insecure: the server's certificate is NOT checked", said)

    def test_certificate_of_somebody_else(self):
        llm, cert = self.serve("elsewhere.invalid")
        writers, network, said = self.run_tlr(llm.url, "--cacert", cert)
        self.assertEqual((writers, network["sent_tokens"]), ({"slm"}, 0), said)

    def test_proxy(self):
        llm, cert = self.serve("llm.invalid")
        proxy = Proxy(llm.port)
        self.addCleanup(proxy.close)
        url = f"https://llm.invalid:{llm.port}"
        writers, _, said = self.run_tlr(url, "--cacert", cert, https_proxy=proxy.url)
        self.assertEqual((writers, set(proxy.asked)), ({"llm"}, {f"llm.invalid:{llm.port}"}), said)
        before = len(proxy.asked)
        writers, _, said = self.run_tlr(url, "--cacert", cert, https_proxy=proxy.url, no_proxy="llm.invalid")
        self.assertEqual((writers, len(proxy.asked)), ({"slm"}, before), said)
