# SPDX-License-Identifier: Apache-2.0
"""Whole pipelines beside the sum of their passes, each timed by itself on the same device.

  pass_sums.py VARIANTS.jsonl BENCH.json    of bench/gpu/variants.cu, and of `bragg bench --device cuda --json`

A pipeline of two passes is wanted within 1.15 times their sum; what is beyond it is launches and the n-sized mathematics.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import result_file  # noqa: E402

# The names of a pipeline's passes there. Variants combine all n rows, so pipelines that combine fewer have no sum.
PASSES = {
    "geometric_median": ("gram", "combine"),
    "nnm(f=F) | trimmed_mean(f=F)": ("gram", "mix+select trimmed_mean"),
}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    try:
        rows = result_file.load(sys.argv[2])["rows"]
        variants = result_file.load_lines(sys.argv[1])
    except result_file.Unusable as error:
        sys.exit("pass_sums.py: %s" % error)
    alone = {(v["pass"], v["n"], v["d"], v["dtype"]): v["ms"] for v in variants if v.get("chosen") and "ms" in v}
    found = 0
    for row in rows:
        if row.get("tensors", 1) != 1:
            continue
        shape = row["n"], row["d"], row["dtype"]
        parts = [alone.get((name, *shape)) for name in PASSES.get(row["form"], ())]
        if not parts or None in parts:
            continue
        found += 1
        whole = row["ms"]["median"]
        print("%-30s n = %d, d = %g, %s: %.4f ms, passes %s ms: %.2f" % (
            row["form"], *shape, whole, " + ".join("%.4f" % ms for ms in parts), whole / sum(parts)))
    if not found:
        sys.exit("pass_sums.py: no pipeline of %s has all of its passes in %s" % (sys.argv[2], sys.argv[1]))


if __name__ == "__main__":
    main()
