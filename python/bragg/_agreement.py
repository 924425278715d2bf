# SPDX-License-Identifier: Apache-2.0
"""Updates that are not plainly alike: brought into one form, and what is not of that form made a row of NaN.

`_aggregate` comes here where the extension, which takes what lies in memory as it needs it, or the plain reading of
trees has refused what it was given.
"""

from __future__ import annotations

import array
import io
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from . import _trees
from ._arrays import PYTHON, Library, Order, check_writable, dtype_name, library_of, plain_order


class Column:
    """The arrays of one leaf, with their axes in the one order in which all rows' elements lie one behind the other.

    Where there is no such order, rows are copied.
    """

    def __init__(self, rows: Sequence[Any]) -> None:
        self._like = rows[0]
        self._library = library_of(self._like, "updates")
        orders = {library_of(row, "updates").order(row) for row in rows}
        order = orders.pop() if len(orders) == 1 else None
        self.order: Order = plain_order(len(self._like.shape)) if order is None else order
        self._is_plain = self.order == plain_order(len(self.order))

    def read(self, row: Any) -> Any:
        library = library_of(row, "updates")
        lies_so = library.order(row) == self.order
        permuted = row if self._is_plain else library.permute(row, self.order)
        return permuted if lies_so else library.contiguous(permuted)

    def read_matrix(self, updates: Any) -> Any:
        """The rows of an array, which may have any distance from each other."""
        lies_so = self._library.order(updates[0, ...]) == self.order
        permuted = updates if self._is_plain else self._library.permute(updates, self._behind_rows(self.order))
        return permuted if lies_so else self._library.contiguous(permuted)

    def restored_matrix(self, rows: Any) -> Any:
        return rows if self._is_plain else self._library.permute(rows, self._behind_rows(self._inverse()))

    def _behind_rows(self, order: Sequence[int]) -> Order:
        return (0, *(axis + 1 for axis in order))

    def _inverse(self) -> Order:
        return tuple(sorted(range(len(self.order)), key=self.order.__getitem__))

    def _shape(self) -> tuple[int, ...]:
        return tuple(self._like.shape[axis] for axis in self.order)

    def empty(self, dtype: str | None) -> Any:
        return self._library.empty(self._like, self._shape(), dtype)

    def nan(self) -> Any:
        return self._library.nan(self._like, self._shape())

    def nonfinite(self, row: Any) -> int:
        return library_of(row, "out").nonfinite(row)

    def restored(self, row: Any) -> Any:
        """A fresh row with its axes as the caller's arrays have them."""
        return row if self._is_plain else library_of(row, "out").permute(row, self._inverse())

    def place_for(self, out: Any) -> tuple[Any, bool]:
        """Where the result is written: `out` itself, with axes in the column's order; or, and then it is to be assigned
        to `out`, a fresh array."""
        library = library_of(out, "out")
        if library.order(out) == self.order:
            return (out if self._is_plain else library.permute(out, self.order)), False
        shape = tuple(out.shape[axis] for axis in self.order) if len(out.shape) == len(self.order) else out.shape
        return library.empty(out, tuple(shape), None), True


class Numbers:
    """Python's numbers: a float, or a list of numbers, as float64."""

    def __init__(self, like: Any) -> None:
        self._like = like
        self._count = len(like) if isinstance(like, (list, tuple)) else 1

    def read(self, row: Any) -> Any:
        return array.array("d", row if isinstance(row, (list, tuple)) else [row])

    def empty(self, dtype: str | None) -> Any:
        if dtype not in (None, "float64"):
            raise ValueError(f"out_dtype = {dtype} for Python's numbers; they are float64")
        return array.array("d", bytes(8 * self._count))

    def nan(self) -> Any:
        return array.array("d", [float("nan")]) * self._count

    def nonfinite(self, row: Any) -> int:
        return sum(not math.isfinite(value) for value in row)

    def restored(self, row: Any) -> Any:
        if not isinstance(self._like, (list, tuple)):
            return row[0]
        values = row.tolist()
        return tuple(values) if isinstance(self._like, tuple) else values


class NoForm(Exception):
    """Why there is none, where more is to be said of it than what was refused."""


class Bad(NamedTuple):
    """An update that does not have the form."""

    reason: str
    is_type: bool
    """Whether it is a TypeError to whom it is an error."""


OF_MOST = object()
"""Among the leaves of a base: what is no array there is what most updates share, as without a base."""

FLOATS = ("an array", "a float", "a list of numbers")
"""Kinds of leaves that are aggregated."""


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")


def leaf_form(leaf: Any, is_root: bool) -> tuple[str, Any]:
    """What the leaf is, and what those of other rows must have the same: kind and rest."""
    if type(leaf) in _trees.NUMBERS:
        # A number that is all there is of an update can be no counter.
        return ("a float", ()) if is_root or type(leaf) is float else ("an int", ())
    if _trees.is_numbers(leaf):
        return "a list of numbers", (len(leaf),)
    if _is_array(leaf):
        library = library_of(leaf, "updates")
        if not library.is_dense(leaf):
            raise TypeError("a sparse array; needs a dense one")
        kind = "integers" if library.is_integer(leaf) and not is_root else "an array"
        return kind, (dtype_name(leaf), tuple(leaf.shape), library.device(leaf))
    return "no array", ()


def shown(form: tuple[str, Any]) -> str:
    kind, rest = form
    if kind in ("an array", "integers"):
        return f"{rest[0]} of shape {rest[1]}" + ("" if rest[2] == "cpu" else f" on {rest[2]}")
    return f"a list of {rest[0]} numbers" if rest else kind


class Form:
    """What a row has to be like: the names, dtypes and shapes of one tree, the source's."""

    def __init__(self, like: Any, source: str) -> None:
        self.like = like
        self.source = source
        self.names = list(_trees.names(like))
        self.leaves = [leaf_form(leaf, name == "") for name, leaf in zip(self.names, _trees.leaves(like, like, ""))]
        self.floats = [at for at, (kind, _) in enumerate(self.leaves) if kind in FLOATS]
        self.integers = [at for at, (kind, _) in enumerate(self.leaves) if kind in ("integers", "an int")]
        self.others = [at for at, (kind, _) in enumerate(self.leaves) if kind == "no array"]
        if not self.floats and not self.integers:
            raise ValueError(f"{source}: holds no arrays")

    def read(self, tree: Any) -> list[Any]:
        """Its leaves. @raises Exception: any, for it may be anything; else one that says what is not as here."""
        row = _trees.leaves(tree, self.like, "", self.source)
        for name, form, leaf in zip(self.names, self.leaves, row):
            found = leaf_form(leaf, name == "")
            if found != form and not (form[0] == "a float" and found[0] == "an int"):
                what = f"{type(leaf).__name__} is no array" if found[0] == "no array" else shown(found)
                raise ValueError(f"{name}: {what}; needs {shown(form)}, as in {self.source}")
        return row


def _bad(error: Exception) -> Bad:
    # No exception is kept: its traceback would keep what it was raised about.
    is_type = isinstance(error, TypeError)
    text = str(error) if is_type or isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return Bad(text.removeprefix(": "), is_type)  # `_trees` begins with the tree's place, which is empty here


def place_and_reason(reason: str) -> str:
    """What follows "updates[3]"."""
    return reason if reason.startswith(("[", ".")) else f": {reason}"


def _all_that_fit(
    form: Form, updates: Sequence[Any], indices: Iterable[int]
) -> tuple[dict[int, list[Any]], dict[int, Bad]]:
    rows, bad = {}, {}
    for i in indices:
        try:
            rows[i] = form.read(updates[i])
        except Exception as error:  # noqa: BLE001 - a stranger's object: its attributes may raise anything
            bad[i] = _bad(error)
    return rows, bad


def _form_of_most(updates: Sequence[Any]) -> tuple[Form, dict[int, list[Any]], dict[int, Bad]]:
    """The form of more than half of the updates, with the rows that have it. @raises NoForm."""
    n = len(updates)
    left = list(range(n))
    found_one = False
    while 2 * len(left) > n:
        try:
            form = Form(updates[left[0]], f"updates[{left[0]}]")
        except Exception:  # noqa: BLE001 - as above
            left.pop(0)
            continue
        found_one = True
        rows, _ = _all_that_fit(form, updates, left)
        if 2 * len(rows) > n:
            return form, *_all_that_fit(form, updates, range(n))
        left = [i for i in left[1:] if i not in rows]
    if not found_one or n == 1:
        raise NoForm
    raise NoForm(f"no form is that of more than half of the {n} updates, and there is no base")


def form_of_most(updates: Any) -> Any:
    """An update of the form that `bragg.aggregate` takes without a base. @raises NoForm."""
    return _form_of_most(updates)[0].like if isinstance(updates, (list, tuple)) else updates[0, ...]


def _is_same(a: Any, b: Any) -> bool:
    """Asks nothing of a stranger's type."""
    if a is b:
        return True
    if isinstance(a, io.BytesIO) and isinstance(b, io.BytesIO):
        return a.getvalue() == b.getvalue()
    return type(a) is type(b) and type(a) in (str, bytes) and a == b


def no_array_of_most(values: Sequence[Any], n: int) -> Any:
    """What more than half of `n` updates share; else LEFT_OUT."""
    for value in values:
        if 2 * sum(_is_same(value, other) for other in values) > n:
            return value
    return _trees.LEFT_OUT


class Agreed:
    """As `_Trees`, of updates that have been brought into one form."""

    def __init__(self, updates: Sequence[Any], base: Any, bad_inputs: str) -> None:
        """@raises NoForm; ValueError, TypeError: `bad_inputs` is "error", and there is one."""
        if base is not None:
            form = Form(base, "base")
            rows, bad = _all_that_fit(form, updates, range(len(updates)))
            if not rows:
                raise NoForm
        else:
            form, rows, bad = _form_of_most(updates)
        self.bad_inputs = {i: one.reason for i, one in bad.items()}
        if bad and bad_inputs == "error":
            i, one = min(bad.items())
            raise (TypeError if one.is_type else ValueError)(f"updates[{i}]{place_and_reason(one.reason)}")
        self._form = form
        self._rows = rows
        self._n = len(updates)
        self._base = None if base is None else form.read(base)
        first = next(iter(rows.values()))
        self._columns: list[Column | Numbers] = [
            Column([row[at] for row in rows.values()]) if form.leaves[at][0] == "an array" else Numbers(first[at])
            for at in form.floats
        ]
        self.names = [form.names[at] for at in form.floats]
        nan = [column.nan() for column in self._columns] if bad else []
        self.floats = [self._read(rows[i]) if i in rows else nan for i in range(self._n)]
        arrays = [at for at in (*form.floats, *form.integers) if form.leaves[at][0] in ("an array", "integers")]
        self._first_array = first[arrays[0]] if arrays else array.array("d")
        self._library = library_of(self._first_array, "updates") if arrays else PYTHON
        self.stream = self._library.stream(self._first_array)
        self._out: list[Any] = []
        self._assign: list[tuple[Any, Column, Any]] = []

    def _read(self, row: Sequence[Any]) -> list[Any]:
        return [column.read(row[at]) for column, at in zip(self._columns, self._form.floats)]

    def n(self) -> int:
        return self._n

    def paths(self) -> list[str]:
        found = list(_trees.paths(self._form.like))
        return [found[at] for at in self._form.floats]

    def empty(self, dtype: str | None) -> list[Any]:
        return [column.empty(dtype) for column in self._columns]

    def empty_points(self, count: int, dtype: str | None) -> list[list[Any]]:
        return [self.empty(dtype) for _ in range(count)]

    def nothing(self) -> tuple[Library, Any]:
        return self._library, self._library.empty(self._first_array, (0,), None)

    def base(self, base: Any) -> list[Any]:
        return self._read(self._form.read(base))

    def out(self, out: Any) -> list[Any]:
        self._out = _trees.leaves(out, self._form.like, "out", self._form.source)
        for at in (*self._form.floats, *self._form.integers):
            place = f"out{self._form.names[at]}"
            if self._form.leaves[at][0] not in ("an array", "integers"):
                raise TypeError(f"{place}: Python's numbers cannot be written to; leave out `out`")
            check_writable(self._out[at], place)
        places = []
        for column, at in zip(self._columns, self._form.floats):
            assert isinstance(column, Column)
            place, is_fresh = column.place_for(self._out[at])
            places.append(place)
            if is_fresh:
                self._assign.append((self._out[at], column, place))
        return places

    def finish(self, weights: Sequence[float] | None) -> None:
        """The extension has written to what `out` returned."""
        for at in self._form.integers:
            library_of(self._out[at], "out").assign(self._out[at], self._lower_median(at, weights))
        fresh = {id(leaf) for leaf, _, _ in self._assign}
        for at in self._form.floats:
            if id(self._out[at]) not in fresh:
                library_of(self._out[at], "out").written(self._out[at])
        for leaf, column, place in self._assign:
            library_of(leaf, "out").assign(leaf, column.restored(place))

    def result(self, row: Sequence[Any], weights: Sequence[float] | None) -> Any:
        """The tree of a fresh row."""
        form = self._form
        leaves = {at: column.restored(leaf) for at, column, leaf in zip(form.floats, self._columns, row)}
        leaves.update((at, self._lower_median(at, weights)) for at in form.integers)
        leaves.update(self._carried())
        return _trees.rebuild(form.like, (leaves[at] for at in range(len(form.names))))

    def points(self, rows: Sequence[Sequence[Any]]) -> list[Any]:
        return [self.result(row, None) for row in rows]

    def _lower_median(self, at: int, weights: Sequence[float] | None) -> Any:
        valid = [row[at] for i, row in self._rows.items() if weights is None or 0 < weights[i] < float("inf")]
        if not valid:
            raise ValueError("weights: none is valid; integer tensors need at least 1")
        if self._form.leaves[at][0] == "an int":
            return sorted(valid)[(len(valid) - 1) // 2]
        return library_of(valid[0], "updates").lower_median(valid)

    def _carried(self) -> dict[int, Any]:
        """What is no array: the base's, else what more than half of the updates have alike."""
        carried, left_out = {}, []
        for at in self._form.others:
            if self._base is not None and self._base[at] is not OF_MOST:
                carried[at] = self._base[at]
                continue
            values = [row[at] for row in self._rows.values()]
            carried[at] = no_array_of_most(values, self._n)
            if carried[at] is _trees.LEFT_OUT:
                left_out.append(self._form.names[at] or "the update")
        if left_out:
            warnings.warn(
                f"left out of the result: {', '.join(left_out)}: no array, and no value that most updates share; "
                "pass a base to keep its own",
                stacklevel=5,
            )
        return carried


class Matrix:
    """As `_Arrays`, of one array of n rows whose elements do not lie one behind the other."""

    names = None
    bad_inputs: dict[int, str] = {}

    def __init__(self, updates: Any) -> None:
        self._library = library_of(updates, "updates")
        if not self._library.is_dense(updates) or 0 in updates.shape:
            raise NoForm
        self._updates = updates
        self._n = updates.shape[0]
        self._column = Column([updates[0, ...]])
        self.floats = self._column.read_matrix(updates)
        self.stream = self._library.stream(updates)
        self._out: tuple[Any, Any] | None = None

    def n(self) -> int:
        return int(self._n)

    def paths(self) -> list[str]:
        return [""]

    def empty(self, dtype: str | None) -> Any:
        return self._column.empty(dtype)

    def empty_points(self, count: int, dtype: str | None) -> Any:
        shape = (count, *(self._updates.shape[1 + axis] for axis in self._column.order))
        return self._library.empty(self._updates, shape, dtype)

    def nothing(self) -> tuple[Library, Any]:
        return self._library, self._library.empty(self._updates, (0,), None)

    def base(self, base: Any) -> Any:
        library_of(base, "base")
        return self._column.read(base)

    def out(self, out: Any) -> Any:
        check_writable(out, "out")
        place, is_fresh = self._column.place_for(out)
        self._out = (out, place if is_fresh else None)
        return place

    def finish(self, weights: Sequence[float] | None) -> None:
        assert self._out is not None
        out, place = self._out
        library = library_of(out, "out")
        if place is None:
            library.written(out)
        else:
            library.assign(out, self._column.restored(place))

    def result(self, row: Any, weights: Sequence[float] | None) -> Any:
        return self._column.restored(row)

    def points(self, rows: Any) -> Any:
        return self._column.restored_matrix(rows)
