#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/gpu_check.sh from end to end without a GPU: what comes back of it, however it goes.

    gpu_check_test.py BRAGG DEVICE_THERE_TEST TREE

Programs and tools are stand-ins that write what the real ones write. The rows are those of a real `bragg bench`, and what
finds no device is the real test program.
"""

import _ctypes
import contextlib
import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

TESTS = ["device_there_test", "device_select_test", "device_mix_test", "device_gram_test", "device_combine_test",
         "device_plan_test", "device_graph_test", "pre_aggregate_cuda_test", "conformance_cuda_test", "hostile_cuda_test",
         "aimed_cuda_test", "device_sharded_test"]
CHOICES = ["verify-double_float", "verify-int8", "verify-cublas"]
RULES = ["median", "trimmed_mean(f=F)", "krum(f=F)", "multi_krum(f=F)", "geometric_median", "centered_clipping(tau=100, iters=5)",
         "nnm(f=F) | trimmed_mean(f=F)", "bulyan(f=F)"]

# Says how it was called, then does what the test has written to its file of behaviour, if there is one.
PROGRAM = """#!/bin/sh
name=${0##*/}
echo "$name|$*|${BRAGG_TEST_SHARE-}|${BRAGG_DEPENDENT_LAUNCHES-}|${BRAGG_REQUIRE_DEVICE-}|${LD_LIBRARY_PATH-}|${BRAGG_GRAM-}" >> "@HOME@/calls"
[ ! -f "@HOME@/behave-$name" ] || . "@HOME@/behave-$name"
"""
NVIDIA_SMI = """#!/bin/sh
case "$*" in
*-lms*) echo $$ > "@HOME@/sampler"; while :; do echo "1965, 2619, 512.34, 55"; sleep 0.05; done ;;
*) echo "name, driver_version"; echo "A stand-in, 580.1" ;;
esac
"""
NCU = """#!/bin/sh
while [ "$1" != --log-file ]; do shift; done
cat > "$2" << END
==PROF== Connected to process 1
"ID","Kernel Name","dram__throughput.avg.pct_of_peak_sustained_elapsed","gpu__time_duration.sum","l1tex__t_sector_hit_rate.pct",\
"smsp__average_warps_issue_stalled_no_instruction_per_issue_active.ratio"
"","","%","ns","%","inst"
"0","gram_tiles","61.5","1,234,567","12.25","0.75"
==PROF== Disconnected
END
shift 2
exec "$@"
"""
SANITIZER = """#!/bin/sh
while [ "${1#/}" = "$1" ]; do shift; done
echo "========= ERROR SUMMARY: 0 errors"
exec "$@"
"""
VARIANTS = PROGRAM + """
[ "$1" != --once ] || exit 0
echo '{"device": "A stand-in", "seconds": 0.05}'
row() { echo "{\\"pass\\": \\"$1\\", \\"n\\": $2, \\"d\\": 1000000, \\"dtype\\": \\"f32\\", \\"variant\\": \\"$3\\", \\"chosen\\": $4, $5}"; }
row gram 16 "as chosen" true '"ms": 0.5, "gb_per_s": 1280.0, "agrees": null'
row "mix+select trimmed_mean" 16 "as chosen" true '"ms": 0.25, "gb_per_s": 1280.0, "agrees": true, "difference": 0'
row gram 16 "warps 8, blocks 2" false '"ms": 0.25, "gb_per_s": 2560.0, "agrees": true, "difference": 1e-16'
row "select median" 96 "threads 64" true '"failure": "cudaFuncSetAttribute: invalid value"'
sorted="select median beside a sort"
row "$sorted" 16 "as chosen" true '"ms": 0.5, "gb_per_s": 136.0, "agrees": true, "difference": 0'
row "$sorted" 16 "cub::DeviceSegmentedSort" false '"peer": true, "ms": 0.25, "gb_per_s": 272.0, "agrees": true, "difference": 0, "sort_ms": 0.125'
row "$sorted" 32 "as chosen" true '"ms": 0.5, "gb_per_s": 136.0, "agrees": true, "difference": 0'
row "$sorted" 32 "cub::DeviceSegmentedSort" false '"peer": true, "ms": 4.0, "gb_per_s": 34.0, "agrees": false, "sort_ms": 3.0'
row "$sorted" 64 "as chosen" true '"failure": "out of memory"'
row "$sorted" 64 "cub::DeviceSegmentedSort" false '"peer": true, "ms": 8.0, "gb_per_s": 34.0, "agrees": null, "sort_ms": 3.0'
"""
# A real result with the shapes that are asked for, written anew after each row.
BRAGG = """#!@PYTHON@ -SE
import json, os, sys, time
arguments = sys.argv[1:]
if arguments == ["version"]:
    with open("@HOME@/version") as file:
        print(file.read())
    sys.exit()
with open("@HOME@/calls", "a") as file:
    file.write("|".join(["bragg", " ".join(arguments), *(os.environ.get(name, "") for name in (
        "BRAGG_TEST_SHARE", "BRAGG_DEPENDENT_LAUNCHES", "BRAGG_REQUIRE_DEVICE", "LD_LIBRARY_PATH", "BRAGG_GRAM"))]) + "\\n")
def option(name, default):
    at = arguments.index(name) + 1 if name in arguments else None
    found = []
    while at is not None and at < len(arguments) and not arguments[at].startswith("--"):
        found.append(arguments[at])
        at += 1
    return found or default
path, = option("--json", None)
if os.path.exists("@HOME@/hangs"):
    with open("@HOME@/hangs") as file:
        os.path.exists("/proc/" + file.read().strip()) and sys.exit("what hung runs on")
def write(result):
    with open(path + ".tmp", "w") as file:
        json.dump(result, file)
    os.rename(path + ".tmp", path)
with open("@HOME@/" + ("verify" if arguments[0] == "verify" else "bench") + ".json") as file:
    result = json.load(file)
if arguments[0] == "verify":
    write(result)
    sys.exit()
rows, result["rows"], result["complete"] = {row["form"]: row for row in result["rows"]}, [], False
stop = os.path.exists("@HOME@/stop-" + os.path.basename(path))
for d in option("--d", ["1000"]):
    for n in option("--n", ["16"]):
        for form in option("--rule", list(rows)):
            result["rows"].append({**rows[form], "n": int(n), "d": 25557032 if d[0] == "r" else int(float(d)), "model": None,
                                   "dtype": option("--dtype", ["f32"])[0], "tensors": int(option("--tensors", ["1"])[0])})
            write(result)
            if stop and len(result["rows"]) == 3:
                with open("@HOME@/stopped", "w") as file:
                    file.write(str(os.getpid()))
                time.sleep(1000)
if "--gram" in arguments:
    pairs, lengths = ({**row, "passes": [{"name": "gram", "ms": 0.25}]} for row in result["rows"][-2:])
    result["skipped"] = [{**pairs, "gram": "cublas", "why": "BRAGG_GRAM=cublas: not here"}]
    result["rows"] = [{**pairs, "gram": "tensor", "gram_difference": 0}, {**pairs, "gram": "int8", "gram_difference": 0.025},
                      {**lengths, "gram": "tensor", "gram_difference": 0}, {**lengths, "gram": "double_float", "gram_difference": 1.5}]
result["complete"] = True
write(result)
"""


def alive(pid):
    """Whether there is such a process that has not ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@functools.lru_cache
def real_results():
    """Name -> what the command writes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    commands = {"bench.json": ["bench", "--rule", *RULES, "cge(f=F)", "--n", "16", "--d", "1000", "--seconds", "0.01"],
                "verify.json": ["verify", "--quick", "--rule", "cge"]}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in commands.items():
            path = pathlib.Path(folder) / name
            subprocess.run([BRAGG_COMMAND, *arguments, "--device", "cpu", "--json", path], check=True, stdout=subprocess.DEVNULL,
                           env=environment)
            found[name] = path.read_text(encoding="utf-8")
    return found


class Check(unittest.TestCase):
    def setUp(self):
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.home = pathlib.Path(made.name)
        self.out, self.tools, self.run_folder = (self.home / name for name in ("out", "bin", "run"))
        for folder in (self.tools, self.run_folder):
            folder.mkdir()
        for name, text in real_results().items():
            (self.home / name).write_text(text)
        # Nothing that this machine may have besides: the tools are those that a test puts there.
        for name in ("bash", "sh", "env", "dirname", "tar", "sleep", "cat", "gzip"):
            (self.tools / name).symlink_to(shutil.which(name))
        self.script(self.tools / "python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        for name in TESTS:
            self.script(self.run_folder / name, PROGRAM)
        self.script(self.run_folder / "bragg", BRAGG)
        self.script(self.run_folder / "variants", VARIANTS)
        (self.run_folder / "commit").write_text("0123abc\n")
        # No system has a cuBLAS of this release; a library that can be loaded is enough.
        (self.home / "version").write_text("bragg 0.1.0\nCUDA 13.0; cuBLAS 999.2, on request (BRAGG_GRAM=cublas)\n")
        self.cublas = self.home / "root/usr/local/cuda-999.2/lib64"
        self.install_cublas(self.cublas)
        self.environment = {"PATH": str(self.tools), "HOME": str(self.home), "OUT": str(self.out),
                            "BRAGG_GPU_RUN": str(self.run_folder), "BRAGG_GPU_ROOT": str(self.home / "root"),
                            "LD_LIBRARY_PATH": "/where/the/driver/is"}

    def script(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("@HOME@", str(self.home)).replace("@PYTHON@", sys.executable))
        path.chmod(0o755)

    def install_cublas(self, folder):
        folder.mkdir(parents=True)
        shutil.copy(_ctypes.__file__, folder / "libcublas.so.999")

    def install_tools(self):
        for name, text in (("nvidia-smi", NVIDIA_SMI), ("ncu", NCU), ("compute-sanitizer", SANITIZER)):
            self.script(self.tools / name, text)

    def behave(self, program, text):
        (self.home / f"behave-{program}").write_text(text)

    def begin(self, *arguments, **environment):
        process = subprocess.Popen([str(TREE / "scripts/gpu_check.sh"), *arguments], env={**self.environment, **environment}, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        return process

    def check(self, *arguments, code=0, **environment):
        """(what was printed, files of the archive)"""
        process = self.begin(*arguments, **environment)
        printed = process.communicate(timeout=120)[0]
        self.assertEqual(process.returncode, code, printed)
        return printed, self.archive()

    def archive(self):
        """Name -> text. It is all that is in the folder that comes back."""
        self.assertEqual(os.listdir(self.out), ["results.tar.gz"])
        with tarfile.open(self.out / "results.tar.gz") as archive:
            return {pathlib.PurePath(entry.name).name: archive.extractfile(entry).read().decode() for entry in archive}

    def steps(self, files):
        """Step -> its record, of the archive."""
        return {step["step"]: step for step in json.loads(files["check.json"])["steps"]}

    def calls(self):
        """[(program, arguments, share, dependent, required, library path, who computes products)]"""
        return [line.split("|") for line in (self.home / "calls").read_text().replace(") | trimmed", ") ; trimmed").splitlines()]

    def wait_for(self, path):
        until = time.monotonic() + 60
        while not path.exists() or not path.read_text():
            self.assertLess(time.monotonic(), until, f"{path} does not come")
            time.sleep(0.02)
        return path.read_text()

    def assert_ended(self, pid):
        until = time.monotonic() + 10
        while alive(pid):
            self.assertLess(time.monotonic(), until, "a process lives on")
            time.sleep(0.02)


class Complete(Check):
    def test_everything_comes_back_in_one_archive_and_a_table(self):
        self.install_tools()
        # Other libraries may be here, but need a device.
        names = subprocess.run([str(TREE / "scripts/gpu_check.sh"), "what?"], env=self.environment, capture_output=True, text=True, check=False)
        self.assertEqual(names.returncode, 2, names.stderr)
        every = [name for name in names.stdout.split("there are ")[1].replace("\n", "").split(", ") if name not in ("tests", "ncu", "choices")]
        every = list(dict.fromkeys(every))
        self.assertIn("peers", every)
        printed, files = self.check(*(name for name in every if name not in ("peers", "python")))
        records = self.steps(files)
        self.assertEqual(list(records), [name for name in every if name not in ("peers", "python")])
        self.assertEqual({record["result"] for record in records.values()}, {"ok"}, printed)
        self.assertEqual(json.loads(files["check.json"])["state"], "complete")
        for name in records:
            self.assertIn(f"{name}.log", files)
        for name in ("rules", "rules-odd", "rules-tensors", "rules-f64", "rules-96", "rules-dependent", "readme", "large-n", "tiny", "huge", "gram-choices"):
            rows = json.loads(files[f"{name}.json"])["rows"]
            self.assertGreater(len(rows), 1, name)
        self.assertEqual({row["d"] for row in json.loads(files["rules-odd.json"])["rows"]}, {1000001})
        self.assertEqual({row["tensors"] for row in json.loads(files["rules-tensors.json"])["rows"]}, {161})
        self.assertEqual({row["dtype"] for row in json.loads(files["rules-f64.json"])["rows"]}, {"f64"})
        self.assertEqual({row["n"] for row in json.loads(files["rules-96.json"])["rows"]}, {96})
        self.assertEqual(len(files["variants.jsonl"].splitlines()), 11)
        self.assertEqual(files["commit"], "0123abc\n")
        self.assertIn("A stand-in, 580.1", files["gpu.csv"])
        self.assertIn("1965, 2619, 512.34, 55", files["clocks.csv"])

        table = files["table.txt"].splitlines()
        self.assertLessEqual(len(table), 30)
        self.assertLess(len(printed), 12000)
        self.assertEqual([line[:40] for line in printed.splitlines()[-len(table):]], [line[:40] for line in table])
        for words in ("GPU: A stand-in, 580.1", "commit 0123abc", "[rules] 16x1e6 ", "[huge] 16x1e9 ", "16x1000001 ",
                      "in 161", "1e7 f64", "96x1e6 ", "pass gram: 16x1e6 500us 1280 GB/s; 16x1e6 faster: warps 8, blocks 2 250us",
                      "pass select median beside a sort: 16x1e6 500us 136 GB/s; 16x1e6 by cub::DeviceSegmentedSort 250us x0.5, its sort 125us; "
                      "32x1e6 500us 136 GB/s; 32x1e6 cub::DeviceSegmentedSort DIFFERS; 64x1e6 as chosen FAILED: out of memory; "
                      "64x1e6 by cub::DeviceSegmentedSort 8ms, its sort 3ms not compared",
                      "FAILED: cudaFuncSetAttribute", "ncu-gram-64: ms 1.23, DRAM % 61.5, L1 hits % 12.2, stall no_instruction 0.75",
                      "rules 1965 to 1965 MHz, 512.34 W", "; verify-int8: ", "0 wrong", "whole by sum of passes: nnm",
                      "gram alone (difference / bound): krum(f=F) 128x1e7 tensor 250us (0.0e+00), 128x1e7 int8 250us (2.5e-02); "
                      "cge(f=F) 128x1e7 tensor 250us (0.0e+00), 128x1e7 double_float 250us (1.5e+00 DIFFERS)", "128x1e7 cublas: BRAGG_GRAM=cublas: not here"):
            self.assertIn(words, files["table.txt"])

        cublas = f"{self.cublas}:/where/the/driver/is"
        for call in self.calls():
            where = cublas if call[6] == "cublas" or "--gram all" in call[1] else "/where/the/driver/is"
            self.assertEqual(call[4:6], ["1", where], call)
        self.assertEqual([call[1].split(" --gram ")[1] for call in self.calls() if "--gram" in call[1]],
                         ["all --rule krum(f=F) cge(f=F) --n 16 64 128 --d 1e7 --seconds 0.1"])
        self.assertEqual({call[6]: call[1].split(" --json ")[0] for call in self.calls() if call[6]}, dict.fromkeys(
            ("double_float", "int8", "cublas"), "verify --device cuda --quick --rule krum nnm geometric_median cge clip"))
        programs = {(call[0], call[2], call[3]) for call in self.calls() if call[0] != "bragg"}
        self.assertLessEqual({("device_select_test", "64", ""), ("device_select_test", "4", ""), ("device_plan_test", "4", ""),
                              ("device_plan_test", "4", "1"), ("conformance_cuda_test", "400", "")}, programs)
        self.assertEqual({call[1].split("/")[-1].split(".")[0] for call in self.calls() if call[0] == "bragg" and call[3]}, {"rules-dependent"})
        self.assert_ended(int((self.home / "sampler").read_text()))

    def test_the_smoke_call_is_short_and_the_first_of_the_whole(self):
        printed, files = self.check("--smoke")
        self.assertEqual(list(self.steps(files)), ["device", "select", "gram", "verify", "variants", "rules", "pass-sums", *CHOICES])
        self.assertEqual(json.loads(files["check.json"])["call"], "smoke")
        self.assertIn("[rules] 16x1e6 ", printed)
        module = load_check()
        for kind, most in (("smoke", 100), ("whole", 500)):
            self.assertLess(module.TOTAL[kind], most)
        before = [step.name for step in module.STEPS if step.limit["whole"]]
        limits = {step.name: step.limit["whole"] for step in module.STEPS if step.limit["whole"]}
        self.assertLessEqual(sum(limits[name] for name in before[: before.index("variants")]), 75)
        self.assertLessEqual(max(limits.values()), 90)

    def test_a_step_is_run_by_its_name(self):
        _, files = self.check("rules-odd", "device")
        self.assertEqual(list(self.steps(files)), ["device", "rules-odd"])


class Lists(Check):
    def test_every_test_of_devices_is_built_and_is_a_step(self):
        tests = (TREE / "tests/CMakeLists.txt").read_text(encoding="utf-8")
        names = next(names for names in re.findall(r"foreach\(name ([^)]+)\)", tests) if "device_select_test" in names).split()
        script = (TREE / "scripts/gpu_check.sh").read_text(encoding="utf-8")
        built = re.search(r"programs=\(([^)]+)\)", script)[1].split()
        self.assertEqual(sorted(["device_there_test", *names]), sorted(built))
        self.assertEqual(sorted(TESTS), sorted(built))
        listed = subprocess.run([str(TREE / "scripts/gpu_check.sh"), "what?"], env=self.environment, capture_output=True, text=True,
                                check=False).stdout
        self.assertLessEqual(set(names), set(listed.split("there are ")[1].replace("\n", "").split(", ")))

    def test_what_is_not_built_is_named(self):
        environment = {**self.environment, "BRAGG_GPU_RUN": str(self.home / "nothing"), "BRAGG_GPU_ARCHIVE": str(self.home / "nothing.tar.xz")}
        found = subprocess.run([str(TREE / "scripts/gpu_check.sh"), "device"], env=environment, capture_output=True, text=True, check=False)
        self.assertEqual(found.returncode, 1)
        self.assertEqual(found.stderr, f"gpu_check: {self.home}/nothing.tar.xz: not there; scripts/gpu_check.sh --build makes it, where nvcc is\n")


class Wrong(Check):
    def test_a_failure_is_named_and_the_rest_goes_on(self):
        self.behave("device_gram_test", 'i=0; while [ $i -lt 20000 ]; do echo "0123456789012345678901234567890123456789 $i"; i=$((i + 1)); done\n'
                                        "echo the end is here; exit 3\n")
        printed, files = self.check("--smoke", code=1)
        records = self.steps(files)
        self.assertEqual((records["gram"]["result"], records["gram"]["why"]), ("failed", "exit status 3"))
        self.assertEqual({record["result"] for name, record in records.items() if name != "gram"}, {"ok"})
        self.assertIn("FAILED: gram (exit status 3)", files["table.txt"])
        self.assertIn("  the end is here\n", printed)
        self.assertTrue(files["gram.log"].endswith("the end is here\n"))
        self.assertLess(len(files["gram.log"]), 300000)

    def test_a_program_that_is_not_there_is_a_failure(self):
        (self.run_folder / "device_gram_test").unlink()
        _, files = self.check("--smoke", code=1)
        self.assertEqual([name for name, record in self.steps(files).items() if record["result"] != "ok"], ["gram"])

    def test_what_hangs_is_ended_and_leaves_its_rows(self):
        self.install_tools()
        text = VARIANTS.replace("row gram 16 \"warps", f"echo $$ > {self.home}/hangs; trap '' TERM; sleep 1000 & wait; wait; sleep 1000\nrow gram 16 \"warps")
        self.script(self.run_folder / "variants", text)
        printed, files = self.check("--smoke", code=1, BRAGG_GPU_SCALE="0.15", LIMIT="10000")
        records = self.steps(files)
        self.assertEqual((records["variants"]["result"], records["variants"]["why"]), ("failed", "not done in 3 s"))
        self.assertLess(records["variants"]["seconds"], 15)
        self.assertEqual(len(files["variants.jsonl"].splitlines()), 3)
        self.assertEqual({record["result"] for name, record in records.items() if name != "variants"}, {"ok"}, printed)
        self.assertIn("pass gram: 16x1e6 500us", files["table.txt"])
        self.assert_ended(int((self.home / "hangs").read_text()))

    def test_what_there_is_no_time_for_is_named(self):
        self.behave("device_select_test", "sleep 1000\n")
        _, files = self.check("select", "gram", code=1, LIMIT="4")
        self.assertEqual([record["result"] for record in self.steps(files).values()], ["failed", "left out"])
        self.assertIn("LEFT OUT: gram (no time was left)", files["table.txt"])

    def test_without_a_device_it_fails_at_once_and_says_why(self):
        (self.run_folder / "device_there_test").unlink()
        (self.run_folder / "device_there_test").symlink_to(DEVICE_THERE_TEST)
        printed, files = self.check("--smoke", code=1, CUDA_VISIBLE_DEVICES="", LD_LIBRARY_PATH="")
        records = self.steps(files)
        self.assertEqual(records["device"]["result"], "failed")
        self.assertEqual({(record["result"], record["why"]) for name, record in records.items() if name != "device"}, {("left out", "no device")})
        self.assertEqual(len(records), 10)
        self.assertIn("no CUDA device: ", files["device.log"])
        self.assertIn("NO CUDA DEVICE; GPU: ", printed)
        self.assertFalse((self.home / "calls").exists())
        # The same test is skipped where nobody asks for a device.
        done = subprocess.run([DEVICE_THERE_TEST], env={"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_tools_are_missed_or_found_where_they_usually_are(self):
        steps = ["device", "ncu-steps", "memcheck", "peers"]
        _, files = self.check(*steps[:3])
        records = self.steps(files)
        self.assertEqual([records[name]["result"] for name in steps[:3]], ["ok", "left out", "left out"])
        for name, words in (("ncu-steps", "ncu is neither"), ("memcheck", "compute-sanitizer is neither")):
            self.assertIn(words, records[name]["why"])
            self.assertIn(words, files["table.txt"])
        self.assertIn("nvidia-smi is neither", files["gpu.csv"])
        root = self.home / "root"
        self.script(root / "usr/local/nvidia/bin/nvidia-smi", NVIDIA_SMI)
        self.script(root / "opt/nvidia/nsight-compute/2025.3.1/ncu", NCU)
        self.script(root / "usr/local/cuda-13.0/bin/compute-sanitizer", SANITIZER)
        _, files = self.check(*steps[:3])
        self.assertEqual({record["result"] for record in self.steps(files).values()}, {"ok"})
        self.assertIn("A stand-in, 580.1", files["gpu.csv"])
        self.assertIn("ERROR SUMMARY: 0 errors", files["memcheck.log"])

    def test_cublas_is_missed_or_found_in_a_python(self):
        shutil.rmtree(self.cublas)
        _, files = self.check("gram-choices", "verify-cublas")
        records = self.steps(files)
        self.assertEqual([records[name]["result"] for name in ("gram-choices", "verify-cublas")], ["ok", "left out"])
        self.assertIn("libcublas.so.999 is neither", records["verify-cublas"]["why"])
        self.assertIn("LEFT OUT: verify-cublas (libcublas.so.999 is neither", files["table.txt"])
        self.assertEqual([call[5] for call in self.calls()], ["/where/the/driver/is"])
        self.install_cublas(self.home / "site/nvidia/cu13/lib")
        broken = self.home / "site/nvidia/a/lib/libcublas.so.999"
        broken.parent.mkdir(parents=True)
        broken.write_text("no library")
        self.check("choices", PYTHONPATH=str(self.home / "site"))
        found = f"{self.home}/site/nvidia/cu13/lib:/where/the/driver/is"
        self.assertEqual([call[5:7] for call in self.calls()[1:]], [
            ["/where/the/driver/is", "double_float"], ["/where/the/driver/is", "int8"], [found, "cublas"], [found, ""]])
        self.check("verify-cublas", LD_LIBRARY_PATH=str(self.home / "site/nvidia/cu13/lib"))
        self.assertEqual(self.calls()[-1][5:7], [str(self.home / "site/nvidia/cu13/lib"), "cublas"])
        (self.home / "version").write_text("bragg 0.1.0\nCUDA 13.0, without cuBLAS\n")
        _, files = self.check("verify-cublas")
        self.assertEqual(self.steps(files)["verify-cublas"]["why"], "this bragg was built without cuBLAS")

    def test_a_device_tool_that_fails_costs_nothing_else(self):
        self.script(self.tools / "nvidia-smi", "#!/bin/sh\necho no driver; exit 9\n")
        _, files = self.check("device")
        self.assertEqual(files["gpu.csv"], "no driver\n")

    def test_a_file_that_is_broken_costs_its_own_lines_only(self):
        self.behave("device_there_test", f"echo '{{\"schema\": 7}}' > {self.home}/work/readme.json\n")
        printed, files = self.check("--smoke")
        self.assertIn("pipelines: Unusable", printed)
        self.assertIn("pass gram", printed)


class Killed(Check):
    def stopped_in_rules(self, *arguments):
        """The check, when its benchmark has written three rows; and the benchmark's process."""
        self.install_tools()
        (self.home / "stop-rules.json").touch()
        process = self.begin("--smoke", *arguments)
        return process, int(self.wait_for(self.home / "stopped"))

    def test_a_signal_brings_what_there_is(self):
        for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")):
            with contextlib.suppress(FileNotFoundError):
                (self.home / "stopped").unlink()
            process, inner = self.stopped_in_rules()
            process.send_signal(number)
            printed = process.communicate(timeout=30)[0]
            self.assertEqual(process.returncode, 128 + number, printed)
            files = self.archive()
            check = json.loads(files["check.json"])
            self.assertEqual((check["state"], check["to_come"]), (f"ended by {name}", ["pass-sums", *CHOICES]))
            self.assertEqual([record["result"] for record in self.steps(files).values()], ["ok"] * 5 + ["failed"])
            rules = json.loads(files["rules.json"])
            self.assertEqual((len(rules["rows"]), rules["complete"]), (3, False))
            for words in (f"ended by {name}", "rules was stopped after 3 rows", "krum(f=F): [rules] 16x1e6 ", "NOT BEGUN OR NOT FINISHED: pass-sums"):
                self.assertIn(words, printed)
            self.assert_ended(inner)
            self.assert_ended(int((self.home / "sampler").read_text()))

    def test_a_kill_costs_one_step(self):
        process, inner = self.stopped_in_rules()
        process.kill()
        process.communicate(timeout=30)
        files = self.archive()
        check = json.loads(files["check.json"])
        self.assertEqual([(record["step"], record["result"]) for record in check["steps"]],
                         [(name, "ok") for name in ("device", "select", "gram", "verify", "variants")])
        self.assertEqual(check["to_come"], ["rules", "pass-sums", *CHOICES])
        self.assertIn("STOPPED IN rules", files["table.txt"])
        self.assertIn("NOT BEGUN OR NOT FINISHED: rules, pass-sums", files["table.txt"])
        self.assertEqual(len(files["variants.jsonl"].splitlines()), 11)
        self.assertIn("pass gram", files["table.txt"])
        self.assert_ended(inner)
        self.assert_ended(int((self.home / "sampler").read_text()))


class Pythons(Check):
    def test_a_name_that_is_only_pyenv_s_word_is_no_python(self):
        shim = '#!/bin/sh\necho "pyenv: ${0##*/}: command not found" >&2\nexit 127\n'
        for name in ("python3", "python3.12"):
            self.script(self.tools / name, shim)
        (self.home / "only").mkdir()
        (self.home / "only/only_there.py").write_text("")
        there = self.home / ".pyenv/versions/3.12.1/bin/python3"
        self.script(there, f'#!/bin/sh\nPYTHONPATH="{self.home}/only:$PYTHONPATH" exec {sys.executable} "$@"\n')
        self.script(there.with_name("python3.12"), there.read_text())
        _, files = self.check("device")  # by the script, which looks under /
        self.assertEqual(self.steps(files)["device"]["result"], "ok")

        text = (TREE / "scripts/gpu_check.sh").read_text(encoding="utf-8")
        function = text[text.index("find_python() {"):text.index("\nif [[")]
        build = next(line for line in text.splitlines() if "if python=$(find_python python3.12" in line)
        found = subprocess.run(["bash", "-c", f'{function}\n{build} echo "$python"; fi'], env=self.environment, capture_output=True,
                               text=True, check=True)
        self.assertEqual(found.stdout.strip(), str(there.with_name("python3.12")))

        linked = self.home / "root" / str(self.home).lstrip("/")
        linked.parent.mkdir(parents=True)
        linked.symlink_to(self.home)
        code = "import check; print(check.python_with(['only_there'])); check.python_with(['nowhere_at_all'])"
        found = subprocess.run([sys.executable, "-c", code], cwd=TREE / "bench/gpu", env={**self.environment, "PYTHONDONTWRITEBYTECODE": "1"},
                               capture_output=True, text=True, check=False)
        self.assertTrue(found.stdout.strip().endswith(".pyenv/versions/3.12.1/bin/python3"), found.stdout + found.stderr)
        self.assertIn("LeftOut: no Python from 3.8 on here has nowhere_at_all", found.stderr)

    def test_without_any_python_it_says_so(self):
        (self.tools / "python3").unlink()
        text = (TREE / "scripts/gpu_check.sh").read_text(encoding="utf-8").replace("/usr/bin/python3 /opt/conda/bin/python3", "")
        other = self.home / "tree/scripts/gpu_check.sh"
        self.script(other, text)
        done = subprocess.run([other], env=self.environment, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("no python3 here", done.stderr)


class Table(unittest.TestCase):
    def test_it_stays_short_whatever_there_is(self):
        with tempfile.TemporaryDirectory() as folder:
            rows = [{"pass": f"pass {k}", "n": 16, "d": 1000, "dtype": "f32", "variant": "x" * 5000, "chosen": True, "failure": "y"}
                    for k in range(60)]
            (pathlib.Path(folder) / "variants.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"pass": "cu')
            sys.path.insert(0, str(TREE / "bench/gpu"))
            import check_table
            text = check_table.table(pathlib.Path(folder))
            self.assertEqual(len(text.splitlines()), 30)
            self.assertIn("lines more", text.splitlines()[-1])
            short = check_table.short(text)
            self.assertEqual(len(short.splitlines()), 30)
            self.assertLess(len(short), 10001)
            self.assertIn("pass pass 5: 16x1000 xxx", short)


def load_check():
    sys.path.insert(0, str(TREE / "bench/gpu"))
    import check
    return check


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    BRAGG_COMMAND, DEVICE_THERE_TEST = (os.path.abspath(sys.argv.pop(1)) for _ in range(2))
    TREE = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main()
