"""Makes the goldens of tests/tokenizer with Hugging Face's tokenizers and jinja.

    python tests/golden/tokenizer/make.py      (in the repository's root)

Needs tokenizers 0.23, transformers, gguf, models/smollm2-135m-instruct.gguf and
../shared/data/qwen3-tokenizer.
"""
import json
import lzma
import os

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from transformers.utils.chat_template_utils import render_jinja_template

import corpus

HERE = os.path.dirname(os.path.abspath(__file__))
SEED, N_SEGMENTS, N_ATOMS = 1, 1000, 500
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN25 = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant") %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def read_gguf():
    r = gguf.GGUFReader("models/smollm2-135m-instruct.gguf")
    return {k: r.fields["tokenizer." + k].contents() for k in (
        "ggml.tokens", "ggml.token_type", "ggml.merges", "chat_template")}


def smollm2(g, pre_tokenizer=None, ignore_merges=False):
    tok = Tokenizer(models.BPE(
        vocab={t: i for i, t in enumerate(g["ggml.tokens"])},
        merges=[tuple(m.split(" ")) for m in g["ggml.merges"]],
        ignore_merges=ignore_merges))
    tok.pre_tokenizer = pre_tokenizer or pre.Sequence(
        [pre.Digits(individual_digits=True),
         pre.ByteLevel(add_prefix_space=False, use_regex=True)])
    tok.decoder = decoders.ByteLevel()
    tok.add_special_tokens(
        [AddedToken(t, special=True, normalized=False)
         for t, k in zip(g["ggml.tokens"], g["ggml.token_type"]) if k == 3])
    return tok


def tokenizers(g):
    with lzma.open("../shared/data/qwen3-tokenizer/tokenizer.json.xz", "rt",
                   encoding="utf-8") as f:
        text = f.read()
    qwen3, plain = Tokenizer.from_str(text), Tokenizer.from_str(text)
    plain.encode_special_tokens = True
    llama3 = pre.Sequence([pre.Split(Regex(LLAMA3), "isolated"),
                           pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    return {
        "qwen3": qwen3, "qwen3-plain": plain, "smollm2": smollm2(g),
        "gpt2": smollm2(g, pre.ByteLevel(add_prefix_space=False)),
        "llama3": smollm2(g, llama3, True)}


def ids_of(tok, text):
    return tok.encode(text, add_special_tokens=False).ids


def make_corpus(toks):
    segments = [corpus.segment(SEED, k, N_ATOMS) for k in range(N_SEGMENTS)]
    print("code points:", sum(map(len, segments)))
    for name, tok in toks.items():
        with open(f"{HERE}/corpus-{name}.txt", "w") as f:
            for s in segments:
                ids = ids_of(tok, s)
                f.write("%016x %d\n" % (corpus.ids_hash(ids), len(ids)))


def make_cases(toks):
    """Short texts with their ids spelled out."""
    texts = list(corpus.ATOMS)
    texts += [a + b for a, b in zip(corpus.ATOMS, corpus.ATOMS[7:])]
    texts += ["a" + " " * n + b for n in range(1, 5) for b in ("b", "1", "!", "\n", "")]
    out = [{"text": t, "qwen3": ids_of(toks["qwen3"], t),
            "smollm2": ids_of(toks["smollm2"], t)} for t in texts]
    with open(f"{HERE}/cases.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c) for c in out) + "\n]\n")


CHATS = [
    [("user", "Hello")],
    [("system", "Be brief."), ("user", "What is 2+2?")],
    [("user", "\n\nleading and trailing \n\n"), ("assistant", "Yes."),
     ("user", " 1 2 3 ")],
    [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"),
     ("user", "e\u0301 \u00e9")],
]


def make_chats(toks, g):
    with open("../shared/data/qwen3-tokenizer/tokenizer_config.json") as f:
        qwen3 = json.load(f)["chat_template"]
    out = []
    for name, tok, template in (("smollm2", "smollm2", g["chat_template"]),
                                ("qwen3", "qwen3", qwen3),
                                ("qwen2.5", "qwen3", QWEN25)):
        for chat in CHATS:
            messages = [{"role": r, "content": c} for r, c in chat]
            text = render_jinja_template([messages], chat_template=template,
                                         add_generation_prompt=True)[0][0]
            out.append({"template": name, "messages": messages,
                        "ids": ids_of(toks[tok], text)})
    with open(f"{HERE}/chats.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c) for c in out) + "\n]\n")
    with open(f"{HERE}/qwen2.5.jinja", "w") as f:
        f.write(QWEN25)


def make_added():
    """How added tokens match: a tiny tokenizer, and texts around its tokens."""
    letters = pre.ByteLevel.alphabet()
    tok = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(letters))},
                               merges=[]))
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.add_tokens([
        AddedToken("<left>", lstrip=True, normalized=False),
        AddedToken("<right>", rstrip=True, normalized=False),
        AddedToken("<both>", lstrip=True, rstrip=True, normalized=False),
        AddedToken("word", single_word=True, normalized=False),
        AddedToken("ab", normalized=False), AddedToken("abcd", normalized=False),
        AddedToken("bc", normalized=False),
        AddedToken("caf\u00e9", normalized=True),
        AddedToken("\u00e9t\u00e9", normalized=False)])
    tok.add_special_tokens([AddedToken("<s>", normalized=False, special=True)])
    texts = ["a <left> b", "a <right> b", "a \n\t<both> \u3000b", "<right>  <left>",
             "<both>  <both>", " <left>", "<right> ", "word", "a word b", "words",
             "aword", "word_", "\u00e9word", "word\u0301", "word.word", "word word",
             "abcd", "abc", "abcabcd", "ababcd", "xbcd", "caf\u00e9", "cafe\u0301",
             "cafe\u0301s", "\u00e9t\u00e9", "e\u0301te\u0301", "<s>", "a<s>b", "<s",
             "<<s>>", "<s><s>", "  <s>  ", "", "\u200cword", "word\u24d0", "1word"]
    plain = Tokenizer.from_str(tok.to_str())
    plain.encode_special_tokens = True
    with open(f"{HERE}/added.json", "w") as f:
        cases = [{"text": t, "ids": ids_of(tok, t), "plain": ids_of(plain, t)}
                 for t in texts]
        f.write(json.dumps({"tokenizer": json.loads(tok.to_str()),
                            "cases": cases}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    G = read_gguf()
    TOKS = tokenizers(G)
    make_added()
    make_cases(TOKS)
    make_chats(TOKS, G)
    make_corpus(TOKS)
