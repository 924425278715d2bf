# SPDX-License-Identifier: Apache-2.0
"""bragg.Reputation: rounds of workers, of whom some are bad, by name."""

import dataclasses
import json
import os

import bragg
import numpy as np
import pytest

NAMES = [f"worker-{i}" for i in range(8)]
RULE = "nnm(f=2) | trimmed_mean(f=2)"


def rows(random, bad=()):
    made = random.normal(1, 0.1, (8, 50)).astype(np.float32)
    for at, value in dict(bad).items():
        made[at] = value
    return made


def run(reputation, updates, rule=RULE, names=NAMES, **options):
    trust = reputation.trust(rule, names, **options)
    result = bragg.aggregate_with_report(updates[trust.rows], trust.rule, weights=trust.weights)
    assert np.isfinite(result.value).all()
    return trust, reputation.update(trust, result.report)


def test_new_names_are_alike_and_a_liar_loses_its_weight():
    random = np.random.default_rng(1)
    reputation = bragg.Reputation()
    trust, judgements = run(reputation, rows(random))
    assert trust.weights is None and trust.rows == list(range(8)) and trust.rule == RULE and trust.names == NAMES
    assert [judged.before for judged in judgements] == [0.2] * 8
    for _ in range(30):
        trust, judgements = run(reputation, rows(random, {5: -3}))
    assert judgements[5].verdict == "doubted"
    assert judgements[5].left_out > 0.5
    assert reputation.score("worker-5") < 0.4 < 0.8 < reputation.score("worker-1")
    assert trust.weights[5] < 0.5 * trust.weights[1]
    assert trust.max_weight_share == 0.25 - 1 / 16  # n = 8 and f = 2: the rule takes f' = 3
    assert reputation.round == 31
    assert reputation.score("nobody") == 0.2
    assert repr(reputation) == "Reputation(8 names, round 31)"
    assert repr(trust) == "Trust(8 of 8 rows, weighted)"
    assert repr(judgements[1]).startswith("Judgement(worker-1: 0.9")


def test_broken_workers_are_left_out_for_a_while():
    random = np.random.default_rng(2)
    reputation = bragg.Reputation(sentence=3)
    seen = []
    for _ in range(5):
        trust, judgements = run(reputation, rows(random, {2: np.nan}))
        seen.append((len(trust.rows), judgements[2].verdict, judgements[2].quarantine))
    assert seen == [
        (8, "failed", 0),
        (8, "failed", 3),
        (7, "quarantined", 2),
        (7, "quarantined", 1),
        (7, "quarantined", 0),
    ]
    assert judgements[2].reason == "in quarantine for the last round"
    assert len(reputation.trust(RULE, NAMES).rows) == 8


def test_bad_inputs_and_pivots():
    random = np.random.default_rng(3)
    reputation = bragg.Reputation()
    for _ in range(2):
        updates = list(rows(random))
        updates[0] = "no array"
        trust = reputation.trust("monna(f=2, pivot=4)", NAMES)
        result = bragg.aggregate_with_report(updates, trust.rule, weights=trust.weights)
        judgements = reputation.update(trust, result.reports)
    assert judgements[0].reason.startswith("bad input: ") and judgements[0].quarantine == 10
    assert judgements[4].reason == "the row that the rule trusts"
    assert reputation.trust("monna(f=2, pivot=4)", NAMES).rule == "monna(f=2, pivot=3)"


def test_weights_of_the_caller():
    reputation = bragg.Reputation()
    trust = reputation.trust("trimmed_mean(f=1)", NAMES[:4], [1, 2, 1, 100])
    assert trust.max_weight_share == 0.25 and trust.weights is None  # f' = f: no other is legal
    trust = reputation.trust("trimmed_mean(f=1)", NAMES[:6], np.array([1, 2, 1, 1, 1, 100]))
    assert trust.max_weight_share == pytest.approx(1 / 3)
    assert trust.weights[1] == 2 * trust.weights[0]
    assert trust.weights[5] / sum(trust.weights) == pytest.approx(1 / 3)


def test_a_file_is_kept(tmp_path):
    random = np.random.default_rng(4)
    path = tmp_path / "state.json"
    reputation = bragg.Reputation(path, newcomer=0.3)
    assert not path.exists()
    for _ in range(3):
        run(reputation, rows(random, {2: np.nan}))
    again = bragg.Reputation(path)
    assert (again.scores, again.round) == (reputation.scores, 3)
    assert again.score("new") == 0.3  # of the file
    assert json.loads(path.read_text())["options"]["newcomer"] == 0.3
    again.save(tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_bytes() == path.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["copy.json", "state.json"]

    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match="is not JSON"):
        bragg.Reputation(path)
    with pytest.raises(OSError, match="none"):
        reputation.save(tmp_path / "none" / "state.json")


def test_a_rule_without_an_f_is_only_watched_unless_one_is_given():
    trust = bragg.Reputation().trust("median", NAMES)
    assert trust.only_watched == "median has no f, and the f of the reputation is 0"
    assert bragg.Reputation(f=2).trust("median", NAMES).only_watched == ""
    with pytest.raises(ValueError, match="f = -1"):
        bragg.Reputation(f=-1)


def test_a_round_that_cannot_be_kept_is_not_learnt(tmp_path):
    reputation = bragg.Reputation(tmp_path / "none" / "state.json")
    trust = reputation.trust(RULE, NAMES)
    report = bragg.aggregate_with_report(rows(np.random.default_rng(5)), trust.rule).report
    with pytest.raises(OSError, match="none"):
        reputation.update(trust, report)
    assert reputation.round == 0 and reputation.scores == {}


def test_a_result_that_is_not_finite_teaches_nothing_unless_it_is_allowed():
    reputation = bragg.Reputation()
    trust = reputation.trust("mean", NAMES)
    updates = rows(np.random.default_rng(6), {2: np.nan})
    with pytest.raises(bragg.AggregationError) as caught:
        bragg.aggregate(updates, trust.rule)
    with pytest.raises(ValueError, match="nonfinite_result, which teaches nothing"):
        reputation.update(trust, caught.value.reports)
    assert reputation.round == 0
    assert reputation.update(trust, caught.value.reports, allow_nonfinite=True)[2].verdict == "failed"


def test_arguments_are_checked():
    for options, says in [
        ({"newcomer": 2}, "newcomer = 2"),
        ({"rise": 0.6}, "rise < fall"),
        ({"sentence": 0}, "sentence = 0"),
    ]:
        with pytest.raises(ValueError, match=says):
            bragg.Reputation(**options)
    with pytest.raises(TypeError, match="fall = 'x'"):
        bragg.Reputation(fall="x")
    reputation = bragg.Reputation()
    with pytest.raises(ValueError, match='"a" is there twice'):
        reputation.trust("median", ["a", "b", "a"])
    with pytest.raises(bragg.ParseError):
        reputation.trust("medain", ["a", "b"])
    with pytest.raises(ValueError, match="weights has 1 values for n = 2 names"):
        reputation.trust("median", ["a", "b"], [1])
    with pytest.raises(TypeError, match="names = 'abcdef'"):
        reputation.trust("median", "abcdef")
    for share in (float("nan"), -1, 2, float("inf")):
        with pytest.raises(ValueError, match="max_weight_share = .*; needs 0 .no cap. or a share"):
            reputation.trust("median", ["a", "b"], max_weight_share=share)
    with pytest.raises(ValueError, match="null byte"):
        bragg.Reputation("state\0.json")
    with pytest.raises(ValueError, match="null byte"):
        reputation.save("state\0.json")
    trust = reputation.trust("median", ["a", "b", "c"])
    report = bragg.aggregate_with_report(np.ones((3, 2), np.float32), "median").report
    with pytest.raises(ValueError, match="too_large, which teaches nothing"):
        reputation.update(trust, dataclasses.replace(report, status="too_large"))
    with pytest.raises(ValueError, match="reports: none"):
        reputation.update(trust, [])
    with pytest.raises(ValueError, match="one of 3 rows; needs 2"):
        reputation.update(reputation.trust("median", ["a", "b"]), report)
    assert reputation.round == 0


def test_names_that_are_none_are_said_to_be():
    reputation = bragg.Reputation()
    with pytest.raises(TypeError, match=r"names\[1\] = 2; needs a text, such as '2'"):
        reputation.trust("median", ["a", 2])
    with pytest.raises(ValueError, match=r"names\[0\] = .*; holds half a surrogate pair"):
        reputation.trust("median", ["\ud800"])
    with pytest.raises(TypeError, match=r"name = None; needs a text"):
        reputation.score(None)
    with pytest.raises(ValueError, match=r"name = .*; holds half a surrogate pair"):
        reputation.score("\udfff")
    assert reputation.score("Zoë 🦊") == 0.2


def test_arguments_are_looked_at_beside_a_file(tmp_path):
    bragg.Reputation().save(tmp_path / "state.json")
    with pytest.raises(ValueError, match="rise = 7"):
        bragg.Reputation(tmp_path / "state.json", rise=7)
    with pytest.raises(TypeError, match="sentence = 1.5"):
        bragg.Reputation(tmp_path / "state.json", sentence=1.5)
