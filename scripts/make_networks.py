#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes rules/networks/networks.hpp from rules/networks/best_known.json.

The lists are those of bertdobbelaere/SorterHunter (MIT): the smallest known sorting networks for 2 to 64 values and
median-selection networks for 3 to 64.
"""
import json
import pathlib

folder = pathlib.Path(__file__).resolve().parent.parent / "rules" / "networks"


def table(name, what, lists):
    """Pairs of all networks one after another, and where the network of n values starts."""
    largest = max(lists)
    starts, pairs = [], []
    for n in range(largest + 2):
        starts.append(len(pairs))
        for low, high in lists.get(n, []):
            assert 0 <= low < high < n, (name, n, low, high)
            pairs.append((low, high))
    lines, line = [], "   "
    for number in [w for pair in pairs for w in pair]:
        piece = f" {number},"
        if len(line) + len(piece) > 110:
            lines.append(line)
            line = "   "
        line += piece
    lines.append(line)
    start_lines, line = [], "   "
    for number in starts:
        piece = f" {number},"
        if len(line) + len(piece) > 110:
            start_lines.append(line)
            line = "   "
        line += piece
    start_lines.append(line)
    return "\n".join(
        [
            f"/// {what}: comparators (low, high) one after another.",
            f"inline constexpr std::uint8_t {name}_wires[] = {{",
            *lines,
            "};",
            f"/// The comparators for n values are [{name}_start[n], {name}_start[n + 1]); none below the smallest n.",
            f"inline constexpr std::uint16_t {name}_start[] = {{",
            *start_lines,
            "};",
        ]
    )


def main():
    document = json.loads((folder / "best_known.json").read_text())
    sort = {int(n): pairs for n, pairs in document["sort"].items()}
    median = {int(n): pairs for n, pairs in document["median"].items()}
    text = "\n".join(
        [
            "// SPDX-License-Identifier: Apache-2.0",
            "// Written by scripts/make_networks.py from best_known.json; do not edit.",
            "// The smallest known comparator networks, from bertdobbelaere/SorterHunter (MIT licence).",
            "#pragma once",
            "",
            "#include <cstdint>",
            "",
            "namespace bragg::detail {",
            "",
            "// clang-format off",
            f"inline constexpr int largest_network = {max(sort)};",
            table("sort", "Sorting networks", sort),
            table("median", "Networks that bring the middle value (n odd) to its place, or the two middle ones (n even) in any order", median),
            "// clang-format on",
            "",
            "}  // namespace bragg::detail",
            "",
        ]
    )
    (folder / "networks.hpp").write_text(text)


if __name__ == "__main__":
    main()
