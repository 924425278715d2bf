# SPDX-License-Identifier: Apache-2.0
"""Aggregation as operators of PyTorch, which torch.compile keeps in its graph. `import bragg.torch` registers them.

`torch.ops.bragg.aggregate(updates, rule)` takes a tensor of shape (n, …), `torch.ops.bragg.aggregate_list(updates, rule)`
n tensors of one shape; `aggregate` and `aggregate_list` of this module are the same. The rule is text. Both take
`allow_nonfinite`, as `bragg.aggregate` does. The result is a
fresh tensor, of the dtype and on the device of the updates, which are not written to.

Every call begins anew, as `bragg.aggregate` does: `centered_clipping` starts at the origin and `bucketing` draws its
first permutation each time. What is to go on from round to round needs a `bragg.Plan`. A call waits for its result, and
raises `bragg.AggregationError` where the data defeats the rule; it cannot be captured in a CUDA graph, and is left out
of those that torch.compile makes.

The operators are not differentiable: a backward pass through one raises a RuntimeError. Needs PyTorch 2.6 or newer.

`all_reduce`, `reduce_scatter`, `ddp_hook` and `use_in_fsdp` aggregate what the ranks of a torch.distributed job have, one
row each. They withstand bad *data* of ranks that run this software; ranks that compute falsely only where `replicas`
compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from . import _bragg
from ._aggregate import aggregate as _aggregate

__all__ = ["aggregate", "aggregate_list"]

if torch.distributed.is_available():
    from ._torch_distributed import DdpState, FsdpState, all_reduce, ddp_hook, reduce_scatter, use_in_fsdp

    __all__ += ["DdpState", "FsdpState", "all_reduce", "ddp_hook", "reduce_scatter", "use_in_fsdp"]

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
