# SPDX-License-Identifier: Apache-2.0
"""Operators of PyTorch that aggregate: see bragg.torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from . import _bragg
from ._aggregate import aggregate as _aggregate

_TAGS = (torch.Tag.cudagraph_unsafe,)


@torch.library.custom_op("bragg::aggregate", mutates_args=(), tags=_TAGS)
def aggregate(updates: Tensor, rule: str, allow_nonfinite: bool = False) -> Tensor:
    return _aggregate(updates, rule, allow_nonfinite=allow_nonfinite)  # type: ignore[no-any-return]


@torch.library.custom_op("bragg::aggregate_list", mutates_args=(), tags=_TAGS)
def aggregate_list(updates: Sequence[Tensor], rule: str, allow_nonfinite: bool = False) -> Tensor:
    return _aggregate(updates, rule, allow_nonfinite=allow_nonfinite)  # type: ignore[no-any-return]


# The fakes know no values and perhaps no n: they refuse what can be told from the text and the number of axes, so that
# it is told while compiling. The rest is for the run.


@aggregate.register_fake
def _(updates: Tensor, rule: str, allow_nonfinite: bool = False) -> Tensor:
    _bragg.normalized(rule)
    if updates.dim() == 0:
        raise ValueError("updates: has no axes; needs shape (n, …), the first axis counting the rows")
    return updates.new_empty(updates.shape[1:])


@aggregate_list.register_fake
def _(updates: Sequence[Tensor], rule: str, allow_nonfinite: bool = False) -> Tensor:
    _bragg.normalized(rule)
    if not updates:
        raise ValueError("updates: n = 0 rows; needs n ≥ 1")
    return updates[0].new_empty(updates[0].shape)


def _backward(context: Any, gradient: Tensor) -> NoReturn:
    raise RuntimeError(
        "bragg's operators are not differentiable; aggregate what needs no gradient: updates.detach(), or within "
        "torch.no_grad()"
    )


aggregate.register_autograd(_backward)
aggregate_list.register_autograd(_backward)
