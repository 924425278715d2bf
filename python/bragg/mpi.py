# SPDX-License-Identifier: Apache-2.0
"""A robust rule in the place of MPI's all-reduce, over mpi4py: row r is rank r's, and the result everybody's.

This withstands bad *data* of ranks that run this software. It does not withstand ranks that compute falsely: each
aggregates a slice of the rows of all, and the others take its word, unless `replicas` compare theirs.

>>> from mpi4py import MPI
>>> import bragg.mpi
>>> bragg.mpi.all_reduce(gradient, "nnm(f=2) | trimmed_mean(f=2)")  # in place, on every rank of MPI.COMM_WORLD
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from mpi4py import MPI

from ._aggregate import _as_scope_says, _check_finite, _numbers, _rule_text
from ._arrays import check_writable, library_of
from ._report import Report
from ._sharded import reduce, reduction_of
from .rules import Pipeline, Rule

__all__ = ["all_reduce"]

_LONGEST = 1 << 30  # bytes of a message: older MPIs count them by an int
_TOGETHER = 32  # peers


def all_reduce(
    arrays: Any,
    rule: str | Rule | Pipeline | Callable[[int], str | Rule | Pipeline],
    comm: Any = None,
    *,
    out: Any = None,
    base: Any = None,
    weights: Iterable[float] | None = None,
    scope: Literal["whole", "per_tensor"] = "whole",
    max_weight_share: float = 0,
    replicas: int = 1,
    allow_nonfinite: bool = False,
    threads: int = 0,
) -> Report | tuple[Report, ...]:
    """Aggregates the arrays of all ranks, each rank's a row, and returns the report.

    The result has the bits that `bragg.aggregate` makes of the rows in one process, and is the same on all ranks, as
    are the report and the exceptions. Collective: all ranks pass arrays of the same sizes and dtypes, and the same
    arguments.

    Args:
        arrays: This rank's row: an array on the CPU, or a list of them. The result replaces it, unless there is `out`.
        rule: As in `bragg.aggregate`, or a function that makes it of the number of ranks.
        comm: An intracommunicator of mpi4py; default: MPI.COMM_WORLD. Messages go over a duplicate of it.
        out: Where the result goes instead, in the form of `arrays`.
        base: A row that distances and clipping are about, the same on all ranks.
        weights: One for each rank, the same on all ranks.
        scope, max_weight_share, allow_nonfinite, threads: As in `bragg.aggregate`.
        replicas: So many ranks compute each slice, and all compare what they found: up to replicas − 1 ranks that
            compute falsely give nobody a wrong result. They can stop every run.

    Raises:
        AggregationError: The data defeats the rule; on all ranks. The arrays are as they were, unless the status is
            "nonfinite_result".
        ValueError, TypeError: A bad argument; on the other ranks a ValueError that names the rank.
        RuntimeError: The ranks were given different arguments, or other versions of bragg, or compute different bits.
        mpi4py.MPI.Exception: MPI's, where its errors are returned.
    """
    transport = _Mpi(MPI.COMM_WORLD if comm is None else comm)
    reduction = reduction_of(transport)
    copies: list[tuple[Any, Any]] = []  # what is written where elements lie one behind the other, and back

    def begin() -> None:
        text = _rule_text(rule(transport.size) if callable(rule) else rule)
        mine = [_contiguous(array, f"arrays[{i}]") for i, array in enumerate(_listed(arrays))]
        targets = _listed(arrays if out is None else out)
        written = []
        for i, (target, row) in enumerate(zip(targets, mine)):
            check_writable(target, f"out[{i}]")
            written.append(row if target is row else _contiguous(target, f"out[{i}]"))
            if written[i] is not target:
                copies.append((target, written[i]))
        written += targets[len(written) :]  # too many: the run says so
        based = None if base is None else [_contiguous(array, f"base[{i}]") for i, array in enumerate(_listed(base))]
        reduction.plan(text, mine, "keep", str(scope), float(max_weight_share), threads, None, replicas)
        reduction.begin(mine, written, based, _numbers(weights))

    reports = reduce(reduction, transport, begin)
    for target, value in copies:
        library_of(target, "out").assign(target, value)
    if not allow_nonfinite:
        _check_finite(reports, {})
    return _as_scope_says(reports, scope)


def _listed(arrays: Any) -> list[Any]:
    return list(arrays) if isinstance(arrays, (list, tuple)) else [arrays]


def _contiguous(array: Any, place: str) -> Any:
    library = library_of(array, place)
    order = library.order(array)
    return array if order == tuple(range(len(array.shape))) else library.contiguous(array)


class _Mpi:
    """On a duplicate of the communicator, which is made once and freed with it: messages of others never meet these."""

    def __init__(self, comm: Any) -> None:
        if comm.Is_inter():
            raise ValueError("comm: an intercommunicator; needs an intracommunicator")
        own = comm.Get_attr(_keyval())
        if own is None:
            own = comm.Dup()
            comm.Set_attr(_keyval(), own)
        self.comm = own
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()

    def all_to_all(
        self, send: memoryview, send_bytes: Sequence[int], receive: memoryview, receive_bytes: Sequence[int]
    ) -> None:
        self._move(_cut(send, send_bytes), _cut(receive, receive_bytes))

    def all_gather(self, send: memoryview, receive: memoryview, receive_bytes: Sequence[int]) -> None:
        self._move([send] * self.size, _cut(receive, receive_bytes))

    def _move(self, sends: list[memoryview], receives: list[memoryview]) -> None:
        if len(sends[self.rank]) > 0 and not _is_same(sends[self.rank], receives[self.rank]):
            receives[self.rank][:] = sends[self.rank]
        for first in range(1, self.size, _TOGETHER):
            requests = []
            steps = range(first, min(first + _TOGETHER, self.size))
            for step in steps:
                peer = (self.rank - step) % self.size
                requests += [self.comm.Irecv([part, MPI.BYTE], peer) for part in _messages(receives[peer])]
            for step in steps:
                peer = (self.rank + step) % self.size
                requests += [self.comm.Isend([part, MPI.BYTE], peer) for part in _messages(sends[peer])]
            MPI.Request.Waitall(requests)


_made: list[int] = []


def _keyval() -> int:
    """Of the duplicate, among a communicator's attributes."""
    if not _made:
        _made.append(MPI.Comm.Create_keyval(delete_fn=lambda comm, keyval, own: own.Free()))
    return _made[0]


def _cut(view: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    parts, at = [], 0
    for size in sizes:
        parts.append(view[at : at + size])
        at += size
    return parts


def _messages(view: memoryview) -> Iterable[memoryview]:
    return (view[at : at + _LONGEST] for at in range(0, len(view), _LONGEST))


def _is_same(a: memoryview, b: memoryview) -> bool:
    return bool(MPI.Get_address(a) == MPI.Get_address(b))
