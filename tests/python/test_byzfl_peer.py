# SPDX-License-Identifier: Apache-2.0
"""bragg.byzfl beside the installed ByzFL: the same values, kinds, dtypes, shapes and messages; and ByzFL's own tests.

The values that are expected are those which ByzFL has in float64 of NumPy: in float32 its distances are rounded, and what
it selects may change, while bragg's are not. Kind, dtype and shape are those of ByzFL for the very call.

ByzFL's own unit tests run where BRAGG_BYZFL_TESTS names the folder that holds them, tests/ of its repository.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import bragg.byzfl as ours
import numpy as np
import pytest

byzfl = pytest.importorskip("byzfl")
torch = pytest.importorskip("torch")

CASES = [
    ("Average", {}),
    ("Median", {}),
    ("TrMean", {"f": 0}),
    ("TrMean", {"f": 3}),
    ("GeometricMedian", {}),
    ("GeometricMedian", {"nu": 2.0, "T": 7}),
    ("GeometricMedian", {"T": 0}),
    ("Krum", {"f": 0}),
    ("Krum", {"f": 3}),
    ("MultiKrum", {"f": 0}),
    ("MultiKrum", {"f": 3}),
    ("CenteredClipping", {}),
    ("CenteredClipping", {"L": 4, "tau": 1.5}),
    ("CenteredClipping", {"L": 0}),
    ("MDA", {"f": 0}),
    ("MDA", {"f": 3}),
    ("MoNNA", {"f": 3}),
    ("MoNNA", {"f": 3, "idx": 6}),
    ("Meamed", {"f": 0}),
    ("Meamed", {"f": 3}),
    ("NNM", {"f": 0}),
    ("NNM", {"f": 3}),
    ("Clipping", {}),
    ("Clipping", {"c": 4.5}),
    ("ARC", {"f": 0}),
    ("ARC", {"f": 3}),
]
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}  # of the largest value; sums of at most 12 by a few steps


def named(case):
    name, parameters = case
    return f"{name}({', '.join(f'{key}={value}' for key, value in parameters.items())})"


def forms(rows):
    """The ways to pass rows, each anew, as ByzFL may write to them."""
    yield rows.copy()
    yield list(rows.copy())
    yield torch.from_numpy(rows.copy())
    yield list(torch.from_numpy(rows.copy()))


def data(rng, n, dtype):
    """About a point that is not the origin."""
    return (1 + rng.standard_normal((n, 10))).astype(dtype)


def values(result):
    return np.asarray(result, np.float64)


def check_alike(result, like, expected):
    assert type(result) is type(like)
    assert result.dtype == like.dtype
    assert result.shape == like.shape
    tolerance = TOLERANCE[str(like.dtype).removeprefix("torch.")]
    np.testing.assert_allclose(values(result), expected, rtol=0, atol=tolerance * max(1, abs(expected).max()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [7, 8, 12])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_results_are_byzfls(case, n, dtype, rng):
    name, parameters = case
    mine, theirs, exact = ([getattr(module, name)(**parameters) for _ in range(4)] for module in (ours, byzfl, byzfl))
    for _ in range(3):  # for the state
        rows = data(rng, n, dtype)
        for my, their, reference, vectors, spare in zip(mine, theirs, exact, forms(rows), forms(rows)):
            result = my(vectors)
            check_alike(result, their(spare), reference(rows.astype(np.float64)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int64"])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_other_tensors_become_float32(case, dtype, rng):
    name, parameters = case
    tensor = torch.from_numpy(16 * data(rng, 8, np.float64)).to(getattr(torch, dtype))
    result = getattr(ours, name)(**parameters)(tensor)
    assert result.dtype == getattr(byzfl, name)(**parameters)(tensor.clone()).dtype
    assert (result == getattr(ours, name)(**parameters)(tensor.float())).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("s", [1, 2, 3, 7, 9])
def test_buckets_are_byzfls_with_its_seeds(s, dtype, rng):
    rows = data(rng, 8, dtype)
    for vectors, spare in zip(forms(rows), forms(rows)):
        results = []
        for module, given in ((ours, vectors), (byzfl, spare)):
            np.random.seed(5)
            torch.manual_seed(5)
            results.append([module.Bucketing(s)(given) for _ in range(3)])
        for result, like in zip(*results):
            check_alike(result, like, values(like))


# SMEA and CAF in one dimension: there ByzFL's one step of a power iteration, from a random vector, is right.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "f"), [(5, 1), (8, 2), (9, 4)])
def test_smea_is_byzfls_where_that_has_no_choice(n, f, dtype, rng):
    rows = data(rng, n, dtype)[:, :1]
    expected = byzfl.SMEA(f)(rows.astype(np.float64))
    for vectors, spare in zip(forms(rows), forms(rows)):
        check_alike(ours.SMEA(f)(vectors), byzfl.SMEA(f)(spare), expected)


def filtered(values, f, removed_count):
    """CAF of numbers. `removed_count`: vectors without weight are looked at for the furthest one too, as in ByzFL."""
    c = np.ones(len(values))
    least = np.inf
    while c.sum() > len(values) - 2 * f:
        mean = (c * values).sum() / c.sum()
        squares = (values - mean) ** 2
        variance = (c * squares).sum() / c.sum()
        if variance < least:
            least, best = variance, mean
        furthest = squares.max() if removed_count else squares[c > 0].max()
        c = c * (1 - squares / furthest).clip(0)
    return np.array([best])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("n", "f"), [(5, 1), (8, 2), (9, 4)])
def test_caf_is_byzfls_but_for_what_removed_vectors_count(n, f, dtype, rng):
    rows = data(rng, n, dtype)[:, :1]
    numbers = rows[:, 0].astype(np.float64)
    for vectors, spare in zip(forms(rows), forms(rows)):
        like = byzfl.CAF(f)(spare)
        np.testing.assert_allclose(values(like), filtered(numbers, f, removed_count=True), atol=1e-4)
        if isinstance(like, np.ndarray):
            like = like.astype(dtype)  # ByzFL makes float64 of float32
        check_alike(ours.CAF(f)(vectors), like, filtered(numbers, f, removed_count=False))


PIPELINES = [
    (("TrMean", {"f": 2}), [("NNM", {"f": 2})]),
    (("TrMean", {"f": 2}), [("Clipping", {"c": 2.0}), ("NNM", {"f": 2})]),
    (("Median", {}), [("ARC", {"f": 2}), ("NNM", {"f": 2})]),
    (("GeometricMedian", {"nu": 0.5}), [("NNM", {"f": 2}), ("ARC", {"f": 2})]),
    (("Krum", {"f": 2}), [("Clipping", {"c": 3.0})]),
    (("MultiKrum", {"f": 2}), [("ARC", {"f": 2})]),
    (("MDA", {"f": 1}), [("Bucketing", {"s": 2}), ("Clipping", {"c": 2.0})]),
    (("Meamed", {"f": 1}), [("Bucketing", {"s": 3}), ("ARC", {"f": 1})]),
    (("CenteredClipping", {"L": 2, "tau": 1.0}), [("NNM", {"f": 2})]),
    (("CenteredClipping", {"L": 2, "tau": 1.0}), [("Clipping", {"c": 2.0}), ("NNM", {"f": 2})]),
    (("CenteredClipping", {"L": 1, "tau": 1.0}), [("ARC", {"f": 2}), ("Bucketing", {"s": 2})]),
    (("Average", {}), []),
]


@pytest.mark.parametrize(
    "pipeline", PIPELINES, ids=lambda pipeline: "|".join([*(p[0] for p in pipeline[1]), pipeline[0][0]])
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compositions_are_byzfls(pipeline, dtype, rng):
    (name, parameters), pre = pipeline
    arguments = (
        {"name": name, "parameters": {**parameters, "unknown": 3}},
        [{"name": name, "parameters": parameters} for name, parameters in pre],
    )
    mine, theirs, exact = ([module.RobustAggregator(*arguments) for _ in range(4)] for module in (ours, byzfl, byzfl))
    for turn in range(3):
        rows = data(rng, 11, dtype)
        for my, their, reference, vectors, spare in zip(mine, theirs, exact, forms(rows), forms(rows)):
            results = []
            wide = torch.from_numpy(rows).double() if isinstance(spare[0], torch.Tensor) else rows.astype(np.float64)
            for aggregator, given in ((my, vectors), (their, spare), (reference, wide)):
                np.random.seed(turn)
                torch.manual_seed(turn)
                results.append(aggregator.aggregate_vectors(given))
            check_alike(results[0], results[1], values(results[2]))


def raised(call):
    with pytest.raises(Exception) as error:
        call()
    return type(error.value), str(error.value)


F_CLASSES = ["TrMean", "Krum", "MultiKrum", "MDA", "MoNNA", "Meamed", "SMEA", "CAF", "NNM", "ARC"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [(name, (f,)) for name in F_CLASSES for f in (-1, 1.0, "1", None, np.int64(1))]
    + [("MoNNA", (1, idx)) for idx in (-1, 0.0)]
    + [("GeometricMedian", arguments) for arguments in ((1,), ("1",), (0.1, -1), (0.1, 2.0))]
    + [("CenteredClipping", (None, *arguments)) for arguments in ((-1,), (1.0,), (1, 1), (1, -1.0))]
    + [("CenteredClipping", ([0.0],))]
    + [("Bucketing", (s,)) for s in (0, -1, 1.0)]
    + [("Clipping", (c,)) for c in (2, -1.0)]
    + [("RobustAggregator", arguments) for arguments in (("Median",), ({}, {}), ({}, ["NNM"]), ({}, None))]
    + [("RobustAggregator", ({"parameters": {}},)), ("RobustAggregator", ({"name": "Median"},))],
)
def test_bad_arguments_are_refused_as_byzfl_does(name, arguments):
    mine, theirs = (raised(lambda m=module: getattr(m, name)(*arguments)) for module in (ours, byzfl))
    assert mine == theirs


@pytest.mark.parametrize(
    ("name", "arguments", "n"),
    [(name, (f,), 6) for name in F_CLASSES[:-2] for f in (3, 4, 9)]
    + [("MoNNA", (1, 6), 6), ("NNM", (6,), 6), ("NNM", (7,), 6), ("ARC", (7,), 6)],
)
def test_too_few_vectors_are_refused_as_byzfl_does(name, arguments, n, rng):
    for vectors, spare in zip(forms(data(rng, n, np.float32)), forms(data(rng, n, np.float32))):
        mine = raised(lambda v=vectors: getattr(ours, name)(*arguments)(v))
        assert mine == raised(lambda v=spare: getattr(byzfl, name)(*arguments)(v))


@pytest.mark.parametrize("vectors", [((1.0, 2.0), (3.0, 4.0)), [[1.0, 2.0]], "12", 3, None, {"a": 1}], ids=repr)
@pytest.mark.parametrize("name", ["Average", "Krum", "NNM", "Clipping"])
def test_what_are_no_vectors_are_refused_as_byzfl_does(name, vectors):
    assert raised(lambda: getattr(ours, name)()(vectors)) == raised(lambda: getattr(byzfl, name)()(vectors))


def test_every_class_is_offered_and_constructed_alike():
    import inspect

    theirs = {
        name: value
        for module in ("aggregators", "preaggregators")
        for name, value in vars(sys.modules[f"byzfl.aggregators.{module}"]).items()
        if inspect.isclass(value)
    }
    theirs["RobustAggregator"] = byzfl.RobustAggregator
    assert set(ours.__all__) == set(theirs)
    for name, value in theirs.items():
        if value.__init__ is object.__init__:
            continue
        mine = inspect.signature(getattr(ours, name)).parameters.values()
        like = inspect.signature(value).parameters.values()
        assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in like], name


def test_byzfls_server_takes_it(monkeypatch, rng):
    import byzfl.fed_framework.server

    monkeypatch.setattr(byzfl.fed_framework.server, "RobustAggregator", ours.RobustAggregator)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.zeros(1, 1, 28, 28), torch.zeros(1)))
    server = byzfl.Server(
        {
            "test_loader": loader,
            "device": "cpu",
            "model_name": "fc_mnist",
            "optimizer_name": "SGD",
            "learning_rate": 0.1,
            "weight_decay": 0.0,
            "milestones": [],
            "learning_rate_decay": 1.0,
            "aggregator_info": {"name": "TrMean", "parameters": {"f": 1}},
            "pre_agg_list": [{"name": "NNM", "parameters": {"f": 1}}],
        }
    )
    assert isinstance(server.robust_aggregator, ours.RobustAggregator)
    before = server.get_flat_parameters().clone()
    gradients = [torch.ones_like(before) for _ in range(4)] + [torch.full_like(before, torch.nan)]
    server.update_model_with_gradients(gradients)
    torch.testing.assert_close(server.get_flat_parameters(), before - 0.1)


def test_byzfls_own_tests_pass(tmp_path):
    given = os.environ.get("BRAGG_BYZFL_TESTS")
    if not given:
        pytest.skip("BRAGG_BYZFL_TESTS does not name ByzFL's tests")
    tests = tmp_path / "tests"
    tests.mkdir()
    for name in ("unit_test_aggregators.py", "unit_test_preaggregators.py"):
        shutil.copy(Path(given) / name, tests)
    # What they import as byzfl, which their own sys.path.append finds last, is bragg.byzfl.
    (tmp_path / "byzfl.py").write_text("from bragg.byzfl import *\n")
    (tests / "conftest.py").write_text(
        "import byzfl\n\n\ndef pytest_report_header():\n    return f'running on {byzfl.Krum.__module__}'\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--rootdir",
        str(tmp_path),
        *map(str, sorted(tests.glob("unit_test_*.py"))),
    ]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "running on bragg.byzfl" in done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= 50, done.stdout
