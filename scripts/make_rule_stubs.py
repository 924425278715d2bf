#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes python/bragg/rules.pyi, the types of the classes that bragg.rules builds at run time, on stdout.

scripts/generate.sh runs this, by an interpreter that has the package of this source installed.
"""

import inspect
import textwrap

from bragg import _bragg, rules

HEAD = '''\
# SPDX-License-Identifier: Apache-2.0
# Made by scripts/make_rule_stubs.py of the table of rules.
from collections.abc import Sequence
from typing import Literal

class Rule:
    """{Rule}"""

    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

class PreAggregator(Rule):
    """{PreAggregator}"""

    def __or__(self, other: Rule | Pipeline) -> Pipeline: ...

class Pipeline:
    """{Pipeline}"""

    stages: tuple[Rule, ...]
    def __init__(self, *stages: Rule) -> None: ...
    def __or__(self, other: Rule | Pipeline) -> Pipeline: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...
'''
TYPES = {"int": "int", "uint": "int", "float": "float", "int list": "Sequence[int]"}


def stub_of(name: str, rule: dict) -> str:
    made = getattr(rules, name)
    signature = inspect.signature(made)
    arguments = []
    for parameter in rule["parameters"]:
        if parameter["type"] == "choice":
            choices = ", ".join(f'"{choice}"' for choice in parameter["choices"])
            kind = f"Literal[{choices}]"
        else:
            kind = TYPES[parameter["type"]]
        default = signature.parameters[parameter["name"]].default
        if default is None:
            kind += " | None"
        text = "" if default is inspect.Parameter.empty else f" = {default!r}".replace("'", '"')
        arguments.append(f"{parameter['name']}: {kind}{text}")
    doc = made.__doc__ + ("\n" if "\n" in made.__doc__ else "")
    given = ", ".join(["self", *(["*"] if arguments else []), *arguments])
    base = made.__bases__[0].__name__
    return f"\nclass {name}({base}):\n" + textwrap.indent(
        f'"""{doc}"""\n\ndef __init__({given}) -> None: ...\n', "    "
    )


def main() -> None:
    heads = {name: getattr(rules, name).__doc__ for name in ("Rule", "PreAggregator", "Pipeline")}
    names = rules.__all__[len(heads) :]
    text = HEAD.format(**heads)
    for name, rule in zip(names, _bragg.rules()):
        text += stub_of(name, rule)
    listed = "".join(f'    "{name}",\n' for name in rules.__all__)
    print(f"{text}\n__all__: list[str] = [\n{listed}]")


if __name__ == "__main__":
    main()
