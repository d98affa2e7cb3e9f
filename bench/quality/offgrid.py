"""A GGUF model of the Llama family with its weights off the grid they lie on.

    python offgrid.py model.gguf offgrid-f32.gguf [--seed N] [--identity]

A model whose only source is quantised flatters every 4-bit format: blocks of 32
weights lie on 16 equidistant values.  Here the channels of the model are put in
another order, which leaves its function as it was and makes each block of 32 a
mixture of 32 blocks of the source, each with a scale and a minimum of its own:

  residual stream   one permutation of dim for the columns of embed, q, k, v,
                    gate, up (and head) and the rows of o and down and the norms
  FFN               one per layer for the rows of gate and up, columns of down
  attention values  one per KV head and layer for the rows of v and the columns
                    of o of all query heads that read it

q and k keep their rows, which rotary embedding pairs.  Writes f32 and copies
all metadata.  --identity only turns the weights into f32.
"""
import argparse

import gguf
import numpy as np

ARCH = "llama"


def copy_metadata(reader, writer):
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in (
                "general.architecture", "general.file_type",
                "general.quantization_version"):
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=sub)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


class Orders:
    """The permutations, made from one seed."""

    def __init__(self, reader, seed, identity):
        def number(key):
            return int(reader.fields[f"{ARCH}.{key}"].contents())

        self.dim = number("embedding_length")
        self.ffn = number("feed_forward_length")
        self.heads = number("attention.head_count")
        self.kv_heads = number("attention.head_count_kv")
        self.head_dim = self.dim // self.heads
        rng = np.random.default_rng(seed)
        layers = number("block_count")

        def order(n):
            return np.arange(n) if identity else rng.permutation(n)

        self.residual = order(self.dim)
        self.inner = [order(self.ffn) for _ in range(layers)]
        self.value = [[order(self.head_dim) for _ in range(self.kv_heads)]
                      for _ in range(layers)]

    def v_rows(self, layer):
        return np.concatenate([h * self.head_dim + p
                               for h, p in enumerate(self.value[layer])])

    def o_columns(self, layer):
        group = self.heads // self.kv_heads
        return np.concatenate([h * self.head_dim + self.value[layer][h // group]
                               for h in range(self.heads)])

    def apply(self, name, w):
        part = name.removesuffix(".weight").split(".")
        role = part[-1]
        if role in ("token_embd", "output", "attn_q", "attn_k"):
            return w[:, self.residual]
        if role in ("output_norm", "attn_norm", "ffn_norm"):
            return w[self.residual]
        if role == "rope_freqs":
            return w
        layer = int(part[1])
        if role == "attn_v":
            return w[self.v_rows(layer)][:, self.residual]
        if role == "attn_output":
            return w[self.residual][:, self.o_columns(layer)]
        if role in ("ffn_gate", "ffn_up"):
            return w[self.inner[layer]][:, self.residual]
        if role == "ffn_down":
            return w[self.residual][:, self.inner[layer]]
        raise SystemExit(f"{name}: expected a tensor of the Llama family; this "
                         "model cannot be reordered")


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("source")
    args.add_argument("output")
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--identity", action="store_true")
    a = args.parse_args()
    reader = gguf.GGUFReader(a.source)
    arch = reader.fields["general.architecture"].contents()
    if arch != ARCH:
        raise SystemExit(f"{a.source}: expected architecture llama, found {arch}")
    orders = Orders(reader, a.seed, a.identity)
    writer = gguf.GGUFWriter(a.output, ARCH)
    copy_metadata(reader, writer)
    for t in reader.tensors:
        w = gguf.quants.dequantize(t.data, t.tensor_type)
        w = np.ascontiguousarray(orders.apply(t.name, w), dtype=np.float32)
        writer.add_tensor(t.name, w)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
