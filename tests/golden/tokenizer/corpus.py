"""Deterministic test text, the same as tests/tokenizer/corpus.c, rule by rule.

Segment k is a row of atoms; every choice is splitmix64 of (seed, counter).  An
atom is a random code point of a range, a repeated white space, or a string of
the list in atoms.txt, which both programs read.
"""
import os

MASK = (1 << 64) - 1
HERE = os.path.dirname(os.path.abspath(__file__))


def hash_u64(seed, index):
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


# first code point, number of them
RANGES = [
    (0x20, 95), (0xA0, 96), (0x100, 0x150), (0x250, 0x60), (0x300, 0x70),
    (0x370, 0x90), (0x400, 0x130), (0x530, 0x60), (0x590, 0x70), (0x600, 0x100),
    (0x700, 0x200), (0x900, 0x80), (0x980, 0x380), (0xD00, 0x100),
    (0xE00, 0x100), (0xF00, 0x100), (0x1000, 0x100), (0x10A0, 0x60),
    (0x1100, 0x100), (0x1200, 0x500), (0x1780, 0x80), (0x1800, 0x500),
    (0x1E00, 0x100), (0x1F00, 0x100), (0x2000, 0x70), (0x2070, 0x200),
    (0x2270, 0x990), (0x2C00, 0x200), (0x3000, 0x100), (0x3100, 0x300),
    (0x4E00, 0x5200), (0xA000, 0x700), (0xA700, 0x500), (0xAC00, 0x2BA4),
    (0xE000, 0x100), (0xF900, 0x200), (0xFB00, 0x400), (0xFF00, 0x100),
    (0x10000, 0x2000), (0x12000, 0x2500), (0x16000, 0x1000), (0x1D000, 0x800),
    (0x1E000, 0x1000), (0x1F000, 0xC00), (0x20000, 0x11400), (0xE0000, 0x200),
    (0, 0xD800), (0xE000, 0x102000), (0x30, 10), (0x61, 26),
]
SPACES = ["\n", " ", "\t", "\r\n", "\r", "\u00a0", "\u3000", "\u2028", "\u0085",
          "\u200b", "\u180e", " \n", "\n ", "\v", "\f"]


def load_atoms():
    with open(os.path.join(HERE, "atoms.txt"), encoding="utf-8") as f:
        lines = f.read().split("\n")
    return [line.replace("\\n", "\n").replace("\\t", "\t")
            for line in lines if line]


ATOMS = load_atoms()


def segment(seed, k, n_atoms):
    """Text of segment k.  Its theme fixes which range it prefers."""
    s = hash_u64(seed, k)
    theme = RANGES[hash_u64(s, 0) % len(RANGES)]
    out = []
    for i in range(n_atoms):
        a = hash_u64(s, 2 * i + 1)
        b = hash_u64(s, 2 * i + 2)
        kind = a % 16
        if kind < 7:
            out.append(chr(theme[0] + b % theme[1]))
        elif kind < 9:
            first, n = RANGES[(a >> 8) % len(RANGES)]
            out.append(chr(first + b % n))
        elif kind < 10:
            out.append(SPACES[b % len(SPACES)] * (1 + (a >> 8) % 4))
        elif kind < 12:
            out.append(" ")
        else:
            out.append(ATOMS[b % len(ATOMS)])
    return "".join(out)


def ids_hash(ids):
    """FNV-1a 64 over the ids as 32-bit little-endian numbers."""
    h = 0xCBF29CE484222325
    for i in ids:
        for byte in i.to_bytes(4, "little"):
            h = ((h ^ byte) * 0x100000001B3) & MASK
    return h
