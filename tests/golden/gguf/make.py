"""Golden data of GGUF, made with the gguf package.

    python make.py       # needs gguf, numpy, safetensors (with torch)

blocks.bin: for every block type that tlr reads, random blocks and what
gguf.quants.dequantize makes of them.  Records, little-endian: u32 type,
u32 n_blocks, u32 n_values, the blocks, n_values f32.

tiny-llama3.gguf, tiny-qwen2.gguf: the models of ../hf_folders as BF16 GGUF
files; llama's q and k rows are interleaved, its rope factors are a tensor.
"""
import json
import pathlib
import struct

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T
from safetensors import safe_open

HERE = pathlib.Path(__file__).parent
FOLDERS = HERE.parent / "hf_folders"

# Byte offsets of the f16 fields of a block, which random bytes may not fill.
SCALES = {T.Q8_0: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.IQ4_NL: [0], T.Q5_0: [0],
          T.Q5_1: [0, 2], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
          T.F16: [0]}


def blocks_of(t, rng):
    n_elems, n_bytes = GGML_QUANT_SIZES[t]
    n = 3 if n_elems > 1 else 40
    raw = rng.integers(0, 256, (n, n_bytes), dtype=np.uint8)
    for at in SCALES.get(t, []):
        raw[:, at:at + 2] = rng.normal(0, 0.1, n).astype("<f2").view(
            np.uint8).reshape(n, 2)
    if t in (T.F32, T.BF16):  # exponents of ordinary numbers
        raw[:, -1] = rng.choice([0x3e, 0x3f, 0xbe, 0xbf], n)
    return raw


def make_blocks():
    rng = np.random.default_rng(5)
    with open(HERE / "blocks.bin", "wb") as f:
        for t in (T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1,
                  T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_NL):
            raw = blocks_of(t, rng)
            flat = raw.reshape(1, -1)
            if t == T.F32:
                values = flat.view("<f4")
            elif t == T.F16:
                values = flat.view("<f2").astype("<f4")
            else:
                values = gguf.quants.dequantize(flat, t)
            values = np.ascontiguousarray(values, dtype="<f4")
            f.write(struct.pack("<III", int(t), len(raw), values.size))
            f.write(raw.tobytes() + values.tobytes())


NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "lm_head.weight": "output.weight", "model.norm.weight": "output_norm.weight",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    stem, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[stem]}.{kind}"


def interleave(w, n_heads):
    """Halves to pairs, as convert_hf_to_gguf stores llama's q and k."""
    return (w.reshape(n_heads, 2, w.shape[0] // n_heads // 2, w.shape[1])
            .transpose(0, 2, 1, 3).reshape(w.shape))


def rope_factors(c):
    rope = c["rope_scaling"]
    half = c["head_dim"] // 2
    wave = 2 * np.pi * c["rope_theta"] ** (np.arange(half) / half)
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    smooth = ((rope["original_max_position_embeddings"] / wave
               - rope["low_freq_factor"])
              / (rope["high_freq_factor"] - rope["low_freq_factor"]))
    mixed = 1 / ((1 - smooth) / rope["factor"] + smooth)
    return np.where(wave < high, 1.0,
                    np.where(wave > low, rope["factor"], mixed)).astype("<f4")


def add_vocab(w, folder, pre):
    tok = json.loads((folder / "tokenizer.json").read_text())
    tokens = {i: (t, 1) for t, i in tok["model"]["vocab"].items()}
    for a in tok["added_tokens"]:
        tokens[a["id"]] = (a["content"], 3)
    n = max(tokens) + 1
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list([tokens[i][0] for i in range(n)])
    w.add_token_types([tokens[i][1] for i in range(n)])
    w.add_token_merges([m if isinstance(m, str) else " ".join(m)
                        for m in tok["model"]["merges"]])
    ids = {t: i for i, (t, _) in tokens.items()}
    if pre == "llama-bpe":
        w.add_bos_token_id(ids["<|begin_of_text|>"])
        w.add_add_bos_token(True)
        w.add_eos_token_id(ids["<|eot_id|>"])
    else:
        w.add_eos_token_id(ids["<|im_end|>"])


def make_model(name, arch, pre):
    folder = FOLDERS / name
    c = json.loads((folder / "config.json").read_text())
    w = gguf.GGUFWriter(HERE / f"{name}.gguf", arch)
    w.add_block_count(c["num_hidden_layers"])
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    theta = c.get("rope_theta") or c["rope_parameters"]["rope_theta"]
    w.add_rope_freq_base(theta)
    add_vocab(w, folder, pre)
    template = folder / "chat_template.jinja"
    if template.exists():
        w.add_chat_template(template.read_text())
    if arch == "llama":
        w.add_tensor("rope_freqs.weight", rope_factors(c))
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as f:
            for key in f.keys():
                value = f.get_tensor(key).float().numpy()
                out = gguf_name(key)
                if arch == "llama" and ("attn_q." in out or "attn_k." in out):
                    heads = ("num_attention_heads" if "attn_q" in out
                             else "num_key_value_heads")
                    value = interleave(value, c[heads])
                if value.ndim == 1:
                    w.add_tensor(out, value)
                    continue
                bf16 = (value.view(np.uint32) >> 16).astype("<u2")
                w.add_tensor(out, bf16.view(np.uint8), raw_dtype=T.BF16)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    make_blocks()
    make_model("tiny-llama3", "llama", "llama-bpe")
    make_model("tiny-qwen2", "qwen2", "qwen2")
    for p in sorted(HERE.glob("*.[bg]*")):
        print(p.name, p.stat().st_size)
