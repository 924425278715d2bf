# SPDX-License-Identifier: Apache-2.0
"""compare.py and plot.py of a folder: bench_scripts_test.py FOLDER. Plots are skipped where there is no matplotlib."""

import copy
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

FOLDER = ""


def row(rule, n, d, ms, spread=0.01, dtype="f32", model=None, form=None):
    moved = 4 * d * (n + 1)
    quartiles = {"median": ms, "min": ms * (1 - spread), "q1": ms * (1 - spread / 2), "q3": ms * (1 + spread / 2), "max": ms * 2}
    part = {"name": "select", "ms": ms, "bytes_read": 4 * d * n, "bytes_written": 4 * d, "fma_f64": 0, "min_max": 5 * n * d,
            "lane_bits": 32, "floor_ms": ms / 2, "bound": "memory"}
    return {"rule": rule, "form": form or rule, "n": n, "d": d, "model": model, "dtype": dtype, "device": "cpu", "threads": 2,
            "ms": quartiles, "input_bytes": 4 * d * n, "bytes": moved, "gb_per_s": moved / ms / 1e6, "in_cache": False,
            "floor_ms": ms / 2, "floor_share": 0.5, "bound": "memory", "passes": [part], "peers": []}


def result(rows):
    floors = {"memory_bytes": 1 << 28, "read_gb_per_s": 20.0, "copy_gb_per_s": 18.0, "fma_f32_gflop_per_s": 200.0,
              "fma_f64_gflop_per_s": 100.0, "min_max_16_gop_per_s": 300.0, "min_max_32_gop_per_s": 150.0, "min_max_64_gop_per_s": 50.0}
    hardware = {"cpu": "A CPU", "cores": 2, "instruction_set": "AVX2", "cuda_device": None}
    return {"schema": 1, "version": "0.1.0", "commit": "abc", "date": "2026-01-02T03:04:05Z", "command": "bragg bench",
            "hardware": hardware, "device": "cpu", "threads": 2, "floors": floors, "rows": rows, "skipped": []}


class Case(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = temporary.name

    def write(self, name, content):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        return path

    def run_script(self, name, *arguments, code=0):
        command = [sys.executable, os.path.join(FOLDER, name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done


class Compare(Case):
    def compare(self, old, new, *options, code=0):
        files = self.write("old.json", result(old)), self.write("new.json", result(new))
        return self.run_script("compare.py", *files, *options, code=code).stdout

    def test_only_what_is_beyond_the_noise_has_changed(self):
        old = [row("a", 8, 1000, 10), row("b", 8, 1000, 10), row("c", 8, 1000, 10, spread=0.4), row("d", 8, 1000, 10)]
        new = [row("a", 8, 1000, 13), row("b", 8, 1000, 7), row("c", 8, 1000, 13, spread=0.4), row("d", 8, 1000, 10.2)]
        printed = self.compare(old, new)
        self.assertIn("1 slower, 1 faster, 2 the same", printed)
        self.assertRegex(printed, r"slower +\+30\.0 % +a +\(?n = 8")
        self.assertRegex(printed, r"faster +-30\.0 % +b +\(?n = 8")
        self.assertLess(printed.index("slower"), printed.index("faster"))

    def test_a_threshold_can_be_set(self):
        old, new = [row("a", 8, 1000, 10)], [row("a", 8, 1000, 10.5)]
        self.assertIn("1 slower", self.compare(old, new))
        self.assertIn("0 slower", self.compare(old, new, "--threshold", "10"))

    def test_regressions_fail_on_request(self):
        old, new = [row("a", 8, 1000, 10)], [row("a", 8, 1000, 20)]
        self.compare(old, new)
        self.compare(old, new, "--fail-on-regression", code=1)
        self.compare(new, old, "--fail-on-regression")

    def test_a_folder_gives_the_latest_of_the_same_hardware(self):
        other = result([row("a", 8, 1000, 1)])
        other["hardware"]["cpu"] = "Another CPU"
        late = result([row("a", 8, 1000, 10)]) | {"date": "2026-02-02T03:04:05Z", "commit": "late"}
        of_others = result([row("b", 8, 1000, 10)]) | {"date": "2026-03-02T03:04:05Z"}
        os.mkdir(os.path.join(self.folder, "results"))
        for name, content in (("early", result([row("a", 8, 1000, 5)])), ("other", other), ("late", late), ("rows", of_others), ("mpi", {"x": 1})):
            self.write(os.path.join("results", name + ".json"), content)
        new = self.write("new.json", result([row("a", 8, 1000, 20)]))
        folder = os.path.join(self.folder, "results")
        printed = self.run_script("compare.py", folder, new, "--fail-on-regression", code=1).stdout
        self.assertIn("late (2026-02-02", printed)
        self.assertIn("+100.0 %", printed)
        other["hardware"]["cores"] = 64
        printed = self.run_script("compare.py", folder, self.write("new.json", other), "--fail-on-regression").stdout
        self.assertIn("no result of such hardware", printed)
        self.assertIn("Another CPU, 64", printed)

    def test_rows_from_files_are_rows_of_their_own(self):
        cached = row("a", 8, 1000, 30) | {"source": "page cache"}
        disk = row("a", 8, 1000, 90) | {"source": "disk"}
        old, new = [row("a", 8, 1000, 10), cached, disk], [row("a", 8, 1000, 10) | {"source": "memory"}, cached, disk]
        self.assertIn("0 slower, 0 faster, 3 the same", self.compare(old, new))
        new[2] = row("a", 8, 1000, 190) | {"source": "disk"}
        self.assertIn("from disk", self.compare(old, new))

    def test_rows_of_a_choice_are_rows_of_their_own(self):
        old = [row("a", 8, 1000, 10), row("a", 8, 1000, 40) | {"gram": "double_float"}]
        new = [row("a", 8, 1000, 10) | {"gram": None}, row("a", 8, 1000, 40) | {"gram": "double_float"}]
        self.assertIn("0 slower, 0 faster, 2 the same", self.compare(old, new))

    def test_rows_are_matched_by_everything_that_makes_them(self):
        old = [row("a", 8, 1000, 10), row("a", 16, 1000, 10), row("a", 8, 1000, 5, dtype="f16")]
        new = [row("a", 8, 1000, 5, dtype="f16"), row("a", 8, 1000, 10)]
        printed = self.compare(old, new)
        self.assertIn("0 slower, 0 faster, 2 the same", printed)
        self.assertIn("1 rows are in the old file only", printed)

    def test_another_machine_is_mentioned(self):
        old = result([row("a", 8, 1000, 10)])
        new = copy.deepcopy(old)
        new["hardware"]["cpu"] = "Another"
        new["floors"]["read_gb_per_s"] = 40.0
        printed = self.run_script("compare.py", self.write("old.json", old), self.write("new.json", new)).stdout
        self.assertIn("cpu: A CPU, then Another", printed)
        self.assertIn("20.0, then 40.0", printed)

    def test_what_cannot_be_compared(self):
        good = self.write("good.json", result([row("a", 8, 1000, 10)]))
        other = self.write("other.json", result([row("b", 8, 1000, 10)]))
        for bad, says in [(other, "no row in common"), (self.write("a.json", "{"), "a.json"), (self.write("b.json", {"schema": 9}), "schema"),
                          (os.path.join(self.folder, "none.json"), "none.json")]:
            self.assertIn(says, self.run_script("compare.py", good, bad, code=2).stderr)


class Plot(Case):
    def example(self):
        rules = ["median", "nnm(f=F) | trimmed_mean(f=F)"]
        rows = [row(rule, n, 1000000, n * 1.5, form=rule) for rule in rules for n in (8, 16)]
        rows += [row(rule, 16, d, d * 2e-6, model=model) for rule in rules for d, model in [(269722, "resnet-20"), (25557032, "resnet-50"), (26321936, "llama-2-7b/256")]]
        rows += [row(rules[0], 16, 1000000, 12, dtype="bf16")]
        rows += [row(rules[0], 16, 25557032, ms, dtype="bf16", model="resnet-50") | {"source": source} for source, ms in (("page cache", 61), ("disk", 172))]
        rows[0]["peers"] = [
            {"peer": "one", "version": "1.0", "unsupported": None, "failure": None, "ms": {"median": 120.0}, "ratio": 10.0, "extra_memory_bytes": 5e6},
            {"peer": "two", "version": "2.0", "unsupported": None, "failure": None, "ms": {"median": 120.0}, "ratio": None, "extra_memory_bytes": None},
            {"peer": "three", "version": None, "unsupported": "no", "failure": None},
        ]
        return self.write("result.json", result(rows))

    def test_tables_have_every_row(self):
        printed = self.run_script("plot.py", self.example(), "--tables").stdout
        lines = printed.splitlines()
        self.assertIn("| rule | n = 8 | n = 16 |", lines)
        self.assertIn("| `median` | 12 ms (50 %) | 24 ms (50 %) |", lines)
        self.assertIn("| `nnm(f=F) \\| trimmed_mean(f=F)` | 12 ms (50 %) | 24 ms (50 %) |", lines)
        self.assertIn("| pass | of | n = 8 | n = 16 |", lines)
        self.assertIn("| select | `median` | 50 % | 50 % |", lines)
        self.assertIn("| `median` | 16 | 1M | 24 ms (50 %) | 12 ms (50 %) |", lines)
        self.assertIn("| resnet-50 | 25.6M | 16 | 51.1 ms (50 %) | 51.1 ms (50 %) |", lines)
        self.assertIn("| resnet-50 | 25.6M | 16 | 61 ms (50 %) |", lines)
        self.assertIn("| resnet-50 | 25.6M | 16 | 172 ms (50 %) |", lines)
        self.assertIn("| `median` | 8 | 1M | one 1.0 | 120 ms | 12 ms | 10× | 5 MB |", lines)
        self.assertIn("| `median` | 8 | 1M | two 2.0 | 120 ms | 12 ms | results differ |  |", lines)
        self.assertNotIn("three", printed)
        widths = {line.replace("\\|", "").count("|") for line in lines if line.startswith("|")}
        self.assertEqual(widths, {4, 5, 6, 9})

    @unittest.skipIf(importlib.util.find_spec("matplotlib") is None, "matplotlib is not installed")
    def test_plots_are_svg_with_axes_and_every_rule(self):
        for option, words in [
            ("--throughput", ["coordinates of an update", "GB/s", "median", "trimmed_mean", "resnet-20", "A CPU", "20 GB/s"]),
            ("--roofline", ["operations per byte", "Gop/s", "FMA f64", "min/max f32", "select", "A CPU"]),
        ]:
            path = os.path.join(self.folder, "plot.svg")
            self.run_script("plot.py", self.example(), option, path)
            text = "".join(xml.etree.ElementTree.parse(path).getroot().itertext())
            for word in words:
                self.assertIn(word, text, option)
            with open(path, "rb") as file:
                once = file.read()
            self.run_script("plot.py", self.example(), option, path)
            with open(path, "rb") as file:
                self.assertEqual(file.read(), once, "the same result is the same plot")

    @unittest.skipIf(importlib.util.find_spec("matplotlib") is not None, "matplotlib is installed")
    def test_without_matplotlib_it_says_so(self):
        path = os.path.join(self.folder, "plot.svg")
        self.assertIn("matplotlib", self.run_script("plot.py", self.example(), "--roofline", path, code=2).stderr)
        self.assertFalse(os.path.exists(path))

    def test_what_cannot_be_drawn(self):
        few = self.write("few.json", result([row("median", 8, 1000, 1)]))
        self.assertIn("fewer than two sizes", self.run_script("plot.py", few, "--throughput", "x.svg", code=2).stderr)
        self.assertIn("schema", self.run_script("plot.py", self.write("bad.json", {}), "--tables", code=2).stderr)
        self.run_script("plot.py", few, code=2)


class PassSums(Case):
    def test_pipelines_are_held_against_their_passes(self):
        variants = [{"pass": name, "n": 16, "d": 1000, "dtype": "f32", "variant": "as chosen", "chosen": chosen, "ms": ms}
                    for name, chosen, ms in (("gram", True, 1.0), ("gram", False, 9.0), ("mix+select trimmed_mean", True, 3.0))]
        whole = row("nnm(f=3) | trimmed_mean(f=3)", 16, 1000, 5, form="nnm(f=F) | trimmed_mean(f=F)")
        lines = [{"device": "a GPU"}, *variants, {"pass": "gram", "n": 64, "d": 1000, "dtype": "f32", "chosen": True, "failure": "no"}]
        cut = os.path.join(self.folder, "v.jsonl")
        with open(cut, "w") as file:
            file.write("\n".join(map(json.dumps, lines)) + '\n{"pass": "gr')  # as a kill leaves it
        files = cut, self.write("r.json", result([whole, row("median", 16, 1000, 1)]))
        out = self.run_script("gpu/pass_sums.py", *files).stdout
        self.assertEqual(out.count("\n"), 1)
        self.assertIn("passes 1.0000 + 3.0000 ms: 1.25", out)
        files = files[0], self.write("r.json", result([row("median", 16, 1000, 1)]))
        self.assertIn("no pipeline", self.run_script("gpu/pass_sums.py", *files, code=1).stderr)


class Peers(Case):
    # Enough of PyTorch to time what it is asked for: the third rule's distances never end.
    TORCH = """import sys, time, unittest.mock
torch = unittest.mock.MagicMock()
torch.__version__ = "2.0"
torch.cuda.is_available.return_value = False
torch.sort.side_effect = ValueError("has no sort")
torch.cdist.side_effect = lambda *_: time.sleep(1000)
sys.modules["torch"] = torch
"""

    def test_a_run_that_is_stopped_leaves_its_rows(self):
        self.write("torch.py", self.TORCH)
        self.write("numpy.py", self.TORCH.replace('modules["torch"]', 'modules["numpy"]'))
        bragg = self.write("bragg", "#!/bin/sh\necho no such rule >&2; exit 2\n")
        os.chmod(bragg, 0o755)
        path = os.path.join(self.folder, "peers.json")
        command = [sys.executable, os.path.join(FOLDER, "gpu/peers.py"), "--device", "cpu", "--seconds", "0.001", "--n", "4", "--d", "10",
                   "--bragg", bragg, "--json", path]
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": self.folder}, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if "torch.sort" in line:
                break
        process.kill()
        process.communicate(timeout=60)
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        self.assertIs(found["complete"], False)
        self.assertEqual([row["peer"] for row in found["rules"]], ["torch.median", "torch.sort"])
        self.assertIn("no such rule", found["rules"][0]["unchecked"])
        self.assertIn("ms", found["rules"][0])
        self.assertEqual(found["rules"][1]["failure"], "ValueError: has no sort")
        self.assertEqual(len(found["left_out"]), 2)


if __name__ == "__main__":
    FOLDER = os.path.abspath(sys.argv.pop(1))
    unittest.main()
