# SPDX-License-Identifier: Apache-2.0
"""aggregate, pre_aggregate and Plan: the extension's, for arrays of any library and for trees of them."""

from __future__ import annotations

import dataclasses
import fnmatch
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from . import _bragg, _trees
from ._agreement import Agreed, Matrix, NoForm, place_and_reason
from ._arguments import integer, number
from ._arrays import Library, check_writable, library_of
from ._report import AggregationError, ParseError, Report
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
    name = _DTYPES.get(name, name)
    if name not in _DTYPES.values():
        raise ValueError(f"out_dtype = {name!r}; needs float32, float16, bfloat16 or float64")
    return name


def _numbers(weights: Iterable[float] | None) -> list[float] | None:
    if weights is None:
        return None
    try:
        return [float(weight) for weight in weights]
    except (TypeError, ValueError):
        raise TypeError(f"weights: {weights!r}; needs n numbers") from None


def _options(scope: str, out_dtype: Any, max_weight_share: float, threads: int) -> tuple[str, str | None, float, int]:
    share = number("max_weight_share", max_weight_share)
    return str(scope), _dtype_name(out_dtype), share, integer("threads", threads)


class _Arrays:
    """Updates that are one array of n rows, or n arrays."""

    names = None
    bad_inputs: dict[int, str] = {}

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

    def paths(self) -> list[str]:
        """What patterns are of; of one array alone it has no name."""
        return [""]

    def empty_points(self, count: int, dtype: str | None) -> Any:
        if self._first is not self.floats:
            return [self.empty(dtype) for _ in range(count)]
        return self._library.empty(self._first, (count, *self._first.shape[1:]), dtype)

    def points(self, rows: Any) -> Any:
        return rows

    def nothing(self) -> tuple[Library, Any]:
        """An array of no elements where the updates are."""
        return self._library, self._library.empty(self._first, (0,), None)

    def base(self, array: Any) -> Any:
        return array

    def out(self, array: Any) -> Any:
        check_writable(array, "out")
        self._out = array
        return array

    def finish(self, weights: Any) -> None:
        """The extension has written to what `out` returned."""
        library_of(self._out, "out").written(self._out)

    def result(self, row: Any, weights: Any) -> Any:
        """Of a fresh row."""
        return row


class _Trees:
    """Updates that are n trees of arrays. A row is the list of a tree's floating-point leaves."""

    bad_inputs: dict[int, str] = {}

    def __init__(self, updates: Sequence[Any], base: Any) -> None:
        self._like, self._source = (updates[0], "updates[0]") if base is None else (base, "base")
        first = self._leaves(updates[0], "updates[0]")
        if not first:
            raise ValueError("updates[0]: holds no arrays")
        self._names = list(_trees.names(self._like))
        self._libraries = [library_of(leaf, f"updates[0]{name}") for name, leaf in zip(self._names, first)]
        self._floats: list[int] = []
        self._integers: list[int] = []
        for at, (library, leaf) in enumerate(zip(self._libraries, first)):
            (self._integers if library.is_integer(leaf) else self._floats).append(at)
        self._rows = [self._leaves(tree, f"updates[{i}]") for i, tree in enumerate(updates)]
        self._check_integers()
        self.names = [self._names[at] for at in self._floats]
        self.floats = [self._floats_of(row) for row in self._rows]
        self.stream = self._libraries[self._floats[0]].stream(self.floats[0][0]) if self._floats else 0

    def empty(self, dtype: str | None) -> list[Any]:
        return [self._libraries[at].empty(leaf, leaf.shape, dtype) for at, leaf in zip(self._floats, self.floats[0])]

    def n(self) -> int:
        return len(self._rows)

    def paths(self) -> list[str]:
        found = list(_trees.paths(self._like))
        return [found[at] for at in self._floats]

    def empty_points(self, count: int, dtype: str | None) -> list[list[Any]]:
        return [self.empty(dtype) for _ in range(count)]

    def points(self, rows: list[list[Any]]) -> list[Any]:
        return [self.result(row, None) for row in rows]

    def nothing(self) -> tuple[Library, Any]:
        library = self._libraries[0]
        return library, library.empty(self._rows[0][0], (0,), None)

    def base(self, tree: Any) -> list[Any]:
        return self._floats_of(self._leaves(tree, "base"))

    def out(self, tree: Any) -> list[Any]:
        self._out = self._leaves(tree, "out")
        for name, leaf in zip(self._names, self._out):
            check_writable(leaf, f"out{name}")
        return self._floats_of(self._out)

    def finish(self, weights: Any) -> None:
        for at in self._integers:
            self._libraries[at].assign(self._out[at], self._lower_median(at, weights))
        for at in self._floats:
            library_of(self._out[at], "out").written(self._out[at])

    def result(self, row: Sequence[Any], weights: Any) -> Any:
        leaves = dict(zip(self._floats, row))
        leaves.update((at, self._lower_median(at, weights)) for at in self._integers)
        return _trees.rebuild(self._like, (leaves[at] for at in range(len(self._names))))

    def _leaves(self, tree: Any, place: str) -> list[Any]:
        return _trees.leaves(tree, self._like, place, self._source)

    def _floats_of(self, row: Sequence[Any]) -> list[Any]:
        return [row[at] for at in self._floats]

    def _check_integers(self) -> None:
        for at in self._integers:
            first = self._rows[0][at]
            for i, row in enumerate(self._rows):
                library_of(row[at], f"updates[{i}]{self._names[at]}")
                if row[at].dtype != first.dtype or row[at].shape != first.shape:
                    raise ValueError(
                        f"updates[{i}]{self._names[at]}: {row[at].dtype} of shape {tuple(row[at].shape)}; needs "
                        f"{first.dtype} of shape {tuple(first.shape)}, as updates[0] has"
                    )

    def _lower_median(self, at: int, weights: Sequence[float] | None) -> Any:
        valid = [row[at] for i, row in enumerate(self._rows) if weights is None or 0 < weights[i] < float("inf")]
        if not valid:
            raise ValueError("weights: none is valid; integer tensors need at least 1")
        return self._libraries[at].lower_median(valid)


Patterns = str | Iterable[str] | None


class _Judges(NamedTuple):
    """Patterns of the tensors that rows are judged by."""

    judge_by: tuple[str, ...]
    ignored: tuple[str, ...]

    @staticmethod
    def of(judge_by: Patterns, ignored: Patterns) -> _Judges | None:
        if judge_by is None and ignored is None:
            return None
        try:
            made = [(given,) if isinstance(given, str) else tuple(given or ()) for given in (judge_by, ignored)]
        except TypeError:
            made = []
        if not made or not all(isinstance(pattern, str) for patterns in made for pattern in patterns):
            raise TypeError(f"judge_by = {judge_by!r}, ignore_in_distances = {ignored!r}; need patterns of names")
        return _Judges(*made)

    def marks(self, paths: list[str]) -> list[bool]:
        """Of each tensor. @raises ValueError: they have no names, or a pattern is that of none."""
        if paths == [""]:
            raise ValueError("judge_by, ignore_in_distances: arrays alone have no names; pass trees of arrays")
        for name, patterns in (("judge_by", self.judge_by), ("ignore_in_distances", self.ignored)):
            for pattern in patterns:
                if not any(fnmatch.fnmatchcase(path, pattern) for path in paths):
                    known = ", ".join(map(repr, paths[:3])) + (", …" if len(paths) > 3 else "")
                    raise ValueError(f"{name}: no tensor has a name like {pattern!r}; there are {known}")

        def any_of(patterns: tuple[str, ...], path: str) -> bool:
            return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)

        return [(not self.judge_by or any_of(self.judge_by, path)) and not any_of(self.ignored, path) for path in paths]


_Form = _Arrays | _Trees | Agreed | Matrix
_T = TypeVar("_T")


def _marks(judges: _Judges | None, form: _Form) -> list[bool] | None:
    return None if judges is None else judges.marks(form.paths())


def _plain_form(updates: Any, base: Any) -> _Arrays | _Trees:
    if isinstance(updates, (list, tuple)) and updates and _trees.is_tree(updates[0]):
        return _Trees(updates, base)
    return _Arrays(updates)


def _with_form(updates: Any, base: Any, bad_inputs: str, use: Callable[[_Form], _T]) -> tuple[_Form, _T]:
    """`use` of the updates as they are; where that refuses them, of what they are brought into.

    So the usual case, in which all rows are alike, is looked through once, and by the extension alone.
    """
    if bad_inputs not in ("row", "error"):
        raise ValueError(f"bad_inputs = {bad_inputs!r}; needs 'row' or 'error'")
    try:
        plain = _plain_form(updates, base)
        return plain, use(plain)
    except (AggregationError, ParseError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a stranger's object may raise anything
        try:
            form = _agreed_form(updates, base, bad_inputs)
        except NoForm as none:
            if not str(none) or not isinstance(error, (TypeError, ValueError)):
                raise error from None
            raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{error}; {none}") from None
    try:
        return form, use(form)
    except AggregationError as error:
        raise _explained(error, form.bad_inputs) from None


def _agreed_form(updates: Any, base: Any, bad_inputs: str) -> Agreed | Matrix:
    if isinstance(updates, (list, tuple)) and updates:
        return Agreed(updates, base, bad_inputs)
    if getattr(updates, "shape", ()):
        return Matrix(updates)
    raise NoForm


def check_pivot(rule: str, bad_inputs: dict[int, str]) -> None:
    """@raises AggregationError: the row that the rule trusts is a bad input."""
    trusted = _bragg.pivot_of(rule) if bad_inputs else None
    if trusted is not None and trusted[1] in bad_inputs:
        name, pivot = trusted
        text = f"{name}: pivot = {pivot} is a bad input: updates[{pivot}]{place_and_reason(bad_inputs[pivot])}"
        raise AggregationError(text, "nonfinite_pivot", 11)


def _with_reasons(reports: tuple[Report, ...], bad_inputs: dict[int, str]) -> tuple[Report, ...]:
    if not bad_inputs:
        return reports
    return tuple(
        dataclasses.replace(report, bad_inputs=tuple(bad_inputs.get(i) for i in range(len(report.weights))))
        for report in reports
    )


def _with_counts(reports: tuple[Report, ...], row: Any) -> tuple[Report, ...]:
    """The extension counts what is not finite on the CPU alone. On a device the result's library does, and waits."""
    if not reports or reports[0].nonfinite_result is not None:
        return reports
    counts = [library_of(leaf, "out").nonfinite(leaf) for leaf in (row if isinstance(row, list) else [row])]
    if len(reports) == 1:
        counts = [sum(counts)]
    return tuple(dataclasses.replace(report, nonfinite_result=count) for report, count in zip(reports, counts))


def _check_finite(reports: tuple[Report, ...], bad_inputs: dict[int, str]) -> None:
    """@raises AggregationError: a result is not finite."""
    count = sum(report.nonfinite_result or 0 for report in reports)
    if count == 0:
        return
    rows = [i for i in range(len(reports[0].nonfinite)) if any(report.nonfinite[i] for report in reports)]
    shown = ", ".join(map(str, rows[:8])) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")
    because = (
        f"rows {shown} hold such values, in some coordinates more rows than the rule withstands"
        if rows
        else ("finite values overflow")
    )
    text = f"the result holds NaN or infinity in {count} coordinates: {because}; pass allow_nonfinite=True to have it"
    raise _explained(AggregationError(text, "nonfinite_result", 0, reports), bad_inputs)


def _explained(error: AggregationError, bad_inputs: dict[int, str]) -> AggregationError:
    """The same, with the inputs that were no rows, and why."""
    if not bad_inputs:
        return error
    listed = "".join(f"\n  updates[{i}]{place_and_reason(reason)}" for i, reason in bad_inputs.items())
    return AggregationError(
        f"{error}; bad inputs count as such rows:{listed}",
        error.status,
        error.code,
        _with_reasons(error.reports, bad_inputs),
    )


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
    bad_inputs: Literal["row", "error"] = "row",
    allow_nonfinite: bool = False,
    judge_by: Patterns = None,
    ignore_in_distances: Patterns = None,
    threads: int = 0,
    return_report: bool = False,
) -> Any:
    """The robust aggregate of n updates, of the kind, dtype and device of one.

    The updates are read where they are, and never written to. Only what does not lie one behind the other, in an order
    of axes that all rows share, is copied. On a GPU the work is done on the library's current stream, and waited for.

    Args:
        updates: An array whose first axis counts the rows, or a list of n arrays, or of n trees of arrays: mappings
            (such as state dicts), lists, tuples and dataclasses, nested. From NumPy, PyTorch, CuPy, JAX, or another
            library with DLPack and the array API; float32, float16, bfloat16 or float64, on one device; on a GPU of one
            dtype. Integer and boolean arrays in trees take the lower median of each element. Python's numbers, and
            lists of them, are float64. What is no array takes no part: the result has the base's, or what most share.
        rule: The pipeline: text, such as "nnm(f=2) | trimmed_mean(f=2)", or Nnm(f=2) | TrimmedMean(f=2).
        out: Where the result goes; it is returned. It may be exactly one of the updates, or base, or else apart.
        base: What distances and clipping are about, such as the global model; as one row of updates.
        weights: n client weights. 0 leaves a row out; a negative one, or one that is not finite, is taken for bad data.
        scope: Whether rows are judged as a whole, or "per_tensor".
        max_weight_share: A cap on a weight's share of the sum of all; 0 is none.
        out_dtype: float32, for updates of 16 bits; else that of the updates.
        judge_by, ignore_in_distances: Patterns of the names of the floating-point tensors that rows are judged by, or
            are not: distances, norms and f are about these alone, and what follows holds for all. A name is a leaf's
            keys, joined by dots, such as "layers.0.weight"; a pattern is that of a whole name, with *, ? and [...].
        threads: CPU threads; 0 is as many as OpenMP would use. The result does not depend on it.
        bad_inputs: What an update is that has not the form of the base or, without one, of more than half of the
            updates (keys, shapes, dtypes, device): a "row" of NaN, which counts towards the rule's f, or an "error".
        allow_nonfinite: Return a result that holds NaN or infinity, too: of `mean`, or where more rows are not finite in
            a coordinate than the rule withstands. On a GPU that is looked for only where a report is asked for.
        return_report: Return (result, report) instead: a Report, or one for each tensor where scope is "per_tensor".
            `aggregate_with_report` returns the same with types.

    Raises:
        AggregationError: The data defeats the rule, such as too many rows with NaN. `out` is not written to; of the
            status "nonfinite_result" it is.
        ValueError: An argument breaks a bound, or the updates agree on no form. ParseError: so does the rule's text.
        TypeError: An argument that should be an array is not one.
    """
    value, reports = _aggregate(
        updates,
        rule,
        out,
        base,
        weights,
        _options(scope, out_dtype, max_weight_share, threads),
        _Judges.of(judge_by, ignore_in_distances),
        bad_inputs,
        allow_nonfinite,
        return_report,
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
    bad_inputs: Literal["row", "error"] = "row",
    allow_nonfinite: bool = False,
    judge_by: Patterns = None,
    ignore_in_distances: Patterns = None,
    threads: int = 0,
) -> Result:
    """As `aggregate`, and what the run says of every row: `value` and `report`, or `reports` of each tensor."""
    options = _options(scope, out_dtype, max_weight_share, threads)
    judges = _Judges.of(judge_by, ignore_in_distances)
    return Result(*_aggregate(updates, rule, out, base, weights, options, judges, bad_inputs, allow_nonfinite, True))


def _as_scope_says(reports: tuple[Report, ...], scope: str) -> Report | tuple[Report, ...]:
    return reports[0] if scope == "whole" else reports


def _aggregate(
    updates: Any,
    rule: str | Rule | Pipeline,
    out: Any,
    base: Any,
    weights: Iterable[float] | None,
    options: tuple[str, str | None, float, int],
    judges: _Judges | None,
    bad_inputs: str,
    allow_nonfinite: bool,
    return_reports: bool,
) -> tuple[Any, tuple[Report, ...]]:
    """The result, and the reports if they are asked for."""
    text = _rule_text(rule)
    numbers = _numbers(weights)
    fresh = out is None

    def call(form: _Form) -> tuple[Any, tuple[Report, ...]]:
        check_pivot(text, form.bad_inputs)
        row = form.empty(options[1]) if fresh else form.out(out)
        based = None if base is None else form.base(base)
        # Bad inputs are never without a look at what became of them, which needs a report.
        wanted = return_reports or bool(form.bad_inputs)
        return row, _bragg.aggregate(
            text,
            form.floats,
            form.names,
            row,
            fresh,
            based,
            numbers,
            *options,
            _marks(judges, form),
            form.stream,
            wanted,
        )

    form, (row, reports) = _with_form(updates, base, bad_inputs, call)
    if not fresh:
        form.finish(numbers)
    if reports:
        reports = _with_reasons(_with_counts(reports, row), form.bad_inputs)
        if not allow_nonfinite:
            _check_finite(reports, form.bad_inputs)
    return form.result(row, numbers) if fresh else out, reports


def pre_aggregate(
    updates: Any,
    sequence: str | PreAggregator | Pipeline,
    *,
    base: Any = None,
    scope: Literal["whole", "per_tensor"] = "whole",
    out_dtype: Any = None,
    bad_inputs: Literal["row", "error"] = "row",
    judge_by: Patterns = None,
    ignore_in_distances: Patterns = None,
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
        base, scope, out_dtype, judge_by, ignore_in_distances, threads, bad_inputs, return_report: As in `aggregate`.

    Raises:
        AggregationError, ValueError, ParseError, TypeError: As `aggregate`.
    """
    judges = _Judges.of(judge_by, ignore_in_distances)
    points, reports = _pre_aggregate(
        updates, sequence, base, _options(scope, out_dtype, 0, threads), judges, bad_inputs
    )
    return (points, _as_scope_says(reports, scope)) if return_report else points


def pre_aggregate_with_report(
    updates: Any,
    sequence: str | PreAggregator | Pipeline,
    *,
    base: Any = None,
    scope: Literal["whole", "per_tensor"] = "whole",
    out_dtype: Any = None,
    bad_inputs: Literal["row", "error"] = "row",
    judge_by: Patterns = None,
    ignore_in_distances: Patterns = None,
    threads: int = 0,
) -> Result:
    """As `pre_aggregate`, and what the run says of every row: `value` and `report`, or `reports` of each tensor."""
    judges = _Judges.of(judge_by, ignore_in_distances)
    return Result(*_pre_aggregate(updates, sequence, base, _options(scope, out_dtype, 0, threads), judges, bad_inputs))


def _pre_aggregate(
    updates: Any,
    sequence: str | PreAggregator | Pipeline,
    base: Any,
    options: tuple[str, str | None, float, int],
    judges: _Judges | None,
    bad_inputs: str,
) -> tuple[Any, tuple[Report, ...]]:
    text = _rule_text(sequence)
    scope, dtype, _, threads = options

    def call(form: _Form) -> tuple[Any, tuple[Report, ...]]:
        rows = form.empty_points(_bragg.points_after(text, form.n()), dtype)
        based = None if base is None else form.base(base)
        return rows, _bragg.pre_aggregate(
            text, form.floats, form.names, rows, based, scope, dtype, threads, _marks(judges, form), form.stream
        )

    form, (rows, reports) = _with_form(updates, base, bad_inputs, call)
    return form.points(rows), _with_reasons(reports, form.bad_inputs)


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
        judge_by: Patterns = None,
        ignore_in_distances: Patterns = None,
        threads: int = 0,
        allow_nonfinite: bool = False,
    ) -> None:
        """A plan for updates that look like `like`, and are where it is. Only its shapes, dtype and device are read.

        on_failure: The content of `out` if the data defeats the rule: its former content, NaN, or zero. allow_nonfinite:
        `check` does not mind a result that holds NaN or infinity; on a GPU it does not look for any. The other
        arguments and exceptions are as in `aggregate`.
        """
        text = _rule_text(rule)
        options = _options(scope, out_dtype, max_weight_share, threads)
        judges = _Judges.of(judge_by, ignore_in_distances)
        self._bad_inputs: dict[int, str] = {}
        self._allow_nonfinite = allow_nonfinite

        def make(form: _Form) -> Any:
            marks = _marks(judges, form)
            return _bragg.Plan(text, form.floats, form.names, str(on_failure), *options, marks, form.stream)

        form, self._plan = _with_form(like, None, "row", make)
        self._library, self._nothing = form.nothing()

    def run(
        self,
        updates: Any,
        out: Any,
        *,
        base: Any = None,
        weights: Iterable[float] | None = None,
        bad_inputs: Literal["row", "error"] = "row",
    ) -> Any:
        """Aggregates into `out`, and returns it.

        On the CPU it has waited. On a GPU the work is on the current stream, nothing has been waited for or allocated,
        and the call can be captured in a CUDA graph (mda and smea excepted); updates, base and out must stay as they
        are until the stream has done it. Bad data raises nothing: `check` does.

        Raises:
            ValueError, TypeError: As `aggregate`, or these are no updates that the plan is for.
            RuntimeError: Another thread is using the plan.
        """
        numbers = _numbers(weights)

        def call(form: _Form) -> None:
            row = form.out(out)
            based = None if base is None else form.base(base)
            self._plan.run(form.floats, form.names, row, based, numbers, form.stream)

        form, _ = _with_form(updates, base, bad_inputs, call)
        form.finish(numbers)
        self._bad_inputs = form.bad_inputs
        return out

    def check(self) -> None:
        """Waits for the last run, and for the current stream.

        @raises AggregationError: the data defeated the rule, or (on the CPU) the result holds NaN or infinity.
        """
        failed = None
        try:
            self._plan.check(self._stream())
        except AggregationError as error:
            failed = error
        check_pivot(self._plan.rule, self._bad_inputs)
        if failed is not None:
            raise _explained(failed, self._bad_inputs)
        if not self._allow_nonfinite:
            _check_finite(self.reports, self._bad_inputs)

    def wait(self) -> str:
        """Waits for the last run, and for the current stream. "ok", or as `Report.status`."""
        status: str = self._plan.wait(self._stream())
        return status

    def status(self) -> str:
        """Deprecated: the same as `wait`."""
        warnings.warn("bragg.Plan.status() waits for the run: call wait()", DeprecationWarning, stacklevel=2)
        return self.wait()

    @property
    def reports(self) -> tuple[Report, ...]:
        """Of the last run: one, or one for each tensor where scope is "per_tensor".

        Does not wait: a run on a GPU has reports once `wait` or `check` returns. @raises RuntimeError: before that.
        """
        return _with_reasons(self._plan.reports(), self._bad_inputs)

    def reset(self) -> None:
        """Forgets the last result, and sets the round of bucketing to 0."""
        self._plan.reset()

    def _stream(self) -> int:
        return self._library.stream(self._nothing)

    def __repr__(self) -> str:
        return f"Plan({self._plan.rule!r}, n={self._plan.n})"
