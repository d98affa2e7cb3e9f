#!/usr/bin/env python3
"""Golden training runs for tests/router/test_train_golden.c.

    python3 train.py        (needs torch and numpy; writes train.json beside it)

CITER's network (Linear, BatchNorm1d, ReLU, Linear, Linear) and a linear head are
trained with torch.optim.AdamW for 100 steps of 32 rows without dropout, in
double: the reference should not have rounding of its own.  Inputs, targets, the
order of the rows and the initial weights are functions of tlr_hash_u64, so the
test makes them again and the file holds results only: the loss of every step,
and all parameters behind the last.
"""
import json
import os

import numpy as np
import torch

N_IN, N_HIDDEN, N_MID, N_ROWS, BATCH, STEPS, SEED = 10, 20, 10, 640, 32, 100, 7
LR, DECAY, POS_WEIGHT = 3e-3, 0.1, 0.25
MASK = (1 << 64) - 1


def hash_u64(seed, index):
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def uniform(seed, index):
    """In [0, 1), with 24 bits: exact in f32."""
    return (hash_u64(seed, index) >> 40) / 16777216.0


def problem():
    x = np.array([[4 * uniform(100, r * N_IN + i) - 2 for i in range(N_IN)]
                  for r in range(N_ROWS)])
    x[:, 1] = 50 * x[:, 1] + 300  # one input of another size: BatchNorm's work
    label = np.array([float(x[r, 0] + x[r, 2] * x[r, 3] + 2 * uniform(101, r) > 0.5)
                      for r in range(N_ROWS)])
    weight = np.array([0.5 + uniform(102, r) for r in range(N_ROWS)])
    p = np.array([[uniform(103, r), uniform(104, r)] for r in range(N_ROWS)])
    f32 = lambda a: torch.tensor(a.astype(np.float32).astype(np.float64))
    return f32(x), f32(label), f32(weight), f32(p)


def order(epoch):
    """tlr_train_shuffle: Fisher and Yates from the end."""
    key = hash_u64(SEED, 0x73687566 + epoch)
    rows = list(range(N_ROWS))
    for i in range(N_ROWS, 1, -1):
        j = hash_u64(key, i) % i
        rows[i - 1], rows[j] = rows[j], rows[i - 1]
    return rows


def fill(tensor, seed, fan_in):
    """tlr_net_init."""
    bound = 1 / np.sqrt(fan_in)
    flat = np.array([bound * (2 * uniform(seed, i) - 1) for i in range(tensor.numel())])
    with torch.no_grad():
        tensor.copy_(torch.tensor(flat.astype(np.float32)).double().view_as(tensor))


def network(linear):
    if linear:
        net = torch.nn.Sequential(torch.nn.Linear(N_IN, 1)).double()
        fill(net[0].weight, SEED + 4, N_IN)
        fill(net[0].bias, SEED + 5, N_IN)
        return net
    net = torch.nn.Sequential(
        torch.nn.Linear(N_IN, N_HIDDEN), torch.nn.BatchNorm1d(N_HIDDEN), torch.nn.ReLU(),
        torch.nn.Linear(N_HIDDEN, N_MID), torch.nn.Linear(N_MID, 1)).double()
    for layer, seed, fan_in in ((0, SEED, N_IN), (3, SEED + 2, N_HIDDEN), (4, SEED + 4, N_MID)):
        fill(net[layer].weight, seed, fan_in)
        fill(net[layer].bias, seed + 1, fan_in)
    return net


def loss_of(kind, z, y, w, p):
    if kind == "bce":
        return torch.nn.functional.binary_cross_entropy_with_logits(
            z, y, weight=w, pos_weight=torch.tensor(POS_WEIGHT, dtype=torch.float64))
    if kind == "bt":
        ones, zeros = y == 1, y == 0
        pair = w[ones][:, None] * w[zeros][None, :]
        gap = z[ones][:, None] - z[zeros][None, :]
        return -(pair * torch.nn.functional.logsigmoid(gap)).sum() / pair.sum()
    s = torch.sigmoid(z)
    return -(w * torch.log(s * p[:, 0] + (1 - s) * p[:, 1])).mean()


def run(kind):
    linear = kind == "deferral"
    x, y, w, p = problem()
    if linear:
        x = x / torch.tensor([1.0, 256.0] + [1.0] * (N_IN - 2))
    net = network(linear)
    matrices = [m for m in net.parameters() if m.dim() == 2]
    vectors = [m for m in net.parameters() if m.dim() == 1]
    adam = torch.optim.AdamW([{"params": matrices, "weight_decay": DECAY},
                              {"params": vectors, "weight_decay": 0.0}], lr=LR)
    losses = []
    net.train()
    for step in range(STEPS):
        per_epoch = N_ROWS // BATCH
        rows = order(step // per_epoch)[step % per_epoch * BATCH:][:BATCH]
        loss = loss_of(kind, net(x[rows]).squeeze(1), y[rows], w[rows], p[rows])
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    flat = lambda t: [round(v, 9) for v in t.detach().flatten().tolist()]
    if linear:
        tensors = {"w3": net[0].weight, "b3": net[0].bias}
    else:
        tensors = {"w1": net[0].weight, "w2": net[3].weight, "w3": net[4].weight,
                   "b1": net[0].bias, "gamma": net[1].weight, "beta": net[1].bias,
                   "b2": net[3].bias, "b3": net[4].bias, "mean": net[1].running_mean,
                   "var": net[1].running_var}
    return {"losses": [round(v, 9) for v in losses],
            **{name: flat(t) for name, t in tensors.items()}}


def main():
    torch.set_num_threads(1)
    golden = {"torch": torch.__version__.split("+")[0]}
    for kind in ("bce", "bt", "deferral"):
        golden[kind] = run(kind)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "train.json")
    with open(path, "w", encoding="ascii") as f:
        json.dump(golden, f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main()
