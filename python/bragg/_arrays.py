# SPDX-License-Identifier: Apache-2.0
"""Support for each array library besides the memory itself: allocation of results, order of elements, and streams.

No library is imported here that the caller has not imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol


class Library(Protocol):
    writable: bool
    """Whether arrays can be written to once others may have seen them."""

    def empty(self, like: Any, shape: tuple[int, ...], dtype: str | None) -> Any:
        """An array beside `like`, of its dtype or the float dtype of that name."""

    def stream(self, array: Any) -> int:
        """The cudaStream_t that is current on the array's device; 0 on the CPU."""

    def is_integer(self, array: Any) -> bool:
        """Integers or booleans: they take the lower median."""

    def lower_median(self, rows: Sequence[Any]) -> Any: ...

    def assign(self, out: Any, value: Any) -> None:
        """out[…] = value."""

    def written(self, out: Any) -> None:
        """The extension has written to the caller's array."""

    def device(self, array: Any) -> str:
        """Where it is: "cpu", or something that is the same for arrays on the same device."""

    def is_dense(self, array: Any) -> bool:
        """Whether its elements are all in memory."""

    def order(self, array: Any) -> Order | None:
        """The order of axes in which its elements lie one behind the other, if there is one."""

    def permute(self, array: Any, order: Order) -> Any:
        """The same elements, of axes in another order."""

    def contiguous(self, array: Any) -> Any:
        """A copy whose elements lie one behind the other."""

    def nan(self, like: Any, shape: tuple[int, ...]) -> Any:
        """An array of NaN beside `like`, of its dtype."""

    def float64(self, array: Any) -> Any:
        """A copy of the dtype float64."""

    def nonfinite(self, array: Any) -> int:
        """The number of its values that are NaN or infinite. Waits for them."""


Order = tuple[int, ...]


def plain_order(axes: int) -> Order:
    return tuple(range(axes))


def order_of(shape: Sequence[int], strides: Sequence[int]) -> Order | None:
    """`strides` in elements. Axes of one element have none to speak of."""
    plain = plain_order(len(shape))
    if 0 in shape:
        return plain
    axes = sorted((axis for axis in plain if shape[axis] != 1), key=lambda axis: -strides[axis])
    step = 1
    for axis in reversed(axes):
        if strides[axis] != step:
            return None
        step *= shape[axis]
    return plain if axes == sorted(axes) else (*axes, *(axis for axis in plain if shape[axis] == 1))


def dtype_name(array: Any) -> str:
    """As every library calls it: "float32"."""
    return str(getattr(array.dtype, "name", array.dtype)).rpartition(".")[2]


class ArrayApi:
    """Any library that follows the array API standard."""

    writable = True

    def __init__(self, module: Any) -> None:
        self.module = module

    def empty(self, like: Any, shape: tuple[int, ...], dtype: str | None) -> Any:
        return self.module.empty(shape, dtype=getattr(self.module, dtype) if dtype else like.dtype, device=like.device)

    def stream(self, array: Any) -> int:
        return 0

    def is_integer(self, array: Any) -> bool:
        return bool(self.module.isdtype(array.dtype, ("integral", "bool")))

    def lower_median(self, rows: Sequence[Any]) -> Any:
        stacked = self.module.stack(list(rows))
        if self.module.isdtype(stacked.dtype, "bool"):  # which the standard does not sort
            stacked = self.module.astype(stacked, self.module.uint8)
        middle = self.module.sort(stacked, axis=0)[(len(rows) - 1) // 2, ...]
        return self.module.astype(middle, rows[0].dtype)

    def assign(self, out: Any, value: Any) -> None:
        out[...] = value

    def written(self, out: Any) -> None:
        pass

    def device(self, array: Any) -> str:
        kind, index = array.__dlpack_device__()
        return "cpu" if kind == 1 else f"{int(kind)}:{index}"

    def is_dense(self, array: Any) -> bool:
        return True

    def order(self, array: Any) -> Order | None:
        return None  # the standard has no strides

    def permute(self, array: Any, order: Order) -> Any:
        return self.module.permute_dims(array, order)

    def contiguous(self, array: Any) -> Any:
        return self.module.reshape(self.module.reshape(array, (-1,), copy=True), array.shape)

    def nan(self, like: Any, shape: tuple[int, ...]) -> Any:
        return self.module.full(shape, float("nan"), dtype=like.dtype, device=like.device)

    def float64(self, array: Any) -> Any:
        return self.module.astype(array, self.module.float64)

    def nonfinite(self, array: Any) -> int:
        is_finite = self.module.isfinite(array)
        return int(self.module.sum(self.module.astype(~is_finite, self.module.int64)))


class NumPy(ArrayApi):
    def empty(self, like: Any, shape: tuple[int, ...], dtype: str | None) -> Any:
        return self.module.empty(shape, dtype or _native(like.dtype))

    def is_integer(self, array: Any) -> bool:
        return array.dtype.kind in "iub"

    def lower_median(self, rows: Sequence[Any]) -> Any:
        return self.module.sort(self.module.stack(rows), axis=0)[(len(rows) - 1) // 2, ...]

    def device(self, array: Any) -> str:
        return "cpu"

    def order(self, array: Any) -> Order | None:
        dtype = array.dtype
        if not dtype.isnative or any(stride % dtype.itemsize for stride in array.strides):
            return None
        return order_of(array.shape, [stride // dtype.itemsize for stride in array.strides])

    def permute(self, array: Any, order: Order) -> Any:
        return self.module.transpose(array, order)

    def contiguous(self, array: Any) -> Any:
        return self.module.array(array, dtype=_native(array.dtype), order="C")

    def nan(self, like: Any, shape: tuple[int, ...]) -> Any:
        return self.module.full(shape, float("nan"), dtype=_native(like.dtype))

    def float64(self, array: Any) -> Any:
        return array.astype("float64")

    def nonfinite(self, array: Any) -> int:
        return int((~self.module.isfinite(array)).sum())


class CuPy(NumPy):
    def empty(self, like: Any, shape: tuple[int, ...], dtype: str | None) -> Any:
        with like.device:
            return super().empty(like, shape, dtype)

    def stream(self, array: Any) -> int:
        with array.device:
            return int(self.module.cuda.get_current_stream().ptr)

    def lower_median(self, rows: Sequence[Any]) -> Any:
        with rows[0].device:
            return super().lower_median(rows)

    def device(self, array: Any) -> str:
        return f"cuda:{array.device.id}"

    def contiguous(self, array: Any) -> Any:
        with array.device:
            return super().contiguous(array)

    def nan(self, like: Any, shape: tuple[int, ...]) -> Any:
        with like.device:
            return super().nan(like, shape)

    def nonfinite(self, array: Any) -> int:
        with array.device:
            return super().nonfinite(array)


class Jax(ArrayApi):
    # A fresh array, which nothing has seen yet, is written to before it is handed out.
    writable = False

    def __init__(self, module: Any) -> None:
        super().__init__(module.numpy)

    def empty(self, like: Any, shape: tuple[int, ...], dtype: str | None) -> Any:
        return super().empty(like, shape, dtype).block_until_ready()

    def order(self, array: Any) -> Order | None:
        return plain_order(array.ndim)


class Torch:
    writable = True

    def __init__(self, module: Any) -> None:
        self.module = module

    def empty(self, like: Any, shape: tuple[int, ...], dtype: str | None) -> Any:
        torch = self.module
        return torch.empty(shape, dtype=getattr(torch, dtype) if dtype else like.dtype, device=like.device)

    def stream(self, array: Any) -> int:
        return self.module.cuda.current_stream(array.device).cuda_stream if array.is_cuda else 0

    def is_integer(self, array: Any) -> bool:
        return not (array.dtype.is_floating_point or array.dtype.is_complex)

    def lower_median(self, rows: Sequence[Any]) -> Any:
        torch = self.module
        return torch.sort(torch.stack(list(rows)), dim=0).values[(len(rows) - 1) // 2]

    def assign(self, out: Any, value: Any) -> None:
        with self.module.no_grad():
            out.copy_(value)

    def written(self, out: Any) -> None:
        # So that a backward pass which needs what was there before says so.
        increment = getattr(self.module.autograd.graph, "increment_version", None)
        if increment is None:  # PyTorch 1; onto itself nothing is copied
            self.assign(out, out)
        else:
            increment(out)

    def device(self, array: Any) -> str:
        return str(array.device)

    def is_dense(self, array: Any) -> bool:
        return bool(array.layout is self.module.strided)

    def order(self, array: Any) -> Order | None:
        return None if array.is_neg() else order_of(array.shape, array.stride())

    def permute(self, array: Any, order: Order) -> Any:
        return array.detach().permute(order)

    def contiguous(self, array: Any) -> Any:
        return array.detach().clone(memory_format=self.module.contiguous_format).resolve_neg()

    def nan(self, like: Any, shape: tuple[int, ...]) -> Any:
        return self.module.full(shape, float("nan"), dtype=like.dtype, device=like.device)

    def float64(self, array: Any) -> Any:
        return array.detach().double()

    def nonfinite(self, array: Any) -> int:
        return int((~self.module.isfinite(array)).sum())


def _native(dtype: Any) -> Any:
    return dtype if dtype.isnative else dtype.newbyteorder("=")


class _Python:
    """Of Python's own numbers, which are in array.array."""

    def stream(self, array: Any) -> int:
        return 0

    def empty(self, like: Any, shape: tuple[int, ...], dtype: str | None) -> Any:
        return like


PYTHON: Any = _Python()

_LIBRARIES: dict[str, Callable[[Any], Library]] = {"numpy": NumPy, "torch": Torch, "cupy": CuPy, "jax": Jax}
_known: dict[type, Library] = {}


def library_of(array: Any, place: str) -> Library:
    """The library that the array is of. @raises TypeError: it is none."""
    known = _known.get(type(array))
    if known is None:
        known = _known[type(array)] = _find_library(array, place)
    return known


def _find_library(array: Any, place: str) -> Library:
    if hasattr(array, "dtype") and hasattr(array, "shape"):
        for base in type(array).__mro__:
            name = base.__module__.partition(".")[0].replace("jaxlib", "jax")
            if name in _LIBRARIES:
                return _LIBRARIES[name](sys.modules[name])
        if hasattr(array, "__array_namespace__") and hasattr(array, "__dlpack__"):
            return ArrayApi(array.__array_namespace__())
    raise TypeError(
        f"{place}: {type(array).__name__} is no array; needs one of NumPy, PyTorch, CuPy, JAX, or another library with "
        "DLPack and the array API"
    )


def check_writable(array: Any, place: str) -> None:
    if not library_of(array, place).writable:
        raise ValueError(f"{place} is read-only; pass an array that can be written to")
