"""storm.py PORT ASKERS SECONDS - many who ask a tlr serve that is full.

A process of its own, so that its work is not taken for the server's or for that of
the streams' readers.  Each asker comes back when Retry-After says so, or after a
tenth of a second where it was served.  Prints the statuses and the longest wait for
a reply as JSON.
"""
import http.client
import json
import sys
import threading
import time


def main():
    port, n, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    statuses, lock, until = {}, threading.Lock(), time.monotonic() + seconds
    longest = [0.0]
    body = json.dumps({"prompt": [5], "max_tokens": 1})

    def ask():
        while time.monotonic() < until:
            begun = time.monotonic()
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                c.request("POST", "/v1/completions", body)
                r = c.getresponse()
                r.read()
                status, rest = r.status, float(r.headers["Retry-After"] or 0.1)
            except OSError as e:
                status, rest = type(e).__name__, 0.1
            finally:
                c.close()
            with lock:
                statuses[status] = statuses.get(status, 0) + 1
                longest[0] = max(longest[0], time.monotonic() - begun)
            time.sleep(max(0, min(rest, until - time.monotonic())))

    threads = [threading.Thread(target=ask) for _ in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print(json.dumps({"statuses": statuses, "longest_s": longest[0]}))


main()
