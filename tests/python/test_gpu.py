# SPDX-License-Identifier: Apache-2.0
"""The package on a GPU, by PyTorch; skipped where there is none."""

import gc

import bragg
import numpy as np
import pytest
from test_oracle import PIPELINES, draw, judge

torch = pytest.importorskip("torch")
if not torch.cuda.is_available() or bragg.cuda_device_count() == 0:
    pytest.skip("no GPU that torch and bragg can use", allow_module_level=True)

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def on_gpu(rows, dtype=torch.float32):
    return torch.from_numpy(rows).to("cuda", dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("text", PIPELINES)
def test_results_are_the_oracle_s(text, dtype, rng):
    def attempt():
        rows = on_gpu(draw(rng), dtype)
        result = bragg.aggregate(rows, text)
        assert (result.device, result.dtype) == (rows.device, dtype)
        return (rows.cpu(), result.cpu()), {}

    judged, complaint = judge(text, attempt)
    assert not complaint
    assert judged or dtype in (torch.float16, torch.bfloat16)


def test_forms_agree(rng):
    rows = on_gpu(rng.standard_normal((9, 40)))
    whole = bragg.aggregate(rows, "nnm(f=2) | median")
    assert torch.equal(bragg.aggregate(list(rows), "nnm(f=2) | median"), whole)
    trees = [{"a": row[:7], "b": [row[7:]], "n": torch.tensor(i, device="cuda")} for i, row in enumerate(rows)]
    result = bragg.aggregate(trees, "nnm(f=2) | median")
    torch.testing.assert_close(torch.cat([result["a"], result["b"][0]]), whole, rtol=1e-6, atol=1e-6)
    assert (int(result["n"]), result["n"].device) == (4, rows.device)


@pytest.mark.parametrize("text", ["nnm(f=2)", "clip(c=1)", "bucketing(s=2, permutation=[8,7,6,5,4,3,2,1,0])"])
def test_points_are_those_of_the_cpu(text, rng):
    rows = on_gpu(rng.standard_normal((9, 3000)))
    rows[3] = torch.nan
    points = bragg.pre_aggregate(rows, text)
    assert points.device == rows.device
    torch.testing.assert_close(points.cpu(), bragg.pre_aggregate(rows.cpu(), text), rtol=1e-6, atol=1e-6)


def test_bad_data_is_found(rng):
    rows = on_gpu(rng.standard_normal((9, 40)))
    rows[[1, 2, 3]] = torch.nan
    out = torch.full((40,), 7.0, device="cuda")
    with pytest.raises(bragg.AggregationError) as caught:
        bragg.aggregate(rows, "krum(f=2)", out=out)
    assert caught.value.reports[0].nonfinite == (0, 40, 40, 40, 0, 0, 0, 0, 0)
    assert (out == 7).all()


def test_devices_are_not_mixed(rng):
    rows = torch.ones(5, 4)
    with pytest.raises(ValueError, match=r"^updates\[1\] is on cuda:0, updates\[0\] on the CPU"):
        bragg.aggregate([rows[0], rows[1].cuda()], "median")
    with pytest.raises(ValueError, match="^out is on the CPU, updates on cuda:0"):
        bragg.aggregate(rows.cuda(), "median", out=torch.ones(4))
    with pytest.raises(ValueError, match="^base is on the CPU"):
        bragg.aggregate(rows.cuda(), "clip(c=1) | mean", base=torch.ones(4))
    plan = bragg.Plan("median", rows)
    with pytest.raises(ValueError, match="^updates are on cuda:0; the plan is for the CPU"):
        plan.run(rows.cuda(), torch.ones(4).cuda())


def test_the_current_stream_is_used(rng):
    """On a stream that is kept busy before, what is aggregated is what is there then, not what was there at the call."""
    stream = torch.cuda.Stream()
    rows = torch.zeros(9, 1000, device="cuda")
    plan = bragg.Plan("median", rows)
    out = torch.zeros(1000, device="cuda")
    ones = torch.ones(9, 1000, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        rows.copy_(ones)
        plan.run(rows, out)
        doubled = out * 2
    stream.synchronize()
    assert (doubled == 2).all()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        rows.fill_(3)
        result = bragg.aggregate(rows, "median")
    assert (result == 3).all()


def test_a_run_does_not_wait():
    rows = torch.zeros(9, 1000, device="cuda")
    plan = bragg.Plan("nnm(f=2) | median", rows)
    out = plan.run(rows, torch.empty(1000, device="cuda"))
    plan.check()
    torch.cuda._sleep(1_000_000_000)
    event = torch.cuda.Event()
    plan.run(rows, out)
    event.record()
    assert not event.query()
    with pytest.raises(RuntimeError, match="^reports: the last run has not been waited for; call wait"):
        _ = plan.reports
    assert not event.query()
    plan.check()
    assert event.query()
    assert plan.reports[0].status == "ok"


def test_a_graph_replays_it(rng):
    rows = on_gpu(rng.standard_normal((9, 1000)))
    plan = bragg.Plan("bucketing(s=2) | trimmed_mean(f=1)", rows)
    out = torch.zeros(1000, device="cuda")
    eager = bragg.Plan("bucketing(s=2) | trimmed_mean(f=1)", rows)
    plan.run(rows, out)
    plan.check()
    plan.reset()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plan.run(rows, out)
    for _ in range(4):  # the round goes on with every replay
        rows.copy_(on_gpu(rng.standard_normal((9, 1000))))
        graph.replay()
        expected = eager.run(rows, torch.zeros_like(out))
        torch.cuda.synchronize()
        assert torch.equal(out, expected)


def test_a_replay_s_outcome_is_seen():
    rows = torch.ones(9, 1000, device="cuda")
    plan = bragg.Plan("krum(f=2)", rows, on_failure="zero")
    out = torch.zeros(1000, device="cuda")
    plan.run(rows, out)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plan.run(rows, out)
    torch.cuda._sleep(50_000_000)
    rows[:4] = torch.nan
    graph.replay()
    assert plan.wait() == "too_many_nonfinite"
    assert (out == 0).all()
    rows.fill_(2)
    graph.replay()
    plan.check()
    assert (out == 2).all()


def test_runs_allocate_nothing(rng):
    rows = on_gpu(rng.standard_normal((9, 100_000)))
    plan = bragg.Plan("nnm(f=2) | trimmed_mean(f=2)", rows)
    out = torch.empty(100_000, device="cuda")
    plan.run(rows, out)
    plan.check()
    free = torch.cuda.mem_get_info()[0]
    allocated = torch.cuda.memory_allocated()
    for _ in range(10):
        plan.run(rows, out)
    plan.check()
    assert torch.cuda.mem_get_info()[0] == free
    assert torch.cuda.memory_allocated() == allocated


def test_nothing_is_kept(rng):
    rows = on_gpu(rng.standard_normal((9, 1_000_000)))
    bragg.aggregate(rows, "median")
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(5):
        bragg.aggregate(list(rows), "nnm(f=2) | trimmed_mean(f=2)")
    assert torch.cuda.memory_allocated() == before


def test_the_cpu_gives_the_same_medians(rng):
    rows = rng.standard_normal((9, 1000)).astype(np.float32)
    assert torch.equal(bragg.aggregate(on_gpu(rows), "median").cpu(), torch.from_numpy(bragg.aggregate(rows, "median")))
    assert torch.equal(
        bragg.aggregate(on_gpu(rows), "krum(f=2)").cpu(), torch.from_numpy(bragg.aggregate(rows, "krum(f=2)"))
    )


def test_cupy(rng):
    cupy = pytest.importorskip("cupy")
    rows = rng.standard_normal((9, 100)).astype(np.float32)
    with cupy.cuda.Stream(non_blocking=True):
        result = bragg.aggregate(cupy.asarray(rows), "median")
    assert isinstance(result, cupy.ndarray)
    assert (result.get() == np.median(rows, axis=0)).all()
