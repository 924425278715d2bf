# SPDX-License-Identifier: Apache-2.0
"""Long tails, and attackers who hide a little in every step (Karimireddy et al. 2021)."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

from .experiment import Experiment, Lines, Run, Table, by, means, spread
from .simulation import Setup, Training

N, F = 25, 11
CLIPPING = "centered_clipping(tau=10)"
# Five rows are cut off where nobody is hostile; more would make the middle smaller still.
TAILED = ["mean", "median", "trimmed_mean(f=5)", "krum(f=5)", "geometric_median", CLIPPING]
HIDDEN_IN = ["median", f"krum(f={F})", "geometric_median", "centered_clipping(tau=1)"]
BETAS = [0.0, 0.9]
TAUS, ITERS = [0.1, 1, 10, 100], [1, 5]


def _clipping(tau: float, iters: int) -> str:
    return f"centered_clipping(tau={tau:g})" if iters == 1 else f"centered_clipping(tau={tau:g}, iters={iters})"


def _setups(quick: bool) -> list[Setup]:
    seeds, steps = (1, 300) if quick else (3, 600)
    # One image for each worker and step, and no memory: gradients as far from their mean as they can be.
    tailed = Setup(rule="mean", honest=N, alpha=1000, tail=0.6, batch=1, momentum=0, clip=1e9, rate=0.2, steps=steps)
    attacked = Setup(
        rule="mean", attack="usual_alie", honest=N - F, hostile=F, alpha=1000, rate=0.2, clip=1e9, steps=steps // 2
    )
    setups = [replace(tailed, rule=rule) for rule in TAILED]
    setups += [replace(attacked, rule=rule, momentum=beta) for rule in HIDDEN_IN for beta in BETAS]
    setups += [
        replace(attacked, rule=_clipping(tau, iters), momentum=beta)
        for tau in TAUS
        for iters in ITERS
        for beta in BETAS
    ]
    setups = [replace(setup, about_last=setup.rule.startswith("centered_clipping")) for setup in setups]
    return [replace(setup, seed=seed) for setup in dict.fromkeys(setups) for seed in range(seeds)]


def _learnt(training: Training) -> float:
    """How many classes are told from others more often than not."""
    return sum(share > 0.5 for share in training.classes)


def _tailed(runs: list[Run]) -> list[Run]:
    return [run for run in runs if run[0].attack == "none"]


def _attacked(runs: list[Run]) -> list[Run]:
    return [run for run in runs if run[0].attack != "none"]


def _tables(runs: list[Run]) -> list[Table]:
    tailed = _tailed(runs)
    reached = by(tailed, lambda setup: setup.rule)
    learnt = means(tailed, lambda setup: setup.rule, _learnt)
    commonest = means(tailed, lambda setup: setup.rule, lambda training: fmean(training.classes[:2]))
    rarest = means(tailed, lambda setup: setup.rule, lambda training: fmean(training.classes[5:]))
    tails: Table = [["long tail, nobody hostile", "accuracy", "classes learnt", "of 0 and 1", "of 5 to 9"]]
    for rule in TAILED:
        cells = [spread(reached[rule]), f"{learnt[rule]:.1f}", spread([commonest[rule]]), spread([rarest[rule]])]
        tails.append([rule, *cells])
    found = by(_attacked(runs), lambda setup: (setup.rule, setup.momentum))
    heads = [f"momentum {beta:g}" for beta in BETAS]
    hidden: Table = [["ALIE", *heads]]
    hidden += [[rule, *(spread(found[rule, beta]) for beta in BETAS)] for rule in HIDDEN_IN]
    radii: Table = [["ALIE, centered clipping", *(f"{head}, L = {iters}" for head in heads for iters in ITERS)]]
    for tau in TAUS:
        cells = [spread(found[_clipping(tau, iters), beta]) for beta in BETAS for iters in ITERS]
        radii.append([f"τ = {tau:g}", *cells])
    return [tails, hidden, radii]


def _claims(runs: list[Run]) -> dict[str, bool]:
    learnt = means(_tailed(runs), lambda setup: setup.rule, _learnt)
    found = means(_attacked(runs), lambda setup: (setup.rule, setup.momentum))
    middle = max(learnt[rule] for rule in TAILED if rule not in ("mean", CLIPPING))
    claims = {
        "long tail: what seeks the middle learns fewer classes than the mean": middle < learnt["mean"],
        "long tail: centered clipping learns as many as the mean": learnt[CLIPPING] >= learnt["mean"],
    }
    for rule in HIDDEN_IN:
        claims[f"ALIE: {rule} does better with worker momentum"] = found[rule, 0.9] > found[rule, 0.0]
    best = max(found[_clipping(tau, iters), 0.9] for tau in TAUS for iters in ITERS)
    claims["ALIE: with momentum some centered clipping does better than every rule that seeks the middle"] = best > max(
        found[rule, 0.9] for rule in HIDDEN_IN[:-1]
    )
    return claims


def _lines(runs: list[Run]) -> Lines:
    found = means(_attacked(runs), lambda setup: (setup.rule, setup.momentum))
    of = {
        f"momentum {beta:g}, L = {iters}": (
            [f"{tau:g}" for tau in TAUS],
            [found[_clipping(tau, iters), beta] for tau in TAUS],
        )
        for beta in BETAS
        for iters in ITERS
    }
    return Lines("τ of centered clipping, against ALIE", "accuracy", of)


EXPERIMENT = Experiment(
    "long tails without attackers, ALIE with and without worker momentum, centered clipping over radius and rounds",
    _setups,
    _tables,
    _claims,
    _lines,
)
