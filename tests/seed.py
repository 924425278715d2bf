# SPDX-License-Identifier: Apache-2.0
"""The seed of the random tests in Python: BRAGG_TEST_SEED, or a fresh one where that is not set."""

import os
import random

SEED = int(os.environ.get("BRAGG_TEST_SEED") or random.SystemRandom().randrange(2**32))


def print_seed():
    print("BRAGG_TEST_SEED=%d" % SEED, flush=True)


def seeded(arguments):
    """Arguments of the command; `verify` draws from the seed, unless they name one."""
    if arguments and arguments[0] == "verify" and "--seed" not in arguments and "--help" not in arguments:
        return [*arguments, "--seed", str(SEED)]
    return arguments
