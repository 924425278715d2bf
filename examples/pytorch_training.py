#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Twelve workers, two of them hostile, train a network on handwritten digits in PyTorch; bragg aggregates.

    python examples/pytorch_training.py                                  every attack against every rule, in a minute
    python examples/pytorch_training.py --rules mean "krum(f=2)" --attacks alie --rounds 500
    python examples/pytorch_training.py --plot training.svg              accuracy by round; needs matplotlib

In every round each worker takes the gradient of a batch of its own, unequal share of the data, and sends its momentum
(Karimireddy et al. 2021). The hostile two know what all the others send. The server steps along what the rule makes of
the twelve. Needs torch and bragg.
"""

import argparse
import csv
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bragg
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

N, F = 12, 2
HONEST = N - F
BATCH = 32
MOMENTUM = 0.9
RATE = 0.5
LAST = 20  # rounds that the table averages: under attack, accuracy may jump from one to the next
RULES = ["mean", "trimmed_mean(f=2)", "nnm(f=2) | trimmed_mean(f=2)", "geometric_median", "centered_clipping(tau=1)"]

# An attack makes what a hostile worker sends of what the honest ones send (10 rows), and of what itself would, were it
# honest. All hostile workers send the same, but for sign_flip.
Attack = Callable[[Tensor, Tensor], Tensor]


def sign_flip(honest: Tensor, own: Tensor) -> Tensor:
    """Ten steps back for each step forward."""
    return -10 * own


def inner_product(honest: Tensor, own: Tensor) -> Tensor:
    """Inner-product manipulation (Xie et al. 2020): −ε times the honest mean, with an ε at which the mean climbs.

    The mean of all is (n−f − f·ε)/n times that of the honest: it turns round at ε = (n−f)/f = 5.
    """
    return (-1.5 * HONEST / F * honest.mean(0)).expand_as(own)


def alie(honest: Tensor, own: Tensor) -> Tensor:
    """A little is enough (Baruch et al. 2019): z deviations from the honest mean, to hide among the honest.

    The paper's z is the largest that s honest workers are beyond, who with the f make a majority. Of few workers it
    is 0 (as here: s = 5 of 10), and does nothing; then z = 1.5, as in ByzFL.
    """
    s = N // 2 + 1 - F
    z = torch.special.ndtri(torch.tensor((HONEST - s) / HONEST, dtype=torch.float64)).item()
    if z <= 0:
        z = 1.5
    return (honest.mean(0) - z * honest.std(0)).expand_as(own)


def nan(honest: Tensor, own: Tensor) -> Tensor:
    """A worker whose training has blown up."""
    return torch.full_like(own, math.nan)


def none(honest: Tensor, own: Tensor) -> Tensor:
    return own


ATTACKS: dict[str, Attack] = {attack.__name__: attack for attack in (none, sign_flip, inner_product, alie, nan)}


class Digits:
    """Images to train on, dealt to the workers, and images to test on."""

    def __init__(self, path: Path, random: torch.Generator) -> None:
        with path.open() as file:
            rows = torch.tensor([[float(value) for value in row] for row in csv.reader(file)])
        rows = rows[torch.randperm(len(rows), generator=random)]
        images, labels = rows[:, :-1] / 16, rows[:, -1].long()
        held_back = len(rows) // 5
        self.test = images[:held_back], labels[:held_back]
        self.images, self.labels = images[held_back:], labels[held_back:]
        self.shares = self._deal(random)

    def _deal(self, random: torch.Generator) -> list[Tensor]:
        """Indices of each worker's images: of every digit, shares drawn from Dirichlet(1)."""
        owner = torch.empty(len(self.labels), dtype=torch.long)
        for digit in range(10):
            of_digit = (self.labels == digit).nonzero().flatten()
            # Dirichlet(1) is exponentials over their sum, by which multinomial divides.
            share = torch.empty(N).exponential_(generator=random)
            owner[of_digit] = torch.multinomial(share, len(of_digit), replacement=True, generator=random)
        return [(owner == worker).nonzero().flatten() for worker in range(N)]

    def batches(self, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch for each worker: (N, BATCH, 64) and (N, BATCH)."""
        chosen = torch.stack([share[torch.randint(len(share), (BATCH,), generator=random)] for share in self.shares])
        return self.images[chosen], self.labels[chosen]


def train(rule: str, attack: Attack, data: Digits, rounds: int, seed: int) -> Iterator[float]:
    """The accuracy on the images held back, after every round."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def loss(parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(functional_call(network, parameters, images), labels)

    gradients_of = vmap(grad(loss), in_dims=(None, 0, 0))
    momenta = torch.zeros(N, sum(parameter.numel() for parameter in parameters.values()))
    sent = momenta.clone()
    update = torch.zeros_like(momenta[0])
    plan = bragg.Plan(rule, sent, allow_nonfinite=True)  # `mean` is there to show what NaN does to it
    for _ in range(rounds):
        gradients = gradients_of(parameters, *data.batches(random))
        momenta.mul_(MOMENTUM).add_(torch.cat([g.flatten(1) for g in gradients.values()], 1), alpha=1 - MOMENTUM)
        sent[:HONEST] = momenta[:HONEST]
        sent[HONEST:] = attack(momenta[:HONEST], momenta[HONEST:])
        plan.run(sent, update)
        plan.check()
        at = 0
        for parameter in parameters.values():
            parameter.sub_(update[at : at + parameter.numel()].view_as(parameter), alpha=RATE)
            at += parameter.numel()
        images, labels = data.test
        yield (functional_call(network, parameters, images).argmax(1) == labels).float().mean().item()


def show_progress(done: float, what: str) -> None:
    if sys.stderr.isatty():
        bar = "█" * round(30 * done)
        print(
            f"\r\033[K{bar:·<30} {done:4.0%}  {what}" if done < 1 else "\r\033[K", end="", file=sys.stderr, flush=True
        )


def plot(curves: dict[tuple[str, str], list[float]], rules: list[str], attacks: list[str], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "bragg", "svg.fonttype": "none", "path.simplify_threshold": 1}
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(attacks), figsize=(3.2 * len(attacks), 3.4), sharey=True, squeeze=False)
    for axis, attack in zip(axes[0], attacks, strict=True):
        for rule in rules:
            accuracies = curves[rule, attack]
            axis.plot(range(1, len(accuracies) + 1), [100 * accuracy for accuracy in accuracies], label=rule, lw=1.2)
        axis.set(title=attack, xlabel="round", ylim=(0, 100))
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("test accuracy, %")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="lower center", ncols=len(rules), frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", default=RULES, metavar="RULE", help=f"pipelines (default: {RULES})")
    parser.add_argument("--attacks", nargs="+", default=list(ATTACKS), choices=ATTACKS)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, default=Path(__file__).parent / "data" / "digits.csv")
    parser.add_argument("--plot", type=Path, help="where a plot of accuracy by round goes: svg, png or pdf")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: needs at least 1")
    for rule in options.rules:
        try:
            bragg.Plan(rule, torch.zeros(N, 1))
        except ValueError as error:
            parser.error(f"--rules: {error}")

    torch.set_num_threads(1)  # the network is small; bragg has its own threads
    data = Digits(options.data, torch.Generator().manual_seed(options.seed))
    curves: dict[tuple[str, str], list[float]] = {}
    pairs = [(rule, attack) for rule in options.rules for attack in options.attacks]
    start = time.monotonic()
    for i, (rule, attack) in enumerate(pairs):
        curve = curves[rule, attack] = []
        for accuracy in train(rule, ATTACKS[attack], data, options.rounds, options.seed):
            curve.append(accuracy)
            show_progress((i + len(curve) / options.rounds) / len(pairs), f"{rule}, {attack}")

    width = max(map(len, options.rules))
    last = min(LAST, options.rounds)
    print(
        f"{N} workers, {F} of them hostile: accuracy on {len(data.test[1])} images, mean of rounds "
        f"{options.rounds - last + 1} to {options.rounds}"
    )
    print(f"{'rule':{width}}", *(f"{attack:>13}" for attack in options.attacks))
    for rule in options.rules:
        print(f"{rule:{width}}", *(f"{sum(curves[rule, attack][-last:]) / last:>13.1%}" for attack in options.attacks))
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    if options.plot:
        plot(curves, options.rules, options.attacks, options.plot)


if __name__ == "__main__":
    main()
