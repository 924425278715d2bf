# SPDX-License-Identifier: Apache-2.0
"""Reputation: what earlier rounds say of workers, by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from . import _bragg
from ._aggregate import _numbers, _rule_text
from ._arguments import integer, number
from ._bragg import Judgement, Trust
from ._report import Report
from .rules import Pipeline, Rule


class Reputation:
    """Scores in [0, 1] of workers, by name, from the evidence of robust aggregations.

    `trust` says how to run a round: which rows count, and with which weights. `update` learns from its report:

    >>> import bragg, numpy
    >>> reputation = bragg.Reputation()
    >>> names = ["a", "b", "c", "d", "e"]
    >>> updates = numpy.ones((5, 4), numpy.float32)
    >>> updates[3] = numpy.nan
    >>> for round in range(3):
    ...     trust = reputation.trust("trimmed_mean(f=1)", names)
    ...     result = bragg.aggregate_with_report(updates[trust.rows], trust.rule, weights=trust.weights)
    ...     judgements = reputation.update(trust, result.reports)
    >>> judgements[3].reason
    '4 of its values are NaN or infinite; in quarantine for 10 rounds'

    Scores fall faster than they rise, and new names begin low. docs/reputation.md defines it, and says what it does not
    do. Names are the caller's: a worker that may choose its own has no reputation to lose.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        newcomer: float = 0.2,
        rise: float = 0.1,
        fall: float = 0.5,
        patience: float = 2,
        floor: float = 0.1,
        sentence: int = 10,
        f: int = 0,
    ) -> None:
        """
        Args:
            path: A file (JSON) that it begins with, if it is there, and that `update` writes, whole or not at all. What
                follows is then the file's, and is looked at nevertheless.
            newcomer: The score of a name that is new, and what doubt alone never takes a score below.
            rise: The share of the way to 1 that a score goes in a round without evidence; below `fall`.
            fall: The share of its way that a score falls in a round.
            patience: Rounds of being left out by the rule, beyond what others are, before a score falls.
            floor: A score below it is quarantine.
            sentence: Rounds of a quarantine.
            f: Bad rows that a rule without an f of its own is to withstand. 0: such a rule is only watched.

        Raises:
            ValueError: One of these is out of range; the file is none of a reputation, or of a later version.
            OSError: The file cannot be read.
        """
        self._path = None if path is None else _plain(path)
        # By such attributes NVFlare describes what a job is made of.
        self._newcomer, self._rise, self._fall, self._patience = newcomer, rise, fall, patience
        self._floor, self._sentence, self._f = floor, sentence, f
        self._made = _bragg.Reputation(
            number("newcomer", newcomer),
            number("rise", rise),
            number("fall", fall),
            number("patience", patience),
            number("floor", floor),
            integer("sentence", sentence),
            integer("f", f),
        )
        if self._path is not None and os.path.exists(self._path):
            self._made = _bragg.Reputation.load(self._path)

    def trust(
        self,
        rule: str | Rule | Pipeline,
        names: Iterable[str],
        weights: Iterable[float] | None = None,
        max_weight_share: float = 0,
    ) -> Trust:
        """How to run a round of these workers by the rule. Changes nothing.

        Aggregate the rows `trust.rows` by `trust.rule`, with `trust.weights`. No weight is more than twice the mean, or
        less where the rule would not take f' = 2f; `weights`, the caller's own, are taken in. A rule without an f, or
        with f = 0, is only watched: `trust.only_watched` says so, all rows count, and weights are the caller's.

        Raises:
            TypeError: names is a text, or one of them is none.
            ValueError: Names are empty, longer than 256 bytes, no Unicode or there twice; weights are of another number;
                max_weight_share is neither 0 nor a share in [1/n, 1].
        """
        if isinstance(names, (str, bytes)):
            raise TypeError(f"names = {names!r}; needs a list of names, one for each worker")
        told = [_name(f"names[{i}]", name) for i, name in enumerate(names)]
        share = number("max_weight_share", max_weight_share)
        return self._made.trust(_rule_text(rule), told, _numbers(weights), share)

    def update(
        self, trust: Trust, reports: Report | Iterable[Report], *, allow_nonfinite: bool = False
    ) -> list[Judgement]:
        """Learns from the reports of a run of `trust`, of one row for each of trust.rows.

        Returns what is made of each of trust.names. If it raises, nothing is learnt. Call it once for each trust: a second
        time teaches the round again.

        Args:
            allow_nonfinite: Learn from a run whose result holds NaN or infinity, too, as `aggregate` may return it.

        Raises:
            ValueError: Reports of another number of rows, or of a run that failed, which teaches nothing.
            OSError: The file cannot be written.
        """
        told = [reports] if isinstance(reports, Report) else list(reports)
        for report in told:
            failed = report.nonfinite_result and not allow_nonfinite
            status = "nonfinite_result" if report.status == "ok" and failed else report.status
            if status != "ok":
                raise ValueError(f"reports: the run ended with {status}, which teaches nothing")
        bad = [reason or "" for reason in told[0].bad_inputs] if told else []
        evidence = [(list(report.weights), list(report.nonfinite)) for report in told]
        learnt = _bragg.Reputation(self._made)
        judgements = learnt.update(trust, evidence, bad)
        if self._path is not None:
            learnt.save(self._path)
        self._made = learnt
        return judgements

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file, whole or not at all."""
        self._made.save(_plain(path))

    def score(self, name: str) -> float:
        """Of a name that is not known, that of a newcomer."""
        return self._made.score(_name("name", name))

    @property
    def scores(self) -> dict[str, float]:
        """Of all names that are known."""
        return self._made.scores

    @property
    def round(self) -> int:
        """How many rounds it has learnt from."""
        return self._made.round

    def __repr__(self) -> str:
        return f"Reputation({len(self.scores)} names, round {self.round})"


def _name(argument: str, name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{argument} = {name!r}; needs a text, such as {str(name)!r}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{argument} = {name!r}; holds half a surrogate pair, which is no Unicode") from None
    return name


def _plain(path: str | os.PathLike[str]) -> str:
    plain = os.fspath(path)
    if "\0" in plain:  # the extension would end it there
        raise ValueError(f"path = {plain!r}; holds a null byte")
    return plain


def noteworthy(judgements: Iterable[Judgement]) -> Iterator[str]:
    """Lines for a log."""
    for each in judgements:
        if each.verdict != "kept":
            yield f"{each.name}: reputation {each.before:.3g} to {each.after:.3g}: {each.reason}"
