# SPDX-License-Identifier: Apache-2.0
"""The seed of the random tests in Python: BRAGG_TEST_SEED, or a fresh one where that is not set."""

import os
import random
import unittest
import zlib

SEED = int(os.environ.get("BRAGG_TEST_SEED") or random.SystemRandom().randrange(2**32))


def print_seed():
    print("BRAGG_TEST_SEED=%d" % SEED, flush=True)


class Loader(unittest.TestLoader):
    """Of a program's tests, those that are not asked for by name, one in BRAGG_TEST_PARTS: the seed decides which."""

    def getTestCaseNames(self, case):
        parts = int(os.environ.get("BRAGG_TEST_PARTS") or 1)
        names = super().getTestCaseNames(case)
        return [name for name in names if (zlib.crc32(f"{case.__name__}.{name}".encode()) + SEED // 2) % parts == 0]


def seeded(arguments):
    """Arguments of the command; `verify` draws from the seed, unless they name one."""
    if arguments and arguments[0] == "verify" and "--seed" not in arguments and "--help" not in arguments:
        return [*arguments, "--seed", str(SEED)]
    return arguments
