# SPDX-License-Identifier: Apache-2.0
"""Results against the oracle of `bragg verify`, which shares no code with the library, and against ByzFL's."""

import json
from functools import partial

import bragg
import numpy as np
import pytest
from bragg import _bragg
from conftest import DATA, dtype_named

# Of the table of rules, for n = 11 and f = 2: rules alone, and one pipeline with each pre-aggregator.
PIPELINES = [
    text.replace("=F", "=2").replace("N1", "8")
    for rule in _bragg.rules()
    for k, text in enumerate(rule["examples"])
    if k == 0 or "|" not in text
]


def draw(rng, n=11, d=67, bad=2):
    rows = rng.standard_normal((n, d)) + rng.standard_normal(d)
    if bad:
        rows[rng.choice(n, bad, replace=False)] *= 100
    return rows


def judge(text, attempt, draws=5):
    """The oracle's verdict on what `attempt()` returns (the arguments of `_bragg.judge` after the rule, and its
    options), drawn again where rounding could decide: about one draw in a thousand of 32 bits, more of 16."""
    for _ in range(draws):
        arguments, options = attempt()
        judged, complaint = _bragg.judge(text, *arguments, **options)
        if judged or complaint:
            break
    return judged, complaint


@pytest.mark.parametrize("text", PIPELINES)
def test_results_are_the_oracle_s(library, text, rng):
    def attempt(name):
        rows = draw(rng).astype(dtype_named(name))
        result = bragg.aggregate(library.array(rows), text)
        assert library.is_one(result)
        values = library.values(result)
        assert values.dtype == rows.dtype
        return (rows, values), {}

    for name in library.dtypes():
        judged, complaint = judge(text, partial(attempt, name))
        assert not complaint, name
        # Sixteen bits may leave a choice to rounding at every draw; 32 do not.
        assert judged or name in ("float16", "bfloat16")


@pytest.mark.parametrize("text", [text for text in PIPELINES if text != "mean" and not text.startswith("bucketing")])
def test_nan_rows_are_the_oracle_s(library, text, rng):
    def attempt():
        rows = draw(rng, bad=0).astype(np.float32)
        rows[4] = np.nan
        rows[7, 3] = -np.inf
        values = library.values(bragg.aggregate(library.array(rows), text))
        assert np.isfinite(values).all()
        return (rows, values), {}

    assert judge(text, attempt) == (True, "")


@pytest.mark.parametrize(
    "text", ["clip(c=4) | trimmed_mean(f=2)", "cge(f=2)", "nnm(f=2) | median", "geometric_median", "mean"]
)
def test_base_and_weights_are_the_oracle_s(library, text, rng):
    weights = rng.uniform(0.5, 2, 11)
    weights[5] = 0

    def attempt():
        rows = draw(rng).astype(np.float32)
        base = rng.standard_normal(67).astype(np.float32)
        result = bragg.aggregate(
            library.array(rows), text, base=library.array(base), weights=weights, max_weight_share=0.2
        )
        return (rows, library.values(result)), {"base": base, "weights": list(weights), "max_weight_share": 0.2}

    assert judge(text, attempt) == (True, "")


@pytest.mark.parametrize("text", PIPELINES)
def test_the_oracle_finds_what_is_wrong(text, rng):
    def attempt():
        rows = draw(rng).astype(np.float32)
        result = bragg.aggregate(rows, text)
        result[13] += np.float32(0.1)
        return (rows, result), {}

    assert "coordinate 13" in judge(text, attempt)[1]


def test_results_are_byzfl_s():
    """The vectors and the tolerance are those of tests/golden_test.cpp, which says why they are."""
    cases = json.loads((DATA / "byzfl.json").read_text())["cases"]
    assert len(cases) == 24
    for case in cases:
        rows = np.array(case["rows"])
        tolerance = 50 * rows.size * 2.0**-53 * np.abs(rows).max(axis=0)
        for text, expected in case["expect"].items():
            assert (np.abs(bragg.aggregate(rows, text) - expected) <= tolerance).all(), text
