#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a robust all-reduce costs beside a plain one, by a model of latencies and bandwidths; a Markdown table.

No clock is behind it: ranks, links and speeds are assumptions, and can be given. Ranks are GPUs, some to a node.
Every row is one rank's update; with --nodes, the mean of one node's.
"""
import argparse
import math


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--coordinates", type=float, default=1e9, help="of a row")
    parser.add_argument("--bytes", type=float, default=2, help="of a coordinate on the wire")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 64, 256, 1024])
    parser.add_argument("--network", type=float, default=45, help="GB/s of a rank's network card")
    parser.add_argument("--inside", type=float, default=350, help="GB/s between the GPUs of a node")
    parser.add_argument("--memory", type=float, default=4200, help="GB/s of a GPU's memory")
    parser.add_argument("--products", type=float, default=45, help="10^12 multiply-adds per second in float64")
    parser.add_argument("--latency", type=float, default=8, help="microseconds of a message between nodes")
    return parser.parse_args()


def seconds(a, ranks, together):
    """Of a plain all-reduce, and of each part of a robust one: `together` ranks to a node."""
    row = a.coordinates * a.bytes
    together = min(together, ranks)
    nodes = ranks // together
    network, inside, memory = a.network * 1e9, a.inside * 1e9, a.memory * 1e9
    latency = (a.latency if nodes > 1 else 3) * 1e-6
    per_message = 0.7e-6
    plain = max(2 * (ranks - 1) / ranks * row / inside, 2 * (nodes - 1) / nodes * row / together / network)
    plain += 2 * math.log2(ranks) * latency
    transposition = max(row * (together - 1) / ranks / inside, row * (ranks - together) / ranks / network)
    transposition += latency + (ranks - 1) * per_message
    gram = max(row / memory, a.coordinates * (ranks + 1) / (a.products * 1e12))
    products = ranks * (ranks + 1) / 2 + 2 * ranks
    leaves = min(1024, max(1, math.ceil(a.coordinates / 8192)))
    link = network if nodes > 1 else inside
    sums = (leaves / ranks + 1) * products * 8 / link + 2 * (latency + (ranks - 1) * per_message)
    solve = 20e-6 + ranks**2 * 2.5e-9 + ranks**3 * 1.2e-12
    second = max(row / memory, a.coordinates * 2.5e-12, 2 * a.coordinates * ranks / (a.products * 1e12))
    gather = max((ranks - 1) / ranks * row / inside, (nodes - 1) / nodes * row / together / network)
    gather += math.log2(ranks) * latency
    return plain, (transposition, gram, sums, solve, second, gather)


def seconds_of_nodes(a, ranks, together):
    """Rows are nodes: a mean inside each, the robust rule between them."""
    row = a.coordinates * a.bytes
    nodes = ranks // together
    network, inside, memory = a.network * 1e9, a.inside * 1e9, a.memory * 1e9
    slice_ = row / together
    within = row * (together - 1) / together / inside
    between = slice_ * (nodes - 1) / nodes / network
    coordinates = a.coordinates / together
    first = max(slice_ / memory, coordinates * (nodes + 1) / (a.products * 1e12))
    second = max(coordinates * 2.5e-12, 2 * coordinates * nodes / (a.products * 1e12))
    return 2 * within + 2 * between + first + second


def main():
    a = arguments()
    names = ["plain", "transposition", "pass 1", "sums", "solve", "pass 2", "gather", "robust"]
    print("| ranks | to a node | " + " | ".join(names) + " | ratio |")
    print("|" + "---|" * (len(names) + 3))
    for together in (8, 1):
        for ranks in a.ranks:
            plain, parts = seconds(a, ranks, together)
            cells = ["%.1f" % (1e3 * x) for x in (plain, *parts, sum(parts))]
            print("| %d | %d | %s | %.2f |" % (ranks, min(together, ranks), " | ".join(cells), sum(parts) / plain))
    for ranks in a.ranks:
        if ranks < 64:
            continue
        plain, _ = seconds(a, ranks, 8)
        robust = seconds_of_nodes(a, ranks, 8)
        cells = ["%.1f" % (1e3 * plain)] + [""] * 6 + ["%.1f" % (1e3 * robust)]
        print("| %d | 8, a row each node | %s | %.2f |" % (ranks, " | ".join(cells), robust / plain))


if __name__ == "__main__":
    main()
