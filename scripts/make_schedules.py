#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints rules/networks/schedules.hpp: the networks of best_known.hpp in an order that keeps their values in registers.

Comparators that do not share a wire may go in any order. The order here is found by list scheduling with random
restarts: next comes a comparator whose values are in registers, and of those one that frees them. What it costs is
counted as a compiler would at best do it (Belady: evicted is the value needed last).
"""
import pathlib
import random
import re
import textwrap

root = pathlib.Path(__file__).resolve().parent.parent
SIZES = [*range(2, 17), 20, 24, 28, 32, 40, 48, 56, 64]
# Of 16 and of 32 vector registers, without those for constants and for the check of the values.
REGISTERS = [13, 28]
RESTARTS = 120

NEED_LOW, NEED_HIGH, LOAD_LOW, LOAD_HIGH, STORE_LOW, STORE_HIGH = (1 << k for k in range(6))

HEAD = """\
// SPDX-License-Identifier: Apache-2.0
// Written by scripts/make_schedules.py from rules/networks/best_known.hpp; do not edit.
// Selection networks in an order that keeps their values in registers.
#pragma once

#include <cstddef>
#include <string_view>

namespace bragg::detail::cpu::schedules {{

/// A comparator and what happens before and after it.
struct Step {{
  int low;
  int high;
  int flags;
}};

/// Step k of a network, a text of three characters per step: '0' + low, '0' + high, '0' + flags.
constexpr Step step_of(std::string_view network, std::size_t k) {{
  return {{network[3 * k] - '0', network[3 * k + 1] - '0', network[3 * k + 2] - '0'}};
}}

// clang-format off
// NOLINTBEGIN(bugprone-suspicious-missing-comma): a network goes over several lines.
inline constexpr int need_low = {need_low}, need_high = {need_high};       // outputs that are read
inline constexpr int load_low = {load_low}, load_high = {load_high};       // a wire's first use
inline constexpr int store_low = {store_low}, store_high = {store_high};   // a wanted wire's last one

/// Points that there are networks for, ascending. Network 2k brings the middle of sizes[k] points to its place,
/// network 2k + 1 sorts them.
inline constexpr int size_count = {count};
inline constexpr int sizes[size_count] = {{{sizes}}};"""


def prune(pairs, wanted):
    """(low, high, need_low, need_high) of the comparators that the wanted wires depend on."""
    needed, kept = set(wanted), []
    for low, high in reversed(pairs):
        if low in needed or high in needed:
            kept.append((low, high, low in needed, high in needed))
            needed |= {low, high}
    return kept[::-1]


def operations(network):
    return sum(c[2] + c[3] for c in network)


def networks_of(n, known):
    """The smallest lists known for the middle of n values, and for all of them."""
    every = known["sort"][n]
    middle = sorted({(n - 1) // 2, n // 2})
    candidates = [prune(every, middle)]
    if n in known["median"]:
        pairs = known["median"][n]
        # The lists bring the two middle values there in any order.
        candidates.append(prune(pairs + ([tuple(middle)] if n % 2 == 0 else []), middle))
    return (min(candidates, key=operations), middle), (prune(every, range(n)), list(range(n)))


def moves(network, registers, wanted):
    """Stores and reloads between registers and memory, with Belady's evictions; one register is a comparator's own."""
    uses = {}
    for at, (low, high, *_) in enumerate(network):
        uses.setdefault(low, []).append(at)
        uses.setdefault(high, []).append(at)
    never = len(network) + 1
    position = dict.fromkeys(uses, 0)
    held, saved, seen = set(), set(), set()
    count = 0

    def next_use(wire):
        return uses[wire][position[wire]] if position[wire] < len(uses[wire]) else never

    for low, high, need_low, need_high in network:
        for wire in (low, high):
            if wire not in held:
                if len(held) >= registers - 1:
                    victim = max((w for w in held if w not in (low, high)), key=next_use)
                    held.remove(victim)
                    if victim not in saved:
                        count += 1
                        saved.add(victim)
                count += wire in seen
                held.add(wire)
                seen.add(wire)
        for wire, need in ((low, need_low), (high, need_high)):
            position[wire] += 1
            saved.discard(wire)
            if not need or next_use(wire) == never:
                held.discard(wire)
    return count


def schedule(network, registers, wanted, chance):
    """The network in the order of the fewest moves that was found."""
    before, after, last = [0] * len(network), [[] for _ in network], {}
    for at, (low, high, *_) in enumerate(network):
        for wire in (low, high):
            if wire in last:
                after[last[wire]].append(at)
                before[at] += 1
            last[wire] = at
    height = [0] * len(network)
    for at in reversed(range(len(network))):
        height[at] = 1 + max((height[later] for later in after[at]), default=0)

    def attempt():
        by_height = chance.choice([0, 0.05, 0.2, 0.5, 1])
        by_chance = chance.choice([0.1, 0.5, 1, 2])
        by_age = chance.choice([0, 0.02, 0.1, 0.5])
        waiting = list(before)
        ready = [at for at, count in enumerate(waiting) if count == 0]
        touched, order = {}, []
        while ready:

            def cost(at):
                low, high, need_low, need_high = network[at]
                missing = (low not in touched) + (high not in touched)
                age = sum(len(order) - touched[w] for w in (low, high) if w in touched)
                return (10 * missing - 3 * (not need_low) - 3 * (not need_high) - height[at] * by_height
                        + chance.random() * by_chance - age * by_age)

            at = min(ready, key=cost)
            ready.remove(at)
            order.append(at)
            for wire, need in zip(network[at][:2], network[at][2:]):
                touched[wire] = len(order)
                if not need:
                    del touched[wire]
            while len(touched) > registers - 1:
                del touched[min(touched, key=touched.get)]
            for later in after[at]:
                waiting[later] -= 1
                if waiting[later] == 0:
                    ready.append(later)
        return [network[at] for at in order]

    return min([network, *(attempt() for _ in range(RESTARTS))], key=lambda n: moves(n, registers, wanted))


def steps(network, wanted):
    """(low, high, flags): where a wire is first used, and where it is final."""
    last, seen, result = {}, set(), []
    for at, (low, high, *_) in enumerate(network):
        last[low] = last[high] = at
    for at, (low, high, need_low, need_high) in enumerate(network):
        flags = NEED_LOW * need_low | NEED_HIGH * need_high
        flags |= LOAD_LOW * (low not in seen) | LOAD_HIGH * (high not in seen)
        flags |= STORE_LOW * (last[low] == at and low in wanted) | STORE_HIGH * (last[high] == at and high in wanted)
        seen |= {low, high}
        result.append((low, high, flags))
    return result


def texts(strings, width=100):
    """Elements of an array of texts, each over as many lines as it needs."""
    lines = []
    for string in strings:
        pieces = [string[k:k + width] for k in range(0, len(string), width)] or [""]
        for piece in pieces:
            escaped = piece.replace("\\", "\\\\").replace("??", "?\\?")  # no trigraphs
            lines.append(f'    "{escaped}"')
        lines[-1] += ","
    return lines


def networks_in(header, name):
    """{wires: [(low, high), …]} of an array of best_known.hpp."""
    array = re.search(name + r"\[[^]]*\] = \{(.*?)\};", header, re.DOTALL)[1]
    found = {}
    for wires, element in enumerate(re.findall(r'((?:"(?:[^"\\]|\\.)*"\s*)+),', array)):
        text = re.sub(r"\\(.)", r"\1", "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', element)))
        if text:
            found[wires] = [(ord(low) - ord("0"), ord(high) - ord("0")) for low, high in zip(text[::2], text[1::2])]
    return found


def main():
    folder = root / "rules" / "networks"
    header = (folder / "best_known.hpp").read_text()
    known = {"sort": networks_in(header, "sort_networks"), "median": networks_in(header, "median_networks")}
    chance = random.Random(1)
    schedules = {}
    for registers, name in zip(REGISTERS, ("sixteen", "thirty_two")):
        schedules[name] = [(steps(best, wanted), f"{operations(best)}/{moves(best, registers, wanted)}")
                           for n in SIZES for network, wanted in networks_of(n, known)
                           for best in [schedule(network, registers, wanted, chance)]]
    print(text_of(schedules), end="")


def text_of(schedules):
    """The header; of each network its steps and what it costs."""
    text = HEAD.format(count=len(SIZES), sizes=", ".join(map(str, SIZES)), need_low=NEED_LOW, need_high=NEED_HIGH,
                       load_low=LOAD_LOW, load_high=LOAD_HIGH, store_low=STORE_LOW, store_high=STORE_HIGH).split("\n")
    for name, networks in schedules.items():
        costs = "Minima and maxima, and moves to and from memory, of each: " + ", ".join(cost for _, cost in networks)
        text += [
            "",
            f"/// For {name.replace('_', '-')} registers.",
            *textwrap.wrap(costs, 110, initial_indent="/// ", subsequent_indent="/// "),
            f"struct {name} {{",
            "  static constexpr std::string_view networks[2 * size_count] = {",
            *texts("".join(chr(48 + part) for step in network for part in step) for network, _ in networks),
            "  };",
            "};",
        ]
    return "\n".join([*text, "// NOLINTEND(bugprone-suspicious-missing-comma)", "// clang-format on", "", "}  // namespace bragg::detail::cpu::schedules", ""])


if __name__ == "__main__":
    main()
