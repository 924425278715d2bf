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
