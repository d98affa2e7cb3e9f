#!/usr/bin/env python3
"""Trains the large half of the measuring pair: a LoRA adapter on SmolLM2-135M-Instruct.

Data are CommonsenseQA's training questions with chains of thought; the loss is
the cross-entropy of the chain's tokens, after the chat template and prompt that
`tlr eval --task csqa` sends. Only the upper layers are adapted: what the lower
ones make of an example never changes, so it is computed once and kept.

Resumable: state is written every few minutes and at the end of each epoch; a
run that is killed goes on where it was. Same seed, same order of examples.

    python bench/pair/train.py --base models/smollm2-135m-instruct.gguf \
        --data ../shared/data/csqa_slm_train.jsonl --out /tmp/pair
"""
import argparse
import json
import math
import os
import random
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class LowRank(torch.autograd.Function):
    """x W^T + scale (x A^T) B^T. The generic graph keeps and adds two outputs of
    the matrix's size where this accumulates in place: a third faster on a CPU."""

    @staticmethod
    def forward(ctx, x, w, a, b, scale):
        low = x @ a.t()
        ctx.save_for_backward(x, w, a, b, low)
        ctx.scale = scale
        return torch.addmm(x @ w.t(), low, b.t(), alpha=scale)

    @staticmethod
    def backward(ctx, g):
        x, w, a, b, low = ctx.saved_tensors
        g_low = (g @ b) * ctx.scale
        g_x = torch.addmm(g @ w, g_low, a)
        return g_x, None, g_low.t() @ x, (g.t() @ low) * ctx.scale, None


class Lora(torch.nn.Module):
    """y = W x + (alpha / r) B A x, W frozen (Hu et al., arXiv 2106.09685)."""

    def __init__(self, base, r, alpha):
        super().__init__()
        self.base, self.scale = base, alpha / r
        self.a = torch.nn.Parameter(torch.empty(r, base.in_features))
        self.b = torch.nn.Parameter(torch.zeros(base.out_features, r))
        torch.nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        y = LowRank.apply(flat, self.base.weight, self.a, self.b, self.scale)
        return y.view(*x.shape[:-1], -1)


def adapt(model, first_layer, r, alpha):
    """Wraps the matrices of layers first_layer.. ; returns {name: module}."""
    model.requires_grad_(False)
    loras = {}
    for i, layer in enumerate(model.model.layers):
        for part in (layer.self_attn, layer.mlp):
            for name in TARGETS:
                if i >= first_layer and hasattr(part, name):
                    room = "self_attn" if part is layer.self_attn else "mlp"
                    lora = Lora(getattr(part, name), r, alpha)
                    setattr(part, name, lora)
                    loras[f"model.layers.{i}.{room}.{name}"] = lora
    return loras


def examples(path, tokenizer, limit):
    """[(ids, n_prompt)] of each line, the end-of-turn token last."""
    out = []
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for line in list(open(path))[:limit]:
        d = json.loads(line)
        text = tokenizer.apply_chat_template([{"role": "user", "content": d["prompt"]}],
                                             tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        chain = tokenizer(d["cot"].strip(), add_special_tokens=False)["input_ids"]
        out.append((prompt + chain + [end], len(prompt)))
    return out


def batches(data, tokens, rng):
    """Groups of examples of like length, at most `tokens` padded tokens each."""
    order = list(range(len(data)))
    rng.shuffle(order)
    order.sort(key=lambda i: len(data[i][0]) // 8)
    out, group = [], []
    for i in order:
        width = max(len(data[k][0]) for k in group + [i])
        if group and width * (len(group) + 1) > tokens:
            out.append(group)
            group = []
        group.append(i)
    out.append(group)
    rng.shuffle(out)
    return out


class Lower:
    """The frozen layers' output of each example, computed once (f16 on disk)."""

    def __init__(self, model, data, first_layer, path):
        starts, n = [0], 0
        for ids, _ in data:
            n += len(ids)
            starts.append(n)
        fresh = not os.path.exists(path)
        size = n * model.config.hidden_size
        self.states = torch.from_file(path, shared=True, size=size, dtype=torch.float16)
        self.states = self.states.view(n, model.config.hidden_size)
        self.starts = starts
        self.done = torch.from_file(path + ".done", shared=True, size=len(data), dtype=torch.uint8)
        if fresh:
            self.done.zero_()
        self.model, self.first = model, first_layer

    @torch.no_grad()
    def get(self, ids, group, data):
        if not all(self.done[i] for i in group):
            body = self.model.model
            x = body.embed_tokens(ids)
            x = run_layers(body, x, 0, self.first)
            for row, i in enumerate(group):
                n = len(data[i][0])
                self.states[self.starts[i]:self.starts[i] + n] = x[row, :n].half()
                self.done[i] = 1
        out = torch.zeros(*ids.shape, self.model.config.hidden_size)
        for row, i in enumerate(group):
            n = len(data[i][0])
            out[row, :n] = self.states[self.starts[i]:self.starts[i] + n].float()
        return out


def run_layers(body, x, first, last):
    """Causal; padding is at the end of each row, so no mask is needed."""
    positions = torch.arange(x.shape[1])[None]
    rope = body.rotary_emb(x, positions)
    for layer in body.layers[first:last]:
        x = layer(x, attention_mask=None, position_ids=positions, position_embeddings=rope)
        x = x[0] if isinstance(x, tuple) else x
    return x


def loss_of(model, lower, group, data, first_layer):
    """Mean cross-entropy over the chains' tokens of a group; and their number."""
    width = max(len(data[i][0]) for i in group)
    ids = torch.zeros(len(group), width, dtype=torch.long)
    wanted = torch.full((len(group), width), -100)
    for row, i in enumerate(group):
        seq, n_prompt = data[i]
        ids[row, :len(seq)] = torch.tensor(seq)
        wanted[row, n_prompt - 1:len(seq) - 1] = torch.tensor(seq[n_prompt:])
    x = lower.get(ids, group, data)
    x = run_layers(model.model, x, first_layer, len(model.model.layers))
    asked = wanted >= 0
    logits = model.lm_head(model.model.norm(x[asked]))
    return F.cross_entropy(logits, wanted[asked]), int(asked.sum())


def save_adapter(loras, folder, r, alpha, log):
    """A Hugging Face PEFT folder, f16."""
    os.makedirs(folder, exist_ok=True)
    tensors = {}
    for name, lora in loras.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = lora.a.detach().half().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = lora.b.detach().half().contiguous()
    save_file(tensors, os.path.join(folder, "adapter_model.safetensors.part"), {"format": "pt"})
    os.replace(os.path.join(folder, "adapter_model.safetensors.part"),
               os.path.join(folder, "adapter_model.safetensors"))
    layers = sorted({int(n.split(".")[2]) for n in loras})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": r, "lora_alpha": alpha,
              "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
              "use_rslora": False, "use_dora": False, "target_modules": TARGETS,
              "layers_to_transform": layers,
              "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct"}
    with open(os.path.join(folder, "adapter_config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
    with open(os.path.join(folder, "train_log.json"), "w") as f:
        json.dump(log, f, indent=1)
        f.write("\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--base", required=True, help="GGUF file of SmolLM2-135M-Instruct")
    p.add_argument("--data", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--epochs", type=float, default=0.75)
    p.add_argument("--tokens", type=int, default=2048, help="padded tokens of a batch")
    p.add_argument("--lr", type=float, default=8e-4)
    p.add_argument("--rank", type=int, default=16)
    p.add_argument("--alpha", type=int, default=32)
    p.add_argument("--first-layer", type=int, default=12)
    p.add_argument("--held-out", type=int, default=144, help="last examples, for the loss only")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--limit", type=int, default=1 << 30)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    os.makedirs(a.out, exist_ok=True)
    folder, gguf = os.path.split(a.base)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=gguf, dtype=torch.float32,
                                                 attn_implementation="sdpa")
    model.eval()
    loras = adapt(model, a.first_layer, a.rank, a.alpha)
    data = examples(a.data, tokenizer, a.limit)
    held, data = data[len(data) - a.held_out:], data[:len(data) - a.held_out]
    lower = Lower(model, data, a.first_layer, os.path.join(a.out, "lower.f16"))
    held_lower = Lower(model, held, a.first_layer, os.path.join(a.out, "held.f16"))
    weights = [w for lora in loras.values() for w in (lora.a, lora.b)]
    opt = torch.optim.AdamW(weights, lr=a.lr, betas=(0.9, 0.95), weight_decay=0.01)
    plan = [g for e in range(math.ceil(a.epochs))
            for g in batches(data, a.tokens, random.Random(a.seed + e))]
    plan = plan[:round(len(plan) * a.epochs / math.ceil(a.epochs))]
    state_path = os.path.join(a.out, "state.pt")
    step, log = 0, []
    if os.path.exists(state_path):
        state = torch.load(state_path)
        step, log = state["step"], state["log"]
        opt.load_state_dict(state["opt"])
        for w, v in zip(weights, state["weights"]):
            w.data.copy_(v)

    def keep():
        torch.save({"step": step, "log": log, "opt": opt.state_dict(),
                    "weights": [w.data for w in weights]}, state_path + ".part")
        os.replace(state_path + ".part", state_path)
        save_adapter(loras, os.path.join(a.out, "adapter"), a.rank, a.alpha,
                     {"arguments": {k: v for k, v in vars(a).items() if k not in ("base", "data", "out")},
                      "log": log})

    begun, last, seen, total = time.time(), time.time(), 0, 0.0
    n_first, sum_loss, sum_n = step, 0.0, 0
    while step < len(plan):
        warm, rest = min(1.0, (step + 1) / 30), step / len(plan)
        for g in opt.param_groups:
            g["lr"] = a.lr * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * rest)))
        loss, n = loss_of(model, lower, plan[step], data, a.first_layer)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        opt.step()
        opt.zero_grad()
        sum_loss, sum_n, step = sum_loss + loss.item() * n, sum_n + n, step + 1
        seen += sum(len(data[i][0]) for i in plan[step - 1])
        if step % 20 == 0 or step == len(plan):
            spent = time.time() - begun
            left = spent / (step - n_first) * (len(plan) - step)
            print(f"step {step}/{len(plan)} loss {sum_loss / sum_n:.4f} "
                  f"{seen / spent:.0f} tok/s, {left / 60:.0f} min left", flush=True)
            log.append({"step": step, "loss": round(sum_loss / sum_n, 5)})
            sum_loss, sum_n = 0.0, 0
        if time.time() - last > 240 or step == len(plan):
            keep()
            last = time.time()
    with torch.no_grad():
        pairs = [loss_of(model, held_lower, [i], held, a.first_layer) for i in range(len(held))]
    value = sum(l.item() * n for l, n in pairs) / max(1, sum(n for _, n in pairs))
    print(f"held-out loss {value:.4f}")
    log.append({"step": step, "held_out_loss": round(value, 5)})
    keep()


if __name__ == "__main__":
    main()
