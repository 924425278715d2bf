#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Finds what got faster or slower between two results of `bragg bench --json`, beyond the noise.

    compare.py OLD NEW [--threshold PERCENT] [--fail-on-regression]

OLD may be a folder of results: of those of the same hardware that have rows in common with NEW, the latest counts.
Where there is none, this is said, and the exit status is 0.

A row has changed when its medians differ by more than both the threshold and the two runs' spreads, and the middle
halves of their timings do not overlap. Exit status: 0; 1 with --fail-on-regression where a row got slower; 2 where the
files cannot be compared.
"""

import argparse
import pathlib
import sys

from result_file import Unusable, load


def key(row):
    return (row["rule"], row["n"], row["d"], row["dtype"], row["device"], row["threads"], row.get("tensors", 1),
            row.get("source", "memory"), row.get("gram"))


def noise(row):
    """Distance of the quartiles as a share of the median."""
    return (row["ms"]["q3"] - row["ms"]["q1"]) / row["ms"]["median"]


def judge(old, new, threshold):
    """("faster", "slower" or "same", relative change of the median)"""
    change = new["ms"]["median"] / old["ms"]["median"] - 1
    larger, smaller = (new, old) if change > 0 else (old, new)
    apart = larger["ms"]["q1"] > smaller["ms"]["q3"]
    least = max(threshold, noise(old), noise(new))
    relative = larger["ms"]["median"] / smaller["ms"]["median"] - 1
    if not apart or relative <= least:
        return "same", change
    return ("slower" if change > 0 else "faster"), change


HARDWARE = ("cpu", "cores", "instruction_set", "cuda_device")


def differences(old, new):
    """Differences between two files, other than the code, that change times."""
    found = []
    for name in HARDWARE:
        before, after = old["hardware"].get(name), new["hardware"].get(name)
        if before != after:
            found.append("%s: %s, then %s" % (name, before, after))
    for name in ("read_gb_per_s", "fma_f64_gflop_per_s"):
        before, after = old["floors"].get(name), new["floors"].get(name)
        if before and after and abs(after / before - 1) > 0.1:
            found.append("the machine's %s: %.1f, then %.1f" % (name, before, after))
    return found


def latest_like(folder, new):
    """The latest result of a folder that is of the same hardware and has rows in common, or None."""
    keys = {key(row) for row in new["rows"]}
    found = []
    for path in pathlib.Path(folder).glob("*.json"):
        try:
            result = load(path)
        except Unusable:
            continue  # of another program
        alike = all(result["hardware"].get(name) == new["hardware"].get(name) for name in HARDWARE)
        if alike and any(key(row) in keys for row in result["rows"]):
            found.append((result["date"], str(path), result))
    return max(found, key=lambda one: one[:2])[2] if found else None


def compare(old, new, threshold):
    """[(verdict, change, old row, new row)], in the order of the new file."""
    before = {key(row): row for row in old["rows"]}
    pairs = [(before[key(row)], row) for row in new["rows"] if key(row) in before]
    if not pairs:
        raise Unusable("the files have no row in common")
    return [(*judge(a, b, threshold), a, b) for a, b in pairs]


def line(verdict, change, old, new):
    shape = "n = %d, d = %d, %s, %s" % (new["n"], new["d"], new["dtype"], new["device"])
    if new.get("source", "memory") != "memory":
        shape += ", from " + new["source"]
    times = "%.4g ms -> %.4g ms" % (old["ms"]["median"], new["ms"]["median"])
    spread = "spread %.1f %%, %.1f %%" % (100 * noise(old), 100 * noise(new))
    return "%-6s  %+6.1f %%  %s  (%s; %s; %s)" % (verdict, 100 * change, new["rule"], shape, times, spread)


def main(arguments):
    parser = argparse.ArgumentParser(description="Compares two results of `bragg bench --json`.")
    parser.add_argument("old", metavar="OLD", help="a file, or a folder of them")
    parser.add_argument("new", metavar="NEW")
    parser.add_argument("--threshold", type=float, default=3, help="changes below it never count; default 3", metavar="PERCENT")
    parser.add_argument("--fail-on-regression", action="store_true", help="exit with 1 where a row got slower")
    options = parser.parse_args(arguments)
    try:
        new = load(options.new)
        old = latest_like(options.old, new) if pathlib.Path(options.old).is_dir() else load(options.old)
        if old is None:
            print("compare.py: %s has no result of such hardware with rows in common: %s" % (
                options.old, ", ".join(str(new["hardware"].get(name)) for name in HARDWARE)))
            return 0
        rows = compare(old, new, options.threshold / 100)
    except Unusable as error:
        print("compare.py: error: %s" % error, file=sys.stderr)
        return 2
    print("%s (%s) -> %s (%s)" % (old["commit"], old["date"], new["commit"], new["date"]))
    for difference in differences(old, new):
        print("note: %s" % difference)
    for wanted in ("slower", "faster"):
        for row in sorted((r for r in rows if r[0] == wanted), key=lambda r: -abs(r[1])):
            print(line(*row))
    counts = {verdict: sum(row[0] == verdict for row in rows) for verdict in ("slower", "faster", "same")}
    print("%d slower, %d faster, %d the same within the noise" % (counts["slower"], counts["faster"], counts["same"]))
    shared = {key(row[3]) for row in rows}
    for name, result in (("old", old), ("new", new)):
        alone = sum(key(row) not in shared for row in result["rows"])
        if alone:
            print("%d rows are in the %s file only" % (alone, name))
    return 1 if options.fail_on_regression and counts["slower"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
