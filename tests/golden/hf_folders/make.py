"""Writes tiny Hugging Face folders with transformers and tokenizers, one of
every family, and the logits that transformers computes from them.

    python make.py        # needs torch, transformers 5, tokenizers, safetensors

Each folder: what save_pretrained writes (bf16 weights), plus expected.json:
text, ids, and logits (f32 arithmetic on the bf16 weights) at two positions.
tiny-llama3's config.json is rewritten in the spelling of transformers 4, so
that both spellings are covered; tiny-qwen2 is sharded.
"""
import json
import pathlib
import shutil

import torch
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models,
                        normalizers, pre_tokenizers, processors, trainers)
from transformers import (LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config,
                          Qwen3ForCausalLM)

HERE = pathlib.Path(__file__).parent
VOCAB = 320

QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
              r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
                r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + "
          "'\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
          "{% endif %}")
TEXT = ("The river was wide, and in 1907 they built a bridge: 12345 rivets! "
        "Don't ask why - nobody knew.\n\n  Later it was naïve to wait there; "
        "the ferry left at 7:30 and the water rose & rose.")


def make_tokenizer(kind):
    tok = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    if kind == "qwen":
        tok.normalizer = normalizers.NFC()
    if kind == "smollm":
        split = pre_tokenizers.Digits(individual_digits=True)
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        regex = QWEN_SPLIT if kind == "qwen" else LLAMA3_SPLIT
        split = pre_tokenizers.Split(Regex(regex), "isolated", False)
        level = pre_tokenizers.ByteLevel(add_prefix_space=False,
                                         use_regex=False)
    tok.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator([TEXT], trainer)
    special = (["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                "<|end_header_id|>", "<|eot_id|>"] if kind == "llama3" else
               ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tok.add_special_tokens([AddedToken(s, special=True, normalized=False)
                            for s in special])
    if kind == "llama3":
        bos = tok.token_to_id("<|begin_of_text|>")
        tok.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A", pair=None,
                special_tokens=[("<|begin_of_text|>", bos)])])
    eos = "<|eot_id|>" if kind == "llama3" else "<|im_end|>"
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token=eos)
    if kind != "llama3":
        fast.chat_template = CHATML
    return fast


COMMON = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2,
              num_attention_heads=4, num_key_value_heads=2, vocab_size=VOCAB,
              max_position_embeddings=512)

MODELS = {
    "tiny-qwen2": ("qwen", Qwen2ForCausalLM, lambda: Qwen2Config(
        **COMMON, rms_norm_eps=1e-6, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6})),
    "tiny-qwen3": ("qwen", Qwen3ForCausalLM, lambda: Qwen3Config(
        **COMMON, head_dim=32, rms_norm_eps=1e-6, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6})),
    "tiny-llama": ("smollm", LlamaForCausalLM, lambda: LlamaConfig(
        **COMMON, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5})),
    "tiny-llama3": ("llama3", LlamaForCausalLM, lambda: LlamaConfig(
        **COMMON, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0,
                         "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 64})),
}


def randomise(model, seed):
    gen = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=gen)
        if p.dim() == 2:
            p.data = noise / p.shape[1] ** 0.5
        elif name.endswith("bias"):
            p.data = noise * 0.1
        else:
            p.data = 1 + 0.1 * noise
    model.tie_weights()


def old_spelling(path):
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


def make(name, seed):
    kind, model_class, config = MODELS[name]
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    torch.manual_seed(0)
    model = model_class(config())
    randomise(model, seed)
    model = model.to(torch.bfloat16)
    tok = make_tokenizer(kind)
    eos = tok.eos_token_id
    model.generation_config.do_sample = kind == "qwen"
    if kind == "qwen":
        model.generation_config.temperature = 0.7
        model.generation_config.top_p = 0.8
        model.generation_config.top_k = 20
        model.generation_config.repetition_penalty = 1.1
    model.generation_config.eos_token_id = [eos]
    shard = "120KB" if name == "tiny-qwen2" else "5GB"
    model.save_pretrained(out, max_shard_size=shard)
    tok.save_pretrained(out)
    if name == "tiny-llama3":
        old_spelling(out / "config.json")
    ids = tok(TEXT).input_ids
    # Loaded anew: .to(bfloat16) has rounded the rope frequencies of `model`.
    model = model_class.from_pretrained(out, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    expected = {"text": TEXT, "ids": ids, "logits": {
        str(p): [float(f"{v:.7g}") for v in logits[p].tolist()]
        for p in (16, len(ids) - 1)}}
    (out / "expected.json").write_text(json.dumps(expected) + "\n")
    size = sum(f.stat().st_size for f in out.iterdir())
    print(name, sorted(f.name for f in out.iterdir()), size, len(ids))


if __name__ == "__main__":
    for i, name in enumerate(MODELS):
        make(name, 100 + i)
