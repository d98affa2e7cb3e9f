#!/usr/bin/env python3
"""CITER-shaped routers for tests/router/test_import.c.

    python3 citer.py        (needs torch and safetensors)

citer.safetensors is what saving CITER's ConfidenceModel gives for hidden states
of width 12, in f32 and with the names that torchvision's MLP makes (Linear,
BatchNorm1d, ReLU, Dropout, Linear, Dropout), after the running statistics have
seen data; citer.json has its sigmoid for 16 states that are functions of
tlr_hash_u64, in eval mode.
"""
import json
import os

import torch
from safetensors.torch import save_file

DIM = 12
MASK = (1 << 64) - 1


def hash_u64(seed, index):
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


class Router(torch.nn.Module):
    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.mlp = nn.Sequential(nn.Linear(DIM, 2 * DIM), nn.BatchNorm1d(2 * DIM), nn.ReLU(),
                                 nn.Dropout(0.1), nn.Linear(2 * DIM, DIM), nn.Dropout(0.1))
        self.linear = nn.Linear(DIM, 1)

    def forward(self, x):
        return torch.sigmoid(self.linear(self.mlp(x))).squeeze(1)


def main():
    torch.manual_seed(3)
    here = os.path.dirname(os.path.abspath(__file__))
    router = Router()
    with torch.no_grad():
        router.mlp[1].weight.normal_()
        router.mlp[1].bias.normal_()
        router.linear.weight.mul_(8)
    for _ in range(50):
        router(torch.randn(64, DIM) * 3 + 1)
    router.eval()
    save_file(router.state_dict(), os.path.join(here, "citer.safetensors"))
    x = torch.tensor([[((hash_u64(9, r * DIM + i) >> 40) / 16777216.0) * 8 - 4
                       for i in range(DIM)] for r in range(16)])
    with torch.no_grad():
        trust = [round(v, 8) for v in router(x).tolist()]
    with open(os.path.join(here, "citer.json"), "w", encoding="ascii") as f:
        json.dump({"trust": trust}, f)
        f.write("\n")


if __name__ == "__main__":
    main()
