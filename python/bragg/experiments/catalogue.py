# SPDX-License-Identifier: Apache-2.0
"""The experiments: which trainings each is made of, and the table that it prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from .simulation import Setup

LAST = 3  # looks that a training's accuracy is the mean of

Run = tuple[Setup, list[float]]


def accuracy(looks: Sequence[float]) -> float:
    return fmean(looks[-LAST:])


def spread(values: Sequence[float]) -> str:
    """Percent, with the deviation where there are several."""
    middle = f"{100 * fmean(values):.1f}"
    return f"{middle} ± {100 * stdev(values):.1f}" if len(values) > 1 else middle


@dataclass(frozen=True)
class Experiment:
    about: str
    setups: Callable[[bool], list[Setup]]  # of the quick form, or of the full one
    table: Callable[[list[Run]], list[list[str]]]  # rows of cells; the first row is the head
    claims: Callable[[list[Run]], dict[str, bool]]  # what the paper found, and whether it holds here
    lines: Callable[[list[Run]], dict[str, Any]] | None = None  # {label: ([x…], [y…])} of the plot


def _by(runs: list[Run], key: Callable[[Setup], Any]) -> dict[Any, list[float]]:
    found: dict[Any, list[float]] = {}
    for setup, looks in runs:
        found.setdefault(key(setup), []).append(accuracy(looks))
    return found


# mixing ---------------------------------------------------------------------------------------------------------------

F = 4
MIXED = ["geometric_median", f"trimmed_mean(f={F})"]
# Buckets of 2 leave 9 points, which 4 bad rows are 4 of.
BEFORE = {"alone": "", "bucketing": "bucketing(s=2) | ", "NNM": f"nnm(f={F}) | "}
ATTACKS = ["alie", "foe", "sign_flip"]


def _mixing(quick: bool) -> list[Setup]:
    seeds, steps = (1, 150) if quick else (5, 800)
    common = Setup(rule="mean", honest=13, alpha=0.1, steps=steps)
    setups = [replace(common, seed=seed) for seed in range(seeds)]
    for rule in MIXED:
        for before in BEFORE.values():
            for attack in ATTACKS:
                robust = replace(common, rule=before + rule, attack=attack, hostile=F)
                setups += [replace(robust, seed=seed) for seed in range(seeds)]
    return setups


def _worst(runs: list[Run], rule: str) -> list[float]:
    """By the attack that is worst, per seed."""
    found = _by(runs, lambda setup: (setup.rule, setup.attack))
    return [min(values) for values in zip(*(found[rule, attack] for attack in ATTACKS), strict=True)]


def _mixing_table(runs: list[Run]) -> list[list[str]]:
    found = _by(runs, lambda setup: (setup.rule, setup.attack))
    rows = [["rule", "before it", "ALIE", "FOE", "sign flip", "worst"]]
    for rule in MIXED:
        for name, before in BEFORE.items():
            of_attack = [found[before + rule, attack] for attack in ATTACKS]
            rows.append([rule, name, *map(spread, of_attack), spread(_worst(runs, before + rule))])
    rows.append(["mean, nobody hostile", "", "", "", "", spread(found["mean", "none"])])
    return rows


def _mixing_claims(runs: list[Run]) -> dict[str, bool]:
    claims = {}
    for rule in MIXED:
        alone, bucketing, mixed = (fmean(_worst(runs, before + rule)) for before in BEFORE.values())
        claims[f"{rule}: by the worst attack NNM is better than nothing and than bucketing"] = mixed > max(
            alone, bucketing
        )
    return claims


# price ----------------------------------------------------------------------------------------------------------------

N = 17
PRICED = ("multi_krum", "trimmed_mean")
ALPHAS = (0.1, 1.0, 10.0)


def _priced(rule: str, f: int, mixed: int) -> str:
    text = f"{rule}(f={f})" if f > 0 else "mean"
    return f"nnm(f={mixed}) | {text}" if mixed else text


def _price(quick: bool) -> list[Setup]:
    seeds, steps = (1, 150) if quick else (3, 800)
    most = range(0, 8, 7) if quick else range(8)
    pairs = [(alpha, _priced(rule, f, 0)) for alpha in ALPHAS for rule in PRICED for f in most]
    pairs += [(0.1, _priced(rule, 7, mixed)) for rule in PRICED for mixed in most]
    common = Setup(rule="mean", honest=N, steps=steps)
    return [
        replace(common, rule=rule, alpha=alpha, seed=seed)
        for alpha, rule in dict.fromkeys(pairs)
        for seed in range(seeds)
    ]


def _price_series(runs: list[Run]) -> tuple[list[int], list[tuple[str, float, list[list[float]]]]]:
    """Each f, and for each line of the table its name, its α, and the accuracies at each f."""
    found = _by(runs, lambda setup: (setup.alpha, setup.rule))
    most = [f for f in range(8) if (0.1, _priced("trimmed_mean", f, 0)) in found]
    series = []
    for rule in PRICED:
        for alpha in ALPHAS:
            series.append((rule, alpha, [found[alpha, _priced(rule, f, 0)] for f in most]))
        mixed = [found[0.1, _priced(rule, 7, f)] for f in most]
        series.append((f"nnm(f = …) before {rule}(f = 7)", 0.1, mixed))
    return most, series


def _price_table(runs: list[Run]) -> list[list[str]]:
    most, series = _price_series(runs)
    head = ["rule", "α", *(f"f = {f}" for f in most)]
    return [head, *([name, f"{alpha:g}", *map(spread, values)] for name, alpha, values in series)]


def _price_claims(runs: list[Run]) -> dict[str, bool]:
    found = {key: fmean(values) for key, values in _by(runs, lambda setup: (setup.alpha, setup.rule)).items()}
    claims = {}
    for rule in PRICED:
        free, dear, mixed = (
            found[0.1, _priced(rule, 0, 0)],
            found[0.1, _priced(rule, 7, 0)],
            found[0.1, _priced(rule, 7, 7)],
        )
        claims[f"{rule}: f = 7 costs unlike workers (α = 0.1) more than 5 points"] = dear < free - 0.05
        claims[f"{rule}: NNM gives some of it back"] = mixed > dear
        alike = found[10.0, _priced(rule, 0, 0)] - found[10.0, _priced(rule, 7, 0)]
        claims[f"{rule}: it costs workers that are alike (α = 10) less"] = alike < free - dear
    return claims


def _price_lines(runs: list[Run]) -> dict[str, Any]:
    most, series = _price_series(runs)
    return {f"{name}, α = {alpha:g}": (most, list(map(fmean, values))) for name, alpha, values in series}


EXPERIMENTS = {
    "price": Experiment(
        "accuracy against f where nobody is hostile: what a defence costs honest workers, and what NNM gives back",
        _price,
        _price_table,
        _price_claims,
        _price_lines,
    ),
    "mixing": Experiment(
        "13 honest workers and 4 hostile: a rule alone, behind bucketing, behind NNM, by the worst attack",
        _mixing,
        _mixing_table,
        _mixing_claims,
    ),
}
