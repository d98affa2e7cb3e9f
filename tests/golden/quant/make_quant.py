"""Writes quant_golden.inc: what the gguf package makes of 40 seeded blocks, and
for IQ4_NL, which that package can only read, the quantiser of GGML's library.

Usage: python tests/golden/quant/make_quant.py > tests/golden/quant/quant_golden.inc
The inputs are made again in test_quant.c: element i is the splitmix64 finaliser
of (1 + (i+1) * golden ratio), top 24 bits to [-1, 1), times 2^(block % 12 - 8).
"""
import ctypes
import pathlib

import gguf
import llama_cpp
import numpy as np
from gguf.quants import dequantize, quantize

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


def quantize_iq4_nl(x):
    lib = pathlib.Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"
    fn = ctypes.CDLL(str(lib)).ggml_quantize_chunk
    fn.restype = ctypes.c_size_t
    fn.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [
        ctypes.c_int64
    ] * 3 + [ctypes.c_void_p]
    out = np.zeros((len(x), 18), dtype=np.uint8)
    kind = gguf.GGMLQuantizationType.IQ4_NL
    n = fn(kind, x.ctypes.data, out.ctypes.data, 0, len(x), 32, None)
    assert n == out.size
    return out


for name in ("Q8_0", "Q4_0", "Q4_1", "IQ4_NL"):
    kind = getattr(gguf.GGMLQuantizationType, name)
    blocks = quantize_iq4_nl(x) if name == "IQ4_NL" else quantize(x, kind)
    data = blocks.tobytes()
    print(f"static const unsigned char golden_{name.lower()}[] = {{")
    for i in range(0, len(data), 16):
        print("    " + " ".join(f"{b}," for b in data[i : i + 16]))
    print("};")
print("/* the bits of what gguf reads from the first blocks of IQ4_NL */")
bits = dequantize(blocks[:12], kind).view(np.uint32).ravel()
print("static const unsigned golden_iq4_nl_values[] = {")
for i in range(0, len(bits), 8):
    print("    " + " ".join(f"{b:#010x}," for b in bits[i : i + 8]))
print("};")
