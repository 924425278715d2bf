# SPDX-License-Identifier: Apache-2.0
"""bragg.torch: operators that torch.compile keeps in its graph."""

import shutil
import subprocess
import sys

import bragg
import numpy as np
import pytest

torch = pytest.importorskip("torch", minversion="2.6")
import bragg.torch

PIPELINES = [
    "median",
    "nnm(f=2) | trimmed_mean(f=2)",
    "krum(f=2)",
    "centered_clipping(tau=1)",
    "bucketing(s=2) | median",
]
BACKENDS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.skipif(not shutil.which("g++"), reason="no g++"))]


@pytest.fixture
def updates(rng):
    rows = torch.from_numpy(rng.standard_normal((11, 5, 8), dtype=np.float32))
    rows[3] = torch.nan
    rows[7] = -1e6
    return rows


@pytest.fixture(autouse=True)
def _fresh():
    yield
    torch.compiler.reset()


def test_importing_bragg_imports_no_torch():
    program = "import bragg, sys; assert 'torch' not in sys.modules; import bragg.torch; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("rule", PIPELINES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_results_are_those_of_aggregate(rule, dtype, updates):
    updates = updates.to(dtype)
    before = updates.clone()
    expected = bragg.aggregate(updates, rule)
    for _ in range(2):  # nothing goes on from call to call
        result = torch.ops.bragg.aggregate(updates, rule)
        assert (result.dtype, result.shape) == (dtype, (5, 8))
        assert torch.equal(result, expected)
        assert torch.equal(torch.ops.bragg.aggregate_list(list(updates), rule), expected)
    assert torch.equal(updates.nan_to_num(9), before.nan_to_num(9))


@pytest.mark.parametrize("rule", PIPELINES)
def test_torch_s_own_checks_pass(rule, updates):
    rows = list(updates)
    torch.library.opcheck(torch.ops.bragg.aggregate.default, (updates, rule))
    torch.library.opcheck(
        torch.ops.bragg.aggregate.default, (torch.stack([updates, updates], 1)[:, 0], rule)
    )  # rows apart
    torch.library.opcheck(torch.ops.bragg.aggregate_list.default, (rows, rule))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_step_is_one_graph(backend, updates):
    """fullgraph raises where the graph would break; the operator must be in what the backend is given."""
    graphs = []

    def seen(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    def step(parameters, momenta, gradients):
        momenta = 0.9 * momenta + 0.1 * gradients
        direction = torch.ops.bragg.aggregate(momenta, "nnm(f=2) | trimmed_mean(f=2)")
        pulled = bragg.torch.aggregate_list([row.relu() for row in gradients], "median")
        return parameters - 0.1 * direction + 0.01 * pulled, momenta

    compiled = torch.compile(step, fullgraph=True, backend=seen)
    parameters, momenta = torch.zeros(5, 8), torch.zeros(11, 5, 8)
    for shift in range(3):
        expected = step(parameters, momenta, updates + shift)
        result = compiled(parameters, momenta, updates + shift)
        torch.testing.assert_close(result, expected, equal_nan=True)
        parameters = result[0]
    assert parameters.isfinite().all()
    assert len(graphs) == 1
    targets = [str(node.target) for node in graphs[0].graph.nodes]
    assert {"bragg.aggregate", "bragg.aggregate_list"} <= {target.removesuffix(".default") for target in targets}


def test_n_may_be_dynamic(updates):
    graphs = []

    def seen(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    compiled = torch.compile(
        lambda rows: 2 * torch.ops.bragg.aggregate(rows, "trimmed_mean(f=2)"),
        fullgraph=True,
        dynamic=True,
        backend=seen,
    )
    for n in (11, 9, 7):
        rows = updates[:n].clone()  # no view, of whose base Dynamo would guard the shape
        assert torch.equal(compiled(rows), 2 * bragg.aggregate(rows, "trimmed_mean(f=2)"))
    assert len(graphs) == 1


def test_a_mistake_in_the_rule_is_told_while_compiling(updates):
    def compiled(rule):
        backend = lambda graph, inputs: pytest.fail("compiled")
        return torch.compile(lambda rows: torch.ops.bragg.aggregate(rows, rule), fullgraph=True, backend=backend)

    with pytest.raises(Exception, match="unknown rule 'medain'; did you mean"):
        compiled("medain")(updates)
    with pytest.raises(Exception, match="has no axes"):
        compiled("median")(torch.tensor(1.0))


def test_errors_are_those_of_aggregate(updates):
    compiled = torch.compile(
        lambda rows: torch.ops.bragg.aggregate(rows, "krum(f=2)"), fullgraph=True, backend="aot_eager"
    )
    for call in (lambda rows: torch.ops.bragg.aggregate(rows, "krum(f=2)"), compiled):
        with pytest.raises(ValueError, match="needs n ≥ 2f\\+3 = 7"):
            call(updates[:6])
        with pytest.raises(bragg.AggregationError) as caught:
            call(torch.full((11, 4), torch.nan))
        assert caught.value.status == "too_many_nonfinite"
    nan = updates.nan_to_num(1)
    nan[0, 0, 0] = torch.nan
    for operator, rows in ((torch.ops.bragg.aggregate, nan), (torch.ops.bragg.aggregate_list, list(nan))):
        with pytest.raises(bragg.AggregationError, match="NaN or infinity in 1 coordinates"):
            operator(rows, "mean")
        assert operator(rows, "mean", allow_nonfinite=True).isnan().sum() == 1
        allowing = torch.compile(lambda given: operator(given, "mean", True), fullgraph=True, backend="aot_eager")
        assert allowing(rows).isnan().sum() == 1
    with pytest.raises(ValueError, match="n = 0 rows"):
        torch.ops.bragg.aggregate_list([], "median")


def test_a_backward_pass_says_that_there_is_none(updates):
    rows = updates.requires_grad_()
    for result in (torch.ops.bragg.aggregate(rows, "median"), torch.ops.bragg.aggregate_list(list(rows), "median")):
        with pytest.raises(RuntimeError, match=r"not differentiable; .*updates\.detach\(\)"):
            result.sum().backward()
    with torch.no_grad():
        assert not torch.ops.bragg.aggregate(rows, "median").requires_grad


def test_cuda_graphs_leave_it_out():
    for operator in (torch.ops.bragg.aggregate.default, torch.ops.bragg.aggregate_list.default):
        assert torch.Tag.cudagraph_unsafe in operator.tags
