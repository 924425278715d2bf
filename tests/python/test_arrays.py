# SPDX-License-Identifier: Apache-2.0
"""Arrays of every library: read where they are, never written to, and refused with reasons."""

import gc
import sys
import threading
import time
import tracemalloc
import weakref

import bragg
import numpy as np
import pytest
from conftest import dtype_named


def peak_resident():
    """Bytes. The kernel's own count, so that no allocator hides anything."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def reset_peak():
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")


def test_forms_agree(library, rng):
    rows = rng.standard_normal((8, 30)).astype(np.float32)
    array = library.array(rows)
    expected = np.median(rows, axis=0)
    for updates in (array, [array[i, ...] for i in range(8)], tuple(array[i, ...] for i in range(8))):
        assert (library.values(bragg.aggregate(updates, "median")) == expected).all()
    shaped = bragg.aggregate(library.array(rows.reshape(8, 2, 3, 5)), "median")
    assert (library.values(shaped) == expected.reshape(2, 3, 5)).all()
    (in_list,) = bragg.aggregate([[array[i, ...]] for i in range(8)], "median")
    assert (library.values(in_list) == expected).all()


def test_result_is_of_the_same_kind_and_dtype(library, rng):
    for name in library.dtypes():
        array = library.array(rng.standard_normal((5, 7)).astype(dtype_named(name)))
        result = bragg.aggregate(array, "median")
        assert library.is_one(result)
        assert result.dtype == array.dtype
        assert tuple(result.shape) == (7,)


def test_out_dtype_widens(library, rng):
    if "float16" not in library.dtypes():
        pytest.skip("has none of 16 bits")
    for name in ("float16", "bfloat16"):
        rows = rng.standard_normal((5, 7)).astype(dtype_named(name))
        wide = bragg.aggregate(library.array(rows), "median", out_dtype="float32")
        assert library.values(wide).dtype == np.float32
        assert (library.values(wide) == np.median(rows.astype(np.float32), axis=0)).all()


@pytest.mark.parametrize("spelled", ["f32", "float32", np.float32, np.dtype("float32"), "torch"])
def test_out_dtype_may_be_spelled(spelled):
    if spelled == "torch":
        spelled = pytest.importorskip("torch").float32
    rows = np.ones((3, 4), np.float16)
    assert bragg.aggregate(rows, "mean", out_dtype=spelled).dtype == np.float32


def test_nothing_is_copied(rng):
    """64 MB of updates; what the process grows by is less than one of them."""
    n, d = 16, 1_000_000
    array = rng.standard_normal((n, d), dtype=np.float32)
    models = [{"a": array[i, : d // 2], "b": array[i, d // 2 :]} for i in range(n)]
    out = np.zeros(d, np.float32)
    tree_out = {"a": np.zeros(d // 2, np.float32), "b": np.zeros(d // 2, np.float32)}

    def calls():
        bragg.aggregate(array, "nnm(f=2) | trimmed_mean(f=2)", out=out)
        bragg.aggregate(list(array), "median", out=out)
        bragg.aggregate(models, "krum(f=2)", out=tree_out)

    calls()  # threads have their stacks and tiles
    tracemalloc.start()
    reset_peak()
    before = peak_resident()
    calls()
    assert peak_resident() - before < 4 * d
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_peak_is_seen_where_something_is_copied(rng):
    array = rng.standard_normal((16, 1_000_000), dtype=np.float32)
    reset_peak()
    before = peak_resident()
    copied = array.copy()
    assert peak_resident() - before > 0.9 * copied.nbytes


def test_result_is_written_where_out_is(library, rng):
    if library.name == "jax":
        pytest.skip("its arrays are not written to")
    rows = rng.standard_normal((5, 40)).astype(np.float32)
    out = library.array(np.zeros(40, np.float32))
    view = np.from_dlpack(out)  # the same memory
    assert bragg.aggregate(library.array(rows), "median", out=out) is out
    assert (view == np.median(rows, axis=0)).all()


def test_inputs_are_not_written_to(library, rng):
    rows = rng.standard_normal((9, 50)).astype(np.float32)
    base = rng.standard_normal(50).astype(np.float32)
    rows[2] = np.nan
    array, about = library.array(rows), library.array(base)
    for text in ["clip(c=1) | mean", "arc(f=2) | median", "nnm(f=2) | trimmed_mean(f=2)", "centered_clipping(tau=1)"]:
        bragg.aggregate(array, text, base=about)
    assert library.values(array).tobytes() == rows.tobytes()
    assert library.values(about).tobytes() == base.tobytes()


def test_out_may_be_an_input_or_the_base(rng):
    rows = rng.standard_normal((5, 3000)).astype(np.float32)
    base = rng.standard_normal(3000).astype(np.float32)
    expected = bragg.aggregate(rows, "nnm(f=1) | clip(c=1) | median", base=base)
    kept = rows.copy()
    bragg.aggregate(rows, "nnm(f=1) | clip(c=1) | median", base=base, out=rows[2])
    assert (rows[2] == expected).all()
    bragg.aggregate(kept, "nnm(f=1) | clip(c=1) | median", base=base, out=base)
    assert (base == expected).all()
    with pytest.raises(ValueError, match="out: tensor 0 overlaps tensor 0 of row"):
        bragg.aggregate(kept[:, :-1], "median", out=kept[2, 1:])


def test_rows_may_lie_anywhere(rng):
    rows = rng.standard_normal((8, 33)).astype(np.float32)
    for taken in (rows[::-1], rows[::2], rows[:, 5:20], rows[6:1:-2, 1:]):
        assert not taken.flags.c_contiguous
        assert (bragg.aggregate(taken, "median") == np.median(taken, axis=0)).all()
    one = np.broadcast_to(rows[0], (4, 33))
    assert (bragg.aggregate(one, "mean") == rows[0]).all()
    unaligned = np.frombuffer(b"x" + rows.tobytes(), np.uint8)[1:].view(np.float32).reshape(8, 33)
    assert not unaligned.flags.aligned
    assert (bragg.aggregate(unaligned, "median") == np.median(rows, axis=0)).all()
    packed = np.zeros(8, np.dtype([("tag", "u1"), ("row", "f4", 33)]))
    packed["row"] = rows
    assert (bragg.aggregate(packed["row"], "median") == np.median(rows, axis=0)).all()


def test_read_only_arrays_are_read(rng):
    rows = rng.standard_normal((5, 6)).astype(np.float32)
    rows.flags.writeable = False
    assert (bragg.aggregate(rows, "median") == np.median(rows, axis=0)).all()
    with pytest.raises(ValueError, match="out is read-only"):
        bragg.aggregate(rows.copy(), "median", out=rows[0])


def transposed(library, array):
    return array.mT if library.name == "array_api_strict" else array.T


def test_elements_may_lie_apart(library, rng):
    rows = rng.standard_normal((9, 6)).astype(np.float32)
    array = library.array(rows)
    halves = [array[i, ::2] for i in range(9)]
    for updates, plain in [
        (transposed(library, array), rows.T),
        (array[:, ::2], rows[:, ::2]),
        (array[::-2, 1::3] if library.name != "torch" else array[::2, 1::3], rows[::2, 1::3]),
        (halves, rows[:, ::2]),
        ([*halves[:-1], library.array(rows[8, ::2])], rows[:, ::2]),  # some do, some do not
    ]:
        base = plain[0]
        for rule in ("median", "nnm(f=1) | trimmed_mean(f=1)"):
            result = bragg.aggregate(updates, rule, base=library.array(base))
            assert library.is_one(result)
            assert (library.values(result) == bragg.aggregate(plain.copy(), rule, base=base)).all()
            trees = updates if isinstance(updates, list) else [updates[i, ...] for i in range(len(plain))]
            result = bragg.aggregate([{"a": row} for row in trees], rule, base={"a": library.array(base)})["a"]
            assert (library.values(result) == bragg.aggregate(plain.copy(), rule, base=base)).all()
    assert library.values(array).tobytes() == rows.tobytes()
    # An axis of one element has no stride to speak of.
    assert bragg.aggregate(array[:, ::6], "mean").shape == (1,)


def test_elements_of_out_and_of_points_may_lie_apart(library, rng):
    rows = rng.standard_normal((9, 6)).astype(np.float32)
    array = library.array(rows)
    points = bragg.pre_aggregate(transposed(library, array), "nnm(f=1)")
    assert (library.values(points) == bragg.pre_aggregate(rows.T.copy(), "nnm(f=1)")).all()
    if library.name == "jax":
        return  # its arrays are not written to
    expected = np.median(rows[:, :3], axis=0)
    out = library.array(np.full(6, 7, np.float32))
    assert bragg.aggregate(array[:, :3], "median", out=out[::2]).shape == (3,)
    assert (library.values(out) == [expected[0], 7, expected[1], 7, expected[2], 7]).all()
    tree = {"a": library.array(np.full(6, 7, np.float32))[1::2]}
    assert bragg.aggregate([{"a": array[i, :3]} for i in range(9)], "median", out=tree) is tree
    assert (library.values(tree["a"]) == expected).all()
    # One of the updates, which is read before it is written.
    plain = bragg.aggregate(rows[:, ::2].copy(), "krum(f=2)")
    bragg.aggregate(array[:, ::2], "krum(f=2)", out=array[2, ::2])
    assert (library.values(array[2, ::2]) == plain).all()
    plan = bragg.Plan("median", array[:, ::2])
    plan.run(array[:, ::2], out[1::2])
    assert (library.values(out[1::2]) == np.median(library.values(array)[:, ::2], axis=0)).all()


def test_rows_of_one_order_are_read_where_they_are(rng):
    """64 MB of updates in Fortran's order: the result too is in it, and nothing is copied."""
    n, shape = 16, (1000, 1000)
    rows = [np.asfortranarray(rng.standard_normal(shape, dtype=np.float32)) for _ in range(n)]
    bragg.aggregate(rows, "nnm(f=2) | trimmed_mean(f=2)")
    reset_peak()
    before = peak_resident()
    result = bragg.aggregate(rows, "nnm(f=2) | trimmed_mean(f=2)")
    trees = bragg.aggregate([{"a": row} for row in rows], "nnm(f=2) | trimmed_mean(f=2)")["a"]
    assert peak_resident() - before < 3 * result.nbytes
    assert result.flags.f_contiguous
    assert (trees == result).all()
    turned = bragg.aggregate([row.T for row in rows], "nnm(f=2) | trimmed_mean(f=2)")
    assert (turned == result.T).all()


def test_torch_s_memory_formats():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    plain = [torch.randn(4, 3, 5, 6) for _ in range(7)]
    last = [row.to(memory_format=torch.channels_last) for row in plain]
    rule = "nnm(f=1) | trimmed_mean(f=1)"
    expected = bragg.aggregate(plain, rule)
    for updates in ([{"w": row} for row in last], [{"w": row.requires_grad_()} for row in last]):
        result = bragg.aggregate(updates, rule)["w"]
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert not result.requires_grad
        torch.testing.assert_close(result, expected, rtol=1e-6, atol=1e-6)
        assert torch.equal(bragg.aggregate(updates, "median")["w"], torch.stack(plain).median(0).values)
    out = {"w": torch.zeros(4, 3, 5, 6).to(memory_format=torch.channels_last)}
    bragg.aggregate([{"w": row} for row in last], rule, out=out)
    assert torch.equal(out["w"], result)
    # Some of them: those are copied.
    mixed = bragg.aggregate(last[:3] + plain[3:], "median")
    assert torch.equal(mixed, torch.stack(plain).median(0).values)
    matrix = torch.stack(plain).permute(0, 1, 3, 4, 2)
    assert torch.equal(bragg.aggregate(matrix, "median"), matrix.median(0).values)
    turned = torch.randn(8, 5).t()
    assert torch.equal(bragg.aggregate(turned, "median"), turned.median(0).values)


def test_torch_s_views_that_negate_are_read():
    torch = pytest.importorskip("torch")
    rows = torch.arange(12.0).reshape(3, 4)
    for updates in (torch._neg_view(rows), [torch._neg_view(row) for row in rows]):
        assert bragg.aggregate(updates, "median").tolist() == [-4, -5, -6, -7]


def test_swapped_bytes_are_read(rng):
    rows = rng.standard_normal((5, 4)).astype(np.float32)
    for updates in (
        rows.astype(">f4"),
        [row.astype(">f4") for row in rows],
        list(rows[:3]) + list(rows[3:].astype(">f4")),
    ):
        result = bragg.aggregate(updates, "median", base=rows[0].astype(">f4"))
        assert result.dtype == np.float32
        assert result.dtype.isnative
        assert (result == np.median(rows, axis=0)).all()
    out = np.zeros(4, ">f4")
    bragg.aggregate(rows, "median", out=out)
    assert (out == np.median(rows, axis=0)).all()


def test_lists_of_numbers(rng):
    assert bragg.aggregate([[1.0, 2.0], [3, 4.0], [50.0, 60.0]], "median") == [3.0, 4.0]
    assert bragg.aggregate([(1, 2), (3, 4), (50, 63)], "mean") == (18.0, 23.0)
    assert bragg.aggregate([1.0, 2, 30.0], "median") == 2.0
    rows = rng.standard_normal((7, 3, 2))
    nested = bragg.aggregate(rows.tolist(), "nnm(f=1) | trimmed_mean(f=1)")
    assert nested == bragg.aggregate(rows, "nnm(f=1) | trimmed_mean(f=1)").tolist()
    trees = [{"a": row[0].tolist(), "s": float(row[1, 0]), "b": row[2], "steps": i} for i, row in enumerate(rows)]
    result = bragg.aggregate(trees, "median", weights=[1, 1, 1, 1, 1, 1, 0])
    assert (type(result["s"]), type(result["steps"]), result["steps"]) == (float, int, 2)
    assert result["a"] == np.median(rows[:6, 0], axis=0).tolist()
    assert (result["b"] == np.median(rows[:6, 2], axis=0)).all()
    with pytest.raises(TypeError, match=r"^out\['a'\]: Python's numbers cannot be written to"):
        bragg.aggregate(trees, "median", out=trees[0])


@pytest.mark.parametrize(
    ("updates", "error", "what"),
    [
        ([], ValueError, "updates: n = 0 rows"),
        (np.ones((0, 3)), ValueError, "updates: there are no rows"),
        (np.float32(1), ValueError, "updates: an array of no axes"),
        (None, TypeError, "updates: NoneType is no array"),
        ({"a": np.ones(3)}, TypeError, "updates: dict is no array"),
        (np.ones((3, 2), int), TypeError, "updates: dtype int64; needs float32, float16, bfloat16 or float64"),
        (np.ones((3, 2), complex), TypeError, "updates: dtype complex128"),
        (np.ones((3, 2), np.longdouble), TypeError, "updates: dtype float128"),
        (np.ones((3, 2), object), TypeError, "updates: dtype object"),
        ([np.ones(3), np.ones(4)], ValueError, r"updates\[1\]: shape \(4,\); needs \(3,\)"),
        ([np.ones(6), np.ones((2, 3))], ValueError, r"updates\[1\]: shape \(2, 3\); needs \(6,\)"),
        ([np.ones(3), np.ones(3, np.float32)], ValueError, r"updates\[1\]: dtype f32; needs f64"),
        ([np.ones(3), None], TypeError, r"updates\[1\]: NoneType is no array"),
        ([np.ones(3), [np.ones(3)]], TypeError, r"updates\[1\]: list, but updates\[0\] is"),
    ],
)
def test_what_is_no_update_is_refused(updates, error, what):
    with pytest.raises(error, match="^" + what):
        bragg.aggregate(updates, "median")


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"out": np.ones(3, np.float32)}, ValueError, "out: dtype f32; needs f64"),
        ({"out": np.ones(4)}, ValueError, r"out: shape \(4,\); needs \(3,\)"),
        ({"out": [np.ones(3)]}, TypeError, "out: list is no array"),
        ({"base": np.ones(4)}, ValueError, r"base: shape \(4,\); needs \(3,\)"),
        ({"base": np.ones(3, np.float32)}, ValueError, "base: dtype f32; needs f64"),
        ({"base": 1.0}, TypeError, "base: float is no array"),
        ({"weights": [1, 2]}, ValueError, "weights: 2 of them; needs n = 5"),
        ({"weights": []}, ValueError, "weights: 0 of them; needs n = 5"),
        ({"weights": 3}, TypeError, "weights: 3; needs n numbers"),
        ({"weights": "123x5"}, TypeError, "weights: '123x5'; needs n numbers"),
        ({"scope": "all"}, ValueError, "scope = 'all'; needs 'whole' or 'per_tensor'"),
        ({"out_dtype": "float32"}, ValueError, "out_dtype = f32 for f64 updates; needs f64$"),
        ({"out_dtype": "float16"}, ValueError, "out_dtype = f16 for f64 updates; needs f64$"),
        ({"bad_inputs": "skip"}, ValueError, "bad_inputs = 'skip'; needs 'row' or 'error'"),
        ({"out_dtype": "int8"}, ValueError, "out_dtype = 'int8'; needs"),
        ({"threads": -1}, ValueError, "threads = -1; needs"),
        ({"threads": 1.5}, TypeError, "threads = 1.5; needs an integer"),
        ({"threads": 2**70}, ValueError, "threads = 1180591620717411303424; needs an integer from 0 to 2147483647"),
        ({"max_weight_share": "x"}, TypeError, "max_weight_share = 'x'; needs a number"),
        ({"out_dtype": "x"}, ValueError, "out_dtype = 'x'; needs float32"),
        ({"max_weight_share": 2}, ValueError, "max_weight_share = 2; needs"),
        ({"max_weight_share": None}, TypeError, "max_weight_share = None"),
    ],
)
def test_bad_options_are_refused(options, error, what):
    with pytest.raises(error, match="^" + what):
        bragg.aggregate(np.ones((5, 3)), "median", **options)


@pytest.mark.parametrize(
    ("rule", "error", "what"),
    [
        ("trimmed_mean(f=-1)", ValueError, "trimmed_mean: f = -1: needs f ≥ 0"),
        ("trimmed_mean(f=3)", ValueError, "trimmed_mean: n = 5 rows with f = 3: needs n ≥ 2f"),
        ("trimed_mean(f=1)", bragg.ParseError, "pipeline, column 1: unknown rule 'trimed_mean'; did you mean"),
        ("", bragg.ParseError, "pipeline, column 1: the pipeline is empty"),
        ("nnm(f=1)", bragg.ParseError, "pipeline, column 9: nnm is a pre-aggregator"),
        (bragg.Nnm(f=1), bragg.ParseError, "pipeline, column 9: nnm is a pre-aggregator"),
        (3, TypeError, "rule: int; needs a pipeline"),
        (None, TypeError, "rule: NoneType"),
    ],
)
def test_bad_rules_are_refused(rule, error, what):
    with pytest.raises(error, match="^" + what):
        bragg.aggregate(np.ones((5, 3)), rule)


def test_parse_error_shows_the_place():
    with pytest.raises(bragg.ParseError) as caught:
        bragg.aggregate(np.ones((5, 3)), "nnm(f=1) | krumm(f=1)")
    assert caught.value.column == 12
    assert str(caught.value).endswith("\n  nnm(f=1) | krumm(f=1)\n             ^")
    assert isinstance(caught.value, ValueError)


def test_data_that_defeats_the_rule(library, rng):
    rows = rng.standard_normal((9, 20)).astype(np.float32)
    rows[[1, 4, 6]] = np.nan
    array = library.array(rows)
    with pytest.raises(bragg.AggregationError, match="1 .* 4 .* 6 ") as caught:
        bragg.aggregate(array, "krum(f=2)")
    error = caught.value
    assert (error.status, error.code) == ("too_many_nonfinite", 2)
    assert error.reports[0].status == "too_many_nonfinite"
    assert error.reports[0].nonfinite == (0, 20, 0, 0, 20, 0, 20, 0, 0)
    assert isinstance(error, ValueError)
    if library.name != "jax":
        out = library.array(np.full(20, 7, np.float32))
        with pytest.raises(bragg.AggregationError):
            bragg.aggregate(array, "krum(f=2)", out=out)
        assert (library.values(out) == 7).all()
    # The plan that failed is used again, and nothing is left in it.
    assert np.isfinite(
        library.values(bragg.aggregate(library.array(rows[[0, 2, 3, 5, 7, 8, 0, 0, 0]]), "krum(f=2)"))
    ).all()


@pytest.mark.parametrize(("rule", "n", "bad"), [("mean", 5, 1), ("trimmed_mean(f=2)", 11, 3), ("median", 5, 3)])
def test_a_result_that_is_not_finite(library, rule, n, bad, rng):
    """More rows of NaN than the rule withstands in a coordinate, where it does not judge rows as a whole."""
    for name in library.dtypes():
        rows = rng.standard_normal((n, 300_000 if name == "float32" else 20)).astype(dtype_named(name))
        rows[: bad - 1] = np.nan
        array = library.array(rows)
        result, report = bragg.aggregate(array, rule, return_report=True) if rule != "mean" else (None, None)
        assert report is None or report.nonfinite_result == 0
        rows[bad - 1, [1, 7, 13]] = [np.nan, np.inf, -np.inf]
        array = library.array(rows)
        allowed, report = bragg.aggregate(array, rule, allow_nonfinite=True, return_report=True)
        count = int((~np.isfinite(library.values(allowed).astype(np.float64))).sum())
        assert report.nonfinite_result == count
        assert count > 0
        if rule == "mean":
            assert count == 3
        with pytest.raises(bragg.AggregationError, match=f"NaN or infinity in {count} coordinates: rows 0") as caught:
            bragg.aggregate(array, rule)
        assert (caught.value.status, caught.value.code) == ("nonfinite_result", 0)
        assert caught.value.reports[0].nonfinite_result == count
        tree = [{"a": array[i, :9], "b": array[i, 9:]} for i in range(n)]
        _, reports = bragg.aggregate(tree, rule, scope="per_tensor", allow_nonfinite=True, return_report=True)
        assert sum(report.nonfinite_result for report in reports) >= count
    if library.name != "jax":
        out = library.array(rows[-1])
        with pytest.raises(bragg.AggregationError, match="pass allow_nonfinite=True"):
            bragg.aggregate(array, rule, out=out)
        assert library.values(out).tobytes() == library.values(allowed).tobytes()
        plan, lenient = bragg.Plan(rule, array), bragg.Plan(rule, array, allow_nonfinite=True)
        for one in (plan, lenient):
            one.run(array, out)
            assert one.reports[0].nonfinite_result == count
            assert one.wait() == "ok"
        with pytest.raises(bragg.AggregationError, match="pass allow_nonfinite=True"):
            plan.check()
        lenient.check()


def test_bad_inputs_that_a_rule_without_f_cannot_stand():
    rows = [np.ones(3) for _ in range(5)]
    for rule, bad in (("mean", 1), ("median", 3), ("trimmed_mean(f=1)", 2)):
        with pytest.raises(bragg.AggregationError, match="3 coordinates") as caught:
            bragg.aggregate([None] * bad + rows[bad:], rule, base=rows[0])
        assert str(caught.value).count("updates[") == bad
        assert "  updates[0]: NoneType is no array; needs float64 of shape (3,), as in base" in str(caught.value)


def test_a_base_that_is_not_finite():
    with pytest.raises(bragg.AggregationError) as caught:
        bragg.aggregate(np.ones((5, 3)), "clip(c=1) | mean", base=np.array([0, np.inf, 0]))
    assert caught.value.status == "nonfinite_base"


def test_too_large_a_search():
    with pytest.raises(bragg.AggregationError, match="smea") as caught:
        bragg.aggregate(np.ones((60, 3)), "smea(f=20)")
    assert caught.value.status == "too_large"
    assert caught.value.reports == ()


def test_reports_are_the_run_s(rng):
    rows = rng.standard_normal((9, 20))
    rows[3] *= 50
    rows[5, 1] = np.nan
    result, report = bragg.aggregate(rows, "multi_krum(f=2)", return_report=True)
    typed = bragg.aggregate_with_report(rows, "multi_krum(f=2)")
    assert (typed.value == result).all()
    assert repr(typed.report) == repr(report)  # NaN is not NaN
    assert report.status == "ok"
    assert report.converged
    assert not report.recentred
    assert 0 < report.distance_error < 1e-6
    assert len(report.weights) == len(report.scores) == len(report.clip_factors) == 9
    assert report.nonfinite == (0, 0, 0, 0, 0, 1, 0, 0, 0)
    assert report.selected == tuple(weight != 0 for weight in report.weights)
    assert not report.selected[3]
    assert not report.selected[5]
    finite = np.nan_to_num(rows)
    np.testing.assert_allclose(np.array(report.weights) @ finite, result, rtol=1e-12)
    _, report = bragg.aggregate(rows[:5], "geometric_median(max_iters=1)", return_report=True)
    assert (report.iterations, report.converged) == (1, False)
    _, reports = bragg.aggregate([[row[:5], row[5:]] for row in rows], "median", scope="per_tensor", return_report=True)
    assert [sum(report.nonfinite) for report in reports] == [1, 0]
    typed = bragg.aggregate_with_report([[row[:5], row[5:]] for row in rows], "median", scope="per_tensor")
    assert repr(typed.reports) == repr(reports)
    with pytest.raises(ValueError, match="one per tensor; take reports"):
        _ = typed.report


def test_weights_may_come_as_anything_that_counts(library, rng):
    rows = rng.standard_normal((5, 6)).astype(np.float32)
    expected = np.average(rows, axis=0, weights=[1, 0, 3, 2, 2])
    for weights in (
        [1, 0, 3, 2, 2],
        (1.0, 0, 3, 2, 2),
        np.array([1, 0, 3, 2, 2], np.int8),
        iter([1, 0, 3, 2, 2]),
        library.array(np.array([1, 0, 3, 2, 2], np.float32)),
    ):
        result = bragg.aggregate(library.array(rows), "mean", weights=weights)
        np.testing.assert_allclose(library.values(result), expected, rtol=1e-6)


def test_empty_rows(library):
    result = bragg.aggregate(library.array(np.ones((5, 0), np.float32)), "krum(f=1)")
    assert tuple(result.shape) == (0,)
    assert tuple(bragg.aggregate(library.array(np.ones((5, 2, 0, 3), np.float32)), "median").shape) == (2, 0, 3)
    assert bragg.aggregate(library.array(np.arange(5, dtype=np.float32)), "median").shape == ()


def test_nothing_is_kept(library, rng):
    """References to arguments and results are as many after as before."""
    rows = rng.standard_normal((6, 10)).astype(np.float32)
    arrays = [library.array(row) for row in rows]
    base = library.array(rows[0])
    counts = [sys.getrefcount(array) for array in [*arrays, base]]
    for _ in range(20):
        result = bragg.aggregate(arrays, "clip(c=1) | median", base=base)
        with pytest.raises(ValueError, match="f = 9"):
            bragg.aggregate(arrays, "trimmed_mean(f=9)", base=base)
        with pytest.raises(ValueError, match=r"updates\[6\]"):
            bragg.aggregate([*arrays, base[:3]], "median", base=base, bad_inputs="error")
        result = bragg.aggregate([*arrays, base[:3]], "median", base=base)
    assert counts == [sys.getrefcount(array) for array in [*arrays, base]]
    assert sys.getrefcount(result) == 2
    if library.name != "array_api_strict":
        gone = weakref.ref(result)
        del result
        gc.collect()
        assert gone() is None


def test_results_outlive_what_they_came_from(library, rng):
    rows = rng.standard_normal((6, 100_000)).astype(np.float32)
    expected = np.median(rows, axis=0)
    array = library.array(rows)
    results = [bragg.aggregate(array, "median") for _ in range(5)]
    del array
    gc.collect()
    library.array(np.full((6, 100_000), 9, np.float32))
    for result in results:
        assert (library.values(result) == expected).all()


def test_fresh_jax_arrays_are_not_shared(rng):
    """A result is written into an empty array that jax has made; nothing else may be seen through it."""
    jax = pytest.importorskip("jax")
    rows = jax.numpy.asarray(rng.standard_normal((5, 1000)).astype(np.float32))
    empty = jax.numpy.empty(1000, rows.dtype)
    results = [bragg.aggregate(rows[i:], "median") for i in range(3)]
    assert (np.array(empty) == 0).all()
    assert (np.array(jax.numpy.empty(1000, rows.dtype)) == 0).all()
    for i, result in enumerate(results):
        assert (np.array(result) == np.median(np.array(rows)[i:], axis=0)).all()
        assert (np.array(jax.jit(lambda x: x + 1)(result)) == np.array(result) + 1).all()
    for kind in (jax.numpy.float32, jax.numpy.bfloat16):
        with pytest.raises(ValueError, match="^out is read-only"):
            bragg.aggregate(rows.astype(kind), "median", out=jax.numpy.empty(1000, kind))
        with pytest.raises(ValueError, match=r"^out\['a'\] is read-only"):
            bragg.aggregate([{"a": rows[0]}], "median", out={"a": empty})


def test_torch_s_gradients_stay_out():
    torch = pytest.importorskip("torch")
    rows = torch.ones(5, 4, requires_grad=True)
    result = bragg.aggregate(rows, "mean")
    assert not result.requires_grad
    assert rows.grad_fn is None
    parameter = torch.nn.Parameter(torch.zeros(4))
    squared = (parameter * parameter).sum()
    bragg.aggregate(rows.detach(), "mean", out=parameter)
    assert parameter.tolist() == [1, 1, 1, 1]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squared.backward()


def test_torch_s_other_tensors_are_refused():
    torch = pytest.importorskip("torch")
    for updates, what in [
        (torch.ones(3, 2).to_sparse(), r"^updates: a tensor of layout torch.sparse_coo; .* to_dense\(\)"),
        (torch.ones(3, 2, device="meta"), "^updates: a tensor on meta; needs the CPU or a CUDA device"),
        (torch.ones(3, 2, dtype=torch.int32), "^updates: dtype torch.int32; needs"),
    ]:
        with pytest.raises(TypeError, match=what):
            bragg.aggregate(updates, "median")


def test_libraries_may_be_mixed(rng):
    torch = pytest.importorskip("torch")
    rows = rng.standard_normal((4, 6)).astype(np.float32)
    mixed = [rows[0], torch.from_numpy(rows[1]), rows[2], torch.from_numpy(rows[3])]
    result = bragg.aggregate(mixed, "median")
    assert isinstance(result, np.ndarray)
    assert (result == np.median(rows, axis=0)).all()


def test_threads_do_not_disturb_each_other(rng):
    rows = rng.standard_normal((9, 20_000)).astype(np.float32)
    texts = ["median", "nnm(f=2) | trimmed_mean(f=2)", "krum(f=2)", "geometric_median"]
    expected = {text: bragg.aggregate(rows, text) for text in texts}
    wrong = []

    def work(text):
        for _ in range(20):
            if not (bragg.aggregate(rows, text, threads=1) == expected[text]).all():
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(text,)) for text in texts * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_others_run_meanwhile(rng):
    """A thread that counts in Python gets on while C++ aggregates. With the GIL held it would get a few intervals of
    5 ms, where it has to wait for it, at the call's beginning and end."""
    rows = rng.standard_normal((32, 1_000_000), dtype=np.float32)
    rounds, stop = 0, threading.Event()

    def count():
        nonlocal rounds
        while not stop.is_set():
            rounds += 1

    def rate(work):
        first, began = rounds, time.perf_counter()
        work()
        took = time.perf_counter() - began
        return (rounds - first) / took, took

    counting = threading.Thread(target=count)
    counting.start()
    alone, _ = rate(lambda: time.sleep(0.1))

    def work():
        for _ in range(4):  # so long that what is waited for at either end of a call is little of it
            bragg.aggregate(rows, "nnm(f=6) | trimmed_mean(f=6)", threads=1)

    beside, took = rate(work)
    stop.set()
    counting.join()
    assert took > 0.1
    assert beside > 0.2 * alone


def test_the_number_of_threads_changes_nothing(rng):
    rows = rng.standard_normal((9, 100_000)).astype(np.float32)
    one = bragg.aggregate(rows, "nnm(f=2) | trimmed_mean(f=2)", threads=1)
    for threads in (0, 2, 3):
        assert (bragg.aggregate(rows, "nnm(f=2) | trimmed_mean(f=2)", threads=threads) == one).all()
