"""Times tlr's tokenizers against Hugging Face's, one thread each, in alternation.

    python bench/tokenize_vs_hf.py [--tlr PROGRAM] [--rounds N] [TEXT-FILE]

In the repository's root, with `pip install tokenizers gguf`.  SmolLM2's
tokenizer comes from models/smollm2-135m-instruct.gguf (make demo), Qwen3's from
../shared/data/qwen3-tokenizer; one that is missing is left out and named.
Without TEXT-FILE the text is every different prompt and answer of
../shared/data/*.jsonl.  The ids must be equal, or there are no times.

Neither side counts start and loading: tlr reports the time of the call that
encodes, and a fresh process makes it each round, so its caches are cold.
Hugging Face's keeps its caches from the comparison of the ids, and is timed
twice: encode, and encode_batch_fast, which leaves out offsets.  The ratio is
of medians, tlr against the faster of the two.  Times are of the clock on the
wall: cpu_share says how much of it each side got to run (tlr: of its whole
process), and where it is far from 1 or unlike, the machine was busy and the
ratio is not to be quoted.
"""
import argparse
import glob
import json
import lzma
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"  # before the library starts threads
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models
from tokenizers import pre_tokenizers as pre

GGUF = "models/smollm2-135m-instruct.gguf"
QWEN3 = "../shared/data/qwen3-tokenizer/tokenizer.json.xz"


def smollm2():
    """As in tests/golden/tokenizer/make.py."""
    import gguf
    fields = gguf.GGUFReader(GGUF).fields
    tokens, types, merges = (fields["tokenizer.ggml." + k].contents()
                             for k in ("tokens", "token_type", "merges"))
    tok = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)},
                               merges=[tuple(m.split(" ")) for m in merges]))
    tok.pre_tokenizer = pre.Sequence(
        [pre.Digits(individual_digits=True),
         pre.ByteLevel(add_prefix_space=False, use_regex=True)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False)
                            for t, k in zip(tokens, types) if k == 3])
    return GGUF, tok


def qwen3(folder):
    with lzma.open(QWEN3, "rt", encoding="utf-8") as f:
        text = f.read()
    path = os.path.join(folder, "tokenizer.json")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path, Tokenizer.from_str(text)


def strings_of(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for v in value:
            yield from strings_of(v)
    elif isinstance(value, dict):
        for k, v in value.items():
            if k != "id":
                yield from strings_of(v)


def corpus():
    """Each line of the data sets once: their prompts repeat instructions."""
    seen = {}
    for path in sorted(glob.glob("../shared/data/*.jsonl")):
        with open(path, encoding="utf-8") as f:
            for row in f:
                for text in strings_of(json.loads(row)):
                    seen.update(dict.fromkeys(text.splitlines()))
    return "\n".join(seen)


def cpu_seconds(who):
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def run_tlr(program, model, text_path):
    """(ids, seconds, share of a processor) of one process."""
    begun, cpu = time.perf_counter(), cpu_seconds(resource.RUSAGE_CHILDREN)
    with open(text_path, "rb") as f:
        out = subprocess.run([program, "tokenize", model, "-", "--json", "--no-bos"],
                             stdin=f, stdout=subprocess.PIPE, check=True).stdout
    wall = time.perf_counter() - begun
    share = (cpu_seconds(resource.RUSAGE_CHILDREN) - cpu) / wall
    answer = json.loads(out)
    return answer["ids"], answer["encode_ms"] / 1e3, share


def timed(call):
    """(seconds, share of a processor) of a call in this process."""
    begun, cpu = time.perf_counter(), cpu_seconds(resource.RUSAGE_SELF)
    call()
    wall = time.perf_counter() - begun
    return wall, (cpu_seconds(resource.RUSAGE_SELF) - cpu) / wall


def compare(args, model, tok, text, text_path):
    n_bytes = len(text.encode())
    ids, _, _ = run_tlr(args.tlr, model, text_path)
    want = tok.encode(text, add_special_tokens=False).ids
    if ids != want:
        at = next((i for i, (a, b) in enumerate(zip(ids, want)) if a != b),
                  min(len(ids), len(want)))
        sys.exit(f"{model}: ids differ at {at}: tlr {ids[at:at + 5]}, "
                 f"Hugging Face {want[at:at + 5]}")
    ways = {"tlr": lambda: run_tlr(args.tlr, model, text_path)[1:],
            "hf_encode": lambda: timed(
                lambda: tok.encode(text, add_special_tokens=False))}
    if hasattr(tok, "encode_batch_fast"):
        ways["hf_encode_batch_fast"] = lambda: timed(
            lambda: tok.encode_batch_fast([text], add_special_tokens=False))
    rates = {name: [] for name in ways}
    shares = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            seconds, share = way()
            rates[name].append(n_bytes / seconds / 1e6)
            shares[name].append(share)
    result = {name: {"median": round(statistics.median(r), 3),
                     "min": round(min(r), 3), "max": round(max(r), 3),
                     "cpu_share": round(statistics.median(shares[name]), 2)}
              for name, r in rates.items()}
    best = max(v["median"] for k, v in result.items() if k != "tlr")
    return {"ids": len(ids), "same_ids": True, "mb_per_s": result,
            "ratio": round(result["tlr"]["median"] / best, 3)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="?", metavar="TEXT-FILE")
    parser.add_argument("--tlr", default="./tlr")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    if args.text:
        with open(args.text, encoding="utf-8", newline="") as f:
            text = f.read()
    else:
        text = corpus()
    if not text:
        sys.exit("no ../shared/data/*.jsonl: give a text file of some megabytes")
    out = {"text_bytes": len(text.encode()), "rounds": args.rounds,
           "tokenizers": tokenizers.__version__, "threads": 1, "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        text_path = os.path.join(folder, "text")
        with open(text_path, "w", encoding="utf-8", newline="") as f:
            f.write(text)
        for name, source, make in (("smollm2", GGUF, smollm2),
                                   ("qwen3", QWEN3, lambda: qwen3(folder))):
            out["models"][name] = (compare(args, *make(), text, text_path)
                                   if os.path.exists(source)
                                   else {"left_out": source + " is missing"})
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
