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

The operators are not differentiable: a backward pass through one raises a RuntimeError. They need PyTorch 2.6 or newer.

`all_reduce`, `reduce_scatter`, `ddp_hook` and `use_in_fsdp` aggregate what the ranks of a torch.distributed job have, one
row each. They withstand bad *data* of ranks that run this software; ranks that compute falsely only where `replicas`
compare. They need PyTorch 1.13 or newer, `ddp_hook(group=…)` 2.1, and `use_in_fsdp` one whose fully_shard takes another
reduce-scatter, such as 2.15.
"""

from __future__ import annotations

import torch

__all__: list[str] = []

# Each where this PyTorch has what it needs.
if hasattr(torch.Tag, "cudagraph_unsafe"):
    from ._torch_op import aggregate, aggregate_list

    __all__ += ["aggregate", "aggregate_list"]
if torch.distributed.is_available():
    from ._torch_distributed import DdpState, FsdpState, all_reduce, ddp_hook, reduce_scatter, use_in_fsdp

    __all__ += ["DdpState", "FsdpState", "all_reduce", "ddp_hook", "reduce_scatter", "use_in_fsdp"]
