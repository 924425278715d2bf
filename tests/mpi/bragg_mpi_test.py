#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bragg-mpi by several processes: the bytes, messages and exit codes of one, and nothing left of a killed job.

Usage: bragg_mpi_test.py BRAGG BRAGG_MPI MPIEXEC NUMPROC_FLAG [unittest options]
"""
import hashlib
import json
import math
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

BRAGG, BRAGG_MPI, MPIEXEC, NUMPROC_FLAG = sys.argv[1:5]
RULE = "nnm(f=2) | trimmed_mean(f=2)"


def model(seed, sizes, nan=False):
    rng = random.Random(seed)
    header, data = {}, b""
    for name, size in sizes.items():
        values = [math.nan if nan else rng.gauss(0, 1) for _ in range(size)]
        header[name] = {"dtype": "F32", "shape": [size], "data_offsets": [len(data), len(data) + 4 * size]}
        data += struct.pack(f"<{size}f", *values)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


class BraggMpi(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "clients").mkdir()
        for i in range(8):
            self.write(i, model(i, {"a": 40_000, "b": 300, "c": 9_000}))

    def write(self, i, data):
        (self.folder / "clients" / f"w{i}.safetensors").write_bytes(data)

    def job(self, ranks, *arguments):
        return [MPIEXEC, NUMPROC_FLAG, str(ranks), BRAGG_MPI, *arguments]

    def run_command(self, command):
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=100, check=False)

    def files(self):
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))

    def test_any_number_of_ranks_writes_the_same(self):
        self.write(3, model(3, {"a": 40_000, "b": 300, "c": 9_000}, nan=True))
        self.write(5, b"<html>")
        for options in ([], ["--scope", "per-tensor", "--memory", "1MiB"], ["--memory", "1MiB"]):
            for name in ("out.safetensors", "out.npz"):
                arguments = ["aggregate", "clients", "--rule", RULE, *options, "--report", "report.json", "--sha256"]
                alone = self.run_command([BRAGG, *arguments, "-o", name])
                self.assertEqual(alone.returncode, 0, alone.stderr)
                expected = (self.folder / name).read_bytes()
                report = json.loads((self.folder / "report.json").read_text())
                shares = [each["share"] for each in report.pop("distance_shares", [])]
                for ranks in (2, 4):
                    (self.folder / name).unlink()
                    done = self.run_command(self.job(ranks, *arguments, "-o", name))
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertEqual((self.folder / name).read_bytes(), expected)
                    together = json.loads((self.folder / "report.json").read_text())
                    for a, b in zip([each["share"] for each in together.pop("distance_shares", [])], shares, strict=True):
                        self.assertAlmostEqual(a, b, delta=1e-9)
                    self.assertEqual(together, report)
                    self.assertEqual(done.stderr.count("w5.safetensors"), 1)  # one of the ranks speaks
                    table = [line for line in done.stdout.splitlines() if line.startswith("w")]
                    self.assertEqual(table, [line for line in alone.stdout.splitlines() if line.startswith("w")])
                    self.assertFalse([path for path in self.files() if ".tmp" in path])

    def test_errors_are_told_once(self):
        before = self.files()
        self.write(5, b"<html>")
        cases = [(["aggregate", "clients", "--rule", "median", "--strict", "-o", "x.npz"], 3, "w5.safetensors"),
                 (["aggregate", "clients", "--rule", "krum(f=4)", "-o", "x.npz"], 2, "krum"),
                 (["aggregate", "clients", "--rule", "median", "-o", "nowhere/x.npz"], 4, "nowhere"),
                 (["aggregate", "clients", "--rule", "median(", "-o", "x.npz"], 2, "column 8"),
                 (["aggregate", "nothing", "--rule", "median", "-o", "x.npz"], 4, "nothing"),
                 (["aggregate", "clients", "--rul", "median", "-o", "x.npz"], 2, "--rul"),
                 (["aggregate", "clients", "--rule", "median", "-o", "x.npz", "--device", "cuda"], 2, "cuda"),
                 (["aggregate", "clients", "--rule", "median", "-o", "x.npz", "--reputation", "s.json"], 2, "keeps none"),
                 (["verify"], 2, "bragg verify"),
                 (["audit", "clients"], 2, "bragg audit")]
        for arguments, code, text in cases:
            with self.subTest(arguments=arguments):
                done = self.run_command(self.job(3, *arguments))
                self.assertEqual(done.returncode, code, done.stderr)
                errors = [line for line in done.stderr.splitlines() if line.startswith("bragg: error")]
                self.assertEqual(len(errors), 1, done.stderr)
                self.assertIn(text, errors[0])
                self.assertEqual(self.files(), before)
        arguments = ["aggregate", "clients", "--rule", "median", "--strict", "-o", "x.npz", "--report", "report.json"]
        self.assertEqual(self.run_command(self.job(2, *arguments)).returncode, 3)
        told = json.loads((self.folder / "report.json").read_text())["workers"]
        self.assertEqual([worker["bad"] is not None for worker in told], [i == 5 for i in range(8)])

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_a_report_that_cannot_be_written_leaves_output_and_state(self):
        (self.folder / "base.safetensors").write_bytes(model(99, {"a": 40_000, "b": 300, "c": 9_000}))
        arguments = ["aggregate", "clients", "--rule", RULE, "--base", "base.safetensors", "--server-lr", "0.5", "--server-momentum", "0.9",
                     "--server-state", "state.safetensors", "-o", "out.safetensors"]
        self.assertEqual(self.run_command(self.job(2, *arguments)).returncode, 0)

        def hashes():
            return {name: hashlib.sha256((self.folder / name).read_bytes()).hexdigest() for name in self.files() if not (self.folder / name).is_dir()}

        before = hashes()
        done = self.run_command(self.job(2, *arguments, "--report", "/dev/full"))
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertEqual(done.stderr.count("--report: /dev/full"), 1, done.stderr)
        self.assertEqual(hashes(), before)

    def test_ranks_of_other_command_lines_wait_for_nobody(self):
        before = self.files()
        good = ["aggregate", "clients", "--rule", "median", "-o", "x.npz"]
        for other in (["--bogus"], ["rules"], ["--help"], [*good, "--bogus"], [*good, "--threads", "99999"],
                      ["aggregate", "clients/w1.safetensors", "--rule", "median", "-o", "x.npz"], [*good, "--strict"]):
            for lines in ((good, other), (other, good)):
                with self.subTest(lines=lines):
                    first, second = lines
                    done = self.run_command([*self.job(1, *first), ":", NUMPROC_FLAG, "1", BRAGG_MPI, *second])
                    self.assertEqual(done.returncode, 8, done.stderr)
                    self.assertIn("different", done.stderr)
                    self.assertEqual(self.files(), before)

    def test_a_job_of_one_is_the_command(self):
        done = self.run_command([BRAGG_MPI, "aggregate", "clients", "--rule", RULE, "-o", "one.safetensors"])
        self.assertEqual(done.returncode, 0, done.stderr)
        alone = self.run_command([BRAGG, "aggregate", "clients", "--rule", RULE, "-o", "two.safetensors"])
        self.assertEqual(alone.returncode, 0, alone.stderr)
        self.assertEqual((self.folder / "one.safetensors").read_bytes(), (self.folder / "two.safetensors").read_bytes())
        done = self.run_command([MPIEXEC, NUMPROC_FLAG, "3", BRAGG, "aggregate", "clients", "--rule", RULE, "-o", "x.npz"])
        self.assertEqual(done.returncode, 2)
        self.assertIn("bragg-mpi", done.stderr)

    def ranks_of(self, job):
        """Process of each rank, once all of them are at work (there is a temporary file)."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = {}
            for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
                try:
                    environment = dict(entry.partition("=")[::2] for entry in path.read_text().split("\0"))
                    if os.path.samefile(path.parent / "exe", BRAGG_MPI) and environment.get("PWD_OF_TEST") == str(self.folder):
                        found[int(environment["OMPI_COMM_WORLD_RANK"])] = int(path.parent.name)
                except (OSError, KeyError, UnicodeDecodeError):
                    continue
            if len(found) == 3 and any(".tmp" in path for path in self.files()):
                return found
            self.assertIsNone(job.poll(), "the job ended before it could be killed")
        self.fail("the ranks did not come to work")

    @unittest.skipUnless(pathlib.Path("/proc/self/environ").exists(), "finds the processes of a job in /proc")
    def test_a_killed_rank_or_mpirun_leaves_nothing(self):
        slow = ["aggregate", "clients", "--rule", "caf(f=350)", "-o", "x.safetensors"]  # some seconds
        for i in range(800):
            self.write(i, model(i, {"a": 40}))
        before = self.files()
        for killed in (0, 2, "mpirun"):
            with self.subTest(killed=killed):
                environment = {**os.environ, "PWD_OF_TEST": str(self.folder)}
                job = subprocess.Popen(self.job(3, *slow), cwd=self.folder, env=environment, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
                with job:
                    ranks = self.ranks_of(job)
                    os.kill(job.pid if killed == "mpirun" else ranks[killed], signal.SIGKILL)
                    self.assertNotEqual(job.wait(timeout=30), 0)
                for _ in range(50):
                    left = [rank for rank, process in ranks.items() if pathlib.Path(f"/proc/{process}/fd").is_dir()]
                    if self.files() == before and not left:
                        break
                    time.sleep(0.1)
                self.assertEqual((self.files(), left), (before, []))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[5:]])
