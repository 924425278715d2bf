# SPDX-License-Identifier: Apache-2.0
"""bragg.mpi: four processes of MPI run this file as a program."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

RANKS = 4
DIGITS = Path(__file__).parents[2] / "examples/data/digits.csv"


def caught(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except Exception as error:
        return type(error).__name__, str(error)
    return None


def is_same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def check_bits(comm, seed):
    import bragg.mpi

    for dtype in (np.float32, np.float64, np.float16):
        for size in (0, 1, 20003, 4 * 8192):
            for rule in ("median", "nnm(f=1) | trimmed_mean(f=1)", "geometric_median"):
                rows = np.random.default_rng(seed).standard_normal((RANKS, size)).astype(dtype)
                rows[1] = -1000
                mine = rows[comm.rank].copy()
                expected, report = bragg.aggregate(rows, rule, return_report=True, threads=1)
                got = bragg.mpi.all_reduce(mine, rule, comm, replicas=1 + size % 2, threads=1)
                assert is_same(mine, expected), (dtype, size, rule)
                assert repr(got) == repr(report), (dtype, size, rule)


def check_lists(comm, seed):
    import bragg.mpi

    random = np.random.default_rng(seed)
    trees = [[random.standard_normal((30, 40), np.float32), random.standard_normal(9000)] for _ in range(RANKS)]
    trees[2][1][5] = np.nan
    base = [np.full((30, 40), 0.5, np.float32), np.full(9000, 0.5)]
    for options in ({}, {"scope": "per_tensor"}, {"weights": [1, 2, 1, 0.5], "max_weight_share": 0.4}, {"base": base}):
        rule = "centered_clipping(tau=30)" if "base" in options else "geometric_median"
        expected, reports = bragg.aggregate(trees, rule, return_report=True, threads=1, **options)
        mine = trees[comm.rank]
        before = [array.copy() for array in mine]
        out = [np.zeros((40, 30), np.float32).T, np.zeros(18000)[::2]]  # whose elements lie apart
        got = bragg.mpi.all_reduce(mine, lambda n: rule if n == RANKS else "mean", comm, out=out, threads=1, **options)
        assert all(map(is_same, out, expected)), options
        assert all(map(is_same, mine, before))
        assert repr(got) == repr(reports), options


def check_long_messages(comm, seed):
    """Those that take more than one message."""
    import bragg.mpi

    longest, bragg.mpi._LONGEST = bragg.mpi._LONGEST, 1000
    check_bits(comm, seed)
    bragg.mpi._LONGEST = longest


def check_errors(comm, seed):
    import bragg.mpi

    good = np.ones(10, np.float32)
    bad = [(np.ones(3, np.int32), "TypeError"), ("text", "TypeError"), (None, "TypeError")]
    for array, kind in bad:
        found = caught(bragg.mpi.all_reduce, array if comm.rank == 2 else good, "median", comm)
        assert found[0] == (kind if comm.rank == 2 else "ValueError"), found
        assert comm.rank == 2 or "rank 2: " in found[1], found
    frozen = np.ones(10, np.float32)
    frozen.flags.writeable = False
    found = caught(bragg.mpi.all_reduce, frozen if comm.rank == 0 else good, "median", comm)
    assert "read-only" in found[1], found
    found = caught(bragg.mpi.all_reduce, good, "median" if comm.rank else "mean", comm)
    assert found[0] == "RuntimeError" and "given different" in found[1], found
    for out in (np.ones(9, np.float32), np.ones(10), [good, good]):
        found = caught(bragg.mpi.all_reduce, good, "median", comm, out=out)
        assert found[0] in ("ValueError", "TypeError"), found
    both = np.ones(15, np.float32)
    found = caught(bragg.mpi.all_reduce, both[:10], "median", comm, out=both[5:])
    assert found[0] == "ValueError" and "overlaps" in found[1], found
    found = caught(bragg.mpi.all_reduce, [good, good], "median", comm)
    assert found[0] == "ValueError" and "overlap" in found[1], found

    nan = np.full(10, np.nan if comm.rank < 2 else 1, np.float32)
    kept = nan.copy()
    found = caught(bragg.mpi.all_reduce, nan, "krum(f=0)", comm)
    assert found[0] == "AggregationError" and is_same(nan, kept), found
    mine = np.full(10, comm.rank, np.float32)
    bragg.mpi.all_reduce(mine, "median", comm)
    assert (mine == 1.5).all()


def check_other_messages(comm, seed):
    """A receive of anything that the program has posted is not bragg's."""
    import bragg.mpi
    from mpi4py import MPI

    theirs = bytearray(4)
    request = comm.Irecv([theirs, MPI.BYTE], MPI.ANY_SOURCE, MPI.ANY_TAG)
    mine = np.full(20000, comm.rank, np.float32)
    bragg.mpi.all_reduce(mine, "median", comm)
    assert (mine == 1.5).all() and not request.Test()
    comm.Send([b"here", MPI.BYTE], comm.rank)
    request.Wait()
    assert theirs == b"here"


def train(comm, images, labels, factor, rule):
    """Accuracy of a linear classifier on digits that it has not seen. Rank 1 sends its gradient times a factor."""
    import bragg.mpi
    from mpi4py import MPI

    weights = np.zeros((images.shape[1], 10))
    random = np.random.default_rng(comm.rank)
    mine = np.arange(400 + comm.rank, len(labels), comm.size)
    for _ in range(200):
        chosen = random.choice(mine, 32)
        scores = images[chosen] @ weights
        guessed = np.exp(scores - scores.max(1, keepdims=True))
        guessed /= guessed.sum(1, keepdims=True)
        guessed[np.arange(32), labels[chosen]] -= 1
        gradient = images[chosen].T @ guessed / 32 * (factor if comm.rank == 1 else 1)
        if rule is None:
            comm.Allreduce(MPI.IN_PLACE, gradient)
            gradient /= comm.size
        else:
            bragg.mpi.all_reduce(gradient, rule, comm, threads=1)
        weights -= 0.5 * gradient
    return np.mean(np.argmax(images[:400] @ weights, 1) == labels[:400])


def check_training(comm):
    table = np.random.default_rng(1).permutation(np.loadtxt(DIGITS, delimiter=",", dtype=np.float32))
    images, labels = table[:, :-1] / 16, table[:, -1].astype(int)
    clean = train(comm, images, labels, 1, None)
    rule = "nnm(f=1) | trimmed_mean(f=1)"
    for factor in (np.nan, -100):
        with np.errstate(all="ignore"):
            plain = train(comm, images, labels, factor, None)
        robust = train(comm, images, labels, factor, rule)
        print(f"factor {factor}: clean {clean:.3f}, plain {plain:.3f}, robust {robust:.3f}", flush=True)
        assert clean > 0.9 and robust > clean - 0.02 and plain < 0.5


def program(seed):
    from mpi4py import MPI

    assert MPI.COMM_WORLD.size == RANKS
    reversed_ranks = MPI.COMM_WORLD.Split(0, -MPI.COMM_WORLD.rank)
    for check in (check_bits, check_lists, check_long_messages, check_errors, check_other_messages):
        check(MPI.COMM_WORLD, seed)
        check(reversed_ranks, seed)
    reversed_ranks.Free()
    check_training(MPI.COMM_WORLD)
    print(f"rank {MPI.COMM_WORLD.rank} is through", flush=True)


def launcher():
    """Of the MPI that mpi4py is found with: that of its wheel, or the system's."""
    beside = Path(sys.executable).parent / "mpirun"
    return str(beside) if beside.exists() else shutil.which("mpirun")


def test_four_ranks_of_mpi():
    import pytest
    from conftest import SEED

    if importlib.util.find_spec("mpi4py") is None or launcher() is None:
        pytest.skip("needs mpi4py and mpirun")
    environment = {
        **os.environ,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "OMP_NUM_THREADS": "1",
    }
    if subprocess.run([sys.executable, "-c", "import mpi4py.MPI"], env=environment, capture_output=True).returncode:
        pytest.skip("mpi4py finds no MPI")
    command = [launcher(), "--oversubscribe", "-n", str(RANKS), sys.executable, __file__, str(SEED)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stdout.count("is through") == RANKS, done.stdout + done.stderr


if __name__ == "__main__":
    program(int(sys.argv[1]))
