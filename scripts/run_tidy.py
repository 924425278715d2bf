#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs clang-tidy on sources of a compilation database, as many at a time as there are cores.

  scripts/run_tidy.py [--since REVISION] [--most N] DATABASE FILE...

DATABASE is the folder of a compile_commands.json. With --since, only those FILEs are checked that differ from
REVISION or include, by however many headers, what differs; of more than N the ones nearest to a change.

The analyzer takes each source by itself. The other checks go through every header that is included, which is
most of their time: for them sources of one folder are compiled as one. Where that finds something, they are
checked one by one.
"""
import argparse
import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

MOST_TOGETHER = 8
ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "tidy"
# Sources that share a name at file scope with another source of their folder.
APART = ("examples/quickstart.cpp", "host/cli/bench.cpp", "host/files/cuda_passes.cpp",
         "rules/solve/vertex_cover.cpp")
# misc-unused-* look at no other file than the one that is compiled.
PATHS = "-bugprone-*,-modernize-*,-performance-*,-readability-*,-misc-redundant-expression"
MATCHES = "-clang-analyzer-*,-bugprone-suspicious-include"
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def included_by(path):
    """The project's files that a file includes itself."""
    for name in INCLUDE.findall(path.read_text()):
        for folder in (path.parent, ROOT, ROOT / "include"):
            if (folder / name).is_file():
                yield (folder / name).resolve()
                break


def concerned(changed, files):
    """The files that are changed or include what is, those nearest to a change first."""
    changed = {(ROOT / name).resolve() for name in changed}
    includes = functools.cache(lambda path: set(included_by(path)))

    def distance(name):
        """Includes from a file to the nearest change; None: there is no way."""
        steps, level, seen = 0, {(ROOT / name).resolve()}, set()
        while level:
            if level & changed:
                return steps
            seen |= level
            level = set().union(*map(includes, level)) - seen
            steps += 1
        return None

    distances = {name: distance(name) for name in files}
    # Of those equally near, other ones after every commit: what a limit leaves out one time comes another time.
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    near = [name for name in files if distances[name] is not None]
    return sorted(near, key=lambda name: (distances[name], hashlib.sha256((head + name).encode()).digest()))


def groups(database, files):
    """Sources that can be checked together; entries of the database for them."""
    commands = {}
    for entry in json.loads((database / "compile_commands.json").read_text()):
        commands.setdefault(pathlib.Path(entry["file"]).resolve(), entry)
    alike = {}
    for file in files:
        path = ROOT / file
        if path not in commands:
            sys.exit(f"run_tidy.py: {file} is not compiled in {database}")
        entry = commands[path]
        options = [a for a in entry["command"].split() if not a.endswith(".o") and a != str(path)]
        # A source that Highway includes once per target cannot be included in another.
        alone = file if file in APART or "HWY_TARGET_INCLUDE" in path.read_text() else ""
        alike.setdefault((path.parent, alone, *options), []).append(file)
    for together in alike.values():
        for first in range(0, len(together), MOST_TOGETHER):
            group = together[first:first + MOST_TOGETHER]
            yield group, commands[ROOT / group[0]]


def clang_tidy(database, file, checks):
    command = ["clang-tidy", "-p", database, "--quiet", "--warnings-as-errors=*", f"--checks={checks}", file]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout + run.stderr if run.returncode else ""


def chosen(arguments):
    """The files to check."""
    files = arguments.files
    if arguments.since:
        command = ["git", "diff", "--name-only", arguments.since, "--"]
        changed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
        files = concerned(changed, files)
    kept = files[:arguments.most]
    print(f"clang-tidy: {len(kept)} of {len(arguments.files)} sources", flush=True)
    if len(kept) < len(files):
        print("clang-tidy: left for scripts/tidy.sh --all:", *files[len(kept):])
    return kept


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--since")
    parser.add_argument("--most", type=int)
    parser.add_argument("database", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    database = arguments.database
    FOLDER.mkdir(parents=True, exist_ok=True)
    single = []  # (file, checks), in the project's database
    joined = {}  # file of the group: its sources
    entries = []
    for number, (group, entry) in enumerate(groups(database, chosen(arguments))):
        if len(group) == 1:
            single.append((group[0], ""))
            continue
        source = FOLDER / f"group_{number}.cpp"
        source.write_text("".join(f'#include "{ROOT / file}"\n' for file in group))
        command = entry["command"].replace(entry["file"], str(source))
        entries.append({"directory": entry["directory"], "command": command, "file": str(source)})
        joined[source] = group
        single += [(file, PATHS) for file in group]
    (FOLDER / "compile_commands.json").write_text(json.dumps(entries))

    def check_group(source):
        if not clang_tidy(FOLDER, source, MATCHES):
            return ""
        return "".join(clang_tidy(database, ROOT / file, MATCHES) for file in joined[source])

    single.sort(key=lambda job: -(ROOT / job[0]).stat().st_size)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(check_group, source) for source in joined]
        jobs += [pool.submit(clang_tidy, database, ROOT / file, checks) for file, checks in single]
        found = [job.result() for job in jobs]
    print("".join(found), end="")
    return 1 if any(found) else 0


if __name__ == "__main__":
    sys.exit(main())
