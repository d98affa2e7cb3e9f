"""One run of openvino-genai in a process of its own: one JSON object.

    python run_openvino.py FILE.gguf THREADS [decode]

It reads GGUF itself and turns it into its own form at each start, which its
first token waits for.  Rates come from its own counters: the prompt's time to
first token, and the time of each further one.  Each prompt is a text of its own:
a beginning that an earlier prompt had is served from its cache.
"""
import json
import sys
import time

import numpy as np
import openvino as ov
import openvino_genai as og

from worker import ids, memory


N_CALLS = 0


def generate(pipe, n_prompt, n_new):
    """Prefill tok/s and decode tok/s."""
    global N_CALLS
    N_CALLS += 1
    text = np.array([ids(n_prompt, 5000 * N_CALLS)], dtype=np.int64)
    inputs = og.TokenizedInputs(ov.Tensor(text),
                                ov.Tensor(np.ones((1, n_prompt), np.int64)))
    config = og.GenerationConfig()
    config.max_new_tokens = config.min_new_tokens = n_new
    config.ignore_eos = True
    config.do_sample = False
    m = pipe.generate(inputs, config).perf_metrics
    tpot = m.get_tpot().mean
    return (n_prompt * 1e3 / m.get_ttft().mean, 1e3 / tpot if tpot > 0 else 0)


def main():
    path, threads = sys.argv[1], int(sys.argv[2])
    only_decode = sys.argv[3:] == ["decode"]
    before = memory("VmRSS")
    begun = time.perf_counter()
    pipe = og.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads)
    generate(pipe, 16, 1)
    out = {"ttft_ms": (time.perf_counter() - begun) * 1e3}
    n = 64 if only_decode else 128
    out[f"tg{n}"] = generate(pipe, 16, n + 1)[1]
    if not only_decode:
        generate(pipe, 512, 1)
        out["peak_bytes"] = memory("VmHWM") - before
        out["pp512"] = generate(pipe, 512, 1)[0]
        out["pp2048"] = generate(pipe, 2048, 1)[0]
        out["tg_at_4096"] = generate(pipe, 4096, 65)[1]
    print(json.dumps(out))


main()
