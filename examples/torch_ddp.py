#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Eight processes, two of them hostile, train one network with DistributedDataParallel: its mean, and bragg's hook.

    python examples/torch_ddp.py                                   a table
    python examples/torch_ddp.py --rules "median" --steps 300
    python examples/torch_ddp.py --plot ddp.svg                    accuracy by step; needs matplotlib

Each rank has a share of the handwritten digits and takes a gradient of a batch of it in every step. A hostile rank sends
NaN, or the opposite of its gradient ten times over. Without the hook one of them is enough to end the training. The step
times are of processes that share one machine, over loopback. Needs torch (with gloo), NumPy and bragg.
"""

import argparse
import math
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

N, F = 8, 2
HOSTILE = (1, 5)
BATCH = 32
RATE = 0.5
MOMENTUM = 0.5
HELD_BACK = 360
EVERY = 10  # steps between two looks at the accuracy
LAST = 5  # looks that the table averages
RULES = [f"trimmed_mean(f={F})", f"nnm(f={F}) | trimmed_mean(f={F})"]
ATTACKS = {"none": 1.0, "NaN": math.nan, "sign flip": -10.0}  # what a hostile rank multiplies its gradient by


def digits(path: Path) -> tuple[Tensor, Tensor]:
    table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.float32))
    table = table[torch.randperm(len(table), generator=torch.Generator().manual_seed(1))]
    return table[:, :-1] / 16, table[:, -1].long()


def train(rule: str | None, factor: float, steps: int, images: Tensor, labels: Tensor) -> tuple[list[float], float]:
    """Accuracy on the images held back, every so many steps, and seconds per step."""
    import bragg.torch

    rank = dist.get_rank()
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    )
    ddp = DistributedDataParallel(model)
    state = None
    if rule is not None:
        state, hook = bragg.torch.ddp_hook(rule, momentum=MOMENTUM, threads=1)
        ddp.register_comm_hook(state, hook)
    momentum = 0 if rule else MOMENTUM  # with the hook it is the ranks'
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=momentum, dampening=momentum)
    mine = torch.arange(HELD_BACK + rank, len(labels), N)
    random = torch.Generator().manual_seed(rank)
    accuracies = []
    seconds = 0.0
    for step in range(1, steps + 1):
        chosen = mine[torch.randint(len(mine), (BATCH,), generator=random)]
        dist.barrier()
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = cross_entropy(ddp(images[chosen]), labels[chosen])
        (loss * (factor if rank in HOSTILE else 1)).backward()
        if state is not None:
            state.check()
        optimizer.step()
        seconds += time.perf_counter() - start
        if step % EVERY == 0:
            with torch.no_grad():
                accuracies.append((model(images[:HELD_BACK]).argmax(1) == labels[:HELD_BACK]).float().mean().item())
    return accuracies, seconds / steps


def process(rank: int, store: str, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=N)
    images, labels = digits(options.data)
    curves = {}
    if rank == 0:
        print("| gradients by | " + " | ".join(ATTACKS) + " | ms per step |\n|---|" + "---|" * (len(ATTACKS) + 1))
    for rule in [None, *options.rules]:
        cells, times = [], []
        for attack, factor in ATTACKS.items():
            accuracies, seconds = train(rule, factor, options.steps, images, labels)
            curves[rule, attack] = accuracies
            cells.append(f"{100 * sum(accuracies[-LAST:]) / len(accuracies[-LAST:]):.1f} %")
            times.append(1000 * seconds)
        if rank == 0:
            name = "`" + rule.replace("|", "\\|") + "`" if rule else "plain DistributedDataParallel"
            print(f"| {name} | " + " | ".join(cells) + f" | {sorted(times)[len(times) // 2]:.1f} |", flush=True)
    if rank == 0 and options.plot:
        plot(curves, options)
    dist.destroy_process_group()


def plot(curves: dict[tuple[str | None, str], list[float]], options: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(ATTACKS), figsize=(4 * len(ATTACKS), 3.2), sharey=True)
    for axis, attack in zip(axes, ATTACKS):
        for rule in [None, *options.rules]:
            accuracies = curves[rule, attack]
            steps = [EVERY * (k + 1) for k in range(len(accuracies))]
            axis.plot(steps, [100 * accuracy for accuracy in accuracies], label=rule or "plain")
        axis.set_title(f"{len(HOSTILE)} of {N} ranks: {attack}")
        axis.set_xlabel("step")
    axes[0].set_ylabel("test accuracy, %")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(options.plot)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", default=RULES)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data/digits.csv")
    options = parser.parse_args()
    if options.steps < EVERY:
        parser.error(f"--steps: needs {EVERY} or more")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(process, (f"{folder}/store", options), nprocs=N)
    return 0


if __name__ == "__main__":
    sys.exit(main())
