#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes docs/rules.md, the library's table of rules, to stdout: scripts/make_rules_page.py BRAGG > docs/rules.md.

BRAGG is the command that was built from this source.
"""

import json
import subprocess
import sys

HEAD = """\
<!-- Made by scripts/generate.sh from the library's table of rules; edit that table, not this page. -->

# Rules

A pipeline is any number of pre-aggregators and one rule, separated by `|`: `nnm(f=2) | trimmed_mean(f=2)`.
The text is the same in C++, C, Python and the command. `bragg rules` prints these tables, `bragg rules NAME`
one rule, `bragg rules --json` everything for programs. [choosing.md](choosing.md) says which rule to take,
and which f.

In the tables, the rows x_1 … x_n are the updates of n workers, of which up to f may be bad. ‖x‖ is the
Euclidean length. o is the origin, or the base (`--base`, the reference) where one is given. r = f/(n−2f). A
rule is (f, κ)-robust when its output is never farther from the mean of the honest rows than √κ times their
own spread, whatever the bad rows hold ([more](choosing.md#what-is-promised-κ)).

A coordinate-wise rule judges each coordinate by itself, a geometric rule judges whole rows by their
distances, and a pre-aggregator replaces the rows that the next stage sees.
"""


def signature(rule):
    """The rule as text, with its defaults: `krum(f, neighbors=n−f−2)`."""
    given = ["%s%s" % (p["name"], "" if p["default"] is None else "=" + p["default"]) for p in rule["parameters"]]
    return "`%s%s`" % (rule["name"], "(%s)" % ", ".join(given) if given else "")


def definition(rule):
    return rule["definition"] + (" [%s]" % rule["source"] if rule["source"] else "")


def line(cells):
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(columns, rows):
    return "\n".join([line(columns), "|" + "---|" * len(columns), *map(line, rows)]) + "\n"


def page(rules):
    facts = [
        [signature(r), r["kind"], definition(r), r["needs"], r["guarantee"], "yes" if r["takes_weights"] else "no"]
        for r in rules
    ]
    parameters = [
        ["`%s`" % r["name"], "`%s`" % p["name"], p["meaning"], p["bound"], p["default"] or "required"]
        for r in rules
        for p in r["parameters"]
    ]
    return "\n".join(
        [
            HEAD,
            table(["rule", "kind", "what it is", "needs", "guarantee", "client weights"], facts),
            "Client weights also work with any rule after `nnm`, which uses them up.\n",
            "## Parameters\n",
            table(["rule", "parameter", "meaning", "bound", "default"], parameters),
        ]
    )


if __name__ == "__main__":
    printed = subprocess.run([sys.argv[1], "rules", "--json"], capture_output=True, text=True, check=True).stdout
    print(page(json.loads(printed)), end="")
