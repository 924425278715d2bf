# SPDX-License-Identifier: Apache-2.0
"""bragg.torch over torch.distributed: five processes of gloo, which run the functions of this file."""

import datetime
import json
import math
import multiprocessing
import multiprocessing.connection
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import bragg
import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("torch without gloo", allow_module_level=True)

import bragg.torch

try:
    from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
except ImportError:
    fully_shard = None
needs_fully_shard = pytest.mark.skipif(fully_shard is None, reason="torch without fully_shard")

RANKS = 5
DIGITS = Path(__file__).parents[2] / "examples/data/digits.csv"
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


class Ranks:
    """Processes that run the same function at the same time."""

    def __init__(self, directory):
        self.directory = directory
        self.start()

    def start(self):
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        store = f"file://{tempfile.mktemp(dir=self.directory)}"
        for rank in range(RANKS):
            ours, theirs = context.Pipe()
            self.pipes.append(ours)
            self.processes.append(context.Process(target=serve, args=(rank, theirs, store), daemon=True))
            self.processes[-1].start()

    def run(self, function, *arguments):
        """What each returns. Where one fails, the others may wait for it: all are started anew."""
        for pipe in self.pipes:
            pipe.send((function, arguments))
        results, failures = {}, []
        while len(results) < RANKS and not failures:
            ready = multiprocessing.connection.wait([p for p in self.pipes if p not in results], timeout=300)
            failures += [] if ready else [f"ranks hang; {len(results)} are through"]
            for pipe in ready:
                try:
                    error, results[pipe] = pipe.recv()
                except EOFError:
                    error = "is dead"
                failures += [f"rank {self.pipes.index(pipe)}: {error}"] if error else []
        if failures:
            self.kill()
            self.start()
        assert not failures, "\n".join(failures)
        return [results[pipe] for pipe in self.pipes]

    def end(self):
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join(60)  # importing and leaving torch takes long on a busy machine
        return self.kill()

    def kill(self):
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
        return codes


def serve(rank, pipe, store):
    torch.set_num_threads(1)
    dist._DEFAULT_FIRST_BUCKET_BYTES = 10000  # as bucket_cap_mb below
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=RANKS)
    while (job := pipe.recv()) is not None:
        function, arguments = job
        try:
            pipe.send((None, function(rank, *arguments)))
        except Exception:
            pipe.send((traceback.format_exc(), None))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    started = Ranks(tmp_path_factory.mktemp("gloo"))
    yield started
    assert started.end() == [0] * RANKS


def caught(function, *arguments, **options):
    """Kind, text and status of what it raises."""
    try:
        function(*arguments, **options)
    except Exception as error:
        return type(error).__name__, str(error), getattr(error, "status", None)
    return None


def rows_of(seed, dtype, *shape, hostile=True):
    """The same on all ranks."""
    rows = torch.from_numpy(np.random.default_rng(seed).standard_normal((RANKS, *shape))).to(dtype)
    if hostile:
        rows[1] = -1000
        rows[3].view(-1)[::3] = math.nan
    return rows


def bits(tensor):
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def is_same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


# all_reduce --------------------------------------------------------------------------------------


def reduce_many(rank, seed, rules, dtypes):
    for rule in rules:
        for dtype in dtypes:
            for size in (0, 1, 7, 20003, 5 * 8192):
                rows = rows_of(seed, dtype, size)
                mine = rows[rank].clone()
                expected, report = bragg.aggregate(rows, rule, return_report=True, threads=1)
                got = bragg.torch.all_reduce(mine, rule, threads=1)
                assert is_same(mine, expected), (rule, dtype, size)
                assert repr(got) == repr(report), (rule, dtype, size)


def test_bits_and_reports_are_those_of_one_process(ranks, rng):
    rules = ["median", "nnm(f=2) | trimmed_mean(f=2)", "mean(nonfinite=skip)", "geometric_median", "krum(f=1)"]
    ranks.run(reduce_many, int(rng.integers(2**32)), rules, DTYPES)


def reduce_lists(rank, seed):
    shapes = [(3, 50), (0,), (20000,), (4, 5, 6)]
    dtypes = [torch.float32, torch.float32, torch.bfloat16, torch.float64]
    rows = [rows_of(seed + t, dtype, *shape) for t, (shape, dtype) in enumerate(zip(shapes, dtypes))]
    base = [torch.full(shape, 0.5, dtype=dtype) for shape, dtype in zip(shapes, dtypes)]
    weights = [1.0, 2.0, 1.0, 1.0, 0.5]
    for options in (
        {},
        {"scope": "per_tensor"},
        {"weights": weights, "max_weight_share": 0.3},
        {"base": base},
    ):
        rule = "nnm(f=1) | centered_clipping(tau=20)" if "base" in options else "geometric_median"
        of_all = [[row[k].clone() for row in rows] for k in range(RANKS)]
        expected, reports = bragg.aggregate(of_all, rule, return_report=True, threads=1, **options)
        mine = of_all[rank]
        got = bragg.torch.all_reduce(mine, rule, threads=1, **options)
        assert all(map(is_same, mine, expected)), options
        assert repr(got) == repr(reports), options


def test_lists_of_tensors_with_every_option(ranks, rng):
    ranks.run(reduce_lists, int(rng.integers(2**31)))


def reduce_views(rank, seed):
    rows = rows_of(seed, torch.float32, 60, 70)
    expected = bragg.aggregate(rows, "median", threads=1)
    # Ranks differ in how their elements lie.
    wide = torch.zeros(60, 140)
    mine = [rows[rank].clone(), wide[:, ::2], rows[rank].t().contiguous().t(), rows[rank].neg()._neg_view()][rank % 4]
    mine.copy_(rows[rank])
    leaf = mine.requires_grad_()
    before = leaf._version
    bragg.torch.all_reduce(leaf, lambda n: bragg.TrimmedMean(f=n // 2), threads=1)
    assert torch.equal(leaf, expected) and leaf.requires_grad and leaf._version > before
    assert rank != 1 or not wide[:, 1::2].any()

    rounded = rows.to(torch.bfloat16)
    mine = rows[rank].clone()
    bragg.torch.all_reduce(mine, "krum(f=1)", wire_dtype=torch.bfloat16, threads=1)
    assert is_same(mine, bragg.aggregate(rounded, "krum(f=1)", threads=1).float())


def test_views_leaves_and_rounded_rows(ranks, rng):
    ranks.run(reduce_views, int(rng.integers(2**32)))


def reduce_in_a_subgroup(rank, seed):
    group = dist.new_group([1, 2, 4], backend="gloo")
    rows = rows_of(seed, torch.float32, 9000)[[1, 2, 4]]
    if rank not in (1, 2, 4):
        return caught(bragg.torch.all_reduce, rows[0], "median", group)[1]
    mine = rows[(1, 2, 4).index(rank)].clone()
    bragg.torch.all_reduce(mine, "median", group, threads=1)
    assert is_same(mine, bragg.aggregate(rows, "median", threads=1))
    return "group"


def test_a_group_of_some_ranks(ranks, rng):
    assert all("group" in text for text in ranks.run(reduce_in_a_subgroup, int(rng.integers(2**32))))


def defeat(rank):
    rows = torch.ones(RANKS, 10000)
    rows[:3] = math.nan
    mine = rows[rank].clone()
    kept = caught(bragg.torch.all_reduce, mine, "krum(f=1)", threads=1)
    assert is_same(mine, rows[rank])
    found = caught(bragg.torch.all_reduce, mine, "trimmed_mean(f=1)", threads=1)
    assert mine.isinf().all()
    bragg.torch.all_reduce(mine, "median", allow_nonfinite=True, threads=1)
    mine.fill_(rank)
    bragg.torch.all_reduce(mine, "median", threads=1)
    assert (mine == 2).all()
    return kept, found


def test_data_that_defeats_the_rule_is_an_error_on_all_ranks(ranks):
    results = ranks.run(defeat)
    assert len(set(results)) == 1
    (kind, text, status), (other, _, found) = results[0]
    assert (kind, status) == ("AggregationError", "too_many_nonfinite") and "3 of 5" in text
    assert (other, found) == ("AggregationError", "nonfinite_result")


def mistaken(rank):
    good = torch.ones(10)

    def fails(n):
        raise KeyError("no rule")

    rank_2 = [  # what rank 2 passes; the others pass good ones
        (torch.ones(10, dtype=torch.int32), "median"),
        ("text", "median"),
        (torch.ones(10).to_sparse(), "median"),
        (torch.ones(10, device="meta"), "median"),
        (good, "medain"),
        (good, fails),
        (good, "krum(f=2)"),
        (good, 3),
    ]
    found = [caught(bragg.torch.all_reduce, *(arguments if rank == 2 else (good, "median"))) for arguments in rank_2]
    unlike = [
        caught(bragg.torch.all_reduce, good, "median" if rank == 2 else "mean"),
        caught(bragg.torch.all_reduce, good[: 5 + 5 * (rank != 1)], "median"),
        caught(bragg.torch.all_reduce, good, "median", weights=[1, 1, 1, 1, 1 + (rank == 4)]),
    ]
    assert all(values == ("RuntimeError", values[1], None) and "given different" in values[1] for values in unlike)
    mine = torch.full((10,), float(rank))
    bragg.torch.all_reduce(mine, "median")
    assert (mine == 2).all()
    return found


def test_a_mistake_of_one_rank_is_told_to_all(ranks):
    kinds = [
        ("TypeError", "int32"),
        ("TypeError", "needs a tensor"),
        ("TypeError", "sparse"),
        ("ValueError", "on meta"),
        ("ParseError", "unknown rule"),
        ("KeyError", "no rule"),
        ("ValueError", "2f+3"),
        ("TypeError", "needs a pipeline"),
    ]
    for rank, found in enumerate(ranks.run(mistaken)):
        for (kind, text), (got, message, _) in zip(kinds, found, strict=True):
            assert text in message and (rank == 2 or "rank 2: " in message), (rank, message)
            assert got == (kind if rank == 2 else "ValueError"), (rank, message)


def a_rank_computes_falsely(rank, seed):
    """Rank 1 alters the last byte that it sends to rank 2, in one of the transfers, each in turn."""
    rows = rows_of(seed, torch.float32, 20003, hostile=False)
    rule = "nnm(f=1) | trimmed_mean(f=1)"
    expected = bragg.aggregate(rows, rule, threads=1)
    honest = dist.all_to_all_single
    outcomes = []
    for altered in range(100):
        transfers = 0

        def all_to_all_single(output, input, output_sizes, input_sizes, group):
            nonlocal transfers
            if rank == 1 and transfers == altered and input_sizes[2] > 0:
                input[sum(input_sizes[:3]) - 1] ^= 0x40
            transfers += 1
            honest(output, input, output_sizes, input_sizes, group=group)

        group = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=20))
        mine = rows[rank].clone()
        dist.all_to_all_single = all_to_all_single
        try:
            failure = caught(bragg.torch.all_reduce, mine, rule, group, replicas=2, threads=1)
        finally:
            dist.all_to_all_single = honest
        assert rank == 1 or failure or is_same(mine, expected), altered
        outcomes.append(failure[1] if failure else "")
        count = torch.tensor(int(transfers > altered))
        dist.all_reduce(count, op=dist.ReduceOp.MAX)
        if count == 0:  # nothing was altered
            assert failure is None
            return outcomes[:-1]
    raise AssertionError("no end")


def test_replicas_find_a_rank_that_computes_falsely(ranks, rng):
    outcomes = ranks.run(a_rank_computes_falsely, int(rng.integers(2**32)))
    assert len(outcomes[0]) > 5
    print(outcomes[2])
    assert sum("computes wrongly" in text for text in outcomes[2]) > 1


# reduce_scatter ----------------------------------------------------------------------------------


def scatter(rank, seed):
    for size in (0, 1, 3000, 8192, 20001):
        for rule in ("median", "nnm(f=1) | geometric_median"):
            for dtype in (torch.float32, torch.bfloat16):
                rows = rows_of(seed, dtype, RANKS * size)
                parts = [list(row.view(RANKS, size)) for row in rows]
                expected, report = bragg.aggregate(parts, rule, return_report=True, threads=1)
                out = torch.full((size,), 7, dtype=dtype)
                got = bragg.torch.reduce_scatter(out, rows[rank].clone(), rule, threads=1)
                assert is_same(out, expected[rank]), (rule, size, dtype)
                assert repr(got) == repr(report)
    out = torch.full((2, 3), 7.0)
    rows = torch.ones(RANKS, RANKS * 6)
    rows[:3, 6:12] = math.nan  # of the part of rank 1
    bad = caught(bragg.torch.reduce_scatter, out, rows[rank], "trimmed_mean(f=1)")
    assert bool(out.isinf().all()) == (rank == 1)
    out.fill_(7)
    kept = caught(bragg.torch.reduce_scatter, out, rows[rank], "krum(f=1)")
    assert (out == 7).all()
    wrong = caught(bragg.torch.reduce_scatter, out, rows[rank][: 30 - (rank == 3)], "median")
    return bad, kept, wrong


def test_each_rank_gets_its_part(ranks, rng):
    results = ranks.run(scatter, int(rng.integers(2**32)))
    for bad, kept, wrong in results:
        assert bad == results[0][0] and bad[2] == "nonfinite_result"
        assert kept == results[0][1] and kept[2] == "too_many_nonfinite"
        assert wrong[0] == "ValueError" and "29 elements; needs 5 times as many" in wrong[1]


# ddp_hook ----------------------------------------------------------------------------------------


def network(seed=0, width=64):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(64, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, 10),
    )


def batch_of(rank, step, seed):
    torch.manual_seed(seed + 100 * step + rank)
    return torch.randn(16, 64), torch.randint(0, 10, (16,))


def gradients_of_all(model, step, seed, spoil):
    """Of the step, for each rank those of all parameters."""
    rows = []
    for rank in range(RANKS):
        images, labels = batch_of(rank, step, seed)
        loss = cross_entropy(model(images), labels) * spoil.get(rank, 1)
        rows.append(list(torch.autograd.grad(loss, list(model.parameters()))))
    return rows


def step_by_step(rank, seed, scope, options, rule, spoil, wire=None):
    """Some steps: gradients by the hook have the bits of aggregate."""
    model, twin = network(), network()
    replicas = 2 if scope == "whole" else 1
    state, hook = bragg.torch.ddp_hook(rule, scope=scope, wire_dtype=wire, replicas=replicas, threads=1)
    ddp = DistributedDataParallel(model, bucket_cap_mb=0.01, **options)
    ddp.register_comm_hook(state, hook)
    buckets = []
    for step in range(4):
        model.zero_grad()
        images, labels = batch_of(rank, step, seed)
        (cross_entropy(ddp(images), labels) * spoil.get(rank, 1)).backward()
        state.check()
        buckets.append(len(state.reports))
        twin.load_state_dict(model.state_dict())
        rows = gradients_of_all(twin, step, seed, spoil)
        sent = [[g.to(wire or g.dtype) for g in row] for row in rows]
        expected = [g.float() for g in bragg.aggregate(sent, rule, threads=1)]
        for parameter, gradient in zip(model.parameters(), expected, strict=True):
            assert is_same(parameter.grad, gradient), step
            with torch.no_grad():
                parameter -= 0.1 * parameter.grad
    return buckets


HOSTILE = {1: -1000.0, 3: math.nan}


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_as_bucket_view": True}, {"static_graph": True}, {"find_unused_parameters": True}],
    ids=lambda options: "".join(options) or "plain",
)
def test_the_gradients_are_those_of_aggregate(options, ranks, rng):
    # Coordinate-wise: the same whatever the buckets are.
    buckets = ranks.run(step_by_step, int(rng.integers(2**31)), "bucket", options, "trimmed_mean(f=2)", HOSTILE)
    print(buckets[0])
    assert buckets[0][-1] > 1 and all(counts == buckets[0] for counts in buckets)
    if not options:
        assert buckets[0][0] != buckets[0][-1]  # they were rebuilt


def test_ranks_may_be_judged_by_all_gradients(ranks, rng):
    for options in ({}, {"gradient_as_bucket_view": True}):
        arguments = (int(rng.integers(2**31)), "whole", options, "krum(f=1)", {1: -1000.0})
        assert ranks.run(step_by_step, *arguments) == [[1] * 4] * RANKS


def test_gradients_are_sent_in_the_dtype_that_is_asked_for(ranks, rng):
    ranks.run(step_by_step, int(rng.integers(2**31)), "bucket", {}, "median", HOSTILE, torch.bfloat16)


def with_momentum(rank, seed):
    model, twin = network(), network()
    state, hook = bragg.torch.ddp_hook("median", momentum=0.75, threads=1)
    ddp = DistributedDataParallel(model, bucket_cap_mb=0.01)
    ddp.register_comm_hook(state, hook)
    momenta = [[torch.zeros_like(p) for p in twin.parameters()] for _ in range(RANKS)]
    saved = None
    for step in range(5):
        spoil = {3: math.nan} if step == 2 else {}
        model.zero_grad()
        images, labels = batch_of(rank, step, seed)
        (cross_entropy(ddp(images), labels) * spoil.get(rank, 1)).backward()
        state.check()
        sent = gradients_of_all(twin, step, seed, spoil)
        for row, own in zip(sent, momenta):
            for k, gradient in enumerate(row):
                if gradient.isfinite().all():
                    row[k] = own[k].lerp_(gradient, 0.25).clone()
        for parameter, expected in zip(model.parameters(), bragg.aggregate(sent, "median", threads=1)):
            assert is_same(parameter.grad, expected), step
        if step == 3:
            saved = state.state_dict(model)
            assert all(map(is_same, saved["momentum"].values(), momenta[rank]))
            # A new job goes on.
            state, hook = bragg.torch.ddp_hook("median", momentum=0.75, threads=1)
            state.load_state_dict(saved, model)
            ddp = DistributedDataParallel(model, bucket_cap_mb=0.01)
            ddp.register_comm_hook(state, hook)
    return caught(state.load_state_dict, {"momentum": {"other": torch.zeros(1)}}, model)[1]


def test_ranks_send_their_momentum(ranks, rng):
    told = ranks.run(with_momentum, int(rng.integers(2**31)))
    assert all("'other'" in text for text in told)


def refused(rank):
    found = {
        "scope": caught(bragg.torch.ddp_hook, "median", scope="all"),
        "on_failure": caught(bragg.torch.ddp_hook, "median", on_failure="keep"),
        "momentum": caught(bragg.torch.ddp_hook, "median", momentum=1),
        "needs n": caught(bragg.torch.ddp_hook, lambda n: f"krum(f={n})"),
        "dtype": caught(bragg.torch.ddp_hook, "median", wire_dtype=torch.int8),
        "given different": caught(bragg.torch.ddp_hook, "median" if rank else "mean"),
    }
    state, hook = bragg.torch.ddp_hook("median", threads=1)
    found["GradBucket"] = caught(hook, state, (torch.ones(3), torch.ones(3)))
    sparse = torch.nn.Embedding(10, 4, sparse=True)
    ddp = DistributedDataParallel(sparse)
    ddp.register_comm_hook(state, hook)
    found["sparse"] = caught(lambda: ddp(torch.tensor([1, 2])).sum().backward())
    return found


def test_what_the_hook_does_not_do_it_says(ranks):
    for found in ranks.run(refused):
        for text, error in found.items():
            assert error is not None and text in error[1], (text, error)


def a_rank_stays_away(rank):
    model = network()
    state, hook = bragg.torch.ddp_hook("median", timeout=datetime.timedelta(seconds=4), threads=1)
    ddp = DistributedDataParallel(model, gradient_as_bucket_view=True)
    ddp.register_comm_hook(state, hook)
    loss = cross_entropy(ddp(torch.ones(4, 64)), torch.ones(4, dtype=torch.int64))
    if rank == 2:
        return None
    loss.backward()
    assert all(parameter.grad.isnan().all() for parameter in model.parameters())
    assert caught(state.check)[0] == "RuntimeError"
    return caught(hook, state, None) or caught(state.check)


def test_a_rank_that_stays_away_ends_the_hook_and_not_in_a_hang(ranks):
    told = ranks.run(a_rank_stays_away)
    assert told[2] is None
    assert all(error is not None for rank, error in enumerate(told) if rank != 2)


# use_in_fsdp -------------------------------------------------------------------------------------


def sharded(model, **options):
    """fully_shard of each layer but the last, and of all: the last is the root's."""
    mesh = init_device_mesh("cpu", (RANKS,))
    for layer in list(model)[:-1]:
        if list(layer.parameters()):
            fully_shard(layer, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


GROUPS = {"0": ["0.weight", "0.bias"], "2": ["2.weight", "2.bias"], "": ["4.weight", "4.bias"]}


def parts_of(gradients):
    """What a rank reduces of a module: for each rank its shards of all gradients, along the first axis, padded."""
    parts = [[] for _ in range(RANKS)]
    for gradient in gradients:
        rows = -(-len(gradient) // RANKS)
        padded = torch.zeros((rows * RANKS, *gradient.shape[1:]), dtype=gradient.dtype)
        padded[: len(gradient)] = gradient
        for part, own in zip(parts, padded.split(rows)):
            part.append(own.reshape(-1))
    return [torch.cat(part) for part in parts]


def shard_by_shard(rank, seed, rule, spoil, reduce_dtype, wire):
    """Some steps: shards of gradients have the bits of aggregate of what the ranks have of each module."""
    model, twin = network(), network()
    policy = MixedPrecisionPolicy(reduce_dtype=reduce_dtype)
    sharded(model, mp_policy=policy)
    state = bragg.torch.use_in_fsdp(model, rule, wire_dtype=wire, threads=1)
    plans = {}
    for step in range(3):
        model.zero_grad()
        images, labels = batch_of(rank, step, seed)
        (cross_entropy(model(images), labels) * spoil.get(rank, 1)).backward()
        state.check()
        assert set(state.reports) == set(GROUPS)
        names = [name for name, _ in twin.named_parameters()]
        of_all = [dict(zip(names, row)) for row in gradients_of_all(twin, step, seed, spoil)]
        parameters = dict(model.named_parameters())
        for module, group in GROUPS.items():
            rows = [[part.to(reduce_dtype or part.dtype) for part in parts_of([of[k] for k in group])] for of in of_all]
            sent = [[part.to(wire or part.dtype) for part in row] for row in rows]
            expected = [torch.empty_like(part) for part in sent[0]]
            plan = plans.setdefault(module, bragg.Plan(rule, sent, threads=1))  # a rule that goes on does so by itself
            plan.run(sent, expected)
            plan.check()
            assert repr(state.reports[module]) == repr(plan.reports[0]), (step, module)
            own = expected[rank].to(reduce_dtype or torch.float32).float()
            for name in group:
                shard = parameters[name].grad.to_local()
                assert is_same(shard.reshape(-1), own[: shard.numel()]), (step, name)
                own = own[-(-parameters[name].shape[0] // RANKS) * parameters[name][0].numel() :]
        with torch.no_grad():
            for name, parameter in twin.named_parameters():
                local = parameters[name]
                local -= 0.1 * local.grad
                parameter.copy_(local.full_tensor())


@needs_fully_shard
@pytest.mark.parametrize("rule", ["trimmed_mean(f=2)", "nnm(f=2) | trimmed_mean(f=2)", "centered_clipping(tau=0.1)"])
def test_shards_of_gradients_are_those_of_aggregate(rule, ranks, rng):
    ranks.run(shard_by_shard, int(rng.integers(2**31)), rule, HOSTILE, None, None)


@needs_fully_shard
@pytest.mark.parametrize("dtypes", [(torch.bfloat16, None), (torch.float16, None), (torch.float32, torch.bfloat16)])
def test_shards_of_gradients_in_another_dtype(dtypes, ranks, rng):
    ranks.run(shard_by_shard, int(rng.integers(2**31)), "median", HOSTILE, *dtypes)


def shards_of_several_passes(rank, seed):
    """Gradients of three backward passes are one row."""
    model, twin = sharded(network()), network()
    state = bragg.torch.use_in_fsdp(model, "median", threads=1)
    rows = []
    for step in range(3):
        model.set_requires_gradient_sync(step == 2)
        images, labels = batch_of(rank, step, seed)
        cross_entropy(model(images), labels).backward()
        assert bool(state.reports) == (step == 2)
        rows.append(gradients_of_all(twin, step, seed, {}))
    state.check()
    sums = [[a + b + c for a, b, c in zip(*passes)] for passes in zip(*rows)]
    for parameter, expected in zip(model.parameters(), bragg.aggregate(sums, "median", threads=1), strict=True):
        assert is_same(parameter.grad.full_tensor(), expected)


@needs_fully_shard
def test_gradients_of_several_passes_are_one_row(ranks, rng):
    ranks.run(shards_of_several_passes, int(rng.integers(2**31)))


def shards_with_momentum(rank, seed):
    model, twin = network(), network()
    sharded(model)
    state = bragg.torch.use_in_fsdp(model, "median", momentum=0.75, threads=1)
    names = [name for name, _ in twin.named_parameters()]
    momenta = {}
    for step in range(5):
        spoil = {3: math.nan} if step == 2 else {}
        model.zero_grad()
        images, labels = batch_of(rank, step, seed)
        (cross_entropy(model(images), labels) * spoil.get(rank, 1)).backward()
        state.check()
        of_all = [dict(zip(names, row)) for row in gradients_of_all(twin, step, seed, spoil)]
        parameters = dict(model.named_parameters())
        for module, group in GROUPS.items():
            sent = []
            for k, of in enumerate(of_all):
                row = torch.cat(parts_of([of[name] for name in group]))
                own = momenta.setdefault((module, k), torch.zeros_like(row))
                sent.append(own.lerp_(row, 0.25).clone() if row.isfinite().all() else row)
            own = bragg.aggregate(sent, "median", threads=1).chunk(RANKS)[rank]
            for name in group:
                shard = parameters[name].grad.to_local()
                assert is_same(shard.reshape(-1), own[: shard.numel()]), (step, name)
                own = own[-(-parameters[name].shape[0] // RANKS) * parameters[name][0].numel() :]
        if step == 3:  # a new job goes on
            saved = state.state_dict()
            assert all(is_same(saved["momentum"][module], momenta[module, rank]) for module in GROUPS)
            state = bragg.torch.use_in_fsdp(model, "median", momentum=0.75, threads=1)
            state.load_state_dict(saved)
    other = caught(state.load_state_dict, {"momentum": {"other": torch.zeros(1)}})[1]
    state.load_state_dict({"momentum": {"": torch.zeros(3)}})
    cross_entropy(model(images), labels).backward()
    return other, caught(state.check)[1]


@needs_fully_shard
def test_ranks_of_fully_shard_send_their_momentum(ranks, rng):
    for other, longer in ranks.run(shards_with_momentum, int(rng.integers(2**31))):
        assert "'other'" in other and "momentum of 3" in longer


def some_gradients_are_not_finite(rank):
    """Of one layer alone; of one shard of the result."""
    model = sharded(network())
    state = bragg.torch.use_in_fsdp(model, "trimmed_mean(f=1)", threads=1)
    images, labels = batch_of(rank, 0, 0)
    if rank < 3:
        model[2].register_full_backward_pre_hook(lambda module, gradients: (spoilt(gradients[0]),))
    cross_entropy(model(images), labels).backward()
    assert caught(state.check)[2] == "nonfinite_result"
    finite = {name: parameter.grad.full_tensor().isfinite() for name, parameter in model.named_parameters()}
    assert not finite["2.bias"].any() and not finite["2.weight"].any()  # on all ranks
    assert finite["4.weight"].all()


def spoilt(gradient):
    gradient = gradient.clone()
    gradient[:, 0] = math.nan  # its weights and bias are rank 0's
    return gradient


@needs_fully_shard
def test_a_shard_that_is_not_finite_is_told_to_all(ranks):
    ranks.run(some_gradients_are_not_finite)


def refused_in_fsdp(rank):
    model = sharded(network())
    mesh = init_device_mesh("cpu", (1, RANKS), mesh_dim_names=("replicas", "shards"))
    replicated = fully_shard(network(), mesh=mesh)
    with torch.device("meta"):
        undone = sharded(network())
    found = {
        "on_failure": caught(bragg.torch.use_in_fsdp, model, "median", on_failure="keep"),
        "momentum": caught(bragg.torch.use_in_fsdp, model, "median", momentum=1),
        "none of its modules": caught(bragg.torch.use_in_fsdp, network(), "median"),
        "mesh of one dimension": caught(bragg.torch.use_in_fsdp, replicated, "median"),
        "on meta": caught(bragg.torch.use_in_fsdp, undone, "median"),
        "needs n": caught(bragg.torch.use_in_fsdp, model, lambda n: f"krum(f={n})"),
        "dtype": caught(bragg.torch.use_in_fsdp, model, "median", wire_dtype=torch.int8),
        "given different": caught(bragg.torch.use_in_fsdp, model, "median" if rank else "mean"),
        "rank": caught(bragg.torch.use_in_fsdp, model, "medain" if rank == 2 else "median"),
    }
    # What was refused has changed nothing: the mean of all.
    images, labels = batch_of(rank, 0, 0)
    cross_entropy(model(images), labels).backward()
    twin = network()
    rows = gradients_of_all(twin, 0, 0, {})
    for parameter, *own in zip(model.parameters(), *rows, strict=True):
        torch.testing.assert_close(parameter.grad.full_tensor(), torch.stack(own).mean(0))
    bragg.torch.use_in_fsdp(model, "median", threads=1)
    model.set_force_sum_reduction_for_comms(False)
    model.set_gradient_divide_factor(2.0)
    found["divide factor"] = caught(lambda: cross_entropy(model(images), labels).backward())
    return found


@needs_fully_shard
def test_what_use_in_fsdp_does_not_do_it_says(ranks):
    for rank, found in enumerate(ranks.run(refused_in_fsdp)):
        for text, error in found.items():
            assert error is not None and (text in error[1] or rank == 2 and text == "rank"), (text, error)


def a_rank_reduces_no_gradients(rank):
    group = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=3))
    model = fully_shard(network(), mesh=DeviceMesh.from_group(group, "cpu"))
    state = bragg.torch.use_in_fsdp(model, "median", threads=1)
    loss = cross_entropy(model(torch.ones(4, 64)), torch.ones(4, dtype=torch.int64))
    if rank == 2:
        return None
    loss.backward()
    assert all(parameter.grad.to_local().isnan().all() for parameter in model.parameters())
    return caught(state.check)[0]


@needs_fully_shard
def test_a_rank_that_reduces_no_gradients_is_not_waited_for_without_end(ranks):
    assert ranks.run(a_rank_reduces_no_gradients) == [
        "RuntimeError",
        "RuntimeError",
        None,
        "RuntimeError",
        "RuntimeError",
    ]


class Branching(torch.nn.Module):
    def __init__(self, uses_both):
        super().__init__()
        self.uses_both = uses_both
        self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.second(self.first(x)) if self.uses_both else self.first(x)


def a_rank_uses_another_layer(rank):
    """Ranks reduce other gradients: no hang, NaN, and an error."""
    model = fully_shard(Branching(rank != 1), mesh=init_device_mesh("cpu", (RANKS,)))
    state = bragg.torch.use_in_fsdp(model, "median", threads=1)
    told = []
    for _ in range(2):  # it goes on, and says nothing else
        model.zero_grad()
        model(torch.ones(2, 8)).sum().backward()
        assert model.first.weight.grad.to_local().isnan().all()
        told.append(caught(state.check))
    assert told[0] == told[1]
    return told[0]


@needs_fully_shard
def test_ranks_that_reduce_other_gradients_are_told(ranks):
    told = ranks.run(a_rank_uses_another_layer)
    assert all(kind == "RuntimeError" and "given different shapes" in text for kind, text, _ in told)


# Both --------------------------------------------------------------------------------------------


def in_ddp(model, rule, **options):
    """What to call in the place of the model, and bragg's state; of plain PyTorch without a rule."""
    ddp = DistributedDataParallel(model, bucket_cap_mb=0.01)
    if rule is None:
        return ddp, None
    state, hook = bragg.torch.ddp_hook(rule, threads=1, **options)
    ddp.register_comm_hook(state, hook)
    return ddp, state


def in_fsdp(model, rule, **options):
    sharded(model)
    return model, None if rule is None else bragg.torch.use_in_fsdp(model, rule, threads=1, **options)


both = pytest.mark.parametrize(
    "wrapped", [pytest.param(in_ddp, id="ddp_hook"), pytest.param(in_fsdp, id="use_in_fsdp", marks=needs_fully_shard)]
)


def too_many(rank, wrapped, rule, on_failure):
    model = network()
    called, state = wrapped(model, rule, on_failure=on_failure)
    outcomes = []
    for step, bad in enumerate([(), (0, 2, 4), (), (1, 2, 3), (4,)]):
        model.zero_grad()
        images, labels = batch_of(rank, step, 0)
        (cross_entropy(called(images), labels) * (math.nan if rank in bad else 1)).backward()
        whole = [p.grad if wrapped is in_ddp else p.grad.full_tensor() for p in model.parameters()]
        gradients = torch.cat([gradient.view(-1) for gradient in whole])
        failure = caught(state.check)
        assert caught(state.check) is None  # it was told
        reports = state.reports if wrapped is in_ddp else [state.reports[module] for module in GROUPS]
        if len(bad) > 2:
            assert failure[0] == "AggregationError" and reports[-1].status in ("ok", failure[2])
            assert gradients.isnan().all() if on_failure == "nan" else not gradients.any()
        else:
            assert failure is None and gradients.isfinite().all() and gradients.any()
        outcomes.append((failure, bits(gradients).sum().item()))
    return outcomes


@both
@pytest.mark.parametrize("on_failure", ["nan", "zero"])
@pytest.mark.parametrize("rule", ["trimmed_mean(f=2)", "nnm(f=2) | trimmed_mean(f=2)"])
def test_too_many_bad_ranks_fail_the_step_alone(wrapped, rule, on_failure, ranks):
    outcomes = ranks.run(too_many, wrapped, rule, on_failure)
    assert all(outcome == outcomes[0] for outcome in outcomes)


def train(rank, wrapped, rule, spoil):
    """Accuracy on digits that are not trained on, after training with a rule, or of plain PyTorch."""
    table = torch.from_numpy(np.loadtxt(DIGITS, delimiter=",", dtype=np.float32))
    table = table[torch.randperm(len(table), generator=torch.Generator().manual_seed(1))]
    images, labels = table[:, :-1] / 16, table[:, -1].long()
    model = network()
    called, state = wrapped(model, rule, momentum=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    random = torch.Generator().manual_seed(rank)
    mine = torch.arange(400 + rank, len(table), RANKS)
    for _ in range(150):
        chosen = mine[torch.randint(len(mine), (64,), generator=random)]
        optimizer.zero_grad()
        (cross_entropy(called(images[chosen]), labels[chosen]) * spoil.get(rank, 1)).backward()
        if state is not None:
            state.check()
        optimizer.step()
    with torch.no_grad():
        return (model(images[:400]).argmax(1) == labels[:400]).float().mean().item()


@both
def test_training_withstands_a_broken_and_a_lying_rank(wrapped, ranks):
    """The lying one sends the opposite of its gradient, 100 times over."""
    hostile = {1: -100.0, 3: math.nan}
    lying = {1: -100.0}
    (clean, *_), (plain, *_), (lied_to, *_), robust = (
        ranks.run(train, wrapped, *arguments)
        for arguments in ((None, {}), (None, hostile), (None, lying), ("nnm(f=2) | trimmed_mean(f=2)", hostile))
    )
    assert len(set(robust)) == 1
    print(f"clean {clean:.3f}, robust {robust[0]:.3f}, plain {plain:.3f} and {lied_to:.3f}")
    assert clean > 0.9
    assert robust[0] > clean - 0.02
    assert plain < 0.2 and lied_to < 0.5


@needs_fully_shard
def test_the_benchmark_measures_all_contenders(tmp_path):
    program, result = DIGITS.parents[2] / "bench/ddp.py", tmp_path / "result.json"
    small = ["--width", "32", "--layers", "1", "--repetitions", "2", "--warmup", "1", "--json", result]
    done = subprocess.run([sys.executable, program, *small], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = json.loads(result.read_text())["rows"]
    assert len(rows) == 8 and all(len(row["ms"]) == 2 and min(row["ms"]) > 0 for row in rows)
    assert all(f"| {row['name']} |" in done.stdout for row in rows)


def test_the_example_trains_in_eight_processes():
    program = DIGITS.parents[1] / "torch_ddp.py"
    done = subprocess.run(
        [sys.executable, program, "--steps", "60", "--rules", "median"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    plain, robust = done.stdout.splitlines()[2:]
    accuracy = lambda line: [float(cell.split()[0]) for cell in line.split("|")[2:5]]
    assert plain.startswith("| plain") and robust.startswith("| `median`")
    assert max(accuracy(plain)[1:]) < 50 and min(accuracy(robust)) > 50, done.stdout
