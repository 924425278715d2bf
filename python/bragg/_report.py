# SPDX-License-Identifier: Apache-2.0
"""Reports of runs, and errors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """Outcome of a run: which rows look bad, and why. Every tuple has one value per row, in the caller's order."""

    status: str
    """"ok", or why there is no result: "too_many_nonfinite", "nonfinite_base", "too_large" or
    "not_converged"."""
    iterations: int
    """Of geometric_median, huber, autogm (medians), centered_clipping and caf; else 0."""
    converged: bool
    """False: geometric_median, huber or autogm stopped at max_iters."""
    optimality_gap: float
    """Of geometric_median or huber run to convergence, and of autogm's last median: its objective is at most this far above the minimum, relative to
    that of half of the weight at the distance within which more than half of it is. Else NaN."""
    recentred: bool
    """Whether distances were taken once more, less what a majority of the rows has in common: one more read."""
    distance_error: float
    """The largest rounding error of a distance that decided, as a share of it and of the spread of the majority."""
    weights: tuple[float, ...]
    """The row's coefficient in the result; of a coordinate-wise rule, in the points which that rule sees."""
    selected: tuple[bool, ...]
    """Whether the weight is not 0."""
    scores: tuple[float, ...]
    """Of rules that score rows: krum, multi_krum, monna, balance, fltrust, foolsgold, cge, geometric_median, huber,
    autogm, caf, dnc.
    Else NaN."""
    nonfinite: tuple[int, ...]
    """Coordinates that are NaN or infinite."""
    clip_factors: tuple[float, ...]
    """Factor by which clip, arc and centered_clipping scaled the row: 1 if not at all; 0 if the row is not finite."""
    nonfinite_result: int | None = None
    """Coordinates of the result that are NaN or infinite. None: not counted, as of points, and of a `Plan` on a GPU."""
    bad_inputs: tuple[str | None, ...] = ()
    """Why the input was no update of the agreed form, and so an infinite row; None of any other."""

    def __post_init__(self) -> None:
        if not self.bad_inputs:
            object.__setattr__(self, "bad_inputs", (None,) * len(self.weights))


class AggregationError(ValueError):
    """The data defeats the rule: no result can be given.

    `status` says why, as in `Report`; `code` is its number in bragg.h; `reports` are the run's, where there was one.
    "nonfinite_result", of code 0, is Python's own: there is a result, but it holds NaN or infinity. "nonfinite_pivot": the
    row that the rule trusts is a bad input, or not finite.
    """

    def __init__(self, message: str, status: str, code: int, reports: tuple[Report, ...] = ()) -> None:
        super().__init__(message, status, code, reports)
        self.status = status
        self.code = code
        self.reports = reports

    def __str__(self) -> str:
        return str(self.args[0])


class ParseError(ValueError):
    """A mistake in the text of a pipeline, at `column` (from 1)."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(message, column)
        self.column = column

    def __str__(self) -> str:
        return str(self.args[0])
