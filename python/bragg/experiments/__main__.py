# SPDX-License-Identifier: Apache-2.0
"""Trains with and without hostile workers, and prints what rules cost and gain.

    python -m bragg.experiments --names
    python -m bragg.experiments mixing --quick        minutes
    python -m bragg.experiments price --json price.json --plot price.svg
    python -m bragg.experiments price --json price.json --resume price.json

The exit status is 3 where something that the papers found does not hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import multiprocessing
import os
import platform
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import bragg
import numpy as np

from . import data
from .catalogue import EXPERIMENTS
from .experiment import Lines, Run, Table
from .simulation import Setup, Training, train


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _bar(done: int, all_: int, seconds: float) -> None:
    """One line on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        return
    filled = 30 * done // all_
    left = f", {seconds / done * (all_ - done):.0f} s left" if done else ""
    print(f"\r[{'█' * filled}{' ' * (30 - filled)}] {done} of {all_} trainings{left} ", end="", file=sys.stderr)
    if done == all_:
        print(file=sys.stderr)


def _run(setups: list[Setup], jobs: int, kept: Callable[[Run], None]) -> None:
    """`kept` gets them in the order of `setups`, one training per process. @raises BrokenProcessPool: one was killed."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"  # of the processes to come
    start = time.perf_counter()
    _bar(0, len(setups), 0)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the processes, which are begun here
        found = pool.map(train, setups)
        try:
            signal.signal(signal.SIGINT, interrupt)
            for done, run in enumerate(zip(setups, found, strict=True), 1):
                kept(run)
                _bar(done, len(setups), time.perf_counter() - start)
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _read(path: Path) -> tuple[dict[Setup, Training], int]:
    """The trainings of a file that --json wrote, and its seconds. @raises OSError, ValueError."""
    names = [{field.name for field in dataclasses.fields(of)} for of in (Setup, Training)]
    try:
        found = json.loads(path.read_text())
        parts = [[{name: run[name] for name in of} for of in names] for run in found["runs"]]
        return {Setup(**setup): Training(**training) for setup, training in parts}, int(found["seconds"])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"is no file that --json of this version wrote: {type(error).__name__}: {error}") from None


def _write(path: Path, about: dict[str, Any], runs: list[Run]) -> None:
    """Whole or not at all."""
    lines = [json.dumps(dataclasses.asdict(setup) | dataclasses.asdict(training)) for setup, training in runs]
    text = json.dumps(about, indent=1).removesuffix("\n}") + ',\n "runs": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    whole = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        whole.write_text(text)
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)


def _print(table: Table) -> None:
    """As a table of Markdown."""
    table = [[cell.replace("|", "\\|") for cell in row] for row in table]
    widths = [max(len(row[k]) for row in table) for k in range(len(table[0]))]
    for number, row in enumerate(table):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def _plot(lines: Lines, path: Path, title: str) -> None:
    import matplotlib  # type: ignore[import-not-found, unused-ignore]

    matplotlib.use("svg")
    from matplotlib import pyplot  # type: ignore[import-not-found, unused-ignore]

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for label, (x, y) in lines.of.items():
        axes.plot(x, y, marker="o" if len(x) < 20 else None, label=label)
    axes.set(xlabel=lines.x, ylabel=lines.y, ylim=(0, 1))
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bragg.experiments",
        epilog="\n".join(f"{name}: {experiment.about}" for name, experiment in EXPERIMENTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=EXPERIMENTS)
    parser.add_argument("--names", action="store_true", help="print the names of all, and nothing else")
    parser.add_argument("--quick", action="store_true", help="one seed and fewer steps: minutes")
    parser.add_argument("--seeds", type=int, default=100, help="of the full form, no more than so many")
    parser.add_argument("--data", choices=data.NAMES, default="mnist")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="trainings at once (default, and at most: one per core)"
    )
    parser.add_argument(
        "--json", type=Path, help="where every training's accuracies go, those of a run that is stopped, too"
    )
    parser.add_argument("--resume", type=Path, help="a file of --json, whose trainings are not run again")
    parser.add_argument("--plot", type=Path, help="where a plot goes, SVG; needs matplotlib")
    given = parser.parse_args()
    if given.names:
        print("\n".join(EXPERIMENTS))
        return 0
    if given.name is None:
        parser.error(f"needs a name: {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[given.name]
    for option in ("jobs", "seeds"):
        if getattr(given, option) < 1:
            parser.error(f"--{option} {getattr(given, option)}: needs at least 1")
    for option in ("json", "plot"):  # before the trainings
        path = getattr(given, option)
        if path is not None and (path.exists() and not path.is_file() or not os.access(path.parent, os.W_OK)):
            parser.error(
                f"--{option} {path}: cannot be written; needs a regular file in a folder that can be written to"
            )
    if given.plot is not None and importlib.util.find_spec("matplotlib") is None:
        print(f"{parser.prog}: not installed: matplotlib, which --plot needs: pip install matplotlib", file=sys.stderr)
        return 1
    try:
        data.check(given.data)
    except data.Missing as missing:
        print(f"{parser.prog}: not installed: {missing}", file=sys.stderr)
        return 1
    setups = [
        dataclasses.replace(setup, data=given.data)
        for setup in experiment.setups(given.quick)
        if setup.seed < given.seeds
    ]
    try:
        done, before = _read(given.resume) if given.resume is not None else ({}, 0)
    except (OSError, ValueError) as error:
        parser.error(f"--resume {given.resume}: {error}")
    runs = [(setup, done[setup]) for setup in setups if setup in done]
    left = sorted((setup for setup in setups if setup not in done), key=lambda setup: setup.seed)  # whole seeds first
    jobs = max(1, min(given.jobs, len(left), os.cpu_count() or 1))
    about: dict[str, Any] = {
        "experiment": given.name,
        "command": " ".join(["python -m bragg.experiments", *sys.argv[1:]]),
        "bragg": bragg.__version__,
        "numpy": np.__version__,
        "hardware": f"{_processor()}, {jobs} of {os.cpu_count()} cores",
    }
    start = time.perf_counter()

    def save(claims: dict[str, bool] | None) -> None:
        if given.json is not None:
            seconds = before + round(time.perf_counter() - start)
            _write(given.json, about | {"seconds": seconds, "claims": claims}, runs)

    def kept(run: Run) -> None:
        runs.append(run)
        save(None)

    try:
        if left:
            _run(left, jobs, kept)
    except BrokenProcessPool:
        print(
            f"\n{parser.prog}: a training's process was killed; where memory is short, take fewer --jobs",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"\n{parser.prog}: interrupted", file=sys.stderr)
        return 130
    runs.sort(key=lambda run: setups.index(run[0]))
    for table in experiment.tables(runs):
        _print(table)
        print()
    claims = experiment.claims(runs)
    for claim, holds in claims.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {claim}")
    save(claims)
    if given.plot is not None:
        _plot(experiment.lines(runs), given.plot, experiment.about)
    return 0 if all(claims.values()) else 3


if __name__ == "__main__":
    sys.exit(main())
