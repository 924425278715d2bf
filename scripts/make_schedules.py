#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes rules/networks/schedules.hpp: selection networks in an order that keeps their values in registers.

Comparators that do not share a wire may go in any order. The order here is found by list scheduling with random
restarts: next comes a comparator whose values are in registers, and of those one that frees them. What it costs is
counted as a compiler would at best do it (Belady: evicted is the value needed last).
"""
import json
import pathlib
import random

root = pathlib.Path(__file__).resolve().parent.parent
SIZES = [*range(2, 17), 20, 24, 28, 32, 40, 48, 56, 64]
# Of 16 and of 32 vector registers, without those for constants and for the check of the values.
REGISTERS = [13, 28]
RESTARTS = 120

NEED_LOW, NEED_HIGH, LOAD_LOW, LOAD_HIGH, STORE_LOW, STORE_HIGH = (1 << k for k in range(6))


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


def networks_of(n, document):
    """The smallest lists known for the middle of n values, and for all of them."""
    every = [tuple(pair) for pair in document["sort"][str(n)]]
    middle = sorted({(n - 1) // 2, n // 2})
    candidates = [prune(every, middle)]
    if str(n) in document["median"]:
        pairs = [tuple(pair) for pair in document["median"][str(n)]]
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


def braces(numbers, width=110):
    lines, line = [], "   "
    for number in numbers:
        piece = f" {number},"
        if len(line) + len(piece) > width:
            lines.append(line)
            line = "   "
        line += piece
    return "\n".join([*lines, line])


def main():
    document = json.loads((root / "rules" / "networks" / "best_known.json").read_text())
    chance = random.Random(1)
    text = [
        "// SPDX-License-Identifier: Apache-2.0",
        "// Written by scripts/make_schedules.py from rules/networks/best_known.json; do not edit.",
        "// Selection networks in an order that keeps their values in registers.",
        "#pragma once",
        "",
        "#include <cstdint>",
        "",
        "namespace bragg::detail::cpu::schedules {",
        "",
        "// clang-format off",
        f"inline constexpr int size_count = {len(SIZES)};",
        "/// Points that there are networks for, ascending.",
        "inline constexpr std::uint8_t sizes[] = {",
        braces(SIZES),
        "};",
        f"inline constexpr std::uint8_t need_low = {NEED_LOW}, need_high = {NEED_HIGH};    // outputs that are read",
        f"inline constexpr std::uint8_t load_low = {LOAD_LOW}, load_high = {LOAD_HIGH};    // a wire's first use",
        f"inline constexpr std::uint8_t store_low = {STORE_LOW}, store_high = {STORE_HIGH};  // a wanted wire's last one",
    ]
    for registers, name in zip(REGISTERS, ("sixteen", "thirty_two")):
        starts, numbers, counts = [0], [], []
        for n in SIZES:
            for network, wanted in networks_of(n, document):
                best = schedule(network, registers, wanted, chance)
                counts.append(f"{operations(best)}/{moves(best, registers, wanted)}")
                for step in steps(best, wanted):
                    numbers.extend(step)
                starts.append(len(numbers) // 3)
        text += [
            "",
            f"/// For {name.replace('_', '-')} registers. Minima and maxima, and moves to and from memory, of each list:",
            *("//" + line[3:].rstrip(",") for line in braces(counts).split("\n")),
            f"struct {name} {{",
            "  /// (low, high, flags) of all networks one after another.",
            "  static constexpr std::uint8_t steps[] = {",
            braces(numbers),
            "  };",
            "  /// Network 2k brings the middle of sizes[k] points to its place, network 2k + 1 sorts them: its",
            "  /// steps are [start[i], start[i + 1]).",
            "  static constexpr std::uint16_t start[] = {",
            braces(starts),
            "  };",
            "};",
        ]
    text += ["// clang-format on", "", "}  // namespace bragg::detail::cpu::schedules", ""]
    (root / "rules" / "networks" / "schedules.hpp").write_text("\n".join(text))


if __name__ == "__main__":
    main()
