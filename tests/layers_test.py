#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the floors of the house: a file includes files of its own floor or of lower ones, and no rooms form a circle.

A room is a folder of sources, two deep (`rules/networks`, `host/cpu`). docs/architecture.md says what each is for.
"""
import collections
import pathlib
import re
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Lowest first. Rooms of one floor may include each other, but not in a circle.
FLOORS = (
    ("include",),
    ("rules/solve", "rules/networks"),
    ("rules",),
    ("kernels/runtime",),
    ("kernels/common",),
    ("kernels/combine", "kernels/gram", "kernels/sample", "kernels/select", "kernels/solve"),
    ("host/base",),
    ("host/io", "host/cpu", "host/cuda", "host/attacks", "host/reference"),
    ("host/plan",),
    ("host/audit", "host/reputation"),
    ("host/files", "host/sharded"),
    ("host/capi", "host/verify", "host/bench"),
    ("host/cli",),
    ("python", "examples"),
    ("bench",),
    ("tests",),
)
# Judges the others, so it is written without them.
APART = ("host/reference",)
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
ADDED = re.compile(r'^\s*add_subdirectory\("?([^\s")]+)', re.MULTILINE)
SOURCES = (".c", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".in")
GENERATED = ("bragg/export.hpp", "bragg/export.h", "bragg/version.hpp")


def room(path):
    """The room of a file, `include` for every public header."""
    parts = pathlib.PurePosixPath(path).parts[:-1]
    if not parts or parts[0] in ("include", "python", "examples", "bench", "tests"):
        return parts[0] if parts else ""
    return "/".join(parts[:2])


def included(root, path):
    """The project's files that a file includes; what it includes by name of no file of the project is left out."""
    for bracket, name in INCLUDE.findall((root / path).read_text(encoding="utf-8")):
        near = [pathlib.PurePosixPath(path).parent] if bracket == '"' else []
        for folder in (*near, pathlib.PurePosixPath(), pathlib.PurePosixPath("include")):
            if (root / folder / name).is_file():
                yield str(folder / name)
                break
        else:
            if (bracket == '"' or name.startswith("bragg/")) and name not in GENERATED:
                raise AssertionError(f"{path}: includes {name}, which is not there")


def faults(root, files):
    """Sentences: includes that lead upwards, rooms without a floor, circles of rooms."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    found = []
    arrows = collections.defaultdict(dict)
    for path in files:
        here = room(path)
        if here not in floor:
            found.append(f"{path}: the room {here or 'of the root'} is on no floor: add it to FLOORS")
            continue
        for other in included(root, path):
            there = room(other)
            if there == here:
                continue
            if here in APART and there != "include":
                found.append(f"{path} includes {other}: {here} shares no code with what it judges")
            if floor.get(there, len(FLOORS)) > floor[here]:
                found.append(f"{path} includes {other}: {there} is above {here}")
            arrows[here].setdefault(there, f"{path} includes {other}")

    def circle(start):
        way, seen = [(start, ())], set()
        while way:
            here, steps = way.pop()
            for there, why in arrows[here].items():
                if there == start:
                    return (*steps, why)
                if there not in seen:
                    seen.add(there)
                    way.append((there, (*steps, why)))
        return ()

    for start in sorted(arrows):
        if steps := circle(start):
            found.append("rooms in a circle: " + "; ".join(steps))
            break
    return found


class Layers(unittest.TestCase):
    def test_includes_lead_down(self):
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        files = [path for path in listed.splitlines()
                 if path.endswith(SOURCES) and not path.startswith("cmake/") and (ROOT / path).is_file()]
        self.assertGreater(len(files), 200)
        self.assertEqual(faults(ROOT, files), [])

    def test_public_headers_include_only_public_headers(self):
        for path in (ROOT / "include").rglob("*.h*"):
            for bracket, name in INCLUDE.findall(path.read_text(encoding="utf-8")):
                with self.subTest(f"{path.name}: {name}"):
                    self.assertEqual(bracket, "<")
                    self.assertFalse((ROOT / name).is_file())

    def test_parallel_regions_ask_for_their_team(self):
        # OpenMP ends the process where the system gives it no thread or no memory.
        region = re.compile(r"^#pragma omp parallel\b.*", re.MULTILINE)
        found = 0
        for room_of_product in ["host", "python"]:
            for path in (ROOT / room_of_product).rglob("*.[ch]pp"):
                for text in region.findall(path.read_text(encoding="utf-8")):
                    found += 1
                    self.assertRegex(text, r"num_threads\((detail::)?team\(", path)
        self.assertGreater(found, 10)

    def test_every_build_file_is_reached(self):
        # What nothing adds is not built, and nobody is told.
        listed = subprocess.run(["git", "ls-files", "CMakeLists.txt", "*/CMakeLists.txt"], cwd=ROOT, capture_output=True, text=True,
                                check=True).stdout
        files = {path: (ROOT / path).read_text(encoding="utf-8") for path in listed.split() if (ROOT / path).is_file()}
        self.assertGreater(len(files), 20)
        projects = [path for path, text in files.items() if re.search(r"^project\(", text, re.MULTILINE)]
        added = {str(pathlib.PurePosixPath(path).parent / folder / "CMakeLists.txt")
                 for path, text in files.items() for folder in ADDED.findall(text)}
        self.assertEqual(sorted(set(files) - added), sorted(projects))

    def check(self, sources, expected):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for path, text in sources.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text, encoding="utf-8")
            found = faults(root, list(sources))
            self.assertEqual(len(found), 1, found)
            self.assertIn(expected, found[0])

    def test_an_upward_include_is_found(self):
        self.check({"rules/a.hpp": '#include "host/io/b.hpp"\n', "host/io/b.hpp": ""}, "host/io is above rules")

    def test_product_code_that_includes_a_test_is_found(self):
        self.check({"kernels/gram/a.cuh": '#include "tests/b.hpp"\n', "tests/b.hpp": ""}, "tests is above kernels/gram")

    def test_an_oracle_that_shares_code_is_found(self):
        self.check({"host/reference/a.cpp": '#include "rules/b.hpp"\n', "rules/b.hpp": ""}, "shares no code")

    def test_a_circle_is_found(self):
        sources = {"host/io/a.hpp": '#include "host/cpu/b.hpp"\n', "host/cpu/b.hpp": '#include "host/cuda/c.hpp"\n',
                   "host/cuda/c.hpp": '#include "host/io/a.hpp"\n'}
        self.check(sources, "rooms in a circle")

    def test_a_room_without_a_floor_is_found(self):
        self.check({"host/attic/a.hpp": ""}, "host/attic is on no floor")


if __name__ == "__main__":
    unittest.main()
