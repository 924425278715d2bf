# SPDX-License-Identifier: Apache-2.0
"""Shared by run.py and the adapters: a reader of bragg's text form, and the description of a rule by an adapter.

An adapter is a module of this folder, named as the peer with "_" for "-". Its own imports are in
`load`, since the settings of thread pools have to be in the environment before a library is loaded.
It has

    DISTRIBUTION     name of the package whose version is reported
    ENVIRONMENT      what its process needs in the environment, e.g. {"OMP_PROC_BIND": "true"}
    STEPS            name of a rule -> function(stage, n, d): returns a Step or raises Unsupported
    load(threads)    imports the library
    wrap(matrix)     the updates as the peer takes them, from an (n, d) NumPy array; not timed
    unwrap(result)   the (d,) NumPy array in what the last step returned; not timed
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Value = int | float | str

# bragg's defaults, as `bragg rules` lists them; n is the number of rows.
DEFAULTS: dict[str, Callable[[int, int], dict[str, Value]]] = {
    "median": lambda n, f: {"even": "midpoint"},
    "sign_vote": lambda n, f: {"step": 1},
    "krum": lambda n, f: {"neighbors": n - f - 2},
    "multi_krum": lambda n, f: {"m": n - f, "neighbors": n - f - 2},
    "geometric_median": lambda n, f: {"nu": 0, "max_iters": 1000, "tol": 1e-10, "start": "medoid"},
    "huber": lambda n, f: {"max_iters": 1000, "tol": 1e-10, "start": "medoid"},
    "autogm": lambda n, f: {"max_iters": 1000, "tol": 1e-10},
    "centered_clipping": lambda n, f: {"iters": 1, "start": "previous", "pivot": 0},
    "monna": lambda n, f: {"pivot": 0},
    "dnc": lambda n, f: {"iters": 1, "c": 1, "sample": 10000, "seed": 0},
    "balance": lambda n, f: {"alpha": 0.5, "pivot": 0},
    "foolsgold": lambda n, f: {"kappa": 1},
    "quantile_clip": lambda n, f: {"q": 0.5},
}


class Unsupported(Exception):
    """The peer has nothing that computes this; the text says why."""


@dataclass(frozen=True)
class Stage:
    """One rule of a pipeline and the parameters that its text gives."""

    name: str
    parameters: dict[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.name}({inside})" if inside else self.name

    @property
    def f(self) -> int:
        """The number of bad rows, which is 0 in rules that have none."""
        return int(self.parameters.get("f", 0))

    def get(self, name: str, n: int) -> Any:
        """A parameter's value in the text, or else bragg's default."""
        return self.complete(n).parameters[name]

    def complete(self, n: int) -> Stage:
        """The stage with every parameter written out."""
        defaults = DEFAULTS.get(self.name, lambda n, f: {})
        return Stage(self.name, defaults(n, self.f) | self.parameters)

    def brief(self, n: int) -> Stage:
        """The stage without the parameters that are at bragg's default."""
        defaults = Stage(self.name, {"f": self.f}).complete(n).parameters
        defaults.pop("f")
        kept = {k: v for k, v in self.parameters.items() if k not in defaults or defaults[k] != v}
        return Stage(self.name, kept)

    def convention(self, **fixed: Value) -> Stage:
        """The stage as a peer computes it that knows these values only.

        A value that the text leaves to the default gives way to the peer's, and the difference is
        reported; one that the text names does not.
        """
        for name, value in fixed.items():
            given = self.parameters.get(name, value)
            if given != value:
                raise Unsupported(
                    f"{self.name} with {name}={given}: the peer has only {name}={value}"
                )
        return Stage(self.name, self.parameters | fixed)


@dataclass(frozen=True)
class Step:
    """One call of the peer: what to run, its name, and what it computes in bragg's terms."""

    call: Callable[[Any], Any]
    path: str
    computes: Stage


@dataclass(frozen=True)
class Prepared:
    """A whole pipeline at the peer's."""

    call: Callable[[Any], Any]
    path: str
    equivalent_rule: str | None


def parse(text: str) -> list[Stage]:
    """Reads a pipeline's text, e.g. "nnm(f=3) | trimmed_mean(f=3)"."""
    return [parse_stage(part.strip()) for part in text.split("|")]


def parse_stage(text: str) -> Stage:
    match = re.fullmatch(r"(\w+)\s*(?:\((.*)\))?", text)
    if not match:
        raise ValueError(f"not a rule: '{text}'")
    name, inside = match.groups()
    parameters: dict[str, Value] = {}
    for item in filter(None, (inside or "").split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key or not value:
            raise ValueError(f"{name}: not name=value: '{item.strip()}'")
        parameters[key] = parse_value(value)
    return Stage(name, parameters)


def parse_value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def prepare(
    steps: dict[str, Callable[[Stage, int, int], Step]], text: str, n: int, d: int
) -> Prepared:
    """The peer's calls for a pipeline, one after the other."""
    asked = parse(text)
    missing = [stage.name for stage in asked if stage.name not in steps]
    if missing:
        raise Unsupported(f"the peer has no {missing[0]}")
    made = [steps[stage.name](stage, n, d) for stage in asked]
    computes = [step.computes for step in made]
    same = all(a.complete(n) == b.complete(n) for a, b in zip(asked, computes))

    def call(updates: Any) -> Any:
        for step in made:
            updates = step.call(updates)
        return updates

    equivalent = None if same else " | ".join(str(stage.brief(n)) for stage in computes)
    return Prepared(call, ", then ".join(step.path for step in made), equivalent)


def require_memory(needed: int, why: str) -> None:
    """Raises Unsupported where a call needs more memory than is free, and would be killed."""
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))
    if needed > 0.9 * free:
        raise Unsupported(f"{why} takes {needed / 1e9:.1f} GB, of {free / 1e9:.1f} GB free")
