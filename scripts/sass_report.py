#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the instructions of kernels' device code, by the unit that issues them, block by block.

usage: scripts/sass_report.py OBJECT… [--kernel REGEX] [--least N] [--cuobjdump PATH]

For each kernel whose readable name matches, the straight pieces of code of at least N instructions, in order, with
the numbers of instructions for each unit. "loop" says how many loops a piece lies in: what runs for each tile has at
least one. From these counts and the rates of a multiprocessor follow the bounds in docs/predictions.md.
"""

import argparse
import collections
import re
import shutil
import subprocess
import sys

from kernel_names import readable

# The first that matches; what is left is "other".
UNITS = [
    ("DMMA", r"DMMA"),
    ("f64", r"D(ADD|MUL|FMA|SETP|MNMX)"),  # 64 lanes a cycle and multiprocessor on Hopper
    ("cvt64", r"(F2F|I2F|F2I)\S*\.(F64|S64|U64)"),  # 16
    ("cvt", r"F2F|F2FP|I2F|F2I|MUFU"),
    ("minmax", r"FMNMX|IMNMX|VIMNMX|HMNMX2"),  # 64
    ("fma", r"FFMA|FMUL|FADD|HFMA2|HADD2|HMUL2|IMAD"),
    ("int", r"IADD|LOP3|SHF|SEL|FSEL|ISETP|FSETP|PRMT|LEA|MOV|PLOP3|POPC|BFI|VIADD|R2P|P2R|SGXT"),
    ("LDG", r"LDG|LD\b"),
    ("STG", r"STG|ST\b"),
    ("async", r"LDGSTS|UBLKCP"),
    ("LDS", r"LDSM?\b"),
    ("STS", r"STS"),
    ("sync", r"BAR|WARPSYNC|VOTE|SHFL|REDUX|DEPBAR|MEMBAR|BSSY|BSYNC"),
]
HEAD = re.compile(r"^\s*Function : (\S+)")
LINE = re.compile(r"^\s*/\*([0-9a-f]+)\*/\s+(?:@!?U?P\w+ +)?([A-Z][\w.]*)([^;]*);")
TARGET = re.compile(r"0x([0-9a-f]+)")


def unit_of(opcode):
    return next((name for name, pattern in UNITS if re.match(pattern, opcode)), "other")


def functions(text):
    name, lines = None, []
    for line in text.splitlines():
        if match := HEAD.match(line):
            if name:
                yield name, lines
            name, lines = match[1], []
        elif match := LINE.match(line):
            lines.append((int(match[1], 16), match[2], match[3]))
    if name:
        yield name, lines


def blocks_of(lines):
    """Pieces between branches and targets of branches: [instructions]; and loops: (first address, last)."""
    jumps = [(at, int(target[1], 16)) for at, opcode, rest in lines
             if opcode.split(".")[0] in ("BRA", "BSSY") and (target := TARGET.search(rest))]
    starts = {target for _, target in jumps}
    branches = {at for at, opcode, _ in lines if opcode.split(".")[0] in ("BRA", "BRX", "EXIT", "BSYNC", "RET")}
    loops = [(target, at) for at, target in jumps if target < at]
    blocks = [[]]
    for line in lines:
        if line[0] in starts and blocks[-1]:
            blocks.append([])
        blocks[-1].append(line)
        if line[0] in branches:
            blocks.append([])
    return [block for block in blocks if block], loops


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", nargs="+")
    parser.add_argument("--kernel", default="", help="regular expression; default: all")
    parser.add_argument("--least", type=int, default=24, help="instructions of the pieces shown; default 24")
    parser.add_argument("--cuobjdump", default=shutil.which("cuobjdump") or "cuobjdump")
    options = parser.parse_args()
    for path in options.objects:
        try:
            text = subprocess.run([options.cuobjdump, "-sass", path], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"{path}: {options.cuobjdump} cannot read it; --cuobjdump names another: {error}")
        found = list(functions(text))
        for (_, lines), name in zip(found, readable(symbol for symbol, _ in found)):
            if not re.search(options.kernel, name):
                continue
            blocks, loops = blocks_of(lines)
            print(f"{name}: {len(lines)} instructions")
            for block in blocks:
                if len(block) < options.least:
                    continue
                depth = sum(first <= block[0][0] <= last for first, last in loops)
                counts = collections.Counter(unit_of(opcode) for _, opcode, _ in block)
                order = [unit for unit, _ in UNITS] + ["other"]
                shown = "  ".join(f"{unit} {counts[unit]}" for unit in order if counts[unit])
                print(f"  {block[0][0]:6x}  loop {depth}  {len(block):5}: {shown}")


if __name__ == "__main__":
    main()
