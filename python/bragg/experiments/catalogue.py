# SPDX-License-Identifier: Apache-2.0
"""The experiments by their names."""

from __future__ import annotations

from . import history, mixing, price, privacy, reputation

EXPERIMENTS = {
    "price": price.EXPERIMENT,
    "ablation": price.ABLATION,
    "mixing": mixing.EXPERIMENT,
    "factors": mixing.FACTOR,
    "history": history.EXPERIMENT,
    "reputation": reputation.EXPERIMENT,
    "privacy": privacy.EXPERIMENT,
}
