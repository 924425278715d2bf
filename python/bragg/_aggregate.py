# SPDX-License-Identifier: Apache-2.0
"""aggregate, pre_aggregate and Plan: the extension's, for arrays of any library and for trees of them."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from . import _bragg, _trees
from ._arrays import Library, library_of
from ._report import Report
from .rules import Pipeline, PreAggregator, Rule

_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "f64": "float64"}


def _rule_text(rule: str | Rule | Pipeline) -> str:
    if isinstance(rule, str):
        return rule
    if isinstance(rule, (Rule, Pipeline)):
        return str(rule)
    raise TypeError(f"rule: {type(rule).__name__}; needs a pipeline as text, or of bragg's classes")


def _dtype_name(dtype: Any) -> str | None:
    if dtype is None:
        return None
    # A name, a NumPy dtype, its type, or torch's, which has neither.
    for attribute in ("name", "__name__"):
        dtype = getattr(dtype, attribute, dtype)
    name = str(dtype).removeprefix("torch.")
    return _DTYPES.get(name, name)


def _numbers(weights: Iterable[float] | None) -> list[float] | None:
    if weights is None:
        return None
    try:
        return [float(weight) for weight in weights]
    except (TypeError, ValueError):
        raise TypeError(f"weights: {weights!r}; needs n numbers") from None


def _options(scope: str, out_dtype: Any, max_weight_share: float, threads: int) -> tuple[str, str | None, float, int]:
    try:
        return str(scope), _dtype_name(out_dtype), float(max_weight_share), operator.index(threads)
    except (TypeError, ValueError):
        raise TypeError(
            f"max_weight_share = {max_weight_share!r}, threads = {threads!r}; needs a number and an integer"
        ) from None


def _check_writable(array: Any, place: str) -> None:
    if not library_of(array, place).writable:
        raise ValueError(f"{place} is read-only; pass an array that can be written to")


class _Arrays:
    """Updates that are one array of n rows, or n arrays."""

    names = None

    def __init__(self, updates: Any) -> None:
        self.floats = updates
        if isinstance(updates, (list, tuple)):
            if not updates:
                raise ValueError("updates: n = 0 rows; needs n ≥ 1")
            self._first, place = updates[0], "updates[0]"
        else:
            self._first, place = updates, "updates"
        self._library = library_of(self._first, place)
        self.stream = self._library.stream(self._first)

    def empty(self, dtype: str | None) -> Any:
        shape = self._first.shape
        return self._library.empty(self._first, shape[1:] if self._first is self.floats else shape, dtype)

    def n(self) -> int:
        if self._first is not self.floats:
            return len(self.floats)
        return self._first.shape[0] if self._first.shape else 1  # an array without rows is refused later

    def empty_points(self, count: int, dtype: str | None) -> Any:
        if self._first is not self.floats:
            return [self.empty(dtype) for _ in range(count)]
        return self._library.empty(self._first, (count, *self._first.shape[1:]), dtype)

    def points(self, rows: Any) -> Any:
        return rows

    def nothing(self) -> tuple[Library, Any]:
        """An array of no elements where the updates are."""
        return self._library, self._library.empty(self._first, (0,), None)

    def row(self, array: Any, place: str) -> Any:
        return array

    def out(self, array: Any) -> Any:
        _check_writable(array, "out")
        return array

    def floats_of(self, row: Any) -> Any:
        return row

    def finish(self, row: Any, fresh: bool, weights: Any) -> None:
        if not fresh:
            library_of(row, "out").written(row)

    def result(self, row: Any) -> Any:
        return row


class _Trees:
    """Updates that are n trees of arrays. A row is the list of a tree's leaves."""

    def __init__(self, updates: Sequence[Any]) -> None:
        self._like = updates[0]
        first = self.row(self._like, "updates[0]")
        if not first:
            raise ValueError("updates[0]: holds no arrays")
        self._names = list(_trees.names(self._like))
        self._libraries = [library_of(leaf, f"updates[0]{name}") for name, leaf in zip(self._names, first)]
        self._floats: list[int] = []
        self._integers: list[int] = []
        for at, (library, leaf) in enumerate(zip(self._libraries, first)):
            (self._integers if library.is_integer(leaf) else self._floats).append(at)
        self._rows = [self.row(tree, f"updates[{i}]") for i, tree in enumerate(updates)]
        self.names = [self._names[at] for at in self._floats]
        self.floats = [self.floats_of(row) for row in self._rows]
        self.stream = self._libraries[self._floats[0]].stream(self.floats[0][0]) if self._floats else 0

    def empty(self, dtype: str | None) -> list[Any]:
        row = [None] * len(self._names)
        for at in self._floats:
            like = self._rows[0][at]
            row[at] = self._libraries[at].empty(like, like.shape, dtype)
        return row

    def n(self) -> int:
        return len(self._rows)

    def empty_points(self, count: int, dtype: str | None) -> list[list[Any]]:
        return [self.floats_of(self.empty(dtype)) for _ in range(count)]

    def points(self, rows: list[list[Any]]) -> list[Any]:
        medians = {at: self._lower_median(at, None) for at in self._integers}
        trees = []
        for row in rows:
            # Every tree has leaves of its own: the lower median of one array is a copy of it.
            leaves = {at: self._libraries[at].lower_median([median]) for at, median in medians.items()}
            leaves.update(zip(self._floats, row))
            trees.append(self.result([leaves[at] for at in range(len(self._names))]))
        return trees

    def nothing(self) -> tuple[Library, Any]:
        library = self._libraries[0]
        return library, library.empty(self._rows[0][0], (0,), None)

    def row(self, tree: Any, place: str) -> list[Any]:
        return _trees.leaves(tree, self._like, place)

    def out(self, tree: Any) -> list[Any]:
        row = self.row(tree, "out")
        for name, leaf in zip(self._names, row):
            _check_writable(leaf, f"out{name}")
        return row

    def floats_of(self, row: Sequence[Any]) -> list[Any]:
        return [row[at] for at in self._floats]

    def finish(self, row: list[Any], fresh: bool, weights: Any) -> None:
        for at in self._integers:
            median = self._lower_median(at, weights)
            if fresh:
                row[at] = median
            else:
                self._libraries[at].assign(row[at], median)
        if not fresh:
            for at in self._floats:
                library_of(row[at], "out").written(row[at])

    def result(self, row: Sequence[Any]) -> Any:
        return _trees.rebuild(self._like, iter(row))

    def _lower_median(self, at: int, weights: Sequence[float] | None) -> Any:
        first = self._rows[0][at]
        for i, row in enumerate(self._rows):
            if row[at].dtype != first.dtype or row[at].shape != first.shape:
                raise ValueError(
                    f"updates[{i}]{self._names[at]}: {row[at].dtype} of shape {tuple(row[at].shape)}; needs "
                    f"{first.dtype} of shape {tuple(first.shape)}, as updates[0] has"
                )
        valid = [row[at] for i, row in enumerate(self._rows) if weights is None or 0 < weights[i] < float("inf")]
        if not valid:
            raise ValueError("weights: none is valid; integer tensors need at least 1")
        return self._libraries[at].lower_median(valid)


def _form(updates: Any) -> _Arrays | _Trees:
    if isinstance(updates, (list, tuple)) and updates and isinstance(updates[0], _trees.TREE):
        return _Trees(updates)
    return _Arrays(updates)


class Result(NamedTuple):
    """What `aggregate_with_report` and `pre_aggregate_with_report` return."""

    value: Any
    """What `aggregate`, or `pre_aggregate`, returns."""
    reports: tuple[Report, ...]
    """One, or one for each tensor where scope is "per_tensor"."""

    @property
    def report(self) -> Report:
        """The one report. @raises ValueError: there are others."""
        if len(self.reports) != 1:
            raise ValueError(f"report: there are {len(self.reports)}, one per tensor; take reports")
        return self.reports[0]


def aggregate(
    updates: Any,
    rule: str | Rule | Pipeline,
    *,
    out: Any = None,
    base: Any = None,
    weights: Iterable[float] | None = None,
    scope: Literal["whole", "per_tensor"] = "whole",
    max_weight_share: float = 0,
    out_dtype: Any = None,
    threads: int = 0,
    return_report: bool = False,
) -> Any:
    """The robust aggregate of n updates, of the kind, dtype and device of one.

    Nothing is copied: the updates are read where they are, and never written to. On a GPU the work is done on the
    library's current stream, and waited for.

    Args:
        updates: An array whose first axis counts the rows, or a list of n arrays, or of n trees of arrays: dicts (such
            as state dicts), lists and tuples, nested. From NumPy, PyTorch, CuPy, JAX, or another library with DLPack
            and the array API; float32, float16, bfloat16 or float64, all the same, on one device. Integer and
            boolean arrays in trees take the lower median of each element.
        rule: The pipeline: text, such as "nnm(f=2) | trimmed_mean(f=2)", or Nnm(f=2) | TrimmedMean(f=2).
        out: Where the result goes; it is returned. It may be exactly one of the updates, or base, or else apart.
        base: What distances and clipping are about, such as the global model; as one row of updates.
        weights: n client weights. 0 leaves a row out; a negative one, or one that is not finite, is taken for bad data.
        scope: Whether rows are judged as a whole, or "per_tensor".
        max_weight_share: A cap on a weight's share of the sum of all; 0 is none.
        out_dtype: float32, for updates of 16 bits; else that of the updates.
        threads: CPU threads; 0 is as many as OpenMP would use. The result does not depend on it.
        return_report: Return (result, report) instead: a Report, or one for each tensor where scope is "per_tensor".
            `aggregate_with_report` returns the same with types.

    Raises:
        AggregationError: The data defeats the rule, such as too many rows with NaN. `out` is not written to.
        ValueError: An argument breaks a bound, or shapes, dtypes or devices differ. ParseError: so does the rule's text.
        TypeError: An argument that should be an array is not one.
    """
    value, reports = _aggregate(
        updates, rule, out, base, weights, _options(scope, out_dtype, max_weight_share, threads), return_report
    )
    return (value, _as_scope_says(reports, scope)) if return_report else value


def aggregate_with_report(
    updates: Any,
    rule: str | Rule | Pipeline,
    *,
    out: Any = None,
    base: Any = None,
    weights: Iterable[float] | None = None,
    scope: Literal["whole", "per_tensor"] = "whole",
    max_weight_share: float = 0,
    out_dtype: Any = None,
    threads: int = 0,
) -> Result:
    """As `aggregate`, and what the run says of every row: `value` and `report`, or `reports` of each tensor."""
    options = _options(scope, out_dtype, max_weight_share, threads)
    return Result(*_aggregate(updates, rule, out, base, weights, options, True))


def _as_scope_says(reports: tuple[Report, ...], scope: str) -> Report | tuple[Report, ...]:
    return reports[0] if scope == "whole" else reports


def _aggregate(
    updates: Any,
    rule: str | Rule | Pipeline,
    out: Any,
    base: Any,
    weights: Iterable[float] | None,
    options: tuple[str, str | None, float, int],
    return_reports: bool,
) -> tuple[Any, tuple[Report, ...]]:
    """The result, and the reports if they are asked for."""
    form = _form(updates)
    text = _rule_text(rule)
    numbers = _numbers(weights)
    fresh = out is None
    row = form.empty(options[1]) if fresh else form.out(out)
    reports = _bragg.aggregate(
        text,
        form.floats,
        form.names,
        form.floats_of(row),
        fresh,
        None if base is None else form.floats_of(form.row(base, "base")),
        numbers,
        *options,
        form.stream,
        return_reports,
    )
    form.finish(row, fresh, numbers)
    return form.result(row) if fresh else out, reports


def pre_aggregate(
    updates: Any,
    sequence: str | PreAggregator | Pipeline,
    *,
    base: Any = None,
    scope: Literal["whole", "per_tensor"] = "whole",
    out_dtype: Any = None,
    threads: int = 0,
    return_report: bool = False,
) -> Any:
    """The points that pre-aggregators make of n updates, for a rule of your own: as many, or fewer after bucketing.

    A pipeline that ends in one of bragg's rules is `aggregate`'s, which never makes the points, and takes a fraction of
    the time. Bucketing is in its round 0.

    Args:
        updates: As in `aggregate`. The points are of the same kind: an array whose first axis counts them, or a list.
            Integer and boolean arrays in trees are their lower median in every point.
        sequence: Pre-aggregators alone: text, such as "bucketing(s=2) | nnm(f=2)", or Nnm(f=2) | Clip(c=1).
        base, scope, out_dtype, threads, return_report: As in `aggregate`.

    Raises:
        AggregationError, ValueError, ParseError, TypeError: As `aggregate`.
    """
    points, reports = _pre_aggregate(updates, sequence, base, _options(scope, out_dtype, 0, threads))
    return (points, _as_scope_says(reports, scope)) if return_report else points


def pre_aggregate_with_report(
    updates: Any,
    sequence: str | PreAggregator | Pipeline,
    *,
    base: Any = None,
    scope: Literal["whole", "per_tensor"] = "whole",
    out_dtype: Any = None,
    threads: int = 0,
) -> Result:
    """As `pre_aggregate`, and what the run says of every row: `value` and `report`, or `reports` of each tensor."""
    return Result(*_pre_aggregate(updates, sequence, base, _options(scope, out_dtype, 0, threads)))


def _pre_aggregate(
    updates: Any,
    sequence: str | PreAggregator | Pipeline,
    base: Any,
    options: tuple[str, str | None, float, int],
) -> tuple[Any, tuple[Report, ...]]:
    form = _form(updates)
    text = _rule_text(sequence)
    scope, dtype, _, threads = options
    rows = form.empty_points(_bragg.points_after(text, form.n()), dtype)
    reports = _bragg.pre_aggregate(
        text,
        form.floats,
        form.names,
        rows,
        None if base is None else form.floats_of(form.row(base, "base")),
        scope,
        dtype,
        threads,
        form.stream,
    )
    return form.points(rows), reports


class Plan:
    """A pipeline made ready for updates of one shape: for a loop that aggregates every round.

    It allocates nothing after the first run, and keeps the state of centered_clipping (the last result) and bucketing
    (the round). One plan serves one thread at a time, and on a GPU one stream at a time.
    """

    def __init__(
        self,
        rule: str | Rule | Pipeline,
        like: Any,
        *,
        scope: Literal["whole", "per_tensor"] = "whole",
        on_failure: Literal["keep", "nan", "zero"] = "keep",
        out_dtype: Any = None,
        max_weight_share: float = 0,
        threads: int = 0,
    ) -> None:
        """A plan for updates that look like `like`, and are where it is. Only its shapes, dtype and device are read.

        on_failure: The content of `out` if the data defeats the rule: its former content, NaN, or zero. The other
        arguments and exceptions are as in `aggregate`.
        """
        form = _form(like)
        self._library, self._nothing = form.nothing()
        self._plan = _bragg.Plan(
            _rule_text(rule),
            form.floats,
            form.names,
            str(on_failure),
            *_options(scope, out_dtype, max_weight_share, threads),
            form.stream,
        )

    def run(self, updates: Any, out: Any, *, base: Any = None, weights: Iterable[float] | None = None) -> Any:
        """Aggregates into `out`, and returns it.

        On the CPU it has waited. On a GPU the work is on the current stream, nothing has been waited for or allocated,
        and the call can be captured in a CUDA graph (mda and smea excepted); updates, base and out must stay as they
        are until the stream has done it. Bad data raises nothing: `check` does.

        Raises:
            ValueError, TypeError: As `aggregate`, or these are no updates that the plan is for.
            RuntimeError: Another thread is using the plan.
        """
        form = _form(updates)
        numbers = _numbers(weights)
        row = form.out(out)
        floats = None if base is None else form.floats_of(form.row(base, "base"))
        self._plan.run(form.floats, form.names, form.floats_of(row), floats, numbers, form.stream)
        form.finish(row, False, numbers)
        return out

    def check(self) -> None:
        """Waits for the last run, and for the current stream. @raises AggregationError: the data defeated the rule."""
        self._plan.check(self._stream())

    def wait(self) -> str:
        """Waits for the last run, and for the current stream. "ok", or as `Report.status`."""
        return self._plan.wait(self._stream())

    def status(self) -> str:
        """Deprecated: the same as `wait`."""
        warnings.warn("bragg.Plan.status() waits for the run: call wait()", DeprecationWarning, stacklevel=2)
        return self.wait()

    @property
    def reports(self) -> tuple[Report, ...]:
        """Of the last run: one, or one for each tensor where scope is "per_tensor".

        Does not wait: a run on a GPU has reports once `wait` or `check` returns. @raises RuntimeError: before that.
        """
        return self._plan.reports()

    def reset(self) -> None:
        """Forgets the last result, and sets the round of bucketing to 0."""
        self._plan.reset()

    def _stream(self) -> int:
        return self._library.stream(self._nothing)

    def __repr__(self) -> str:
        return f"Plan({self._plan.rule!r}, n={self._plan.n})"
