#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times one rule of one peer in this process, and prints a JSON object.

    run.py PEER --rule TEXT --input X.npy --output OUT.npy [--threads T] [--seconds S]
    run.py --list

The object holds the peer's version, what was called, the times in ms after warm-up, and how far the
memory of the process grew; OUT.npy holds the result, to be checked before the times are believed. A
rule that the peer lacks gives {"unsupported": reason} and status 0; what fails, status 1 and a
message. This file knows nothing of any peer: contract.py says what an adapter is.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
if sys.path and Path(sys.path[0] or ".").resolve() == HERE:
    del sys.path[0]  # an adapter here may have its package's name
sys.modules.setdefault("peers", ModuleType("peers")).__path__ = [str(HERE)]  # this folder
sys.dont_write_bytecode = True  # it may be an installed one, or a tree of sources

from peers.contract import Prepared, Unsupported, prepare  # noqa: E402

# Left by others, and slow: kernels chosen for an old OpenBLAS, a binding of others' threads.
SLOWING = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OMP_PROC_BIND",
    "OMP_PLACES",
    "OMP_WAIT_POLICY",
    "OMP_DYNAMIC",
    "OMP_THREAD_LIMIT",
    "GOMP_CPU_AFFINITY",
    "GOMP_SPINCOUNT",
    "KMP_AFFINITY",
)
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)

MOST_TIMINGS = 1000

READY = "BRAGG_PEER_READY"  # set in the environment that this file made


def main() -> int:
    arguments = parse_arguments()
    if arguments.list:
        print(json.dumps(list_peers(), indent=1))
        return 0
    adapter = find_adapter(arguments.peer)
    restart_in_clean_environment(adapter, arguments.threads)
    if arguments.probe:
        print(json.dumps(probe(adapter)))
        return 0
    with contextlib.redirect_stdout(sys.stderr):  # what a peer may have to say
        result = measure(adapter, arguments)
    print(json.dumps(result))
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Times one rule of one peer, or lists the peers.")
    parser.add_argument("peer", nargs="?", help="e.g. byzfl-numpy")
    parser.add_argument("--rule", help='the pipeline in bragg\'s text form, e.g. "krum(f=3)"')
    parser.add_argument("--input", help="npy of n rows of d float32 values")
    parser.add_argument("--output", help="npy to write the result to")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to time; default 1")
    parser.add_argument(
        "--list", action="store_true", help="which peers can be imported, with their rules"
    )
    parser.add_argument("--probe", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list == bool(arguments.peer):
        parser.error("give either a peer or --list")
    if arguments.peer and not arguments.probe:
        missing = [name for name in ("rule", "input", "output") if getattr(arguments, name) is None]
        if missing:
            parser.error(f"--{missing[0]} is missing")
    if arguments.threads < 1 or not arguments.seconds > 0:
        parser.error("--threads and --seconds must be positive")
    return arguments


def adapters() -> dict[str, ModuleType]:
    """The adapters beside this file, by the peer's name. They import nothing of the peer yet."""
    modules = [importlib.import_module(f"peers.{path.stem}") for path in sorted(HERE.glob("*.py"))]
    return {peer_name(module): module for module in modules if hasattr(module, "STEPS")}


def peer_name(adapter: ModuleType) -> str:
    return adapter.__name__.removeprefix("peers.").replace("_", "-")


def find_adapter(name: str) -> ModuleType:
    known = adapters()
    adapter = known.get(name.replace("_", "-"))
    if adapter is None:
        raise SystemExit(f"run.py: no peer '{name}'; there are {', '.join(known)}")
    return adapter


def restart_in_clean_environment(adapter: ModuleType, threads: int) -> None:
    """Starts this program again with the settings that libraries read as they are loaded."""
    if os.environ.pop(READY, None):
        return
    environment = {name: value for name, value in os.environ.items() if name not in SLOWING}
    environment |= dict.fromkeys(THREADS, str(threads)) | adapter.ENVIRONMENT | {READY: "1"}
    if len(os.sched_getaffinity(0)) < threads:
        # A parent whose OpenMP threads are bound hands down the one core of its first.
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    os.execve(sys.executable, [sys.executable, str(HERE / "run.py"), *sys.argv[1:]], environment)


def list_peers() -> list[dict[str, Any]]:
    """Every peer, each imported in a process of its own: only that shows that it can be."""
    known = adapters()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(probe_elsewhere, known.values()))


def probe_elsewhere(adapter: ModuleType) -> dict[str, Any]:
    about = {"peer": peer_name(adapter), "rules": sorted(adapter.STEPS)}
    command = [sys.executable, str(HERE / "run.py"), about["peer"], "--probe"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode == 0:
        return about | {"importable": True} | json.loads(process.stdout)
    reason = (process.stderr.strip().splitlines() or ["no message"])[-1]
    return about | {"importable": False, "version": None, "reason": reason}


def probe(adapter: ModuleType) -> dict[str, str]:
    adapter.load(1)
    return {"version": metadata.version(adapter.DISTRIBUTION)}


def measure(adapter: ModuleType, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that is reported of one rule."""
    cpus = len(os.sched_getaffinity(0))  # before the peer's OpenMP binds this thread to one of them
    adapter.load(arguments.threads)
    import numpy  # after the peer, which may have to be first

    matrix = read_updates(arguments.input)
    n, d = matrix.shape
    about = {
        "peer": peer_name(adapter),
        "version": metadata.version(adapter.DISTRIBUTION),
        "rule": arguments.rule,
        "n": n,
        "d": d,
        "dtype": "f32",
    }
    try:
        prepared = prepare(adapter.STEPS, arguments.rule, n, d)
    except Unsupported as reason:
        return about | {"unsupported": str(reason)}

    settle(adapter, prepared, matrix)
    updates = adapter.wrap(matrix)
    before = reset_peak_memory()
    times, result = time_calls(lambda: prepared.call(updates), arguments.seconds)
    peak = peak_memory()
    output = numpy.ascontiguousarray(adapter.unwrap(result))
    if output.shape != (d,):
        raise SystemExit(f"run.py: the peer's result has the shape {output.shape}, not ({d},)")
    if not unchanged(matrix, arguments.input):
        raise SystemExit("run.py: the peer wrote into its input: its later calls had other updates")
    numpy.save(arguments.output, output.astype(numpy.float32))

    about |= {
        "output_dtype": str(output.dtype),
        "path": prepared.path,
        "threads": arguments.threads,
        "cpus": cpus,
        "threads_info": threads_info(),
        "numpy": numpy.__version__,
        "ms": times,
        "extra_memory_bytes": None if before is None else max(0, peak - before - output.nbytes),
    }
    return about | (
        {"equivalent_rule": prepared.equivalent_rule} if prepared.equivalent_rule else {}
    )


def read_updates(path: str) -> Any:
    import numpy

    matrix = numpy.load(path)
    if matrix.ndim != 2 or matrix.dtype != numpy.float32:
        raise SystemExit(
            f"run.py: {path} is {matrix.dtype} of shape {matrix.shape}; float32 of (n, d) is needed"
        )
    return numpy.ascontiguousarray(matrix)


def settle(adapter: ModuleType, prepared: Prepared, matrix: Any) -> None:
    """One call on a few coordinates, so that thread pools and late imports are there before."""
    prepared.call(adapter.wrap(matrix[:, :64].copy()))


def time_calls(call: Callable[[], Any], seconds: float) -> tuple[list[float], Any]:
    """Times in ms after warm-up, and the last result: at least 3, or 1 that takes all seconds."""
    first, result = time_call(call)
    long = first > 1e3 * seconds
    if not long:
        del result  # before the next call, so that there is never more than one
        _, result = time_call(call)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < (1 if long else 3) or (
        len(times) < MOST_TIMINGS and time.perf_counter() + 1e-3 * times[-1] <= end
    ):
        del result
        elapsed, result = time_call(call)
        times.append(elapsed)
    return times, result


def time_call(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    return 1e3 * (time.perf_counter() - start), result


def status_bytes(name: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name + ":"))


def reset_peak_memory() -> int | None:
    """Forgets the peak of resident memory; returns what is resident, None where Linux forbids."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return None
    return status_bytes("VmRSS")


def peak_memory() -> int:
    return status_bytes("VmHWM")


def unchanged(matrix: Any, path: str) -> bool:
    """Whether the updates still have the bits that are in the file, row by row."""
    import numpy

    original = numpy.load(path, mmap_mode="r")
    return all(numpy.array_equal(a.view("u4"), b.view("u4")) for a, b in zip(matrix, original))


def threads_info() -> list[dict[str, Any]] | None:
    """The thread pools of the loaded libraries and their kernels; None without threadpoolctl."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return None
    kept = ("user_api", "internal_api", "num_threads", "version", "architecture")
    return [{key: pool[key] for key in kept if pool.get(key)} for pool in threadpool_info()]


if __name__ == "__main__":
    sys.exit(main())
