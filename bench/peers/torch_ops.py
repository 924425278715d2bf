# SPDX-License-Identifier: Apache-2.0
"""The rules as they are written in torch by hand: torch.median, torch.sort, torch.cdist.

torch.median takes the lower of two middle values. torch.cdist is a float32 matrix product above 25
rows.
"""

from __future__ import annotations

from typing import Any

from peers.contract import Stage, Step

DISTRIBUTION = "torch"
ENVIRONMENT = {"OMP_PROC_BIND": "true"}

torch: Any = None


def load(threads: int) -> None:
    global torch
    import torch as loaded

    loaded.set_num_threads(threads)
    torch = loaded


def wrap(matrix):
    return torch.from_numpy(matrix)


def unwrap(result):
    return result.numpy()


def krum_scores(x, neighbors: int):
    """Each row's sum of its `neighbors` least squared distances; the least of all is its own."""
    distances = torch.cdist(x, x).square_()
    return distances.sort(dim=1).values[:, 1 : neighbors + 1].sum(dim=1)


def mean(stage: Stage, n: int, d: int) -> Step:
    return Step(lambda x: x.mean(dim=0), "torch.mean", stage)


def median(stage: Stage, n: int, d: int) -> Step:
    fixed = stage.convention(even="lower")
    return Step(lambda x: torch.median(x, dim=0).values, "torch.median(dim=0)", fixed)


def trimmed_mean(stage: Stage, n: int, d: int) -> Step:
    f = stage.f

    def call(x):
        return torch.sort(x, dim=0).values[f : n - f].mean(dim=0)

    return Step(call, "torch.sort(dim=0), slice, mean", stage)


def krum(stage: Stage, n: int, d: int) -> Step:
    neighbors = stage.get("neighbors", n)
    return Step(
        lambda x: x[torch.argmin(krum_scores(x, neighbors))], "Krum with torch.cdist", stage
    )


def multi_krum(stage: Stage, n: int, d: int) -> Step:
    neighbors, m = stage.get("neighbors", n), stage.get("m", n)

    def call(x):
        return x[torch.topk(krum_scores(x, neighbors), m, largest=False).indices].mean(dim=0)

    return Step(call, "Multi-Krum with torch.cdist", stage)


def nnm(stage: Stage, n: int, d: int) -> Step:
    kept = n - stage.f

    def call(x):
        nearest = torch.topk(torch.cdist(x, x), kept, dim=1, largest=False).indices
        return torch.zeros(n, n).scatter_(1, nearest, 1 / kept) @ x

    return Step(call, "NNM with torch.cdist and a matrix product", stage)


STEPS = {
    "mean": mean,
    "median": median,
    "trimmed_mean": trimmed_mean,
    "krum": krum,
    "multi_krum": multi_krum,
    "nnm": nnm,
}
