# SPDX-License-Identifier: Apache-2.0
"""Arguments that are numbers: one that is none is named here, and not by the extension, which knows no names."""

from __future__ import annotations

import math
import operator
from typing import Any


def number(name: str, value: Any) -> float:
    """NaN and infinity are numbers here."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} = {value!r}; needs a number") from None


def finite(name: str, value: Any) -> float:
    converted = number(name, value)
    if not math.isfinite(converted):
        raise ValueError(f"{name} = {value!r}; needs a finite number")
    return converted


def integer(name: str, value: Any, least: int = 0, most: int = 2**31 - 1) -> int:
    try:
        converted = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} = {value!r}; needs an integer") from None
    if not least <= converted <= most:
        raise ValueError(f"{name} = {converted}; needs an integer from {least} to {most}")
    return converted
