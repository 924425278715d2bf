# SPDX-License-Identifier: Apache-2.0
"""A distributed training in one process: honest workers, hostile ones who see all that they send, and a rule."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from statistics import NormalDist

import bragg
import numpy as np
from bragg.training import GaussianNoise
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
    wakes: int = 0  # step at which the hostile become hostile; until then they are honest workers
    alpha: float = 1.0  # of the Dirichlet shares: how alike workers are
    tail: float = 1.0  # how many images of a class are trained on, as a share of those of the class before
    lone: bool = False  # worker 0 has the last class to itself, and nothing else
    data: str = "mnist"
    steps: int = 800
    batch: int = 25
    rate: float = 0.75  # divided by 1 + ⌊step/50⌋
    momentum: float = 0.9
    decay: float = 1e-4  # of weights, per step
    clip: float = 2.0  # length that gradients are cut to; with noise, each image's own
    noise: float = 0.0  # noise multiplier: workers draw each image by chance, and hide it (differential privacy)
    about_last: bool = False  # the rule measures from its last result
    reputation: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Training:
    """What came of a setup."""

    accuracy: list[float]  # on what is held back, at LOOKS steps evenly spread up to the last
    classes: list[float]  # of each class, at the last step
    drawn: float = 1.0  # the largest chance that an image had to be in a batch, where there is noise
    scores: list[list[float]] = field(
        default_factory=list
    )  # after each step, of each worker, where there is a reputation
    left_out: list[int] = field(default_factory=list)  # steps that each worker was in quarantine


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

    def gradients(
        self,
        parameters: Array,
        images: Array,
        labels: NDArray[np.int64],
        clip: float = math.inf,
        counted: NDArray[np.bool_] | None = None,
        size: int = 0,
    ) -> Array:
        """(workers, d) from (workers, batch, pixels) and (workers, batch): sums over the batch, divided by `size`, or else
        by its own. Each image's gradient is cut to the length `clip` before; those that are not `counted` are 0.
        """
        first, first_bias, second, second_bias = self._parts(parameters)
        hidden = np.maximum(images @ first + first_bias, 0)
        scores = hidden @ second + second_bias
        scores -= scores.max(-1, keepdims=True)
        slope = np.exp(scores)
        slope /= slope.sum(-1, keepdims=True)
        workers, batch = labels.shape
        slope[np.arange(workers)[:, None], np.arange(batch), labels] -= 1
        slope /= size or batch
        back = (slope @ second.T) * (hidden > 0)
        if clip < math.inf or counted is not None:
            # The gradient of an image is two outer products, whose lengths are those of their factors, multiplied.
            inner = ((images**2).sum(-1) + 1) * (back**2).sum(-1)
            outer = ((hidden**2).sum(-1) + 1) * (slope**2).sum(-1)
            scale = np.minimum(1, clip / (size or batch) / np.maximum(np.sqrt(inner + outer), 1e-30))
            scale = (scale if counted is None else scale * counted)[..., None].astype(slope.dtype)
            slope, back = slope * scale, back * scale
        parts = [images.swapaxes(1, 2) @ back, back.sum(1), hidden.swapaxes(1, 2) @ slope, slope.sum(1)]
        return np.concatenate([part.reshape(workers, -1) for part in parts], axis=1)

    def right(self, parameters: Array, test: data.Images) -> NDArray[np.bool_]:
        """Which images it takes for what they are."""
        first, first_bias, second, second_bias = self._parts(parameters)
        scores = np.maximum(test.images @ first + first_bias, 0) @ second + second_bias
        return np.asarray(scores.argmax(1) == test.labels)


def _usual_strength(setup: Setup) -> float:
    """The z of Baruch et al. (2019): so many honest workers lie farther out that, with them, the hostile are a majority."""
    n = setup.honest + setup.hostile
    supporters = n // 2 + 1 - setup.hostile
    return NormalDist().inv_cdf((setup.honest - supporters) / setup.honest)


FACTORS = (0.1, 1.0, 2.25, 10.0)  # FOE's where it is not searched for

# An attack makes what every hostile worker sends of what the honest ones send. ALIE and FOE are sent at the strength,
# of those up to 10, that does most damage to the very pipeline in use.
ATTACKS = {
    "alie": lambda sent, setup: bragg.attacks.optimal_alie(sent, setup.rule, setup.hostile).row,
    "foe": lambda sent, setup: bragg.attacks.optimal_ipm(sent, setup.rule, setup.hostile).row,
    "usual_alie": lambda sent, setup: bragg.attacks.a_little_is_enough(sent, _usual_strength(setup)),
    "sign_flip": lambda sent, setup: bragg.attacks.sign_flip(sent),
    "large_sign_flip": lambda sent, setup: bragg.attacks.sign_flip(sent, 10),
    "nan": lambda sent, setup: np.full_like(sent[0], np.nan),
} | {
    f"foe_{factor:g}": functools.partial(lambda factor, sent, setup: bragg.attacks.sign_flip(sent, factor), factor)
    for factor in FACTORS
}


@functools.cache
def _loaded(name: str) -> data.Data:
    return data.load(name)


def _shares(labels: data.Labels, setup: Setup, random: np.random.Generator) -> list[NDArray[np.int64]]:
    """Which images each worker trains on."""
    workers = setup.honest + (setup.hostile if setup.wakes else 0)
    most = np.bincount(labels).max() * setup.tail ** np.arange(CLASSES)
    of_class = [np.flatnonzero(labels == label) for label in range(CLASSES)]
    kept = np.sort(np.concatenate([of[: max(1, round(keep))] for of, keep in zip(of_class, most, strict=True)]))
    if not setup.lone:
        return [kept[share] for share in data.deal(labels[kept], workers, setup.alpha, random)]
    last = labels[kept] == CLASSES - 1
    rest = kept[~last]
    return [kept[last], *(rest[share] for share in data.deal(labels[rest], workers - 1, setup.alpha, random))]


def _by_chance(
    shares: list[NDArray[np.int64]], batch: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Poisson sampling: each image is drawn by itself, `batch` of a worker's on average. What fills the rest of the array
    does not count.
    """
    drawn = [share[random.random(len(share)) < batch / len(share)] for share in shares]
    longest = max(1, *map(len, drawn))
    counted = np.arange(longest) < np.array([[len(each)] for each in drawn])
    return np.stack([np.concatenate([each, np.repeat(shares[0][:1], longest - len(each))]) for each in drawn]), counted


class _Server:
    """The rule, and what is remembered beside it."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._names = [f"worker {k}" for k in range(setup.honest + setup.hostile)]
        self._reputation = bragg.Reputation(f=setup.hostile) if setup.reputation else None
        self._last: Array | None = None
        self.scores: list[list[float]] = []
        self.left_out = [0] * len(self._names) if setup.reputation else []

    def aggregate(self, sent: Array) -> Array:
        if self._reputation is None:
            step: Array = bragg.aggregate(sent, self._setup.rule, base=self._last, threads=1)
        else:
            trust = self._reputation.trust(self._setup.rule, self._names)
            made = bragg.aggregate_with_report(
                sent[trust.rows], trust.rule, base=self._last, weights=trust.weights, threads=1
            )
            self._reputation.update(trust, made.reports)
            self.scores.append([round(self._reputation.score(name), 3) for name in self._names])
            for worker in set(range(len(self._names))) - set(trust.rows):
                self.left_out[worker] += 1
            step = made.value
        if self._setup.about_last:
            self._last = step
        return step


def train(setup: Setup) -> Training:
    images = _loaded(setup.data)
    random = np.random.default_rng(setup.seed)
    shares = _shares(images.train.labels, setup, random)
    network = Network(images.train.images.shape[1])
    parameters = network.start(random)
    momenta = np.zeros((len(shares), len(parameters)), np.float32)
    server = _Server(setup)
    noises = [
        GaussianNoise(setup.noise, setup.clip / setup.batch, setup.seed, worker)
        for worker in range(len(shares) if setup.noise else 0)
    ]
    accuracies = []
    for step in range(setup.steps):
        if setup.noise:
            chosen, counted = _by_chance(shares, setup.batch, random)
            gradients = network.gradients(
                parameters,
                images.train.images[chosen],
                images.train.labels[chosen],
                setup.clip,
                counted,
                setup.batch,
            )
            gradients = np.stack([noise.add(each, step) for noise, each in zip(noises, gradients, strict=True)])
        else:
            chosen = np.stack([share[random.integers(len(share), size=setup.batch)] for share in shares])
            gradients = network.gradients(parameters, images.train.images[chosen], images.train.labels[chosen])
            lengths = np.linalg.norm(gradients, axis=1, keepdims=True)
            gradients *= np.minimum(1, setup.clip / np.maximum(lengths, 1e-30))
        gradients += np.float32(setup.decay) * parameters
        momenta += np.float32(1 - setup.momentum) * (gradients - momenta)
        sent = momenta
        if setup.hostile and step >= setup.wakes:
            honest = momenta[: setup.honest]
            bad = ATTACKS[setup.attack](honest, setup)
            sent = np.concatenate([honest, np.repeat(bad[None], setup.hostile, axis=0)])
        parameters = parameters - np.float32(setup.rate / (1 + step // 50)) * server.aggregate(sent)
        if (step + 1) * LOOKS // setup.steps > step * LOOKS // setup.steps:
            right = network.right(parameters, images.test)
            accuracies.append(float(right.mean()))
    return Training(
        accuracies,
        [float(right[images.test.labels == label].mean()) for label in range(CLASSES)],
        min(1.0, setup.batch / min(map(len, shares))) if setup.noise else 1.0,
        server.scores,
        server.left_out,
    )
