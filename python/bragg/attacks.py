# SPDX-License-Identifier: Apache-2.0
"""What Byzantine workers send, made of the honest workers' updates: for tests, benchmarks and simulation.

Updates are as in `bragg.aggregate`, on the CPU: an array whose first axis counts the rows, n arrays, or n trees of
arrays. A row comes back in the form of one of them, computed in float64 and rounded to its dtypes; integer arrays in
trees are the lower median. μ and σ are the mean and standard deviation of each coordinate (over n, not n−1).

>>> import bragg, numpy
>>> honest = numpy.array([[0.0, 0], [2, 0], [4, 0]])
>>> bad = bragg.attacks.min_max(honest, "unit")
>>> bad.row, bad.strength
(array([0., 0.]), 2.0)

Raises: ValueError where honest rows are on a GPU, are not of one form, or hold NaN or infinity (`sign_flip`,
`inner_product_manipulation` and `a_little_is_enough` pass these on), and where an argument is out of its range;
TypeError where they are no arrays, or an argument is no number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from . import _bragg
from ._aggregate import _plain_form, _rule_text
from ._arguments import finite, integer, number
from .rules import Pipeline, Rule

__all__ = [
    "Found",
    "Optimal",
    "a_little_is_enough",
    "fang_krum",
    "fang_trimmed",
    "inner_product_manipulation",
    "min_max",
    "min_sum",
    "optimal_alie",
    "optimal_ipm",
    "rop",
    "sign_flip",
]

Direction = Literal["unit", "std", "sign"]


class Found(NamedTuple):
    """A row, and how far the attack went to make it."""

    row: Any
    strength: float


class Optimal(NamedTuple):
    """A row, how far the attack went, and how far from μ the pipeline ends by it."""

    row: Any
    strength: float
    damage: float


def _made(honest: Any, attack: Callable[..., tuple[float, float]], *arguments: Any) -> Optimal:
    form = _plain_form(honest, None)
    row = form.empty(None)
    strength, damage = attack(form.floats, form.names, row, form.stream, *arguments)
    return Optimal(form.result(row, None), strength, damage)


def _direction(name: str) -> str:
    if name not in ("unit", "std", "sign"):
        raise ValueError(f"direction = {name!r}; needs 'unit', 'std' or 'sign'")
    return name


def sign_flip(honest: Any, scale: float = 1) -> Any:
    """−scale·μ."""
    return _made(honest, _bragg.attack_sign_flip, finite("scale", scale)).row


def inner_product_manipulation(honest: Any, epsilon: float) -> Any:
    """−epsilon·μ, or fall of empires (Xie et al. 2020). ByzFL's FallOfEmpires(tau) has epsilon = tau − 1."""
    return _made(honest, _bragg.attack_sign_flip, finite("epsilon", epsilon)).row


def a_little_is_enough(honest: Any, z: float = 1.5) -> Any:
    """μ − z·σ (Baruch et al. 2019). ByzFL adds where the paper subtracts: its tau is z = −tau·√(n/(n−1))."""
    return _made(honest, _bragg.attack_a_little_is_enough, finite("z", z)).row


def rop(honest: Any, reference: Any, angle: float = 90) -> Any:
    """Against centered clipping about `reference` (Özfatura et al. 2023): from μ by ‖μ‖ at `angle` degrees from the
    reference r, on the side of −μ: μ + ‖μ‖·(cos(angle)·r/‖r‖ + sin(angle)·q), q the unit vector of −μ's part
    orthogonal to r. A term without a direction (r = 0, or μ parallel to r) is 0. `reference` is as one of the honest
    rows.
    """
    form = _plain_form(honest, None)
    return _made(honest, _bragg.attack_rop, form.base(reference), finite("angle", angle)).row


def min_max(honest: Any, direction: Direction = "std") -> Found:
    """μ + strength·p with the largest strength that leaves the row no farther from any honest row than two honest rows
    are from each other (Shejwalkar & Houmansadr 2021). p is −μ/‖μ‖ ("unit"), −σ ("std") or −sgn μ ("sign"); p = 0:
    strength 0.
    """
    return Found(*_made(honest, _bragg.attack_min_max, _direction(direction))[:2])


def min_sum(honest: Any, direction: Direction = "std") -> Found:
    """The same with the largest strength for which the sum of squared distances to the honest rows is no greater than
    the greatest such sum of an honest row (Shejwalkar & Houmansadr 2021).
    """
    return Found(*_made(honest, _bragg.attack_min_sum, _direction(direction))[:2])


def fang_trimmed(honest: Any, seed: int, b: float = 2) -> Any:
    """Each coordinate uniformly beyond all honest values, on the side that μ is not, up to b times as far from 0, or b
    times nearer where 0 is on that side (Fang et al. 2020, on trimmed mean and median). A bad row for each seed.
    """
    return _made(honest, _bragg.attack_fang_trimmed, integer("seed", seed, most=2**64 - 1), number("b", b)).row


def fang_krum(honest: Any, f: int) -> Found:
    """−strength·sgn μ, to be sent by all f bad workers: the paper's bound on strength, halved until krum(f) chooses a
    bad row or it is below 1e-5 (Fang et al. 2020).
    """
    return Found(*_made(honest, _bragg.attack_fang_krum, integer("f", f))[:2])


def optimal_alie(honest: Any, rule: str | Rule | Pipeline, f: int, most: float = 10) -> Optimal:
    """`a_little_is_enough` with the z from (0, most] that does most damage to the pipeline when f bad workers send it,
    of 32 that are tried: most halved 15 times, and a golden-section search about the best. A pipeline whose result
    is a combination of the rows by distances costs one read of the rows, others 32 runs on them.

    Raises: ValueError where the pipeline does not take n + f rows; AggregationError where it never has a result.
    """
    return _made(honest, _bragg.attack_optimal_alie, _rule_text(rule), integer("f", f), number("most", most))


def optimal_ipm(honest: Any, rule: str | Rule | Pipeline, f: int, most: float = 10) -> Optimal:
    """`inner_product_manipulation` with the epsilon from (0, most] that does most damage; as `optimal_alie`."""
    return _made(honest, _bragg.attack_optimal_ipm, _rule_text(rule), integer("f", f), number("most", most))
