"""One run of llama.cpp in a process of its own: prints one JSON object.

    python run_llama.py FILE.gguf THREADS STATE [save] METRIC:FLASH(0|1)...

Straight through llama.cpp's C interface, as llama-bench goes: batches of 512,
logits of the last token only, weights mapped and not locked.  The first token
is timed from before the backend starts and the file is opened; Python's own
start and imports are not counted, nor the memory it had taken by then.  The
peak is that of a context of 2048 after a prompt of 512 and some tokens.

What to measure stands in the arguments as METRIC:FLASH.  ttft_ms and
peak_bytes come from the first context, so they share its setting.  Speed at
depth needs 4096 tokens in the cache: `save` computes and keeps them in STATE,
otherwise they are read from there, as only their number matters.
"""
import ctypes
import json
import sys
import time

import llama_cpp.llama_cpp as L

from worker import ids, memory

BATCH, DEPTH = 512, 4096


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

    def save(self, path):
        none = (L.llama_token * 1)()
        if not L.llama_state_seq_save_file(self.ctx, path.encode(), 0, none, 0):
            raise SystemExit("llama.cpp did not save its cache")

    def restore(self, path):
        none, n = (L.llama_token * 1)(), ctypes.c_size_t(0)
        if not L.llama_state_seq_load_file(self.ctx, path.encode(), 0, none, 1,
                                           ctypes.byref(n)):
            raise SystemExit("llama.cpp did not read " + path)


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


class Run:
    def __init__(self, path, threads):
        self.threads, self.out = threads, {}
        self.before, self.begun = memory("VmRSS"), time.perf_counter()
        self.model = load(path)
        self.warm = {}  # flash: a context of 2048 that has worked

    def context(self, flash):
        if flash not in self.warm:
            c = Context(self.model, 2048, self.threads, flash)
            if self.out:  # not the run that only decodes
                c.prefill(BATCH)
            c.rate(4)
            self.warm[flash] = c
        self.warm[flash].rewind(0)
        return self.warm[flash]

    def first(self, flash):
        """The first token; memory after a prompt and some tokens."""
        c = Context(self.model, 2048, self.threads, flash)
        c.prefill(16)
        c.argmax()
        self.out["ttft_ms"] = (time.perf_counter() - self.begun) * 1e3
        c.rewind(0)
        c.prefill(BATCH)
        c.rate(4)
        self.out["peak_bytes"] = memory("VmHWM") - self.before
        self.warm[flash] = c

    def decode(self, flash, n, name):
        self.out[name] = self.context(flash).rate(n)

    def prefill(self, flash, n, wanted):
        """pp512 is the first 512 tokens of a longer prompt."""
        c = self.context(flash)
        begun = time.perf_counter()
        for done in range(BATCH, n + BATCH, BATCH):
            c.eval(ids(BATCH, done - BATCH))
            if f"pp{done}" in wanted:
                self.out[f"pp{done}"] = done / (time.perf_counter() - begun)

    def deep(self, flash, state, save):
        c = Context(self.model, DEPTH + 256, self.threads, flash)
        if save:
            c.prefill(DEPTH)
            c.save(state)
        else:
            c.restore(state)
        c.rate(2)
        c.rewind(DEPTH)
        self.out["tg_at_4096"] = c.rate(64)


def main():
    path, threads, state = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    save = sys.argv[4:5] == ["save"]
    wanted = {m: int(f) for m, f in
              (a.split(":") for a in sys.argv[5 if save else 4:])}
    L.llama_log_set(quiet, ctypes.c_void_p(0))
    r = Run(path, threads)
    if "ttft_ms" in wanted:
        r.first(wanted["ttft_ms"])
    for n, name in ((128, "tg128"), (64, "tg64_1t")):
        if name in wanted:
            r.decode(wanted[name], n, name)
    for flash in (0, 1):
        pp = [m for m in ("pp512", "pp2048") if wanted.get(m) == flash]
        if pp:
            r.prefill(flash, int(pp[-1][2:]), pp)
        if wanted.get("tg_at_4096") == flash:
            r.deep(flash, f"{state}-{flash}", save)
    print(json.dumps(r.out))


main()
