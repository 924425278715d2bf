# SPDX-License-Identifier: Apache-2.0
"""bragg.flower: Flower's own loop, with nodes of which some are hostile."""

import io
import logging
import os

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import bragg
import numpy as np
import pytest

pytest.importorskip("flwr.serverapp.strategy", reason="no flwr with ServerApp strategies")
from bragg.flower import RobustStrategy, median_metrics
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, FedMedian
from flwr.supercore.task_identity import TaskIdentity

RULE = "nnm(f=2) | trimmed_mean(f=2)"
NODES = 11
BAD = {3, 8}


@pytest.fixture(autouse=True)
def _within_a_task(monkeypatch):
    """What Flower sets in the process of a ServerApp, and Messages need."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


@pytest.fixture
def warnings():
    """What Flower's logger is told to warn of."""
    told = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())
    logging.getLogger("flwr").addHandler(handler)
    yield told
    logging.getLogger("flwr").removeHandler(handler)


class Nodes(Grid):
    """Flower's grid, but for the transport: `answer(node, model, message)` is what a node replies with."""

    def __init__(self, answer, n=NODES):
        self._answer = answer
        self._n = n

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            arrays = message.content["arrays"]
            answer = self._answer(node, {key: array.numpy() for key, array in arrays.items()}, message)
            if answer is not None:
                replies.append(Message(answer, reply_to=message))
        return replies[::-1]  # in no order that the strategy may count on

    def get_node_ids(self):
        return range(1, self._n + 1)

    run = None
    set_run = create_message = push_messages = pull_messages = None


def model():
    """Weights, a bias and a counter, as a network has."""
    return {"w": np.ones((3, 4), np.float32), "b": np.zeros(3, np.float32), "seen": np.array(5)}


def initial():
    return ArrayRecord({key: Array(array) for key, array in model().items()})


def reply(arrays, **metrics):
    record = ArrayRecord({key: Array(np.asarray(array)) for key, array in arrays.items()})
    return RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": 10, "loss": 1.0} | metrics)})


def honest(node, arrays):
    """One step of size 1 away from 0, noisy by node."""
    noise = np.random.default_rng(node).normal(0, 0.01, 12).astype(np.float32)
    return {
        "w": arrays["w"] + 1 + noise.reshape(3, 4),
        "b": arrays["b"] + 1 + noise[:3],
        "seen": arrays["seen"] + 10,
    }


def run(strategy, answer, n=NODES, rounds=1):
    result = strategy.start(Nodes(answer, n), initial(), num_rounds=rounds)
    return {key: array.numpy() for key, array in result.arrays.items()}, result


def strategy(rule=RULE, **options):
    return RobustStrategy(rule, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1, **options)


def attacked(make):
    """Answers of which those of BAD are make(arrays, message)."""

    def answer(node, arrays, message):
        return make(arrays, message) if node in BAD else reply(honest(node, arrays))

    return answer


def assert_honest_after(arrays, rounds):
    assert list(arrays) == ["w", "b", "seen"]
    np.testing.assert_allclose(arrays["w"], 1 + rounds, atol=0.05 * rounds)
    np.testing.assert_allclose(arrays["b"], rounds, atol=0.05 * rounds)
    assert arrays["seen"] == 5 + 10 * rounds
    assert {key: (array.dtype, array.shape) for key, array in arrays.items()} == {
        key: (array.dtype, array.shape) for key, array in model().items()
    }


def filled(value):
    return lambda arrays, message: reply({"w": arrays["w"] * 0 + value, "b": arrays["b"] * 0 + value, "seen": 0})


def filled_row(value):
    return {"w": model()["w"] * value, "b": model()["b"] + np.float32(value), "seen": model()["seen"]}


def garbled(arrays, message):
    broken = reply(arrays)
    broken["arrays"]["w"] = Array("float32", (3, 4), "numpy.ndarray", b"\x93NUMPY garbage")
    return broken


def endless(arrays, message):
    """A header that promises more than any memory holds."""
    bytes_ = io.BytesIO()
    np.lib.format.write_array_header_1_0(bytes_, {"descr": "<f4", "fortran_order": False, "shape": (2**50,)})
    broken = reply(arrays)
    broken["arrays"]["w"] = Array("float32", (3, 4), "numpy.ndarray", bytes_.getvalue())
    return broken


HOSTILE = {
    "NaN": filled(np.nan),
    "infinity": filled(np.inf),
    "-1e30": filled(-1e30),
    "no arrays": lambda arrays, message: RecordDict({"metrics": MetricRecord({"num-examples": 1})}),
    "nothing": lambda arrays, message: RecordDict(),
    "no answer": lambda arrays, message: None,
    "an error": lambda arrays, message: Error(0, "out of memory"),
    "other names": lambda arrays, message: reply({"v": arrays["w"]}),
    "another shape": lambda arrays, message: reply({**arrays, "w": arrays["w"].T}),
    "another dtype": lambda arrays, message: reply({**arrays, "w": arrays["w"].astype(np.float64)}),
    "bytes that are no array": garbled,
    "no examples": lambda arrays, message: reply({**arrays, "w": arrays["w"] - 100}, **{"num-examples": 0}),
    "metrics of no use": lambda arrays, message: reply(arrays, **{"num-examples": [1, 2], "loss": [1.0], "x": 3}),
    "a header without end": endless,
}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("weighted", [False, True])
def test_hostile_nodes_do_not_matter(hostile, weighted):
    rounds = 3
    arrays, result = run(strategy(weighted=weighted), attacked(HOSTILE[hostile]), rounds=rounds)
    assert_honest_after(arrays, rounds)
    assert all(metrics["loss"] == 1 for metrics in result.train_metrics_clientapp.values())
    assert len(result.train_metrics_clientapp) == rounds


@pytest.mark.parametrize("theirs", [FedAvg, FedMedian])
def test_nan_ruins_flower_s_own(theirs):
    arrays, _ = run(theirs(), attacked(filled(np.nan)))
    assert np.isnan(arrays["w"]).all()


def test_a_model_in_fortran_s_order_is_taken():
    arrays, _ = run(
        strategy("median"),
        lambda node, arrays, message: reply({**arrays, "w": np.asfortranarray(arrays["w"] + node)}),
        n=5,
    )
    assert (arrays["w"] == 1 + 3).all()


@pytest.mark.parametrize(
    "rule", [RULE, "geometric_median", "clip(c=3) | mean", "centered_clipping(tau=3, start=reference)"]
)
def test_the_base_is_the_global_model(rule):
    """Far from the origin, where distances about it would tell nothing, the result is aggregate's with that base."""
    far = {key: array + 1000 for key, array in model().items()}
    answers = {node: honest(node, far) for node in range(1, 12)}
    result = strategy(rule).start(
        Nodes(lambda node, arrays, message: reply(answers[node])),
        ArrayRecord({key: Array(np.asarray(array)) for key, array in far.items()}),
        num_rounds=1,
    )
    expected = bragg.aggregate(list(answers.values()), rule, base=far)
    assert {key: array.numpy().tolist() for key, array in result.arrays.items()} == {
        key: array.tolist() for key, array in expected.items()
    }


def test_state_goes_on_while_n_stays():
    permuted = "bucketing(s=4, seed=7) | median"
    answers = {node: honest(node, model()) for node in range(1, 12)}
    seen = []
    strategy(permuted).start(
        Nodes(lambda node, arrays, message: reply(answers[node])),
        initial(),
        num_rounds=4,
        evaluate_fn=lambda r, arrays: seen.append(arrays["w"].numpy()),
    )
    rows = list(answers.values())
    plan = bragg.Plan(permuted, rows)
    expected = [plan.run(rows, model())["w"] for _ in range(4)]
    assert np.array_equal(seen[1:], expected)
    assert not np.array_equal(seen[1], seen[2])


@pytest.mark.parametrize("weighted", [False, True])
def test_a_reputation_remembers_nodes(weighted, tmp_path, caplog):
    """Node 3 sends no model, and is in quarantine from round 3 on; node 8 lies and weighs little."""

    def answer(node, arrays, message):
        if node == 3:
            return garbled(arrays, message)
        return filled(-9)(arrays, message) if node == 8 else reply(honest(node, arrays))

    path = tmp_path / "state.json"
    with caplog.at_level(logging.INFO, "flwr"):
        arrays, _ = run(strategy(reputation=bragg.Reputation(path), weighted=weighted), answer, rounds=12)
    assert_honest_after(arrays, 12)
    reputation = bragg.Reputation(path)
    assert reputation.round == 12
    assert reputation.scores["3"] == 0.1
    assert 0.2 <= reputation.scores["8"] < 0.4 < 0.7 < reputation.scores["1"]
    trust = reputation.trust(RULE, [str(node) for node in range(1, 12)])
    assert trust.weights[trust.rows.index(7)] < trust.weights[0] / 2
    told = [record.getMessage() for record in caplog.records]
    assert sum("node 3: reputation 0.1 to 0.1: in quarantine" in text for text in told) == 10
    assert sum("of 10 replies; nodes of weight 0" in text for text in told) == 10
    assert any("node 8: reputation" in text and "again and again" in text for text in told)


def test_rounds_that_fail_teach_nothing(warnings):
    reputation = bragg.Reputation()
    run(strategy("krum(f=2)", reputation=reputation), attacked(filled(np.nan)), n=6)
    assert reputation.round == 0 and len(warnings) == 1
    run(strategy("krum(f=1)", reputation=reputation), attacked(filled(np.nan)))
    assert reputation.round == 0


def test_rounds_of_too_few_replies_leave_the_model(warnings):
    """krum(f=2) needs 7. In round 2, six answer."""

    def answer(node, arrays, message):
        if message.content["config"]["server-round"] == 2 and node > 6:
            return None
        return reply(honest(node, arrays))

    arrays, result = run(strategy("krum(f=2)"), answer, rounds=3)
    assert_honest_after(arrays, 2)
    assert sorted(result.train_metrics_clientapp) == [1, 2, 3]
    assert len(warnings) == 1
    assert (
        "6 replies are too few; the global model stays: krum: n = 6 rows with f = 2: needs n ≥ 2f+3 = 7" in warnings[0]
    )


def test_rounds_that_defeat_the_rule_leave_the_model(warnings):
    def answer(node, arrays, message):
        broken = message.content["config"]["server-round"] == 1 and node < 4
        return filled(np.nan)(arrays, message) if broken else reply(honest(node, arrays))

    arrays, _ = run(strategy("krum(f=2)"), answer, rounds=2)
    assert_honest_after(arrays, 1)
    assert len(warnings) == 1
    assert "the global model stays: too many" in warnings[0]


NO_ROWS = (
    "no arrays",
    "nothing",
    "other names",
    "another shape",
    "another dtype",
    "bytes that are no array",
    "a header without end",
)


@pytest.mark.parametrize("hostile", NO_ROWS)
def test_a_reply_that_is_no_row_counts_towards_f(hostile, warnings):
    """As one of NaN: three are more than f = 2 allows, of any number of nodes."""
    bad = {1, 6, 11}

    def answer(node, arrays, message):
        return HOSTILE[hostile](arrays, message) if node in bad else reply(honest(node, arrays))

    arrays, result = run(strategy("krum(f=2)"), answer)
    assert sum("is a bad row: " in warning for warning in warnings) == 3
    assert "the global model stays: too many rows are not finite: 3 of 11 hold NaN" in warnings[-1]
    assert not arrays
    assert result.train_metrics_clientapp[1]["bad-replies"] == 3
    bad.discard(6)
    arrays, result = run(strategy("krum(f=2)"), answer)
    assert_honest_after(arrays, 1)
    assert result.train_metrics_clientapp[1]["bad-replies"] == 2
    rows = [filled_row(np.nan) if node in bad else honest(node, model()) for node in range(1, 12)]
    assert (arrays["w"] == bragg.aggregate(rows, "krum(f=2)", base=model())["w"]).all()


def test_tensors_may_be_left_out_of_the_distances():
    """One honest node's statistics are far from the others'; one liar steps back."""

    def answer(node, arrays, message):
        row = honest(node, arrays)
        if node == 1:
            row["b"] = row["b"] + 1000
        return reply(row if node != 2 else {**row, "w": arrays["w"] - 10})

    judged, _ = run(strategy("multi_krum(f=1)", ignore_in_distances="b"), answer, n=9)
    assert (judged["w"] > 1.9).all()
    misled, _ = run(strategy("multi_krum(f=1)"), answer, n=9)
    assert (misled["w"] < 1.9).all()


def test_tensors_of_a_model_may_differ_in_dtype():
    def steps(node, arrays, message):
        return reply({name: array + array.dtype.type(node) for name, array in arrays.items()})

    start = {"w": np.zeros((2, 3), np.float16), "b": np.zeros(3, np.float64), "n": np.zeros(2, np.float32)}
    record = ArrayRecord({key: Array(array) for key, array in start.items()})
    result = strategy("krum(f=1)").start(Nodes(steps, 7), record, num_rounds=1)
    for key, array in result.arrays.items():
        assert array.numpy().dtype == start[key].dtype
        assert (array.numpy() == result.arrays["b"].numpy().flat[0]).all()


def test_nobody_answers():
    result = strategy().start(Nodes(lambda *_: None), initial(), num_rounds=2)
    assert not result.arrays
    assert result.train_metrics_clientapp == {}


def test_weights_are_the_examples_where_asked():
    """Three nodes: at 1, 1 and 4, the last with nearly all the examples."""

    def answer(node, arrays, message):
        values = {"w": np.full_like(arrays["w"], 4 if node == 3 else 1), "b": arrays["b"], "seen": arrays["seen"]}
        return reply(values, **{"num-examples": 98 if node == 3 else 1})

    def mean(**options):
        return float(run(strategy("mean", **options), answer, n=3)[0]["w"][0, 0])

    assert mean() == pytest.approx(2)
    assert mean(weighted=True) == pytest.approx((1 + 1 + 98 * 4) / 100)
    # The cap holds where 98 became c with c = (c + 2)/2.
    assert mean(weighted=True, max_weight_share=0.5) == pytest.approx((1 + 1 + 2 * 4) / 4)


def test_nodes_without_examples_are_not_counted(warnings):
    """multi_krum(f=2) needs 7 of the 8; 2 have none. They can neither be rows nor end the run."""
    answer = attacked(lambda arrays, message: reply(honest(1, arrays), **{"num-examples": 0}))
    result = strategy("multi_krum(f=2)", weighted=True).start(Nodes(answer, 8), initial(), num_rounds=1)
    assert not result.arrays
    assert len(warnings) == 1
    assert "6 replies are too few" in warnings[0]


def test_metrics_are_medians():
    contents = [
        reply({}, loss=loss, list=[1.0], **extra)
        for loss, extra in [(1.0, {}), (2, {"rare": 1}), (float("nan"), {"rare": 1}), (3.0, {}), (1e300, {})]
    ]
    assert dict(median_metrics(contents, "num-examples")) == {"loss": 3.0}
    assert dict(median_metrics(contents, "loss")) == {"num-examples": 10.0}


def test_metrics_of_evaluation_stand_hostile_nodes():
    def answer(node, arrays, message):
        if message.metadata.message_type == "train":
            return reply(honest(node, arrays))
        if node in BAD:
            return RecordDict({"metrics": MetricRecord({"acc": [1.0]})})
        return RecordDict({"metrics": MetricRecord({"num-examples": 1, "acc": 0.5})})

    _, result = run(strategy(), answer)
    assert dict(result.evaluate_metrics_clientapp[1]) == {"acc": 0.5}


def test_arguments():
    with pytest.raises(bragg.ParseError, match="unknown rule"):
        RobustStrategy("medain")
    with pytest.raises(ValueError, match="max_weight_share = 0.1 .*weighted=True"):
        RobustStrategy("mean", max_weight_share=0.1)
    with pytest.raises(ValueError, match="krum has no weighted form"):
        run(strategy("krum(f=2)", weighted=True), lambda node, arrays, message: reply(honest(node, arrays)))
    with pytest.raises(RuntimeError, match="configure_train first"):
        RobustStrategy("mean").aggregate_train(1, [])
    strange = ArrayRecord([np.zeros(2, np.float32), np.zeros(2, np.complex64)])
    with pytest.raises(TypeError, match="dtype complex64; needs"):
        strategy().start(Nodes(lambda *_: None), strange)
    rule = bragg.Nnm(f=2) | bragg.TrimmedMean(f=2)
    arrays, _ = run(strategy(rule), lambda node, arrays, message: reply(honest(node, arrays)))
    assert_honest_after(arrays, 1)


def test_flower_s_simulation(monkeypatch):
    """Eleven nodes in Flower's own simulation, each ClientApp in a process of Ray's; two send NaN."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    client, server = ClientApp(), ServerApp()

    # Within the test, so that they travel by value to processes that cannot import this file.
    @client.train()
    def train(message, context):
        node = context.node_config["partition-id"]
        bad = node in (3, 8)
        arrays = {key: array.numpy() for key, array in message.content["arrays"].items()}
        stepped = {
            key: Array(array + 1 if array.dtype == int else array + np.float32("nan" if bad else 1 + node / 1000))
            for key, array in arrays.items()
        }
        metrics = MetricRecord({"num-examples": 10, "loss": float("nan") if bad else 1.0})
        return Message(RecordDict({"arrays": ArrayRecord(stepped), "metrics": metrics}), reply_to=message)

    results = []

    @server.main()
    def main(grid, context):
        robust = RobustStrategy(RULE, fraction_evaluate=0.0, min_train_nodes=NODES)
        results.append(
            robust.start(
                grid, ArrayRecord({"w": Array(np.zeros(7, np.float32)), "n": Array(np.ones(1, int))}), num_rounds=2
            )
        )

    run_simulation(
        server,
        client,
        num_supernodes=NODES,
        backend_config={"client_resources": {"num_cpus": 1}, "init_args": {"include_dashboard": False, "num_cpus": 2}},
    )
    arrays = {key: array.numpy() for key, array in results[0].arrays.items()}
    assert (arrays["w"] > 2).all()
    assert (arrays["w"] < 2 + 2 * NODES / 1000).all()
    assert arrays["n"] == 3
    assert dict(results[0].train_metrics_clientapp[2]) == {"loss": 1.0}
