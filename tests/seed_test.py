# SPDX-License-Identifier: Apache-2.0
"""BRAGG_TEST_SEED decides what random tests draw: seed_test.py SOURCE PROGRAM..., programs being GoogleTest's.

A program prints its seed when it begins to draw, and in the end with a digest of all that was drawn.
"""

import os
import re
import subprocess
import sys
import unittest
import unittest.mock

import seed

# Of each program, some tests that draw, quick ones, in few cases.
FILTERS = {
    "hard_solvers_test": "Mda.AgreesWithEnumeration:VertexCover.OfSmallGraphsIsTheLeast",
    "io_test": "Damage.*",
    "gram_simt_test": "GramTest.MatchesExactSums*",
}
SHARE = {"gram_simt_test": "40"}  # so many that a kernel is among them; of others one case in 500

# The only places that may ask the system for chance.
SOURCES_OF_SEEDS = ["tests/python/conftest.py", "tests/seed.py", "tests/support/seed.hpp"]
CHANCE = re.compile(r"random_device|SystemRandom|SeedSequence|default_rng\(\)|urandom|secrets\.|random\.Random\(\)")

SOURCE = ""
PROGRAMS = []


def run(program, given):
    """(seed, digest, seed of the schedules or None) as printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BRAGG_TEST_", "BRAGG_SIMT_"))}
    environment["BRAGG_TEST_SHARE"] = SHARE.get(os.path.basename(program), "500")
    if given is not None:
        environment["BRAGG_TEST_SEED"] = str(given)
    chosen = FILTERS.get(os.path.basename(program), "*")
    command = [program, "--gtest_brief=1", "--gtest_filter=" + chosen]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    if done.returncode != 0:
        raise AssertionError("%s with BRAGG_TEST_SEED=%s:\n%s%s" % (command, given, done.stdout, done.stderr))
    (first,) = re.findall(r"^BRAGG_TEST_SEED=(\d+)$", done.stdout, re.MULTILINE)
    ((again, digest),) = re.findall(r"^BRAGG_TEST_SEED=(\d+) drew ([0-9a-f]{16})$", done.stdout, re.MULTILINE)
    assert first == again, done.stdout
    schedules = re.search(r"^kernels run with .*BRAGG_SIMT_SEED=(\d+)$", done.stderr, re.MULTILINE)
    return int(first), digest, int(schedules[1]) if schedules else None


class Drawn(unittest.TestCase):
    def test_parts_are_all_tests_and_share_none(self):
        class Many(unittest.TestCase):
            pass

        names = [f"test_{k}" for k in range(100)]
        for name in names:
            setattr(Many, name, lambda self: None)
        with unittest.mock.patch.dict(os.environ, {"BRAGG_TEST_PARTS": "3"}):
            found = []
            for k in range(3):
                with unittest.mock.patch.object(seed, "SEED", 2 * k + seed.SEED):
                    part = seed.Loader().getTestCaseNames(Many)
                self.assertIn(len(part), range(10, 60))
                found += part
        self.assertEqual(sorted(found), sorted(names))
        with unittest.mock.patch.dict(os.environ, {"BRAGG_TEST_PARTS": ""}):
            self.assertEqual(len(seed.Loader().getTestCaseNames(Many)), 100)


class Seed(unittest.TestCase):
    def test_decides_what_is_drawn(self):
        for program in PROGRAMS:
            with self.subTest(program):
                first = run(program, seed.SEED)
                self.assertEqual(first[0], seed.SEED)
                self.assertEqual(run(program, seed.SEED), first)
                other = run(program, seed.SEED ^ 1)
                self.assertNotEqual(other[1], first[1])
                if "simt" in program:
                    self.assertEqual((first[2], other[2]), (seed.SEED, seed.SEED ^ 1))

    def test_is_fresh_where_none_is_given(self):
        first, again = (run(PROGRAMS[0], None) for _ in range(2))
        self.assertNotEqual(first[0], again[0])
        self.assertNotEqual(first[1], again[1])

    def test_is_asked_of_the_system_in_one_place_per_language(self):
        found = []
        for folder, _, names in os.walk(os.path.join(SOURCE, "tests")):
            for name in names:
                path = os.path.join(folder, name)
                if name.endswith((".cpp", ".hpp", ".cu", ".c", ".py", ".sh")) and path != os.path.abspath(__file__):
                    with open(path, encoding="utf-8") as file:
                        if CHANCE.search(file.read()):
                            found.append(os.path.relpath(path, SOURCE))
        self.assertEqual(sorted(found), SOURCES_OF_SEEDS)


if __name__ == "__main__":
    SOURCE, PROGRAMS = os.path.abspath(sys.argv[1]), sys.argv[2:]
    seed.print_seed()
    unittest.main(argv=sys.argv[:1])
