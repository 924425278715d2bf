# SPDX-License-Identifier: Apache-2.0
"""Robust collectives over torch.distributed, and a communication hook for DistributedDataParallel: see bragg.torch."""

from __future__ import annotations

import dataclasses
import datetime
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future

from ._aggregate import _as_scope_says, _check_finite, _numbers, _rule_text
from ._arrays import library_of
from ._report import AggregationError, Report
from ._sharded import reduce, reduction_of
from .rules import Pipeline, Rule

_GradBucket: Any = getattr(dist, "GradBucket")  # which its types do not export
RuleLike: TypeAlias = "str | Rule | Pipeline | Callable[[int], str | Rule | Pipeline]"


class _Gloo:
    """The collectives of a process group that moves tensors of the CPU."""

    def __init__(self, group: Any, replicas: int = 1) -> None:
        if not dist.is_initialized():
            raise RuntimeError("torch.distributed has no process group; call init_process_group first")
        if dist.get_backend(group) == "nccl":
            raise ValueError(
                "group: NCCL's, which moves no tensors of the CPU; needs one of gloo: "
                "torch.distributed.new_group(backend='gloo')"
            )
        self.group = group
        self.is_direct = replicas > 1  # in a gather ranks pass on what others sent
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("group: this process is not in it; only its members call this")

    def all_to_all(
        self, send: memoryview, send_bytes: Sequence[int], receive: memoryview, receive_bytes: Sequence[int]
    ) -> None:
        dist.all_to_all_single(_bytes(receive), _bytes(send), list(receive_bytes), list(send_bytes), group=self.group)

    def all_gather(self, send: memoryview, receive: memoryview, receive_bytes: Sequence[int]) -> None:
        if sum(receive_bytes) == 0:
            return  # older versions of gloo divide by it
        mine, all_of_them = _bytes(send), _bytes(receive)
        if len(set(receive_bytes)) == 1 and not self.is_direct:
            dist.all_gather(list(all_of_them.chunk(self.size)), mine, group=self.group)
            return
        # From each rank straight; gloo gathers only what is of one size. As many bytes are sent.
        dist.all_to_all_single(
            all_of_them, mine.repeat(self.size), list(receive_bytes), [len(mine)] * self.size, group=self.group
        )


def _bytes(view: memoryview) -> Tensor:
    return torch.frombuffer(view, dtype=torch.uint8) if len(view) > 0 else torch.empty(0, dtype=torch.uint8)


def _text_of(rule: RuleLike, n: int) -> str:
    return _rule_text(rule(n) if callable(rule) else rule)


def _listed(tensors: Tensor | Sequence[Tensor], argument: str) -> list[Tensor]:
    listed = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    for i, tensor in enumerate(listed):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{argument}[{i}]: {type(tensor).__name__}; needs a tensor")
        _check_place(tensor, f"{argument}[{i}]")
    return [tensor.detach() for tensor in listed]


def _check_place(tensor: Tensor, place: str) -> None:
    if tensor.layout is not torch.strided:
        raise TypeError(
            f"{place}: a tensor of layout {tensor.layout}; needs a dense one: sparse ones are not aggregated"
        )
    if tensor.device.type != "cpu":
        raise ValueError(
            f"{place}: on {tensor.device}; ranks aggregate together on the CPU alone, for now: pass a copy there"
        )


def _contiguous(tensors: Iterable[Tensor], dtype: torch.dtype | None = None) -> list[Tensor]:
    return [tensor.to(dtype or tensor.dtype).contiguous().resolve_neg() for tensor in tensors]


def all_reduce(
    tensors: Tensor | Sequence[Tensor],
    rule: RuleLike,
    group: Any = None,
    *,
    base: Tensor | Sequence[Tensor] | None = None,
    weights: Iterable[float] | None = None,
    scope: Literal["whole", "per_tensor"] = "whole",
    max_weight_share: float = 0,
    wire_dtype: torch.dtype | None = None,
    replicas: int = 1,
    allow_nonfinite: bool = False,
    threads: int = 0,
) -> Report | tuple[Report, ...]:
    """Aggregates the tensors of all ranks of a process group, each rank's a row, in place, and returns the report.

    The result has the bits that `bragg.aggregate` makes of the rows in one process, and is the same on all ranks, as
    are the report and the exceptions. Collective: all ranks pass tensors of the same sizes and dtypes, and the same
    arguments.

    Args:
        tensors: This rank's row: a tensor on the CPU, or a list of them.
        rule: As in `bragg.aggregate`, or a function that makes it of the number of ranks.
        group: A process group that moves tensors of the CPU, such as gloo's; default: the default group.
        base: A row that distances and clipping are about, the same on all ranks.
        weights: One for each rank, the same on all ranks.
        scope, max_weight_share, allow_nonfinite, threads: As in `bragg.aggregate`.
        wire_dtype: The rows are rounded to it before they are sent and judged, and so is the result.
        replicas: So many ranks compute each slice, and all compare what they found: up to replicas − 1 ranks that
            compute falsely give nobody a wrong result. They can stop every run.

    Raises:
        AggregationError: The data defeats the rule; on all ranks. The tensors are as they were, unless the status is
            "nonfinite_result".
        ValueError, TypeError: A bad argument; on the other ranks a ValueError that names the rank.
        RuntimeError: The ranks were given different arguments, or other versions of bragg, or compute different bits;
            or a rank did not come before the group's timeout.
    """
    transport = _Gloo(group, replicas)
    reduction = reduction_of(transport)
    targets: list[Tensor] = []
    rows: list[Tensor] = []

    def begin() -> None:
        text = _text_of(rule, transport.size)
        targets.extend(_listed(tensors, "tensors"))
        rows.extend(_contiguous(targets, wire_dtype))
        based = None if base is None else _contiguous(_listed(base, "base"), wire_dtype)
        reduction.plan(text, rows, "keep", str(scope), float(max_weight_share), threads, None, replicas)
        reduction.begin(rows, rows, based, _numbers(weights))

    reports = reduce(reduction, transport, begin)
    _write(targets, rows)
    if not allow_nonfinite:
        _check_finite(reports, {})
    return _as_scope_says(reports, scope)


def _write(targets: list[Tensor], rows: list[Tensor]) -> None:
    for target, row in zip(targets, rows):
        if target.data_ptr() == row.data_ptr():
            library_of(target, "tensors").written(target)
        else:
            target.copy_(row)


def reduce_scatter(
    output: Tensor,
    input: Tensor,
    rule: RuleLike,
    group: Any = None,
    *,
    weights: Iterable[float] | None = None,
    max_weight_share: float = 0,
    wire_dtype: torch.dtype | None = None,
    allow_nonfinite: bool = False,
    threads: int = 0,
) -> Report:
    """Aggregates the inputs of all ranks, each rank's a row, into shards: rank r has the r-th part in `output`.

    `input` has as many elements as the outputs of all ranks, which are of one size. Rows are judged whole. The bits are
    those that `bragg.aggregate` makes of rows that are lists of these parts. Otherwise as `all_reduce`; where there is
    no result, `output` is as it was.
    """
    scatter = _Scatter(_Gloo(group))
    report = scatter.run(
        output, input, rule, weights=weights, max_weight_share=max_weight_share, wire_dtype=wire_dtype, threads=threads
    )
    if not allow_nonfinite:
        _check_finite((report,), {})
    return report


class _Scatter:
    """A plan of `reduce_scatter`, which is kept for inputs of one size and dtype."""

    def __init__(self, transport: _Gloo) -> None:
        self._transport = transport
        self._reduction = reduction_of(transport)
        self._is_for: tuple[int, torch.dtype] | None = None

    def run(
        self,
        output: Tensor,
        input: Tensor,
        rule: RuleLike,
        *,
        weights: Iterable[float] | None = None,
        max_weight_share: float = 0,
        wire_dtype: torch.dtype | None = None,
        threads: int = 0,
    ) -> Report:
        n, rank = self._transport.size, self._transport.rank
        targets: list[Tensor] = []
        own: list[Tensor] = []

        def begin() -> None:
            text = _text_of(rule, n)
            targets.extend(_listed(output, "output"))
            (whole,) = _contiguous(_listed(input, "input"), wire_dtype)
            if whole.numel() != n * output.numel():
                raise ValueError(
                    f"input: {whole.numel()} elements; needs {n} times as many as output, which has {output.numel()}"
                )
            if input.dtype != output.dtype:
                raise ValueError(f"output: dtype {output.dtype}; needs {input.dtype}, as input has")
            row = list(whole.view(n, output.numel()).unbind())
            own.append(torch.empty_like(row[rank]))
            out = [own[0] if r == rank else row[r][:0] for r in range(n)]
            if self._is_for != (whole.numel(), whole.dtype):
                self._is_for = None
                owners = list(range(n))
                self._reduction.plan(text, row, "keep", "whole", float(max_weight_share), threads, owners, 1)
                self._is_for = (whole.numel(), whole.dtype)
            self._reduction.begin(row, out, None, _numbers(weights))

        (report,) = _summed(reduce(self._reduction, self._transport, begin), self._transport)
        targets[0].copy_(own[0].view(targets[0].shape))
        return report


def _summed(reports: tuple[Report, ...], transport: _Gloo) -> tuple[Report, ...]:
    """With the values of all ranks' parts of the result that are not finite."""
    total = torch.tensor([report.nonfinite_result or 0 for report in reports])
    dist.all_reduce(total, group=transport.group)
    return tuple(dataclasses.replace(report, nonfinite_result=count) for report, count in zip(reports, total.tolist()))


# DistributedDataParallel -----------------------------------------------------------------------------------


def ddp_hook(
    rule: RuleLike,
    *,
    scope: Literal["bucket", "whole"] = "bucket",
    wire_dtype: torch.dtype | None = None,
    momentum: float | None = None,
    on_failure: Literal["nan", "zero"] = "nan",
    group: Any = None,
    timeout: datetime.timedelta | None = None,
    replicas: int = 1,
    threads: int = 0,
) -> tuple[DdpState, Callable[[DdpState, Any], Future[Tensor]]]:
    """A communication hook that puts a rule in the place of the mean of gradients: `(state, hook)`.

    >>> state, hook = bragg.torch.ddp_hook("nnm(f=2) | trimmed_mean(f=2)", momentum=0.9)
    >>> ddp.register_comm_hook(state, hook)
    >>> loss.backward()
    >>> state.check()  # raises AggregationError where the data defeats the rule; the gradients are then NaN on all ranks

    Collective: all ranks call it, with the same arguments. Of models on the CPU. Bad data never raises in the backward
    pass: DistributedDataParallel would be unusable from then on.

    Args:
        rule: As in `bragg.aggregate`, or a function that makes it of the number of ranks.
        scope: "bucket": ranks are judged in each bucket of gradients by itself, while the backward pass goes on.
            "whole": in all of them together, when it is done.
        wire_dtype: Rows are rounded to it before they are sent and judged, and so is the result.
        momentum: β: each rank sends m ← βm + (1−β)g in the place of its gradient g (Karimireddy et al. 2021), which
            attacks that last take. The optimizer is then to have none. A gradient with NaN or infinity is sent as it is,
            and m stays.
        on_failure: What all ranks get for a gradient where the data defeats the rule or the result is not finite:
            "nan", so that a GradScaler skips the step, or "zero".
        group: DistributedDataParallel's `process_group`, if it is given one. The hook makes a gloo group of its own.
        timeout: Of that group: how long ranks wait for one that does not come.
        replicas: As in `all_reduce`.
        threads: As in `bragg.aggregate`.

    Raises:
        ValueError, TypeError: A bad argument, or the rule needs more ranks.
        RuntimeError: The ranks were given different arguments.
    """
    state = DdpState(rule, scope, wire_dtype, momentum, on_failure, group, timeout, replicas, threads)

    def hook(state: DdpState, bucket: Any) -> Future[Tensor]:
        return state._add(bucket)

    # DistributedDataParallel compares them with the types themselves.
    hook.__annotations__ = {"state": DdpState, "bucket": _GradBucket, "return": Future[Tensor]}
    return state, hook


def _check_options(on_failure: str, momentum: float | None) -> None:
    if on_failure not in ("nan", "zero"):
        raise ValueError(f"on_failure = {on_failure!r}; needs 'nan' or 'zero'")
    if momentum is not None and not 0 <= momentum < 1:
        raise ValueError(f"momentum = {momentum!r}; needs a number in [0, 1)")


class _Bucket:
    """What one call of the hook is given, and what is to be made of it."""

    def __init__(self, bucket: Any) -> None:
        self.index: int = bucket.index()
        self.is_last: bool = bucket.is_last()
        self.buffer: Tensor = bucket.buffer()
        self.gradients: list[Tensor] = bucket.gradients()
        self.parameters: list[Tensor] = bucket.parameters()
        self.future: Future[Tensor] = Future()


class _Plan:
    """A plan of one or more buckets; it is for these parameters in this order."""

    def __init__(self, reduction: Any, parameters: list[Tensor], dtypes: list[torch.dtype]) -> None:
        self.reduction = reduction
        self.parameters = parameters
        self.dtypes = dtypes

    def is_for(self, parameters: list[Tensor], dtypes: list[torch.dtype]) -> bool:
        return (
            self.dtypes == dtypes
            and len(self.parameters) == len(parameters)
            and all(a is b for a, b in zip(self.parameters, parameters))
        )


class _Outcomes:
    """What a backward pass must not raise."""

    _failure: Exception | None = None  # since the last check
    _broken: Exception | None = None  # the ranks have lost each other

    def _need_ranks(self) -> None:
        if self._broken is not None:
            raise RuntimeError(f"bragg: the ranks do not work together any more: {self._broken}") from self._broken

    def _raise_failure(self) -> None:
        self._need_ranks()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


class DdpState(_Outcomes):
    """Of `ddp_hook`: what became of the last backward pass, and worker momentum."""

    def __init__(
        self,
        rule: RuleLike,
        scope: str,
        wire_dtype: torch.dtype | None,
        momentum: float | None,
        on_failure: str,
        group: Any,
        timeout: datetime.timedelta | None,
        replicas: int,
        threads: int,
    ) -> None:
        if scope not in ("bucket", "whole"):
            raise ValueError(f"scope = {scope!r}; needs 'bucket' or 'whole'")
        _check_options(on_failure, momentum)
        if not dist.is_initialized():
            raise RuntimeError("torch.distributed has no process group; call init_process_group first")
        options: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        if group is not None:
            options |= {"ranks": dist.get_process_group_ranks(group), "use_local_synchronization": True}
        own = dist.new_group(backend="gloo", **options)
        self._transport = _Gloo(own, replicas)
        self._replicas = replicas
        self._rule = rule
        self._whole = scope == "whole"
        self._wire_dtype = wire_dtype
        self._beta = momentum
        self._on_failure = on_failure
        self._threads = threads
        self._momenta: dict[Tensor, Tensor] = {}
        self._plans: dict[int, _Plan] = {}
        self._pending: list[_Bucket] = []  # whole: those before the last
        self._reports: list[Report] = []
        # Tells mistakes in the arguments, and that ranks were given different ones, before any step.
        all_reduce(
            torch.zeros(1, dtype=wire_dtype), rule, own, replicas=replicas, allow_nonfinite=True, threads=threads
        )
        self._queue: queue.SimpleQueue[_Bucket | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(weakref.ref(self), self._queue), daemon=True, name="bragg")
        self._thread.start()
        weakref.finalize(self, self._queue.put, None)

    def check(self) -> None:
        """Of the backward passes since the last check.

        @raises AggregationError: the data defeated the rule, or the result was not finite; on all ranks. The gradients
        are then NaN, or zero. RuntimeError or another: the ranks do not work together any more.
        """
        self._raise_failure()

    @property
    def reports(self) -> tuple[Report, ...]:
        """Of the last backward pass: one for each bucket, in order, or one for all where scope is "whole"."""
        return tuple(self._reports)

    def state_dict(self, module: torch.nn.Module) -> dict[str, Any]:
        """Worker momenta of this rank, by the names of the module's parameters. Ranks differ: each saves its own."""
        named = {name: self._momenta.get(parameter) for name, parameter in module.named_parameters()}
        return {"momentum": {name: momentum.clone() for name, momentum in named.items() if momentum is not None}}

    def load_state_dict(self, state: dict[str, Any], module: torch.nn.Module) -> None:
        """What `state_dict` returned, of a module with the same parameters."""
        parameters: dict[str, Tensor] = dict(module.named_parameters())
        loaded: dict[Tensor, Tensor] = {}
        for name, momentum in state["momentum"].items():
            if name not in parameters or parameters[name].shape != momentum.shape:
                raise ValueError(f"momentum of {name!r}: the module has no parameter of this name and shape")
            loaded[parameters[name]] = momentum.detach().to(torch.float32, copy=True)
        self._momenta = loaded

    def _add(self, bucket: Any) -> Future[Tensor]:
        """On the thread of the backward pass."""
        if not isinstance(bucket, _GradBucket):
            raise TypeError(
                f"the hook was given {type(bucket).__name__}; needs a GradBucket: compiled autograd's own reducer "
                "(torch._dynamo.config.optimize_ddp = 'python_reducer') has none"
            )
        self._need_ranks()
        _check_place(bucket.buffer(), f"bucket {bucket.index()}")
        added = _Bucket(bucket)
        self._queue.put(added)
        return added.future

    # On the thread of this state, the only one that uses the group: ranks issue collectives in the order of buckets.

    def _take(self, bucket: _Bucket) -> None:
        if bucket.index == 0:
            self._reports = []
            self._complete(self._pending)  # of a pass that did not end
            self._pending = []
        if self._whole and not bucket.is_last:
            self._pending.append(bucket)
            return
        buckets = [*self._pending, bucket]
        self._pending = []
        try:
            with torch.no_grad():
                self._reduce(buckets)
        except AggregationError as error:
            self._failure = self._failure or error.with_traceback(None)  # whose frames hold gradients
            self._fill(buckets, float("nan") if self._on_failure == "nan" else 0)
        except Exception as error:  # which the others may not know of
            self._broken = error.with_traceback(None)
            self._fill(buckets, float("nan"))
        self._complete(buckets)

    def _reduce(self, buckets: list[_Bucket]) -> None:
        if self._broken is not None:
            raise self._broken
        rows = [self._row(bucket) for bucket in buckets]
        dtypes = [row.dtype for row in rows]
        parameters = [parameter for bucket in buckets for parameter in bucket.parameters]
        former = self._plans.get(buckets[0].index)
        is_new = former is None or not former.is_for(parameters, dtypes)  # as where buckets were rebuilt
        plan = _Plan(reduction_of(self._transport), parameters, dtypes) if former is None or is_new else former
        reduction = plan.reduction

        def begin() -> None:
            if is_new:
                text = _text_of(self._rule, self._transport.size)
                reduction.plan(text, rows, self._on_failure, "whole", 0.0, self._threads, None, self._replicas)
                self._plans[buckets[0].index] = plan
            reduction.begin(rows, rows, None, None)

        try:
            reports = reduce(reduction, self._transport, begin)
        except AggregationError as error:
            self._reports += error.reports
            raise
        self._reports += reports
        _check_finite(reports, {})
        _write([bucket.buffer for bucket in buckets], rows)

    def _row(self, bucket: _Bucket) -> Tensor:
        """What is sent of the bucket: its buffer itself, where nothing is made of it before."""
        wire = self._wire_dtype or bucket.buffer.dtype
        if self._beta is None:
            return bucket.buffer.to(wire)
        row = bucket.buffer.to(wire, copy=True)
        start = bucket.buffer.storage_offset()
        for parameter, gradient in zip(bucket.parameters, bucket.gradients):
            if not gradient.isfinite().all():
                continue
            momentum = self._momenta.get(parameter)
            if momentum is None:
                momentum = self._momenta[parameter] = torch.zeros_like(gradient, dtype=torch.float32)
            momentum.lerp_(gradient.to(torch.float32), 1 - self._beta)
            first = gradient.storage_offset() - start
            torch.as_strided(row, gradient.size(), gradient.stride(), first).copy_(momentum)
        return row

    @staticmethod
    def _fill(buckets: list[_Bucket], value: float) -> None:
        for bucket in buckets:
            bucket.buffer.fill_(value)

    @staticmethod
    def _complete(buckets: list[_Bucket]) -> None:
        for bucket in buckets:
            bucket.future.set_result(bucket.buffer)


# fully_shard -----------------------------------------------------------------------------------------------


def use_in_fsdp(
    model: torch.nn.Module,
    rule: RuleLike,
    *,
    wire_dtype: torch.dtype | None = None,
    momentum: float | None = None,
    on_failure: Literal["nan", "zero"] = "nan",
    threads: int = 0,
) -> FsdpState:
    """Puts a rule in the place of the mean of gradients in a model of `torch.distributed.fsdp.fully_shard`.

    >>> state = bragg.torch.use_in_fsdp(model, "nnm(f=2) | trimmed_mean(f=2)")
    >>> loss.backward()
    >>> state.check()  # raises AggregationError where the data defeats the rule; the gradients are then NaN on all ranks

    Each module that fully_shard was applied to reduces the gradients of its parameters together: ranks are judged in
    these by themselves, and each gets its shard of what the rule makes of them. Nothing is gathered. Modules reduce
    with the rule from then on, whatever divide factor they had. Collective: all ranks call it, with the same arguments.
    Of models on the CPU, each of whose parameters is sharded over a mesh of one dimension. Bad data never raises in
    the backward pass.

    Args:
        rule: As in `bragg.aggregate`, or a function that makes it of the number of ranks.
        wire_dtype: Rows are rounded to it before they are sent and judged, and so is the result; MixedPrecisionPolicy's
            `reduce_dtype` is what they are in before.
        momentum: β, as in `ddp_hook`: each rank sends m ← βm + (1−β)g in the place of its gradients g of a module. It
            has a float32 for each parameter of the whole model, on every rank. Gradients of a module that hold NaN or
            infinity are sent as they are, and m stays.
        on_failure: What all ranks get for the gradients of a module where the data defeats the rule or the result is
            not finite: "nan" or "zero".
        threads: As in `bragg.aggregate`.

    Raises:
        ValueError, TypeError: A bad argument, or the rule needs more ranks.
        RuntimeError: The ranks were given different arguments.
    """
    return FsdpState(model, rule, wire_dtype, momentum, on_failure, threads)


class FsdpState(_Outcomes):
    """Of `use_in_fsdp`: what became of the last reductions, and worker momentum."""

    def __init__(
        self,
        model: torch.nn.Module,
        rule: RuleLike,
        wire_dtype: torch.dtype | None,
        momentum: float | None,
        on_failure: str,
        threads: int,
    ) -> None:
        _check_options(on_failure, momentum)
        modules, groups = _fsdp_modules(model)
        self._rule = rule
        self._wire_dtype = wire_dtype
        self._beta = momentum
        self._fill = float("nan") if on_failure == "nan" else 0.0
        self._threads = threads
        self._reports: dict[str, Report] = {}
        # Tells mistakes in the arguments, and that ranks were given different ones, before any step.
        for group in groups:
            all_reduce(torch.zeros(1, dtype=wire_dtype), rule, group, allow_nonfinite=True, threads=threads)
        self._momenta: dict[str, Tensor] = {}
        self._modules = list(modules)
        for name, module in modules.items():
            module.set_custom_reduce_scatter(_ReduceScatter(self, name))
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)

    def check(self) -> None:
        """Of the backward passes since the last check.

        @raises AggregationError: the data defeated the rule, or the result was not finite; on all ranks. The gradients
        of that module are then NaN, or zero. RuntimeError: the ranks do not work together any more; gradients are NaN.
        """
        self._raise_failure()

    @property
    def reports(self) -> dict[str, Report]:
        """Of each module's last reduction, by the module's name in the model."""
        return dict(self._reports)

    def state_dict(self) -> dict[str, Any]:
        """Worker momenta of this rank, by the names of modules. Ranks differ: each saves its own."""
        return {"momentum": {name: momentum.clone() for name, momentum in self._momenta.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` returned, of a model that was cut in the same way over as many ranks."""
        for name in state["momentum"]:
            if name not in self._modules:
                raise ValueError(f"momentum of {name!r}: the model has no module of this name that is sharded")
        self._momenta = {name: m.detach().to(torch.float32, copy=True) for name, m in state["momentum"].items()}

    def _row(self, name: str, input: Tensor) -> Tensor:
        """What is sent of a module's gradients."""
        if self._beta is None or not input.isfinite().all():
            return input
        momentum = self._momenta.get(name)
        if momentum is None:
            momentum = self._momenta[name] = torch.zeros_like(input, dtype=torch.float32)
        if momentum.numel() != input.numel():
            raise ValueError(
                f"module {name!r}: gradients of {input.numel()} elements, momentum of {momentum.numel()}: it is another "
                "model's, or ranks use other parameters than before (set_reduce_scatter_unused_params)"
            )
        return momentum.lerp_(input.to(torch.float32), 1 - self._beta).to(input.dtype)

    def _reduce(self, name: str, scatter: _Scatter, output: Tensor, input: Tensor) -> None:
        """Never raises: fully_shard could not go on."""
        try:
            if self._broken is not None:
                raise self._broken
            with torch.no_grad():
                row = self._row(name, input)
                report = scatter.run(output, row, self._rule, wire_dtype=self._wire_dtype, threads=self._threads)
            self._reports[name] = report
            _check_finite((report,), {})
        except AggregationError as error:
            self._reports[name] = error.reports[0]
            self._failure = self._failure or error.with_traceback(None)  # whose frames hold gradients
            output.fill_(self._fill)
        except Exception as error:  # which the others may not know of
            self._broken = error.with_traceback(None)
            output.fill_(float("nan"))


class _ReduceScatter:
    """What a module of fully_shard reduces gradients with: a torch.distributed.fsdp ReduceScatter."""

    def __init__(self, state: FsdpState, name: str) -> None:
        self._state = state
        self._name = name
        self._scatter: _Scatter | None = None

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)

    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: Any, op: Any, async_op: bool = False
    ) -> None:
        if op != dist.ReduceOp.SUM:
            raise RuntimeError(
                f"bragg: fully_shard asks for {op}; set_force_sum_reduction_for_comms(False) or another divide factor "
                "was called after use_in_fsdp"
            )
        if self._scatter is None:
            self._scatter = _Scatter(_Gloo(group))
        self._state._reduce(self._name, self._scatter, output_tensor, input_tensor)


def _fsdp_modules(model: torch.nn.Module) -> tuple[dict[str, Any], list[Any]]:
    """What fully_shard was applied to, by name, and the groups of its meshes.

    @raises ValueError: the gradients are not a row of each rank, or not on the CPU.
    """
    import torch.distributed.fsdp as fsdp  # takes long

    FSDPModule: Any = getattr(fsdp, "FSDPModule", None)
    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise RuntimeError(
            f"torch {torch.__version__}: its fully_shard takes no other reduce-scatter; needs a newer one, such as 2.15"
        )
    from torch.distributed.tensor import DTensor, Shard

    modules = {name: module for name, module in model.named_modules() if isinstance(module, FSDPModule)}
    if not modules:
        raise ValueError("model: fully_shard was applied to none of its modules")
    groups: dict[Any, None] = {}
    for name, parameter in model.named_parameters():
        if not isinstance(parameter, DTensor):
            continue  # fully_shard was told to ignore it
        mesh = parameter.device_mesh
        for device in (mesh.device_type, parameter.device.type):  # they differ where parameters are offloaded
            if device != "cpu":
                raise ValueError(f"model: {name} is on {device}; ranks aggregate together on the CPU alone, for now")
        if len(parameter.placements) != 1 or not isinstance(parameter.placements[0], Shard):
            raise ValueError(
                f"model: {name} is placed as {parameter.placements}; needs parameters that are sharded over a mesh of "
                "one dimension: ranks that replicate a shard, or hold parts of one gradient, are not a row each"
            )
        groups[mesh.get_group()] = None
    return modules, list(groups)


def _work(state: weakref.ref[DdpState], buckets: queue.SimpleQueue[_Bucket | None]) -> None:
    """Until the state is gone."""
    while (bucket := buckets.get()) is not None:
        alive = state()
        if alive is None:
            return
        alive._take(bucket)
        del alive, bucket
