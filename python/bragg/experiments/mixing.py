# SPDX-License-Identifier: Apache-2.0
"""13 honest workers and 4 hostile: a rule alone, behind bucketing, behind NNM (Allouah et al. 2023)."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

from .experiment import Experiment, Lines, Run, Table, by, means, spread
from .simulation import Setup

F = 4
MIXED = ["geometric_median", f"trimmed_mean(f={F})"]
# Buckets of 2 leave 9 points, which 4 bad rows are 4 of.
BEFORE = {"alone": "", "bucketing": "bucketing(s=2) | ", "NNM": f"nnm(f={F}) | "}
ATTACKS = ["alie", "foe", "sign_flip"]


def _setups(quick: bool) -> list[Setup]:
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
    found = by(runs, lambda setup: (setup.rule, setup.attack))
    return [min(values) for values in zip(*(found[rule, attack] for attack in ATTACKS), strict=True)]


def _tables(runs: list[Run]) -> list[Table]:
    found = by(runs, lambda setup: (setup.rule, setup.attack))
    rows = [["rule", "before it", "ALIE", "FOE", "sign flip", "worst"]]
    for rule in MIXED:
        for name, before in BEFORE.items():
            of_attack = [found[before + rule, attack] for attack in ATTACKS]
            rows.append([rule, name, *map(spread, of_attack), spread(_worst(runs, before + rule))])
    rows.append(["mean, nobody hostile", "", "", "", "", spread(found["mean", "none"])])
    return [rows]


def _claims(runs: list[Run]) -> dict[str, bool]:
    claims = {}
    for rule in MIXED:
        alone, bucketing, mixed = (fmean(_worst(runs, before + rule)) for before in BEFORE.values())
        claims[f"{rule}: by the worst attack NNM is better than nothing and than bucketing"] = mixed > max(
            alone, bucketing
        )
    return claims


def _lines(runs: list[Run]) -> Lines:
    found = means(runs, lambda setup: (setup.rule, setup.attack))
    of = {
        f"{rule}, {name}": (ATTACKS, [found[before + rule, attack] for attack in ATTACKS])
        for rule in MIXED
        for name, before in BEFORE.items()
    }
    return Lines("attack", "accuracy", of)


EXPERIMENT = Experiment(
    "13 honest workers and 4 hostile: a rule alone, behind bucketing, behind NNM, by the worst attack",
    _setups,
    _tables,
    _claims,
    _lines,
)
