# SPDX-License-Identifier: Apache-2.0
"""geom_median (Pillutla et al.): smoothed Weiszfeld iterations on torch tensors, from the mean."""

from __future__ import annotations

from typing import Any

from peers.contract import Stage, Step

DISTRIBUTION = "geom_median"
ENVIRONMENT = {"OMP_PROC_BIND": "true"}

# Its defaults. ftol=1e-20 comes to stopping when the objective no longer changes in float32.
EPS, MAXITER = 1e-6, 100

torch: Any = None
compute_geometric_median: Any = None


def load(threads: int) -> None:
    global torch, compute_geometric_median
    import torch as loaded
    from geom_median.torch import compute_geometric_median as function

    loaded.set_num_threads(threads)
    torch, compute_geometric_median = loaded, function


def wrap(matrix):
    return torch.from_numpy(matrix)


def unwrap(result):
    return result.median.numpy()


def geometric_median(stage: Stage, n: int, d: int) -> Step:
    eps = float(stage.parameters.get("nu", EPS))
    maxiter = int(stage.parameters.get("max_iters", MAXITER))
    fixed = stage.convention(nu=eps, max_iters=maxiter, tol=0, start="mean")
    path = f"geom_median.torch.compute_geometric_median(eps={eps:g}, maxiter={maxiter})"
    return Step(lambda x: compute_geometric_median(x, eps=eps, maxiter=maxiter), path, fixed)


STEPS = {"geometric_median": geometric_median}
