# SPDX-License-Identifier: Apache-2.0
"""Eleven clients with handwritten digits of their own, of whom three do harm: for flower_digits.py and nvflare_digits.py.

An honest client takes 20 steps of softmax regression on its images, from the global model. Client 3 replies with what is
no model, client 7 with ten times the step back, and client 9 is honest but claims to have had a million images.
"""

import csv
import functools
from pathlib import Path

import numpy as np

RULE = "nnm(f=2) | trimmed_mean(f=2)"
CLIENTS = 11
BROKEN, HOSTILE, BOASTER = 3, 7, 9
ROUNDS = 30
Model = dict[str, np.ndarray]


@functools.cache
def _rows() -> np.ndarray:
    """64 pixels and a digit each."""
    with (Path(__file__).parent / "data" / "digits.csv").open() as file:
        return np.array([[float(value) for value in row] for row in csv.reader(file)])


class Clients:
    def __init__(self, seed: int = 0) -> None:
        rows = np.random.default_rng(seed).permutation(_rows())
        images, labels = (rows[:, :-1] / 16).astype(np.float32), rows[:, -1].astype(int)
        self._test = images[:360], labels[:360]
        self._shares = np.array_split(np.arange(360, len(rows)), CLIENTS)
        self._images, self._labels = images, labels

    def images_of(self, client: int) -> int:
        """What it says."""
        return 10**6 if client == BOASTER else len(self._shares[client])

    def trained(self, client: int, model: Model) -> Model:
        """What it replies with."""
        if client == BROKEN:
            return {"weights": model["weights"][:5]}
        images, labels = self._images[self._shares[client]], self._labels[self._shares[client]]
        weights, bias = model["weights"], model["bias"]
        for _ in range(20):
            slope = np.exp(images @ weights + bias)
            slope /= slope.sum(1, keepdims=True)
            slope[np.arange(len(labels)), labels] -= 1
            weights = weights - 0.5 * images.T @ slope / len(labels)
            bias = bias - 0.5 * slope.mean(0)
        if client == HOSTILE:
            weights, bias = 11 * model["weights"] - 10 * weights, 11 * model["bias"] - 10 * bias
        return {"weights": weights, "bias": bias}

    def accuracy(self, model: Model) -> float:
        images, labels = self._test
        return float(((images @ model["weights"] + model["bias"]).argmax(1) == labels).mean())


def initial() -> Model:
    return {"weights": np.zeros((64, 10), np.float32), "bias": np.zeros(10, np.float32)}


def told(scores: dict[str, float]) -> str:
    """The scores, from the lowest to the highest."""
    return ", ".join(f"{name} {score:.2f}" for name, score in sorted(scores.items(), key=lambda item: item[1]))
