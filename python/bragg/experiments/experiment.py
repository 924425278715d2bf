# SPDX-License-Identifier: Apache-2.0
"""What an experiment is, and how its figures are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from .simulation import Setup, Training

LAST = 3  # looks that a training's accuracy is the mean of

Run = tuple[Setup, Training]
Table = list[list[str]]  # rows of cells; the first row is the head


@dataclass(frozen=True)
class Lines:
    """A plot."""

    x: str
    y: str
    of: Mapping[str, tuple[Sequence[Any], Sequence[float]]]  # {label: (x…, y…)}


@dataclass(frozen=True)
class Experiment:
    about: str
    setups: Callable[[bool], list[Setup]]  # of the quick form, or of the full one
    tables: Callable[[list[Run]], list[Table]]
    claims: Callable[[list[Run]], dict[str, bool]]  # what the paper found, and whether it holds here
    lines: Callable[[list[Run]], Lines]


def accuracy(training: Training) -> float:
    return fmean(training.accuracy[-LAST:])


def spread(values: Sequence[float]) -> str:
    """Percent, with the deviation where there are several."""
    middle = f"{100 * fmean(values):.1f}"
    return f"{middle} ± {100 * stdev(values):.1f}" if len(values) > 1 else middle


def by(
    runs: list[Run], key: Callable[[Setup], Any], value: Callable[[Training], float] = accuracy
) -> dict[Any, list[float]]:
    """The values of all seeds."""
    found: dict[Any, list[float]] = {}
    for setup, training in runs:
        found.setdefault(key(setup), []).append(value(training))
    return found


def means(
    runs: list[Run], key: Callable[[Setup], Any], value: Callable[[Training], float] = accuracy
) -> dict[Any, float]:
    return {each: fmean(values) for each, values in by(runs, key, value).items()}
