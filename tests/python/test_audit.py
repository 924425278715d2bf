# SPDX-License-Identifier: Apache-2.0
"""bragg.audit: the figures of `bragg audit`."""

import dataclasses
import json
import math

import bragg
import numpy as np
import pytest

N, D = 9, 60


@pytest.fixture
def rows():
    """Of nine workers the fourth sends the opposite, tenfold, and the sixth a NaN."""
    random = np.random.default_rng(3)
    made = random.standard_normal(D) + random.standard_normal((N, D))
    made[3] *= -10
    made[5, 7] = np.nan
    return made


def as_trees(rows):
    return [{"a": row[:20].astype(np.float32).reshape(4, 5), "b": row[20:], "steps": np.array(3)} for row in rows]


def evidence(found):
    return [[finding.evidence for finding in worker.findings] for worker in found.workers]


def test_it_names_who_looks_bad_and_recommends_a_rule_that_holds(rows):
    found = bragg.audit(rows)
    assert (found.n, found.honest, found.coordinates, found.bad) == (N, 7, D, (3, 5))
    assert {"norm", "direction"} <= set(evidence(found)[3]) and evidence(found)[5] == ["non-finite"]
    assert (found.workers[5].nonfinite, found.workers[5].norm) == (1, None)
    assert found.workers[0].norm == pytest.approx(np.linalg.norm(rows[0]))
    honest = np.delete(rows, found.bad, axis=0)
    spread = np.sum((honest - honest.mean(0)) ** 2) / len(honest)
    assert found.spread == pytest.approx(math.sqrt(spread))
    assert found.advice.f == 2
    off = np.sum((bragg.aggregate(rows, found.recommendation) - honest.mean(0)) ** 2) / spread
    rule = next(rule for rule in found.rules if rule.rule.replace("F", "2") == found.recommendation)
    (point,) = (point for point in rule.points if point.f == 2)
    assert off == pytest.approx(point.given, abs=1e-9) and off < point.kappa
    assert f"bad [3, 5], recommendation {found.recommendation!r}" in repr(found)
    assert f'Recommended: "{found.recommendation}"' in str(found) and "7 of 9 workers look honest" in str(found)


@pytest.mark.parametrize("with_base", [False, True])
def test_the_figures_are_those_of_the_command(rows, with_base, command, tmp_path):
    base = np.linspace(-1, 1, D)
    paths = [tmp_path / f"w{i}.npy" for i in range(N)]
    for path, row in zip([*paths, tmp_path / "base.npy"], [*rows, base]):
        np.save(path, row)
    arguments = ["audit", *paths, "--sample", 0, "--seed", 5, "--f", 3, "--rule", "median"]
    arguments += ["--base", tmp_path / "base.npy"] if with_base else []
    found = bragg.audit(
        rows, base=base if with_base else None, rules="median", f=3, sample=0, seed=5, names=list(map(str, paths))
    )
    fields = json.loads(json.dumps(dataclasses.asdict(found)))  # whose tuples are lists
    assert fields.pop("text") == str(found) == command(*arguments).stdout
    assert fields == json.loads(command(*arguments, "--json").stdout)


def test_models_are_audited_with_what_is_none(rows):
    trees = as_trees(rows)
    trees[7] = {"a": trees[7]["a"]}
    found = bragg.audit(trees, rules=["mean", "krum(f=F)"], names=[f"client {i}" for i in range(N)])
    assert found.bad == (3, 5, 7) and [found.workers[i].name for i in found.bad] == ["client 3", "client 5", "client 7"]
    (finding,) = found.workers[7].findings
    assert finding.evidence == "bad input" and "'b'" in finding.text
    assert [tensor.name for tensor in found.tensors] == ["a", "b"] and found.coordinates == D
    assert sum(tensor.share for tensor in found.tensors) == pytest.approx(1)
    mean, krum = found.rules
    assert mean.points[1].unbounded and mean.points[1].worst is None and mean.points[1].attack == "nan"
    assert krum.points[1].kappa > krum.points[1].worst > 0
    with pytest.raises(ValueError, match=r"updates\[7\]: keys differ"):
        bragg.audit(trees, bad_inputs="error")


def test_rows_are_seen_from_the_base(rows):
    """Beside which the fourth stands out in its direction; without it, nobody does."""
    rows[3] /= -10
    rows[3] *= -1
    rows[5, 7] = 0
    model = np.full(D, 1000.0)
    assert 3 not in bragg.audit(rows + model).bad
    assert evidence(bragg.audit(rows + model, base=model))[3] == ["direction"]
    assert evidence(bragg.audit(as_trees(rows + model), base=as_trees([model])[0]))[3] == ["direction"]


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"rules": "krm(f=F)"}, bragg.ParseError, r"unknown rule 'krm'(.|\n)*\n  krm\(f=F\)\n  \^$"),
        ({"rules": "krum(f=F, g=F)"}, bragg.ParseError, r"\n  krum\(f=F, g=F\)\n {12}\^$"),
        ({"rules": ["median", "monna(f=F)"]}, ValueError, "rules: monna.* trusts a row"),
        ({"rules": f"dnc(f=F, sample={D - 1})"}, ValueError, f"rules: dnc.* judges rows by {D - 1} of {D} coordinates"),
        ({"rules": [3]}, TypeError, "rule: int"),
        ({"f": 5}, ValueError, "f = 5 of 9 workers"),
        ({"f": 0}, ValueError, "f = 0; needs an integer from 1"),
        ({"sample": -1}, ValueError, "sample = -1"),
        ({"seed": -1}, ValueError, "seed = -1"),
        ({"names": ["a"]}, ValueError, "names: 1 of them; needs 9"),
        ({"base": np.zeros(3)}, ValueError, "base: shape"),
        ({"base": np.full(D, np.nan)}, bragg.AggregationError, "base: holds NaN or infinity"),
        ({"bad_inputs": "no"}, ValueError, "bad_inputs = 'no'"),
    ],
)
def test_wrong_usage(options, error, what, rows):
    with pytest.raises(error, match=what):
        bragg.audit(rows, **options)


def test_it_takes_three_workers(rows):
    with pytest.raises(ValueError, match="2 workers; an audit needs at least 3"):
        bragg.audit(rows[:2])
    assert bragg.audit(rows[:3]).n == 3
