# SPDX-License-Identifier: Apache-2.0
"""bragg.training, against values by hand."""

import math
import sys

import bragg
import numpy as np
import pytest
from bragg import training

LR = 0.5


@pytest.fixture(params=["numpy", "torch", "jax"])
def library(request):
    from conftest import Library

    return Library(pytest.importorskip(request.param))


def tree(library, *values):
    """Of two arrays, one of 16 bits, a counter, and text."""
    first, second = np.array(values[:2], np.float32), np.array(values[2:], np.float16)
    return {"a": library.array(first), "b": [library.array(second)], "steps": library.array(np.array([3])), "kind": "x"}


def values(library, made):
    """Of its floating-point arrays; of the rest it is checked that it came back."""
    assert made["kind"] == "x" and int(library.values(made["steps"])[0]) == 3
    assert library.is_one(made["a"]) and library.values(made["b"][0]).dtype == np.float16
    return [float(x) for leaf in (made["a"], made["b"][0]) for x in library.values(leaf)]


def test_worker_momentum(library):
    momentum = training.WorkerMomentum(0.75)
    assert values(library, momentum.step(tree(library, 4, -8, 16, 0))) == [1, -2, 4, 0]
    sent = momentum.step(tree(library, 4, 0, -16, 32))  # 0.75 m + 0.25 g
    assert values(library, sent) == [1.75, -1.5, -1, 8]
    kept = momentum.state_dict()
    # What holds NaN is sent as it is, and leaves no trace.
    assert values(library, momentum.step(tree(library, math.inf, 0, 16, 0)))[::2] == [math.inf, 3.25]
    again = training.WorkerMomentum(0.75)
    again.load_state_dict(kept)
    after = [0.75 * m + 0.25 * g for m, g in zip([1.75, -1.5, -1, 8], [4, 4, 4, 4])]
    assert values(library, again.step(tree(library, 4, 4, 4, 4))) == after
    assert values(library, momentum.step(tree(library, 4, 4, 4, 4)))[:2] == after[:2]


def test_momentum_of_16_bits_is_kept_in_32():
    """1 + 2^-11 has no place in float16: added up in it, it would be lost."""
    momentum = training.WorkerMomentum(0.5)
    for _ in range(24):
        sent = momentum.step(np.array([1 + 2**-10], np.float16))
    assert sent.dtype == np.float16 and sent == np.float16(1 + 2**-10)
    assert momentum.state_dict()["momentum"].dtype == np.float32


def test_variance_reduction(library):
    reduced = training.VarianceReduction(0.5)
    first = reduced.step(tree(library, 4, -8, 16, 0))
    assert values(library, first) == [4, -8, 16, 0]
    with pytest.raises(ValueError, match="previous: None; needs the gradient of this batch"):
        reduced.step(tree(library, 1, 1, 1, 1))
    # g + 0.5 (m − g′)
    sent = reduced.step(tree(library, 2, 2, 2, 2), tree(library, 0, -8, 8, 4))
    assert values(library, sent) == [4, 2, 6, 0]
    bad = reduced.step(tree(library, 2, 2, 2, 2), tree(library, math.nan, 0, 2, 2))
    assert values(library, bad) == [4, 2, 4, 1]  # m stays, of the first array
    spoilt = reduced.step(tree(library, math.inf, 2, 2, 2), tree(library, 0, 0, 2, 2))
    assert values(library, spoilt) == [math.inf, 2, 3, 1.5]
    assert library.values(reduced.state_dict()["momentum"]["a"]).tolist() == [4, 2]
    # Where all gradients of a round are those of the round before, nothing is noise: m is the gradient.
    exact = training.VarianceReduction(0.9)
    gradient = np.array([1.0, 2.0])
    for _ in range(5):
        assert exact.step(gradient, gradient) == pytest.approx(gradient)


def test_what_is_returned_is_the_caller_s(library):
    """What is written to it does not change what is kept."""
    if library.name.startswith("jax"):
        pytest.skip("arrays of JAX cannot be written to")
    for made in (training.WorkerMomentum(0.5), training.VarianceReduction(0.5)):
        gradient = library.array(np.array([4.0]))
        made.step(gradient)[:] = 100
        gradient[:] = 50
        made.state_dict()["momentum"][:] = 7
        assert made.state_dict()["momentum"] in (2.0, 4.0)
    server = training.AboutLast("mean")
    server.aggregate(library.array(np.ones((3, 2))))[:] = 9
    assert (server.state_dict()["last"] == 1).all()


def test_a_rule_about_its_last_result(rng):
    """Centered clipping as a plan has it, which starts at its last result."""
    rule = "centered_clipping(tau=0.5, iters=2)"
    about = training.AboutLast(rule)
    rows = rng.standard_normal((4, 7, 30)) + 3
    plan = bragg.Plan(rule, rows[0])
    for i, updates in enumerate(rows):
        if i == 2:
            kept = about.state_dict()
            about = training.AboutLast(rule)
            about.load_state_dict(kept)
        expected = np.empty(30)
        plan.run(updates, expected)
        plan.check()
        assert about.aggregate(updates) == pytest.approx(expected, rel=1e-9)
        assert about.report.status == "ok"
    # Any rule: radii are about the last result.
    clipped = training.AboutLast("clip(c=20) | mean", threads=1)
    clipped.aggregate(np.array([[10.0, 0], [10, 0]]), weights=[1, 1])
    assert clipped.aggregate(np.array([[10.0, 30], [14, 0]])) == pytest.approx([12, 10])  # from (10, 0) 20 and 4 away
    with pytest.raises(TypeError, match="base: AboutLast takes no such option"):
        training.AboutLast("median", base=rows[0])


def test_the_last_result_of_trees_with_text(library):
    """Text that differs stopped the second round, and what all share stayed that of the first."""
    about = training.AboutLast("clip(c=1) | mean")

    def updates(k, value):
        rows = [tree(library, *[value + i] * 4) | {"kind": f"round{k}", "id": f"worker{i}"} for i in range(3)]
        return [*rows, "no update"]

    for k, value in enumerate((-1.0, 10.0, 20.0)):
        with pytest.warns(UserWarning, match="left out of the result: .'id'.: no array"):
            made = about.aggregate(updates(k, value), weights=[1, 1, 1, 0])
        assert made["kind"] == f"round{k}" and "id" not in made
        kept = about.state_dict()
        assert kept["last"]["kind"] is None and kept["last"]["id"] is None
        about = training.AboutLast("clip(c=1) | mean")
        about.load_state_dict(kept)
        assert library.values(made["a"]) == pytest.approx([k / 2] * 2, abs=1e-3)  # from 0, 1/2 a round in each of four


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_last_result_of_lists_and_of_other_dtypes(dtype):
    about = training.AboutLast("clip(c=1) | mean", out_dtype="float32")
    rows = np.full((3, 4), 6, dtype)
    for k in range(3):
        made = about.aggregate(rows)
        assert made.dtype == np.float32 and made == pytest.approx([(k + 1) / 2] * 4, rel=1e-3)
        assert about.state_dict()["last"].dtype == rows.dtype
    lists = training.AboutLast("mean")
    for _ in range(2):
        made = lists.aggregate([{"w": np.ones(2), "l": [1.0, 3.0]}] * 3)
        assert made["l"] == [1, 3]
        made["l"][0] = 9.0
        assert lists.state_dict()["last"]["l"] == [1, 3]
    for options in ({"base": rows[0]}, {"return_report": True}, {"out": rows[0]}, {"bogus": 1}):
        with pytest.raises(TypeError, match=f"{next(iter(options))}: AboutLast takes no such option"):
            lists.aggregate(rows, **options)
        with pytest.raises(TypeError, match=f"{next(iter(options))}: AboutLast takes no such option"):
            training.AboutLast("mean", **options)
    for rule in ("nope(f=1)", "clip(c=1)", "krum"):
        with pytest.raises(bragg.ParseError):
            training.AboutLast(rule)


def after(library, server, changes):
    """Models after steps by these changes of each coordinate, from (1, 1, 1, 1)."""
    model = tree(library, 1, 1, 1, 1)
    for k, change in enumerate(changes):
        if k == 1:  # a new server goes on
            state, server = server.state_dict(), type(server)(**server.given)
            server.load_state_dict(state)
        at = values(library, model)
        model = server.step(model, tree(library, *(x + change for x in at)))
    return values(library, model)


def with_options(kind, **options):
    made = kind(**options)
    made.given = options
    return made


def test_the_server_s_sgd(library):
    # v: 2, 0.5·2 − 1 = 0, 0.5·0 + 4 = 4
    server = with_options(training.ServerSgd, lr=LR, momentum=0.5)
    assert after(library, server, [2, -1, 4]) == [1 + LR * (2 + 0 + 4)] * 4
    assert after(library, with_options(training.ServerSgd, lr=LR), [2, -1, 4]) == [1 + LR * (2 - 1 + 4)] * 4


@pytest.mark.parametrize("kind", [training.ServerAdam, training.ServerYogi])
def test_adaptive_servers(kind, library):
    b1, b2, tau = 0.5, 0.75, 0.25
    server = with_options(kind, lr=LR, beta1=b1, beta2=b2, tau=tau)
    x, m, v = 1.0, 0.0, tau**2
    for change in (2, -1, 0.5):
        m = b1 * m + (1 - b1) * change
        if kind is training.ServerAdam:
            v = b2 * v + (1 - b2) * change**2
        else:
            v -= (1 - b2) * change**2 * np.sign(v - change**2)
        x += LR * m / (math.sqrt(v) + tau)
    assert after(library, server, [2, -1, 0.5]) == pytest.approx([x] * 4, rel=2e-3)  # float16
    assert after(library, with_options(kind, **server.given), [2, -1, 0.5])[:2] == pytest.approx([x] * 2, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (training.ServerSgd, {"lr": 0.3}),
        (training.ServerSgd, {"lr": 0.3, "momentum": 0.9}),
        (training.ServerAdam, {"lr": 0.03}),
        (training.ServerYogi, {"lr": 0.03, "beta1": 0.8, "beta2": 0.9, "tau": 0.02}),
    ],
)
def test_the_command_takes_the_same_steps(kind, options, rng, command, tmp_path):
    """f64: bit for bit."""
    server, name = kind(**options), kind.__name__.removeprefix("Server").lower()
    given = [word for key, value in options.items() for word in (f"--server-{key}", value)]
    if len(options) > 1 or name == "adam":
        given += ["--server-state", tmp_path / "state.safetensors"]
    model = rng.standard_normal(5000)
    for step in range(4):
        rows = model + rng.standard_normal((7, 5000)) * 10.0 ** -rng.integers(-2, 6, 5000)
        np.save(tmp_path / "rows.npy", rows)
        np.save(tmp_path / "base.npy", model)
        files = ["--base", tmp_path / "base.npy", "--output", tmp_path / "next.npy", "--quiet"]
        command("aggregate", tmp_path / "rows.npy", "--rule", "median", *files, "--server-optimizer", name, *given)
        model = server.step(model, np.median(rows, axis=0))
        np.testing.assert_array_equal(np.load(tmp_path / "next.npy"), model, f"step {step}")


def test_servers_take_numbers_and_refuse_what_is_not_finite():
    assert training.ServerSgd(0.5).step(1.0, 2.0) == 1.5
    assert training.ServerYogi(1.0, 0, 0, 1.0).step(1.0, 3.0) == pytest.approx(1 + 2 / (math.sqrt(1 + 4) + 1))
    for aggregate in (np.array([math.nan]), np.array([math.inf])):
        server = training.ServerAdam(1.0)
        with pytest.raises(ValueError, match="aggregate: it holds NaN or infinity"):
            server.step(np.array([1.0]), aggregate)
        assert server.state_dict() == {"first": None, "second": None}
    model = {"w": np.ones(2), "steps": np.array(4)}
    assert training.ServerSgd(1.0).step(model, {"w": np.zeros(2), "steps": np.array(9)})["steps"] == 9


def test_updates_are_clipped_together(library):
    made = training.clipped(tree(library, 3, 0, 0, 4), 1)
    assert values(library, made) == pytest.approx([0.6, 0, 0, 0.8], rel=1e-3)
    assert values(library, training.clipped(tree(library, 3, 0, 0, 4), 5)) == [3, 0, 0, 4]
    assert values(library, training.clipped(tree(library, 0, 0, 0, 0), 5)) == [0, 0, 0, 0]
    huge = training.clipped(np.array([3e200, 4e200]), 1)
    assert huge == pytest.approx([0.6, 0.8])
    huge = training.clipped({"a": np.full(4, 1e308), "b": np.full(2, 1e30, np.float32)}, 1)
    assert huge["a"] == pytest.approx([0.5] * 4) and huge["b"].tolist() == [0, 0]
    with pytest.raises(ValueError, match="update: holds NaN"):
        training.clipped(np.array([math.nan]), 1)


@pytest.mark.parametrize("norm", [3.1e-5, 1e-3, 0.3, 100])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_stored_is_no_longer_than_it_is_clipped_to(dtype, norm):
    """A million values alike in float16 were 1.9 times as long, since each was rounded up."""
    from conftest import dtype_named

    made = training.clipped(np.ones(10**6, dtype_named(dtype)), norm)
    length = np.linalg.norm(made.astype(np.float64))
    assert length <= norm * (1 + 1e-6)
    assert length >= 0.9 * norm or norm < 1e-4  # half of float16's least value each
    assert training.clipped(made, norm).tobytes() == made.tobytes()


def test_noise_is_normal_and_repeats(library):
    zeros = tree(library, 0, 0, 0, 0)
    noise = training.GaussianNoise(2, 3, seed=7, worker=1)
    first = values(library, noise.add(zeros, 0))
    with pytest.raises(ValueError, match="round = 0; needs one above 0.*as a tree"):
        noise.add(zeros, 0)
    assert first == values(library, training.GaussianNoise(2, 3, seed=7, worker=1).add(zeros, 0))
    others = [noise.add(zeros, 1)] + [training.GaussianNoise(2, 3, s, w).add(zeros, 0) for s, w in ((8, 1), (7, 2))]
    drawn = [first, *(values(library, other) for other in others)]
    assert len({x for row in drawn for x in row}) == 16  # streams are apart
    # As documented: Philox with the key (seed, worker) and the round as the counter's highest word.
    philox = np.random.Philox(key=np.array([7, 1], np.uint64), counter=np.array([0, 0, 0, 0], np.uint64))
    assert first[0] == pytest.approx(6 * np.random.Generator(philox).standard_normal(), rel=1e-6)


def test_noise_has_its_deviation():
    noise = training.GaussianNoise(1.5, 2, seed=3, worker=0).add(np.full(40000, 10.0), 5) - 10
    assert abs(noise.mean()) < 5 * 3 / 200 and noise.std() == pytest.approx(3, rel=5 / math.sqrt(80000))
    unseeded = [training.GaussianNoise(1, 1).add(np.zeros(3), 0) for _ in range(2)]
    assert (unseeded[0] != unseeded[1]).all()


def test_epsilon():
    """Of the Gaussian mechanism by Rényi divergences: min over α of kα/(2σ²) + log((α−1)/α) − log(δα)/(α−1)."""
    pytest.importorskip("dp_accounting")
    sigma, rounds, delta = 4.0, 10, 1e-5
    best = min(
        rounds * a / (2 * sigma**2) + math.log((a - 1) / a) - math.log(delta * a) / (a - 1)
        for a in np.linspace(1.01, 200, 100000)
    )
    assert training.epsilon(sigma, rounds, delta) == pytest.approx(best, rel=0.01)
    assert training.epsilon(sigma, rounds, delta, sampling=0.1) < best / 2


def test_epsilon_names_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ImportError, match="pip install dp-accounting"):
        training.epsilon(1, 1, 1e-5)


def test_staleness_weights(rng):
    assert training.staleness_weights([0, 3, 8]) == pytest.approx([1, 0.5, 1 / 3])
    assert training.staleness_weights(np.array([0, 1]), exponent=2) == [1, 0.25]
    rows = rng.standard_normal((3, 5))
    late = bragg.aggregate(rows, "mean", weights=training.staleness_weights([0, 3, 8]))
    assert late == pytest.approx((rows[0] + rows[1] / 2 + rows[2] / 3) / (11 / 6))


@pytest.mark.parametrize(
    ("call", "error", "what"),
    [
        (lambda: training.WorkerMomentum(1), ValueError, r"beta = 1.0; needs a number in \[0, 1\)"),
        (lambda: training.WorkerMomentum("x"), TypeError, "beta = 'x'; needs a number"),
        (lambda: training.VarianceReduction(math.nan), ValueError, "beta = nan"),
        (lambda: training.ServerSgd(0), ValueError, "lr = 0.0; needs a number above 0"),
        (lambda: training.ServerSgd(1, 1), ValueError, "momentum = 1.0"),
        (lambda: training.ServerAdam(1, tau=0), ValueError, "tau = 0.0"),
        (lambda: training.ServerYogi(1, beta2=-1), ValueError, "beta2 = -1.0"),
        (lambda: training.AboutLast(3), TypeError, "rule: int"),
        (lambda: training.clipped(np.ones(2), -1), ValueError, "norm = -1.0"),
        (lambda: training.GaussianNoise(1, 1, -1), ValueError, "seed = -1"),
        (lambda: training.GaussianNoise(1, 0), ValueError, "sensitivity = 0.0"),
        (lambda: training.GaussianNoise(1, 1).add(np.ones(1), -1), ValueError, "round = -1"),
        (lambda: training.GaussianNoise(1, 1, seed=1), ValueError, "worker: None; needs a number of its own"),
        (lambda: training.GaussianNoise(1e308, 10), ValueError, "noise_multiplier . sensitivity = inf"),
        (lambda: training.GaussianNoise(1e-200, 1e-200), ValueError, "noise_multiplier . sensitivity = 0.0"),
        (lambda: training.epsilon(1, 0, 1e-5), ValueError, "rounds = 0"),
        (lambda: training.epsilon(1, 1, 0), ValueError, "delta = 0.0"),
        (lambda: training.epsilon(1, 1, 1e-5, 2), ValueError, "sampling = 2.0"),
        (lambda: training.staleness_weights([-1]), ValueError, "rounds: -1.0"),
        (lambda: training.staleness_weights([1], -1), ValueError, "exponent = -1.0"),
        (lambda: training.WorkerMomentum().load_state_dict({"first": None}), ValueError, "needs .'momentum'"),
        (lambda: training.WorkerMomentum().step({"w": [1, 2]}), TypeError, r"\['w'\].*needs arrays"),
    ],
)
def test_wrong_usage(call, error, what):
    with pytest.raises(error, match=what):
        call()


@pytest.mark.parametrize("dtype", ["longdouble", "complex64", "object", "float8_e5m2"])
def test_dtypes_that_are_not_computed_with_are_refused(dtype):
    """They came back as they were: unclipped, and without noise."""
    made = np.ones(2, getattr(pytest.importorskip("ml_dtypes"), dtype, dtype))
    noise = training.GaussianNoise(1, 1)
    for call in (training.WorkerMomentum().step, lambda x: training.clipped(x, 1), lambda x: noise.add(x, 0)):
        with pytest.raises(TypeError, match=rf"\['w'\]: dtype {np.dtype(made.dtype).name}; needs float16"):
            call({"v": np.ones(2), "w": made})
    with pytest.raises(TypeError, match="it: dtype complex; needs float16"):
        noise.add(1j, 0)
    assert noise.add({"w": np.ones(2), "steps": np.array(3), "kind": "x"}, 0)["steps"] == 3


@pytest.mark.parametrize("kind", [np.array, np.float64, np.float32])
def test_arrays_of_no_axes(kind):
    model, aggregate = {"scale": kind(1.0)}, {"scale": kind(3.0)}
    for server in (training.ServerSgd(0.5, 0.5), training.ServerAdam(0.5), training.ServerYogi(0.5)):
        for _ in range(2):
            made = server.step(model, aggregate)
            server.load_state_dict(server.state_dict())
        assert made["scale"] > 1 and getattr(made["scale"], "shape", ()) == ()
    sent = training.WorkerMomentum(0.5).step(np.array(4.0))
    assert isinstance(sent, np.ndarray) and sent.shape == () and sent == 2


def test_another_tree_or_shape_is_refused():
    momentum = training.WorkerMomentum(0.5)
    momentum.step({"w": np.ones(3)})
    with pytest.raises(ValueError, match=r"gradient: keys differ from those in the rounds before"):
        momentum.step({"v": np.ones(3)})
    with pytest.raises(
        ValueError, match=r"gradient\['w'\]: .* shape \(1,\) .*; needs .* shape \(3,\) .*, as in the rounds"
    ):
        momentum.step({"w": np.ones(1)})
    with pytest.raises(ValueError, match=r"gradient: ndarray; needs a dict, as in the rounds before"):
        momentum.step(np.ones(3))
    for lost, found in ((None, "NoneType"), (np.ones(3, int), r"int64 of shape \(3,\)")):  # its momentum was forgotten
        with pytest.raises(ValueError, match=rf"gradient\['w'\]: {found}; needs floating-point"):
            momentum.step({"w": lost})
    assert momentum.step({"w": np.ones(3)})["w"].tolist() == [0.75] * 3
    with pytest.raises(ValueError, match=r"aggregate: .* shape \(2,\) .*; needs .* shape \(3,\) .*, as in model"):
        training.ServerSgd(1).step(np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match=r"aggregate: int64 of shape \(1,\); needs floating-point"):
        training.ServerSgd(1).step(np.ones(1), np.ones(1, int))
    with pytest.raises(ValueError, match="model: it holds NaN"):
        training.ServerSgd(1).step(np.array([math.nan]), np.ones(1))


def test_another_library_is_refused(library):
    if library.name == "numpy":
        return
    momentum = training.WorkerMomentum()
    momentum.step(library.array(np.ones(2, np.float32)))
    with pytest.raises(ValueError, match=rf"gradient: .*\(numpy\); needs .*\({library.name}"):
        momentum.step(np.ones(2, np.float32))


@pytest.mark.parametrize(
    ("state", "what"),
    [
        (None, "state: NoneType; needs"),
        ({1: None}, r"state: \['1'\]; needs"),
        ({"first": "junk", "second": "junk"}, "state.'first'.: holds no arrays"),
        ({"first": np.ones(2), "second": None}, "state.'second'.: NoneType, and 'first' not"),
        ({"first": np.ones(2), "second": np.ones(3)}, r"state.'second'.: .* shape \(3,\)"),
        ({"first": np.ones(2), "second": np.array([1, math.nan])}, "state.'second'.: holds NaN"),
    ],
)
def test_states_that_are_none_are_refused(state, what):
    server = training.ServerAdam(1)
    with pytest.raises(ValueError, match=what):
        server.load_state_dict(state)
    assert server.state_dict() == {"first": None, "second": None}


@pytest.mark.filterwarnings("ignore:overflow")
def test_what_would_overflow_is_refused_and_leaves_no_trace():
    def f32(value):
        return np.array([value], np.float32)

    for server, change in (
        (training.ServerAdam(0.1), 1e20),
        (training.ServerYogi(0.1), 1e20),
        (training.ServerSgd(1, 0.9), 3e38),
        (training.ServerSgd(1e300), 1),
    ):
        if change == 3e38:
            server.step(f32(0), f32(change))  # once it has a place
        before = server.state_dict()
        with pytest.raises(ValueError, match="aggregate: too far from the model.*would overflow; leave this round out"):
            server.step(f32(0), f32(change))
        assert server.state_dict() == before
    with pytest.raises(ValueError, match="the next model would overflow"):
        training.ServerSgd(2).step(np.array([0], np.float16), np.array([6e4], np.float16))
    reduced = training.VarianceReduction(0.5)
    reduced.step(f32(3e38))
    assert reduced.step(f32(3e38), f32(-3e38)) == f32(3e38)  # as it was
    assert np.isfinite(reduced.step(f32(1), f32(1)))
    about = training.AboutLast("mean", allow_nonfinite=True)
    about.aggregate(np.ones((2, 3)))
    about.aggregate(np.full((2, 3), math.nan))
    assert about.state_dict()["last"].tolist() == [1, 1, 1]


def test_the_package_s_own_example():
    import doctest

    assert doctest.testmod(training) == (0, 3)
