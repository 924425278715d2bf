#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs on a GPU what scripts/gpu_check.sh --build has built; see that script, which calls this one.

  check.py [--smoke] [STEP…]

Made for a machine that is rented by the minute and may be taken away at any time. Every step has a time of its own, what
is worth most comes first, and after each step everything there is goes into one archive, results.tar.gz in $OUT, which
is replaced whole. The last of the output is a table of all figures; SIGTERM brings it too. Exit status: 0; 1 where a
step failed; 2 for bad arguments; 128 and the number of the signal that ended it.

Environment: OUT, where the archive goes (build/gpu); LIMIT, seconds in all; BRAGG_GPU_RUN, the folder with the programs
(build/gpu/run). For the script's own test: BRAGG_GPU_SCALE, a factor of every limit; BRAGG_GPU_ROOT, in place of / where
tools usually are.
"""

import ctypes
import glob
import io
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time

import check_table

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parent.parent
NNM = "nnm(f=F) | trimmed_mean(f=F)"
RULES = ["median", "trimmed_mean(f=F)", "krum(f=F)", "multi_krum(f=F)", "geometric_median",
         "centered_clipping(tau=100, iters=5)", NNM, "bulyan(f=F)"]
TESTS = ["device_select_test", "device_mix_test", "device_gram_test", "device_combine_test", "device_plan_test",
         "device_graph_test", "pre_aggregate_cuda_test", "conformance_cuda_test", "hostile_cuda_test",
         "aimed_cuda_test", "device_sharded_test"]
DEPENDENT = ["device_plan_test", "device_graph_test", "pre_aggregate_cuda_test", "conformance_cuda_test"]
KERNELS = {  # of the profiler's steps: the kernel, and what launches it once
    "gram-16": "gram_fragments", "gram-64": "gram_tiles", "median-64": "direct_kernel", "median-128": "direct_kernel",
    "mix-16": "tile_kernel", "steps": "step_list_kernel"}
CHOICES = ["double_float", "int8", "cublas"]  # of who computes products, besides what an H200 takes unasked
TOTAL = {"smoke": 95, "whole": 490}  # seconds, before the last packing
LEAST = 3  # seconds without which no step is begun
CUT = 1 << 18  # bytes of a log that are packed


class LeftOut(Exception):
    """Why a step cannot run."""


# Finding what is installed -----------------------------------------------------------------------------------------------------

USUAL = {
    "nvidia-smi": ["usr/bin", "usr/local/nvidia/bin", "usr/lib/wsl/lib", "opt/bin"],
    "compute-sanitizer": ["usr/local/cuda*/bin", "usr/local/cuda*/compute-sanitizer", "opt/nvidia/compute-sanitizer*"],
    "ncu": ["usr/local/cuda*/bin", "opt/nvidia/nsight-compute/*", "usr/local/cuda*/nsight-compute*"],
    "libcublas": ["usr/local/cuda*/lib64", "usr/local/cuda*/targets/*/lib", "usr/lib/x86_64-linux-gnu", "usr/lib64"],
}


def usual(*patterns):
    """Matches in the root folder, the newest version first."""
    root = os.environ.get("BRAGG_GPU_ROOT", "/")
    return [path for pattern in patterns for path in sorted(glob.glob(os.path.join(root, pattern)), reverse=True)]


def tool(name):
    found = shutil.which(name)
    for path in [found] if found else usual(*(f"{folder}/{name}" for folder in USUAL[name])):
        if os.access(path, os.X_OK):
            return path
    raise LeftOut(f"{name} is neither on PATH nor where it usually is")


def python_with(modules, least=(3, 8), path=None):
    """A Python that has them all. A name on PATH may be no more than pyenv's word that another version has it."""
    home = os.path.expanduser("~").lstrip("/")
    named = [sys.executable, *map(shutil.which, ("python3", "python3.12", "python3.13", "python"))]
    named += usual("usr/bin/python3", "usr/local/bin/python3*[0-9]", "opt/conda/bin/python3",
                   f"{home}/.pyenv/versions/*/bin/python3")
    probe = ("import importlib.util, sys; sys.exit(sys.version_info < %r or "
             "any(importlib.util.find_spec(m) is None for m in %r))" % (least, modules))
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    for python in dict.fromkeys(filter(None, named)):
        try:
            done = subprocess.run([python, "-c", probe], env=environment, capture_output=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            continue
        if done.returncode == 0:
            return python
    raise LeftOut("no Python from %s on here has %s" % (".".join(map(str, least)), ", ".join(modules)))


def output_of(*command, **environment):
    """What it prints; nothing where it fails."""
    try:
        done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              stdin=subprocess.DEVNULL, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def libraries_with(folder):
    """LD_LIBRARY_PATH with a folder before all others."""
    before = os.environ.get("LD_LIBRARY_PATH")
    return f"{folder}:{before}" if before else str(folder)


def cublas_folder(check):
    """Where the cuBLAS is that the command was built for; None: where the loader looks. PyTorch has one of its own."""
    release = re.search(r"cuBLAS (\d+)\.", output_of(str(check.run / "bragg"), "version"))
    if not release:
        raise LeftOut("this bragg was built without cuBLAS")
    name = f"libcublas.so.{release[1]}"
    probe = (sys.executable, "-c", f"import ctypes; ctypes.CDLL({name!r}); print('there')")
    if output_of(*probe):
        return None
    try:
        packages = output_of(python_with(["nvidia"]), "-c", "import nvidia; print(*nvidia.__path__, sep='\\n')").splitlines()
    except LeftOut:
        packages = []
    found = [path for package in packages for path in sorted(glob.glob(f"{package}/*/lib/{name}"))]
    for path in found + usual(*(f"{folder}/{name}" for folder in USUAL["libcublas"])):
        folder = os.path.dirname(path)
        if output_of(*probe, LD_LIBRARY_PATH=libraries_with(folder)):
            return folder
    raise LeftOut(f"{name} is neither where libraries are looked for nor in a Python here, nor where it usually is")


def seeing_cublas(check):
    """What a command that calls it begins with."""
    folder = cublas_folder(check)
    return ["env", f"LD_LIBRARY_PATH={libraries_with(folder)}"] if folder else []


# The steps ---------------------------------------------------------------------------------------------------------------------


class Step:
    def __init__(self, name, smoke, whole, command, share=None, dependent=False, gram=None, stdout=None):
        self.name = name
        self.limit = {"smoke": smoke, "whole": whole}
        self.command = command  # (check) -> list of arguments
        self.environment = {}
        if share:
            self.environment["BRAGG_TEST_SHARE"] = str(share)
        if dependent:
            self.environment["BRAGG_DEPENDENT_LAUNCHES"] = "1"
        if gram:
            self.environment["BRAGG_GRAM"] = gram
        self.stdout = stdout  # a file of the work folder, in place of the log


def program(name, *arguments):
    return lambda check: [str(check.run / name), *arguments]


def test(name):
    return program(name, "--gtest_brief=1")


def bench(name, *arguments):
    return lambda check: [str(check.run / "bragg"), "bench", "--device", "cuda", "--json", str(check.work / f"{name}.json"),
                          *arguments]


def rules(name, d, *arguments, n="16"):
    return bench(name, "--rule", *RULES, "--n", n, "--d", *d, "--seconds", "0.1", *arguments)


def profiled(launch):
    def command(check):
        return [tool("ncu"), "--clock-control", "none", "--set", "full", "-c", "1", "--kernel-name", f"regex:{KERNELS[launch]}",
                "--csv", "--page", "raw", "--print-units", "base", "--log-file", str(check.work / f"ncu-{launch}.csv"),
                str(check.run / "variants"), "--once", launch]

    return command


def sanitized(name):
    def command(check):
        return [tool("compute-sanitizer"), "--tool", name, "--error-exitcode", "9", "--kernel-regex", "kns=bragg",
                str(check.run / "conformance_cuda_test"), "--gtest_brief=1"]

    return command


def verify(check):
    return [str(check.run / "bragg"), "verify", "--device", "cuda", "--seconds", "8", "--json", str(check.work / "verify.json")]


def verify_choice(choice):
    """One round of rules that take products of rows, lengths and products about a base."""
    def command(check):
        return [*(seeing_cublas(check) if choice == "cublas" else []), str(check.run / "bragg"), "verify", "--device", "cuda",
                "--quick", "--rule", "krum", "nnm", "geometric_median", "cge", "clip", "--json",
                str(check.work / f"verify-{choice}.json")]

    return command


def gram_choices(check):
    """Products of pairs, and lengths alone. Without cuBLAS the benchmark leaves its rows out, and says why."""
    try:
        prefix = seeing_cublas(check)
    except LeftOut:
        prefix = []
    return prefix + bench("gram-choices", "--gram", "all", "--rule", "krum(f=F)", "cge(f=F)", "--n", "16", "64", "128",
                          "--d", "1e7", "--seconds", "0.1")(check)


def pass_sums(check):
    files = [check.work / "variants.jsonl", check.work / "rules.json"]
    for file in files:
        if not file.exists():
            raise LeftOut(f"there is no {file.name}")
    return [sys.executable, str(TREE / "bench/gpu/pass_sums.py"), *map(str, files)]


def python(check):
    path = check.run / "python"
    found = python_with(["bragg", "pytest", "torch", "numpy"], (3, 12), path)
    return ["env", f"PYTHONPATH={path}", found, "-m", "pytest", "-q", "-p", "no:cacheprovider",
            str(TREE / "tests/python/test_gpu.py")]


def peers(check):
    found = python_with(["torch", "numpy"])
    there = [file for file in map(check.work.joinpath, ("readme.json", "rules.json")) if file.exists()]
    times = ["--times", str(there[0])] if there else []
    return [found, str(TREE / "bench/gpu/peers.py"), "--bragg", str(check.run / "bragg"), *times,
            "--json", str(check.work / "peers.json")]


# In this order. Seconds at most in the smoke call, and in the whole; None: not in it.
STEPS = [
    Step("device", 20, 20, test("device_there_test")),
    Step("select", 20, 15, test("device_select_test"), share=64),
    Step("gram", 15, 10, test("device_gram_test"), share=64),
    Step("verify", 15, 15, verify),
    Step("variants", 20, None, program("variants", "0.03"), stdout="variants.jsonl"),
    Step("variants", None, 40, program("variants", "0.05"), stdout="variants.jsonl"),
    Step("rules", 15, None, rules("rules", ["1e6", "1e7"])),
    Step("rules", None, 25, rules("rules", ["1e6", "1e7", "1e8"])),
    Step("rules-odd", None, 10, rules("rules-odd", ["1000001"])),
    Step("rules-tensors", None, 10, rules("rules-tensors", ["resnet-50"], "--tensors", "161")),
    Step("rules-f64", None, 12, rules("rules-f64", ["1e6", "1e7"], "--dtype", "f64")),
    Step("rules-96", None, 15, rules("rules-96", ["1e6"], n="96")),
    Step("rules-dependent", None, 15, rules("rules-dependent", ["1e6", "1e7"]), dependent=True),
    Step("pass-sums", 5, 5, pass_sums),
    *(Step(f"verify-{choice}", 8, 12, verify_choice(choice), gram=choice) for choice in CHOICES),
    Step("gram-choices", None, 25, gram_choices),
    *(Step(f"ncu-{launch}", None, 12, profiled(launch)) for launch in KERNELS),
    *(Step(name, None, 25, test(name), share=4) for name in TESTS),
    Step("memcheck", None, 60, sanitized("memcheck"), share=400),
    Step("racecheck", None, 60, sanitized("racecheck"), share=400),
    Step("readme", None, 90, bench("readme", "--preset", "readme", "--seconds", "0.1")),
    Step("large-n", None, 40, bench("large-n", "--preset", "large-n", "--seconds", "0.05")),
    Step("tiny", None, 15, bench("tiny", "--preset", "tiny", "--seconds", "0.05")),
    Step("python", None, 40, python),
    Step("peers", None, 80, peers),
    Step("huge", None, 30, bench("huge", "--rule", "median", NNM, "--n", "16", "--d", "1e9", "--seconds", "0.1")),
    *(Step(f"dependent-{name}", None, 20, test(name), share=4, dependent=True) for name in DEPENDENT),
    Step("initcheck", None, 60, sanitized("initcheck"), share=400),
    Step("synccheck", None, 60, sanitized("synccheck"), share=400),
]
GROUPS = {"tests": TESTS, "ncu": [f"ncu-{launch}" for launch in KERNELS],
          "choices": [*(f"verify-{choice}" for choice in CHOICES), "gram-choices"]}


# Processes that cannot outlive this one ----------------------------------------------------------------------------------------

prctl = ctypes.CDLL(None).prctl  # found here: a child must not have to search


def bound_to_parent():
    os.setpgid(0, 0)
    prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: however this process ends


def start(command, **options):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=bound_to_parent, **options)


def end(process, patience=2.0):
    """The process and all of its group."""
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:  # not even a kill ends what waits for a driver
            pass


class Clocks:
    """Samples the device's clocks and power in the background, as long as the check runs."""

    QUERY = "clocks.sm,clocks.mem,power.draw,temperature.gpu"

    def __init__(self, smi, path):
        self.samples = []  # (time, MHz, watts)
        self.path = path
        master, slave = pty.openpty()  # a terminal: lines come as they are made
        self.process = start([smi, f"--query-gpu={self.QUERY}", "--format=csv,noheader,nounits", "--id=0", "-lms", "500"],
                             stdout=slave, stderr=subprocess.STDOUT)
        os.close(slave)
        threading.Thread(target=self.read, args=(master,), daemon=True).start()

    def read(self, master):
        with open(self.path, "w", encoding="utf-8", buffering=1) as file, os.fdopen(master, encoding="utf-8", errors="replace") as lines:
            file.write(f"time,{self.QUERY}\n")
            try:
                for line in lines:
                    now = time.time()
                    file.write(f"{now:.2f},{line.strip()}\n")
                    try:
                        sm, _, watts, _ = map(float, line.split(","))
                    except ValueError:
                        continue
                    self.samples.append((now, sm, watts))
            except OSError:  # the other end is closed
                pass

    def during(self, began):
        some = [sample for sample in list(self.samples) if sample[0] >= began]
        if not some:
            return {}
        return {"sm_mhz": [min(s[1] for s in some), max(s[1] for s in some)], "watts": max(s[2] for s in some)}


# The check ---------------------------------------------------------------------------------------------------------------------


class Ended(BaseException):
    def __init__(self, number):
        super().__init__(number)
        self.number = number


def on_signal(number, _frame):
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # once is enough
    raise Ended(number)


def say(text):
    try:
        print(text, flush=True)
    except OSError:  # nobody listens; the archive is what counts
        pass


class Check:
    def __init__(self, kind, wanted):
        self.began = time.monotonic()
        self.kind = kind
        self.scale = float(os.environ.get("BRAGG_GPU_SCALE", "1"))
        self.total = self.scale * float(os.environ.get("LIMIT", TOTAL[kind]))
        self.run = pathlib.Path(os.environ.get("BRAGG_GPU_RUN", TREE / "build/gpu/run")).resolve()
        self.work = self.run.parent / "work"
        self.out = pathlib.Path(os.environ.get("OUT") or self.run.parent).resolve()
        self.steps = [step for step in STEPS if (step.name in wanted if wanted else True) and step.limit[kind]]
        self.records = []
        self.process = None
        self.clocks = None
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.out.mkdir(parents=True, exist_ok=True)
        self.archive = self.out / "results.tar.gz"
        for old in (self.archive, self.partial):
            old.unlink(missing_ok=True)

    @property
    def partial(self):
        return self.out / "results.tar.gz.part"

    def seconds(self):
        return time.monotonic() - self.began

    def pack(self, state):
        """What is there, and what is to be said of it. A disk that is full must not end the check."""
        try:
            self.pack_all(state)
        except OSError as error:
            say(f"gpu_check: nothing packed: {error}")

    def pack_all(self, state):
        summary = {"call": self.kind, "state": state, "seconds": round(self.seconds(), 1), "steps": self.records,
                   "to_come": [step.name for step in self.steps[len(self.records):]]}
        (self.work / "check.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        (self.work / "table.txt").write_text(check_table.table(self.work), encoding="utf-8")
        with tarfile.open(self.partial, "w:gz", compresslevel=6) as archive:
            for path in sorted(self.work.iterdir()):
                if not path.is_file() or path.suffix == ".tmp":
                    continue
                content = path.read_bytes()
                if path.suffix == ".log" and len(content) > CUT:
                    content = content[: CUT // 4] + b"\n[...]\n" + content[-3 * CUT // 4 :]
                entry = tarfile.TarInfo(f"results/{path.name}")
                entry.size, entry.mtime = len(content), int(path.stat().st_mtime)
                archive.addfile(entry, io.BytesIO(content))
        os.replace(self.partial, self.archive)

    def record(self, step, result, **more):
        self.records.append({"step": step.name, "result": result, **more})

    def about(self):
        """What is measured, and on what."""
        (self.work / "commit").write_text((self.run / "commit").read_text() if (self.run / "commit").exists() else "unknown\n")
        try:
            smi = tool("nvidia-smi")
            query = "name,driver_version,compute_cap,memory.total,clocks.max.sm,clocks.max.mem,power.limit"
            done = subprocess.run([smi, f"--query-gpu={query}", "--format=csv"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  timeout=10 * self.scale, check=False)
            (self.work / "gpu.csv").write_bytes(done.stdout)
            self.clocks = Clocks(smi, self.work / "clocks.csv")
        except (LeftOut, OSError, subprocess.SubprocessError) as error:
            (self.work / "gpu.csv").write_text(f"{error}\n")

    def step(self, step):
        left = self.total - self.seconds()
        if left < LEAST * self.scale:
            return self.record(step, "left out", why="no time was left")
        try:
            command = step.command(self)
        except LeftOut as reason:
            return self.record(step, "left out", why=str(reason))
        limit = min(step.limit[self.kind] * self.scale, left)
        log = self.work / f"{step.name}.log"
        began, clock = time.time(), time.monotonic()
        environment = {**os.environ, "BRAGG_REQUIRE_DEVICE": "1", **step.environment}
        with open(log, "wb") as errors, open(self.work / step.stdout if step.stdout else os.devnull, "wb") as lines:
            try:
                self.process = start(command, env=environment, cwd=TREE, stdout=lines if step.stdout else errors,
                                     stderr=errors)
            except OSError as error:
                return self.record(step, "failed", why=str(error), seconds=0)
            try:
                status = self.process.wait(limit)
                result = {"result": "ok"} if status == 0 else {"result": "failed", "why": f"exit status {status}"}
            except subprocess.TimeoutExpired:
                result = {"result": "failed", "why": f"not done in {limit:.3g} s"}
            finally:
                end(self.process, 2 * min(self.scale, 1))
        more = self.clocks.during(began) if self.clocks else {}
        self.record(step, seconds=round(time.monotonic() - clock, 1), **result, **more)
        if result["result"] == "failed":
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
            say(f"{step.name} FAILED, {result['why']}:\n" + "\n".join(f"  {line[:200]}" for line in tail))
        return None

    def no_device(self):
        log = self.work / "device.log"
        return log.exists() and "no CUDA device" in log.read_text(encoding="utf-8", errors="replace")

    def all_steps(self):
        self.about()
        for step in self.steps:
            self.pack(f"STOPPED IN {step.name}, unless more is known")
            say(f"[{self.seconds():.0f} s] {step.name}")
            try:
                self.step(step)
            except Exception as error:  # neither is a mistake here the end of the others
                self.record(step, "failed", why=f"{type(error).__name__}: {error}", seconds=0)
            if step.name == "device" and self.no_device():
                for other in self.steps[len(self.records):]:
                    self.record(other, "left out", why="no device")
                return "NO CUDA DEVICE"
        return "complete"

    def go(self):
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        number = 0
        try:
            for each in signals:
                signal.signal(each, on_signal)
            state = self.all_steps()
        except Ended as ended:
            number = ended.number
            state = f"ended by {signal.Signals(number).name}"
            if len(self.records) < len(self.steps):
                step = self.steps[len(self.records)]
                self.record(step, "failed", why=state)
        if self.process:
            end(self.process, 0.5)
        if self.clocks:
            end(self.clocks.process, 0.5)
        self.pack(state)
        say(f"results: {self.archive}")
        say(check_table.short(check_table.table(self.work)))
        if number:
            return 128 + number
        return 1 if any(record["result"] == "failed" for record in self.records) else 0


def main(arguments):
    smoke = "--smoke" in arguments
    wanted = [name for argument in arguments if argument != "--smoke" for name in GROUPS.get(argument, [argument])]
    kind = "smoke" if smoke else "whole"
    known = [step.name for step in STEPS if step.limit[kind]]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        say(f"gpu_check: no step {', '.join(unknown)}; there are {', '.join([*known, *GROUPS])}")
        return 2
    return Check(kind, wanted).go()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
