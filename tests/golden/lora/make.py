"""Writes PEFT LoRA adapters for the tiny folders of ../hf_folders, and the
logits of the models that PEFT merges.

    python make.py        # needs torch, transformers 5, safetensors, peft

Each folder: what save_pretrained writes, plus expected.json: text, ids, and the
logits of merge_and_unload in f32 at two positions.  Together the adapters cover
the three element types, both scales, both patterns (PEFT sorts the keys and takes the
first that fits), a head and left-out layers.
"""
import json
import math
import pathlib
import shutil

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
FOLDERS = HERE.parent / "hf_folders"
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]

# The base, the element type, LoraConfig.
ADAPTERS = {
    "plain": ("tiny-llama3", torch.float32, dict(
        r=4, lora_alpha=8, target_modules=ATTENTION + MLP)),
    "patterns": ("tiny-qwen2", torch.float16, dict(
        r=4, lora_alpha=6, use_rslora=True, target_modules=ATTENTION + MLP + ["lm_head"],
        rank_pattern={"layers.1.self_attn.v_proj": 2, "v_proj": 3, "mlp.down_proj": 7},
        alpha_pattern={"q_proj": 2.5, "layers.0.mlp.up_proj": 9})),
    "upper": ("tiny-llama", torch.bfloat16, dict(
        r=8, lora_alpha=4, target_modules=["q_proj", "v_proj", "down_proj"],
        layers_to_transform=[1])),
}


def base_of(name):
    return AutoModelForCausalLM.from_pretrained(FOLDERS / name, dtype=torch.float32).eval()


def randomise(model, seed):
    """Factors whose product is about as large as the weights themselves."""
    gen = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if "lora_" in name:
            noise = torch.randn(p.shape, generator=gen)
            p.data = noise / math.sqrt(p.shape[1] if "lora_A" in name else 4 * p.shape[1])


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def make(name, seed):
    base_name, dtype, config = ADAPTERS[name]
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    base = base_of(base_name)
    base.name_or_path = base_name
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **config))
    randomise(model, seed)
    model.save_pretrained(out)
    (out / "README.md").unlink()
    weights = out / "adapter_model.safetensors"
    tensors = {k: v.to(dtype) for k, v in load_file(weights).items()}
    for k in tensors:
        if k.endswith("base_layer.weight"):  # PEFT loads it over the base's: let that be seen
            tensors[k] *= 1.25
    save_file(tensors, weights, {"format": "pt"})
    path = out / "adapter_config.json"
    saved = json.loads(path.read_text())
    saved["target_modules"] = sorted(saved["target_modules"])  # PEFT keeps a set
    path.write_text(json.dumps(saved, indent=1) + "\n")

    given = json.loads((FOLDERS / base_name / "expected.json").read_text())
    ids = given["ids"]
    merged = PeftModel.from_pretrained(base_of(base_name), out).merge_and_unload()
    logits, plain = logits_of(merged, ids), logits_of(base_of(base_name), ids)
    positions = (16, len(ids) - 1)
    effect = min(((logits[p] - plain[p]).abs().max() / plain[p].abs().max()).item()
                 for p in positions)
    assert effect > 0.2, effect
    expected = {"text": given["text"], "ids": ids, "logits": {
        str(p): [float(f"{v:.7g}") for v in logits[p].tolist()] for p in positions}}
    (out / "expected.json").write_text(json.dumps(expected) + "\n")
    size = sum(f.stat().st_size for f in out.iterdir())
    print(name, sorted(f.name for f in out.iterdir()), size, f"effect {effect:.2f}")


if __name__ == "__main__":
    for i, name in enumerate(ADAPTERS):
        make(name, 200 + i)
