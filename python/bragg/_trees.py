# SPDX-License-Identifier: Apache-2.0
"""State dicts and other trees of arrays: dicts, lists, tuples and named tuples, within each other."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn

TREE = (dict, list, tuple)


def _items(tree: Any) -> Iterable[tuple[Any, Any]]:
    return tree.items() if isinstance(tree, dict) else enumerate(tree)


def names(tree: Any, name: str = "") -> Iterator[str]:
    """Of the leaves, e.g. "['fc.weight']"."""
    for key, part in _items(tree):
        if isinstance(part, TREE):
            yield from names(part, f"{name}[{key!r}]")
        else:
            yield f"{name}[{key!r}]"


def leaves(tree: Any, like: Any, place: str) -> list[Any]:
    """The leaves of `tree`, in the order that `like`, updates[0], has them in. `place` is what messages call the tree."""
    found: list[Any] = []
    _collect(tree, like, place, [], found)
    return found


def _collect(tree: Any, like: Any, place: str, path: list[Any], found: list[Any]) -> None:
    def fail(error: type[Exception], what: str) -> NoReturn:
        raise error(place + "".join(f"[{key!r}]" for key in path) + ": " + what)

    if isinstance(like, dict):
        if not isinstance(tree, dict):
            fail(TypeError, f"{type(tree).__name__}; needs a dict, as in updates[0]")
        if tree.keys() != like.keys():
            differ = sorted(map(repr, tree.keys() ^ like.keys()))
            fail(ValueError, f"keys differ from those in updates[0]: {', '.join(differ[:3])}")
    elif not isinstance(tree, (list, tuple)):
        fail(TypeError, f"{type(tree).__name__}; needs a {type(like).__name__}, as in updates[0]")
    elif len(tree) != len(like):
        fail(ValueError, f"{len(tree)} items; needs {len(like)}, as in updates[0]")
    for key, part in _items(like):
        value = tree[key]
        if isinstance(part, TREE):
            path.append(key)
            _collect(value, part, place, path, found)
            path.pop()
        elif isinstance(value, TREE):
            path.append(key)
            fail(TypeError, f"{type(value).__name__}; needs an array, as in updates[0]")
        else:
            found.append(value)


def rebuild(like: Any, values: Iterator[Any]) -> Any:
    """A tree of the types and keys of `like`, with other leaves."""
    if isinstance(like, dict):
        # A copy, since it may be of a type with more to it than its items, such as a default factory.
        made = copy.copy(like)
        for key, part in like.items():
            made[key] = rebuild(part, values)
        return made
    if isinstance(like, (list, tuple)):
        parts = [rebuild(part, values) for part in like]
        if isinstance(like, list):
            return parts
        return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)
    return next(values)
