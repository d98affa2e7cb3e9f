"""One run of onnxruntime-genai in a process of its own: one JSON object.

    python run_ort.py FOLDER THREADS [decode]

As run_llama.py, with the differences that its interface forces: a prompt is
one batch, and a step returns with the logits made.  Threads are set in a copy
of genai_config.json, which is where it looks for them.
"""
import json
import os
import shutil
import sys
import tempfile
import time

import numpy as np
import onnxruntime_genai as og

from worker import ids, memory


def with_threads(folder, threads, to):
    """A folder of links with its own genai_config.json."""
    for f in os.listdir(folder):
        os.symlink(os.path.join(os.path.abspath(folder), f),
                   os.path.join(to, f))
    path = os.path.join(to, "genai_config.json")
    with open(path) as f:
        config = json.load(f)
    options = config["model"]["decoder"].setdefault("session_options", {})
    options["intra_op_num_threads"] = threads
    options["inter_op_num_threads"] = 1
    os.remove(path)
    with open(path, "w") as f:
        json.dump(config, f)


class Text:
    def __init__(self, model, n_ctx):
        p = og.GeneratorParams(model)
        p.set_search_options(max_length=n_ctx, min_length=n_ctx,
                             do_sample=False)
        self.g = og.Generator(model, p)

    def prefill(self, n):
        begun = time.perf_counter()
        self.g.append_tokens(np.array(ids(n), dtype=np.int32))
        self.g.generate_next_token()
        return n / (time.perf_counter() - begun)

    def rate(self, n):
        begun = time.perf_counter()
        for _ in range(n):
            self.g.generate_next_token()
        return n / (time.perf_counter() - begun)


def main():
    folder, threads = sys.argv[1], int(sys.argv[2])
    only_decode = sys.argv[3:] == ["decode"]
    temporary = tempfile.mkdtemp()
    with_threads(folder, threads, temporary)
    before = memory("VmRSS")
    begun = time.perf_counter()
    model = og.Model(temporary)
    t = Text(model, 2048)
    t.prefill(16)
    out = {"ttft_ms": (time.perf_counter() - begun) * 1e3}
    t.rate(4)
    if only_decode:
        out["tg64"] = t.rate(64)
    else:
        out["tg128"] = t.rate(128)
    if not only_decode:
        t = Text(model, 2048)
        t.prefill(512)
        out["peak_bytes"] = memory("VmHWM") - before
        out["pp512"] = Text(model, 2048).prefill(512)
        out["pp2048"] = Text(model, 2048 + 64).prefill(2048)
        t = Text(model, 4096 + 128)
        t.prefill(4096)
        t.rate(2)
        out["tg_at_4096"] = t.rate(64)
    shutil.rmtree(temporary)
    print(json.dumps(out))


main()
