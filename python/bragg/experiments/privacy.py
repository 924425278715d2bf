# SPDX-License-Identifier: Apache-2.0
"""What workers' own noise (differential privacy) and a rule cost together (Allouah et al. 2023, on the trilemma)."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from statistics import fmean
from typing import Any

from bragg.training import epsilon

from .experiment import Experiment, Lines, Run, Table, by, means, spread
from .simulation import Setup

N = 17
NOISES = [0.0, 0.5, 1.0, 2.0]
DELTA = 1e-4  # a quarter of one in so many images as there are


def _rule(f: int) -> str:
    return f"nnm(f={f}) | trimmed_mean(f={f})" if f else "mean"


def _setups(quick: bool) -> list[Setup]:
    seeds, steps, counts = (1, 200, (0, 3)) if quick else (3, 400, (0, 1, 3, 5))
    common = Setup(rule="mean", alpha=10, steps=steps, clip=1, rate=0.5)
    return [
        replace(
            common,
            rule=_rule(f),
            honest=N - f,
            hostile=f,
            attack="alie" if f else "none",
            noise=noise,
            seed=seed,
        )
        for noise in NOISES
        for f in counts
        for seed in range(seeds)
    ]


def _key(setup: Setup) -> Any:
    return setup.noise, setup.hostile


def _series(runs: list[Run]) -> tuple[list[int], dict[float, list[list[float]]]]:
    """Each f, and for each noise the accuracies at each f."""
    found = by(runs, _key)
    counts = sorted({f for _, f in found})
    return counts, {noise: [found[noise, f] for f in counts] for noise in NOISES}


def _epsilon(runs: list[Run], noise: float) -> str:
    """Of the worker whose images are drawn most often, of all trainings."""
    if noise == 0:
        return "∞"
    if importlib.util.find_spec("dp_accounting") is None:
        return "?"
    drawn = max(training.drawn for setup, training in runs if setup.noise == noise)
    return f"{epsilon(noise, runs[0][0].steps, DELTA, drawn):.1f}"


def _tables(runs: list[Run]) -> list[Table]:
    counts, series = _series(runs)
    head = ["noise multiplier", f"ε at δ = {DELTA:g}", *(f"f = {f}" for f in counts)]
    rows = [[f"{noise:g}", _epsilon(runs, noise), *map(spread, accuracies)] for noise, accuracies in series.items()]
    return [[head, *rows]]


def _claims(runs: list[Run]) -> dict[str, bool]:
    """Of the trainings with noise: in those without, images are not cut one by one."""
    found = means(runs, _key)
    most = max(f for _, f in found)
    quiet, loud = NOISES[1], NOISES[-1]
    base, worst = found[quiet, 0], found[loud, most]
    return {
        f"noise costs more with f = {most} than with f = 0": found[quiet, most] - worst > base - found[loud, 0],
        "both together cost more than the two of them alone": base - worst
        > (base - found[loud, 0]) + (base - found[quiet, most]),
    }


def _lines(runs: list[Run]) -> Lines:
    counts, series = _series(runs)
    return Lines(
        "f",
        "accuracy",
        {f"noise multiplier {noise:g}": (counts, list(map(fmean, values))) for noise, values in series.items()},
    )


EXPERIMENT = Experiment(
    "accuracy over workers' own noise (differential privacy) and f, with ALIE by f workers",
    _setups,
    _tables,
    _claims,
    _lines,
)
