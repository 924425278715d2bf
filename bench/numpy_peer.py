#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the same rules take in NumPy, as its users write them. JSON on stdout.

    numpy_peer.py [n d]…
"""
import json
import sys
import time

import numpy


def trimmed_mean(x, f):
    return numpy.sort(x, axis=0)[f : len(x) - f].mean(axis=0)


def nnm(x, f):
    """Nearest-neighbour mixing by a bare Gram matrix: fast, and not safe against offsets, NaN or infinity."""
    gram = x @ x.T
    norms = numpy.diag(gram)
    distances = norms[:, None] + norms[None, :] - 2 * gram
    nearest = numpy.argsort(distances, axis=1, kind="stable")[:, : len(x) - f]
    mixing = numpy.zeros(gram.shape, x.dtype)
    numpy.put_along_axis(mixing, nearest, 1 / (len(x) - f), axis=1)
    return mixing @ x


def median_ms(call):
    times = []
    for k in range(7):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times[2:])[2]


def main():
    numbers = [int(a) for a in sys.argv[1:]] or [16, 1000000]
    results = []
    for n, d in zip(numbers[::2], numbers[1::2]):
        x = numpy.random.default_rng(1).standard_normal((n, d), dtype=numpy.float32)
        f = n // 5
        rules = {
            "median": lambda: numpy.median(x, axis=0),
            "trimmed_mean(f=%d)" % f: lambda: trimmed_mean(x, f),
            "nnm(f=%d) | trimmed_mean(f=%d)" % (f, f): lambda: trimmed_mean(nnm(x, f), f),
        }
        for name, call in rules.items():
            results.append({"peer": "numpy " + numpy.__version__, "pipeline": name, "n": n, "d": d, "ms_median": median_ms(call)})
    json.dump(results, sys.stdout, indent=1)


main()
