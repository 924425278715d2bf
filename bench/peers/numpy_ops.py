# SPDX-License-Identifier: Apache-2.0
"""The rules as they are written in NumPy by hand.

Distances come from a bare float32 Gram matrix, the fast way, which is not safe: one NaN or infinity
is in all of them, and so is the cancellation of rows with a common offset. The paths say so.
"""

from __future__ import annotations

import math
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


def norms_of(x):
    return np.sqrt(np.square(x).sum(axis=1))


def clipped(x, length):
    norms = norms_of(x)
    return x * np.minimum(1, length / np.maximum(norms, np.finfo(x.dtype).tiny))[:, None]


def quantile_clip(stage: Stage, n: int, d: int) -> Step:
    rank = math.ceil(stage.get("q", n) * n - 1e-9) - 1
    return Step(lambda x: clipped(x, np.sort(norms_of(x))[rank]), "NumPy clipping", stage)


def centered_clipping(stage: Stage, n: int, d: int) -> Step:
    tau, iters = stage.get("tau", n), stage.get("iters", n)

    def call(x):
        v = np.zeros(d, x.dtype)
        for _ in range(iters):
            v = v + clipped(x - v, tau).mean(axis=0)
        return v

    return Step(call, "NumPy centered clipping", stage.convention(start="origin"))


def huber(stage: Stage, n: int, d: int) -> Step:
    """Reweighted means: half as near with each, or nearer, where some rows are within tau."""
    tol = 1e-7
    tau = stage.get("tau", n)

    def call(x):
        v = x.mean(axis=0)
        for _ in range(1000):
            weights = np.minimum(1, tau / np.maximum(norms_of(x - v), np.finfo(x.dtype).tiny))
            before, v = v, weights @ x / weights.sum()
            if np.linalg.norm(v - before) <= tol * np.linalg.norm(v):
                break
        return v

    return Step(call, "NumPy reweighted means", stage.convention(start="mean", tol=tol))


def faba(stage: Stage, n: int, d: int) -> Step:
    def call(x):
        for _ in range(stage.f):
            far = norms_of(x - x.mean(axis=0))
            x = np.delete(x, len(x) - 1 - np.argmax(far[::-1]), axis=0)
        return x.mean(axis=0)

    return Step(call, "NumPy FABA", stage)


def dnc(stage: Stage, n: int, d: int) -> Step:
    """At all coordinates, so that there is nothing to draw."""
    kept = n - math.ceil(stage.get("c", n) * stage.f - 1e-9)

    def call(x):
        centred = x - x.mean(axis=0)
        along = np.linalg.eigh(centred @ centred.T)[1][:, -1] ** 2
        return x[np.argsort(along, kind="stable")[:kept]].mean(axis=0)

    return Step(call, "numpy.linalg.eigh of the Gram matrix", stage.convention(sample=d, iters=1))


def foolsgold(stage: Stage, n: int, d: int) -> Step:
    kappa = stage.get("kappa", n)

    def call(x):
        unit = x / norms_of(x)[:, None]
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, -1)
        most = np.maximum(cosines.max(axis=1), 0)
        pardoned = np.where(most > most[:, None], cosines * most[:, None] / most, cosines)
        apart = np.clip(1 - pardoned.max(axis=1), 0, 1)
        share = np.minimum(apart / apart.max(), 0.99)
        with np.errstate(divide="ignore"):
            weights = np.clip(kappa * (np.log(share / (1 - share)) + 0.5), 0, 1)
        return weights @ x / weights.sum()

    return Step(call, "NumPy FoolsGold", stage)


def fltrust(stage: Stage, n: int, d: int) -> Step:
    pivot = stage.get("pivot", n)

    def call(x):
        norms = norms_of(x)
        trust = np.maximum(x @ x[pivot] / (norms * norms[pivot]), 0)
        trust[pivot] = 0
        return (trust * norms[pivot] / norms) @ x / trust.sum()

    return Step(call, "NumPy FLTrust", stage)


def balance(stage: Stage, n: int, d: int) -> Step:
    pivot, gamma, alpha = (stage.get(name, n) for name in ("pivot", "gamma", "alpha"))

    def call(x):
        own = x[pivot]
        near = norms_of(x - own) <= gamma * np.linalg.norm(own)
        near[pivot] = False
        return alpha * own + (1 - alpha) * x[near].mean(axis=0) if near.any() else own

    return Step(call, "NumPy BALANCE", stage)


def sign_vote(stage: Stage, n: int, d: int) -> Step:
    step = stage.get("step", n)
    return Step(lambda x: step * np.sign(np.sign(x).sum(axis=0)), "numpy.sign, sum, sign", stage)


STEPS = {
    "mean": mean,
    "median": median,
    "trimmed_mean": trimmed_mean,
    "krum": krum,
    "multi_krum": multi_krum,
    "nnm": nnm,
    "quantile_clip": quantile_clip,
    "centered_clipping": centered_clipping,
    "huber": huber,
    "faba": faba,
    "dnc": dnc,
    "foolsgold": foolsgold,
    "fltrust": fltrust,
    "balance": balance,
    "sign_vote": sign_vote,
}
