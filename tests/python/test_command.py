# SPDX-License-Identifier: Apache-2.0
"""python -m bragg is the command."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import bragg
import numpy as np
import pytest


def test_help_and_version(command):
    assert command("--version").stdout == f"bragg {bragg.__version__}\n"
    assert "bragg aggregate --help" in command("--help").stdout


def test_exit_codes(command, tmp_path):
    done = command("aggregate", "a", "-r", "medean", "-o", "b", check=False)
    assert done.returncode == 2
    assert "did you mean median?" in done.stderr
    assert command(check=False).returncode == 2
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    assert (
        command("aggregate", tmp_path / "bad.npy", "-r", "median", "-o", tmp_path / "o.npy", check=False).returncode
        == 3
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(
    "rule", ["median", "nnm(f=2) | trimmed_mean(f=2)", "krum(f=2)", "geometric_median", "bucketing(s=2) | mean"]
)
def test_files_give_the_same_bits(dtype, rule, rng, command, tmp_path):
    rows = rng.standard_normal((9, 3000)).astype(dtype)
    np.save(tmp_path / "rows.npy", rows)
    command("aggregate", tmp_path / "rows.npy", "-r", rule, "-o", tmp_path / "out.npy")
    from_file = np.load(tmp_path / "out.npy")
    result = bragg.aggregate(rows, rule)
    assert result.dtype == from_file.dtype
    assert result.tobytes() == from_file.tobytes()


def test_verify(command):
    assert "all right" in command("verify", "--device", "cpu", "--quick", "--rule", "krum", "median").stdout


def test_bench_binds_threads(command, tmp_path):
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_PROC_BIND", "GOMP_CPU_AFFINITY", "OMP_PLACES")}
    command(
        "bench",
        "--rule",
        "median",
        "--n",
        8,
        "--d",
        1000,
        "--device",
        "cpu",
        "--seconds",
        0.01,
        "--json",
        tmp_path / "out.json",
        env=clean,
    )
    assert '"threads_bound": true' in (tmp_path / "out.json").read_text()


def test_bench_finds_the_adapters(command):
    """Those of the package, where the environment names none."""
    clean = {k: v for k, v in os.environ.items() if k != "BRAGG_PEERS"}
    done = command(
        "bench",
        "--rule",
        "median",
        "--n",
        8,
        "--d",
        1000,
        "--seconds",
        0.01,
        "--device",
        "cpu",
        "--against",
        "no-such-peer",
        check=False,
        env=clean,
    )
    assert (Path(bragg.__file__).parent / "peers/run.py").exists()
    assert "numpy-ops" in done.stdout + done.stderr  # what there is


def test_an_interrupt_ends_it(tmp_path):
    running = subprocess.Popen(
        [sys.executable, "-m", "bragg", "verify", "--device", "cpu", "--seconds", "60"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(1)
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=20) in (130, -signal.SIGINT)


def test_the_script_is_installed():
    script = Path(sys.executable).parent / "bragg"
    if not script.exists():
        pytest.skip("the package is not installed")
    assert (
        subprocess.run([script, "--version"], capture_output=True, text=True).stdout == f"bragg {bragg.__version__}\n"
    )
    assert shutil.which("bragg", path=str(script.parent))
