# SPDX-License-Identifier: Apache-2.0
"""Pre-aggregators alone: the points that they make."""

import bragg
import numpy as np
import pytest


def neighbours_means(rows, f):
    """nnm, as a textbook has it."""
    rows = rows.astype(np.float64)
    distances = ((rows[:, None, :] - rows[None, :, :]) ** 2).sum(axis=2)
    return np.array([rows[np.argsort(row, kind="stable")[: len(rows) - f]].mean(axis=0) for row in distances])


def test_forms_agree(library, rng):
    rows = rng.standard_normal((9, 30)).astype(np.float32)
    expected = neighbours_means(rows, 2)
    array = library.array(rows)
    points = bragg.pre_aggregate(array, "nnm(f=2)")
    assert library.is_one(points)
    assert tuple(points.shape) == (9, 30)
    np.testing.assert_allclose(library.values(points), expected, rtol=1e-5, atol=1e-6)
    shaped = bragg.pre_aggregate(library.array(rows.reshape(9, 2, 3, 5)), bragg.Nnm(f=2))
    assert (library.values(shaped).reshape(9, 30) == library.values(points)).all()
    listed = bragg.pre_aggregate([array[i, ...] for i in range(9)], "nnm(f=2)")
    assert isinstance(listed, list)
    for point, whole in zip(listed, library.values(points)):
        assert library.is_one(point)
        assert (library.values(point) == whole).all()


def test_trees_come_back_as_they_were(rng):
    rows = rng.standard_normal((6, 8))
    trees = [{"a": row[:3], "b": (row[3:].reshape(1, 5),), "n": np.array(i)} for i, row in enumerate(rows)]
    points = bragg.pre_aggregate(trees, "bucketing(s=2, permutation=[5,4,3,2,1,0])")
    assert len(points) == 3
    for k, point in enumerate(points):
        assert list(point) == ["a", "b", "n"]
        mean = (rows[5 - 2 * k] + rows[4 - 2 * k]) / 2
        np.testing.assert_allclose(np.concatenate([point["a"], point["b"][0].ravel()]), mean, rtol=1e-15)
        assert point["n"] == 2  # the lower median
    points[0]["n"][...] = 7
    assert points[1]["n"] == 2  # each has leaves of its own


def test_a_rule_of_the_points_is_the_pipeline(rng):
    rows = rng.standard_normal((11, 500)).astype(np.float32)
    rows[4] = np.nan
    for stages in ("nnm(f=2)", "arc(f=2)", "clip(c=3)", "bucketing(s=2) | nnm(f=1)", "nnm(f=2) | clip(c=1)"):
        points, report = bragg.pre_aggregate(rows, stages, return_report=True)
        assert np.isfinite(points).all()
        assert report.nonfinite[4] == 500
        np.testing.assert_array_equal(bragg.aggregate(points, "median"), bragg.aggregate(rows, f"{stages} | median"))


def test_clipping_is_about_the_base(rng):
    rows = rng.standard_normal((4, 20))
    base = rng.standard_normal(20)
    points, report = bragg.pre_aggregate(rows, "clip(c=0.5)", base=base, return_report=True)
    typed = bragg.pre_aggregate_with_report(rows, "clip(c=0.5)", base=base)
    assert (typed.value == points).all()
    assert repr(typed.report) == repr(report)
    factors = np.minimum(1, 0.5 / np.linalg.norm(rows - base, axis=1))
    np.testing.assert_allclose(report.clip_factors, factors, rtol=1e-12)
    np.testing.assert_allclose(points, base + (rows - base) * factors[:, None], rtol=1e-12, atol=1e-14)


def test_options(rng):
    rows = rng.standard_normal((5, 12)).astype(np.float16)
    wide = bragg.pre_aggregate(rows, "nnm(f=1)", out_dtype="float32", threads=1)
    assert wide.dtype == np.float32
    trees = [{"a": row[:6].copy(), "b": row[6:].copy()} for row in rows]
    points, reports = bragg.pre_aggregate(trees, "nnm(f=1)", scope="per_tensor", return_report=True)
    assert len(reports) == 2
    for name, part in (("a", rows[:, :6]), ("b", rows[:, 6:])):
        alone = bragg.pre_aggregate(np.ascontiguousarray(part), "nnm(f=1)")
        assert (np.array([point[name] for point in points]) == alone).all()


def test_inputs_stay_as_they_are(rng):
    rows = rng.standard_normal((6, 40)).astype(np.float32)
    before = rows.copy()
    bragg.pre_aggregate(rows, "clip(c=0.1)")
    assert (rows == before).all()


def test_bad_data_is_found():
    rows = np.ones((5, 3), np.float32)
    rows[:2] = np.nan
    with pytest.raises(bragg.AggregationError) as caught:
        bragg.pre_aggregate(rows, "nnm(f=1)")
    assert caught.value.reports[0].nonfinite == (3, 3, 0, 0, 0)


def test_what_makes_no_sense_is_refused():
    rows = np.ones((5, 3), np.float32)
    with pytest.raises(bragg.ParseError, match="median is a rule; needs pre-aggregators"):
        bragg.pre_aggregate(rows, "nnm(f=1) | median")
    with pytest.raises(bragg.ParseError, match="no pre-aggregator"):
        bragg.pre_aggregate(rows, " ")
    with pytest.raises(ValueError, match="f = 3"):
        bragg.pre_aggregate(rows, "nnm(f=3)")
    with pytest.raises(TypeError, match="needs a pipeline"):
        bragg.pre_aggregate(rows, 3)
    with pytest.raises(ValueError, match="updates"):
        bragg.pre_aggregate(np.array(1.0), "nnm(f=0)")
    with pytest.raises(ValueError, match="there are no rows"):
        bragg.pre_aggregate(np.ones((0, 3)), "nnm(f=0)")
    with pytest.raises(ValueError, match="scope"):
        bragg.pre_aggregate(rows, "nnm(f=1)", scope="some")
