"""Writes quant_golden.inc: what the gguf package makes of 40 seeded blocks.

Usage: python tests/golden/quant/make_quant.py > tests/golden/quant/quant_golden.inc
The inputs are made again in test_quant.c: element i is the splitmix64 finaliser
of (1 + (i+1) * golden ratio), top 24 bits to [-1, 1), times 2^(block % 12 - 8).
"""
import gguf
import numpy as np
from gguf.quants import quantize

N_BLOCKS = 40
M64 = (1 << 64) - 1


def element(i):
    z = (1 + (i + 1) * 0x9E3779B97F4A7C15) & M64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M64
    z ^= z >> 31
    u = (z >> 40) * 2.0**-23 - 1.0
    return u * 2.0 ** (i // 32 % 12 - 8)


x = np.array([element(i) for i in range(N_BLOCKS * 32)], dtype=np.float32)
x = x.reshape(N_BLOCKS, 32)
for name in ("Q8_0", "Q4_0", "Q4_1"):
    kind = getattr(gguf.GGMLQuantizationType, name)
    data = quantize(x, kind).tobytes()
    print(f"static const unsigned char golden_{name.lower()}[] = {{")
    for i in range(0, len(data), 16):
        print("    " + " ".join(f"{b}," for b in data[i : i + 16]))
    print("};")
