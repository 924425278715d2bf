# SPDX-License-Identifier: Apache-2.0
"""Plans: made once, run every round."""

import threading
import time

import bragg
import numpy as np
import pytest


def test_a_plan_gives_what_aggregate_gives(library, rng):
    if library.name == "jax":
        pytest.skip("its arrays are not written to")
    rows = rng.standard_normal((9, 40)).astype(np.float32)
    array = library.array(rows)
    plan = bragg.Plan("nnm(f=2) | trimmed_mean(f=2)", array)
    out = library.array(np.zeros(40, np.float32))
    for _ in range(3):
        rows = rng.standard_normal((9, 40)).astype(np.float32)
        assert plan.run(library.array(rows), out) is out
        plan.check()
        assert plan.wait() == "ok"
        assert (library.values(out) == bragg.aggregate(rows, "nnm(f=2) | trimmed_mean(f=2)")).all()
        _, report = bragg.aggregate(rows, "nnm(f=2) | trimmed_mean(f=2)", return_report=True)
        assert repr(plan.reports) == repr((report,))  # NaN is not NaN
    assert repr(plan) == "Plan('nnm(f=2) | trimmed_mean(f=2)', n=9)"


def test_the_old_name_of_wait_still_works(rng):
    plan = bragg.Plan("median", rng.standard_normal((5, 3)))
    with pytest.warns(DeprecationWarning, match=r"call wait\(\)"):
        assert plan.status() == "ok"


def test_state_goes_on(rng):
    rows = rng.standard_normal((9, 40))
    plan = bragg.Plan("centered_clipping(tau=0.5)", rows)
    out, first = np.zeros(40), np.zeros(40)
    plan.run(rows, first)
    plan.run(rows, out)
    assert (first == bragg.aggregate(rows, "centered_clipping(tau=0.5)")).all()
    expected = bragg.aggregate(rows, "centered_clipping(tau=0.5)", base=first)
    np.testing.assert_allclose(out, expected, rtol=1e-12)
    assert not np.allclose(out, first)
    plan.reset()
    plan.run(rows, out)
    assert (out == first).all()


def test_aggregate_has_no_state(rng):
    rows = rng.standard_normal((9, 40))
    for text in ("centered_clipping(tau=0.5)", "bucketing(s=2) | median"):
        first = bragg.aggregate(rows, text)
        for _ in range(3):
            assert (bragg.aggregate(rows, text) == first).all()


def test_the_round_goes_on(rng):
    rows = rng.standard_normal((9, 40))
    plan = bragg.Plan("bucketing(s=2) | median", rows)
    outs = [plan.run(rows, np.zeros(40)) for _ in range(4)]
    assert (outs[0] == bragg.aggregate(rows, "bucketing(s=2) | median")).all()
    assert any((out != outs[0]).any() for out in outs[1:])


def test_trees(rng):
    models = [{"a": rng.standard_normal(3), "n": np.array(i)} for i in range(5)]
    plan = bragg.Plan("krum(f=1)", models)
    out = {"a": np.zeros(3), "n": np.array(0)}
    assert plan.run(models, out) is out
    expected = bragg.aggregate(models, "krum(f=1)")
    assert (out["a"] == expected["a"]).all()
    assert out["n"] == expected["n"] == 2


@pytest.mark.parametrize(("on_failure", "left"), [("keep", 7), ("nan", np.nan), ("zero", 0)])
def test_what_a_failed_run_leaves(on_failure, left):
    rows = np.ones((5, 3))
    plan = bragg.Plan("krum(f=1)", rows, on_failure=on_failure)
    assert plan.wait() == "ok"
    rows[[1, 2]] = np.nan
    out = plan.run(rows, np.full(3, 7.0))
    np.testing.assert_array_equal(out, np.full(3, left, float))
    assert plan.wait() == "too_many_nonfinite"
    assert plan.reports[0].nonfinite == (0, 3, 3, 0, 0)
    with pytest.raises(bragg.AggregationError, match="rows 1 .*, 2 ") as caught:
        plan.check()
    assert repr(caught.value.reports) == repr(plan.reports)
    rows[:] = 1
    assert (plan.run(rows, out) == 1).all()
    plan.check()


def test_updates_of_another_shape_are_refused(rng):
    rows = rng.standard_normal((5, 3))
    plan = bragg.Plan("median", rows)
    for updates, out, what in [
        (rows[:4], np.zeros(3), "updates: n = 4; the plan is for n = 5"),
        (rows[:, :2], np.zeros(2), "updates: tensor 0 has 2 elements; the plan is for 3"),
        (rows.astype(np.float32), np.zeros(3), "out: dtype f64; needs|updates: dtype f32; the plan is for f64"),
        (rows, np.zeros(2), r"out: shape \(2,\); needs \(3,\)"),
    ]:
        with pytest.raises(ValueError, match=what):
            plan.run(updates, out)
    with pytest.raises(TypeError, match="out: NoneType is no array"):
        plan.run(rows, None)


def test_bad_options_are_refused():
    rows = np.ones((5, 3))
    for options, what in [
        ({"on_failure": "raise"}, "on_failure = 'raise'; needs 'keep', 'nan' or 'zero'"),
        ({"scope": "none"}, "scope = 'none'"),
        ({"threads": -2}, "threads = -2"),
        ({"out_dtype": "f16"}, "out_dtype = f16"),
    ]:
        with pytest.raises(ValueError, match="^" + what):
            bragg.Plan("median", rows, **options)
    with pytest.raises(ValueError, match="^krum: n = 5"):
        bragg.Plan("krum(f=2)", rows)


def test_a_plan_serves_one_thread_at_a_time(rng):
    rows = rng.standard_normal((64, 300_000), dtype=np.float32)
    plan = bragg.Plan("nnm(f=12) | trimmed_mean(f=12)", rows, threads=1)
    refused, stop = [], threading.Event()

    def work():
        out = np.zeros(300_000, np.float32)
        while not stop.is_set():
            attempt(lambda: plan.run(rows, out))

    def attempt(call):
        try:
            call()
        except RuntimeError as error:
            refused.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 60
    while not refused and time.monotonic() < deadline:
        attempt(plan.wait)
    stop.set()
    thread.join()
    assert set(refused) == {"the plan is in use by another thread; give each thread a plan of its own"}
    assert plan.wait() == "ok"


def test_out_of_another_dtype(rng):
    rows = rng.standard_normal((5, 3)).astype(np.float16)
    plan = bragg.Plan("median", rows, out_dtype="f32")
    out = plan.run(rows, np.zeros(3, np.float32))
    assert (out == np.median(rows.astype(np.float32), axis=0)).all()
    with pytest.raises(ValueError, match="^out: dtype f16; needs f32"):
        plan.run(rows, np.zeros(3, np.float16))
