# SPDX-License-Identifier: Apache-2.0
"""State dicts and other trees of arrays."""

import collections
import dataclasses
import io
import json
import struct
import types

import bragg
import numpy as np
import pytest
from conftest import dtype_named

Layer = collections.namedtuple("Layer", ["weight", "bias"])


def trees(rng, n=6):
    return [
        {
            "layers": [Layer(rng.standard_normal((3, 4)), rng.standard_normal(3)), (rng.standard_normal(5),)],
            "scale": collections.OrderedDict(z=np.array(rng.standard_normal()), a=rng.standard_normal((2, 0))),
        }
        for _ in range(n)
    ]


def flat(tree):
    first, second = tree["layers"]
    return np.concatenate([first.weight.ravel(), first.bias, second[0], tree["scale"]["z"].ravel()])


def test_a_tree_comes_back_as_it_was(rng):
    given = trees(rng)
    result = bragg.aggregate(given, "nnm(f=1) | trimmed_mean(f=1)")
    assert list(result) == ["layers", "scale"]
    assert type(result["layers"]) is list
    assert type(result["layers"][0]) is Layer
    assert type(result["layers"][1]) is tuple
    assert type(result["scale"]) is collections.OrderedDict
    assert list(result["scale"]) == ["z", "a"]
    assert result["layers"][0].weight.shape == (3, 4)
    assert result["scale"]["z"].shape == ()
    assert result["scale"]["a"].shape == (2, 0)
    whole = bragg.aggregate(np.array([flat(tree) for tree in given]), "nnm(f=1) | trimmed_mean(f=1)")
    np.testing.assert_allclose(flat(result), whole, rtol=1e-12)


def test_a_default_dict_stays_one(rng):
    given = []
    for _ in range(3):
        tree = collections.defaultdict(list)
        tree["a"] = rng.standard_normal(2)
        given.append(tree)
    result = bragg.aggregate(given, "median")
    assert type(result) is collections.defaultdict
    assert result["new"] == []


def test_keys_may_come_in_any_order(rng):
    rows = rng.standard_normal((5, 6))
    given = [{"a": row[:2], "b": row[2:]} if i % 2 else {"b": row[2:], "a": row[:2]} for i, row in enumerate(rows)]
    result = bragg.aggregate(given, "median")
    assert list(result) == ["b", "a"]
    base = collections.OrderedDict(a=rows[0, :2], b=rows[0, 2:])
    based = bragg.aggregate(given, "median", base=base)
    assert list(based) == ["a", "b"]
    assert type(based) is collections.OrderedDict
    assert (result["a"] == np.median(rows[:, :2], axis=0)).all()
    assert (result["b"] == np.median(rows[:, 2:], axis=0)).all()


def test_out_and_base_are_trees(rng):
    given, base, out = trees(rng), trees(rng, 1)[0], trees(rng, 1)[0]
    result = bragg.aggregate(given, "clip(c=1) | mean", base=base, out=out)
    assert result is out
    fresh = bragg.aggregate(given, "clip(c=1) | mean", base=base)
    assert (flat(out) == flat(fresh)).all()
    whole = bragg.aggregate(np.array([flat(tree) for tree in given]), "clip(c=1) | mean", base=flat(base))
    np.testing.assert_allclose(flat(fresh), whole, rtol=1e-12)
    bragg.aggregate(given, "clip(c=1) | mean", base=base, out=given[0])
    assert (flat(given[0]) == flat(fresh)).all()


def test_each_tensor_by_itself(rng):
    a, b = rng.standard_normal((7, 4)), rng.standard_normal((7, 4))
    given = [{"a": x, "b": y} for x, y in zip(a, b)]
    result = bragg.aggregate(given, "krum(f=2)", scope="per_tensor")
    assert (result["a"] == bragg.aggregate(a, "krum(f=2)")).all()
    assert (result["b"] == bragg.aggregate(b, "krum(f=2)")).all()


@pytest.mark.parametrize(
    ("spoil", "error", "what"),
    [
        (lambda t: t.pop("scale"), ValueError, r"updates\[2\]: keys differ from those in updates\[0\]: 'scale'"),
        (lambda t: t.update(more=1), ValueError, r"updates\[2\]: keys differ .*: 'more'"),
        (lambda t: t["layers"].pop(), ValueError, r"updates\[2\]\['layers'\]: 1 items; needs 2"),
        (lambda t: t.update(layers=3), TypeError, r"updates\[2\]\['layers'\]: int; needs a list"),
        (lambda t: t.update(scale=[1]), TypeError, r"updates\[2\]\['scale'\]: list; needs a dict"),
        (lambda t: t["scale"].update(z=[1]), ValueError, r"updates\[2\]\['scale'\]\['z'\]: a list of 1 numbers; needs"),
        (lambda t: t["scale"].update(z=[[1]]), TypeError, r"updates\[2\]\['scale'\]\['z'\]: list; needs an array"),
        (lambda t: t["scale"].update(z=None), ValueError, r"updates\[2\]\['scale'\]\['z'\]: NoneType is no array"),
        (
            lambda t: t["scale"].update(z=np.ones(1)),
            ValueError,
            r"updates\[2\]\['scale'\]\['z'\]: float64 of shape \(1,\); needs float64 of shape \(\), as in updates\[0\]",
        ),
        (
            lambda t: t["scale"].update(z=np.float32(1)),
            ValueError,
            r"updates\[2\]\['scale'\]\['z'\]: float32 of shape \(\); needs float64 of shape \(\)",
        ),
    ],
)
def test_what_differs_is_named(rng, spoil, error, what):
    given = trees(rng)
    spoil(given[2])
    with pytest.raises(error, match="^" + what) as caught:
        bragg.aggregate(given, "median", bad_inputs="error")
    result, report = bragg.aggregate(given, "median", return_report=True)
    nan = trees(rng)[2]
    nan["layers"] = [Layer(nan["layers"][0].weight * np.nan, nan["layers"][0].bias * np.nan), (np.full(5, np.nan),)]
    nan["scale"]["z"] = np.array(np.nan)
    expected = bragg.aggregate([*given[:2], nan, *given[3:]], "median")
    assert (flat(result) == flat(expected)).all()
    assert report.bad_inputs[2] in str(caught.value)
    assert [reason is None for reason in report.bad_inputs] == [True, True, False, True, True, True]


def test_a_tree_of_nothing_is_refused():
    for updates in ([{}, {}], [[], []], [{"a": ()}, {"a": ()}]):
        with pytest.raises(ValueError, match=r"^updates\[0\]: holds no arrays"):
            bragg.aggregate(updates, "median")


def spoiled(rng, n, bad):
    """n good trees, and a bad object at each of the places."""
    given = [{"a": rng.standard_normal((2, 3)), "b": [rng.standard_normal(4), np.array(i)]} for i in range(n)]
    for i, make in bad.items():
        given[i] = make(given[i])
    return given


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name):
        raise KeyError(name)


def endless(_):
    tree = {}
    tree["a"], tree["b"] = tree, [tree]
    return tree


BAD = {
    "None": lambda tree: None,
    "a number": lambda tree: 3.0,
    "text": lambda tree: "model",
    "an array": lambda tree: tree["a"],
    "no keys": lambda tree: {},
    "another key": lambda tree: {**tree, "c": tree["a"]},
    "a key less": lambda tree: {"a": tree["a"]},
    "another shape": lambda tree: {**tree, "a": tree["a"].T},
    "another dtype": lambda tree: {**tree, "a": tree["a"].astype(np.float32)},
    "another integer": lambda tree: {**tree, "b": [tree["b"][0], np.array(3, np.int8)]},
    "an integer for floats": lambda tree: {**tree, "a": np.ones((2, 3), int)},
    "complex numbers": lambda tree: {**tree, "a": tree["a"] + 1j},
    "objects": lambda tree: {**tree, "a": np.full((2, 3), None)},
    "a list for an array": lambda tree: {**tree, "a": tree["a"].tolist()},
    "an array for a list": lambda tree: {**tree, "b": tree["b"][0]},
    "no array": lambda tree: {**tree, "a": None},
    "another tuple": lambda tree: {**tree, "b": (*tree["b"], 1)},
    "what raises": lambda tree: Hostile(),
    "within what raises": lambda tree: {**tree, "a": Hostile()},
    "a tree without end": endless,
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("places", [(0, 1), (4, 8), (7, 8)])
@pytest.mark.parametrize("based", [False, True])
def test_what_is_no_tree_of_the_form_is_a_row_of_nan(kind, places, based, rng):
    given = spoiled(rng, 9, {})
    base = spoiled(rng, 1, {})[0] if based else None
    bad = [BAD[kind](tree) if i in places else tree for i, tree in enumerate(given)]
    nan = [
        {"a": tree["a"] * np.nan, "b": [tree["b"][0] * np.nan, tree["b"][1]]} if i in places else tree
        for i, tree in enumerate(given)
    ]
    for rule in ("median", "krum(f=2)", "nnm(f=2) | trimmed_mean(f=2)", "clip(c=1) | mean", "geometric_median"):
        for scope in ("whole", "per_tensor"):
            result, report = bragg.aggregate(bad, rule, base=base, scope=scope, return_report=True)
            expected, like = bragg.aggregate(nan, rule, base=base, scope=scope, return_report=True)
            assert result["a"].tobytes() == expected["a"].tobytes()
            assert result["b"][0].tobytes() == expected["b"][0].tobytes()
            # Integers have no bits for it: it has no vote.
            assert result["b"][1] == sorted(i for i in range(9) if i not in places)[3]
            for one, other in zip(*((report, like) if scope == "per_tensor" else ([report], [like]))):
                assert repr(one.weights) == repr(other.weights)
                assert one.nonfinite == other.nonfinite
                assert [i for i, reason in enumerate(one.bad_inputs) if reason] == list(places)
    with pytest.raises((ValueError, TypeError), match=rf"^updates\[{places[0]}\]"):
        bragg.aggregate(bad, "median", base=base if based else None, bad_inputs="error")
    out = {"a": np.zeros((2, 3)), "b": [np.zeros(4), np.array(0)]}
    plan = bragg.Plan("krum(f=2)", bad)
    plan.run(bad, out)
    assert out["a"].tobytes() == bragg.aggregate(nan, "krum(f=2)")["a"].tobytes()
    assert [i for i, reason in enumerate(plan.reports[0].bad_inputs) if reason] == list(places)
    points = bragg.pre_aggregate(bad, "nnm(f=2)")
    assert len(points) == 9
    assert points[0]["a"].tobytes() == bragg.pre_aggregate(nan, "nnm(f=2)")[0]["a"].tobytes()


def test_more_bad_inputs_than_the_rule_tolerates(rng):
    given = spoiled(rng, 9, {0: BAD["None"], 4: BAD["another shape"], 7: BAD["a key less"]})
    plan = bragg.Plan("krum(f=2)", given)
    plan.run(given, {"a": np.zeros((2, 3)), "b": [np.zeros(4), np.array(0)]})
    for call in (lambda: bragg.aggregate(given, "krum(f=2)"), plan.check):
        with pytest.raises(bragg.AggregationError, match="too many rows are not finite: 3 of 9") as caught:
            call()
        lines = str(caught.value).splitlines()
        assert lines[1] == "  updates[0]: NoneType; needs a dict, as in updates[1]"
        assert lines[2].startswith("  updates[4]['a']: float64 of shape (3, 2); needs float64 of shape (2, 3), as in")
        assert lines[3] == "  updates[7]: keys differ from those in updates[1]: 'b'"
        assert caught.value.status == "too_many_nonfinite"
        assert [bool(reason) for reason in caught.value.reports[0].bad_inputs] == [i in (0, 4, 7) for i in range(9)]


def test_a_pivot_that_is_a_bad_input_is_an_error(rng):
    given = spoiled(rng, 9, {2: BAD["another shape"]})
    out = spoiled(rng, 1, {})[0]
    plan = bragg.Plan("nnm(f=2) | monna(f=2, pivot=2)", given)
    plan.run(given, out)
    for call in (lambda: bragg.aggregate(given, "monna(f=2, pivot=2)"), plan.check):
        with pytest.raises(bragg.AggregationError, match=r"^monna: pivot = 2 is a bad input: updates\[2\]") as caught:
            call()
        assert (caught.value.status, caught.value.code) == ("nonfinite_pivot", 11)
    buckets = "bucketing(s=1, permutation=[8,7,6,5,4,3,2,1,0])"
    for rule in ("monna(f=2, pivot=3)", f"{buckets} | monna(f=2, pivot=2)", "krum(f=2)"):
        bragg.aggregate(given, rule)
    plan.run(spoiled(rng, 9, {}), out)
    plan.check()


def test_the_base_says_what_the_form_is(rng):
    """Else that of more than half: neither the first, nor as many as half."""
    a, b = ([{name: rng.standard_normal(3)} for _ in range(4)] for name in "ab")
    with pytest.raises(ValueError, match="no form is that of more than half of the 8 updates, and there is no base"):
        bragg.aggregate(a + b, "median")
    assert list(bragg.aggregate(a + b[:3], "geometric_median")) == ["a"]
    assert list(bragg.aggregate(a[:3] + b, "geometric_median")) == ["b"]
    assert list(bragg.aggregate(a[:2] + b, "geometric_median")) == ["b"]
    result, report = bragg.aggregate(a[:3] + b, "geometric_median", base=b[0], return_report=True)
    assert list(result) == ["b"]
    assert "in base" in report.bad_inputs[0]
    with pytest.raises(bragg.AggregationError, match="4 of 7 hold NaN"):
        bragg.aggregate(a[:3] + b, "krum(f=2)", base=a[0])
    with pytest.raises(ValueError, match="keys differ from those in base"):  # nobody has them: it is itself wrong
        bragg.aggregate(b, "median", base=a[0])


def test_bad_arrays_are_rows_of_nan(library, rng):
    rows = rng.standard_normal((7, 5)).astype(np.float32)
    array = library.array(rows)
    given = [array[i, ...] for i in range(7)]
    given[0], given[5] = None, array[0, :3]
    rows[[0, 5]] = np.nan
    for rule in ("median", "krum(f=2)"):
        result, report = bragg.aggregate(given, rule, return_report=True)
        assert library.is_one(result)
        assert (library.values(result) == bragg.aggregate(rows, rule)).all()
        assert report.bad_inputs[5] == "float32 of shape (3,); needs float32 of shape (5,), as in updates[1]"


def test_sparse_tensors_are_rows_of_nan():
    torch = pytest.importorskip("torch")
    given = [torch.full((3,), float(i)) for i in range(5)]
    given[4] = torch.ones(3).to_sparse()
    given[3] = torch.ones(3, device="meta")
    result, report = bragg.aggregate(given, "trimmed_mean(f=2)", return_report=True)
    assert result.tolist() == [2, 2, 2]
    assert report.bad_inputs[3:] == (
        "float32 of shape (3,) on meta; needs float32 of shape (3,), as in updates[0]",
        "a sparse array; needs a dense one",
    )


@dataclasses.dataclass(frozen=True)
class State:
    params: dict
    step: int
    name: str = "adam"


def test_every_mapping_and_dataclass_comes_back(rng):
    rows = rng.standard_normal((5, 3))
    proxies = [types.MappingProxyType({"a": row, "deep": types.MappingProxyType({"b": row[:1]})}) for row in rows]
    result = bragg.aggregate(proxies, "median")
    assert type(result) is type(result["deep"]) is types.MappingProxyType
    assert (result["a"] == np.median(rows, axis=0)).all()
    users = [collections.UserDict(a=row) for row in rows]
    assert type(bragg.aggregate(users, "median")) is collections.UserDict
    assert (users[0]["a"] == rows[0]).all()
    # A dict is a mapping too, and so is its type no reason to refuse a row.
    assert list(bragg.aggregate([users[0], *({"a": row} for row in rows[1:])], "median")) == ["a"]
    states = [State({"w": row}, i) for i, row in enumerate(rows)]
    result = bragg.aggregate(states, "median")
    assert (type(result), result.step, result.name) == (State, 2, "adam")
    assert (result.params["w"] == np.median(rows, axis=0)).all()
    assert (states[0].params["w"] == rows[0]).all()
    spoiled = bragg.aggregate([*states[:4], {"params": {"w": rows[4]}, "step": 4}], "median", return_report=True)[1]
    assert spoiled.bad_inputs[4] == "dict; needs a State, as in updates[0]"


def test_flax_s_and_optax_s_trees(rng):
    freeze = pytest.importorskip("flax.core").freeze
    jax = pytest.importorskip("jax")
    rows = rng.standard_normal((5, 3)).astype(np.float32)
    given = [freeze({"dense": {"kernel": jax.numpy.asarray(row), "bias": None}}) for row in rows]
    result = bragg.aggregate(given, "median")
    assert type(result) is type(given[0])
    assert result["dense"]["bias"] is None
    assert (np.array(result["dense"]["kernel"]) == np.median(rows, axis=0)).all()


def test_what_is_no_array_is_the_base_s(rng):
    rows = rng.standard_normal((5, 3))

    def tree(row, i, extra):
        return {"w": row, "none": None, "tag": "v1", "fc._extra_state": extra, "more": [b"x", extra]}

    alike = [tree(row, i, io.BytesIO(b"alike")) for i, row in enumerate(rows)]
    result = bragg.aggregate(alike, "median")
    assert (result["none"], result["tag"], result["more"][0]) == (None, "v1", b"x")
    assert result["fc._extra_state"].getvalue() == b"alike"
    # Of two hostile ones nobody takes it.
    alike[0]["fc._extra_state"] = io.BytesIO(b"hostile")
    alike[1]["tag"] = "v666"
    result = bragg.aggregate(alike, "median")
    assert result["fc._extra_state"].getvalue() == b"alike"
    assert result["tag"] == "v1"
    differing = [tree(row, i, io.BytesIO(bytes([i]))) for i, row in enumerate(rows)]
    with pytest.warns(UserWarning, match=r"left out of the result: \['fc._extra_state'\], \['more'\]\[1\]:"):
        result = bragg.aggregate(differing, "median")
    assert list(result) == ["w", "none", "tag", "more"]
    assert result["more"] == [b"x", None]
    base = tree(rows[0], 9, io.BytesIO(b"base"))
    result = bragg.aggregate(differing, "median", base=base)
    assert result["fc._extra_state"] is base["fc._extra_state"]
    assert (result["w"] == np.median(rows, axis=0)).all()
    out = tree(np.zeros(3), 9, "kept")
    bragg.aggregate(differing, "median", out=out)
    assert (out["w"] == np.median(rows, axis=0)).all()
    assert out["fc._extra_state"] == "kept"


def test_each_leaf_has_its_own_dtype(library, rng):
    names = [name for name in ("bfloat16", "float32", "float16", "float64") if name in library.dtypes()]
    rows = rng.standard_normal((7, len(names), 40))
    given, wide = [], []
    for row in rows:
        values = {name: part.astype(dtype_named(name)) for name, part in zip(names, row)}
        given.append({name: library.array(part) for name, part in values.items()})
        wide.append({name: part.astype(np.float64) for name, part in values.items()})
    for rule in ("median", "krum(f=1)"):
        result, report = bragg.aggregate(given, rule, return_report=True)
        expected, like = bragg.aggregate(wide, rule, return_report=True)
        assert report.selected == like.selected
        for name, array in result.items():
            assert library.is_one(array)
            assert array.dtype == given[0][name].dtype
            assert (library.values(array).astype(np.float64) == expected[name]).all()
    if library.name == "jax":
        return
    out = {name: library.array(np.zeros(40, dtype_named(name))) for name in names}
    bragg.aggregate(given, "krum(f=1)", out=out)
    plan_out = {name: library.array(np.zeros(40, dtype_named(name))) for name in names}
    bragg.Plan("krum(f=1)", given).run(given, plan_out)
    for name in names:
        assert library.values(out[name]).tobytes() == library.values(result[name]).tobytes()
        assert library.values(plan_out[name]).tobytes() == library.values(result[name]).tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_judged_by_some_tensors(dtype, rng):
    """Weights of size 1e-2 and statistics of 1e4: one honest row has others, and one liar has other weights."""
    weights = rng.normal(0, 1e-2, (9, 40))
    weights[8] *= -10
    statistics = 1e4 + rng.standard_normal((9, 20))
    statistics[3] += 500
    given = [
        {"conv": {"weight": w.astype(np.float32)}, "bn": [s.astype(dtype)], "n": np.array(i)}
        for i, (w, s) in enumerate(zip(weights, statistics))
    ]
    rule = "multi_krum(f=1)"
    alone = bragg.aggregate([row["conv"]["weight"] for row in given], rule, return_report=True)[1]
    assert not alone.selected[8]
    assert alone.selected[3]
    for options in (
        {"judge_by": "conv.weight"},
        {"judge_by": ["conv.*"]},
        {"ignore_in_distances": "bn.[0-9]"},
        {"ignore_in_distances": ("bn*",), "judge_by": "*"},
    ):
        result, report = bragg.aggregate(given, rule, return_report=True, **options)
        assert report.weights == alone.weights
        expected = np.average([row["bn"][0] for row in given], axis=0, weights=alone.weights)
        np.testing.assert_allclose(result["bn"][0], expected, rtol=1e-6)
        typed = bragg.aggregate_with_report(given, rule, **options)
        assert typed.report.weights == alone.weights
        plan = bragg.Plan(rule, given, **options)
        out = {"conv": {"weight": np.zeros(40, np.float32)}, "bn": [np.zeros(20, dtype)], "n": np.array(0)}
        for _ in range(2):
            plan.run(given, out)
            assert (out["bn"][0] == result["bn"][0]).all()
        spoiled = bragg.aggregate([*given[:8], None], rule, return_report=True, **options)[1]
        assert not spoiled.selected[8]
    # The plans of calls are not mixed up.
    misled = bragg.aggregate(given, rule, return_report=True)[1]
    assert misled.selected[8]
    assert not misled.selected[3]
    points = bragg.pre_aggregate(given, "nnm(f=1)", ignore_in_distances="bn.0")
    nearest = bragg.pre_aggregate([{"conv": row["conv"]} for row in given], "nnm(f=1)")
    np.testing.assert_allclose(points[0]["conv"]["weight"], nearest[0]["conv"]["weight"], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"judge_by": "b"}, ValueError, "judge_by: no tensor has a name like 'b'; there are 'a.0', 'a.1'"),
        ({"ignore_in_distances": ["a.0", "n"]}, ValueError, "ignore_in_distances: no tensor has a name like 'n'"),
        ({"ignore_in_distances": "a.*"}, ValueError, "no tensor is"),
        ({"judge_by": "a.0", "scope": "per_tensor"}, ValueError, "judged: .* per_tensor"),
        ({"judge_by": 3}, TypeError, "judge_by = 3, ignore_in_distances = None; need patterns"),
        ({"judge_by": [3]}, TypeError, r"judge_by = \[3\]"),
    ],
)
def test_patterns_that_cannot_be_are_refused(options, error, what):
    given = [{"a": [np.ones(3), np.ones(2)], "n": np.array(i)} for i in range(5)]
    with pytest.raises(error, match=what):
        bragg.aggregate(given, "krum(f=1)", **options)
    with pytest.raises(ValueError, match="arrays alone have no names"):
        bragg.aggregate(np.ones((5, 3)), "krum(f=1)", judge_by="*")


def write_safetensors(path, tensors):
    names = {
        np.dtype("float32"): "F32",
        np.dtype("float16"): "F16",
        np.dtype("float64"): "F64",
        np.dtype("int64"): "I64",
        np.dtype("bool"): "BOOL",
        np.dtype("uint8"): "U8",
    }
    header, data = {}, b""
    for name, array in tensors.items():
        header[name] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    dtypes = {
        "F32": np.float32,
        "F16": np.float16,
        "F64": np.float64,
        "I64": np.int64,
        "BOOL": np.bool_,
        "U8": np.uint8,
    }
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = (8 + length + at for at in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[first:last], dtypes[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def models(rng, n, with_f64=False):
    return [
        {
            "half": rng.standard_normal(50_000).astype(np.float16),
            "weight": rng.standard_normal((3, 4)).astype(np.float32),
            **({"wide": rng.standard_normal(30)} if with_f64 else {}),
            "steps": np.array(rng.integers(-9, 9), np.int64),
            "mask": rng.integers(0, 2, 5).astype(bool),
            "codes": rng.integers(0, 255, (2, 2)).astype(np.uint8),
        }
        for _ in range(n)
    ]


@pytest.mark.parametrize("with_f64", [False, True])
@pytest.mark.parametrize("n", [4, 5])
def test_files_give_the_same_bits(n, with_f64, rng, command, tmp_path):
    """Integers too: the command's lower median. Tensors of several dtypes are judged together, and written apart."""
    given = models(rng, n, with_f64)
    weights = [1.0, 2.0, -1.0, *[0.0] * (n - 4), 1.5]
    for i, model in enumerate(given):
        write_safetensors(tmp_path / f"{i}.safetensors", model)
    for rule, options, more in [
        ("nnm(f=1) | median", [], {}),
        ("nnm(f=1) | median", ["--weights", ",".join(map(str, weights))], {"weights": weights}),
        ("geometric_median", [], {}),
    ]:
        command(
            "aggregate",
            *sorted(tmp_path.glob("?.safetensors")),
            "-r",
            rule,
            "-o",
            tmp_path / "out.safetensors",
            *options,
        )
        from_files = read_safetensors(tmp_path / "out.safetensors")
        result = bragg.aggregate(given, rule, **more)
        assert result.keys() == from_files.keys()
        for name, array in result.items():
            assert array.dtype == from_files[name].dtype
            assert array.tobytes() == from_files[name].tobytes(), name


def test_integers_of_every_library(library, rng):
    given = models(rng, 5)
    if "float16" not in library.dtypes():
        given = [{name: array for name, array in model.items() if name != "half"} for model in given]
    result = bragg.aggregate([{k: library.array(v) for k, v in model.items()} for model in given], "median")
    expected = bragg.aggregate(given, "median")
    for name, array in expected.items():
        assert library.is_one(result[name])
        assert (library.values(result[name]) == array).all(), name
    assert int(expected["steps"]) == sorted(int(model["steps"]) for model in given)[2]


def test_integers_go_to_out(rng):
    given, out = models(rng, 5), models(rng, 1)[0]
    expected = bragg.aggregate(given, "median")
    assert bragg.aggregate(given, "median", out=out) is out
    for name, array in expected.items():
        assert (out[name] == array).all()


def test_integers_that_differ_are_refused(rng):
    given = models(rng, 3)
    given[1]["steps"] = given[1]["steps"].astype(np.int32)
    with pytest.raises(ValueError, match=r"^updates\[1\]\['steps'\]: int32 of shape \(\); needs int64 of shape \(\)"):
        bragg.aggregate(given, "median", bad_inputs="error")
    assert bragg.aggregate(given, "trimmed_mean(f=1)")["steps"] == min(given[0]["steps"], given[2]["steps"])


def test_nothing_but_integers(rng):
    result = bragg.aggregate([{"n": np.array([i, 2 * i])} for i in range(5)], "median")
    assert result["n"].tolist() == [2, 4]
    with pytest.raises(ValueError, match="trimmed_mean: n = 5"):
        bragg.aggregate([{"n": np.array([i, 2 * i])} for i in range(5)], "trimmed_mean(f=4)")


def test_a_module_s_state():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    modules = [torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)) for _ in range(5)]
    for i, module in enumerate(modules):
        for _ in range(i):
            module(torch.randn(4, 3))
    modules[3][0].weight.data.fill_(float("nan"))
    states = [module.state_dict() for module in modules]
    result = bragg.aggregate(states, "nnm(f=1) | trimmed_mean(f=1)")
    assert type(result) is type(states[0])
    assert list(result) == list(states[0])
    assert int(result["1.num_batches_tracked"]) == 2
    assert all(torch.isfinite(tensor).all() for tensor in result.values())
    modules[0].load_state_dict(result)
    # In place, into the parameters themselves.
    bragg.aggregate(states[1:], "median", out=modules[0].state_dict())
    assert torch.equal(
        modules[0][0].bias.detach(), torch.stack([s["0.bias"] for s in states[1:]]).sort(0).values[1:3].mean(0)
    )
