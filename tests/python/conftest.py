# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

DATA = Path(__file__).parent.parent / "data"


SEED = int(os.environ.get("BRAGG_TEST_SEED") or np.random.SeedSequence().entropy % 2**32)


def pytest_report_header():
    return f"BRAGG_TEST_SEED={SEED}"


@pytest.fixture
def rng():
    """Draws from BRAGG_TEST_SEED, or from a fresh seed; printed where a test fails."""
    print(f"BRAGG_TEST_SEED={SEED}")
    return np.random.default_rng(SEED)


@pytest.fixture
def command():
    """Runs `python -m bragg`."""

    def run(*arguments, check=True, **options):
        if arguments and arguments[0] == "verify":
            arguments = (*arguments, "--seed", SEED)
        done = subprocess.run(
            [sys.executable, "-m", "bragg", *map(str, arguments)], capture_output=True, text=True, **options
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


@pytest.fixture(params=["numpy", "torch", "jax", "array_api_strict"])
def library(request):
    """Each array library that is installed."""
    return Library(pytest.importorskip(request.param))


class Library:
    """An array library: to it, from it, and where its elements are."""

    def __init__(self, module):
        self.module = module
        self.name = module.__name__

    def array(self, values):
        """The values as an array of this library, of their dtype."""
        if self.name == "numpy":
            return values.copy()
        if self.name == "torch":
            if values.dtype.name == "bfloat16":
                return self.module.from_numpy(values.view(np.int16).copy()).view(self.module.bfloat16)
            return self.module.from_numpy(values.copy())
        if self.name == "jax":
            return self.module.numpy.asarray(values.copy())
        return self.module.asarray(values.copy())

    def values(self, array):
        """As NumPy has it."""
        if self.name != "torch":
            return np.array(array)
        if array.dtype != self.module.bfloat16:
            return array.detach().numpy()
        return array.detach().view(self.module.int16).numpy().view(dtype_named("bfloat16"))

    def is_one(self, array):
        kind = {"numpy": "ndarray", "torch": "Tensor", "jax": "Array", "array_api_strict": None}[self.name]
        wanted = type(self.module.asarray(0.0)) if kind is None else getattr(self.module, kind)
        return isinstance(array, wanted)

    def dtypes(self):
        names = ["float32", "float64"]
        if self.name in ("numpy", "torch", "jax"):
            names += ["float16", "bfloat16"]
        if self.name == "jax":
            names.remove("float64")  # off by default
        return names


def dtype_named(name):
    if name == "bfloat16":
        return pytest.importorskip("ml_dtypes").bfloat16
    return np.dtype(name)
