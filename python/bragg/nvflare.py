# SPDX-License-Identifier: Apache-2.0
"""A model aggregator for NVFlare's FedAvg and ScatterAndGather by any pipeline. Needs nvflare (seen to work: 2.9)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from nvflare.apis.fl_constant import FLMetaKey
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator
from nvflare.app_common.app_constant import AppConstants

from . import _bragg, _trees
from ._aggregate import _rule_text, _with_reasons, aggregate, check_pivot
from ._agreement import FLOATS, Column, Numbers, leaf_form, no_array_of_most, shown
from ._arrays import library_of
from ._bragg import Trust
from ._report import AggregationError, Report
from ._reputation import Reputation, noteworthy
from .rules import Pipeline, Rule

__all__ = ["RobustAggregator"]

_log = logging.getLogger(__name__)


class _Contribution(NamedTuple):
    client: str
    kind: Any
    params: Any
    metrics: Any
    steps: Any

    def leaf(self, key: str) -> Any:
        """Read from the disk, if it was off-loaded: NVFlare leaves a reference, which a tensor is made of."""
        leaf = self.params[key]
        materialize = getattr(leaf, "materialize", None)
        return materialize() if callable(materialize) and not hasattr(leaf, "dtype") else leaf


class _Request(NamedTuple):
    """What is asked of a run."""

    rule: str
    weights: list[float] | None
    max_weight_share: float


class _BadClient(Exception):
    def __init__(self, at: int, reason: str) -> None:
        self.at = at
        self.reason = reason


class _NoBase(Exception):
    """The global model is of another form than every contribution."""


class RobustAggregator(ModelAggregator):  # type: ignore[misc]
    """A pipeline in the place of the weighted average: `FedAvg(aggregator=RobustAggregator(rule))`.

    The rows are the parameters that the clients contribute, in order of their names; the global model, where the server
    has one and the contributions are whole models (not differences from it), is the base. A contribution that is of
    another form than the base or, without one, than more than half of them (names, shapes, dtypes, FULL or DIFF), or
    whose tensors cannot be read, is a row of NaN: it counts towards f. A warning says why, and the result's meta has the
    reasons as "bad_contributions". Where the data defeats the rule, the round is lost: a warning is logged, and the
    result is a difference of no parameters, which leaves the global model as it was.

    One tensor of all clients is in memory at a time. Tensors that NVFlare has off-loaded to the disk
    (`enable_tensor_disk_offload`) are read three times, twice by rules that take no distances, once more where
    `Report.recentred`. `bucketing` goes on from round to round; `centered_clipping` starts each at the base.

    With a `reputation`, by client name, earlier rounds weigh the rows, and clients in quarantine do not count: neither in
    n nor towards f. The result's meta has their names as "quarantined".
    """

    def __init__(
        self,
        rule: str | Rule | Pipeline,
        *,
        weighted: bool = False,
        max_weight_share: float = 0,
        reputation: Reputation | str | None = None,
        threads: int = 0,
    ) -> None:
        """
        Args:
            rule: The pipeline: text, such as "nnm(f=2) | trimmed_mean(f=2)", or Nnm(f=2) | TrimmedMean(f=2).
            weighted: Weigh each row by the steps that its client says it has made (NUM_STEPS_CURRENT_ROUND). A hostile
                client may claim any number, so this is off by default; cap it.
            max_weight_share: A cap on a weight's share of the sum of all; 0 is none.
            reputation: What each round learns of the clients, and begins with, such as `bragg.Reputation("state.json")`.
                A text is the path of its file. In a job give the text, absolute: NVFlare makes the aggregator once more,
                from a description in JSON, in which an argument of the name "path" is a class.
            threads: CPU threads; 0 is as many as OpenMP would use.

        Raises:
            ParseError: The rule cannot be read.
        """
        super().__init__()
        if max_weight_share and not weighted:
            raise ValueError(f"max_weight_share = {max_weight_share} caps weights; pass weighted=True too")
        self._rule = _bragg.normalized(_rule_text(rule))
        self._weighted = weighted
        self._max_weight_share = max_weight_share
        self._reputation = reputation
        self._memory = Reputation(reputation) if isinstance(reputation, str) else reputation
        self._threads = threads
        self._rounds = 0
        self._contributions: dict[str, _Contribution] = {}

    def accept_model(self, model: FLModel) -> None:
        meta = model.meta if isinstance(model.meta, dict) else {}
        named = meta.get("client_name")
        client = named if isinstance(named, str) and named else f"#{len(self._contributions)}"
        self._contributions[client] = _Contribution(
            client, model.params_type, model.params, model.metrics, meta.get(FLMetaKey.NUM_STEPS_CURRENT_ROUND)
        )

    def reset_stats(self) -> None:
        self._contributions = {}

    def aggregate_model(self) -> FLModel:
        rows = [self._contributions[client] for client in sorted(self._contributions)]
        self.reset_stats()
        rows = [row for row in rows if not self._weighted or row.steps != 0]  # as bragg does
        meta: dict[str, Any] = {}
        kind: Any = ParamsType.DIFF
        params: dict[str, Any] = {}
        bad: dict[int, str] = {}
        trust = None
        try:
            weights = [_steps(row) for row in rows] if self._weighted else None
            request = _Request(self._rule, weights, self._max_weight_share)
            if self._memory is not None:
                trust = self._memory.trust(self._rule, [row.client for row in rows], weights, self._max_weight_share)
                request = _Request(trust.rule, trust.weights, trust.max_weight_share)
                rows = [rows[at] for at in trust.rows]
                self._tell(trust, meta)
            try:
                kind, params, report = self._aggregate(rows, request, bad)
            finally:
                check_pivot(request.rule, bad)  # says more than that a row is not finite
            self._rounds += 1
            if self._memory is not None and trust is not None:
                for line in noteworthy(self._memory.update(trust, _with_reasons((report,), bad))):
                    _log.info("contribution of %s", line)
        except (AggregationError, ValueError, TypeError) as error:
            kind, params = ParamsType.DIFF, {}
            self._warn(f"{self._rule} of {len(rows)} contributions: the global model stays: {error}")
        for at, reason in sorted(bad.items()):
            self._warn(f"contribution of {rows[at].client} is a bad row: {reason}")
        meta["nr_aggregated"] = len(rows)
        if bad:
            meta["bad_contributions"] = {rows[at].client: reason for at, reason in sorted(bad.items())}
        metrics = _median_metrics([row.metrics for at, row in enumerate(rows) if at not in bad])
        return FLModel(params_type=kind, params=params, metrics=metrics, meta=meta)

    def _tell(self, trust: Trust, meta: dict[str, Any]) -> None:
        for warning in trust.warnings:
            self._warn(f"contribution of {warning}")
        quarantined = [name for at, name in enumerate(trust.names) if at not in trust.rows]
        if quarantined:
            meta["quarantined"] = quarantined

    def _warn(self, text: str) -> None:
        # Without a context, as before a run has started, NVFlare's own way of logging fails.
        if self.fl_ctx is None:
            _log.warning(text)
        else:
            self.warning(text)

    def _global_model(self) -> dict[str, Any] | None:
        found = self.fl_ctx.get_prop(AppConstants.GLOBAL_MODEL) if self.fl_ctx is not None else None
        weights = found.get(ModelLearnableKey.WEIGHTS) if isinstance(found, ModelLearnable) else None
        return weights if isinstance(weights, dict) and weights else None

    def _aggregate(
        self, rows: Sequence[_Contribution], request: _Request, bad: dict[int, str]
    ) -> tuple[Any, dict[str, Any], Report]:
        """Kind and parameters. `bad` takes the rows that are none, and why."""
        if not rows:
            raise ValueError("nobody has contributed")
        kind, keys, base = self._form(rows, bad)
        while True:
            try:
                run = _Run(self, request, rows, keys, base, bad)
                params = run.result()
                return kind, params, run.report()
            except _BadClient as found:  # once more without it
                bad[found.at] = found.reason
            except _NoBase as differs:
                self._warn(f"the global model is no base: {differs}")
                base = None

    def _form(self, rows: Sequence[_Contribution], bad: dict[int, str]) -> tuple[Any, list[str], dict[str, Any] | None]:
        def form(row: _Contribution) -> tuple[Any, Any]:
            return row.kind, frozenset(row.params) if isinstance(row.params, dict) else None

        base = self._global_model()
        votes = [form(row) for row in rows]
        if base is not None and any(names == frozenset(base) for _, names in votes):
            kinds = [kind for kind, names in votes if names == frozenset(base)]
            most = (max(kinds, key=kinds.count), frozenset(base))
        else:
            base = None
            most = max(votes, key=votes.count)
            if 2 * votes.count(most) <= len(votes) or not most[1]:
                raise ValueError("no names of parameters are those of more than half of the contributions")
        for at, vote in enumerate(votes):
            if vote == most:
                continue
            kind, names = vote
            if names is None:
                bad[at] = f"{type(rows[at].params).__name__}; needs a dict of parameters"
            elif names != most[1]:
                bad[at] = "names differ: " + ", ".join(sorted(map(repr, names ^ most[1]))[:3])
            else:
                bad[at] = f"params_type {kind}; needs {most[0]}"
        keys = list(base) if base is not None else next(list(row.params) for row, v in zip(rows, votes) if v == most)
        return most[0], keys, base


class _Run:
    """One aggregation, tensor by tensor."""

    def __init__(
        self,
        owner: RobustAggregator,
        request: _Request,
        rows: Sequence[_Contribution],
        keys: Sequence[str],
        model: dict[str, Any] | None,
        bad: dict[int, str],
    ) -> None:
        self._warn = owner._warn
        self._rows = rows
        self._good = [at for at in range(len(rows)) if at not in bad]
        if not self._good:
            raise ValueError("no contribution is of the form of the global model, or of most")
        self._keys = keys
        self._model = model
        is_whole = rows[self._good[0]].kind == ParamsType.FULL
        self._base = model if is_whole else None
        self._weights = request.weights
        self._forms = {key: self._agreed(key) for key in keys}
        self._floats = [key for key in keys if self._forms[key][0] in FLOATS]
        self._run = _bragg.Streamed(
            request.rule,
            len(rows),
            sum(_elements(self._forms[key]) for key in self._floats),
            self._base is not None,
            owner._rounds,
            self._weights,
            request.max_weight_share,
            owner._threads,
        )
        wide = [self._is_wide(key) for key in self._floats]
        self._widen = any(wide) and not all(wide)

    def result(self) -> dict[str, Any]:
        if self._run.needs_statistics():
            while True:
                for rows, base, _ in map(self._read, self._floats):
                    if self._widen:
                        rows = [_as_float64(row) for row in rows]
                        base = None if base is None else _as_float64(base)
                    self._run.accumulate(rows, base)
                if self._run.settled():
                    break
        self._run.solve()
        params: dict[str, Any] = {}
        left_out = []
        nonfinite = 0
        for key in self._keys:
            kind = self._forms[key][0]
            if kind in FLOATS:
                rows, base, column = self._read(key)
                out = column.empty(None)
                self._run.apply(rows, base, out)
                nonfinite += column.nonfinite(out)
                params[key] = column.restored(out)
            elif kind == "no array":
                params[key] = self._no_array(key)
                if params[key] is _trees.LEFT_OUT:
                    left_out.append(key)
                    del params[key]
            else:
                params[key] = self._lower_median(key)
        if nonfinite:
            raise AggregationError(
                f"the result holds NaN or infinity in {nonfinite} coordinates",
                "nonfinite_result",
                0,
                self._run.reports(),
            )
        if left_out:
            self._warn(f"left out of the result: {', '.join(left_out)}: no array, and no value that most share")
        return params

    def report(self) -> Report:
        report: Report = self._run.reports()[0]
        return report

    def _leaves(self, key: str) -> dict[int, Any]:
        leaves = {}
        for at in self._good:
            try:
                leaves[at] = self._rows[at].leaf(key)
            except Exception as error:  # noqa: BLE001 - a stranger's bytes
                raise _BadClient(at, f"{key}: {type(error).__name__}: {error}") from None
        return leaves

    def _agreed(self, key: str) -> Any:
        """The form of a parameter. @raises _BadClient: a row has another."""
        forms = {}
        for at, leaf in self._leaves(key).items():
            try:
                forms[at] = leaf_form(leaf, False)
            except Exception as error:  # noqa: BLE001 - as above
                raise _BadClient(at, f"{key}: {error}") from None
        if self._model is not None:
            form = leaf_form(self._model[key], False)
            if form not in forms.values():
                found = next(iter(forms.values()))
                raise _NoBase(f"{key} is {shown(form)}, and no contribution's; one is {shown(found)}")
        else:
            votes = list(forms.values())
            form = max(votes, key=votes.count)
            if 2 * votes.count(form) <= len(self._rows):
                raise ValueError(f"{key}: no shape and dtype are those of more than half of the contributions")
        for at, found in forms.items():
            if found != form:
                raise _BadClient(at, f"{key}: {shown(found)}; needs {shown(form)}")
        if form[0] == "no array" and _trees.is_tree(self._rows[self._good[0]].leaf(key)):
            raise TypeError(f"{key}: parameters within parameters; needs a dict of arrays")
        return form

    def _is_wide(self, key: str) -> bool:
        kind, rest = self._forms[key]
        return kind != "an array" or bool(rest[0] == "float64")

    def _read(self, key: str) -> tuple[list[Any], Any, Column | Numbers]:
        leaves = self._leaves(key)
        first = next(iter(leaves.values()))
        column = Column(list(leaves.values())) if self._forms[key][0] == "an array" else Numbers(first)
        nan = column.nan() if len(leaves) < len(self._rows) else None
        rows = [column.read(leaves[at]) if at in leaves else nan for at in range(len(self._rows))]
        return rows, None if self._base is None else column.read(self._base[key]), column

    def _lower_median(self, key: str) -> Any:
        weights = self._weights
        valid = [leaf for at, leaf in self._leaves(key).items() if weights is None or 0 < weights[at] < float("inf")]
        if not valid:
            raise ValueError("weights: none is valid; integer tensors need at least 1")
        if self._forms[key][0] == "an int":
            return sorted(valid)[(len(valid) - 1) // 2]
        return library_of(valid[0], key).lower_median(valid)

    def _no_array(self, key: str) -> Any:
        if self._model is not None:
            return self._model[key]
        return no_array_of_most(list(self._leaves(key).values()), len(self._rows))


def _elements(form: tuple[str, Any]) -> int:
    """Numbers of a leaf, by its form."""
    kind, rest = form
    return math.prod(rest[1]) if kind == "an array" else math.prod(rest)


def _as_float64(row: Any) -> Any:
    return row if not hasattr(row, "dtype") else library_of(row, "updates").float64(row)


def _steps(row: _Contribution) -> float:
    """NaN, which marks the row as bad, where the client has given no such number."""
    return float(row.steps) if type(row.steps) in (int, float) else float("nan")


def _median_metrics(contributed: Iterable[Any]) -> dict[str, float] | None:
    """The median of each metric that is a number and in more than half of the contributions. NaN counts as +∞."""
    dicts = [metrics if isinstance(metrics, dict) else {} for metrics in contributed]
    found: dict[str, list[float]] = {}
    for metrics in dicts:
        for key, value in metrics.items():
            if isinstance(key, str) and isinstance(value, (int, float)):
                found.setdefault(key, []).append(float(value))
    medians = {
        key: float(aggregate(values, "median", allow_nonfinite=True))
        for key, values in found.items()
        if 2 * len(values) > len(dicts)
    }
    return medians or None
