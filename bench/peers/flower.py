# SPDX-License-Identifier: Apache-2.0
"""Flower: flwr.server.strategy.aggregate, which its strategies call on lists of NumPy layers."""

from __future__ import annotations

from typing import Any

from peers.contract import Stage, Step, Unsupported

DISTRIBUTION = "flwr"
ENVIRONMENT = {"FLWR_TELEMETRY_ENABLED": "0"}

MODULE = "flwr.server.strategy.aggregate"

functions: Any = None


def load(threads: int) -> None:
    global functions
    import flwr.server.strategy.aggregate as loaded

    functions = loaded


def wrap(matrix):
    """One client a row: a model of one layer, and one example, so that averages are unweighted."""
    return [([row], 1) for row in matrix]


def unwrap(result):
    return result[0]


def mean(stage: Stage, n: int, d: int) -> Step:
    return Step(lambda x: functions.aggregate(x), f"{MODULE}.aggregate", stage)


def median(stage: Stage, n: int, d: int) -> Step:
    fixed = stage.convention(even="midpoint")
    return Step(lambda x: functions.aggregate_median(x), f"{MODULE}.aggregate_median", fixed)


def trimmed_mean(stage: Stage, n: int, d: int) -> Step:
    # Flower cuts floor(share * n) rows a side: with f alone, rounding could make that f-1.
    share = (stage.f + 0.25) / n if stage.f else 0.0
    path = f"{MODULE}.aggregate_trimmed_avg"
    return Step(lambda x: functions.aggregate_trimmed_avg(x, share), path, stage)


def krum(stage: Stage, n: int, d: int) -> Step:
    fixed = stage.convention(neighbors=max(1, n - stage.f - 2))
    return Step(
        lambda x: functions.aggregate_krum(x, stage.f, 0), f"{MODULE}.aggregate_krum", fixed
    )


def multi_krum(stage: Stage, n: int, d: int) -> Step:
    m = stage.get("m", n)
    fixed = stage.convention(neighbors=max(1, n - stage.f - 2))
    path = f"{MODULE}.aggregate_krum, to_keep={m}"
    return Step(lambda x: functions.aggregate_krum(x, stage.f, m), path, fixed)


def bulyan(stage: Stage, n: int, d: int) -> Step:
    if n < 4 * stage.f + 3:
        raise Unsupported(f"aggregate_bulyan needs n >= 4f+3, here {4 * stage.f + 3}")

    def call(x):
        # It takes the chosen clients out of the list that it is given.
        return functions.aggregate_bulyan(list(x), stage.f, functions.aggregate_krum, to_keep=0)

    return Step(call, f"{MODULE}.aggregate_bulyan with aggregate_krum", stage)


STEPS = {
    "mean": mean,
    "median": median,
    "trimmed_mean": trimmed_mean,
    "krum": krum,
    "multi_krum": multi_krum,
    "bulyan": bulyan,
}
