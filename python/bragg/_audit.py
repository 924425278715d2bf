# SPDX-License-Identifier: Apache-2.0
"""audit: what a defence costs on given updates, what it withstands, and which of them look bad."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from . import _bragg
from ._aggregate import _Form, _rule_text, _with_form
from ._arguments import integer
from .rules import Pipeline, Rule


@dataclass(frozen=True)
class AuditFinding:
    """What is held against a worker."""

    evidence: str
    """"bad input", "non-finite", "huge", "norm", "distance", "copy" or "direction"."""
    text: str
    """With the figures."""
    of: tuple[int, ...]
    """Of a copy: which other workers', at most five."""


@dataclass(frozen=True)
class AuditWorker:
    """A worker, and why it looks bad. Norm, distance and cosine are None of one whose values cannot be used."""

    name: str
    honest: bool
    """Nothing is held against it."""
    nonfinite: int
    """Values that are NaN or infinite."""
    norm: float | None
    distance: float | None
    """To the nearest half of the others, at the most."""
    cosine: float | None
    """With the geometric median of the others."""
    findings: tuple[AuditFinding, ...]


@dataclass(frozen=True)
class AuditTensor:
    """A floating-point tensor, and its share of the squared distances between workers."""

    name: str
    share: float


@dataclass(frozen=True)
class AuditPoint:
    """A rule at one f. Squared distances from the honest mean, as shares of the squared spread; None: no result."""

    f: int
    cost: float | None
    """On the honest workers alone."""
    cost_error: float
    """Of the sample: a standard error."""
    bound: float
    """f/(m−f): no rule can promise less for all updates."""
    worst: float | None
    """The worst of the attacks; None where it is `unbounded`, too."""
    worst_error: float
    unbounded: bool
    attack: str | None
    """Which one it was."""
    rows: int
    """Of the attack, hostile ones included."""
    kappa: float | None
    """What is proven: no attack takes `worst` beyond it. None: nothing is."""
    given: float | None
    """On all workers as they are; None where none looks bad, or it is `given_unbounded`."""
    given_error: float
    given_unbounded: bool


@dataclass(frozen=True)
class AuditRule:
    """A pipeline, in which F stands for f, and its figures for each f."""

    rule: str
    points: tuple[AuditPoint, ...]


@dataclass(frozen=True)
class AuditAdvice:
    """The pipeline that is recommended, or None, and why."""

    rule: str | None
    f: int
    reasons: tuple[str, ...]
    doubts: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Audit:
    """What `bragg.audit` found: the fields of `bragg audit --json`. As text it is the command's report."""

    version: str
    n: int
    honest: int
    """Workers of which nothing looks bad; all below is of these."""
    coordinates: int
    sample: int
    """Coordinates that coordinate-wise rules were tried on."""
    workers: tuple[AuditWorker, ...]
    mean_norm: float
    spread: float
    """Root mean square distance from the mean."""
    least_distance: float
    median_distance: float
    greatest_distance: float
    skewness: float
    """Mean over the sample of the size of a coordinate's skewness."""
    normal_skewness: float
    """What that would be of normal values."""
    tensors: tuple[AuditTensor, ...]
    rules: tuple[AuditRule, ...]
    advice: AuditAdvice
    text: str = field(compare=False)

    @property
    def recommendation(self) -> str | None:
        """The pipeline to take, such as "nnm(f=2) | trimmed_mean(f=2)"; None: there is none to recommend."""
        return self.advice.rule

    @property
    def bad(self) -> tuple[int, ...]:
        """Which workers look bad."""
        return tuple(i for i, worker in enumerate(self.workers) if not worker.honest)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Audit of {self.n} workers: bad {list(self.bad)}, recommendation {self.recommendation!r}>"


def audit(
    updates: Any,
    *,
    base: Any = None,
    rules: str | Rule | Pipeline | Iterable[str | Rule | Pipeline] | None = None,
    f: int | None = None,
    sample: int = 2**16,
    seed: int = 0,
    names: Sequence[str] | None = None,
    bad_inputs: Literal["row", "error"] = "row",
) -> Audit:
    """Looks at n updates: which look bad and why, how different the others are, what each rule would cost on them
    without an attacker and under the worst of some attacks, and which rule to take.

    >>> found = bragg.audit(updates, base=model)
    >>> print(found)
    >>> bragg.aggregate(updates, found.recommendation, base=model)

    The updates are read twice, on the CPU. What the figures mean: docs/audit.md.

    Args:
        updates: As in `bragg.aggregate`, at least 3. Integer arrays take no part.
        base: The global model, where updates are models: norms and directions are of the differences from it.
        rules: Pipelines to try, in which F stands for f, such as "nnm(f=F) | trimmed_mean(f=F)"; default: ten of them.
            None may trust a row (`pivot`), or judge rows by a `sample` (`dnc`) that is not of all coordinates.
        f: Bad workers to recommend a rule for; default: as many as look bad, but at least 1.
        sample: Coordinates that coordinate-wise rules are tried on; 0: all, in 8 bytes each.
        seed: Draws the sample, and whom attackers replace.
        names: Of the workers; default: their numbers.
        bad_inputs: As in `bragg.aggregate`; a bad "row" is a worker that looks bad, with the reason.

    Raises:
        AggregationError: The base holds NaN or infinity.
        ValueError: An argument breaks a bound, the updates agree on no form, or they are on a GPU. ParseError: so does
            the text of a rule.
        TypeError: An argument that should be an array is not one.
    """
    tried = [rules] if isinstance(rules, (str, Rule, Pipeline)) else list(rules or ())
    texts = [_rule_text(rule) for rule in tried]
    numbers = (
        None if f is None else integer("f", f, 1),
        integer("sample", sample, most=2**40),
        integer("seed", seed, most=2**64 - 1),
    )

    def call(form: _Form) -> tuple[str, str]:
        n = form.n()
        if names is not None and len(names) != n:
            raise ValueError(f"names: {len(names)} of them; needs {n}, one for each update")
        workers = list(map(str, range(n) if names is None else names))
        bad = [form.bad_inputs.get(i, "") for i in range(n)]
        based = None if base is None else form.base(base)
        return _bragg.audit(form.floats, form.names, based, workers, form.paths(), bad, texts, *numbers, form.stream)

    _, (text, report) = _with_form(updates, base, bad_inputs, call)
    return _audit_of(json.loads(report), text)


def _audit_of(report: dict[str, Any], text: str) -> Audit:
    report["workers"] = tuple(
        AuditWorker(
            **worker
            | {"findings": tuple(AuditFinding(**found | {"of": tuple(found["of"])}) for found in worker["findings"])}
        )
        for worker in report["workers"]
    )
    report["tensors"] = tuple(AuditTensor(**tensor) for tensor in report["tensors"])
    report["rules"] = tuple(
        AuditRule(rule["rule"], tuple(AuditPoint(**point) for point in rule["points"])) for rule in report["rules"]
    )
    advice = report["advice"]
    report["advice"] = AuditAdvice(**advice | {key: tuple(advice[key]) for key in ("reasons", "doubts")})
    return Audit(**report, text=text)
