# SPDX-License-Identifier: Apache-2.0
"""100 rounds with workers that turn hostile, and one that is honest but different, with and without a reputation."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import Any

from .experiment import Experiment, Lines, Run, Table, by, spread
from .simulation import Setup, Training

HONEST, F, WAKES = 13, 4, 30
RULES = ["geometric_median", "quantile_clip | mean", f"trimmed_mean(f={F})", f"nnm(f={F}) | trimmed_mean(f={F})"]
ATTACKS = ["large_sign_flip", "usual_alie", "nan"]
NAMED = {"large_sign_flip": "−10 times the mean", "usual_alie": "ALIE", "nan": "NaN"}
NEWCOMER = 0.2  # a reputation's default


def _setups(quick: bool) -> list[Setup]:
    seeds = 1 if quick else 5
    common = Setup(
        rule="mean", honest=HONEST, hostile=F, wakes=WAKES, alpha=10, lone=True, steps=100, rate=0.75, momentum=0.9
    )
    return [
        replace(common, rule=rule, attack=attack, reputation=kept, seed=seed)
        for rule in RULES
        for attack in ATTACKS
        for kept in (False, True)
        for seed in range(seeds)
    ]


def _key(setup: Setup) -> Any:
    return setup.rule, setup.attack, setup.reputation


def _last(training: Training, workers: slice) -> float:
    """The mean score in the end."""
    return fmean(training.scores[-1][workers])


LONE, OTHERS, SLEEPERS = slice(0, 1), slice(1, HONEST), slice(HONEST, HONEST + F)


def _kept(runs: list[Run]) -> list[Run]:
    return [run for run in runs if run[0].reputation]


def _tables(runs: list[Run]) -> list[Table]:
    found = by(runs, _key)
    lone = by(runs, _key, lambda training: training.classes[-1])
    scores = [
        by(_kept(runs), _key, lambda training, workers=workers: _last(training, workers))  # type: ignore[misc]
        for workers in (OTHERS, LONE, SLEEPERS)
    ]
    absent = [
        by(_kept(runs), _key, lambda training, workers=workers: fmean(training.left_out[workers]))  # type: ignore[misc]
        for workers in (slice(0, HONEST), SLEEPERS)
    ]
    head = ["rule", "the hostile send", "accuracy, with", "the lone class, with"]
    table: Table = [[*head, "scores: honest, different, hostile", "in quarantine: honest, hostile"]]
    for rule in RULES:
        for attack in ATTACKS:
            without, with_ = (rule, attack, False), (rule, attack, True)
            table.append(
                [
                    rule,
                    NAMED[attack],
                    f"{spread(found[without])}, {spread(found[with_])}",
                    f"{spread(lone[without])}, {spread(lone[with_])}",
                    ", ".join(f"{fmean(each[with_]):.2f}" for each in scores),
                    ", ".join(f"{fmean(each[with_]):.1f}" for each in absent),
                ]
            )
    return [table]


def _claims(runs: list[Run]) -> dict[str, bool]:
    kept = _kept(runs)
    claims = {}
    for rule in RULES[:2]:
        turned = [run for run in kept if run[0].rule == rule and run[0].attack == "large_sign_flip"]
        claims[f"{rule}: who turns to −10 times the mean ends below half of the others' score"] = all(
            _last(training, SLEEPERS) < _last(training, OTHERS) / 2 for _, training in turned
        )
    claims["who is honest but different weighs at least as a newcomer"] = all(
        min(scores[0] for scores in training.scores) >= NEWCOMER for _, training in kept
    )
    claims["no honest worker is ever in quarantine"] = all(sum(training.left_out[:HONEST]) == 0 for _, training in kept)
    claims["who sends NaN is in quarantine most of the time"] = all(
        min(training.left_out[SLEEPERS]) > (setup.steps - WAKES) / 2
        for setup, training in kept
        if setup.attack == "nan"
    )
    return claims


def _lines(runs: list[Run]) -> Lines:
    """Scores over the rounds, of one seed, by the first rule."""
    of = {}
    for setup, training in _kept(runs):
        if setup.rule != RULES[0] or setup.seed != 0:
            continue
        for name, workers in (("honest", OTHERS), ("different", LONE), ("hostile", SLEEPERS)):
            scores = [fmean(each[workers]) for each in training.scores]
            of[f"{NAMED[setup.attack]}: {name}"] = (range(1, len(scores) + 1), scores)
    return Lines("round", f"score, {RULES[0]}", of)


EXPERIMENT = Experiment(
    f"100 rounds: {F} of {HONEST + F} workers turn hostile after {WAKES}, and one alone has a class of its own",
    _setups,
    _tables,
    _claims,
    _lines,
)
