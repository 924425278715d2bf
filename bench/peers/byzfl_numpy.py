# SPDX-License-Identifier: Apache-2.0
"""ByzFL on NumPy arrays. Its rules are in byzfl_rules.py: one class serves both kinds."""

from peers import byzfl_rules

DISTRIBUTION = "byzfl"
# ByzFL imports torch, whose OpenMP would bind this thread, and with it NumPy's pool, to one core.
ENVIRONMENT: dict[str, str] = {}
STEPS = byzfl_rules.steps("NumPy array")


def load(threads: int) -> None:
    import numpy  # noqa: F401  before torch, so that its pool is made by an unbound thread
    import torch

    torch.set_num_threads(threads)
    byzfl_rules.load()


def wrap(matrix):
    return matrix


def unwrap(result):
    return result
