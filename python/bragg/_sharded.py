# SPDX-License-Identifier: Apache-2.0
"""Runs of several processes together: a row each, in phases, between which a transport moves bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from . import _bragg
from ._report import Report


class Transport(Protocol):
    """Moves bytes between the ranks of a group. Every rank makes the same calls in the same order."""

    rank: int
    size: int

    def all_to_all(
        self, send: memoryview, send_bytes: Sequence[int], receive: memoryview, receive_bytes: Sequence[int]
    ) -> None:
        """To each rank k send_bytes[k] bytes, which lie one behind the other; from each receive_bytes[k]."""

    def all_gather(self, send: memoryview, receive: memoryview, receive_bytes: Sequence[int]) -> None:
        """`send` to every rank, from each receive_bytes[k]. `send` may be its own place in `receive`."""


def reduction_of(transport: Transport) -> Any:
    return _bragg.AllReduce(transport.rank, transport.size)


def reduce(reduction: Any, transport: Transport, begin: Callable[[], None]) -> tuple[Report, ...]:
    """The run that `begin` begins. Where that raises, the other ranks are told, and raise a ValueError.

    @raises AggregationError, on all ranks: the data defeats the rule. RuntimeError, on all: they were given different
    arguments, or differ in what they compute.
    """
    try:
        begin()
    except Exception as error:
        reduction.fail(str(error))
        with contextlib.suppress(Exception):  # this rank's own is raised
            _move_all(reduction, transport)
        raise
    _move_all(reduction, transport)
    reports: tuple[Report, ...] = reduction.reports()
    return reports


def _move_all(reduction: Any, transport: Transport) -> None:
    while (transfer := reduction.next()) is not None:
        send, send_bytes, receive, receive_bytes = transfer
        if send_bytes:
            transport.all_to_all(send, send_bytes, receive, receive_bytes)
        else:
            transport.all_gather(send, receive, receive_bytes)
