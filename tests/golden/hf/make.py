#!/usr/bin/env python3
"""Goldens of tests/model: logits and hidden states from Hugging Face.

Builds each model from its configuration with the seeded random weights of
convert/random.c (same rule, in NumPy), runs it in float32 with eager attention
on 4096 seeded ids, and writes samples at positions 1, 17, 512 and 4096 (tokens
consumed) to NAME.json beside this file.

    make.py [NAME...]     needs torch, transformers, numpy
"""
import json
import math
import os
import sys

import numpy as np
import torch
import transformers
from transformers import (LlamaConfig, LlamaForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

POSITIONS = [1, 17, 512, 4096]
SEED = 1
TINY = dict(hidden_size=64, intermediate_size=160, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, vocab_size=320,
            max_position_embeddings=8192)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0,
              low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=1024)


def theta(value):
    return dict(rope_type="default", rope_theta=value)


MODELS = {
    "tiny-qwen2": (Qwen2Config, Qwen2ForCausalLM, dict(
        TINY, rms_norm_eps=1e-6, rope_parameters=theta(1e6),
        tie_word_embeddings=False)),
    "tiny-qwen3": (Qwen3Config, Qwen3ForCausalLM, dict(
        TINY, head_dim=32, rms_norm_eps=1e-6, rope_parameters=theta(1e6),
        tie_word_embeddings=True)),
    "tiny-llama": (LlamaConfig, LlamaForCausalLM, dict(
        TINY, rms_norm_eps=1e-5, rope_parameters=theta(1e4),
        tie_word_embeddings=True)),
    "tiny-llama3": (LlamaConfig, LlamaForCausalLM, dict(
        TINY, rms_norm_eps=1e-5, rope_parameters=LLAMA3,
        tie_word_embeddings=False)),
    "qwen2.5-0.5b": (Qwen2Config, Qwen2ForCausalLM, dict(
        hidden_size=896, intermediate_size=4864, num_hidden_layers=24,
        num_attention_heads=14, num_key_value_heads=2, vocab_size=151936,
        max_position_embeddings=32768, rms_norm_eps=1e-6,
        rope_parameters=theta(1e6), tie_word_embeddings=True)),
}

# Hugging Face's name of a tensor -> ours.
ROLES = {
    "self_attn.q_proj.weight": "q", "self_attn.k_proj.weight": "k",
    "self_attn.v_proj.weight": "v", "self_attn.o_proj.weight": "o",
    "self_attn.q_proj.bias": "q_bias", "self_attn.k_proj.bias": "k_bias",
    "self_attn.v_proj.bias": "v_bias", "self_attn.q_norm.weight": "q_norm",
    "self_attn.k_norm.weight": "k_norm", "mlp.gate_proj.weight": "gate",
    "mlp.up_proj.weight": "up", "mlp.down_proj.weight": "down",
    "input_layernorm.weight": "attn_norm",
    "post_attention_layernorm.weight": "ffn_norm",
}


def our_name(name):
    fixed = {"model.embed_tokens.weight": "embed", "lm_head.weight": "head",
             "model.norm.weight": "final_norm"}
    if name in fixed:
        return fixed[name]
    _, _, layer, role = name.split(".", 3)
    return f"blk.{layer}.{ROLES[role]}"


def hash_name(seed, name):
    h = 0xCBF29CE484222325 ^ seed
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & (2**64 - 1)
    return h


def hash_u64(seed, first, count):
    with np.errstate(over="ignore"):
        i = np.arange(first + 1, first + count + 1, dtype=np.uint64)
        z = np.uint64(seed) + i * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def random_tensor(name, shape):
    count = int(np.prod(shape))
    bits = hash_u64(hash_name(SEED, name), 0, count) >> np.uint64(40)
    u = bits.astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    if name.endswith("norm"):
        u = np.float32(1) + np.float32(0.1) * u
    elif len(shape) == 1:
        u = np.float32(0.1) * u
    else:
        u = u * np.float32(math.sqrt(3.0) / math.sqrt(shape[1]))
    return torch.from_numpy(u.reshape(shape))


def build(name):
    config_class, model_class, fields = MODELS[name]
    config = config_class(**fields, attn_implementation="eager",
                          bos_token_id=None, eos_token_id=None)
    with torch.device("meta"):
        model = model_class(config)
    model = model.to_empty(device="cpu").float().eval()
    with torch.no_grad():
        for hf_name, p in model.named_parameters():
            p.copy_(random_tensor(our_name(hf_name), tuple(p.shape)))
    # to_empty left the rotary buffers undefined: make that module again.
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config=config)
    model.tie_weights()
    return model


def sample(logits, hidden, n):
    vocab, dim = logits.shape[0], hidden.shape[0]
    ids = sorted({int(h) % vocab for h in hash_u64(11 + n, 0, 64)})
    at = sorted({int(h) % dim for h in hash_u64(13 + n, 0, 32)})
    number = lambda x: float(f"{float(x):.9g}")
    return {
        "n": n,
        "max_abs": number(logits.abs().max()),
        "argmax": int(logits.argmax()),
        "ids": ids, "logits": [number(logits[i]) for i in ids],
        "at": at, "hidden": [number(hidden[i]) for i in at],
    }


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    for name in sys.argv[1:] or list(MODELS):
        model = build(name)
        vocab = model.config.vocab_size
        ids = (hash_u64(7, 0, max(POSITIONS)) % np.uint64(vocab))
        ids = torch.from_numpy(ids.astype(np.int64))[None]
        with torch.no_grad():
            hidden = model.model(ids, use_cache=False).last_hidden_state[0]
            rows = hidden[[n - 1 for n in POSITIONS]]
            logits = model.lm_head(rows)
        samples = [sample(logits[i], rows[i], n)
                   for i, n in enumerate(POSITIONS)]
        out = {"model": name, "transformers": transformers.__version__,
               "torch": torch.__version__.split("+")[0], "positions": samples}
        with open(os.path.join(here, name + ".json"), "w") as f:
            json.dump(out, f)
            f.write("\n")
        print(name, [(s["n"], s["max_abs"], s["argmax"]) for s in samples])


main()
