# SPDX-License-Identifier: Apache-2.0
"""State dicts and other trees of arrays."""

import collections
import json
import struct

import bragg
import numpy as np
import pytest

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
        (lambda t: t["scale"].update(z=[1]), TypeError, r"updates\[2\]\['scale'\]\['z'\]: list; needs an array"),
        (lambda t: t["scale"].update(z=None), TypeError, r"updates\[2\]\['scale'\]\['z'\]: NoneType is no array"),
        (
            lambda t: t["scale"].update(z=np.ones(1)),
            ValueError,
            r"updates\[2\]\['scale'\]\['z'\]: shape \(1,\); needs \(\)",
        ),
        (
            lambda t: t["scale"].update(z=np.float32(1)),
            ValueError,
            r"updates\[2\]\['scale'\]\['z'\]: dtype f32; needs f64",
        ),
    ],
)
def test_what_differs_is_named(rng, spoil, error, what):
    given = trees(rng)
    spoil(given[2])
    with pytest.raises(error, match="^" + what):
        bragg.aggregate(given, "median")


def test_a_tree_of_nothing_is_refused():
    for updates in ([{}, {}], [[], []], [{"a": ()}, {"a": ()}]):
        with pytest.raises(ValueError, match=r"^updates\[0\]: holds no arrays"):
            bragg.aggregate(updates, "median")


def write_safetensors(path, tensors):
    names = {np.dtype("float32"): "F32", np.dtype("int64"): "I64", np.dtype("bool"): "BOOL", np.dtype("uint8"): "U8"}
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
    dtypes = {"F32": np.float32, "I64": np.int64, "BOOL": np.bool_, "U8": np.uint8}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = (8 + length + at for at in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[first:last], dtypes[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def models(rng, n):
    return [
        {
            "weight": rng.standard_normal((3, 4)).astype(np.float32),
            "steps": np.array(rng.integers(-9, 9), np.int64),
            "mask": rng.integers(0, 2, 5).astype(bool),
            "codes": rng.integers(0, 255, (2, 2)).astype(np.uint8),
        }
        for _ in range(n)
    ]


@pytest.mark.parametrize("n", [4, 5])
def test_files_give_the_same_bits(n, rng, command, tmp_path):
    """Integers too: the command's lower median."""
    given = models(rng, n)
    weights = [1.0, 2.0, -1.0, *[0.0] * (n - 4), 1.5]
    for i, model in enumerate(given):
        write_safetensors(tmp_path / f"{i}.safetensors", model)
    for options, more in [([], {}), (["--weights", ",".join(map(str, weights))], {"weights": weights})]:
        rule = "nnm(f=1) | median"
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
        bragg.aggregate(given, "median")


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
