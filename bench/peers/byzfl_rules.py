# SPDX-License-Identifier: Apache-2.0
"""ByzFL's rules, common to its NumPy and torch adapters.

ByzFL's conventions: Krum scores with n-f-1 neighbours; the geometric median is a fixed number of
steps from the origin with distances floored at nu. Left out: bucketing, SMEA and CAF, which draw
from an unseeded generator, and clipping and ARC, which write into their input.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import Any

from peers.contract import Stage, Step, Unsupported, require_memory

# MDA goes through a list of all subsets in Python, at about 0.1 ms each: this many are seconds.
MOST_SUBSETS = 20_000


def load() -> None:
    import byzfl  # noqa: F401


def steps(kind: str) -> dict[str, Callable[[Stage, int, int], Step]]:
    """The steps, whose paths say which kind of array ByzFL is given."""

    def step(constructor: str, computes: Stage, **arguments: Any) -> Step:
        import byzfl

        written = ", ".join(f"{name}={value}" for name, value in arguments.items())
        rule = getattr(byzfl, constructor)(**arguments)
        return Step(rule, f"byzfl.{constructor}({written}) on a {kind}", computes)

    def with_f(constructor: str) -> Callable[[Stage, int, int], Step]:
        return lambda stage, n, d: step(constructor, stage, f=stage.f)

    def median(stage: Stage, n: int, d: int) -> Step:
        return step("Median", stage.convention(even="midpoint"))

    def krum(stage: Stage, n: int, d: int) -> Step:
        return step("Krum", stage.convention(neighbors=n - stage.f - 1), f=stage.f)

    def multi_krum(stage: Stage, n: int, d: int) -> Step:
        fixed = stage.convention(m=n - stage.f, neighbors=n - stage.f - 1)
        return step("MultiKrum", fixed, f=stage.f)

    def geometric_median(stage: Stage, n: int, d: int) -> Step:
        nu, iterations = stage.parameters.get("nu", 0.1), stage.parameters.get("max_iters", 3)
        fixed = stage.convention(nu=nu, max_iters=iterations, tol=0, start="origin")
        return step("GeometricMedian", fixed, nu=float(nu), T=int(iterations))

    def centered_clipping(stage: Stage, n: int, d: int) -> Step:
        tau, iterations = float(stage.get("tau", n)), int(stage.get("iters", n))
        made = f"byzfl.CenteredClipping(L={iterations}, tau={tau:g})"

        def call(updates: Any) -> Any:
            import byzfl  # the object keeps its last output, and would start from there

            return byzfl.CenteredClipping(L=iterations, tau=tau)(updates)

        fixed = stage.convention(start="origin")
        return Step(call, f"{made} on a {kind}, a new one for each call", fixed)

    def mda(stage: Stage, n: int, d: int) -> Step:
        if comb(n, stage.f) > MOST_SUBSETS:
            raise Unsupported(
                f"byzfl.MDA lists all {comb(n, stage.f)} subsets of {n - stage.f} rows"
            )
        return step("MDA", stage, f=stage.f)

    def monna(stage: Stage, n: int, d: int) -> Step:
        return step("MoNNA", stage, f=stage.f, idx=int(stage.get("pivot", n)))

    def nnm(stage: Stage, n: int, d: int) -> Step:
        require_memory(4 * n * (n - stage.f) * d, "byzfl.NNM gathers n (n-f) rows, which")
        return step("NNM", stage, f=stage.f)

    return {
        "mean": lambda stage, n, d: step("Average", stage),
        "median": median,
        "trimmed_mean": with_f("TrMean"),
        "meamed": with_f("Meamed"),
        "krum": krum,
        "multi_krum": multi_krum,
        "geometric_median": geometric_median,
        "centered_clipping": centered_clipping,
        "mda": mda,
        "monna": monna,
        "nnm": nnm,
    }
