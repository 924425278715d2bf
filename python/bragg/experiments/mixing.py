# SPDX-License-Identifier: Apache-2.0
"""13 honest workers and 4 hostile: a rule alone, behind bucketing, behind NNM (Allouah et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from statistics import fmean

from .experiment import Experiment, Lines, Run, Table, by, means, spread
from .simulation import FACTORS, LOOKS, Setup

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


def _worst(runs: list[Run], rule: str, attacks: Iterable[str] = ATTACKS) -> list[float]:
    """By the attack that is worst, per seed."""
    found = by(runs, lambda setup: (setup.rule, setup.attack))
    return [min(values) for values in zip(*(found[rule, attack] for attack in attacks), strict=True)]


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


COMPARED = {name: BEFORE[name] + "geometric_median" for name in ("alone", "NNM")}
FOES = {"foe": "searched for in each step"} | {f"foe_{factor:g}": f"{factor:g}, kept" for factor in FACTORS}


def _factor_setups(quick: bool) -> list[Setup]:
    seeds, steps = (1, 150) if quick else (3, 400)
    common = Setup(rule="mean", honest=13, hostile=F, alpha=0.1, steps=steps)
    return [
        replace(common, rule=rule, attack=attack, seed=seed)
        for rule in COMPARED.values()
        for attack in FOES
        for seed in range(seeds)
    ]


def _factor_tables(runs: list[Run]) -> list[Table]:
    found = by(runs, lambda setup: (setup.rule, setup.attack))
    rows = [["geometric_median", *FOES.values(), "worst"]]
    for name, rule in COMPARED.items():
        rows.append([name, *(spread(found[rule, attack]) for attack in FOES), spread(_worst(runs, rule, FOES))])
    return [rows]


def _factor_claims(runs: list[Run]) -> dict[str, bool]:
    searched = means(runs, lambda setup: (setup.rule, setup.attack))
    alone, mixed = (fmean(_worst(runs, rule, FOES)) for rule in COMPARED.values())
    return {
        "alone, a factor that is kept does more harm than the one that is worst in each step": alone
        < searched[COMPARED["alone"], "foe"],
        "by the worst of all NNM is better than nothing": mixed > alone,
    }


def _factor_lines(runs: list[Run]) -> Lines:
    of = {}
    steps = [(look + 1) * runs[0][0].steps / LOOKS for look in range(LOOKS)]
    for name, rule in COMPARED.items():
        for attack, factor in FOES.items():
            looks = [training.accuracy for setup, training in runs if (setup.rule, setup.attack) == (rule, attack)]
            of[f"{name}, {factor}"] = (steps, [fmean(values) for values in zip(*looks, strict=True)])
    return Lines("step", "accuracy", of)


FACTOR = Experiment(
    "FOE before the geometric median, alone and behind NNM: the factor that is worst in each step, and factors kept",
    _factor_setups,
    _factor_tables,
    _factor_claims,
    _factor_lines,
)
