"""Times tlr beside the engines that registries offer, in alternation.

    make bench-peers                        (or python3 bench/peers/peers.py)
      --quick             two rounds instead of five
      --minutes N         begin no turn later than that; fewer rounds then count
      --engines NAMES     some of tlr,llama.cpp,onnxruntime,openvino
    PEERS_PYTHON=PATH     take packages from this interpreter before installing

All get random weights in the shape of Qwen2.5-0.5B, the same machine and the
same number of threads; they take turns, each run in a process of its own, and
the first round is not counted.  Figures are medians with their ends, and
ratios are of medians.  An engine that cannot be installed or run here is left
out, and the table says why.  ik_llama.cpp is in no registry.

Counted against tlr: its first token counts from the start of the process, with
everything that a program does then; the peers' from before the model is opened
(Python and imports are left out, and so is the memory they took).  llama.cpp
is measured with and without flash attention in the round that does not count,
and then goes on with the faster one, figure by figure (first token and memory:
the smaller one).  With tlr and llama.cpp alone it takes about 10 minutes, all
four about 25; an otherwise idle machine is up to you.
"""
import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SHAPE = "qwen2.5-0.5b"
TOKENIZER = os.path.join(ROOT, "..", "shared", "data", "qwen3-tokenizer")

# Name, what it is called in the table, is more better.
METRICS = [
    ("pp512", "pp512, tok/s", True), ("pp2048", "pp2048", True),
    ("tg128", "tg128, tok/s", True), ("tg_at_4096", "tg64 @ d4096", True),
    ("tg64_1t", "tg64, 1 thread", True),
    ("ttft_ms", "first token, ms", False),
    ("peak_bytes", "peak, MiB", False),
]

# Bytes of weights that a token reads: body and head.
BODY, HEAD = 357898240, 136134656
BYTES = {"Q4_0": BODY * 4.5 / 8 + HEAD * 8.5 / 8, "Q8_0": (BODY + HEAD) * 8.5 / 8}


class Skip(Exception):
    """Why an engine takes no part."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, timeout=1800):
    """The JSON object that the command's last line of output is."""
    p = subprocess.run(command, capture_output=True, text=True, timeout=timeout,
                       check=False)
    if p.returncode:
        last = (p.stderr.strip() or p.stdout.strip()).splitlines()[-1:]
        raise Skip(f"{os.path.basename(command[0])} ended with "
                   f"{p.returncode}: {' '.join(last)[:300]}")
    return json.loads(p.stdout.strip().splitlines()[-1])


# ---- a Python with packages --------------------------------------------------

class Python:
    """A virtual environment under the work folder that also sees the packages
    of PEERS_PYTHON."""

    def __init__(self, work):
        self.folder = os.path.join(work, "venv")
        self.path = os.path.join(self.folder, "bin", "python")
        if not os.path.exists(self.path):
            subprocess.run([sys.executable, "-m", "venv", self.folder],
                           check=True)
        given = os.environ.get("PEERS_PYTHON")
        if given:
            code = "import sysconfig; print(sysconfig.get_path('purelib'))"
            theirs = subprocess.check_output([given, "-c", code], text=True)
            ours = subprocess.check_output([self.path, "-c", code], text=True)
            with open(os.path.join(ours.strip(), "peers.pth"), "w") as f:
                f.write(theirs)

    def need(self, *packages):
        """(module, package) pairs; installs what does not import."""
        for module, package in packages:
            if subprocess.run([self.path, "-c", f"import {module}"], check=False,
                              capture_output=True).returncode == 0:
                continue
            say(f"peers: installing {package}")
            p = subprocess.run([self.path, "-m", "pip", "install", "-q",
                                package], capture_output=True, text=True,
                               check=False)
            if p.returncode:
                last = p.stderr.strip().splitlines()[-1:]
                raise Skip(f"pip install {package}: {' '.join(last)[:300]}")

    def version(self, package):
        return subprocess.check_output(
            [self.path, "-c", "from importlib.metadata import version as v;"
             f"print(v('{package}'))"], text=True).strip()

    def shape(self, call):
        """Runs a call of shape.py."""
        subprocess.run([self.path, "-c", f"import sys; sys.path[:0] = "
                        f"[{HERE!r}]; import shape; shape.{call}"], check=True)

    def worker(self, name, *args):
        return run([self.path, os.path.join(HERE, name), *map(str, args)])


# ---- engines: each yields (engine, type, job), a job gives {metric: value} ----

def tlr_job(path, threads, tlr):
    def bench(*args, t=threads):
        return run([tlr, "bench", path, "-r", "1", "-t", str(t), "--json",
                    *args])

    def job(is_warm_up):
        a = bench("-p", "512", "-n", "128", "--ctx", "2048")
        if is_warm_up:
            return {}
        b = bench("-p", "2048", "-n", "0")
        c = bench("-p", "0", "-n", "64", "-d", "4096")
        d = bench("-p", "0", "-n", "64", t=1)
        e = bench("-p", "0", "-n", "64", "--branches", "4")
        return {"pp512": a["prefill_median"], "tg128": a["decode_median"],
                "ttft_ms": a["first_token_ms"],
                "peak_bytes": a["peak_rss_bytes"],
                "pp2048": b["prefill_median"],
                "tg_at_4096": c["decode_median"],
                "tg64_1t": d["decode_median"],
                "branch4_ratio": e["branch_ratio"],
                "read_gb_s": a["stream_gb_s"],
                "read_share": a["read_share"],
                "read_gb_s_1t": d["stream_gb_s"],
                "weight_bytes_per_token": a["weight_bytes_per_token"]}
    return job


def tlr_engine(args, python):
    del python
    for t in ("q4", "q8"):
        path = os.path.join(args.work, f"tlr-{t}.bin")
        if (not os.path.exists(path) or
                os.path.getmtime(path) < os.path.getmtime(args.tlr)):
            say(f"peers: writing {path}")
            p = subprocess.run([args.tlr, "convert", "random:" + SHAPE, "-o",
                                path, "--type", t],
                               capture_output=True, text=True, check=False)
            if p.returncode:
                raise Skip(p.stderr.strip().splitlines()[-1])
        yield "tlr", t, tlr_job(path, args.threads, args.tlr)


def llama_job(python, path, threads, state, choice):
    """choice: {metric: flash attention}, filled by the first warm-up."""
    long = ("pp512", "pp2048", "tg_at_4096")

    def measure(threads, metrics, *save):
        return python.worker("run_llama.py", path, threads, state, *save,
                             *(f"{m}:{f}" for m, f in metrics.items()))

    def choose():
        off, on = (measure(threads, dict.fromkeys(
            ("ttft_ms", "tg128", *long), f), "save") for f in (0, 1))
        for m in ("tg128", *long):
            choice[m] = int(on[m] > off[m])
        choice["ttft_ms"] = int(on["peak_bytes"] < off["peak_bytes"])
        say(f"peers: llama.cpp, flash attention: {choice}")

    def job(is_warm_up):
        if not choice:
            choose()
        if is_warm_up:
            return measure(threads, {"ttft_ms": choice["ttft_ms"]})
        return {**measure(threads, choice),
                **measure(1, {"tg64_1t": choice["tg128"]})}
    return job


def llama_engine(args, python):
    python.need(("numpy", "numpy"), ("gguf", "gguf"),
                ("llama_cpp", "llama-cpp-python"))
    choice = {}
    for t in ("Q4_0", "Q8_0"):
        path = os.path.join(args.work, t.lower() + ".gguf")
        if not os.path.exists(path):
            say(f"peers: writing {path}")
            python.shape(f"write_gguf({path!r}, {t!r})")
        yield (f"llama.cpp {python.version('llama_cpp_python')}", t,
               llama_job(python, path, args.threads,
                         os.path.join(args.work, "llama-cache"), choice))


def worker_job(python, name, path, threads):
    def job(is_warm_up):
        if is_warm_up:
            return python.worker(name, path, threads, "decode")
        one = python.worker(name, path, 1, "decode")
        return dict(python.worker(name, path, threads), tg64_1t=one["tg64"])
    return job


def ort_engine(args, python):
    if not os.path.isdir(TOKENIZER):
        raise Skip("its builder needs a tokenizer; ../shared/data/"
                   "qwen3-tokenizer is not there")
    python.need(("numpy", "numpy"), ("torch", "torch"),
                ("transformers", "transformers"),
                ("safetensors", "safetensors"), ("onnx_ir", "onnx-ir"),
                ("onnxruntime", "onnxruntime"),
                ("onnxruntime_genai", "onnxruntime-genai"))
    hf = os.path.join(args.work, "hf")
    folder = os.path.join(args.work, "ort-int4")
    if not os.path.exists(os.path.join(hf, "config.json")):
        say(f"peers: writing {hf}")
        python.shape(f"write_hf({hf!r}, {TOKENIZER!r})")
    if not os.path.exists(os.path.join(folder, "genai_config.json")):
        say(f"peers: building {folder}")
        run_builder(python, hf, folder)
    yield (f"onnxruntime-genai {python.version('onnxruntime-genai')}", "int4",
           worker_job(python, "run_ort.py", folder, args.threads))


def run_builder(python, hf, folder):
    """int4 in blocks of 32 with int8 activations, head included: what the
    builder makes of a model for a CPU, and its fastest."""
    p = subprocess.run([python.path, "-m", "onnxruntime_genai.models.builder",
                        "-m", hf, "-i", hf, "-o", folder, "-p", "int4", "-e", "cpu", "-c",
                        os.path.join(folder, "cache"), "--extra_options",
                        "int4_accuracy_level=4", "int4_block_size=32"],
                       capture_output=True, text=True, check=False)
    if p.returncode:
        last = (p.stderr.strip() or p.stdout.strip()).splitlines()[-1:]
        raise Skip(f"its builder: {' '.join(last)[:300]}")


def openvino_engine(args, python):
    python.need(("openvino_genai", "openvino-genai"))
    path = os.path.join(args.work, "q4_0-vocab.gguf")
    if not os.path.isdir(TOKENIZER):
        raise Skip("it reads GGUF only with a vocabulary; ../shared/data/"
                   "qwen3-tokenizer is not there")
    if not os.path.exists(path):
        python.need(("numpy", "numpy"), ("gguf", "gguf"))
        python.shape(f"write_gguf({path!r}, 'Q4_0', {TOKENIZER!r})")
    yield (f"openvino-genai {python.version('openvino-genai')}", "Q4_0",
           worker_job(python, "run_openvino.py", path, args.threads))


ENGINES = {"tlr": tlr_engine, "llama.cpp": llama_engine,
           "onnxruntime": ort_engine, "openvino": openvino_engine}


# ---- rounds ------------------------------------------------------------------

def collect(args, python):
    """All jobs that are ready, and {engine: reason} for the others."""
    jobs, skipped = [], {}
    for name in args.engines:
        try:
            jobs.extend(ENGINES[name](args, python))
        except (Skip, subprocess.SubprocessError, OSError) as e:
            skipped[name] = str(e)
            say(f"peers: {name} is left out: {e}")
    return jobs, skipped


def alternate(jobs, rounds, minutes, skipped):
    """[(engine, type, {metric: [values]})], one for each job, by turns."""
    results = [(e, t, {}) for e, t, _ in jobs]
    gone = set()
    begun = time.monotonic()

    def turn(r, k):
        engine, kind, job = jobs[k]
        say(f"peers: {time.monotonic() - begun:.0f} s, round {r} of {rounds}, "
            f"{engine} {kind}"
            f"{' (warm-up, not counted)' if r == 0 else ''}")
        try:
            values = job(r == 0)
        except (Skip, subprocess.SubprocessError, ValueError, LookupError) as e:
            gone.add(k)
            skipped[f"{engine} {kind}"] = str(e)
            say(f"peers: {engine} {kind} is left out: {e}")
            return
        for m, v in values.items():
            if r > 0:
                results[k][2].setdefault(m, []).append(v)

    try:
        for r in range(rounds + 1):
            for i in range(len(jobs)):
                k = (i + r) % len(jobs)  # nobody is always the first
                if k in gone:
                    continue
                if time.monotonic() - begun > minutes * 60:
                    say(f"peers: {minutes:g} minutes are over; what is there "
                        "counts")
                    return results
                turn(r, k)
    except KeyboardInterrupt:
        say("peers: interrupted; what is there counts")
    return results


def spread(values):
    return {"median": statistics.median(values), "min": min(values),
            "max": max(values), "n": len(values)}


def rows_of(results):
    return [{"engine": engine, "type": kind,
             **{m: spread(v) for m, v in values.items()}}
            for engine, kind, values in results if values]


def compare(rows):
    """ratio_to_tlr: this engine's median over tlr's of as many bits;
    tlr_ratio: the other way round."""
    mine = {r["type"]: r for r in rows if r["engine"] == "tlr"}
    for r in rows:
        tlr = mine.get("q8" if "8" in r["type"].replace("int4", "") else "q4")
        for m, _, _ in METRICS:
            if m in r and tlr and m in tlr and tlr[m]["median"]:
                ratio = r[m]["median"] / tlr[m]["median"]
                r[m]["ratio_to_tlr"] = ratio
                r[m]["tlr_ratio"] = 1 / ratio if ratio else None


def add_share(rows):
    """Share of the read bandwidth that tlr measured in the same rounds."""
    tlr = [r for r in rows if r["engine"] == "tlr" and "read_gb_s" in r]
    gb_s = max((r["read_gb_s"]["median"] for r in tlr), default=0)
    for r in rows:
        n = BYTES.get(r["type"]) or r.get("weight_bytes_per_token",
                                          {}).get("median")
        if n and gb_s and "tg128" in r:
            r["bytes_per_token"] = n
            r["read_share"] = r["tg128"]["median"] * n / gb_s / 1e9
    return gb_s


# ---- what comes out ----------------------------------------------------------

def cell(r, m):
    if m not in r:
        return "-"
    v, scale = r[m], 2 ** 20 if m == "peak_bytes" else 1
    digits = 0 if v["median"] / scale >= 100 else 1
    text = "{:.{d}f} ({:.{d}f}-{:.{d}f})".format(
        v["median"] / scale, v["min"] / scale, v["max"] / scale, d=digits)
    if r["engine"] != "tlr" and v.get("tlr_ratio"):
        text += f", tlr {v['tlr_ratio']:.2f} x"
    return text


def markdown(out):
    lines = [f"{SHAPE}, {out['threads']} threads, {out['machine']}; median "
             f"(min-max) of up to {out['rounds']} rounds; memory reads "
             f"{out['read_gb_s']:.1f} GB/s", "",
             "| engine | weights | " + " | ".join(n for _, n, _ in METRICS) +
             " | MB/token | share of bandwidth |",
             "|---|---|" + "---|" * (len(METRICS) + 2)]
    for r in out["engines"]:
        share = f"{r['read_share'] * 100:.0f} %" if "read_share" in r else "-"
        size = (f"{r['bytes_per_token'] / 1e6:.0f}" if "bytes_per_token" in r
                else "-")
        lines.append(f"| {r['engine']} | {r['type']} | " +
                     " | ".join(cell(r, m) for m, _, _ in METRICS) +
                     f" | {size} | {share} |")
    lines.append("")
    for r in out["engines"]:
        if r["engine"] == "tlr" and "tg128" in r:
            lines.append(
                f"tlr {r['type']}: 1 -> {out['threads']} threads "
                f"{r['tg128']['median'] / r['tg64_1t']['median']:.2f} x; "
                "pp2048 / pp512 "
                f"{r['pp2048']['median'] / r['pp512']['median']:.2f}; depth "
                f"4096 / 0 {r['tg_at_4096']['median'] / r['tg128']['median']:.2f}"
                f"; 4 branches {r['branch4_ratio']['median']:.2f} x one.")
    for name, why in out["skipped"].items():
        lines.append(f"Left out: {name}: {why}")
    return "\n".join(lines)


def machine():
    name = platform.machine()
    try:
        with open("/proc/cpuinfo") as f:
            names = [x.split(":")[1].strip() for x in f if
                     x.startswith("model name")]
        name = f"{names[0]}, {len(names)} logical processors"
    except (OSError, IndexError):
        pass
    return name


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--quick", action="store_true")
    p.add_argument("--minutes", type=float, default=60)
    p.add_argument("--threads", type=int)
    p.add_argument("--engines", default=",".join(ENGINES))
    p.add_argument("--tlr", default=os.path.join(ROOT, "tlr"))
    p.add_argument("--work", default=os.path.join(ROOT, "build", "peers"))
    p.add_argument("--out", default=os.path.join(ROOT, "bench", "results",
                                                 "peers.json"))
    args = p.parse_args()
    args.work = os.path.abspath(args.work)
    args.engines = args.engines.split(",")
    for name in args.engines:
        if name not in ENGINES:
            p.error(f"--engines: expected some of {','.join(ENGINES)}, found "
                    f"{name!r}")
    if args.quick:
        args.rounds = 2
    if not args.threads:
        args.threads = run([args.tlr, "bench", "--random", "tiny-qwen3", "-p",
                            "1", "-n", "1", "-r", "1", "--json"])["threads"]
    return args


def main():
    args = arguments()
    os.makedirs(args.work, exist_ok=True)
    os.makedirs(os.path.dirname(args.out), exist_ok=True)
    jobs, skipped = collect(args, Python(args.work))
    rows = rows_of(alternate(jobs, args.rounds, args.minutes, skipped))
    compare(rows)
    gb_s = add_share(rows)
    out = {"shape": SHAPE, "date": datetime.date.today().isoformat(),
           "machine": machine(), "threads": args.threads,
           "rounds": args.rounds, "read_gb_s": gb_s, "engines": rows,
           "skipped": skipped}
    with open(args.out, "w") as f:
        json.dump(out, f, indent=1)
        f.write("\n")
    text = markdown(out)
    with open(os.path.splitext(args.out)[0] + ".md", "w") as f:
        f.write(text + "\n")
    print(text)
    if not rows:
        sys.exit("peers: no engine could be run")


main()
