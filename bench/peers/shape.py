"""The shape that all engines are given, and files of it with random weights.

Speed does not depend on what the weights are as long as they are ordinary
numbers: normal, variance 1/columns, norms of one.  A GGUF file has no
vocabulary (llama.cpp needs none to decode ids); a Hugging Face folder has what
onnxruntime-genai's and openvino's builders ask for.
"""
import json
import os

import numpy as np

DIM, FFN, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 896, 4864, 24, 14, 2, 64
VOCAB, MAX_CTX, EPS, THETA = 151936, 32768, 1e-6, 1e6
KV_DIM = KV_HEADS * HEAD_DIM

# Of a layer: GGUF's name, Hugging Face's, rows, columns (0: a vector).
LAYER = [
    ("attn_norm", "input_layernorm.weight", DIM, 0),
    ("attn_q", "self_attn.q_proj.weight", DIM, DIM),
    ("attn_q.bias", "self_attn.q_proj.bias", DIM, 0),
    ("attn_k", "self_attn.k_proj.weight", KV_DIM, DIM),
    ("attn_k.bias", "self_attn.k_proj.bias", KV_DIM, 0),
    ("attn_v", "self_attn.v_proj.weight", KV_DIM, DIM),
    ("attn_v.bias", "self_attn.v_proj.bias", KV_DIM, 0),
    ("attn_output", "self_attn.o_proj.weight", DIM, DIM),
    ("ffn_norm", "post_attention_layernorm.weight", DIM, 0),
    ("ffn_gate", "mlp.gate_proj.weight", FFN, DIM),
    ("ffn_up", "mlp.up_proj.weight", FFN, DIM),
    ("ffn_down", "mlp.down_proj.weight", DIM, FFN),
]


def tensors():
    """(gguf name, hf name, f32 array), one at a time."""
    rng = np.random.default_rng(3)

    def make(name, rows, cols):
        if cols:
            a = rng.standard_normal((rows, cols), dtype=np.float32)
            return a * np.float32(cols ** -0.5)
        if name.endswith("bias"):
            return rng.standard_normal(rows, dtype=np.float32)
        return np.ones(rows, np.float32)

    yield ("token_embd.weight", "model.embed_tokens.weight",
           make("embd", VOCAB, DIM))
    yield "output_norm.weight", "model.norm.weight", make("norm", DIM, 0)
    for i in range(LAYERS):
        for short, hf, rows, cols in LAYER:
            name = short if short.endswith(".bias") else short + ".weight"
            yield (f"blk.{i}.{name}", f"model.layers.{i}.{hf}",
                   make(short, rows, cols))


def add_vocab(w, folder):
    """A byte-level BPE vocabulary from a tokenizer.json(.xz)."""
    import lzma
    path = os.path.join(folder, "tokenizer.json")
    opened = open(path, "rb") if os.path.exists(path) else lzma.open(path + ".xz")
    with opened as f:
        t = json.load(f)
    tokens = [f"[PAD{i}]" for i in range(VOCAB)]
    types = [5] * VOCAB  # unused
    for text, i in t["model"]["vocab"].items():
        tokens[i], types[i] = text, 1
    for a in t["added_tokens"]:
        tokens[a["id"]], types[a["id"]] = a["content"], 3
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types(types)
    w.add_token_merges([m if isinstance(m, str) else " ".join(m)
                        for m in t["model"]["merges"]])
    w.add_eos_token_id(151645)
    w.add_pad_token_id(151643)
    w.add_bos_token_id(151643)


def write_gguf(path, type_name, tokenizer=None):
    """type_name of the body: Q4_0 or Q8_0.  The head, tied to the embedding, is
    Q8_0 in both, as llama-quantize leaves it (896 is no multiple of 256)."""
    import gguf
    quant = gguf.GGMLQuantizationType
    w = gguf.GGUFWriter(path + ".tmp", "qwen2")
    w.add_name("random")
    w.add_block_count(LAYERS)
    w.add_context_length(MAX_CTX)
    w.add_embedding_length(DIM)
    w.add_feed_forward_length(FFN)
    w.add_head_count(HEADS)
    w.add_head_count_kv(KV_HEADS)
    w.add_layer_norm_rms_eps(EPS)
    w.add_rope_freq_base(THETA)
    w.add_vocab_size(VOCAB)
    if tokenizer:
        add_vocab(w, tokenizer)
    else:
        w.add_tokenizer_model("no_vocab")
    w.add_file_type(getattr(gguf.LlamaFileType, "MOSTLY_" + type_name))
    for name, _, a in tensors():
        if a.ndim == 1:
            w.add_tensor(name, a)
            continue
        t = quant.Q8_0 if name == "token_embd.weight" else quant[type_name]
        w.add_tensor(name, gguf.quants.quantize(a, t), raw_dtype=t)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    os.replace(path + ".tmp", path)


CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
    "hidden_size": DIM, "intermediate_size": FFN, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCAB, "max_position_embeddings": MAX_CTX,
    "rms_norm_eps": EPS, "rope_theta": THETA, "hidden_act": "silu",
    "tie_word_embeddings": True, "torch_dtype": "float32",
    "bos_token_id": 151643, "eos_token_id": 151645, "use_cache": True,
    "attention_dropout": 0.0, "initializer_range": 0.02,
    "use_sliding_window": False, "sliding_window": None,
}


def write_hf(folder, tokenizer=None):
    """f32 safetensors; tokenizer: a folder whose files go along, or None."""
    import lzma
    import shutil

    from safetensors.numpy import save_file
    os.makedirs(folder, exist_ok=True)
    if tokenizer:
        for f in os.listdir(tokenizer):
            at = os.path.join(tokenizer, f)
            if f.endswith(".xz"):
                with open(os.path.join(folder, f[:-3]), "wb") as out:
                    out.write(lzma.open(at).read())
            elif f.endswith((".json", ".txt")) and f != "config.json":
                shutil.copy(at, folder)
    with open(os.path.join(folder, "generation_config.json"), "w") as f:
        json.dump({"bos_token_id": 151643, "eos_token_id": [151645],
                   "pad_token_id": 151643}, f)
    save_file({hf: a for _, hf, a in tensors()},
              os.path.join(folder, "model.safetensors"),
              metadata={"format": "pt"})
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(CONFIG, f, indent=1)  # last: says that the folder is whole
