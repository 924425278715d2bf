# SPDX-License-Identifier: Apache-2.0
"""State dicts and other trees of arrays: mappings, lists, tuples, named tuples and dataclasses, within each other."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

NUMBERS = (float, int, bool)

LEFT_OUT = object()
"""Among the leaves of `rebuild`: a mapping goes without it, and elsewhere it is None."""

_MAPPING, _SEQUENCE, _DATACLASS, _LEAF = range(4)
_kinds: dict[type, int] = {dict: _MAPPING, list: _SEQUENCE, tuple: _SEQUENCE}


def is_numbers(value: Any) -> bool:
    """A list or tuple of Python's numbers: one leaf."""
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and type(value[0]) in NUMBERS
        and all(type(number) in NUMBERS for number in value)
    )


def _kind(value: Any) -> int:
    kind = _kinds.get(type(value))
    if kind is None:
        kind = _LEAF
        if isinstance(value, Mapping):
            kind = _MAPPING
        elif isinstance(value, (list, tuple)):
            kind = _SEQUENCE
        elif dataclasses.is_dataclass(type(value)):
            kind = _DATACLASS
        _kinds[type(value)] = kind
    return _LEAF if kind == _SEQUENCE and is_numbers(value) else kind


def is_tree(value: Any) -> bool:
    """Whether it has parts. A list of numbers has none."""
    return _kind(value) != _LEAF


def _fields(value: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(value)]


def _items(tree: Any, kind: int) -> Iterable[tuple[Any, Any]]:
    if kind == _MAPPING:
        return tree.items()  # type: ignore[no-any-return]
    return enumerate(tree) if kind == _SEQUENCE else ((name, getattr(tree, name)) for name in _fields(tree))


def _step(key: Any, kind: int) -> str:
    return f".{key}" if kind == _DATACLASS else f"[{key!r}]"


def _texts(tree: Any, text: str, then: Callable[[str, Any, int], str]) -> Iterator[str]:
    """Of each leaf, what `then` makes of the text of the tree that holds it, the key there and that tree's kind."""
    kind = _kind(tree)
    if kind == _LEAF:
        yield text
        return
    for key, part in _items(tree, kind):
        yield from _texts(part, then(text, key, kind), then)


def names(tree: Any) -> Iterator[str]:
    """Of the leaves, e.g. "['fc.weight']"; of a leaf alone ""."""
    return _texts(tree, "", lambda name, key, kind: name + _step(key, kind))


def paths(tree: Any) -> Iterator[str]:
    """What patterns are of: the leaves' keys, joined by dots, e.g. "layers.0.weight"."""
    return _texts(tree, "", lambda path, key, kind: f"{path}.{key}" if path else str(key))


def leaves(tree: Any, like: Any, place: str, source: str = "updates[0]") -> list[Any]:
    """The leaves of `tree`, in the order that `like`, which is `source`'s, has them in.

    `place` is what messages call the tree.
    """
    found: list[Any] = []
    _collect(tree, like, place, source, [], found)
    return found


def _collect(tree: Any, like: Any, place: str, source: str, path: list[tuple[Any, int]], found: list[Any]) -> None:
    def where() -> str:
        return place + "".join(_step(key, kind) for key, kind in path)

    def fail(error: type[Exception], what: str) -> NoReturn:
        raise error(f"{where()}: {what}, as in {source}")

    kind = _kind(like)
    if kind == _LEAF:
        if is_tree(tree):
            fail(TypeError, f"{type(tree).__name__}; needs an array")
        found.append(tree)
        return
    if kind == _MAPPING:
        if _kind(tree) != _MAPPING:
            fail(
                TypeError, f"{type(tree).__name__}; needs a {'dict' if isinstance(like, dict) else type(like).__name__}"
            )
        if tree.keys() != like.keys():
            differ = sorted(map(repr, tree.keys() ^ like.keys()))
            raise ValueError(f"{where()}: keys differ from those in {source}: {', '.join(differ[:3])}")
    elif kind == _SEQUENCE:
        if _kind(tree) != _SEQUENCE:
            fail(TypeError, f"{type(tree).__name__}; needs a {type(like).__name__}")
        if len(tree) != len(like):
            fail(ValueError, f"{len(tree)} items; needs {len(like)}")
    elif _kind(tree) != _DATACLASS or _fields(tree) != _fields(like):
        fail(TypeError, f"{type(tree).__name__}; needs a {type(like).__name__}")
    kinds = _kinds
    for key, part in _items(like, kind):
        value = getattr(tree, key) if kind == _DATACLASS else tree[key]
        if kinds.get(type(part)) == _LEAF and kinds.get(type(value)) == _LEAF:  # as nearly all are
            found.append(value)
            continue
        path.append((key, kind))
        _collect(value, part, place, source, path, found)
        path.pop()


def rebuild(like: Any, values: Iterator[Any]) -> Any:
    """A tree of the types and keys of `like`, with other leaves."""
    kind = _kind(like)
    if kind == _LEAF:
        return next(values)
    parts = [(key, rebuild(part, values)) for key, part in _items(like, kind)]
    if kind == _MAPPING:
        return _mapping(like, parts)
    given = [(key, None if part is LEFT_OUT else part) for key, part in parts]
    if kind == _SEQUENCE:
        sequence = [part for _, part in given]
        if isinstance(like, list):
            return sequence
        return type(like)(*sequence) if hasattr(like, "_fields") else tuple(sequence)
    made = copy.copy(like)
    for name, part in given:
        object.__setattr__(made, name, part)  # it may be frozen
    return made


def _mapping(like: Any, parts: list[tuple[Any, Any]]) -> Any:
    if isinstance(like, dict):
        # A copy, since it may be of a type with more to it than its items, such as a default factory.
        made = copy.copy(like)
        for key, part in parts:
            if part is LEFT_OUT:
                del made[key]
            else:
                made[key] = part
        return made
    items = {key: part for key, part in parts if part is not LEFT_OUT}
    try:
        return type(like)(items)
    except TypeError:  # not made of a dict
        return items
