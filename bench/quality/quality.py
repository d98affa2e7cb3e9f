"""Perplexity and KL divergence of tlr's and llama.cpp's quantisations of one model.

    python quality.py --source model.gguf --data DATA --work DIR [--tlr ./tlr]
                      [--windows 8] [--threads N] [--calibrate-tokens N]
                      [--only NAME ...]

Makes off-grid f32 weights of a GGUF model (offgrid.py), has llama.cpp quantise
them to Q4_0, Q4_K_M and Q8_0 and tlr to q4 and q8, and compares what each says
about held-out text with what the f32 weights say in llama.cpp.  Everything is
kept in DIR and made once.  Writes DIR/quality.json and DIR/quality.md, prints
the latter.  README.md says what the figures can and cannot prove.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys

import llama_cpp
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
CTX = 512
TEXTS = ("reasoning", "plain")
FTYPES = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15, "IQ4_NL": 25}


def run(*command):
    subprocess.run([str(c) for c in command], check=True)


def quantise_llama(source, output, ftype):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = ftype
    params.nthread = os.cpu_count()
    rc = llama_cpp.llama_model_quantize(str(source).encode(),
                                        str(output).encode(), params)
    if rc:
        raise SystemExit(f"{output}: llama.cpp refused with {rc}")


class LlamaModel:
    """Logits of the second half of each window, as `tlr perplexity` has them."""

    def __init__(self, path, threads):
        self.model = llama_cpp.Llama(str(path), n_ctx=CTX, n_batch=CTX,
                                     logits_all=True, verbose=False,
                                     n_threads=threads,
                                     n_threads_batch=threads)

    def records(self, text, windows):
        ids = self.model.tokenize(text.encode(), add_bos=False, special=False)
        for i in range(min(windows, len(ids) // CTX)):
            window = ids[i * CTX:(i + 1) * CTX]
            self.model.reset()
            self.model.eval(window)
            for at in range(CTX // 2, CTX - 1):
                yield window[at + 1], self.model.scores[at]


def tlr_records(tlr, model, path, windows, work, act):
    """The same from `tlr perplexity --logits`."""
    dump = work / "logits.bin"
    run(tlr, "perplexity", model, path, "--ctx", CTX, "--chunks", windows,
        "--act", act, "--logits", dump)
    n_vocab = json.loads(subprocess.run(
        [str(tlr), "inspect", "--json", str(model)], check=True,
        capture_output=True).stdout)["config"]["n_vocab"]
    record = np.dtype([("id", "<i4"), ("logits", "<f4", (n_vocab,))])
    for r in np.memmap(dump, dtype=record, mode="r"):
        yield int(r["id"]), r["logits"]
    dump.unlink()


def log_softmax(logits):
    x = logits.astype(np.float64)
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


class Reference:
    """Log-probabilities of the f32 model, kept on disk as f32."""

    def __init__(self, model, texts, windows, work, threads):
        self.ids, self.path = {}, {}
        for name in TEXTS:
            self.path[name] = work / f"reference-{name}.npy"
            ids_path = work / f"reference-{name}.ids.npy"
            if not self.path[name].exists():
                rows, ids = [], []
                llama = LlamaModel(model, threads)
                for token, logits in llama.records(texts[name], windows):
                    ids.append(token)
                    rows.append(log_softmax(logits).astype(np.float32))
                np.save(ids_path, np.array(ids))
                np.save(self.path[name], np.stack(rows))
            self.ids[name] = np.load(ids_path)

    def compare(self, records, name):
        """Sums over the predicted ids of one text."""
        log_p = np.load(self.path[name], mmap_mode="r")
        nll, reference_nll, kl, same = [], [], [], 0
        for i, (token, logits) in enumerate(records):
            if token != self.ids[name][i]:
                raise SystemExit(f"{name}: predicted id {i}: expected "
                                 f"{self.ids[name][i]}, found {token}; the "
                                 "tokenizers differ")
            q = log_softmax(logits)
            p = log_p[i].astype(np.float64)
            nll.append(-q[token])
            reference_nll.append(-p[token])
            kl.append(float(np.sum(np.exp(p) * (p - q))))
            same += int(np.argmax(p) == np.argmax(q))
        return {"nll": nll, "reference_nll": reference_nll, "kl": kl,
                "same": same}


def summary(parts):
    nll = np.concatenate([p["nll"] for p in parts])
    ref = np.concatenate([p["reference_nll"] for p in parts])
    kl = np.concatenate([p["kl"] for p in parts])
    delta = nll - ref
    n = len(nll)
    return {"tokens": n, "ppl": float(np.exp(nll.mean())),
            "ppl_ratio": float(np.exp(delta.mean())),
            "ppl_ratio_error": float(np.exp(delta.mean()) * delta.std()
                                     / np.sqrt(n)),
            "kl": float(kl.mean()), "kl_error": float(kl.std() / np.sqrt(n)),
            "kl_99": float(np.quantile(kl, 0.99)),
            "same_top": sum(p["same"] for p in parts) / n}


def measure(reference, records_of):
    parts = {name: reference.compare(records_of(name), name) for name in TEXTS}
    out = summary(list(parts.values()))
    for name in TEXTS:
        out[name] = summary([parts[name]])
    return out


def markdown(rows):
    lines = ["| engine | type | file bytes | ppl | ppl / f32 | mean KL | "
             "99 % KL | same top id | " +
             " | ".join(f"KL {name}" for name in TEXTS) + " |",
             "|---" * (8 + len(TEXTS)) + "|"]
    for r in rows:
        lines.append(
            f"| {r['engine']} | {r['type']} | {r['bytes']:,} | {r['ppl']:.3f} |"
            f" {r['ppl_ratio']:.4f} +- {r['ppl_ratio_error']:.4f} |"
            f" {r['kl']:.5f} +- {r['kl_error']:.5f} | {r['kl_99']:.3f} |"
            f" {100 * r['same_top']:.1f} % | " +
            " | ".join(f"{r[name]['kl']:.5f}" for name in TEXTS) + " |")
    return "\n".join(lines) + "\n"


def tlr_bytes_per_token(tlr, model):
    out = subprocess.run([str(tlr), "inspect", "--json", str(model)],
                         check=True, capture_output=True).stdout
    return json.loads(out)["weight_bytes_per_token"]


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--source", required=True)
    args.add_argument("--data", required=True)
    args.add_argument("--work", required=True, type=pathlib.Path)
    args.add_argument("--tlr", default=HERE.parents[1] / "tlr")
    args.add_argument("--windows", type=int, default=8)
    args.add_argument("--threads", type=int, default=os.cpu_count())
    args.add_argument("--calibrate-tokens", type=int, default=32768)
    args.add_argument("--only", nargs="*", default=[])
    a = args.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    source = a.work / "offgrid.gguf"
    if not source.exists():
        run(sys.executable, HERE / "offgrid.py", a.source, source)
    run(sys.executable, HERE / "texts.py", a.data, a.work)
    texts = {n: (a.work / f"{n}.txt").read_text(encoding="utf-8")
             for n in TEXTS}
    reference = Reference(source, texts, a.windows, a.work, a.threads)
    calibration = ["--calibrate", a.work / "calibration.txt",
                   "--calibrate-tokens", a.calibrate_tokens]
    variants = [("llama.cpp", "f32", None, None),
                ("llama.cpp", "Q4_0", None, None),
                ("llama.cpp", "IQ4_NL", None, None),
                ("llama.cpp", "Q4_K_M", None, None),
                ("llama.cpp", "Q8_0", None, None),
                ("tlr", "f32", ["--type", "f32"], "int8")]
    for kind, options in (("q8", ["--type", "q8"]),
                          ("q4-plain", ["--type", "q4-plain"]),
                          ("q4", ["--type", "q4"]),
                          ("q4 calibrated", ["--type", "q4", *calibration])):
        variants += [("tlr", f"{kind} {act}", options, act)
                     for act in ("int8", "int16")]
    results = a.work / "quality.json"
    rows = json.loads(results.read_text()) if results.exists() else []
    converted = set()
    for engine, kind, options, act in variants:
        label = f"{engine} {kind}"
        if a.only and label not in a.only:
            continue
        if not a.only and any(r["engine"] == engine and r["type"] == kind
                              for r in rows):
            continue
        if engine == "llama.cpp":
            path = source if kind == "f32" else a.work / f"{kind}.gguf"
            if not path.exists():
                quantise_llama(source, path, FTYPES[kind])
            model = LlamaModel(path, a.threads)
            row = measure(reference,
                          lambda n: model.records(texts[n], a.windows))
            del model
        else:
            name = kind.removesuffix(act).strip().replace(" ", "-")
            path = a.work / f"{name}.bin"
            if path not in converted:
                run(a.tlr, "convert", source, "-o", path, *options)
                converted.add(path)
            row = measure(reference, lambda n: tlr_records(
                a.tlr, path, a.work / f"{n}.txt", a.windows, a.work, act))
            row["bytes_per_token"] = tlr_bytes_per_token(a.tlr, path)
        row |= {"engine": engine, "type": kind, "bytes": path.stat().st_size}
        rows = [r for r in rows if (r["engine"], r["type"]) != (engine, kind)]
        rows.append(row)
        results.write_text(json.dumps(rows, indent=1))
        print(label, f"ppl ratio {row['ppl_ratio']:.4f} KL {row['kl']:.5f}",
              file=sys.stderr, flush=True)
    (a.work / "quality.md").write_text(markdown(rows))
    print(markdown(rows))


if __name__ == "__main__":
    main()
