# SPDX-License-Identifier: Apache-2.0
"""bragg.byzfl by itself: what it reads, what no bad vector can do, and what it never writes to."""

import doctest

import numpy as np
import pytest
from bragg import byzfl

AGGREGATORS = {
    "Median": {},
    "TrMean": {"f": 2},
    "GeometricMedian": {},
    "Krum": {"f": 2},
    "MultiKrum": {"f": 2},
    "CenteredClipping": {"L": 2, "tau": 3.0},
    "MDA": {"f": 2},
    "MoNNA": {"f": 2, "idx": 1},
    "Meamed": {"f": 2},
    "SMEA": {"f": 2},
    "CAF": {"f": 2},
}
PRE_AGGREGATORS = {"NNM": {"f": 2}, "Bucketing": {"s": 2}, "Clipping": {"c": 2.0}, "ARC": {"f": 2}}
ALL = {"Average": {}, **AGGREGATORS, **PRE_AGGREGATORS}
BAD = {
    "NaN": lambda bad: bad.fill(np.nan),
    "one NaN": lambda bad: bad[:, 3].fill(np.nan),
    "infinity": lambda bad: bad.fill(-np.inf),
    "mixed": lambda bad: (bad[0].fill(np.nan), bad[1].fill(np.inf)),
    "huge": lambda bad: bad.fill(np.finfo(bad.dtype).max),
}


def made(name, parameters):
    return getattr(byzfl, name)(**parameters)


@pytest.fixture(params=[np.float32, np.float64], ids=lambda dtype: dtype.__name__)
def dtype(request):
    return request.param


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("places", [(0, 2), (9, 10)])
def test_bad_vectors_do_not_move_an_aggregate_away(name, bad, places, dtype, rng):
    good = rng.standard_normal((9, 6)).astype(dtype)
    hostile = np.zeros((2, 6), dtype)
    BAD[bad](hostile)
    vectors = np.empty((11, 6), dtype)
    vectors[list(places)] = hostile
    vectors[[i for i in range(11) if i not in places]] = good
    aggregator = made(name, AGGREGATORS[name])
    for _ in range(3):  # and not the state either
        result = aggregator(vectors)
        assert np.isfinite(result).all()
        assert (abs(result) <= 3 * abs(good).max()).all()  # meamed's may lie one range of the good beyond it


@pytest.mark.parametrize("name", PRE_AGGREGATORS)
@pytest.mark.parametrize("bad", ["NaN", "one NaN", "infinity", "mixed"])
def test_bad_vectors_do_not_spread_to_others(name, bad, dtype, rng):
    vectors = rng.standard_normal((11, 6)).astype(dtype)
    BAD[bad](vectors[4:6])
    np.random.seed(1)
    points = made(name, PRE_AGGREGATORS[name])(vectors)
    finite = np.isfinite(points).all(axis=1)
    if name == "Bucketing":  # a bucket of nothing but bad vectors is bad
        np.random.seed(1)
        order = np.random.permutation(11)
        expected = [not set(order[i : i + 2]) <= {4, 5} for i in range(0, 11, 2)]
        assert finite.tolist() == expected
    else:
        assert finite.all()
    if name in ("Clipping", "ARC"):
        assert (points[4:6] == 0).all()


def test_a_poisoned_call_is_followed_by_the_same_as_an_honest_one(rng):
    vectors = rng.standard_normal((8, 5))
    poisoned = np.concatenate([vectors, np.full((1, 5), np.nan)])
    beside, apart = byzfl.CenteredClipping(tau=1.0), byzfl.CenteredClipping(tau=1.0)
    # A vector that is not finite adds 0, and is counted.
    np.testing.assert_allclose(beside(poisoned), apart(vectors) * 8 / 9, rtol=1e-12)
    assert np.isfinite(beside(vectors)).all()


def test_more_bad_vectors_than_f_are_an_error(rng):
    vectors = rng.standard_normal((9, 4))
    vectors[:3] = np.nan
    for name in ("Krum", "MultiKrum", "MDA", "MoNNA", "SMEA", "CAF", "NNM"):
        with pytest.raises(ValueError, match="rows are not finite|row that the rule trusts"):
            made(name, ALL[name])(vectors)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("form", ["array", "list"])
def test_the_vectors_are_not_written_to(name, form, dtype, rng):
    vectors = (10 * rng.standard_normal((9, 5))).astype(dtype)
    before = vectors.copy()
    result = made(name, ALL[name])(vectors if form == "array" else list(vectors))
    assert (vectors == before).all()
    assert not np.shares_memory(result, vectors)
    assert result.dtype == dtype


@pytest.mark.parametrize("name", ["SMEA", "CAF"])
def test_the_same_vectors_give_the_same_result(name, rng):
    vectors = rng.standard_normal((9, 7))
    first = made(name, ALL[name])(vectors)
    assert all((made(name, ALL[name])(vectors) == first).all() for _ in range(5))


@pytest.mark.parametrize("name", ALL)
def test_vectors_may_lie_as_they_will(name, dtype, rng):
    expected_of = (4 * rng.standard_normal((9, 6))).astype(dtype)

    def run(vectors):
        np.random.seed(3)
        return made(name, ALL[name])(vectors)

    expected = run(expected_of)
    spread = np.zeros((18, 12), dtype)
    spread[::2, ::2] = expected_of
    for vectors in (np.asfortranarray(expected_of), spread[::2, ::2], list(spread[::2, ::2]), expected_of[::-1][::-1]):
        assert (run(vectors) == expected).all()
    swapped = expected_of.astype(expected_of.dtype.newbyteorder())
    assert (run([swapped[0], *expected_of[1:]]) == expected).all()


def test_integers_are_read_as_float64(rng):
    vectors = rng.integers(-9, 9, (7, 4))
    for name, parameters in ALL.items():
        np.random.seed(3)
        result = made(name, parameters)(vectors)
        np.random.seed(3)
        assert result.dtype == np.float64
        assert (result == made(name, parameters)(vectors.astype(np.float64))).all()


def test_arrays_of_several_dtypes_are_read_as_the_widest(rng):
    vectors = rng.standard_normal((5, 4)).astype(np.float32)
    mixed = [vectors[0].astype(np.float64), *vectors[1:]]
    assert made("Median", {})(mixed).dtype == np.float64
    assert (made("Median", {})(mixed) == np.median(vectors.astype(np.float64), axis=0)).all()


def test_few_vectors(rng):
    one = rng.standard_normal((1, 4))
    for name, parameters in ALL.items():
        if name in ("GeometricMedian", "CenteredClipping", "Clipping"):
            continue  # whose result is not the vector itself
        tolerant_of_none = {key: 0 for key in parameters if key in ("f", "idx")}
        assert (made(name, tolerant_of_none)(one).reshape(4) == one[0]).all(), name


def test_steps_of_none_are_where_they_begin(rng):
    vectors = rng.standard_normal((5, 4)).astype(np.float32)
    for rule in (byzfl.GeometricMedian(T=0), byzfl.CenteredClipping(L=0), byzfl.CenteredClipping(tau=0.0)):
        result = rule(vectors)
        assert result.dtype == np.float32
        assert (result == 0).all()
    start = np.arange(4.0, dtype=np.float32)
    assert (byzfl.CenteredClipping(start, L=0)(vectors) == start).all()


def test_what_counts_as_a_number_does(rng):
    vectors = 4 * rng.standard_normal((5, 4))
    for name, given in (
        *((name, {"f": (True, 1)}) for name in ALL if "f" in ALL[name]),
        ("MoNNA", {"idx": (True, 1)}),
        ("Bucketing", {"s": (True, 1)}),
        ("GeometricMedian", {"T": (True, 1), "nu": (np.float64(0.5), 0.5)}),
        ("CenteredClipping", {"L": (True, 1), "tau": (np.float64(0.5), 0.5)}),
        ("Clipping", {"c": (np.float64(0.5), 0.5)}),
    ):
        results = []
        for which in (0, 1):
            np.random.seed(1)
            results.append(made(name, {key: values[which] for key, values in given.items()})(vectors))
        assert (results[0] == results[1]).all(), name


def test_an_infinite_threshold_clips_nothing(rng):
    vectors = rng.standard_normal((5, 4))
    assert (byzfl.Clipping(float("inf"))(vectors) == vectors).all()
    np.testing.assert_allclose(byzfl.CenteredClipping(tau=float("inf"))(vectors), vectors.mean(axis=0), rtol=1e-12)


def test_centered_clipping_starts_where_it_is_told(rng):
    vectors = rng.standard_normal((6, 4)).astype(np.float32)
    start = np.array([1.0, 2.0, 3.0, 4.0])  # of another dtype
    differences = vectors - start
    factors = np.minimum(1, 0.5 / np.linalg.norm(differences, axis=1))
    expected = start + (differences * factors[:, None]).mean(axis=0)
    aggregator = byzfl.CenteredClipping(start, tau=0.5)
    np.testing.assert_allclose(aggregator(vectors), expected, rtol=1e-6)
    assert (start == [1, 2, 3, 4]).all()
    with pytest.raises(TypeError, match="m must be of type"):
        byzfl.CenteredClipping([1.0])


def test_clipping_is_exact_at_any_scale(rng):
    for scale in (1e-30, 1e30):
        vectors = (scale * rng.standard_normal((4, 5))).astype(np.float32)
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        c = float(np.median(norms))
        expected = vectors * np.minimum(1, c / norms)[:, None]
        np.testing.assert_allclose(byzfl.Clipping(c)(vectors), expected, rtol=1e-6)


@pytest.mark.parametrize("f", [3, 5])
@pytest.mark.parametrize("name", ["NNM", "ARC"])
def test_half_or_more_cannot_be_tolerated(name, f, rng):
    with pytest.raises(ValueError, match=f"Cannot tolerate 2f ≥ n. Got f={f}, n=6"):
        made(name, {"f": f})(rng.standard_normal((6, 3)))


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="'vectors' is empty"):
        byzfl.Median()([])


@pytest.mark.parametrize("aggregator", AGGREGATORS)
@pytest.mark.parametrize(
    "names",
    [["NNM"], ["Clipping"], ["ARC"], ["Bucketing"], ["NNM", "Clipping"], ["ARC", "Bucketing"], ["NNM", "ARC"]],
    ids="|".join,
)
def test_a_composition_is_its_parts_in_turn(aggregator, names, rng):
    if aggregator == "MDA" and "NNM" in names:
        pytest.skip("vectors that nnm makes equal leave subsets of one diameter: rounding would choose")
    parameters = {**AGGREGATORS[aggregator], "unknown": 1}
    pre = [{"name": name, "parameters": PRE_AGGREGATORS[name]} for name in names]
    composed = byzfl.RobustAggregator({"name": aggregator, "parameters": parameters}, pre)
    apart = made(aggregator, AGGREGATORS[aggregator])
    for turn in range(3):  # for what keeps state
        vectors = 3 * rng.standard_normal((11, 6))
        vectors[turn + 3] = np.nan
        np.random.seed(turn)
        result = composed.aggregate_vectors(vectors)
        np.random.seed(turn)
        points = vectors
        for name in names:
            points = made(name, PRE_AGGREGATORS[name])(points)
        np.testing.assert_allclose(result, apart(points), rtol=1e-8, atol=1e-10)


def test_a_composition_s_bad_names_are_refused():
    with pytest.raises(AttributeError, match="'NNM' is no aggregator; needs one of .*TrMean"):
        byzfl.RobustAggregator({"name": "NNM", "parameters": {}})
    with pytest.raises(AttributeError, match="'TrMean' is no pre-aggregator; needs one of .*NNM"):
        byzfl.RobustAggregator({"name": "Median", "parameters": {}}, [{"name": "TrMean", "parameters": {}}])


def test_the_module_s_own_example():
    assert doctest.testmod(byzfl) == (0, 2)
