# SPDX-License-Identifier: Apache-2.0
"""bragg.nvflare: NVFlare's own aggregator interface, with clients of which some are hostile."""

import gc
import json
import logging
import weakref

import bragg
import numpy as np
import pytest

pytest.importorskip("nvflare.app_common.aggregators.model_aggregator", reason="no nvflare with ModelAggregator")
from bragg.nvflare import RobustAggregator
from nvflare.apis.fl_constant import FLMetaKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.fedavg import FedAvg

RULE = "nnm(f=2) | trimmed_mean(f=2)"
CLIENTS = 11
BAD = {3, 8}
NAMES = [f"site-{client}" for client in range(CLIENTS)]


def model(value=0.0):
    return {
        "w": np.full((3, 4), 1 + value, np.float32),
        "b": np.full(3, value, np.float64),
        "half": np.full(5, value, np.float16),
        "seen": np.array(5),
    }


def honest(client):
    """One step of size 1 away from the global model, noisy by client."""
    noise = np.random.default_rng(client).normal(0, 0.01, 20)
    return {
        "w": (2 + noise[:12].reshape(3, 4)).astype(np.float32),
        "b": 1 + noise[12:15],
        "half": (1 + noise[15:]).astype(np.float16),
        "seen": np.array(15),
    }


def nan(client):
    return {name: array * np.nan if array.dtype.kind == "f" else array for name, array in honest(client).items()}


class Unreadable:
    """As NVFlare's reference to a tensor on the disk, which is gone."""

    def materialize(self):
        raise FileNotFoundError("chunk_3.safetensors")


class Offloaded:
    """As NVFlare's reference. Knows how many tensors that were read are alive at a time."""

    alive, most, reads = 0, 0, 0

    def __init__(self, array):
        self._array = array

    def materialize(self):
        array = self._array.copy()
        weakref.finalize(array, Offloaded.dead)
        Offloaded.alive += 1
        Offloaded.reads += 1
        Offloaded.most = max(Offloaded.most, Offloaded.alive)
        return array

    @staticmethod
    def dead():
        Offloaded.alive -= 1


def contribution(client, params, kind=ParamsType.FULL, **meta):
    return FLModel(
        params_type=kind,
        params=params,
        metrics={"loss": 1.0, "name": "x"},
        meta={"client_name": f"site-{client:02}", FLMetaKey.NUM_STEPS_CURRENT_ROUND: 10} | meta,
    )


@pytest.fixture
def context():
    """With the global model, as the workflows leave it there."""
    made = FLContext()
    made.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(model(), {}), private=True, sticky=True)
    return made


@pytest.fixture
def warnings(monkeypatch):
    told = []
    monkeypatch.setattr(RobustAggregator, "_warn", lambda self, text: told.append(text))
    return told


def aggregated(models, rule=RULE, context=None, **options):
    aggregator = RobustAggregator(rule, **options)
    aggregator.fl_ctx = context
    aggregator.reset_stats()
    for one in models[::-1]:  # in no order that it may count on
        aggregator.accept_model(one)
    return aggregator.aggregate_model()


HOSTILE = {
    "NaN": lambda params: (
        {name: array * np.nan for name, array in params.items() if name != "seen"} | {"seen": np.array(15)}
    ),
    "other names": lambda params: {"v": params["w"]},
    "a name less": lambda params: {name: array for name, array in params.items() if name != "b"},
    "another shape": lambda params: {**params, "w": params["w"].T},
    "another dtype": lambda params: {**params, "w": params["w"].astype(np.float64)},
    "another integer": lambda params: {**params, "seen": np.array(15, np.int32)},
    "no array": lambda params: {**params, "w": "weights"},
    "None": lambda params: {**params, "b": None},
    "a list": lambda params: [1, 2, 3],
    "what cannot be read": lambda params: {**params, "half": Unreadable()},
    "parameters within parameters": lambda params: {**params, "w": {"x": params["w"]}},
}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("kind", [ParamsType.FULL, ParamsType.DIFF])
def test_a_contribution_that_is_no_row_is_one_of_nan(hostile, based, kind, context, warnings):
    rows = [honest(client) for client in range(CLIENTS)]
    models = [contribution(i, HOSTILE[hostile](row) if i in BAD else row, kind) for i, row in enumerate(rows)]
    expected_rows = [nan(i) if i in BAD else row for i, row in enumerate(rows)]
    for rule in (RULE, "krum(f=2)", "median", "geometric_median", "clip(c=1) | mean"):
        result = aggregated(models, rule, context if based else None)
        base = model() if based and kind == ParamsType.FULL else None
        expected = bragg.aggregate(expected_rows, rule, base=base)
        assert result.params_type == kind
        assert list(result.params) == list(rows[0])
        for name, array in expected.items():
            assert result.params[name].dtype == array.dtype
            assert result.params[name].tobytes() == array.tobytes(), (rule, name)
        if hostile == "NaN":
            assert "bad_contributions" not in result.meta
        else:
            assert list(result.meta["bad_contributions"]) == ["site-03", "site-08"]
            assert sum("is a bad row: " in text for text in warnings) == 2
        warnings.clear()
        assert result.meta["nr_aggregated"] == CLIENTS
        assert result.metrics == {"loss": 1.0}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_too_many_bad_rows_leave_the_global_model(hostile, context, warnings):
    bad = {0, 4, 9}
    models = [contribution(i, HOSTILE[hostile](honest(i)) if i in bad else honest(i)) for i in range(CLIENTS)]
    result = aggregated(models, "krum(f=2)", context)
    assert "the global model stays: too many rows are not finite: 3 of 11" in warnings[0]
    before = model(7)
    after = FLModelUtils.update_model(FLModel(params=dict(before), params_type=ParamsType.FULL), result).params
    assert after == before


@pytest.mark.parametrize(
    ("rule", "models", "what"),
    [
        ("krum(f=2)", [contribution(i, honest(i)) for i in range(6)], "krum: n = 6 rows with f = 2: needs n ≥ 2f"),
        (
            "monna(f=2, pivot=1)",
            [contribution(i, honest(i) if i != 1 else {"w": 1}) for i in range(7)],
            "pivot = 1 is a",
        ),
        ("trimmed_mean(f=1)", [contribution(i, nan(i) if i < 2 else honest(i)) for i in range(7)], "NaN or infinity"),
        ("median", [], "nobody has contributed"),
        ("median", [contribution(i, {f"w{i}": np.ones(1)}) for i in range(3)], "no names of parameters are those"),
        ("median", [contribution(i, {"w": np.ones(i)}) for i in range(3)], "w: no shape and dtype are those of more"),
        ("median", [contribution(i, {"w": {"deep": np.ones(1)}}) for i in range(3)], "w: parameters within param"),
    ],
)
def test_rounds_that_cannot_be_leave_the_global_model(rule, models, what, warnings):
    result = aggregated(models, rule)
    assert result.params_type == ParamsType.DIFF
    assert result.params == {}
    assert what in warnings[0]


@pytest.mark.parametrize("weighted", [False, True])
def test_a_reputation_remembers_clients(weighted, tmp_path, context, warnings):
    """Client 3 contributes no model, and is in quarantine from round 3 on; client 8 lies and weighs little."""
    path = tmp_path / "state.json"
    aggregator = RobustAggregator(RULE, weighted=weighted, reputation=bragg.Reputation(path))
    aggregator.fl_ctx = context
    liar = {name: array * -9 for name, array in honest(8).items()} | {"seen": np.array(15)}
    for number in range(1, 13):
        rows = [honest(client) for client in range(CLIENTS)]
        rows[3], rows[8] = {"v": rows[3]["w"]}, liar
        for client, row in enumerate(rows):
            aggregator.accept_model(contribution(client, row))
        result = aggregator.aggregate_model()
        np.testing.assert_allclose(result.params["w"], 2, atol=0.05)
        assert result.meta.get("quarantined") == (None if number <= 2 else ["site-03"])
        assert list(result.meta.get("bad_contributions", [])) == (["site-03"] if number <= 2 else [])
        assert result.meta["nr_aggregated"] == (11 if number <= 2 else 10)
    reputation = bragg.Reputation(path)
    assert reputation.round == 12
    assert reputation.scores["site-03"] == 0.1
    assert 0.2 <= reputation.scores["site-08"] < 0.4 < 0.7 < reputation.scores["site-01"]
    assert len(warnings) == 2  # of the bad row
    for client in range(CLIENTS):
        aggregator.accept_model(contribution(client, nan(client)))
    assert aggregator.aggregate_model().params == {}
    assert bragg.Reputation(path).round == 12


def test_one_tensor_of_each_is_in_memory_at_a_time():
    rows = [{f"layer{k}": np.full((50, 20), i + k / 7) for k in range(30)} for i in range(CLIENTS)]
    for rule, passes in (("median", 2), ("nnm(f=2) | trimmed_mean(f=2)", 3)):
        Offloaded.most = Offloaded.reads = 0
        models = [
            contribution(i, {name: Offloaded(array) for name, array in row.items()}) for i, row in enumerate(rows)
        ]
        result = aggregated(models, rule)
        gc.collect()
        assert Offloaded.most <= 2 * CLIENTS + 1  # of one tensor, while the next is read
        assert Offloaded.reads == passes * 30 * CLIENTS
        assert Offloaded.alive == 0
        expected = bragg.aggregate(rows, rule)
        assert all((result.params[name] == array).all() for name, array in expected.items())


def test_tensors_that_nvflare_has_off_loaded(tmp_path):
    """NVFlare's own references, to safetensors on the disk."""
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    lazy = pytest.importorskip("nvflare.app_opt.pt.lazy_tensor_dict").LazyTensorDict
    torch.manual_seed(1)
    rows = [{"w": torch.randn(4, 5), "norm": torch.randn(5).bfloat16()} for _ in range(7)]
    models = []
    for i, row in enumerate(rows):
        folder = tmp_path / str(i)
        folder.mkdir()
        save_file(row, folder / "chunk.safetensors")
        tensors = lazy({name: (str(folder / "chunk.safetensors"), name) for name in row}, str(folder))
        models.append(contribution(i, {name: tensors.make_lazy_ref(name) for name in row}))
    (tmp_path / "2" / "chunk.safetensors").write_bytes(b"no longer")
    result = aggregated(models, "krum(f=1)")
    rows[2] = {name: tensor * torch.nan for name, tensor in rows[2].items()}
    expected = bragg.aggregate(rows, "krum(f=1)")
    assert all(torch.equal(result.params[name], tensor) for name, tensor in expected.items())
    assert result.params["norm"].dtype == torch.bfloat16
    assert list(result.meta["bad_contributions"]) == ["site-02"]


def test_as_scatter_and_gather_calls_it(context):
    """By Shareables, through NVFlare's own base class."""
    aggregator = RobustAggregator("krum(f=2)")
    for _ in range(2):
        aggregator.reset(context)
        for client in range(CLIENTS):
            params = nan(client) if client in BAD else honest(client)
            assert aggregator.accept(FLModelUtils.to_shareable(contribution(client, params)), context)
        result = FLModelUtils.from_shareable(aggregator.aggregate(context))
        expected = bragg.aggregate(
            [nan(i) if i in BAD else honest(i) for i in range(CLIENTS)], "krum(f=2)", base=model()
        )
        assert {name: array.tolist() for name, array in result.params.items()} == {
            name: array.tolist() for name, array in expected.items()
        }


def test_as_fed_avg_calls_it(context):
    """NVFlare's own workflow, but for the transport."""
    aggregator = RobustAggregator(RULE)
    aggregator.fl_ctx = context
    workflow = FedAvg(num_clients=CLIENTS, num_rounds=1, aggregator=aggregator)
    workflow.fl_ctx = context
    workflow.current_round = 0
    workflow._received_count, workflow._expected_count, workflow._params_type = 0, CLIENTS, None
    workflow.info = workflow.warning = workflow.event = lambda *_: None
    for client in range(CLIENTS):
        workflow._aggregate_one_result(contribution(client, {"v": np.ones(2)} if client in BAD else honest(client)))
    result = workflow._get_aggregated_result()
    after = workflow.update_model(FLModel(params=model(), params_type=ParamsType.FULL), result)
    np.testing.assert_allclose(after.params["w"], 2, atol=0.05)
    assert after.params["seen"] == 15
    assert result.meta["nr_aggregated"] == CLIENTS
    assert list(result.meta["bad_contributions"]) == ["site-03", "site-08"]


def test_weights_are_the_steps_where_asked():
    """Three clients: at 1, 1 and 4, the last with nearly all the steps; and one without any."""
    models = [
        contribution(i, {"w": np.full(2, value)}, **{FLMetaKey.NUM_STEPS_CURRENT_ROUND: steps})
        for i, (value, steps) in enumerate([(1.0, 1), (1.0, 1), (4.0, 98), (9.0, 0)])
    ]

    def mean(models=models[:3], **options):
        return float(aggregated(models, "mean", **options).params["w"][0])

    assert mean() == pytest.approx(2)
    assert mean(models) == pytest.approx(15 / 4)
    assert mean(models, weighted=True) == pytest.approx((1 + 1 + 98 * 4) / 100)
    # The cap holds where 98 became c with c = (c + 2)/2.
    assert mean(weighted=True, max_weight_share=0.5) == pytest.approx((1 + 1 + 2 * 4) / 4)


def test_the_round_of_bucketing_goes_on():
    rows = [honest(client) for client in range(CLIENTS)]
    aggregator = RobustAggregator("bucketing(s=4, seed=7) | median")
    plan = bragg.Plan("bucketing(s=4, seed=7) | median", rows)
    seen = []
    for _ in range(3):
        for client, row in enumerate(rows):
            aggregator.accept_model(contribution(client, row))
        seen.append(aggregator.aggregate_model().params["w"])
        out = model()
        plan.run(rows, out)
        assert (seen[-1] == out["w"]).all()
    assert not np.array_equal(seen[0], seen[1])


def test_what_is_no_array_is_the_global_model_s(context, warnings):
    rows = [honest(client) | {"state": bytes([client]), "tag": "v1"} for client in range(CLIENTS)]
    result = aggregated([contribution(i, row) for i, row in enumerate(rows)])
    assert "state" not in result.params
    assert result.params["tag"] == "v1"
    assert warnings == ["left out of the result: state: no array, and no value that most share"]
    made = FLContext()
    made.set_prop(
        AppConstants.GLOBAL_MODEL,
        make_model_learnable(model() | {"state": b"x", "tag": "v0"}, {}),
        private=True,
        sticky=True,
    )
    result = aggregated([contribution(i, row) for i, row in enumerate(rows)], context=made)
    assert (result.params["state"], result.params["tag"]) == (b"x", "v0")


def test_a_global_model_of_another_form_is_no_base(warnings):
    """As the lists that a FedAvg without a persistor may be given."""
    made = FLContext()
    lists = {name: array.tolist() for name, array in model().items()}
    made.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(lists, {}), private=True, sticky=True)
    rows = [nan(i) if i in BAD else honest(i) for i in range(CLIENTS)]
    result = aggregated([contribution(i, row) for i, row in enumerate(rows)], "krum(f=2)", made)
    expected = bragg.aggregate(rows, "krum(f=2)")
    assert all((result.params[name] == array).all() for name, array in expected.items())
    assert len(warnings) == 1
    assert warnings[0].startswith("the global model is no base: ")


def test_arguments(caplog):
    with pytest.raises(bragg.ParseError, match="unknown rule"):
        RobustAggregator("medain")
    with pytest.raises(ValueError, match="max_weight_share = 0.1 .*weighted=True"):
        RobustAggregator("mean", max_weight_share=0.1)
    rule = bragg.Nnm(f=2) | bragg.TrimmedMean(f=2)
    result = aggregated([contribution(i, honest(i)) for i in range(CLIENTS)], rule)
    np.testing.assert_allclose(result.params["w"], 2, atol=0.05)
    with caplog.at_level(logging.WARNING):
        aggregated([], rule)
    assert "nobody has contributed" in caplog.text


@pytest.mark.parametrize("kept", ["text", "object"])
def test_a_job_describes_an_aggregator_in_full(kept, tmp_path):
    """NVFlare makes it once more from JSON, out of attributes that are named as arguments are."""
    from nvflare.job_config.api import FedJob

    state = str(tmp_path / "state.json")
    reputation = state if kept == "text" else bragg.Reputation(newcomer=0.3, rise=0.2, fall=0.6, patience=3, floor=0.15, sentence=4, f=2)
    given = RobustAggregator(bragg.Nnm(f=2) | bragg.TrimmedMean(f=2), weighted=True, max_weight_share=0.2, reputation=reputation, threads=1)
    job = FedJob(name="described", min_clients=2)
    job.set_app_packages(["bragg"])
    job.to_server(FedAvg(num_clients=2, num_rounds=1, aggregator=given))
    job.export_job(str(tmp_path))
    (config,) = tmp_path.rglob("config_fed_server.json")
    (workflow,) = json.loads(config.read_text())["workflows"]
    made = workflow["args"]["aggregator"]
    assert made["path"] == "bragg.nvflare.RobustAggregator"
    kept_as = made["args"].pop("reputation")
    assert made["args"] == {"rule": RULE, "weighted": True, "max_weight_share": 0.2, "threads": 1}
    if kept == "text":
        again = RobustAggregator(**made["args"], reputation=kept_as)
        again._memory.update(again._memory.trust(RULE, NAMES), bragg.aggregate_with_report(np.ones((11, 2)), RULE).reports)
        assert bragg.Reputation(state).round == 1
    else:
        options = {"newcomer": 0.3, "rise": 0.2, "fall": 0.6, "patience": 3, "floor": 0.15, "sentence": 4, "f": 2}
        assert kept_as == {"path": "bragg._reputation.Reputation", "args": options}
