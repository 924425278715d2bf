# SPDX-License-Identifier: Apache-2.0
"""The rules as classes: `Nnm(f=2) | TrimmedMean(f=2)`. They are made of the library's one table of rules."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any

from . import _bragg


class Rule:
    """A rule with its parameters. As text, `str(rule)`, it is what the command and C++ read."""

    _name: str
    _parameters: list[dict[str, str]]

    def __init__(self, **parameters: Any) -> None:
        try:
            bound = type(self).__signature__.bind(**parameters)  # type: ignore[attr-defined]
        except TypeError as error:
            raise TypeError(f"{type(self).__name__}: {error}") from None
        bound.apply_defaults()
        self._values = dict(bound.arguments)
        for parameter in self._parameters:
            name = parameter["name"]
            if name in parameters and not _leaves_out(parameter, parameters[name]):
                self._values[name] = _value(type(self).__name__, parameter, parameters[name])
        self._check()

    def _check(self) -> None:
        _bragg.normalized(str(self))

    def __str__(self) -> str:
        given = [
            f"{parameter['name']}={_text(self._values[parameter['name']])}"
            for parameter in self._parameters
            if not _leaves_out(parameter, self._values[parameter["name"]])
        ]
        return f"{self._name}({', '.join(given)})" if given else self._name

    def __repr__(self) -> str:
        signature = type(self).__signature__  # type: ignore[attr-defined]
        given = [f"{k}={v!r}" for k, v in self._values.items() if v != signature.parameters[k].default]
        return f"{type(self).__name__}({', '.join(given)})"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


class PreAggregator(Rule):
    """Turns rows into rows: `pre | rule` is a `Pipeline`."""

    def _check(self) -> None:
        _bragg.normalized(f"{self} | mean")

    def __or__(self, other: PreAggregator | Rule | Pipeline) -> Pipeline:
        return Pipeline(self) | other


class Pipeline:
    """Pre-aggregators, applied from the left, and one rule. Made by `|`."""

    def __init__(self, *stages: Rule) -> None:
        self.stages = stages

    def __or__(self, other: Rule | Pipeline) -> Pipeline:
        if not isinstance(other, (Rule, Pipeline)):
            return NotImplemented
        if not isinstance(self.stages[-1], PreAggregator):
            raise ValueError(f"{self.stages[-1]} ends a pipeline; nothing can follow it")
        return Pipeline(*self.stages, *(other.stages if isinstance(other, Pipeline) else (other,)))

    def __str__(self) -> str:
        return " | ".join(map(str, self.stages))

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.stages))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pipeline) and self.stages == other.stages

    def __hash__(self) -> int:
        return hash(self.stages)


_TYPES: dict[str, Any] = {"int": int, "uint": int, "float": float, "choice": str, "int list": list[int]}
_CONVERT: dict[str, Callable[[Any], Any]] = {
    "int": operator.index,
    "uint": operator.index,
    "float": float,
    "int list": lambda values: [operator.index(value) for value in values],
}
_CONVERT_DEFAULT: dict[str, Callable[[str], Any]] = {"int": int, "uint": int, "float": float}


def _default(parameter: dict[str, str]) -> Any:
    """The default in the signature: None where the library draws or derives the value."""
    text = parameter["default"]
    if not text:
        return inspect.Parameter.empty
    if parameter["type"] == "choice":
        return text
    try:
        return _CONVERT_DEFAULT[parameter["type"]](text)
    except (KeyError, ValueError):
        return None


def _leaves_out(parameter: dict[str, str], value: Any) -> bool:
    return value is None and _default(parameter) is None


def _value(rule: str, parameter: dict[str, str], value: Any) -> Any:
    kind = parameter["type"]
    try:
        if isinstance(value, str) is (kind == "choice"):
            return value if kind == "choice" else _CONVERT[kind](value)
    except (TypeError, ValueError):
        pass
    raise TypeError(f"{rule}: {parameter['name']} = {value!r}; needs {parameter['bound']}, of type {kind}")


def _text(value: Any) -> str:
    return str(value).replace(" ", "") if isinstance(value, list) else str(value)


def _class_name(rule: str) -> str:
    return "".join(part.capitalize() for part in rule.split("_"))


def _doc(rule: dict[str, Any]) -> str:
    lines = [f"{rule['definition']}.", "", f"Needs {rule['needs']}."]
    lines.append(f"Guarantee: {rule['guarantee']}.")
    lines.append(f"Client weights: {'yes' if rule['takes_weights'] else 'no'}.")
    if rule["source"]:
        lines.append(f"Source: {rule['source']}.")
    if rule["parameters"]:
        lines += ["", "Parameters:"]
    for parameter in rule["parameters"]:
        default = f"; default {parameter['default']}" if parameter["default"] else ""
        lines.append(f"    {parameter['name']}: {parameter['meaning']} ({parameter['bound']}{default})")
    return "\n".join(lines)


def _signature(rule: dict[str, Any]) -> inspect.Signature:
    parameters = []
    for parameter in rule["parameters"]:
        default = _default(parameter)
        kind = _TYPES[parameter["type"]]
        parameters.append(
            inspect.Parameter(
                parameter["name"],
                inspect.Parameter.KEYWORD_ONLY,
                default=default,
                annotation=kind | None if default is None else kind,
            )
        )
    return inspect.Signature(parameters)


def _make(rule: dict[str, Any]) -> type[Rule]:
    base = PreAggregator if rule["kind"] == "pre-aggregator" else Rule
    members = {
        "__doc__": _doc(rule),
        "__module__": __name__,
        "__signature__": _signature(rule),
        "_name": rule["name"],
        "_parameters": rule["parameters"],
    }
    return type(_class_name(rule["name"]), (base,), members)


__all__ = ["Pipeline", "PreAggregator", "Rule"]
for _rule in _bragg.rules():
    _made = _make(_rule)
    globals()[_made.__name__] = _made
    __all__.append(_made.__name__)
