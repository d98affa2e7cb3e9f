#!/usr/bin/env python3
"""Goldens of tests/router: a CITER MLP and the signals of logits, from PyTorch.

mlp.json: Linear(H, 2H), BatchNorm1d, ReLU, Linear(2H, H), Linear(H, 1) with
seeded weights and running statistics, in eval mode and float64, at seeded states:
its outputs before the sigmoid.  Beside them the same network as W1, b1, w2, b2,
folded here with NumPy, which is what a router file holds.  H is no multiple of
32.  plus.json: the same with 18 features behind the hidden state.

signals.json: logits, and from torch: entropy, the largest probability, the gap
to the second, of all and of the best 16.

    make.py     needs torch, numpy
"""
import json
import os

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20251121
SPREAD = [4.0] + [5.0] * 15 + [1.0, 0.3]  # of the features


def citer(n_in, width, rng):
    """CITER's stack (src/models/conf_model.py), dropout left out."""
    norm = torch.nn.BatchNorm1d(2 * width)
    net = torch.nn.Sequential(
        torch.nn.Linear(n_in, 2 * width), norm, torch.nn.ReLU(),
        torch.nn.Linear(2 * width, width), torch.nn.Linear(width, 1)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.from_numpy(rng.normal(0, 0.2, tuple(p.shape))))
        norm.weight.copy_(torch.from_numpy(rng.uniform(0.5, 2, 2 * width)))
        norm.running_mean.copy_(torch.from_numpy(rng.normal(0, 1, 2 * width)))
        norm.running_var.copy_(torch.from_numpy(rng.uniform(0.2, 3, 2 * width)))
    return net.eval()


def fold(net):
    a, norm, _, b, c = net
    n = {k: v.detach().numpy() for k, v in net.state_dict().items()}
    scale = n["1.weight"] / np.sqrt(n["1.running_var"] + norm.eps)
    w1 = n["0.weight"] * scale[:, None]
    b1 = (n["0.bias"] - n["1.running_mean"]) * scale + n["1.bias"]
    w2 = (n["4.weight"] @ n["3.weight"])[0]
    b2 = n["4.weight"][0] @ n["3.bias"] + n["4.bias"][0]
    return w1, b1, w2, b2


def numbers(x):
    return [float(f"{v:.9g}") for v in np.asarray(x, dtype=np.float64).ravel()]


def write(name, obj):
    with open(os.path.join(HERE, name), "w") as f:
        json.dump(obj, f, separators=(",", ":"))
        f.write("\n")


def mlp(name, dim, n_features, n_states):
    rng = np.random.default_rng(SEED + n_features)
    net = citer(dim + n_features, dim, rng)
    with torch.no_grad():  # as training on standardised features leaves them
        net[0].weight[:, dim:] /= torch.tensor(SPREAD[:n_features])
    states = rng.normal(0, 1, (n_states, dim + n_features))
    if n_features:  # a logit, gaps below it, an entropy, a probability
        f = states[:, dim:]
        f[:, 0] = f[:, 0] * 4 + 18
        f[:, 1:16] = np.sort(np.abs(f[:, 1:16]) * 5, axis=1)
        f[:, 16] = np.abs(f[:, 16])
        f[:, 17] = 1 / (1 + np.exp(-f[:, 17]))
    states = states.astype(np.float32)
    with torch.no_grad():
        logits = net(torch.from_numpy(states).double())[:, 0].numpy()
    w1, b1, w2, b2 = fold(net)
    write(name, {
        "dim": dim, "n_features": n_features, "n_hidden": 2 * dim,
        "w1": numbers(w1), "b1": numbers(b1), "w2": numbers(w2),
        "b2": float(b2), "states": numbers(states),
        "logits": numbers(logits)})


def signals(n_rows, n_ids):
    rng = np.random.default_rng(SEED)
    rows = []
    for i in range(n_rows):
        x = (rng.normal(0, 0.5 + 2 * i, n_ids) + 10).astype(np.float32)
        t = torch.from_numpy(x).double()
        p = torch.softmax(t, 0)
        best = torch.sort(t, descending=True).values[:16]
        q = torch.softmax(best, 0)
        rows.append({
            "logits": numbers(x),
            "entropy": torch.distributions.Categorical(probs=p).entropy().item(),
            "max_prob": p.max().item(),
            "margin": (torch.sort(p, descending=True).values[0] -
                       torch.sort(p, descending=True).values[1]).item(),
            "best": int(torch.argmax(t)),
            "top_entropy":
                torch.distributions.Categorical(probs=q).entropy().item(),
            "top_prob": q[0].item(),
            "gaps": numbers((best[0] - best).numpy())})
    write("signals.json", rows)


mlp("mlp.json", 40, 0, 24)
mlp("plus.json", 40, 18, 24)
signals(6, 200)
