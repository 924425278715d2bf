#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Judges the device compiler's resource report: no spills, registers and stack frames within budgets.

usage: scripts/check_kernels.py BUILD_FOLDER [--log FILE …] [--for ARCHITECTURE …] [--jobs N] [--table]

Reads what ptxas says of each kernel: in FILEs, what CMake builds from nothing printed; else the kernels are
compiled once more, for the build's architectures or, one after another, for those that are named (80, 89, 103).
kernels/budgets.txt has lines "PATTERN REGISTERS [STACK]", STACK being 0 where it is not
given: of the regular expressions found in a kernel's name the longest counts, and a kernel that none matches
has no budget, which is a failure too.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

from kernel_names import readable

ROOT = pathlib.Path(__file__).resolve().parent.parent
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")


def read_budgets(path):
    budgets = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        match = re.fullmatch(r"(.+?)\s+(\d+)(?:\s+(\d+))?", line)
        if not match:
            sys.exit(f"{path}:{number}: expected PATTERN REGISTERS [STACK], found: {line}")
        budgets[match[1]] = (int(match[2]), int(match[3] or 0))
    return budgets


def compile_commands(folder):
    path = folder / "compile_commands.json"
    if not path.is_file():
        sys.exit(f"{path}: not found; configure with CMAKE_EXPORT_COMPILE_COMMANDS=ON")
    commands = json.loads(path.read_text())
    return [c for c in commands if c["file"].endswith(".cu") and "/kernels/" in c["file"]]


def kernels_in(text):
    """Resources of each kernel, from the compiler's output."""
    kernels, entry = [], None
    for line in text.splitlines():
        if match := ENTRY.search(line):
            entry = {"name": match[1], "arch": match[2]}
        elif (match := FRAME.search(line)) and entry:
            entry["stack"], entry["stores"], entry["loads"] = map(int, match.groups())
        elif (match := USED.search(line)) and entry:
            entry["registers"] = int(match[1])
            kernels.append(entry)
            entry = None
    return kernels


def arguments_of(command, architecture=None):
    """The compiler's; for an architecture alone, the object is thrown away."""
    arguments = shlex.split(command["command"])
    if architecture is not None:
        arguments = [a for a in arguments if not a.startswith("--generate-code=")]
        arguments.insert(1, f"--generate-code=arch=compute_{architecture},code=sm_{architecture}")
        arguments[arguments.index("-o") + 1] = os.devnull
    elif shutil.which("ccache"):
        arguments.insert(0, "ccache")
    return arguments


def report(command, architecture=None):
    done = subprocess.run(arguments_of(command, architecture), cwd=command["directory"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command['file']}: the compiler failed\n{done.stderr}")
    return kernels_in(done.stdout + done.stderr)


def summary(kernels):
    """A line for each architecture."""
    for arch in sorted({kernel["arch"] for kernel in kernels}, key=lambda arch: int(re.sub(r"\D", "", arch))):
        of = [kernel for kernel in kernels if kernel["arch"] == arch]
        spilled = sum(1 for kernel in of if kernel["stores"] or kernel["loads"])
        yield (f"{arch}: {len(of)} kernels, {spilled} with spills, {max(kernel['registers'] for kernel in of)} registers "
               f"and {max(kernel['stack'] for kernel in of)} bytes of stack at most")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--log", type=pathlib.Path, nargs="+", metavar="FILE",
                        help="what builds printed, to read instead of compiling again")
    parser.add_argument("--for", dest="architectures", nargs="+", metavar="ARCHITECTURE",
                        help="compile for these, instead of those of the build")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="compilers at a time")
    parser.add_argument("--table", action="store_true", help="print every kernel")
    options = parser.parse_args()

    budgets = read_budgets(ROOT / "kernels" / "budgets.txt")
    if options.log and options.architectures:
        parser.error("--log has the architectures that it has: leave out --for")
    if options.log:
        kernels = [kernel for log in options.log for kernel in kernels_in(log.read_text())]
    else:
        tasks = [(command, a) for a in options.architectures or [None] for command in compile_commands(options.folder)]
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            kernels = [kernel for found in pool.map(lambda task: report(*task), tasks) for kernel in found]
    if not kernels:
        sys.exit(f"{options.folder}: the compiler reported no kernel; is -Xptxas -v set?")
    failures, matched = [], set()
    for kernel, name in zip(kernels, readable(kernel["name"] for kernel in kernels)):
        pattern = max((p for p in budgets if re.search(p, name)), key=len, default=None)
        where = f"{name} [{kernel['arch']}]"
        if kernel["stores"] or kernel["loads"]:
            failures.append(f"{where}: spills {kernel['stores']} bytes of stores, {kernel['loads']} of loads")
        registers, stack = budgets.get(pattern, (None, 0))
        if kernel["stack"] > stack:
            failures.append(f"{where}: a stack frame of {kernel['stack']} bytes, budget {stack}")
        if registers is None:
            failures.append(f"{where}: no budget in kernels/budgets.txt; it uses {kernel['registers']} registers")
        elif kernel["registers"] > registers:
            failures.append(f"{where}: {kernel['registers']} registers, budget {registers} ({pattern})")
        matched.add(pattern)
        if options.table:
            print(f"{kernel['registers']:4} {kernel['arch']}  {name}")
    failures += [f"kernels/budgets.txt: {p}: no kernel is called so" for p in budgets if p not in matched]
    for failure in failures:
        print(failure, file=sys.stderr)
    for line in summary(kernels):
        print(line)
    print(f"{len(kernels)} kernels, {len(failures)} failures")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
