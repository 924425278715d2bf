# SPDX-License-Identifier: Apache-2.0
"""What f costs where nobody is hostile, what NNM gives back, and what makes the price high or low."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

from .experiment import Experiment, Lines, Run, Table, by, means, spread
from .simulation import Setup

N = 17
PRICED = ("multi_krum", "trimmed_mean")
ALPHAS = (0.1, 1.0, 10.0)


def _priced(rule: str, f: int, mixed: int) -> str:
    text = f"{rule}(f={f})" if f > 0 else "mean"
    return f"nnm(f={mixed}) | {text}" if mixed else text


def _setups(quick: bool) -> list[Setup]:
    seeds, steps = (1, 150) if quick else (3, 800)
    most = (0, 1, 7) if quick else range(8)
    pairs = [(alpha, _priced(rule, f, 0)) for alpha in ALPHAS for rule in PRICED for f in most]
    pairs += [(0.1, _priced(rule, 7, mixed)) for rule in PRICED for mixed in most]
    common = Setup(rule="mean", honest=N, steps=steps)
    return [
        replace(common, rule=rule, alpha=alpha, seed=seed)
        for alpha, rule in dict.fromkeys(pairs)
        for seed in range(seeds)
    ]


def _series(runs: list[Run]) -> tuple[list[int], list[tuple[str, float, list[list[float]]]]]:
    """Each f, and for each line of the table its name, its α, and the accuracies at each f."""
    found = by(runs, lambda setup: (setup.alpha, setup.rule))
    most = [f for f in range(8) if (0.1, _priced("trimmed_mean", f, 0)) in found]
    series = []
    for rule in PRICED:
        for alpha in ALPHAS:
            series.append((rule, alpha, [found[alpha, _priced(rule, f, 0)] for f in most]))
        mixed = [found[0.1, _priced(rule, 7, f)] for f in most]
        series.append((f"nnm(f = …) before {rule}(f = 7)", 0.1, mixed))
    return most, series


def _tables(runs: list[Run]) -> list[Table]:
    most, series = _series(runs)
    head = ["rule", "α", *(f"f = {f}" for f in most)]
    return [[head, *([name, f"{alpha:g}", *map(spread, values)] for name, alpha, values in series)]]


def _claims(runs: list[Run]) -> dict[str, bool]:
    found = means(runs, lambda setup: (setup.alpha, setup.rule))
    claims = {}
    for rule in PRICED:
        free, dear = (found[0.1, _priced(rule, f, 0)] for f in (0, 7))
        mixed = max(found.get((0.1, _priced(rule, 7, f)), 0) for f in range(1, 8))
        claims[f"{rule}: f = 7 costs unlike workers (α = 0.1) more than 5 points"] = dear < free - 0.05
        claims[f"{rule}: NNM, with an f of its own, gives more than half of it back"] = mixed > (free + dear) / 2
        alike = found[10.0, _priced(rule, 0, 0)] - found[10.0, _priced(rule, 7, 0)]
        claims[f"{rule}: it costs workers that are alike (α = 10) less"] = alike < free - dear
    return claims


def _lines(runs: list[Run]) -> Lines:
    most, series = _series(runs)
    lines = {f"{name}, α = {alpha:g}": (most, list(map(fmean, values))) for name, alpha, values in series}
    return Lines("f", "accuracy", lines)


EXPERIMENT = Experiment(
    "accuracy against f where nobody is hostile: what a defence costs honest workers, and what NNM gives back",
    _setups,
    _tables,
    _claims,
    _lines,
)


CAUSES = {
    "as it is": Setup(rule="mean", honest=N, alpha=0.1),
    "α = 0.03": Setup(rule="mean", honest=N, alpha=0.03),
    "gradients not clipped": Setup(rule="mean", honest=N, alpha=0.1, clip=1e9),
    "no momentum": Setup(rule="mean", honest=N, alpha=0.1, momentum=0),
}
DEAR = _priced("trimmed_mean", 7, 0)
COMPARED = ["mean", DEAR, _priced("trimmed_mean", 7, 1), _priced("trimmed_mean", 7, 7)]


def _cause(setup: Setup) -> str:
    varied = {field: getattr(setup, field) for field in ("rule", "data", "steps", "seed")}
    return next(name for name, cause in CAUSES.items() if replace(cause, **varied) == setup)


def _ablation_setups(quick: bool) -> list[Setup]:
    seeds, steps = (1, 150) if quick else (3, 800)
    return [
        replace(cause, rule=rule, steps=steps, seed=seed)
        for cause in CAUSES.values()
        for rule in COMPARED
        for seed in range(seeds)
    ]


def _ablation_tables(runs: list[Run]) -> list[Table]:
    found = by(runs, lambda setup: (_cause(setup), setup.rule))
    head = ["α = 0.1, nobody hostile", *COMPARED]
    return [[head, *([name, *(spread(found[name, rule]) for rule in COMPARED)] for name in CAUSES)]]


def _ablation_claims(runs: list[Run]) -> dict[str, bool]:
    found = means(runs, lambda setup: (_cause(setup), setup.rule))
    price = {name: found[name, "mean"] - found[name, DEAR] for name in CAUSES}
    plain, unlike, uncut, forgetful = price.values()
    return {
        f"{DEAR} costs more where workers are still less alike": unlike > plain,
        f"{DEAR} costs more where gradients are not clipped": uncut > plain,
        f"{DEAR} costs about as much without momentum (within 5 points)": abs(forgetful - plain) < 0.05,
    }


def _ablation_lines(runs: list[Run]) -> Lines:
    found = means(runs, lambda setup: (_cause(setup), setup.rule))
    lines = {name: (COMPARED, [found[name, rule] for rule in COMPARED]) for name in CAUSES}
    return Lines("rule", "accuracy", lines)


ABLATION = Experiment(
    "what makes f = 7 dear where nobody is hostile: workers still less alike, gradients not clipped, no momentum",
    _ablation_setups,
    _ablation_tables,
    _ablation_claims,
    _ablation_lines,
)
