"""One run of llama.cpp in a process of its own: prints one JSON object.

    python run_llama.py FILE.gguf THREADS FLASH(0|1) [only]

Straight through llama.cpp's C interface, as llama-bench goes: batches of 512,
logits of the last token only, weights mapped and not locked.  The first token
is timed from before the backend starts and the file is opened; Python's own
start and imports are not counted, nor the memory it had taken by then.  The
peak is that of a context of 2048 after a prompt and 128 tokens.

One prefill of 4096 tokens gives pp512 (its first 512), pp2048 and the cache
under which tg_at_4096 is measured.  `only` decode: no long prefill.
"""
import ctypes
import json
import sys
import time

import llama_cpp.llama_cpp as L

BATCH = 512


def memory(key):
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0


def ids(n, first=0):
    return [(7919 * (first + i) + 13) % 150000 for i in range(n)]


class Context:
    def __init__(self, model, n_ctx, threads, flash):
        p = L.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch = n_ctx, BATCH, BATCH
        p.n_threads = p.n_threads_batch = threads
        p.no_perf = True
        if hasattr(p, "flash_attn_type"):
            p.flash_attn_type = 1 if flash else 0
        else:
            p.flash_attn = bool(flash)
        self.ctx = L.llama_init_from_model(model, p)
        if not self.ctx:
            raise SystemExit("llama.cpp made no context")
        self.n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))

    def rewind(self, pos):
        L.llama_memory_seq_rm(L.llama_get_memory(self.ctx), 0, pos, -1)

    def eval(self, tokens):
        """Appends; logits of the last one only.  Greedy choice of it."""
        a = (L.llama_token * len(tokens))(*tokens)
        if L.llama_decode(self.ctx, L.llama_batch_get_one(a, len(tokens))):
            raise SystemExit("llama_decode failed")
        L.llama_synchronize(self.ctx)

    def prefill(self, n):
        for i in range(0, n, BATCH):
            self.eval(ids(min(BATCH, n - i), i))

    def argmax(self):
        at = L.llama_get_logits_ith(self.ctx, -1)
        s = L.llama_sampler_init_greedy()
        best = L.llama_sampler_sample(s, self.ctx, -1)
        L.llama_sampler_free(s)
        return best if at else -1

    def rate(self, n):
        """tok/s of n decoded tokens from here."""
        begun = time.perf_counter()
        for t in ids(n, 5):
            self.eval([t])
        return n / (time.perf_counter() - begun)

    def close(self):
        L.llama_free(self.ctx)


def load(path):
    L.llama_backend_init()
    p = L.llama_model_default_params()
    p.n_gpu_layers = 0
    if hasattr(p, "load_mode"):
        p.load_mode = L.LLAMA_LOAD_MODE_MMAP
    else:
        p.use_mmap, p.use_mlock = True, False
    m = L.llama_model_load_from_file(path.encode(), p)
    if not m:
        raise SystemExit("llama.cpp did not load " + path)
    return m


@L.llama_log_callback
def quiet(level, text, user):
    if level >= 4:  # errors
        sys.stderr.write(text.decode("utf-8", "replace"))


def long_prefill(model, threads, flash, out):
    c = Context(model, 4096 + 256, threads, flash)
    c.prefill(BATCH)  # warm
    c.rewind(0)
    begun = time.perf_counter()
    for n in range(0, 4096, BATCH):
        c.eval(ids(BATCH, n))
        rate = (n + BATCH) / (time.perf_counter() - begun)
        if n + BATCH in (512, 2048):
            out[f"pp{n + BATCH}"] = rate
    c.rate(2)
    c.rewind(4096)
    out["tg_at_4096"] = c.rate(64)
    c.close()


def main():
    path, threads, flash = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    before = memory("VmRSS")
    begun = time.perf_counter()
    model = load(path)
    c = Context(model, 2048, threads, flash)
    c.prefill(16)
    c.argmax()
    out = {"ttft_ms": (time.perf_counter() - begun) * 1e3}
    c.rate(4)
    c.rewind(0)
    out["tg128"] = c.rate(128)
    if sys.argv[4:] != ["decode"]:
        c.rewind(0)
        c.prefill(BATCH)
        out["peak_bytes"] = memory("VmHWM") - before
    c.close()
    if sys.argv[4:] != ["decode"]:
        long_prefill(model, threads, flash, out)
    print(json.dumps(out))


main()
