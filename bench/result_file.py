# SPDX-License-Identifier: Apache-2.0
"""Results of `bragg bench --json`, as the scripts here read them."""

import json

SCHEMA = 1


class Unusable(Exception):
    """A file that is no result, or lacks the rows that are asked of it."""


def load(path):
    try:
        with open(path, encoding="utf-8") as file:
            result = json.load(file)
    except (OSError, ValueError) as error:
        raise Unusable("%s: %s" % (path, error)) from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA or "rows" not in result:
        raise Unusable("%s: not a result of `bragg bench` of schema %d" % (path, SCHEMA))
    return result


def load_lines(path):
    """The objects of a file with one a line; a last line that was cut short, as by a kill, is none."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines(keepends=True)
    except OSError as error:
        raise Unusable("%s: %s" % (path, error)) from error
    found = []
    for k, line in enumerate(lines):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            if k + 1 < len(lines) or line.endswith("\n"):
                raise Unusable("%s: line %d: %s" % (path, k + 1, error)) from error
    return found
