# SPDX-License-Identifier: Apache-2.0
# Made by scripts/make_rule_stubs.py of the table of rules.
from collections.abc import Sequence
from typing import Literal

class Rule:
    """A rule with its parameters. As text, `str(rule)`, it is what the command and C++ read."""

    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

class PreAggregator(Rule):
    """Turns rows into rows: `pre | rule` is a `Pipeline`."""

    def __or__(self, other: Rule | Pipeline) -> Pipeline: ...

class Pipeline:
    """Pre-aggregators, applied from the left, and one rule. Made by `|`."""

    stages: tuple[Rule, ...]
    def __init__(self, *stages: Rule) -> None: ...
    def __or__(self, other: Rule | Pipeline) -> Pipeline: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

class Mean(Rule):
    """(1/n) Σ x_i, of all rows or of the finite ones.

    Needs n ≥ 1.
    Guarantee: none: one bad row moves it anywhere; one NaN is in the result, unless `nonfinite` is skip.
    Client weights: yes.

    Parameters:
        nonfinite: rows with NaN or infinity: in the mean, or left out of it and of n (propagate | skip; default propagate)
    """

    def __init__(self, *, nonfinite: Literal["propagate", "skip"] = "propagate") -> None: ...

class Median(Rule):
    """the middle value of each coordinate; for even n what `even` says of the two middle ones.

    Needs n ≥ 1.
    Guarantee: inside the honest range of each coordinate; κ = 4(1+r)², r = f/(n−2f).
    Client weights: yes.
    Source: Yin et al. 2018.

    Parameters:
        even: the median of an even number of values (midpoint | lower | upper; default midpoint)
    """

    def __init__(self, *, even: Literal["midpoint", "lower", "upper"] = "midpoint") -> None: ...

class TrimmedMean(Rule):
    """mean of what is left of each coordinate without its f smallest and f largest values.

    Needs n ≥ 2f+1.
    Guarantee: inside the honest range of each coordinate; κ = 6r(1+r), r = f/(n−2f).
    Client weights: yes.
    Source: Yin et al. 2018.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f < n)
    """

    def __init__(self, *, f: int) -> None: ...

class Meamed(Rule):
    """mean of the n−f values of each coordinate that are closest to its median.

    Needs n ≥ 2f+1.
    Guarantee: at most one honest range beyond the honest values of each coordinate.
    Client weights: no.
    Source: Xie et al. 2018.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f < n)
    """

    def __init__(self, *, f: int) -> None: ...

class Phocas(Rule):
    """mean of the n−f values of each coordinate that are closest to its trimmed mean.

    Needs n ≥ 2f+1.
    Guarantee: at most one honest range beyond the honest values of each coordinate.
    Client weights: no.
    Source: Xie et al. 2018.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f < n)
    """

    def __init__(self, *, f: int) -> None: ...

class SignVote(Rule):
    """o, and in each coordinate step up or down, as more of the rows lie above or below it.

    Needs n ≥ 1.
    Guarantee: within step of o in each coordinate; the step that honest rows vote for, where they are more than honest rows against it and f.
    Client weights: yes.
    Source: signSGD: Bernstein et al. 2019.

    Parameters:
        step: how far to go from o (step > 0; default 1)
    """

    def __init__(self, *, step: float = 1.0) -> None: ...

class Krum(Rule):
    """the row whose `neighbors` nearest others have the least sum of squared distances to it.

    Needs n ≥ 2f+3; n ≥ 2f+1 with other neighbors than n−f−2.
    Guarantee: κ = 6(1+r), r = f/(n−2f), with the default `neighbors`.
    Client weights: no.
    Source: Blanchard et al. 2017.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f+3 ≤ n)
        neighbors: other rows that make a score (1 ≤ neighbors ≤ n−f−1; default n−f−2)
    """

    def __init__(self, *, f: int, neighbors: int | None = None) -> None: ...

class MultiKrum(Rule):
    """mean of the m rows of least Krum score.

    Needs n ≥ 2f+3; n ≥ 2f+1 with other neighbors than n−f−2.
    Guarantee: (f, κ)-robust for m ≤ n−f, with the default `neighbors`.
    Client weights: yes.
    Source: Blanchard et al. 2017.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f+3 ≤ n)
        m: rows to average (1 ≤ m ≤ n; default n−f)
        neighbors: other rows that make a score (1 ≤ neighbors ≤ n−f−1; default n−f−2)
    """

    def __init__(self, *, f: int, m: int | None = None, neighbors: int | None = None) -> None: ...

class GeometricMedian(Rule):
    """argmin_v Σ‖v − x_i‖, by Weiszfeld's iteration with weights 1/max(nu, ‖x_i − v‖).

    Needs n ≥ 1.
    Guarantee: κ = 4(1+r)², r = f/(n−2f), with the default `nu`, `max_iters` and `tol`.
    Client weights: yes.
    Source: Vardi & Zhang 2000; RFA: Pillutla et al. 2019.

    Parameters:
        nu: floor on the distances that weights are made of (nu ≥ 0; default 0)
        max_iters: iterations to stop after (max_iters ≥ 1; default 1000)
        tol: gap of the objective to stop at, relative; of fewer than 100 iterations a step, relative to the median distance (tol ≥ 0; default 1e-10)
        start: where the iteration starts (medoid | mean | origin; default medoid)
    """

    def __init__(self, *, nu: float = 0.0, max_iters: int = 1000, tol: float = 1e-10, start: Literal["medoid", "mean", "origin"] = "medoid") -> None: ...

class Huber(Rule):
    """argmin_v Σ φ(‖x_i − v‖), φ(t) = t²/2 up to tau and tau·t − tau²/2 beyond.

    Needs n ≥ 1.
    Guarantee: within (1+r)·(2s + tau/2) of the honest mean, r = f/(n−2f), s the root mean square of honest distances from it, with the default `max_iters` and `tol`.
    Client weights: yes.
    Source: Zhao et al. 2024.

    Parameters:
        tau: distance beyond which a row pulls no more than at it (tau > 0)
        max_iters: iterations to stop after (max_iters ≥ 1; default 1000)
        tol: as of geometric_median (tol ≥ 0; default 1e-10)
        start: where the iteration starts (medoid | mean | origin; default medoid)
    """

    def __init__(self, *, tau: float, max_iters: int = 1000, tol: float = 1e-10, start: Literal["medoid", "mean", "origin"] = "medoid") -> None: ...

class Autogm(Rule):
    """in turn v = argmin_v Σ α_i ‖x_i − v‖, at first with equal weights, and the weights α_i = max(0, (η − ‖x_i − v‖)/lam) of sum 1, until v stays.

    Needs n ≥ 1.
    Guarantee: heuristic: the smaller `lam` is, the fewer rows near each other decide, bad ones too; with a large `lam` it is `geometric_median`.
    Client weights: no.
    Source: Li et al. 2022.

    Parameters:
        lam: distance within which rows share the weight (lam > 0)
        max_iters: medians to stop after (max_iters ≥ 1; default 1000)
        tol: way of v to stop at, relative to the median distance; of each median as of geometric_median (tol ≥ 0; default 1e-10)
    """

    def __init__(self, *, lam: float, max_iters: int = 1000, tol: float = 1e-10) -> None: ...

class CenteredClipping(Rule):
    """iters times v ← v + (1/n) Σ (x_i − v)·min(1, tau/‖x_i − v‖).

    Needs n ≥ 1.
    Guarantee: bad rows move v by at most tau·f/n an iteration.
    Client weights: yes.
    Source: Karimireddy et al. 2021.

    Parameters:
        tau: radius that updates are clipped to (tau > 0)
        iters: iterations (iters ≥ 1; default 1)
        start: the first v; previous: the plan's last output (previous | reference | origin | pivot; default previous)
        pivot: index of the trusted row, for start = pivot (0 ≤ pivot < n; default 0)
    """

    def __init__(self, *, tau: float, iters: int = 1, start: Literal["previous", "reference", "origin", "pivot"] = "previous", pivot: int = 0) -> None: ...

class Mda(Rule):
    """mean of the n−f rows whose largest distance from each other is least, exactly.

    Needs n ≥ 2f+1.
    Guarantee: (f, κ)-robust.
    Client weights: yes.
    Source: El Mhamdi et al. 2018; Farhadkhani et al. 2022.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f < n)
    """

    def __init__(self, *, f: int) -> None: ...

class Smea(Rule):
    """mean of the n−f rows whose covariance has the least top eigenvalue, exactly.

    Needs n ≥ 2f+1, at most 2000000 subsets of n−f rows.
    Guarantee: (f, κ)-robust.
    Client weights: no.
    Source: Allouah et al. 2023.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f < n)
    """

    def __init__(self, *, f: int) -> None: ...

class Caf(Rule):
    """rows that stick out along the top eigenvector of the covariance lose weight step by step; the mean of least top eigenvalue.

    Needs n ≥ 2f+1.
    Guarantee: (f, κ)-robust.
    Client weights: no.
    Source: Allouah et al. 2025.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f < n)
    """

    def __init__(self, *, f: int) -> None: ...

class Monna(Rule):
    """mean of the n−f rows nearest to row `pivot`, itself included.

    Needs n ≥ 2f+1.
    Guarantee: (f, κ)-robust for an honest pivot.
    Client weights: yes.
    Source: Farhadkhani et al. 2023.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f < n)
        pivot: index of the trusted row (0 ≤ pivot < n; default 0)
    """

    def __init__(self, *, f: int, pivot: int = 0) -> None: ...

class Cge(Rule):
    """mean of the n−f rows of least norm about o, the origin or the base.

    Needs n ≥ 2f+1.
    Guarantee: bad rows are no longer than the longest honest row; no bound on their direction.
    Client weights: yes.
    Source: Gupta et al. 2020.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f < n)
    """

    def __init__(self, *, f: int) -> None: ...

class Faba(Rule):
    """f times the row farthest from the mean of those left is removed; the mean of the rest.

    Needs n ≥ 2f+1.
    Guarantee: for n ≥ 3f bad rows that stay are within D/(1−2β) of a mean of honest ones, D the honest diameter, β = f/(n−f+1).
    Client weights: yes.
    Source: Xia et al. 2019.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f < n)
    """

    def __init__(self, *, f: int) -> None: ...

class Dnc(Rule):
    """`iters` times, at `sample` coordinates drawn afresh, the max(⌈c·f⌉, infinite) rows of largest projection on the top eigenvector of the covariance go; the mean of the rows kept most often.

    Needs n > ⌈c·f⌉.
    Guarantee: heuristic: in a sample, for c ≥ 1, no bad row that stays sticks out farther along the top eigenvector than an honest one that goes; across it, and elsewhere, nothing is said.
    Client weights: no.
    Source: Shejwalkar & Houmansadr 2021.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, ⌈c·f⌉ < n)
        iters: samples that vote (iters ≥ 1; default 1)
        c: rows dropped, as a multiple of f (c > 0, ⌈c·f⌉ < n; default 1)
        sample: coordinates to draw; as many or fewer: all are taken (sample ≥ 1; default 10000)
        seed: of the coordinates, drawn afresh each run (0 ≤ seed < 2^64; default 0)
    """

    def __init__(self, *, f: int, iters: int = 1, c: float = 1.0, sample: int = 10000, seed: int = 0) -> None: ...

class Balance(Rule):
    """alpha·x_p + (1−alpha)·mean of the other rows no farther than gamma·‖x_p − o‖ from x_p, row p = `pivot`; without any: x_p.

    Needs n ≥ 1.
    Guarantee: no farther than (1−alpha)·gamma·‖x_p − o‖ from the trusted row.
    Client weights: yes.
    Source: Fang et al. 2024.

    Parameters:
        gamma: reach, as a share of the trusted row's distance from o (gamma > 0)
        alpha: share of the trusted row in the result (0 ≤ alpha ≤ 1; default 0.5)
        pivot: index of the trusted row, one's own (0 ≤ pivot < n; default 0)
    """

    def __init__(self, *, gamma: float, alpha: float = 0.5, pivot: int = 0) -> None: ...

class Fltrust(Rule):
    """o + Σ t_i (N_p/N_i)(x_i − o) / Σ t_i over the rows but row p = `pivot`, N_i = ‖x_i − o‖, t_i the cosine between x_i − o and x_p − o, 0 where negative; Σ t_i = 0: o.

    Needs n ≥ 2.
    Guarantee: no farther from o than the trusted row, and at most 90° from it; beyond that heuristic.
    Client weights: no.
    Source: Cao et al. 2021.

    Parameters:
        pivot: index of the trusted row, which is not averaged (0 ≤ pivot < n)
    """

    def __init__(self, *, pivot: int) -> None: ...

class Foolsgold(Rule):
    """mean of the rows weighted by how little each points as any other does, seen from o; `kappa` says how sharply.

    Needs n ≥ 2; rows that do not all point alike.
    Guarantee: heuristic: bad rows that point alike have no weight; those that differ count in full.
    Client weights: no.
    Source: Fung et al. 2020.

    Parameters:
        kappa: sharpness of the weights (kappa > 0; default 1)
    """

    def __init__(self, *, kappa: float = 1.0) -> None: ...

class MajorityCluster(Rule):
    """rows are joined in the order of their angles, seen from o, until more than n/2 hang together; the mean of these.

    Needs n ≥ 2.
    Guarantee: heuristic: most of the rows that count may be bad ones linked to honest ones; lengths are unbounded without `quantile_clip` before it.
    Client weights: yes.
    Source: Nguyen et al. 2022.
    """

    def __init__(self) -> None: ...

class Bulyan(Rule):
    """n−2f rows by repeated Krum, then of each coordinate the mean of the n−4f values closest to the median.

    Needs n ≥ 4f+3.
    Guarantee: at most one honest range beyond the honest values of each coordinate.
    Client weights: no.
    Source: El Mhamdi et al. 2018.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 4f+3 ≤ n)
    """

    def __init__(self, *, f: int) -> None: ...

class Nnm(PreAggregator):
    """each row becomes the mean of the n−f rows nearest to it, itself included.

    Needs n ≥ 2f+1.
    Guarantee: the κ of the rule after it becomes 8f/(n−f)·(κ+1).
    Client weights: yes.
    Source: Allouah et al. 2023.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f < n)
    """

    def __init__(self, *, f: int) -> None: ...

class Bucketing(PreAggregator):
    """the rows, permuted, become ⌈n/s⌉ means of s rows each.

    Needs 1 ≤ s ≤ n; the next rule must stand ⌈n/s⌉ rows.
    Guarantee: that of the rule after it for ⌈n/s⌉ rows, f of them bad.
    Client weights: yes.
    Source: Karimireddy et al. 2022.

    Parameters:
        s: rows in a bucket (1 ≤ s ≤ n)
        seed: of the permutations, one drawn each run (0 ≤ seed < 2^64; default 0)
        permutation: the permutation to use (each of 0 to n−1 once; default drawn)
    """

    def __init__(self, *, s: int, seed: int = 0, permutation: Sequence[int] | None = None) -> None: ...

class Clip(PreAggregator):
    """o + (x_i − o)·min(1, c/‖x_i − o‖), o the origin or the base; an infinite row becomes o.

    Needs n ≥ 1.
    Guarantee: no row is farther than c from o.
    Client weights: yes.

    Parameters:
        c: longest distance from o that is kept (c ≥ 0)
    """

    def __init__(self, *, c: float) -> None: ...

class Arc(PreAggregator):
    """the k = ⌊2f(n−f)/n⌋ rows of largest norm about o are scaled to the (k+1)-th largest.

    Needs n ≥ 2f+1.
    Guarantee: no row is longer than the longest honest row.
    Client weights: yes.
    Source: Allouah et al. 2024.

    Parameters:
        f: number of bad rows to tolerate (0 ≤ f, 2f < n)
    """

    def __init__(self, *, f: int) -> None: ...

class QuantileClip(PreAggregator):
    """o + (x_i − o)·min(1, c/‖x_i − o‖), c the ⌈q·n⌉-th smallest norm about o; an infinite row becomes o.

    Needs n ≥ 1.
    Guarantee: with at most (1−q)·n bad rows none is longer than the longest honest row.
    Client weights: yes.
    Source: Nguyen et al. 2022, Xu et al. 2022.

    Parameters:
        q: share of the rows whose norms are kept (0 < q ≤ 1; default 0.5)
    """

    def __init__(self, *, q: float = 0.5) -> None: ...

__all__: list[str] = [
    "Pipeline",
    "PreAggregator",
    "Rule",
    "Mean",
    "Median",
    "TrimmedMean",
    "Meamed",
    "Phocas",
    "SignVote",
    "Krum",
    "MultiKrum",
    "GeometricMedian",
    "Huber",
    "Autogm",
    "CenteredClipping",
    "Mda",
    "Smea",
    "Caf",
    "Monna",
    "Cge",
    "Faba",
    "Dnc",
    "Balance",
    "Fltrust",
    "Foolsgold",
    "MajorityCluster",
    "Bulyan",
    "Nnm",
    "Bucketing",
    "Clip",
    "Arc",
    "QuantileClip",
]
