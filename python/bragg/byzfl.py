# SPDX-License-Identifier: Apache-2.0
"""ByzFL's aggregators and pre-aggregators, computed by bragg: `import bragg.byzfl as byzfl`.

Names, constructors, calls, messages and conventions are those of ByzFL 0.0.11; docs/byzfl.md lists what differs. Needs
NumPy, and PyTorch only for tensors.

>>> import bragg.byzfl as byzfl, numpy
>>> byzfl.Krum(f=1)(numpy.array([[1.0, 2.0], [4.0, 5.0], [numpy.nan, 8.0]]))
array([1., 2.])
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from . import _bragg
from ._aggregate import aggregate
from ._arrays import library_of

__all__ = [
    "ARC",
    "CAF",
    "MDA",
    "NNM",
    "SMEA",
    "Average",
    "Bucketing",
    "CenteredClipping",
    "Clipping",
    "GeometricMedian",
    "Krum",
    "Meamed",
    "Median",
    "MoNNA",
    "MultiKrum",
    "RobustAggregator",
    "TrMean",
]


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    return torch is not None and isinstance(value, torch.Tensor)


def _rows(vectors: Any) -> Any:
    """The vectors as bragg reads them, in ByzFL's dtypes: tensors become float32, and arrays of integers float64.

    Copies only what has another dtype, or whose rows' elements do not lie one behind the other.
    """
    in_list = isinstance(vectors, list)
    if in_list and not vectors:
        raise ValueError("'vectors' is empty; needs at least 1 vector")
    arrays = vectors if in_list else [vectors]
    if isinstance(arrays[0], np.ndarray):
        dtype = np.result_type(*arrays)
        if dtype.kind in "iub":
            dtype = np.dtype(np.float64)
        arrays = [np.asarray(array, dtype, order="C") for array in arrays]
    elif _is_tensor(arrays[0]):
        arrays = [array.float().contiguous() for array in arrays]
    else:
        raise TypeError(
            "'vectors' should be a 'list' of ('np.ndarray' or 'torch.Tensor') or 'np.ndarray' or 'torch.Tensor'"
        )
    return arrays if in_list else arrays[0]


def _empty(rows: Any, n: int) -> Any:
    """Room for n vectors like those of `rows`."""
    return library_of(rows[0], "vectors").empty(rows[0], (n, *rows[0].shape), None)


def _zeros(rows: Any) -> Any:
    """The origin, like a vector of `rows`."""
    origin = _empty(rows, 1)[0]
    origin[...] = 0
    return origin


def _number(value: float) -> str:
    """As bragg reads it. It has no infinity; nothing is farther than the largest number."""
    return repr(float(min(value, sys.float_info.max)))


def _check_f(f: Any) -> int:
    if not isinstance(f, int) or f < 0:
        raise ValueError("f must be a non-negative integer")
    return f


def _check_majority(f: int, n: int) -> None:
    if 2 * f >= n:
        raise ValueError(f"Cannot tolerate 2f ≥ n. Got f={f}, n={n}")


class _Aggregator:
    def __call__(self, vectors: Any) -> Any:
        return self._aggregate(_rows(vectors), ())

    def _aggregate(self, rows: Any, pre: Sequence[_PreAggregator], **options: Any) -> Any:
        """Pre-aggregators and this, as one pipeline."""
        n = len(rows)
        stages = []
        for stage in pre:
            stages.append(stage._text(n, rows))
            n = stage._points_of(n)
        # As ByzFL: what is not finite is the caller's to see.
        return aggregate(rows, " | ".join([*stages, self._text(n, rows)]), allow_nonfinite=True, **options)

    def _text(self, n: int, rows: Any) -> str:
        """What bragg calls it, for n vectors of the kind of `rows`."""
        raise NotImplementedError


class _AggregatorWithF(_Aggregator):
    _rule: ClassVar[str]

    def __init__(self, f: int = 0) -> None:
        self.f = _check_f(f)

    def _text(self, n: int, rows: Any) -> str:
        _check_majority(self.f, n)
        return f"{self._rule}(f={self.f:d})"


class Average(_Aggregator):
    """The mean. Not robust: what is not finite in any vector is not finite in the result."""

    def _text(self, n: int, rows: Any) -> str:
        # mean rounds 1/n, so that in float64 the mean of 1, 4 and 7 is not 4. A trimmed mean divides, and takes twice as long.
        return "trimmed_mean(f=0)" if rows[0].dtype == np.float64 else "mean"


class Median(_Aggregator):
    """Of each coordinate; the midpoint of the two middle values where n is even."""

    def _text(self, n: int, rows: Any) -> str:
        return "median"


class TrMean(_AggregatorWithF):
    """The mean of each coordinate without its f smallest and f largest values."""

    _rule = "trimmed_mean"


class GeometricMedian(_Aggregator):
    """T steps of Weiszfeld's algorithm from the origin, with distances of at least nu."""

    def __init__(self, nu: float = 0.1, T: int = 3) -> None:
        if not isinstance(nu, float):
            raise TypeError("f must be a float")  # ByzFL's word for nu
        self.nu = nu
        if not isinstance(T, int) or T < 0:
            raise ValueError("T must be a non-negative integer")
        self.T = T

    def _aggregate(self, rows: Any, pre: Sequence[_PreAggregator], **options: Any) -> Any:
        return super()._aggregate(rows, pre, **options) if self.T else _zeros(rows)

    def _text(self, n: int, rows: Any) -> str:
        return f"geometric_median(nu={_number(self.nu)}, max_iters={self.T:d}, tol=0, start=origin)"


class Krum(_AggregatorWithF):
    """The vector of least score: the sum of squared distances to its n−f−1 nearest others."""

    def _text(self, n: int, rows: Any) -> str:
        _check_majority(self.f, n)
        if n == 1:  # there are no others
            return "monna(f=0)"
        return f"krum(f={self.f:d}, neighbors={n - self.f - 1})"


class MultiKrum(_AggregatorWithF):
    """The mean of the n−f vectors of least Krum score."""

    def _text(self, n: int, rows: Any) -> str:
        _check_majority(self.f, n)
        if n == 1:
            return "monna(f=0)"
        return f"multi_krum(f={self.f:d}, neighbors={n - self.f - 1})"


class CenteredClipping(_Aggregator):
    """L steps by the mean of the differences from m, each clipped to tau. m is then the result; it begins at the origin."""

    def __init__(self, m: Any = None, L: int = 1, tau: float = 100.0) -> None:
        if m is not None and not isinstance(m, np.ndarray) and not _is_tensor(m):
            raise TypeError("m must be of type np.ndarray or torch.Tensor")
        self.m = m
        if not isinstance(L, int) or L < 0:
            raise ValueError("L must be a non-negative integer")
        self.L = L
        if not isinstance(tau, float) or tau < 0.0:
            raise ValueError("tau must be a non-negative float")
        self.tau = tau

    def _aggregate(self, rows: Any, pre: Sequence[_PreAggregator], **options: Any) -> Any:
        if self.m is not None and any(isinstance(stage, (Clipping, ARC)) for stage in pre):
            # They clip about the origin, and one pipeline has one base, which is m.
            for stage in pre:
                rows = stage._points(rows)
            pre = ()
        if self.L and self.tau:
            base = self._base(rows)
            self.m, report = super()._aggregate(rows, pre, base=base, return_report=True, **options)
            if rows[0].dtype == np.float64 and not pre and all(factor == 1 for factor in report.clip_factors):
                self.m = Average()._aggregate(rows, ())  # where a step that clips nothing leads, rounded less
        elif self.m is None:
            self.m = _zeros(rows)
        return self.m

    def _base(self, rows: Any) -> Any:
        """m, like the rows that it is used with."""
        if self.m is None:
            return None
        if _is_tensor(rows[0]):
            return sys.modules["torch"].as_tensor(self.m, dtype=rows[0].dtype, device=rows[0].device).contiguous()
        return np.asarray(self.m, rows[0].dtype, order="C")

    def _text(self, n: int, rows: Any) -> str:
        return f"centered_clipping(tau={_number(self.tau)}, iters={self.L:d}, start=reference)"


class MDA(_AggregatorWithF):
    """The mean of the n−f vectors of least diameter."""

    _rule = "mda"


class MoNNA(_AggregatorWithF):
    """The mean of the n−f vectors nearest to vector idx, which is trusted."""

    def __init__(self, f: int = 0, idx: int = 0) -> None:
        super().__init__(f)
        if not isinstance(idx, int) or idx < 0:
            raise ValueError("idx must be a non-negative integer")
        self.idx = idx

    def _text(self, n: int, rows: Any) -> str:
        _check_majority(self.f, n)
        if not self.idx < n:
            raise ValueError(f"idx must be smaller than n, but got idx={self.idx} and n={n}")
        return f"monna(f={self.f:d}, pivot={self.idx:d})"


class Meamed(_AggregatorWithF):
    """The mean of each coordinate's n−f values nearest to its median."""

    _rule = "meamed"


class SMEA(_AggregatorWithF):
    """The mean of the n−f vectors whose covariance has the least top eigenvalue, which is exact here."""

    _rule = "smea"

    def _text(self, n: int, rows: Any) -> str:
        if 2 * self.f >= n:
            raise ValueError(f"Too many Byzantine clients (2f >= n). Got f={self.f}, n={n}")
        return super()._text(n, rows)


class CAF(_AggregatorWithF):
    """The covariance-bound agnostic filter, with the exact top eigenvector."""

    _rule = "caf"


class _PreAggregator:
    def __call__(self, vectors: Any) -> Any:
        return self._points(_rows(vectors))

    def _points(self, rows: Any) -> Any:
        """The vectors that it makes of `rows`."""
        n = len(rows)
        text = self._text(n, rows)  # which checks, before there is anything to return
        points = _empty(rows, self._points_of(n))
        stream = library_of(rows[0], "vectors").stream(rows[0])
        _bragg.pre_aggregate(text, rows, None, points, None, "whole", None, 0, None, stream)
        return points

    def _text(self, n: int, rows: Any) -> str:
        """What bragg calls it, for n vectors of the kind of `rows`."""
        raise NotImplementedError

    def _points_of(self, n: int) -> int:
        """How many vectors it makes of n."""
        return n


class NNM(_PreAggregator):
    """Replaces every vector by the mean of the n−f nearest to it, itself included."""

    def __init__(self, f: int = 0) -> None:
        self.f = _check_f(f)

    def _text(self, n: int, rows: Any) -> str:
        if not self.f < n:
            raise ValueError(f"f must be smaller than len(vectors), but got f={self.f} and len(vectors)={n}")
        _check_majority(self.f, n)
        return f"nnm(f={self.f:d})"


class Bucketing(_PreAggregator):
    """Replaces s vectors at a time by their mean, in an order that NumPy's or PyTorch's global generator draws."""

    def __init__(self, s: int = 1) -> None:
        if not isinstance(s, int) or s <= 0:
            raise ValueError("f must be a positive integer")  # ByzFL's word for s
        self.s = s

    def _text(self, n: int, rows: Any) -> str:
        return f"bucketing(s={min(self.s, n):d}, permutation=[{','.join(map(str, self._order(n, rows)))}])"

    def _points_of(self, n: int) -> int:
        return -(-n // self.s)

    def _order(self, n: int, rows: Any) -> list[int]:
        """As ByzFL draws it, so that what is seeded there is seeded here."""
        draw = sys.modules["torch"].randperm if _is_tensor(rows[0]) else np.random.permutation
        return list(draw(n).tolist())


class Clipping(_PreAggregator):
    """Scales vectors whose norm is above c to it."""

    def __init__(self, c: float = 2.0) -> None:
        if not isinstance(c, float) or c < 0:
            raise ValueError("c must be a non-negative float")
        self.c = c

    def _text(self, n: int, rows: Any) -> str:
        return f"clip(c={_number(self.c)})"


class ARC(_PreAggregator):
    """Scales the ⌊2f(n−f)/n⌋ vectors of largest norm to the next largest."""

    def __init__(self, f: int = 0) -> None:
        self.f = _check_f(f)

    def _text(self, n: int, rows: Any) -> str:
        if not self.f < n + 1:
            raise ValueError(f"f must be smaller than len(vectors)+1, but got f={self.f} and len(vectors)={n}")
        _check_majority(self.f, n)
        return f"arc(f={self.f:d})"


class RobustAggregator:
    """Pre-aggregators and an aggregator by name and parameters, which run as one pipeline.

    Parameters that a class does not have are ignored, as in ByzFL.
    """

    def __init__(
        self,
        aggregator_info: dict[str, Any],
        pre_agg_list: list[dict[str, Any]] = [],  # noqa: B006  (only read; ByzFL refuses None)
    ) -> None:
        if not isinstance(aggregator_info, dict):
            raise TypeError(f"'aggregator_info' must be of type dict, but got {type(aggregator_info).__name__}")
        if not isinstance(pre_agg_list, list) or not all(isinstance(pre_agg, dict) for pre_agg in pre_agg_list):
            raise TypeError("'pre_agg_list' must be must be a list of dict")
        self.aggregator: _Aggregator = _made("aggregator", _Aggregator, aggregator_info)
        self.pre_agg_list: list[_PreAggregator] = [
            _made("pre-aggregator", _PreAggregator, pre_agg) for pre_agg in pre_agg_list
        ]

    def aggregate_vectors(self, vectors: Any) -> Any:
        return self.aggregator._aggregate(_rows(vectors), self.pre_agg_list)


def _made(kind: str, base: type, info: dict[str, Any]) -> Any:
    classes = {name: globals()[name] for name in __all__ if issubclass(globals()[name], base)}
    name = info["name"]
    if name not in classes:
        raise AttributeError(f"{name!r} is no {kind}; needs one of {', '.join(classes)}")
    known = inspect.signature(classes[name]).parameters
    return classes[name](**{key: value for key, value in info["parameters"].items() if key in known})
