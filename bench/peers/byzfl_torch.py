# SPDX-License-Identifier: Apache-2.0
"""ByzFL on torch tensors. An (n, d) tensor is its fastest input: a list is stacked first."""

from peers import byzfl_rules

DISTRIBUTION = "byzfl"
ENVIRONMENT = {"OMP_PROC_BIND": "true"}
STEPS = byzfl_rules.steps("torch tensor")


def load(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
    byzfl_rules.load()


def wrap(matrix):
    import torch

    return torch.from_numpy(matrix)


def unwrap(result):
    return result.numpy()
