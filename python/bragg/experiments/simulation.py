# SPDX-License-Identifier: Apache-2.0
"""A distributed training in one process: honest workers, hostile ones who see all that they send, and a rule."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import bragg
import numpy as np
from numpy.typing import NDArray

from . import data

Array = NDArray[np.float32]

HIDDEN = 64
CLASSES = 10
LOOKS = 20  # times that the accuracy is measured


@dataclass(frozen=True)
class Setup:
    """One training. Gradients are of the mean cross-entropy of a batch; workers send their momenta."""

    rule: str
    attack: str = "none"  # one of ATTACKS
    honest: int = 17
    hostile: int = 0
    alpha: float = 1.0  # of the Dirichlet shares: how alike workers are
    data: str = "mnist"
    steps: int = 800
    batch: int = 25
    rate: float = 0.75  # divided by 1 + ⌊step/50⌋
    momentum: float = 0.9
    decay: float = 1e-4  # of weights, per step
    clip: float = 2.0  # length that gradients are cut to
    seed: int = 0


class Network:
    """Two layers with a ReLU between, as a flat vector of parameters; of many workers at once."""

    def __init__(self, inputs: int) -> None:
        self.shapes = [(inputs, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,)]
        self.ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])

    def start(self, random: np.random.Generator) -> Array:
        scales = [np.sqrt(2 / shape[0]) if len(shape) == 2 else 0.0 for shape in self.shapes]
        parts = [random.standard_normal(shape) * scale for shape, scale in zip(self.shapes, scales, strict=True)]
        return np.concatenate([part.ravel() for part in parts]).astype(np.float32)

    def _parts(self, parameters: Array) -> list[Array]:
        pieces = np.split(parameters, self.ends[:-1])
        return [piece.reshape(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def gradients(self, parameters: Array, images: Array, labels: NDArray[np.int64]) -> Array:
        """(workers, d) from (workers, batch, pixels) and (workers, batch)."""
        first, first_bias, second, second_bias = self._parts(parameters)
        hidden = np.maximum(images @ first + first_bias, 0)
        scores = hidden @ second + second_bias
        scores -= scores.max(-1, keepdims=True)
        slope = np.exp(scores)
        slope /= slope.sum(-1, keepdims=True)
        workers, batch = labels.shape
        slope[np.arange(workers)[:, None], np.arange(batch), labels] -= 1
        slope /= batch
        back = (slope @ second.T) * (hidden > 0)
        parts = [images.swapaxes(1, 2) @ back, back.sum(1), hidden.swapaxes(1, 2) @ slope, slope.sum(1)]
        return np.concatenate([part.reshape(workers, -1) for part in parts], axis=1)

    def accuracy(self, parameters: Array, test: data.Images) -> float:
        first, first_bias, second, second_bias = self._parts(parameters)
        scores = np.maximum(test.images @ first + first_bias, 0) @ second + second_bias
        return float((scores.argmax(1) == test.labels).mean())


# An attack makes what every hostile worker sends of what the honest ones send. ALIE and FOE are sent at the strength,
# of those up to 10, that does most damage to the very pipeline in use.
ATTACKS = {
    "alie": lambda sent, setup: bragg.attacks.optimal_alie(sent, setup.rule, setup.hostile).row,
    "foe": lambda sent, setup: bragg.attacks.optimal_ipm(sent, setup.rule, setup.hostile).row,
    "sign_flip": lambda sent, setup: bragg.attacks.sign_flip(sent),
    "nan": lambda sent, setup: np.full_like(sent[0], np.nan),
}


@functools.cache
def _loaded(name: str) -> data.Data:
    return data.load(name)


def train(setup: Setup) -> list[float]:
    """The accuracy on what is held back, at LOOKS steps evenly spread up to the last."""
    images = _loaded(setup.data)
    random = np.random.default_rng(setup.seed)
    shares = data.deal(images.train.labels, setup.honest, setup.alpha, random)
    network = Network(images.train.images.shape[1])
    parameters = network.start(random)
    momenta = np.zeros((setup.honest, len(parameters)), np.float32)
    accuracies = []
    for step in range(setup.steps):
        chosen = np.stack([share[random.integers(len(share), size=setup.batch)] for share in shares])
        gradients = network.gradients(parameters, images.train.images[chosen], images.train.labels[chosen])
        lengths = np.linalg.norm(gradients, axis=1, keepdims=True)
        gradients *= np.minimum(1, setup.clip / np.maximum(lengths, 1e-30))
        gradients += np.float32(setup.decay) * parameters
        momenta += np.float32(1 - setup.momentum) * (gradients - momenta)
        sent = momenta
        if setup.hostile:
            bad = ATTACKS[setup.attack](momenta, setup)
            sent = np.concatenate([momenta, np.repeat(bad[None], setup.hostile, axis=0)])
        step_taken = bragg.aggregate(sent, setup.rule, threads=1)
        parameters = parameters - np.float32(setup.rate / (1 + step // 50)) * step_taken
        if (step + 1) * LOOKS // setup.steps > step * LOOKS // setup.steps:
            accuracies.append(network.accuracy(parameters, images.test))
    return accuracies
