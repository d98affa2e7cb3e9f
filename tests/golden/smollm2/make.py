#!/usr/bin/env python3
"""Makes greedy.json and perplexity.json: what Hugging Face transformers says
about SmolLM2-135M-Instruct, read from the same GGUF that `make demo` fetches.

    python3 make.py MODEL.gguf

Needs torch, transformers and gguf.  transformers dequantises the GGUF to f32,
so the numbers are those of the exact weights with f32 arithmetic.
"""
import json
import math
import os
import sys

import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
N_NEW = 64
WINDOW = 512

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "The three most important rules for writing C are",
    "Water boils at",
    "def fibonacci(n):\n",
    "Q: If a train travels 60 miles in 1.5 hours, how fast is it?\nA:",
    "The sun rises in the east because",
    "Dear Sir or Madam,\n\nI am writing to",
    "In 1969, the first humans",
    "A recipe for simple bread: 500 g flour,",
]


def greedy(model, tokenizer, prompt):
    """Ids and, for every step, the gap between the two largest logits."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    prompt_ids = ids[0].tolist()
    out, gaps, tops = [], [], []
    past = None
    step = ids
    for _ in range(N_NEW):
        result = model(step, past_key_values=past, use_cache=True)
        past = result.past_key_values
        top = torch.topk(result.logits[0, -1], 2)
        out.append(int(top.indices[0]))
        gaps.append(round(float(top.values[0] - top.values[1]), 5))
        tops.append(round(float(top.values[0]), 4))
        step = top.indices[:1].view(1, 1)
    return {"prompt": prompt, "prompt_ids": prompt_ids, "ids": out,
            "gaps": gaps, "max_logits": tops}


def perplexity(model, tokenizer, text):
    """Windows of WINDOW tokens without overlap; in each, tokens from the second
    on are predicted from those before them in the window."""
    ids = tokenizer(text).input_ids
    nll, n = 0.0, 0
    for start in range(0, len(ids) - WINDOW + 1, WINDOW):
        window = torch.tensor([ids[start:start + WINDOW]])
        logits = model(window).logits[0].double()
        logp = torch.log_softmax(logits[:-1], dim=-1)
        nll -= float(logp.gather(1, window[0, 1:, None]).sum())
        n += WINDOW - 1
    return {"text": "english.txt", "window": WINDOW, "n_text_tokens": len(ids),
            "n_scored": n, "nll": nll, "perplexity": math.exp(nll / n)}


def main():
    gguf = os.path.abspath(sys.argv[1])
    folder, name = os.path.split(gguf)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, attn_implementation="eager")
    model.eval()
    made_with = {"torch": torch.__version__,
                 "transformers": transformers.__version__, "gguf_file": name}
    with torch.no_grad():
        runs = [greedy(model, tokenizer, p) for p in PROMPTS]
        with open(os.path.join(HERE, "english.txt"), encoding="utf-8") as f:
            ppl = perplexity(model, tokenizer, f.read())
    with open(os.path.join(HERE, "greedy.json"), "w", encoding="utf-8") as f:
        json.dump({"made_with": made_with, "runs": runs}, f, indent=1)
        f.write("\n")
    with open(os.path.join(HERE, "perplexity.json"), "w", encoding="utf-8") as f:
        json.dump({"made_with": made_with, **ppl}, f, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
