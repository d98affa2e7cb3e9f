#!/usr/bin/env python3
"""Bootstrap intervals and p-values by NumPy, for tests/router/test_bootstrap.c.

    python make.py >expected.json
"""
import json

import numpy as np

RESAMPLES, SEED = 2000, 7


def hash_u64(seed, index):
    """splitmix64 of (seed, index), as base/hash.h has it."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def draws(n):
    b = np.arange(RESAMPLES * n, dtype=np.uint64)
    return (hash_u64(SEED, b) % np.uint64(n)).astype(np.int64).reshape(RESAMPLES, n)


def interval(values):
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(v) if np.isfinite(v) else None for v in (low, high)]


def case(rng, n, p_a, p_b):
    low, high = rng.random(n) < 0.3, rng.random(n) < 0.8
    a, b = rng.random(n) < p_a, rng.random(n) < p_b
    den = rng.integers(1, 5, n)
    num = np.minimum(rng.integers(0, 5, n), den)
    d = draws(n)
    mean = {k: v[d].sum(1) / n for k, v in dict(low=low, high=high, a=a, b=b).items()}
    width = mean["high"] - mean["low"]
    gap = np.where(width > 0, (mean["a"] - mean["low"]) / np.where(width > 0, width, 1), -np.inf)
    ratio = num[d].sum(1) / den[d].sum(1)
    return {
        **{k: [int(x) for x in v] for k, v in dict(low=low, high=high, a=a, b=b, num=num, den=den).items()},
        "ratio": [float(num.sum() / den.sum())] + interval(ratio),
        "accuracy": [float(a.mean())] + interval(mean["a"]),
        "gap": [float((a.mean() - low.mean()) / (high.mean() - low.mean()))] + interval(gap),
        "p": float((1 + np.sum(~(mean["a"] > mean["b"]))) / (1 + RESAMPLES)),
    }


rng = np.random.default_rng(1)
print(json.dumps({"seed": SEED, "cases": [case(rng, 5, 0.6, 0.4), case(rng, 60, 0.7, 0.6), case(rng, 301, 0.5, 0.5)]}))
