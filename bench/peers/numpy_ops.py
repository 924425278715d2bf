# SPDX-License-Identifier: Apache-2.0
"""The rules as they are written in NumPy by hand.

Distances come from a bare float32 Gram matrix, the fast way, which is not safe: one NaN or infinity
is in all of them, and so is the cancellation of rows with a common offset. The paths say so.
"""

from __future__ import annotations

from typing import Any

from peers.contract import Stage, Step

DISTRIBUTION = "numpy"
ENVIRONMENT: dict[str, str] = {}

UNSAFE = "distances from a bare Gram matrix, not safe"

np: Any = None


def load(threads: int) -> None:
    global np
    import numpy

    np = numpy


def wrap(matrix):
    return matrix


def unwrap(result):
    return result


def squared_distances(x):
    gram = x @ x.T
    norms = np.diag(gram)
    distances = norms[:, None] + norms[None, :] - 2 * gram
    np.fill_diagonal(distances, 0)
    return distances


def krum_scores(x, neighbors: int):
    """Each row's sum of its `neighbors` least distances to others; the first is its own."""
    distances = squared_distances(x)
    np.fill_diagonal(distances, -np.inf)
    return np.sort(distances, axis=1)[:, 1 : neighbors + 1].sum(axis=1)


def mean(stage: Stage, n: int, d: int) -> Step:
    return Step(lambda x: np.mean(x, axis=0), "numpy.mean", stage)


def median(stage: Stage, n: int, d: int) -> Step:
    return Step(lambda x: np.median(x, axis=0), "numpy.median", stage.convention(even="midpoint"))


def trimmed_mean(stage: Stage, n: int, d: int) -> Step:
    f = stage.f
    return Step(
        lambda x: np.sort(x, axis=0)[f : n - f].mean(axis=0), "numpy.sort, slice, mean", stage
    )


def krum(stage: Stage, n: int, d: int) -> Step:
    neighbors = stage.get("neighbors", n)
    return Step(lambda x: x[np.argmin(krum_scores(x, neighbors))], f"NumPy Krum, {UNSAFE}", stage)


def multi_krum(stage: Stage, n: int, d: int) -> Step:
    neighbors, m = stage.get("neighbors", n), stage.get("m", n)

    def call(x):
        return x[np.argsort(krum_scores(x, neighbors), kind="stable")[:m]].mean(axis=0)

    return Step(call, f"NumPy Multi-Krum, {UNSAFE}", stage)


def nnm(stage: Stage, n: int, d: int) -> Step:
    kept = n - stage.f

    def call(x):
        nearest = np.argsort(squared_distances(x), axis=1, kind="stable")[:, :kept]
        mixing = np.zeros((n, n), x.dtype)
        np.put_along_axis(mixing, nearest, 1 / kept, axis=1)
        return mixing @ x

    return Step(call, f"NumPy NNM as a matrix product, {UNSAFE}", stage)


STEPS = {
    "mean": mean,
    "median": median,
    "trimmed_mean": trimmed_mean,
    "krum": krum,
    "multi_krum": multi_krum,
    "nnm": nnm,
}
