# SPDX-License-Identifier: Apache-2.0
"""Attacks, against their definitions in NumPy."""

import doctest

import bragg
import numpy as np
import pytest
from bragg import attacks

EVERY = {
    "sign_flip": lambda rows: attacks.sign_flip(rows, 2),
    "inner_product_manipulation": lambda rows: attacks.inner_product_manipulation(rows, 0.5),
    "a_little_is_enough": attacks.a_little_is_enough,
    "rop": lambda rows: attacks.rop(rows, rows[0] if isinstance(rows, list) else rows[0, ...]),
    "min_max": lambda rows: attacks.min_max(rows).row,
    "min_sum": lambda rows: attacks.min_sum(rows, "sign").row,
    "fang_trimmed": lambda rows: attacks.fang_trimmed(rows, 3),
    "fang_krum": lambda rows: attacks.fang_krum(rows, 1).row,
    "optimal_alie": lambda rows: attacks.optimal_alie(rows, "median", 2).row,
    "optimal_ipm": lambda rows: attacks.optimal_ipm(rows, bragg.Krum(f=2), 2).row,
}


def test_there_are_all():
    assert set(EVERY) == set(attacks.__all__) - {"Found", "Optimal"}
    assert doctest.testmod(attacks).failed == 0


def test_closed_forms(rng):
    rows = rng.standard_normal((7, 40)) + 0.3
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    directions = {"unit": -mean / np.linalg.norm(mean), "std": -deviation, "sign": -np.sign(mean)}
    diameter = max(np.linalg.norm(a - b) for a in rows for b in rows)
    greatest = max(sum(np.sum((a - b) ** 2) for b in rows) for a in rows)
    for name, p in directions.items():
        row, gamma = attacks.min_max(rows, name)
        np.testing.assert_allclose(row, mean + gamma * p, rtol=1e-12, atol=1e-12)
        assert max(np.linalg.norm(row - x) for x in rows) == pytest.approx(diameter, rel=1e-12)
        row, gamma = attacks.min_sum(rows, name)
        np.testing.assert_allclose(row, mean + gamma * p, rtol=1e-12, atol=1e-12)
        assert np.sum((row - rows) ** 2) == pytest.approx(greatest, rel=1e-12)
    np.testing.assert_allclose(attacks.sign_flip(rows, 3), -3 * mean, rtol=1e-12)
    np.testing.assert_allclose(attacks.inner_product_manipulation(rows, 0.1), -0.1 * mean, rtol=1e-12)
    np.testing.assert_allclose(attacks.a_little_is_enough(rows, 2), mean - 2 * deviation, rtol=1e-12, atol=1e-14)
    turned = attacks.rop(rows, rows[2])
    assert np.dot(turned - mean, rows[2]) == pytest.approx(0, abs=1e-12 * np.linalg.norm(rows[2]) ** 2)
    assert np.linalg.norm(turned - mean) == pytest.approx(np.linalg.norm(mean))
    assert np.dot(turned - mean, mean) < 0


def test_fang(rng):
    rows = rng.standard_normal((6, 200))
    mean = rows.mean(axis=0)
    row = attacks.fang_trimmed(rows, 1)
    assert (np.where(mean > 0, row <= rows.min(axis=0), row >= rows.max(axis=0))).all()
    assert (row != attacks.fang_trimmed(rows, 2)).any()
    row, strength = attacks.fang_krum(rows, 1)
    np.testing.assert_array_equal(row, -strength * np.sign(mean))


@pytest.mark.parametrize("rule", ["krum(f=2)", "nnm(f=2) | trimmed_mean(f=2)"])
def test_optimal_damage_is_what_it_says(rng, rule):
    rows = rng.standard_normal((9, 30)) + 0.5
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)

    def damage(bad):
        return np.linalg.norm(bragg.aggregate(np.vstack([rows, bad, bad]), rule) - mean)

    for attack, send in (
        (attacks.optimal_alie, lambda z: mean - z * deviation),
        (attacks.optimal_ipm, lambda epsilon: -epsilon * mean),
    ):
        found = attack(rows, rule, 2, most=8)
        assert damage(found.row) == pytest.approx(found.damage, rel=1e-9)
        np.testing.assert_allclose(found.row, send(found.strength), rtol=1e-9, atol=1e-12)
        for k in range(16):
            assert damage(send(8 / 2**k)) <= found.damage * (1 + 1e-9)


def test_rows_come_back_in_the_form_of_one(library, rng):
    values = rng.standard_normal((7, 12))
    for name, attack in EVERY.items():
        expected = attack(values.astype(np.float32).astype(np.float64))
        rows = library.array(values.astype(np.float32))
        row = attack(rows)
        assert library.is_one(row)
        np.testing.assert_allclose(library.values(row), expected, rtol=1e-5, atol=1e-6, err_msg=name)
        listed = attack([rows[i, ...] for i in range(7)])
        assert (library.values(listed) == library.values(row)).all()


def test_trees_of_several_dtypes(rng):
    rows = rng.standard_normal((7, 12)).astype(np.float16)
    trees = [
        {"a": row[:4].astype(np.float64), "h": row[4:].reshape(2, 4).copy(), "n": np.array(i)}
        for i, row in enumerate(rows)
    ]
    for name, attack in EVERY.items():
        tree, whole = attack(trees), attack(rows.astype(np.float64))
        assert list(tree) == ["a", "h", "n"]
        assert (tree["a"].dtype, tree["h"].dtype, tree["h"].shape) == (np.float64, np.float16, (2, 4))
        assert tree["n"] == 3
        np.testing.assert_allclose(tree["a"], whole[:4], rtol=1e-9, atol=1e-9, err_msg=name)
        np.testing.assert_array_equal(tree["h"].ravel(), whole[4:].astype(np.float16))


def test_bad_arguments():
    rows = np.ones((5, 2))
    with pytest.raises(ValueError, match="direction = 'up'; needs 'unit', 'std' or 'sign'"):
        attacks.min_max(rows, "up")
    with pytest.raises(ValueError, match="row 1 holds nan"):
        attacks.min_sum(np.array([[1.0], [np.nan]]))
    with pytest.raises(ValueError, match="f = 0"):
        attacks.optimal_alie(rows, "median", 0)
    with pytest.raises(bragg.ParseError, match="did you mean krum"):
        attacks.optimal_ipm(rows, "crum(f=1)", 1)
    with pytest.raises(ValueError, match="krum"):
        attacks.fang_krum(rows, 3)
    with pytest.raises(ValueError, match="reference"):
        attacks.rop(rows, np.ones(3))
    with pytest.raises(ValueError, match="n = 0"):
        attacks.min_max([])
    with pytest.raises(TypeError):
        attacks.min_max("rows")


@pytest.mark.parametrize(
    ("name", "arguments", "error", "says"),
    [
        ("sign_flip", {"scale": "x"}, TypeError, "scale = 'x'; needs a number"),
        ("sign_flip", {"scale": float("nan")}, ValueError, "scale = nan; needs a finite number"),
        ("inner_product_manipulation", {"epsilon": None}, TypeError, "epsilon = None; needs a number"),
        ("inner_product_manipulation", {"epsilon": float("inf")}, ValueError, "epsilon = inf; needs a finite number"),
        ("a_little_is_enough", {"z": [1]}, TypeError, r"z = \[1\]; needs a number"),
        ("rop", {"reference": np.ones(2), "angle": "x"}, TypeError, "angle = 'x'; needs a number"),
        ("rop", {"reference": np.ones(2), "angle": float("nan")}, ValueError, "angle = nan; needs a finite number"),
        ("min_max", {"direction": None}, ValueError, "direction = None; needs 'unit'"),
        ("min_sum", {"direction": 3}, ValueError, "direction = 3; needs 'unit'"),
        ("fang_trimmed", {"seed": 2.5}, TypeError, "seed = 2.5; needs an integer"),
        ("fang_trimmed", {"seed": -1}, ValueError, "seed = -1; needs an integer from 0 to 18446744073709551615"),
        ("fang_trimmed", {"seed": 1, "b": "x"}, TypeError, "b = 'x'; needs a number"),
        ("fang_krum", {"f": 2.5}, TypeError, "f = 2.5; needs an integer"),
        ("fang_krum", {"f": 2**40}, ValueError, "f = 1099511627776; needs an integer from 0 to 2147483647"),
        ("optimal_alie", {"rule": "median", "f": 2.5}, TypeError, "f = 2.5; needs an integer"),
        ("optimal_alie", {"rule": "median", "f": 1, "most": "x"}, TypeError, "most = 'x'; needs a number"),
        ("optimal_ipm", {"rule": "median", "f": "1"}, TypeError, "f = '1'; needs an integer"),
    ],
)
def test_arguments_that_are_no_numbers_are_named(name, arguments, error, says):
    with pytest.raises(error, match=says):
        getattr(attacks, name)(np.ones((5, 2)), **arguments)
