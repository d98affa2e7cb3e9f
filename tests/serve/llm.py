"""A large model for tests: vLLM's wire format, answers by a rule, and a gate.

What it says after a prefix depends on the prefix alone, so a text can be made
again elsewhere; when it says it is up to the test: a closed gate holds every
answer back.  Where it fails it answers as another model than the client named:
that fails the ask, is not tried again and keeps the client's circuit breaker out
of it.
"""
import http.server
import json
import ssl
import subprocess
import threading
import time

NAME = "fixture"


class Llm:
    """Answers ids below 250; `fails` of ten prefixes fail.  tls: files of a certificate and its key."""

    def __init__(self, tlr, model, fails=0, tls=None):
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Semaphore(0)  # one more for each question that came
        self.most_ms = 0  # an answer takes up to that long
        llm = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, body):
                data = json.dumps(body).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # who asked has gone
                    self.close_connection = True

            def do_GET(self):
                known = self.path == "/v1/models"
                self.answer(200 if known else 404, {"data": [{"id": NAME, "owned_by": "vllm"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/tokenize":
                    out = subprocess.run([tlr, "tokenize", model, body["prompt"]], check=True, capture_output=True)
                    self.answer(200, {"tokens": [int(i) for i in out.stdout.split()]})
                    return
                llm.asked.release()
                llm.gate.wait(120)
                rule = sum((i + 1) * token for i, token in enumerate(body["prompt"]))
                time.sleep(llm.most_ms * (rule % 7) / 6000)
                self.answer(200, {"model": "another" if rule % 10 < fails else NAME, "choices": [
                    {"text": "", "token_ids": [rule % 250], "finish_reason": "length"}]})

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.url = f"https://localhost:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def options(self):
        return ("--llm", self.url, "--llm-model", NAME)

    def close(self):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()
