# SPDX-License-Identifier: Apache-2.0
"""A strategy for Flower's ServerApp that aggregates by any pipeline. Needs flwr (seen to work: 1.42)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from . import _bragg
from ._aggregate import Patterns, Plan, _rule_text, aggregate
from ._report import AggregationError
from ._reputation import Reputation, noteworthy
from .rules import Pipeline, Rule

__all__ = ["RobustStrategy", "median_metrics"]

_log = logging.getLogger("flwr")

_Model = dict[str, NDArray[Any]]


class RobustStrategy(FedAvg):
    """FedAvg with a pipeline in the place of the average.

    The rows are the models that the nodes reply with, in order of node id; `base` is the global model that they were
    sent. A reply whose arrays are not those of the model, or cannot be read, is a row of NaN: it counts in n and towards
    f, a warning says why, and the round's metrics have their number as "bad-replies". A node that fails or does not
    answer is left out: n is the number of the rest. Where the rule cannot stand so few, or the data defeats it, the
    round is lost: a warning is logged, and the global model stays as it was. So train on enough nodes that the rule
    stands those which stay away (`min_train_nodes`).

    The state of `bucketing` and `centered_clipping` goes on from round to round while n stays the same.

    With a `reputation`, by node id, earlier rounds weigh the rows, and nodes in quarantine do not count: neither in n nor
    towards f.
    """

    def __init__(
        self,
        rule: str | Rule | Pipeline,
        *,
        weighted: bool = False,
        max_weight_share: float = 0,
        reputation: Reputation | None = None,
        judge_by: Patterns = None,
        ignore_in_distances: Patterns = None,
        **fedavg: Any,
    ) -> None:
        """
        Args:
            rule: The pipeline: text, such as "nnm(f=2) | trimmed_mean(f=2)", or Nnm(f=2) | TrimmedMean(f=2).
            weighted: Weigh each row by its reply's metric `weighted_by_key`, which is "num-examples". A hostile node
                may claim any number, so this is off by default; cap it.
            max_weight_share: A cap on a weight's share of the sum of all; 0 is none.
            reputation: What each round learns of the nodes, and begins with, such as `bragg.Reputation("state.json")`.
            judge_by, ignore_in_distances: As in `bragg.aggregate`, such as "*running_var".
            fedavg: Arguments of FedAvg. The metrics of the nodes are aggregated by `median_metrics` unless
                `train_metrics_aggr_fn` or `evaluate_metrics_aggr_fn` is given.

        Raises:
            ParseError: The rule cannot be read.
        """
        fedavg.setdefault("train_metrics_aggr_fn", median_metrics)
        fedavg.setdefault("evaluate_metrics_aggr_fn", median_metrics)
        super().__init__(**fedavg)
        if max_weight_share and not weighted:
            raise ValueError(f"max_weight_share = {max_weight_share} caps weights; pass weighted=True too")
        self._rule = _bragg.normalized(_rule_text(rule))
        self._weighted = weighted
        self._max_weight_share = max_weight_share
        self._reputation = reputation
        self._patterns: dict[str, Any] = {"judge_by": judge_by, "ignore_in_distances": ignore_in_distances}
        self._model: _Model = {}
        self._plan: Plan | None = None
        self._planned: tuple[str, int] | None = None  # rule and n

    def summary(self) -> None:
        _log.info("\t├──> Rule: %s", self._rule)
        super().summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        first = not self._model
        self._model = {key: np.asarray(array.numpy(), order="C") for key, array in arrays.items()}
        if first:  # so that a model which bragg does not take is not found in every round's replies
            Plan("mean", [self._model], **self._patterns)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        if not self._model:
            raise RuntimeError("aggregate_train: no global model; call configure_train first")
        nodes, contents, rows, weights = [], [], [], []
        for node, content in _answers("aggregate_train", replies):
            weight = _weight(content, self.weighted_by_key)
            if self._weighted and weight == 0:
                continue  # as bragg does, but here, so that it counts in n
            row = None
            try:
                row = _row(content, self._model)
                contents.append(content)
            except Exception as error:  # noqa: BLE001 - a stranger's bytes: np.load may raise anything
                _log.warning("aggregate_train: node %d is a bad row: %s: %s", node, type(error).__name__, error)
            nodes.append(node)
            rows.append(row)
            weights.append(weight)
        if not contents:
            _log.warning("aggregate_train: no replies to aggregate; the global model stays")
            return None, None
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key)
        if len(contents) < len(rows):
            metrics["bad-replies"] = len(rows) - len(contents)
        return self._aggregate(nodes, rows, weights if self._weighted else None), metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        contents = [content for _, content in _answers("aggregate_evaluate", replies)]
        return self.evaluate_metrics_aggr_fn(contents, self.weighted_by_key) if contents else None

    def _aggregate(
        self, nodes: list[int], rows: list[_Model | None], weights: list[float] | None
    ) -> ArrayRecord | None:
        """`rows`: None is a bad one."""
        rule, share, trust = self._rule, self._max_weight_share, None
        try:
            if self._reputation is not None:
                trust = self._reputation.trust(rule, map(str, nodes), weights, share)
                for warning in trust.warnings:
                    _log.warning("aggregate_train: node %s", warning)
                nodes, rows = [nodes[at] for at in trust.rows], [rows[at] for at in trust.rows]
                rule, weights, share = trust.rule, trust.weights, 0  # they are capped
            if self._plan is None or self._planned != (rule, len(rows)):
                like = [self._model] * len(rows)
                self._plan = Plan(rule, like, max_weight_share=share, **self._patterns)
                self._planned = rule, len(rows)
        except ValueError as error:
            _log.warning("aggregate_train: %d replies are too few; the global model stays: %s", len(rows), error)
            return None
        out = {key: np.empty_like(array) for key, array in self._model.items()}
        self._plan.run(rows, out, base=self._model, weights=weights)
        try:
            self._plan.check()
        except AggregationError as error:
            _log.warning("aggregate_train: the global model stays: %s", str(error).partition("; bad inputs")[0])
            return None
        unused = [node for node, used in zip(nodes, self._plan.reports[0].selected) if not used]
        _log.info("aggregate_train: %s of %d replies; nodes of weight 0: %s", rule, len(rows), unused or "none")
        if self._reputation is not None and trust is not None:
            for line in noteworthy(self._reputation.update(trust, self._plan.reports)):
                _log.info("aggregate_train: node %s", line)
        return ArrayRecord({key: Array(array) for key, array in out.items()})


def median_metrics(contents: list[RecordDict], weighted_by_key: str) -> MetricRecord:
    """The median of each metric that is a number and in more than half of the replies. NaN counts as +∞.

    Not weighted: a weight is what its node says it is. `weighted_by_key` itself is left out, as FedAvg leaves it out.
    """
    found: dict[str, list[float]] = {}
    for content in contents:
        for key, value in _metrics(content).items():
            if key != weighted_by_key and not isinstance(value, list):
                found.setdefault(key, []).append(float(value))
    return MetricRecord(
        {
            key: float(aggregate(np.array(values).reshape(-1, 1), "median", allow_nonfinite=True)[0])
            for key, values in found.items()
            if 2 * len(values) > len(contents)
        }
    )


def _answers(what: str, replies: Iterable[Message]) -> list[tuple[int, RecordDict]]:
    """Node and content of each reply that is no error, in order of node."""
    # Not by FedAvg's own check, which gives up the run where one node's reply differs from another's in form.
    answers, failed = [], 0
    for reply in replies:
        if reply.has_error():
            failed += 1
            _log.info("%s: node %d failed: %s", what, reply.metadata.src_node_id, reply.error.reason)
        else:
            answers.append((reply.metadata.src_node_id, reply.content))
    _log.info("%s: %d replies, %d failures", what, len(answers), failed)
    return sorted(answers, key=lambda answer: answer[0])


def _row(content: RecordDict, model: _Model) -> _Model:
    records = list(content.array_records.values())
    if len(records) != 1:
        raise ValueError(f"{len(records)} ArrayRecords; needs 1")
    if records[0].keys() != model.keys():
        raise ValueError("its arrays have other names than the model's")
    row = {}
    for key, like in model.items():
        array = records[0][key].numpy()
        if (array.dtype, array.shape) != (like.dtype, like.shape):
            raise ValueError(
                f"array {key!r} is {array.dtype} of shape {array.shape}; needs {like.dtype} of shape {like.shape}"
            )
        row[key] = np.asarray(array, order="C")
    return row


def _metrics(content: RecordDict) -> dict[str, Any]:
    return {key: value for record in content.metric_records.values() for key, value in record.items()}


def _weight(content: RecordDict, key: str) -> float:
    """NaN, which marks the row as bad, where the reply has no such number."""
    value = _metrics(content).get(key)
    return float("nan") if value is None or isinstance(value, list) else float(value)
