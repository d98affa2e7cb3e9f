#!/usr/bin/env python3
"""Makes label.json: what Hugging Face transformers says about gold chains of
thought under SmolLM2-135M-Instruct, read from the GGUF that `make demo` fetches.

    python3 make_label.py MODEL.gguf csqa_router_train.jsonl

For the first questions of the file (CommonsenseQA with CITER's chains; MIT): the
line itself, the ids of prompt and chain after the model's own chat template, and
for every token of the chain and its end the likeliest id, the gap between the two
largest logits, the gold id's probability and the entropy. f32 arithmetic.
"""
import json
import os
import sys

import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
N_LINES = 4


def main():
    folder, name = os.path.split(sys.argv[1])
    tok = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32)
    model.eval()
    out = []
    for line in open(sys.argv[2]).readlines()[:N_LINES]:
        d = json.loads(line)
        text = tok.apply_chat_template([{"role": "user", "content": d["prompt"]}],
                                       tokenize=False, add_generation_prompt=True)
        prompt = tok(text, add_special_tokens=False)["input_ids"]
        chain = tok(d["cot"].strip(), add_special_tokens=False)["input_ids"]
        ids = prompt + chain + [tok.convert_tokens_to_ids("<|im_end|>")]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, len(prompt) - 1:-1].double()
        top = torch.topk(logits, 2)
        p = torch.softmax(logits, -1)
        gold = torch.tensor(ids[len(prompt):])
        entropy = -(p * torch.log(p)).sum(-1)
        out.append({
            "item": {k: d[k] for k in ("question", "choices", "answerKey", "cot")},
            "n_prompt": len(prompt), "ids": ids, "slm": top.indices[:, 0].tolist(),
            "gap": [round(float(x), 5) for x in top.values[:, 0] - top.values[:, 1]],
            "p": [round(float(x), 7) for x in p.gather(1, gold[:, None])[:, 0]],
            "entropy": [round(float(x), 6) for x in entropy]})
    with open(os.path.join(HERE, "label.json"), "w") as f:
        json.dump(out, f)
        f.write("\n")


if __name__ == "__main__":
    main()
