# SPDX-License-Identifier: Apache-2.0
"""The command, end to end: cli_test.py BRAGG. Needs nothing but Python."""

import array
import csv
import hashlib
import io
import json
import math
import os
import pty
import random
import re
import resource
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree
import zipfile

from seed import Loader, SEED, print_seed, seeded

BRAGG = ""

# Values of types that Python lacks are given and read as their bits.
FORMATS = {"F32": "f", "F64": "d", "I64": "q", "U64": "Q", "BOOL": "?", "U8": "B", "F16": "e", "BF16": "H", "F8_E4M3": "B", "F8_E5M2": "B"}


def safetensors(tensors, metadata=None):
    """The bytes of a file of {name: (dtype, shape, values)}."""
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, values) in tensors.items():
        raw = struct.pack("<%d%s" % (len(values), FORMATS[dtype]), *values)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def read_safetensors(path):
    """({name: values}, metadata)"""
    with open(path, "rb") as file:
        raw = file.read()
    (length,) = struct.unpack_from("<Q", raw)
    header = json.loads(raw[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, info in header.items():
        begin, end = info["data_offsets"]
        kind = FORMATS[info["dtype"]]
        count = (end - begin) // struct.calcsize(kind)
        tensors[name] = list(struct.unpack_from("<%d%s" % (count, kind), raw, 8 + length + begin))
    return tensors, metadata


def contents(paths):
    found = []
    for path in paths:
        with open(path, "rb") as file:
            found.append(file.read())
    return found


def hashes(contents_of):
    """What is quick to compare, and to show where it differs."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents_of.items()}


def npy(shape, values):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }" % ", ".join(map(str, shape))
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + struct.pack("<%df" % len(values), *values)


class Case(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = temporary.name
        self.output = self.path("out.safetensors")

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, content):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb" if isinstance(content, bytes) else "w") as file:
            file.write(content)
        return path

    def workers(self, rows, folder="workers"):
        """One file each of w (2 values) and a batch counter."""
        return [
            self.write(
                "%s/w%02d.safetensors" % (folder, i),
                safetensors({"w": ("F32", [2], row), "batches": ("I64", [], [10 * i])}),
            )
            for i, row in enumerate(rows)
        ]

    def run_bragg(self, *arguments, code=0, bad=0):
        """`bad`: so many inputs are named as bad, before the error if there is one."""
        done = subprocess.run([BRAGG, *seeded(arguments)], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, code, "%s\n%s%s" % (arguments, done.stdout, done.stderr))
        lines = done.stderr.splitlines()
        for line in lines[:bad]:
            self.assertTrue(line.startswith("bragg: warning: bad "), done.stderr)
        if code == 0:
            self.assertEqual(len(lines), bad, done.stderr)
        else:
            self.assertTrue(lines[bad].startswith("bragg: error: "), done.stderr)
            self.assertEqual(done.stdout, "")
        return done

    def peak_memory(self, *arguments):
        """In MiB, of a run that succeeds. A process counts the memory of the one that it was made from: it is made
        from a small one."""
        launch = (
            "import os, sys\n"
            "_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)\n"
            "print(usage.ru_maxrss)\n"
            "sys.exit(os.waitstatus_to_exitcode(status))"
        )
        done = subprocess.run([sys.executable, "-c", launch, BRAGG, *arguments], stdout=subprocess.PIPE, text=True, timeout=300)
        self.assertEqual(done.returncode, 0)
        return int(done.stdout.splitlines()[-1]) / 1024

    def aggregate(self, inputs, rule, *options, code=0, bad=0):
        return self.run_bragg("aggregate", *inputs, "--rule", rule, "-o", self.output, *options, code=code, bad=bad)

    def refused(self, inputs, rule, *options, code, says, bad=0):
        """Fails with this code and these words, and leaves nothing behind."""
        before = sorted(os.listdir(self.folder))
        done = self.aggregate(inputs, rule, *options, code=code, bad=bad)
        for words in [says] if isinstance(says, str) else says:
            self.assertIn(words, done.stderr)
        self.assertEqual(sorted(os.listdir(self.folder)), before)
        return done.stderr


FIVE = [[1, 10], [2, 20], [3, 30], [4, 40], [math.nan, math.inf]]


class Aggregate(Case):
    def test_values_and_metadata(self):
        done = self.aggregate(self.workers(FIVE), "trimmed_mean(f=1)")
        tensors, metadata = read_safetensors(self.output)
        self.assertEqual(tensors, {"w": [3, 30], "batches": [20]})
        self.assertEqual(metadata["bragg_pipeline"], "trimmed_mean(f=1)")
        self.assertEqual(metadata["bragg_n"], "5")
        self.assertEqual(metadata["bragg_version"], self.run_bragg("version").stdout.split()[1])
        for words in ["w00.safetensors", "w04.safetensors", "non-finite", "2 coordinates", "1 integer by"]:
            self.assertIn(words, done.stdout)

    def test_every_rule_runs(self):
        rows = [[1.0 + 0.01 * i, 2.0 - 0.01 * i] for i in range(9)]
        inputs = self.workers(rows)
        required = {"f": "1", "tau": "1", "c": "1", "s": "1", "gamma": "1", "lam": "4", "pivot": "0"}
        rules = json.loads(self.run_bragg("rules", "--json").stdout)
        self.assertTrue(rules)  # pipeline_test holds that none is left out
        for rule in rules:
            given = ["%s=%s" % (p["name"], required[p["name"]]) for p in rule["parameters"] if p["default"] is None]
            text = "%s(%s)" % (rule["name"], ", ".join(given))
            if rule["kind"] == "pre-aggregator":
                text += " | median"
            with self.subTest(text):
                self.aggregate(inputs, text, "--quiet")
                for value in read_safetensors(self.output)[0]["w"]:
                    self.assertTrue(0 < value < 3, value)

    def test_a_folder_of_workers_is_taken_by_name(self):
        self.workers(FIVE)
        self.write("workers/.hidden.safetensors", b"no model")
        self.write("workers/notes.txt", "no model")
        self.aggregate([self.path("workers")], "monna(f=1, pivot=1)", "--report", self.path("r.json"))
        with open(self.path("r.json")) as file:
            names = [os.path.basename(worker["name"]) for worker in json.load(file)["workers"]]
        self.assertEqual(names, ["w%02d.safetensors" % i for i in range(5)])

    def test_a_folder_of_model_folders_is_taken_by_name(self):
        for i, row in enumerate(FIVE):
            path = self.workers([row], "round/client-%d" % i)[0]
            if i == 3:  # sharded: an index with one part
                self.write("round/client-3/m.safetensors.index.json", json.dumps({"weight_map": dict.fromkeys(["w", "batches"], os.path.basename(path))}))
        self.write("round/client-0/optimizer.pt", b"no model")
        self.write("round/notes.txt", "no model")
        self.write("round/.cache/x.safetensors", b"no model")
        base = self.workers([[0, 0]], "round/global")[0]
        self.aggregate([self.path("round")], "monna(f=1, pivot=1)", "--base", base, "--report", self.path("r.json"))
        self.assertEqual(read_safetensors(self.output)[0]["w"], [2.5, 25])
        with open(self.path("r.json")) as file:
            names = [os.path.basename(worker["name"]) for worker in json.load(file)["workers"]]
        self.assertEqual(names, ["client-%d" % i for i in range(5)])

    def test_a_folder_without_a_model_beside_others_is_a_bad_input(self):
        for i in range(5):
            self.workers([[i, 2 * i]], "round/client-%d" % i)
        self.write("round/client-5/model.bin", b"no model")
        os.symlink(self.path("gone"), self.path("round/client-6"))
        done = self.aggregate([self.path("round")], "median", bad=2)
        self.assertIn("client-5", done.stderr.splitlines()[0])
        self.assertIn("client-6", done.stderr.splitlines()[1])
        self.aggregate([self.path("round")], "krum(f=2)", "--report", self.path("r.json"), bad=2)
        with open(self.path("r.json")) as file:
            self.assertEqual([w["bad"] is not None for w in json.load(file)["workers"]], [False] * 5 + [True] * 2)
        # The global model of the round before counts as well, but not without a word.
        self.write("round/old.safetensors", safetensors({"w": ("F32", [2], [7, 7]), "batches": ("I64", [], [0])}))
        command = [BRAGG, "aggregate", self.path("round"), "--rule", "median", "-o", self.output]
        says = "bragg: warning: %s holds old.safetensors and client-0: files and folders with models all count" % self.path("round")
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertIn(says, done.stderr)
        self.assertEqual((done.returncode, done.stdout.count("\n")), (0, 8 + 2))

    def test_no_worker_says_what_a_folder_is(self):
        """Each puts one thing into the folder, under a name of its choice."""
        model = lambda i: safetensors({"w": ("F32", [2], [i, -i]), "n": ("I64", [], [i])})
        everything = {"weight_map": {"w": "w00.safetensors", "n": "w11.safetensors"}}
        strange = {
            "x.npy": npy([2], [9, 9]),
            "x.npz": b"PK",
            "x.safetensors.index.json": json.dumps({"weight_map": {"w": "w03.safetensors", "n": "w03.safetensors"}}),
            "all.safetensors.index.json": json.dumps({"weight_map": {"t%d" % i: "w%02d.safetensors" % i for i in range(12)}}),
            "model.safetensors.index.json": json.dumps(everything),
            "index.json": "",
            ".index.json": b"hidden",
            "no.index.json": b"{",
            "folder/model.safetensors": model(5),
            "folder.safetensors/model.bin": b"x",
            "empty/model.bin": b"x",
        }
        for name, content in strange.items():
            for first in ["0", "w06", "z"]:
                name = first + name if not name.startswith(".") else name
                with self.subTest(name):
                    for i in range(12):
                        self.write("round/w%02d.safetensors" % i, model(i))
                    self.write("round/" + name, content)
                    command = ["aggregate", self.path("round"), "--rule", "krum(f=2)", "-q", "-o", self.output, "--report", self.path("r.json")]
                    self.run_bragg(*command)
                    with open(self.path("r.json")) as file:
                        workers = json.load(file)["workers"]
                    self.assertLessEqual({"w%02d.safetensors" % i for i in range(12)}, {os.path.basename(w["name"]) for w in workers if not w["bad"]})
                    self.assertLessEqual(len(workers), 13)
                    shutil.rmtree(self.path("round"))

    def test_a_folder_may_hold_safetensors_and_npz(self):
        self.write("round/a.npz", npz({"w.npy": npy([2], [1, 1])}))
        self.write("round/b.safetensors", safetensors({"w": ("F32", [2], [3, 3])}))
        self.write("round/c.npz", npz({"w.npy": npy([2], [9, 9])}))
        self.aggregate([self.path("round")], "median")
        self.assertEqual(read_safetensors(self.output)[0]["w"], [3, 3])
        self.write("round/d.npy", npy([2], [9, 9]))
        self.aggregate([self.path("round")], "median", bad=1)

    def test_an_input_of_weight_0_has_no_say_in_the_form(self):
        inputs = self.workers([[1, 1]] * 3 + [[5, 5]] * 2)
        for path in inputs[:3]:
            self.write(os.path.relpath(path, self.folder), safetensors({"q": ("F32", [1], [7])}))
        self.aggregate(inputs, "median", "--weights", "0,0,0,1,2")
        self.assertEqual(read_safetensors(self.output)[0]["w"], [5, 5])
        os.remove(self.output)
        self.refused(inputs, "median", "--weights", "0,0,1,1,0", code=3, says="more than half of the 2 inputs")
        self.write(os.path.relpath(inputs[0], self.folder), b"")
        self.aggregate(inputs, "median", "--weights", "0,0,0,1,2")

    def test_the_file_of_weights_is_no_output(self):
        inputs = self.workers(FIVE)
        weights = self.write("weights.safetensors", "1\n" * 5)
        self.refused(inputs, "median", "--weights", "@" + weights, "--report", weights, code=2, says="file of --weights")
        self.output = weights
        done = self.run_bragg("aggregate", *inputs, "--rule", "median", "-o", weights, "--weights", "@" + weights, code=2)
        self.assertIn("file of --weights", done.stderr)
        with open(weights) as file:
            self.assertEqual(file.read(), "1\n" * 5)

    def test_what_a_terminal_obeys_is_not_printed(self):
        for control in ["\x9b31m", "\u202e", "\u2028", "\u2066", "\x1b[2J"]:
            inputs = self.workers([[1, 1]] * 3)
            inputs.append(self.write("workers/%s.safetensors" % control, safetensors({control: ("F32", [1], [0])})))
            done = self.aggregate(inputs, "median", bad=1)
            self.assertNotIn(control[0], done.stderr + done.stdout)
            os.remove(inputs[-1])

    def test_a_folder_of_several_models_names_them(self):
        for i, row in enumerate(FIVE[:3]):
            self.workers([row], "round/client-%d" % i)
        self.workers([[1, 1]], "round/client-1/adapter")
        os.rename(self.path("round/client-1/adapter/w00.safetensors"), self.path("round/client-1/adapter_model.safetensors"))
        says = ["client-1", "adapter_model.safetensors", "w00.safetensors"]
        self.refused([self.path("round")], "median", "--strict", code=3, says=says)

    def test_an_empty_tensor_of_any_dtype_is_carried_through(self):
        # As the markers of published F8 models.
        header = {
            "marker": {"dtype": "F8_E8M0", "shape": [0], "data_offsets": [0, 0]},
            "w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        }
        text = json.dumps(header).encode()
        inputs = [
            self.write("e%d.safetensors" % i, struct.pack("<Q", len(text)) + text + struct.pack("<f", i)) for i in range(3)
        ]
        self.aggregate(inputs, "median")
        with open(self.output, "rb") as file:
            raw = file.read()
        (length,) = struct.unpack_from("<Q", raw)
        written = json.loads(raw[8 : 8 + length])
        self.assertEqual((written["marker"]["dtype"], written["marker"]["shape"]), ("F8_E8M0", [0]))
        self.assertEqual(struct.unpack("<f", raw[-4:]), (1,))

    def test_a_folder_without_its_base(self):
        self.workers([[1, 1], [3, 3]])
        base = self.write("workers/global.safetensors", safetensors({"w": ("F32", [2], [0, 0]), "batches": ("I64", [], [0])}))
        self.aggregate([self.path("workers")], "mean", "--base", base)
        self.assertEqual(read_safetensors(self.output)[0]["w"], [2, 2])

    def test_base_is_what_clipping_is_about(self):
        inputs = self.workers([[13, 14], [10, 20], [10, 10]])
        base = self.write("base.safetensors", safetensors({"w": ("F32", [2], [10, 10]), "batches": ("I64", [], [0])}))
        self.aggregate(inputs, "clip(c=5) | mean", "--base", base, "--report", self.path("r.json"))
        # (3, 4) and (0, 0) are within 5 of the base, (0, 10) is halved.
        self.assertEqual(read_safetensors(self.output)[0]["w"], [11, 13])
        with open(self.path("r.json")) as file:
            self.assertEqual([w["clip_factor"] for w in json.load(file)["workers"]], [1, 0.5, 1])

    def test_shards_without_their_index(self):
        for i in range(3):
            for k in (1, 2):
                name = "m%d/model-0000%d-of-00002.safetensors" % (i, k)
                self.write(name, safetensors({"w%d" % k: ("F32", [2], [i, i])}))
        models = [self.path("m%d" % i) for i in range(3)]
        says = "m0: this folder holds 2 shards of a model, and no *.safetensors.index.json"
        self.refused(models, "median", code=3, says=says)

    def test_a_reader_that_goes_away(self):
        inputs = self.workers(FIVE)
        read, write = os.pipe()
        os.close(read)
        command = [BRAGG, "aggregate", *inputs, "--rule", "median", "-o", self.output]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=120, preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL))
        os.close(write)
        self.assertEqual((done.returncode, done.stderr), (-signal.SIGPIPE, b""))
        self.assertEqual(read_safetensors(self.output)[0]["w"], [3, 30])

    def test_weights_without_an_end(self):
        self.refused(self.workers(FIVE), "median", "--weights", "@/dev/zero", code=4, says="/dev/zero: it has more than 64 MiB")

    def test_numbers_that_are_none_are_named(self):
        for option, value, says in [
            ("--threads", "x", "--threads: 'x' is not a whole number from 0 to 4096"),
            ("--threads", "-1", "--threads: '-1' is not a whole number from 0 to 4096"),
            ("--threads", "99999999999999999999", "--threads: '99999999999999999999' is not a whole number from 0 to 4096"),
            ("--max-weight-share", "nan", "--max-weight-share: 'nan' is not a number from 0 to 1"),
            ("--scope", "per-tenso", "--scope: 'per-tenso' is none of whole, per-tensor; did you mean per-tensor?"),
            ("--sha256=x", None, "--sha256 takes no value, but 'x' is given"),
            *(("--server-" + name, "", "--server-%s: '' is not a number" % name) for name in ("lr", "momentum", "beta1", "beta2", "tau")),
        ]:
            self.refused(self.workers(FIVE), "median", option, *([] if value is None else [value]), code=2, says=says)
        for options, says in [
            (["verify", "--quick", "--seed", "x"], "--seed: 'x' is not a whole number from 0 to 18446744073709551615"),
            (["verify", "--quick", "--seed", "-1"], "--seed: '-1' is not a whole number"),
            (["verify", "--quick", "--seed", "18446744073709551616"], "--seed: '18446744073709551616' is not a whole number"),
            (["verify", "--seconds", "nan"], "--seconds: 'nan' is not a number from 0 to 10000000"),
            (["bench", "--seconds", "nan"], "--seconds: 'nan' is not a number from 0.001 to 3600"),
            (["bench", "--n", ""], "--n: '' is not a number"),
            (["bench", "--tensors", ""], "--tensors: '' is not a number"),
            *(
                (["attack", "sign_flip", "x", "-o", "y", option, ""], option + ": '' is not a number")
                for option in ("--scale", "--epsilon", "--z", "--angle", "--b", "--most", "--deviation")
            ),
        ]:
            self.assertIn("error: " + says, self.run_bragg(*options, code=2).stderr)

    def test_names_that_are_empty_or_lead_nowhere_are_those_of_an_option(self):
        inputs = self.workers(FIVE)
        nowhere = self.path("nowhere", "x.safetensors")
        self.refused(inputs, "median", "--base", nowhere, code=4, says="error: --base: %s: cannot open it" % nowhere)
        self.refused(inputs, "median", "--base", "", code=2, says="error: --base: the name is empty")
        self.refused([inputs[0], ""], "median", code=2, says="error: INPUT: the name of input 2 of 2 is empty")
        self.assertIn("INPUT: the name of input 1 of 1 is empty", self.run_bragg("inspect", "", code=2).stderr)
        self.output = inputs[1]
        self.refused(inputs, "median", code=2, says="error: --output: %s is a file of the input" % inputs[1])
        self.output = nowhere
        self.refused(inputs, "median", code=4, says="error: --output: %s: its folder does not exist" % nowhere)

    def test_messages_without_a_majority_name_the_base_and_of_an_npy_no_tensor(self):
        two = [self.write("%d.safetensors" % i, safetensors({"w": ("F32", [i], [0] * i)})) for i in (1, 2)]
        self.refused(two, "median", code=3, says="or a base must say which are right (--base): ")
        self.output = self.path("out.npy")
        arrays = [self.write("%d.npy" % i, npy([1], [math.nan])) for i in range(3)]
        says = "error: the array: the output would hold NaN"
        self.refused(arrays, "median", "--scope", "per-tensor", code=5, says=says)

    def test_weights(self):
        inputs = self.workers([[1, 1], [3, 5], [math.nan, 7]])
        self.aggregate(inputs, "mean", "--weights", "3,1,0")
        self.assertEqual(read_safetensors(self.output)[0]["w"], [1.5, 2])
        weights = self.write("weights.txt", "# samples\n1\n\n 3 \n0\n")
        self.aggregate(inputs, "mean", "--weights", "@" + weights)
        self.assertEqual(read_safetensors(self.output)[0]["w"], [2.5, 4])
        self.aggregate(inputs, "mean", "--weights", "@" + weights, "--max-weight-share", "0.5")
        self.assertEqual(read_safetensors(self.output)[0]["w"], [2, 3])

    def test_weights_by_name(self):
        # As a shell sorts names without leading zeros: a list by position would give 10 the weight of 2.
        rows = {"client-%d.safetensors" % i: [i, 10 * i] for i in range(1, 13)}
        inputs = [self.write("w/" + name, safetensors({"w": ("F32", [2], row)})) for name, row in rows.items()]
        inputs.sort()
        lines = ["client-%d.safetensors %d" % (i, 1 if i == 2 else 3 if i == 10 else 0) for i in range(1, 13)]
        csv_lines = ["name,weight", *('"%s", %s' % tuple(line.split()) for line in lines)]
        paths = [self.path("w", lines[0]), os.path.relpath(self.path("w", lines[1])), *lines[2:]]
        for text in [
            "\n".join(lines),
            "\ufeff# samples\r\n\r\n" + "\r\n".join(reversed(lines)) + "\r\n",
            "\ufeff" + "\r\n".join(csv_lines),
            "\n".join(line.replace(" ", "\t") for line in lines),
            "\n".join(line.replace(" ", ",") for line in paths),
            "\n".join(paths),
        ]:
            weights = self.write("weights.txt", text.encode())
            done = self.aggregate(inputs, "mean", "--weights", "@" + weights)
            self.assertEqual(read_safetensors(self.output)[0]["w"], [8, 80], text)
            self.assertRegex(done.stdout, r"client-10\.safetensors +3 +yes +0\.75 ")
            self.assertRegex(done.stdout, r"client-1\.safetensors +0 +no +0 ")
        self.aggregate([self.path("w")], "mean", "--weights", "@" + weights)
        self.assertEqual(read_safetensors(self.output)[0]["w"], [8, 80])

    def test_weights_of_folders_by_name(self):
        inputs = [os.path.dirname(self.workers([[i, i]], "llm-%d" % i)[0]) for i in (1, 2)]
        weights = self.write("weights.csv", "llm-2,1\nllm-1/,3\n")
        self.aggregate([inputs[0] + "/", inputs[1]], "mean", "--weights", "@" + weights)
        self.assertEqual(read_safetensors(self.output)[0]["w"], [1.25, 1.25])

    def test_weights_with_names_that_do_not_match(self):
        inputs = self.workers([[1, 1], [2, 2]])
        other = self.workers([[3, 3]], "other")  # w00.safetensors once more
        for text, says in [
            ("w00.safetensors 1\nw02.safetensors 1\n", "line 2: no input has the path or the file name 'w02.safetensors'; did you mean w0"),
            ("w00.safetensors 1\n\n# twice\nw00.safetensors 2\n", "lines 1 and 4: both are of " + inputs[0]),
            ("w00.safetensors 1\n", "has no line for " + inputs[1]),
            ("w00.safetensors 1\n2\n", "line 2: '2' has no name, but line 1 has one"),
            ("1\nw00.safetensors 2\n", "line 2: 'w00.safetensors 2' has a name, but line 1 has none"),
            ("w00.safetensors 1\nw01.safetensors many\n", "line 2: 'many' is not a number"),
            ("w00.safetensors 1\nw01.safetensors 1e400\n", "line 2: '1e400' is beyond the range"),
            ("w00.safetensors 1\nw01.safetensors 1e-400\n", "line 2: '1e-400' is beyond the range"),
            ("1\n1e-400\n", "line 2: '1e-400' is beyond the range"),
            ("w00.safetensors 1\n,2\n", "line 2: the name is empty"),
            ("w00.safetensors\n", "line 1: 'w00.safetensors' is not a number"),
            ("name,weight\n", "holds no number"),
        ]:
            weights = self.write("weights.txt", text)
            self.refused(inputs, "mean", "--weights", "@" + weights, code=2, says=["--weights: " + weights, says])
        # Who hands in nothing does not stop the others.
        weights = self.write("weights.txt", "w00.safetensors 1\nw07.safetensors 1\nw01.safetensors 3\nx 1\n")
        command = ["aggregate", *inputs, "--rule", "mean", "-o", self.output, "--weights", "@" + weights]
        done = subprocess.run([BRAGG, *command], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, r"\Abragg: warning: --weights: .*, line 2: no input has .*'w07.safetensors'.*; and 1 more like it\n\Z")
        self.assertEqual(read_safetensors(self.output)[0]["w"], [1.75, 1.75])
        weights = self.write("weights.txt", "w00.safetensors 1\nw01.safetensors 1\n")
        self.refused([*inputs, *other], "mean", "--weights", "@" + weights, code=2, says=["line 1", "is the name of", "give their paths"])
        weights = self.write("weights.txt", "w01.safetensors +1\n%s 0\n%s 1\n" % (inputs[0], other[0]))
        self.aggregate([*inputs, *other], "mean", "--weights", "@" + weights)
        self.assertEqual(read_safetensors(self.output)[0]["w"], [2.5, 2.5])

    def test_out_dtype(self):
        # Of 12 workers 9 hold 1 and 3 the next bf16: the mean is not one of them.
        inputs = [
            self.write("b%02d.safetensors" % i, safetensors({"w": ("BF16", [1], [0x3F80 if i < 9 else 0x3F81])})) for i in range(12)
        ]
        self.aggregate(inputs, "mean")
        self.assertEqual(read_safetensors(self.output)[0]["w"], [0x3F80])
        for out, expected in [("f32", 1.001953125), ("F64", 1.001953125), ("bf16", 0x3F80), ("f16", 1.001953125), ("F8_E4M3", 0x38)]:
            self.aggregate(inputs, "mean", "--out-dtype", out)
            self.assertEqual(read_safetensors(self.output)[0]["w"], [expected], out)
        self.aggregate(self.workers(FIVE), "median", "--out-dtype", "bf16")  # integers stay
        self.assertEqual(read_safetensors(self.output)[0], {"w": [0x4040, 0x41F0], "batches": [20]})
        self.output = self.path("other.safetensors")
        large = [self.write("l%d.safetensors" % i, safetensors({"w": ("F32", [2], [1, 500])})) for i in range(3)]
        self.refused(large, "median", "--out-dtype", "f8_e4m3", code=2, says=["--out-dtype = F8_E4M3: 1 of the values", '"w"'])
        self.refused(large, "median", "--out-dtype", "i8", code=2, says="--out-dtype")
        self.output = self.path("other.npy")
        arrays = [self.write("%d.npy" % i, npy([2], [i, i])) for i in range(3)]
        self.refused(arrays, "median", "--out-dtype", "bf16", code=2, says=["cannot be written to npy", ".safetensors", "(--out-dtype)"])
        self.aggregate(arrays, "median", "--out-dtype", "f16")
        with open(self.output, "rb") as file:
            raw = file.read()
        self.assertIn(b"'<f2'", raw)
        self.assertEqual(struct.unpack("<2e", raw[-4:]), (1, 1))

    def test_eight_bits(self):
        # 0x38 is 1, 0x40 is 2 in E4M3; 0x7F is NaN.
        rows = [[0x38, 0xB8], [0x38, 0x38], [0x40, 0x38], [0x40, 0x38], [0x7F, 0x38]]
        inputs = [
            self.write("f%d.safetensors" % i, safetensors({"n": ("BF16", [1], [0x3F80]), "w": ("F8_E4M3", [2], row)}))
            for i, row in enumerate(rows)
        ]
        done = self.aggregate(inputs, "trimmed_mean(f=1)")
        self.assertEqual(read_safetensors(self.output)[0], {"n": [0x3F80], "w": [0x3D, 0x38]})  # (1 + 2 + 2) / 3 is 1.625
        self.assertRegex(done.stdout, r"f4\.safetensors .* 1\n")
        self.aggregate(inputs, "multi_krum(f=1, m=2)", "--out-dtype", "f32", "--scope", "per-tensor")
        self.assertEqual(read_safetensors(self.output)[0], {"n": [1], "w": [2, 1]})

    def test_npy(self):
        self.output = self.path("out.npy")
        rows = [self.write("%d.npy" % i, npy([3], [i, 2 * i, -i])) for i in range(3)]
        self.aggregate(rows, "median")
        with open(self.output, "rb") as file:
            self.assertEqual(struct.unpack("<3f", file.read()[-12:]), (1, 2, -1))
        matrix = self.write("matrix.npy", npy([3, 2], [1, 2, 5, 6, 3, 9]))
        done = self.aggregate([matrix], "median")
        with open(self.output, "rb") as file:
            self.assertEqual(struct.unpack("<2f", file.read()[-8:]), (3, 6))
        self.assertIn("matrix.npy[2]", done.stdout)

    def test_the_thread_count_changes_nothing(self):
        inputs = self.workers([[math.sin(7 * i), math.cos(5 * i)] for i in range(9)])
        outputs = []
        for threads in ["1", "2"]:
            self.aggregate(inputs, "nnm(f=2) | geometric_median", "--threads", threads)
            with open(self.output, "rb") as file:
                outputs.append(file.read())
        self.assertEqual(*outputs)

    def test_quiet_is_silent(self):
        done = self.aggregate(self.workers(FIVE), "median", "--quiet")
        self.assertEqual(done.stdout, "")

    def test_a_failed_run_keeps_the_former_output(self):
        self.write("out.safetensors", "former")
        self.refused(self.workers(FIVE), "median", "--weights", "1", code=2, says="weights")
        with open(self.output) as file:
            self.assertEqual(file.read(), "former")

    def large_workers(self, count):
        """Files of 25 MB of one tensor; the first value of worker 3 is 100."""
        block = array.array("f", [math.sin(i) for i in range(1 << 16)]) * 96
        header = json.dumps({"w": {"dtype": "F32", "shape": [len(block)], "data_offsets": [0, 4 * len(block)]}}).encode()
        inputs = []
        for i in range(count):
            block[0] = 100 * (i == 3)
            inputs.append(self.write("%02d.safetensors" % i, struct.pack("<Q", len(header)) + header + block.tobytes()))
        return inputs, block

    def test_an_interrupted_run_leaves_nothing(self):
        inputs, _ = self.large_workers(6)
        before = sorted(os.listdir(self.folder))
        command = [BRAGG, "aggregate", *inputs, "--rule", "krum(f=1)", "--device", "cpu", "--memory", "1MiB", "-o", self.output]
        for number in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]:
            early = 0
            for _ in range(20):
                process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                time.sleep(random.uniform(0.02, 0.06) * (1 + early / 2))
                process.send_signal(number)
                _, errors = process.communicate(timeout=60)
                if os.path.exists(self.output):
                    os.remove(self.output)  # it was faster than the signal
                elif number == signal.SIGKILL or process.returncode != -number:
                    break
                else:
                    early += 1  # the signal was there before the command had begun
            if number == signal.SIGKILL:
                self.assertEqual(process.returncode, -number)
            else:
                self.assertEqual(process.returncode, 128 + number, errors)
                self.assertIn("interrupted; nothing was written", errors)
            self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_an_interrupt_between_the_passes_ends_the_run(self):
        rows = [[math.sin(i * i + 7 * j) * 10.0 ** (30 * math.sin(i) * (i < 100)) for j in range(20)] for i in range(500)]
        self.output = self.path("out.npy")
        inputs = [self.write("x.npy", npy([500, 20], [x for row in rows for x in row]))]
        process = subprocess.Popen(
            [BRAGG, "aggregate", *inputs, "--rule", "caf(f=100)", "--threads", "1", "-o", self.output], stderr=subprocess.PIPE, text=True
        )
        time.sleep(0.5)  # caf takes seconds, reading none
        began = time.time()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertLess(time.time() - began, 1)
        self.assertEqual(process.returncode, 130, errors)
        self.assertEqual(os.listdir(self.folder), ["x.npy"])

    def test_workers_of_values_too_large_to_measure_are_named(self):
        rows = [[1, 2], [1e200, 2], [1.5, math.nan], [2, 1], [1, -1e200], [1, 1], [1, 1.5]]
        inputs = [self.write("%d.safetensors" % i, safetensors({"w": ("F64", [2], row)})) for i, row in enumerate(rows)]
        says = [
            "1 of 7 hold NaN or infinity: %s (1 value); 2 of 7 hold values too large to measure" % inputs[2],
            "the others): %s, %s; raise f" % (inputs[1], inputs[4]),
        ]
        self.refused(inputs, "krum(f=2)", code=5, says=says)
        self.refused(inputs, "nnm(f=2) | arc(f=2) | krum(f=2)", code=5, says=says)
        self.refused(inputs, "krum(f=2)", "--scope", "per-tensor", code=5, says=says)

    def test_what_may_take_long_is_said_before(self):
        def notes(n, rule, row, *options):
            inputs = self.write("x.npy", npy([n, 2], row * n))
            done = subprocess.run(
                [BRAGG, "aggregate", inputs, "--rule", rule, "-o", self.path("out.npy"), *options], capture_output=True, text=True, timeout=120
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stderr

        # Equal rows have no variance: caf ends at once, but that is not known before.
        said = notes(800, "caf(f=399)", [1, 2])
        self.assertRegex(said, r"^bragg: note: caf\(f=399\) may need up to [0-9.:]+ (s|min) of processor time for this many workers\n$")
        self.assertEqual(notes(800, "caf(f=399)", [1, 2], "--quiet"), "")
        self.assertEqual(notes(800, "krum(f=100)", [1, 2]), "")
        self.assertEqual(notes(100, "caf(f=49)", [1, 2]), "")

        rows = npy([800, 3], [math.sin(1 + i * i) for i in range(2400)])
        process = subprocess.Popen(
            [BRAGG, "aggregate", self.write("y.npy", rows), "--rule", "caf(f=399)", "-o", self.path("late.npy")],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.assertIn("bragg: note: ", process.stderr.readline())
        process.send_signal(signal.SIGINT)
        began = time.time()
        _, errors = process.communicate(timeout=60)
        self.assertLess(time.time() - began, 1)
        self.assertEqual(process.returncode, 130, errors)
        self.assertFalse(os.path.exists(self.path("late.npy")))

    def test_an_interrupt_within_any_solver_ends_the_run(self):
        def unit(i, j):
            return math.sin(1 + 7919 * i + 104729 * j * j) * 1e4 % 1

        def interrupted(*command):
            process = subprocess.Popen([BRAGG, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            time.sleep(0.5)
            self.assertIsNone(process.poll(), "too fast to be interrupted")
            began = time.time()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
            self.assertLess(time.time() - began, 1)
            self.assertEqual(process.returncode, 130, errors)
            self.assertIn("interrupted; ", errors)

        for n, rule in [(4000, "geometric_median"), (4000, "bulyan(f=999)")]:
            with self.subTest(rule):
                rows = npy([n, 3], [unit(i, j) for i in range(n) for j in range(3)])
                inputs = self.write("x.npy", rows)
                options = ["--rule", rule, "--memory", "4GiB", "-o", self.path("out.npy")]
                interrupted("aggregate", inputs, *options)
                self.assertEqual(os.listdir(self.folder), ["x.npy"])
        interrupted("verify", "--device", "cpu")
        interrupted("verify", "--aimed", "--device", "cpu")
        interrupted("bench", "--rule", "caf(f=F)", "--n", "600", "--d", "1000", "--device", "cpu", "--seconds", "0.01")

    def test_what_nohup_ignores_stays_ignored(self):
        inputs, _ = self.large_workers(6)
        command = [BRAGG, "aggregate", *inputs, "--rule", "krum(f=1)", "--device", "cpu", "--memory", "1MiB", "-q", "-o", self.output]
        process = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        time.sleep(0.05)
        process.send_signal(signal.SIGHUP)
        self.assertEqual(process.wait(timeout=60), 0)

    @unittest.skipIf(os.environ.get("BRAGG_SANITIZE"), "sanitizers take memory of their own")
    def test_memory_is_bounded_on_files_many_times_larger(self):
        inputs, block = self.large_workers(12)
        rule = ["--rule", "nnm(f=2) | trimmed_mean(f=2)", "--device", "cpu", "--memory", "64MiB", "--quiet"]
        # 64 MiB and as much again for the program, its libraries and threads; the files hold 300 MB.
        self.assertLess(self.peak_memory("aggregate", *inputs, *rule, "-o", self.output), 2 * 64)
        result = read_safetensors(self.output)[0]["w"]
        self.assertEqual(result[0], 0)
        self.assertEqual(result[1 << 16 : 1 << 17], list(block[1 << 16 : 1 << 17]))

    @unittest.skipIf(os.environ.get("BRAGG_SANITIZE"), "sanitizers take memory of their own")
    def test_memory_is_bounded_for_what_n_takes(self):
        rows = 800
        inputs = self.write("x.npy", npy([rows, 2], [math.sin(i * i) for i in range(2 * rows)]))
        self.output = self.path("out.npy")
        command = ["aggregate", inputs, "--device", "cpu", "--quiet", "-o", self.output, "--rule"]
        for rule in ["krum(f=150)", "nnm(f=150) | nnm(f=150) | median"]:
            with self.subTest(rule):
                refused = self.run_bragg(*command, rule, "--memory", "1MiB", code=4).stderr
                needed = int(re.search(r"needs ([0-9]+) MiB", refused).group(1))
                self.assertLess(self.peak_memory(*command, rule, "--memory", "%dMiB" % needed), needed + 12)

    @unittest.skipIf(os.environ.get("BRAGG_SANITIZE"), "sanitizers take memory of their own")
    def test_memory_is_bounded_for_the_tables_of_tensors(self):
        count = 100000
        entry = '"%06d":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
        header = "{%s}" % ",".join(entry % (i, 4 * i, 4 * i + 4) for i in range(count))
        raw = struct.pack("<Q", len(header)) + header.encode() + bytes(4 * count)
        inputs = [self.write("many%d.safetensors" % k, raw) for k in range(3)]
        command = ["aggregate", *inputs, "--rule", "median", "--scope", "per-tensor", "--device", "cpu", "-q", "-o", self.output]
        refused = self.run_bragg(*command, "--memory", "1MiB", code=4).stderr
        needed = int(re.search(r"needs ([0-9]+) MiB", refused).group(1))
        self.assertLess(self.peak_memory(*command, "--memory", "%dMiB" % needed), needed + 64)


def npz(arrays, method=zipfile.ZIP_STORED, zip64=False):
    """The bytes of an archive of {name: bytes}."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in arrays.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(content)
    return out.getvalue()


class Npz(Case):
    def test_archives_are_read(self):
        rows = [[1, 10], [2, 20], [9, 90]]
        kinds = [(zipfile.ZIP_STORED, False), (zipfile.ZIP_DEFLATED, False), (zipfile.ZIP_STORED, True), (zipfile.ZIP_DEFLATED, True)]
        for method, zip64 in kinds:
            inputs = [
                self.write("n%d.npz" % i, npz({"layer.w.npy": npy([2], row), "b.npy": npy([1], [i])}, method, zip64))
                for i, row in enumerate(rows)
            ]
            self.aggregate(inputs, "median")
            self.assertEqual(read_safetensors(self.output)[0], {"layer.w": [2, 20], "b": [1]})
        # In any order of the members, beside safetensors of the same form, from a folder, with a comment.
        reverse = npz({"b.npy": npy([1], [1]), "layer.w.npy": npy([2], rows[1])})
        inputs[1] = self.write("n1.npz", reverse[:-2] + struct.pack("<H", 4) + b"PK\5\6")
        inputs[2] = self.write("n2.safetensors", safetensors({"b": ("F32", [1], [5]), "layer.w": ("F32", [2], [7, 70])}))
        self.aggregate(inputs, "median", "--base", inputs[0])
        self.assertEqual(read_safetensors(self.output)[0], {"layer.w": [2, 20], "b": [1]})
        folder = [self.write("round/%d.npz" % i, npz({"w.npy": npy([1], [i])})) for i in range(3)]
        self.aggregate([os.path.dirname(folder[0])], "median")
        self.assertEqual(read_safetensors(self.output)[0], {"w": [1]})

    def test_an_archive_is_written(self):
        inputs = [
            self.write(
                "%d.safetensors" % i,
                safetensors({"a.w": ("F32", [2, 3], [i * k for k in range(6)]), "ü": ("F16", [0], []), "n": ("I64", [], [i])}),
            )
            for i in range(3)
        ]
        self.output = self.path("out.npz")
        self.aggregate(inputs, "median")
        with zipfile.ZipFile(self.output) as archive:
            self.assertIsNone(archive.testzip())  # every CRC is right
            self.assertEqual(archive.namelist(), ["a.w.npy", "n.npy", "ü.npy"])
            self.assertEqual(archive.read("a.w.npy"), npy([2, 3], range(6)).replace(b"(2, 3,), }", b"(2, 3), } "))
            self.assertIn(b"'descr': '<i8', 'fortran_order': False, 'shape': ()", archive.read("n.npy"))
            self.assertEqual(archive.read("n.npy")[-8:], struct.pack("<q", 1))
        # Large enough for several windows; read back as a worker's.
        large = [self.write("l%d.npz" % i, npz({"w.npy": npy([300000], [i * k % 97 for k in range(300000)])})) for i in range(3)]
        for scope in ["whole", "per-tensor"]:
            self.aggregate(large, "krum(f=0)", "--memory", "1MiB", "--scope", scope, "--report", self.path("r.json"))
            with zipfile.ZipFile(self.output) as archive:
                self.assertIsNone(archive.testzip())
                values = struct.unpack("<300000f", archive.read("w.npy")[128:])
            self.assertIn(list(values), [[i * k % 97 for k in range(300000)] for i in range(3)])
            written, self.output = self.output, self.path("again.safetensors")
            self.aggregate([written], "mean")
            self.assertEqual(read_safetensors(self.output)[0]["w"], list(values))
            self.output = written
        os.remove(self.output)
        half = [self.write("b%d.safetensors" % i, safetensors({"w": ("BF16", [1], [i])})) for i in range(3)]
        self.refused(half, "median", code=2, says="cannot be written to npy")
        self.aggregate(half, "median", "--out-dtype", "f32")
        arrays = [self.write("%d.npy" % i, npy([2], [i, i])) for i in range(3)]
        os.remove(self.output)
        self.refused(arrays, "median", code=2, says="npy inputs make an npy")

    def test_deflated_arrays_are_read_in_windows(self):
        count, outputs = 300000, []
        for method in [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]:
            inputs = []
            for i in range(4):
                values = [float((k * 7 + i * i) % 1000) for k in range(count)]
                content = npz({"a.npy": npy([3], [i, i, i]), "w.npy": npy([count], values), "z.npy": npy([5], [i] * 5)}, method)
                inputs.append(self.write("%d.npz" % i, content))
            for scope, judged in [("whole", ["--judge-by", "w"]), ("per-tensor", [])]:
                self.aggregate(inputs, "nnm(f=1) | krum(f=0)", "--memory", "1MiB", "--scope", scope, *judged)
                outputs.append((scope, read_safetensors(self.output)[0]))
        self.assertEqual(outputs[0], outputs[2])
        self.assertEqual(outputs[1], outputs[3])

    def test_what_an_archive_may_not_be(self):
        good = {"w.npy": npy([2], [1, 2])}
        deflated = npz({"w.npy": npy([1000], [1] * 1000)}, zipfile.ZIP_DEFLATED)
        stored = npz(good)
        entry = stored.index(b"PK\1\2")
        twice = npz({**good, "v.npy": npy([2], [3, 4])})
        second = twice.rindex(b"PK\1\2")

        def patched(content, at, raw):
            return content[:at] + raw + content[at + len(raw) :]

        huge = struct.pack("<I", 1 << 30)
        for name, content, says in [
            ("cut", stored[:-1], "no end of a zip archive"),
            ("no archive", b"x" * 100, "no end of a zip archive"),
            ("pickle", b"\x80\x02}q\x00" + bytes(30), "pickle"),
            ("torch", npz({"archive/data.pkl": b"x"}), "PyTorch file"),
            ("other files", npz({"a.txt": b"x"}), "is a zip archive"),
            ("other files later", npz({**good, "a.txt": b"x"}), "a.txt\", which is no npy array"),
            ("objects", npz({"w.npy": npy([2], [1, 2]).replace(b"'<f4'", b"'|O' ")}), '"w.npy": npy descr'),
            ("lzma", npz(good, zipfile.ZIP_LZMA), "packed by method 14"),
            ("encrypted", patched(stored, entry + 8, b"\1\0"), "is encrypted"),
            ("more bytes than packed", patched(stored, entry + 24, huge), "more bytes than the archive can hold"),
            ("a bomb", patched(deflated, deflated.index(b"PK\1\2") + 24, struct.pack("<I", 1031 * deflated.index(b"PK\1\2"))), "packed into"),
            ("another place", patched(stored, entry + 42, b"\7"), "where the directory says"),
            ("overlap", patched(twice, second + 42, bytes(4)), "where the directory says"),
            ("a member twice", patched(patched(twice, second + 42, bytes(4)), second + 46, b"w"), "overlap"),
            ("two of one name", patched(patched(twice, second + 46, b"w"), twice.rindex(b"PK\3\4") + 30, b"w"), "is there twice"),
            ("directory too short", patched(stored, len(stored) - 10, b"\1"), "the directory is said to be"),
            ("count", patched(stored, len(stored) - 12, b"\2"), "but says 2"),
            ("nothing in it", npz({}), "no tensor"),
        ]:
            with self.subTest(name):
                self.output = self.path("never.safetensors")
                bad = self.write("bad.npz", content)
                self.refused([bad], "mean", code=3, says=["bad.npz", says])

    def test_damaged_deflated_data_is_a_bad_row(self):
        rows = [{"w.npy": npy([1000], [i + k % 7 for k in range(1000)])} for i in range(5)]
        inputs = [self.write("%d.npz" % i, npz(row, zipfile.ZIP_DEFLATED)) for i, row in enumerate(rows)]
        self.aggregate(inputs, "median")
        with open(inputs[4], "rb") as file:
            good = file.read()
        entry = good.index(b"PK\1\2")
        for name, content in {
            "crc": good[: entry + 16] + b"\0\0\0\0" + good[entry + 20 :],
            "stream": good[: entry - 40] + bytes(20) + good[entry - 20 :],
        }.items():
            with self.subTest(name):
                self.write("4.npz", content)
                self.aggregate(inputs, "median", bad=1)
                self.refused(inputs, "median", "--strict", code=3, says="4.npz")

    def test_damaged_stored_data_is_a_bad_row(self):
        count = 300000
        arrays = {"a.npy": npy([3], [1, 2, 3]), "w.npy": npy([count], range(count)), "z.npy": npy([0], [])}
        good = npz(arrays)
        inputs = [self.write("%d.npz" % i, good) for i in range(5)]
        for name, at in {
            "the first byte": good.index(arrays["w.npy"]) + 128,
            "the last byte": good.index(arrays["w.npy"]) + len(arrays["w.npy"]) - 1,
            "a byte in the middle": good.index(arrays["w.npy"]) + 128 + 2 * count,
            "the header's blanks": good.index(arrays["w.npy"]) + 126,
            "the checksum": good.rindex(b"w.npy") - 30,
        }.items():
            for memory, rule in [("1MiB", "krum(f=1)"), ("1GiB", "median")]:
                with self.subTest(name, memory=memory):
                    self.write("3.npz", good[:at] + bytes([good[at] ^ (0x29 if name == "the header's blanks" else 1)]) + good[at + 1 :])
                    done = self.aggregate(inputs, rule, "--memory", memory, bad=1)
                    self.assertIn('3.npz: npz: array "w" is damaged: its CRC-32 is not the directory\'s', done.stderr)
                    self.assertEqual(read_safetensors(self.output)[0]["w"], list(range(count)))
        self.assertIn("is damaged", self.run_bragg("inspect", *inputs).stdout)
        self.assertIn("is damaged", self.run_bragg("attack", "mimic", *inputs, "-o", self.path("drill"), code=3).stderr)


class Shards(Case):
    """-o FOLDER --shard-size SIZE."""

    def setUp(self):
        super().setUp()
        # 100, 250, 1000 and 30 bytes of four tensors, and 8 of a counter.
        sizes = {"a": 25, "b": 125, "c": 250, "d": 15}
        kinds = {"a": "F32", "b": "F16", "c": "F32", "d": "F16"}
        self.inputs = []
        for i in range(3):
            tensors = {name: (kinds[name], [size], [(i + k) % 7 for k in range(size)]) for name, size in sizes.items()}
            tensors["steps"] = ("I64", [], [i])
            self.inputs.append(self.write("w%d.safetensors" % i, safetensors(tensors, {"format": "pt"})))
        self.aggregate(self.inputs, "median")
        self.expected = read_safetensors(self.output)[0]
        self.output = self.path("model")

    def test_a_model_in_shards(self):
        self.aggregate(self.inputs, "median", "--shard-size", "400B")
        # a and b fit together, c has a shard to itself, d and the counter share the last.
        names = ["model-0000%d-of-00003.safetensors" % k for k in (1, 2, 3)]
        self.assertEqual(sorted(os.listdir(self.output)), [*names, "model.safetensors.index.json"])
        with open(self.path("model", "model.safetensors.index.json")) as file:
            index = json.load(file)
        self.assertEqual(index["metadata"], {"total_size": 1388})
        self.assertEqual(index["weight_map"], {"a": names[0], "b": names[0], "c": names[1], "d": names[2], "steps": names[2]})
        found = {}
        for name in names:
            tensors, metadata = read_safetensors(self.path("model", name))
            self.assertEqual((metadata["format"], metadata["bragg_pipeline"]), ("pt", "median"))
            found.update(tensors)
        self.assertEqual(found, self.expected)
        # It is an input like any other.
        folder, self.output = self.output, self.path("again.safetensors")
        self.aggregate([folder, *self.inputs[:2]], "median")

    def test_one_shard_is_one_file(self):
        self.aggregate(self.inputs, "median", "--shard-size", "5GB")
        self.assertEqual(os.listdir(self.output), ["model.safetensors"])
        self.assertEqual(read_safetensors(self.path("model", "model.safetensors"))[0], self.expected)

    def test_other_files_of_the_folder_stay(self):
        self.write("model/config.json", "{}")
        self.aggregate(self.inputs, "median", "--shard-size", "1100B", "--scope", "per-tensor")
        with open(self.path("model", "config.json")) as file:
            self.assertEqual(file.read(), "{}")
        self.assertEqual(len(os.listdir(self.output)), 1 + 2 + 1)

    def test_a_model_that_is_there_stays(self):
        for name in ["model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]:
            path = self.write("model/" + name, "former")
            self.refused(self.inputs, "median", "--shard-size", "400B", code=2, says=["holds a model already", name])
            with open(path) as file:
                self.assertEqual(file.read(), "former")
            self.assertEqual(os.listdir(self.output), [name])
            os.remove(path)

    def test_what_fails_leaves_no_folder(self):
        bad = safetensors({"a": ("F32", [2], [math.nan, 1])})
        inputs = [self.write("bad%d.safetensors" % i, bad) for i in range(3)]
        self.refused(inputs, "nnm(f=1) | median", "--shard-size", "4B", code=5, says="too many workers")
        self.refused(self.inputs, "median", "--shard-size", "0", code=2, says="--shard-size")
        self.refused(self.inputs, "median", "--shard-size", "lots", code=2, says="--shard-size: 'lots'")
        many = {"t%d" % k: ("U8", [1], [1]) for k in range(600)}
        self.refused([self.write("many.safetensors", safetensors(many))], "mean", "--shard-size", "1", code=2, says=["--shard-size = 1", "600 files"])
        self.output = self.path("none", "model")
        self.refused(self.inputs, "median", "--shard-size", "400B", code=4, says="No such file")

    def test_names_say_what_is_written(self):
        shards = ["--shard-size", "400B"]
        for name, options, says in [
            ("x.safetensors", shards, "give that of a folder"),
            ("x.safetensors.index.json", shards, "give that of a folder"),
            ("w0.safetensors/x", shards, "Not a directory"),
            ("", [], "is a folder"),
            ("x.txt", [], "does not say what it is to be"),
            ("x.bin", [], "does not say what it is to be"),
            ("x", [], "does not say what it is to be"),
            ("x.npy", [], "make no npy"),
        ]:
            self.output = self.path(name)
            self.refused(self.inputs, "median", *options, code=4 if "Not a" in says else 2, says=says)
        arrays = [self.write("%d.npy" % i, npy([2], [i, i])) for i in range(3)]
        self.output = self.path("y.safetensors")
        self.refused(arrays, "median", code=2, says="npy inputs make an npy")
        self.output = self.path("y")
        self.refused(arrays, "median", *shards, code=2, says="npy inputs make one npy")
        self.write("file", "former")
        self.output = self.path("file")
        self.refused(self.inputs, "median", *shards, code=2, says="is no folder")

    def test_an_interrupt_leaves_no_folder(self):
        rows = [[math.sin(i * i + 7 * j) * 10.0 ** (30 * math.sin(i) * (i < 100)) for j in range(20)] for i in range(500)]
        inputs = [self.write("n%03d.safetensors" % i, safetensors({"a": ("F32", [20], row), "b": ("F32", [1], [1])})) for i, row in enumerate(rows)]
        before = sorted(os.listdir(self.folder))
        command = [BRAGG, "aggregate", *inputs, "--rule", "caf(f=100)", "--threads", "1", "-o", self.output, "--shard-size", "80B"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while not os.path.isdir(self.output) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        self.assertIn("nothing was written", errors)
        self.assertEqual(sorted(os.listdir(self.folder)), before)


class WhichTensors(Case):
    def site(self, i, weights, variance):
        return self.write(
            "sites/site%d.safetensors" % i,
            safetensors(
                {
                    "bn.num_batches_tracked": ("I64", [], [i]),
                    "bn.running_var": ("F32", [2], [variance + i, variance - i]),
                    "fc.weight": ("F32", [50], [0.01 * w for w in weights]),
                }
            ),
        )

    def sites(self):
        """Nine sites: of site 3 the variance is another, site 6 sends its weights times -10."""
        draw = random.Random(9)
        honest = [draw.gauss(1, 1) for _ in range(50)]
        paths = []
        for i in range(9):
            weights = [w + 0.1 * draw.gauss(0, 1) for w in honest]
            paths.append(self.site(i, [-10 * w for w in weights] if i == 6 else weights, 3e4 if i == 3 else 1e4))
        return paths

    def kept(self, *options, rule="multi_krum(f=1)", warned=False):
        report = self.path("report.json")
        command = [BRAGG, "aggregate", *self.sites(), "--rule", rule, "-o", self.output, "--report", report, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual("warning: tensor \"bn.running_var\" makes 100 % of the distances" in done.stderr, warned, done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1 if warned else 0)
        with open(report) as file:
            self.report = json.load(file)
        return [worker["selected"] for worker in self.report.get("workers", [])]

    def test_statistics_decide_unless_they_are_left_out(self):
        self.assertEqual(self.kept(warned=True), [i != 3 for i in range(9)])
        self.assertEqual([s["name"] for s in self.report["distance_shares"]], ["bn.running_var", "fc.weight"])
        self.assertGreater(self.report["distance_shares"][0]["share"], 0.999)
        honest = [i != 6 for i in range(9)]
        self.assertEqual(self.kept("--ignore-in-distances", "*running_var"), honest)
        self.assertEqual([s["share"] for s in self.report["distance_shares"]], [0, 1])
        tensors, _ = read_safetensors(self.output)
        self.assertAlmostEqual(tensors["bn.running_var"][0], (7 * 1e4 + 3e4 + 30) / 8, delta=0.01)
        self.assertEqual(self.kept("--judge-by", "fc.*", "--judge-by", "*.weight"), honest)
        self.assertEqual(self.kept("--judge-by", "*", "--ignore-in-distances", "bn.*"), honest)

    def test_nothing_is_said_where_nothing_is_measured(self):
        self.kept(rule="median")
        self.assertNotIn("distance_shares", self.report)
        self.kept("--scope", "per-tensor")
        self.assertNotIn("distance_shares", self.report)
        command = [BRAGG, "aggregate", *self.sites(), "--rule", "krum(f=1)", "-o", self.output, "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_patterns_are_checked(self):
        sites = self.sites()
        near = '--judge-by: "fc.wait" matches no tensor; near to it are "fc.weight"'
        self.refused(sites, "krum(f=1)", "--judge-by", "fc.wait", code=2, says=near)
        left = "--ignore-in-distances: no floating-point tensor is left"
        self.refused(sites, "krum(f=1)", "--ignore-in-distances", "*", code=2, says=left)
        scope = ["--scope", "per-tensor", "--judge-by", "fc.*"]
        self.refused(sites, "krum(f=1)", *scope, code=2, says="--judge-by: where scope is per tensor")


class LeftOutOrCopied(Case):
    """--exclude and --copy."""

    ROWS = [[1, 10], [2, 20], [3, 30], [4, 40], [90, -90]]

    def model(self, i):
        return {
            "a": ("F16", [2], self.ROWS[i]),
            "frozen.b": ("BF16", [2], [0x3F80 + i, 0x4000]),
            "frozen.n": ("I64", [], [i]),
            "state": ("F32", [3], [i, i, i]),
            "z": ("F64", [1], [15.5 * i]),
        }

    def put(self, i, model, folder="w"):
        return self.write("%s/%d.safetensors" % (folder, i), model if isinstance(model, bytes) else safetensors(model))

    def kept_of(self, model):
        return {name: model[name] for name in ("a", "z")}

    def with_raw(self, i, **entries):
        """Its tensors a and z, then those of a dtype, a shape and bytes that are taken as they are."""
        model = safetensors(self.kept_of(self.model(i)))
        (length,) = struct.unpack_from("<Q", model)
        header, data = json.loads(model[8 : 8 + length]), model[8 + length :]
        for name, (dtype, shape, raw) in entries.items():
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
            data += raw
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    def strange(self, i):
        """What a worker's "state" and "frozen.…" may be, so that nobody is to notice."""
        model, kept = self.model(i), self.kept_of(self.model(i))
        reverse = dict(reversed(list(model.items())))
        return {
            "as it is": model,
            "absent": kept,
            "infinite": {**model, "state": ("F32", [3], [math.nan, math.inf, 0]), "frozen.b": ("BF16", [2], [0x7FC0, 0])},
            "of other dtypes": {**model, "state": ("F8_E4M3", [5], [1] * 5), "frozen.n": ("F32", [1], [1]), "frozen.b": ("I64", [], [3])},
            "in another order": {**reverse, "frozen.c": ("F32", [0], [])},
            "complex": self.with_raw(i, state=("C64", [1], bytes(8))),
            "of no known dtype": self.with_raw(i, state=("F99", [7], bytes(3))),
            "giant": self.with_raw(i, state=("F64", [1 << 62, 1 << 62], b"")),
            "of a shape that is not that of its bytes": self.with_raw(i, state=("F32", [1 << 40], bytes(4))),
        }

    def run_with(self, inputs, rule, *options, bad=0):
        path = self.path("report.json")
        self.aggregate(inputs, rule, "--report", path, *options, bad=bad)
        with open(path) as file:
            self.report = json.load(file)
        return read_safetensors(self.output)[0], [(w["weight"], w["score"]) for w in self.report["workers"]]

    def expected(self, rule):
        """Of the tensors that are kept alone."""
        return self.run_with([self.put(i, self.kept_of(self.model(i)), "kept") for i in range(5)], rule)

    RULES = ["multi_krum(f=1)", "nnm(f=1) | trimmed_mean(f=1)", "median", "clip(c=30) | mean"]

    def test_values_are_those_of_the_kept_tensors_alone(self):
        skip = ["--exclude", "frozen.*", "--exclude", "state"]
        for rule in self.RULES:
            with self.subTest(rule):
                expected, weights = self.expected(rule)
                inputs = [self.put(i, self.model(i)) for i in range(5)]
                out, found = self.run_with(inputs, rule, *skip)
                self.assertEqual((out, found), (expected, weights))
                self.assertEqual(self.report["form"], "2 tensors (1 F16, 1 F64) of 12 bytes, safetensors")
                self.assertNotIn("copied", self.report)
                self.aggregate([self.put(i, self.kept_of(self.model(i)), "kept") for i in range(5)], rule, "--scope", "per-tensor")
                expected = read_safetensors(self.output)[0]
                self.aggregate(inputs, rule, "--scope", "per-tensor", *skip)
                self.assertEqual(read_safetensors(self.output)[0], expected)

    def test_whatever_a_worker_holds_of_them(self):
        base = self.put(9, {**self.model(0), "frozen.b": ("BF16", [2], [0x4120, 0xC120]), "frozen.n": ("I64", [], [77])}, "base")
        rule = "multi_krum(f=1)"
        expected, weights = self.expected(rule)
        copied = {"frozen.b": [0x4120, 0xC120], "frozen.n": [77]}
        for at in (0, 2, 4):
            for name, model in self.strange(at).items():
                with self.subTest(name, at=at):
                    inputs = [self.put(i, model if i == at else self.model(i)) for i in range(5)]
                    out, found = self.run_with(inputs, rule, "--exclude", "state", "--exclude", "frozen.*")
                    self.assertEqual((out, found), (expected, weights))
                    out, found = self.run_with(inputs, rule, "--exclude", "state", "--copy", "frozen.*", "--base", base)
                    self.assertEqual((out, found), ({**expected, **copied}, weights))
                    self.assertEqual(self.report["copied"], ["frozen.b", "frozen.n"])
        # All workers at once, each with another.
        models = list(self.strange(0))
        for first in range(0, len(models), 4):
            inputs = [self.put(i, self.strange(i)[models[(first + i) % len(models)]]) for i in range(5)]
            out, found = self.run_with(inputs, rule, "--exclude", "state", "--exclude", "frozen.*")
            self.assertEqual((out, found), (expected, weights))

    def test_what_is_kept_is_checked_as_ever(self):
        inputs = [self.put(i, self.model(i)) for i in range(5)]
        options = ["--exclude", "state", "--exclude", "frozen.*"]
        lacking = dict(self.model(2))
        del lacking["z"]
        whole = safetensors(self.model(2))
        (length,) = struct.unpack_from("<Q", whole)
        overlap = json.loads(whole[8 : 8 + length])
        overlap["z"]["data_offsets"] = [0, 8]
        text = json.dumps(overlap).encode()
        for model, says in [
            (lacking, 'no tensor "z"'),
            ({**self.model(2), "y": ("F32", [1], [1])}, 'holds tensor "y"'),
            (whole + b"0", "but the file at"),
            (whole[:-1], "not within"),
            (struct.pack("<Q", len(text)) + text + whole[8 + length :], "overlap"),
            ({"module." + k: v for k, v in self.kept_of(self.model(2)).items()}, 'begin with "module."'),
        ]:
            self.put(2, model)
            done = self.aggregate(inputs, "median", *options, bad=1)
            self.assertIn(says, done.stderr)

    def test_copies_follow_the_output(self):
        rule = "median"
        inputs = [self.put(i, self.kept_of(self.model(i))) for i in range(5)]
        copied = {
            "frozen.b": ("BF16", [2], [0x4120, 0x8000]),
            "frozen.h": ("F16", [1], [0.333251953125]),
            "frozen.e": ("F8_E4M3", [2], [0x38, 0xB8]),
            "frozen.d": ("F64", [2], [0.1, -1]),
            "frozen.n": ("I64", [], [1 << 60]),
            "frozen.o": ("F32", [0], []),
        }
        base = self.put(9, {**self.model(0), **copied}, "base")
        options = ["--base", base, "--copy", "frozen.*", "--copy", "state"]
        self.aggregate(inputs, rule, *options)
        out = read_safetensors(self.output)[0]
        self.assertEqual(out["a"], [3, 20])
        self.assertEqual({k: out[k] for k in copied}, {k: v[2] for k, v in copied.items()})
        self.assertEqual(out["state"], [0, 0, 0])
        self.aggregate(inputs, rule, *options, "--out-dtype", "f32")
        out = read_safetensors(self.output)[0]
        values = {"frozen.b": [10, 0], "frozen.h": [0.333251953125], "frozen.e": [1, -1], "frozen.d": [0.10000000149011612, -1]}
        self.assertEqual({k: out[k] for k in values}, values)
        self.assertEqual(out["frozen.n"], [1 << 60])
        self.aggregate(inputs, rule, *options, "--out-dtype", "f8_e4m3")
        self.assertEqual(read_safetensors(self.output)[0]["frozen.b"], [0x52, 0x80])
        self.put(9, {**self.model(0), **copied, "frozen.d": ("F64", [2], [1e300, 1])}, "base")
        self.refused(inputs, rule, *options, "--out-dtype", "f32", code=2, says='values of tensor "frozen.d" are too large')

    def test_a_copy_that_is_not_finite(self):
        inputs = [self.put(i, self.kept_of(self.model(i))) for i in range(5)]
        base = self.put(9, {**self.model(0), "state": ("F32", [3], [1, math.inf, -math.inf])}, "base")
        options = ["--base", base, "--copy", "state", "--exclude", "frozen.*"]
        says = ['tensor "state" of ' + base + ", which is copied, holds NaN or infinity", "(--allow-nonfinite)"]
        self.refused(inputs, "median", *options, code=5, says=says)
        out, _ = self.run_with(inputs, "median", *options, "--allow-nonfinite")
        self.assertEqual(out["state"], [1, math.inf, -math.inf])
        self.assertEqual(self.report["output_nonfinite"], 2)

    def test_copies_are_read_in_windows(self):
        size = 1 << 20
        draw = random.Random(5)
        values = [draw.random() for _ in range(1 << 10)] * (size >> 10)
        inputs = [self.put(i, self.kept_of(self.model(i))) for i in range(3)]
        base = self.put(9, {**self.kept_of(self.model(0)), "state": ("F64", [size], values), "t": ("I64", [size], range(size))}, "base")
        self.aggregate(inputs, "median", "--base", base, "--copy", "state", "--copy", "t", "--memory", "1MiB")
        out = read_safetensors(self.output)[0]
        self.assertTrue(out["state"] == values and out["t"] == list(range(size)))

    def test_a_lone_input_and_one_without_other_tensors(self):
        base = self.put(9, self.model(3), "base")
        lone = self.put(0, self.kept_of(self.model(0)))
        self.aggregate([lone], "median", "--base", base, "--copy", "frozen.*", "--copy", "state")
        self.assertEqual(read_safetensors(self.output)[0], {k: v[2] for k, v in {**self.model(3), **self.kept_of(self.model(0))}.items()})
        self.aggregate([self.put(1, self.model(1))], "median", "--exclude", "state")
        self.assertEqual(sorted(read_safetensors(self.output)[0]), ["a", "frozen.b", "frozen.n", "z"])
        # Only integers are left to aggregate.
        counts = [self.put(i, {"n": ("I64", [], [i])}, "counts") for i in range(3)]
        base = self.put(8, {"n": ("I64", [], [9]), "w": ("F32", [1], [5])}, "base")
        self.aggregate(counts, "krum(f=0)", "--base", base, "--copy", "w")
        self.assertEqual(read_safetensors(self.output)[0], {"n": [1], "w": [5]})

    def test_of_archives_and_shards(self):
        archives = [self.write("n/%d.npz" % i, npz({"w.npy": npy([1], [i]), "s.npy": npy([i], [i] * i)})) for i in range(3)]
        self.write("n/2.npz", npz({"w.npy": npy([1], [2]), "s.npy": b"no array"}))
        self.aggregate(archives, "median", "--exclude", "s")
        self.assertEqual(read_safetensors(self.output)[0], {"w": [1]})
        for i in range(3):
            parts = {"p1": {"w": ("F32", [1], [i])}, "p2": {"s": ("F32", [i], [i] * i)}}
            names = {"w": "p1.safetensors", "s": "p2.safetensors"}
            if i == 1:
                parts, names = {"p1": {**parts["p1"], "s": ("BOOL", [1], [1])}}, {"w": "p1.safetensors", "s": "p1.safetensors"}
            for name, tensors in parts.items():
                self.write("s%d/%s.safetensors" % (i, name), safetensors(tensors))
            self.write("s%d/model.safetensors.index.json" % i, json.dumps({"weight_map": names}))
        folders = [self.path("s%d" % i) for i in range(3)]
        self.aggregate(folders, "median", "--exclude", "s")
        self.assertEqual(read_safetensors(self.output)[0], {"w": [1]})
        # What the map leaves out is left out of the model.
        self.write("s1/model.safetensors.index.json", json.dumps({"weight_map": {"s": "p1.safetensors"}}))
        done = self.aggregate(folders, "median", "--exclude", "s", bad=1)
        self.assertIn('tensor "w" of "p1.safetensors" is not in the weight_map', done.stderr)

    def test_judging_names_what_is_copied_and_never_sees_what_is_excluded(self):
        inputs = [self.put(i, self.model(i)) for i in range(5)]
        base = self.put(9, self.model(0), "base")
        options = ["--base", base, "--copy", "state", "--exclude", "frozen.*"]
        out, weights = self.run_with(inputs, "krum(f=1)", *options)
        self.assertEqual(self.run_with(inputs, "krum(f=1)", *options, "--ignore-in-distances", "state"), (out, weights))
        self.assertEqual(self.run_with(inputs, "krum(f=1)", *options, "--judge-by", "state", "--judge-by", "[az]"), (out, weights))
        says = '--ignore-in-distances: "frozen.b" matches no tensor'
        self.refused(inputs, "krum(f=1)", *options, "--ignore-in-distances", "frozen.b", code=2, says=says)

    def test_slips_are_told(self):
        inputs = [self.put(i, self.model(i)) for i in range(5)]
        base = self.put(9, self.model(0), "base")
        for options, says in [
            (["--exclude", "*", "--base", base], "--exclude: every tensor is left out"),
            (["--exclude", "*"], "--exclude: every tensor is left out"),
            (["--copy", "state"], "--copy: needs a base"),
            (["--copy", "stat", "--base", base], '--copy: "stat" matches no tensor; near to it are "state"'),
            (["--copy", "*", "--base", base], "--copy: every tensor is taken from the base"),
            (["--copy", "s*", "--exclude", "*e", "--base", base], '--copy: tensor "state" is excluded too'),
        ]:
            self.refused(inputs, "median", *options, code=2, says=says)
            self.refused(inputs, "median", *options, "--strict", code=2, says=says)
            self.assertIn(says, self.run_bragg("inspect", *inputs, *options, code=2).stderr)
        # It is for the workers to hold what is to be left out, or not.
        says = '--exclude: "stat" matches no tensor; near to it are "state"'
        self.refused(inputs, "median", "--exclude", "stat", "--strict", code=2, says=says)
        for command in [["aggregate", *inputs, "--rule", "median", "-o", self.output], ["inspect", *inputs]]:
            done = subprocess.run([BRAGG, *command, "--exclude", "frozen.*", "--exclude", "stat"], capture_output=True, text=True, timeout=120)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (0, 1))
            self.assertIn("bragg: warning: " + says, done.stderr)
        self.assertEqual(sorted(read_safetensors(self.output)[0]), ["a", "state", "z"])
        self.put(2, {**self.model(2), "extra": ("F32", [1], [1])})
        self.aggregate(inputs, "median", "--exclude", "extra")
        self.assertEqual(sorted(read_safetensors(self.output)[0]), sorted(self.model(0)))

    def test_large_tensors_that_are_left_out_are_hashed(self):
        large = 300 << 20  # of zeros that the file system need not store
        paths = []
        for i in range(3):
            header = {"s": {"dtype": "U8", "shape": [large], "data_offsets": [0, large]}}
            header["w"] = {"dtype": "F32", "shape": [1], "data_offsets": [large, large + 4]}
            text = json.dumps(header).encode()
            paths.append(self.write("%d.safetensors" % i, struct.pack("<Q", len(text)) + text))
            os.truncate(paths[-1], 8 + len(text) + large + 4)
        self.run_with(paths, "median", "--exclude", "s", "--sha256")
        self.assertEqual(sorted(self.report["sha256"]), paths)
        os.truncate(paths[0], 1 << 40)
        self.run_with(paths, "median", "--exclude", "s", "--sha256", bad=1)
        self.assertEqual(sorted(self.report["sha256"]), paths[1:])


class Partial(Case):
    """--partial: each tensor is aggregated over the workers that hold it."""

    def run_partial(self, inputs, rule, *options):
        report = self.path("report.json")
        self.aggregate(inputs, rule, "--partial", "--report", report, "--quiet", *options)
        with open(report, encoding="utf-8") as file:
            return read_safetensors(self.output)[0], json.load(file)

    def put(self, models, folder="partial"):
        return [self.write("%s/w%02d.safetensors" % (folder, i), safetensors(m)) for i, m in enumerate(models)]

    def by_hand(self, models, rule, name, *options, base=None):
        """The tensor of a model that has no other, over those that hold it."""
        held = self.put([{name: model[name]} for model in models if name in model], "alone")
        if base:
            options = (*options, "--base", self.write("alone-base.safetensors", safetensors({name: base[name]})))
        self.aggregate(held, rule, "--quiet", *options)
        value = read_safetensors(self.output)[0][name]
        shutil.rmtree(self.path("alone"))
        return value

    def check(self, models, rule, *options, base=None):
        """The output is that of each tensor's holders by hand, bit for bit; its report."""
        given = list(options)
        if base:
            given += ["--base", self.write("base.safetensors", safetensors(base))]
        out, report = self.run_partial(self.put(models), rule, *given)
        for name, values in out.items():
            with self.subTest("%s: %s" % (rule, name)):
                self.assertEqual(values, self.by_hand(models, rule, name, *options, base=base))
        for tensor in report.get("tensors", []):
            absent = [worker["absent"] for worker in tensor["workers"]]
            self.assertEqual(absent, [tensor["name"] not in model for model in models])
            for worker in tensor["workers"]:
                self.assertFalse(worker["absent"] and worker["selected"])
        return out, report

    def adapters(self, n=9, layers=4, rank=2):
        """Worker i lacks layer i % layers; the last one lacks none."""
        models = []
        for i in range(n):
            model = {"steps": ("I64", [], [100 + i])}
            for k in range(layers):
                if i < n - 1 and i % layers == k:
                    continue
                for part, shape in [("A", [rank, 3]), ("B", [3, rank])]:
                    values = [math.sin(1 + 7 * i + 3 * j + k) + 0.25 * j for j in range(3 * rank)]
                    model["layers.%d.lora_%s" % (k, part)] = ("F32", shape, values)
            models.append(model)
        del models[3]["steps"]
        return models

    def test_adapters_of_one_rank(self):
        models = self.adapters()
        for rule in ["median", "krum(f=2)", "nnm(f=1) | trimmed_mean(f=1)", "geometric_median", "clip(c=1) | multi_krum(f=1)"]:
            out, report = self.check(models, rule)
            self.assertEqual(len(out), 9)
            self.assertEqual(len(report["tensors"]), 8)
            self.assertEqual(report["dropped"], [])
        self.assertEqual(out["steps"], [104])  # the lower median of 100 101 102 104 105 106 107 108

    def test_the_table_counts_the_tensors_that_a_worker_holds(self):
        done = self.aggregate(self.put(self.adapters()), "median", "--partial")
        kept = [line.split()[1] for line in done.stdout.splitlines()[1:10]]
        self.assertEqual(kept, ["6/6"] * 8 + ["8/8"])

    def test_windows_of_little_memory(self):
        models = self.adapters()
        for i, model in enumerate(models):
            if i % 3 != 1:
                model["wide"] = ("F32", [30000], [float((i * j) % 13) for j in range(30000)])
        self.check(models, "krum(f=1)", "--memory", "1MiB")

    def test_client_weights(self):
        models = self.adapters()
        weights = [3, 1, 4, 1, 5, 9, 2, 6, 5]
        inputs = self.put(models)
        for given in [weights, [0, *weights[1:]], [*weights[:5], 0, *weights[6:]]]:
            out, _ = self.run_partial(inputs, "geometric_median", "--weights", ",".join(map(str, given)))
            for name, values in out.items():
                held = [w for w, model in zip(given, models) if name in model]
                alone = self.by_hand(models, "geometric_median", name, "--weights", ",".join(map(str, held)))
                self.assertEqual(values, alone, name)

    def test_a_stranger_adds_nothing(self):
        honest = [{"a": ("F32", [2], [i, -i]), "b": ("F32", [1], [10 * i])} for i in range(8)]
        strange = {"module.a": ("F32", [2], [900, 900]), "b": ("F32", [1], [900])}
        strange.update({"extra%03d" % k: ("F32", [1], [math.nan]) for k in range(150)})
        for at in [0, 4, 8]:
            models = honest[:at] + [strange] + honest[at:]
            out, report = self.check(models, "trimmed_mean(f=1)")
            self.assertEqual(sorted(out), ["a", "b"])
            self.assertEqual(out["a"], [3.5, -3.5])
            self.assertEqual(out["b"], [40])  # of 10 to 70, as 0 and 900 are trimmed
            self.assertEqual(len(report["dropped"]), 100)
            self.assertEqual(report["dropped"][0], {"name": "extra000", "inputs": 1, "reason": "held by 1 of 9 inputs, not by more than half"})
            self.assertIs(report["more_dropped"], True)
        done = self.warned(self.put(models), "median")
        self.assertIn('"extra007" and 92 more: held by 1 of 9 inputs, not by more than half\n', done)
        self.assertTrue(done.endswith("bragg: warning: left out of the output: at least 1 more\n"), done)

    def test_what_is_left_out_is_counted_whatever_a_stranger_adds(self):
        more = {"head%03d" % k: ("F32", [1], [1]) for k in range(120)}
        models = [{"a": ("F32", [1], [i]), **more} for i in range(5)]
        models[2] = {"a": ("F32", [1], [2]), **{"!%03d" % k: ("F32", [1], [1]) for k in range(150)}, **more}
        base = self.write("base.safetensors", safetensors({"a": ("F32", [1], [0])}))
        report = self.run_partial(self.put(models), "median", "--base", base)[1]
        counts = {each["name"]: each["inputs"] for each in report["dropped"]}
        self.assertEqual([counts["head%03d" % k] for k in range(100)], [5] * 100)
        self.assertEqual(report["dropped"][0]["reason"], "held by 5 of 5 inputs, but not by the base")

    def test_an_index_and_its_files_agree_on_tensors_that_are_left_out(self):
        models = [{"a": ("F32", [1], [i])} for i in range(5)]
        inputs = self.put(models)
        part = self.path("sharded/part.safetensors")
        many = {"n%03d" % k: ("F32", [1], [1]) for k in range(120)}  # more than are kept
        every = ["a", "y", *many]
        for held, mapped, says in [
            (["a", "y"], ["a", "y"], None),
            (every, every, None),
            (["a"], ["a", "y"], 'tensor "y" is not in "part.safetensors", where the weight_map says it is'),
            (["a", "y"], ["a"], "the weight_map and the files differ in tensors that more than half of the inputs has not"),
            (every, every[:-1], "the weight_map and the files differ in tensors"),
            (every[:-1], every, "the weight_map and the files differ in tensors"),
        ]:
            with self.subTest(held=len(held), mapped=len(mapped)):
                self.write(part, safetensors({name: ("F32", [1], [7]) for name in held}))
                index = {"weight_map": {name: "part.safetensors" for name in mapped}}
                inputs[0] = self.write("sharded/m.safetensors.index.json", json.dumps(index))
                report = self.run_partial(inputs, "median")[1]
                bad = report["tensors"][0]["workers"][0]["bad"]
                self.assertEqual(bad is None, says is None)
                self.assertIn(says or "", bad or "")

    def test_a_tensor_of_an_unknown_dtype_is_left_out(self):
        def with_extra(i, dtype, shape, raw):
            header = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "x": {"dtype": dtype, "shape": shape, "data_offsets": [4, 4 + raw]}}
            text = json.dumps(header).encode()
            return struct.pack("<Q", len(text)) + text + struct.pack("<f", i) + bytes(raw)

        plain = [safetensors({"w": ("F32", [1], [i])}) for i in range(5)]
        for dtype, shape, raw in [("F99", [3], 5), ("F4", [8], 4), ("C64", [1], 8), ("\x1b" + "y" * 1000, [], 0)]:
            for holders in [1, 2, 3, 5]:
                inputs = [self.write("u%d.safetensors" % i, with_extra(i, dtype, shape, raw) if i < holders else plain[i]) for i in range(5)]
                with self.subTest(dtype=dtype[:4], holders=holders):
                    if holders > 2:
                        self.refused(inputs, "median", "--partial", code=3, says='tensor "x": more than half of the inputs hold it, and dtype "')
                        self.run_bragg("aggregate", *inputs, "--rule", "median", "--partial", "--exclude", "x", "-o", self.output)
                        self.assertEqual(read_safetensors(self.output)[0], {"w": [2]})
                        os.remove(self.output)
                        continue
                    out, report = self.run_partial(inputs, "median")
                    self.assertEqual((out, [w["bad"] for w in report["tensors"][0]["workers"]]), ({"w": [2]}, [None] * 5))
                    self.assertEqual([(each["name"], each["inputs"]) for each in report["dropped"]], [("x", holders)])
                    os.remove(self.output)

    def test_a_stranger_who_adds_a_tensor_does_not_stop_the_round(self):
        """Three of six honest ones hold x: with a stranger's they are more than half, and too few for the rule."""
        honest = [{"w": ("F32", [2], [i, -i])} for i in range(6)]
        for model in honest[:3]:
            model["x"] = ("F32", [2, 3], [1, 2, 3, 4, 5, 6])
        strange = {"w": ("F32", [2], [900, 900]), "x": ("F32", [2, 3], [900] * 6)}
        reason = "held by 4 of 7 inputs: krum: n = 4 rows with f = 1: needs n ≥ 2f+3 = 5"
        for at in [0, 3, 6]:
            inputs = self.put(honest[:at] + [strange] + honest[at:])
            out, report = self.run_partial(inputs, "krum(f=1)")
            self.assertEqual(sorted(out), ["w"])
            self.assertEqual([(each["name"], each["inputs"]) for each in report["dropped"]], [("x", 4)])
            self.assertIn(reason, report["dropped"][0]["reason"])
            self.assertIn('left out of the output: "x": ' + reason, self.warned(inputs, "krum(f=1)"))
        # Of two shapes, as many hold each.
        honest[3]["x"] = ("F32", [4, 3], [0] * 12)
        strange["x"] = honest[3]["x"]
        reason = "held by 5 of 7 inputs, but not by more than half in one dtype and shape: F32 [2, 3] by 3, F32 [4, 3] by 2"
        for at in [0, 3, 6]:
            out, report = self.run_partial(self.put(honest[:at] + [strange] + honest[at:]), "krum(f=1)")
            self.assertEqual((sorted(out), report["dropped"]), (["w"], [{"name": "x", "inputs": 5, "reason": reason}]))

    def test_a_worker_that_holds_back_a_tensor_does_not_stop_the_round(self):
        models = [{"w": ("F32", [1], [i]), "x": ("F32", [1], [i])} for i in range(5)]
        del models[2]["x"]
        inputs = self.put(models)
        share = ["--weights", "1,1,1,1,1", "--max-weight-share", "0.2"]
        for rule, options, says in [
            ("krum(f=1)", [], "krum: n = 4 rows with f = 1"),
            ("geometric_median", share, "max_weight_share = 0.2 cannot hold for 4 rows"),
            ("monna(f=1, pivot=2)", [], "monna: pivot = 2 does not hold it"),
            ("fltrust(pivot=2)", [], "fltrust: pivot = 2 does not hold it"),
            ("balance(gamma=1, pivot=2)", [], "balance: pivot = 2 does not hold it"),
            ("centered_clipping(tau=1, start=pivot, pivot=2)", [], "centered_clipping: pivot = 2 does not hold it"),
        ]:
            out, report = self.run_partial(inputs, rule, *options)
            self.assertEqual(sorted(out), ["w"])
            self.assertEqual((report["dropped"][0]["name"], report["dropped"][0]["inputs"]), ("x", 4))
            self.assertIn("held by 4 of 5 inputs: " + says, report["dropped"][0]["reason"])
            base = self.write("base.safetensors", safetensors(models[0]))
            self.refused(inputs, rule, "--partial", "--base", base, *options, code=2, says=['--partial: tensor "x": held by 4 of 5 inputs', says])

    def test_integer_and_empty_tensors_need_no_n(self):
        models = [{"w": ("F32", [1], [i]), "steps": ("I64", [], [i]), "none": ("F32", [0, 2], [])} for i in range(5)]
        for model in models[:2]:
            del model["steps"], model["none"]
        base = {"w": ("F32", [1], [0]), "steps": ("I64", [], [0]), "none": ("F32", [0, 2], []), "also": ("F32", [0], [])}
        given = ["--base", self.write("base.safetensors", safetensors(base))]
        weights = ["--weights", "1,1,1,1,1", "--max-weight-share", "0.2"]
        for rule, options in [("krum(f=1)", []), ("krum(f=1)", given), ("monna(f=1, pivot=0)", given), ("geometric_median", given + weights)]:
            out, report = self.run_partial(self.put(models), rule, *options)
            self.assertEqual((out["steps"], out["none"]), ([3], []))
            tensors = {tensor["name"]: tensor for tensor in report["tensors"]}
            self.assertEqual(tensors["none"]["n"], 3)
            self.assertEqual(tensors["w"]["n"], 5)
            self.assertEqual([w["absent"] for w in tensors["none"]["workers"]], [True, True, False, False, False])
            self.assertEqual([w["selected"] for w in tensors["none"]["workers"]][:2], [False, False])
        # Of what is aggregated someone has to hold it.
        base["count"] = ("I64", [1], [0])
        given = ["--base", self.write("base.safetensors", safetensors(base))]
        self.refused(self.put(models), "krum(f=1)", "--partial", *given, code=2, says='tensor "count": held by no input')

    def test_who_holds_what_is_told(self):
        models = [{"w": ("F32", [1], [i]), "x": ("F32", [1], [i]), "steps": ("I64", [], [i])} for i in range(7)]
        del models[1]["x"], models[1]["steps"], models[4]["x"]
        models[3] = {"module.w": ("F32", [1], [1])}
        inputs = self.put(models)
        done = self.aggregate(inputs, "median", "--partial", bad=1)
        self.assertIn('\nn = 5 for "x"\nn = 6 for "steps"\nn = 7 for "w"\n', done.stdout)
        report = self.run_partial(inputs, "median")[1]
        self.assertEqual({tensor["name"]: tensor["n"] for tensor in report["tensors"]}, {"w": 7, "x": 5})
        held = {name: (each["n"], each["absent"]) for each in report["held"] for name in each["tensors"]}
        self.assertEqual(held, {"w": (7, []), "x": (5, [inputs[1], inputs[4]]), "steps": (6, [inputs[1]])})
        table = self.run_bragg("inspect", "--partial", *inputs).stdout
        self.assertIn('\nn = 5 for "x"\nn = 6 for "steps"\nn = 7 for "w"\n', table)
        self.assertEqual([line.split()[1] for line in table.splitlines()[1:8]], ["3/3", "1/3", "3/3", "bad", "2/3", "3/3", "3/3"])
        found = json.loads(self.run_bragg("inspect", "--partial", "--json", *inputs).stdout)
        self.assertEqual(found["held"], report["held"])
        self.assertEqual(found["dropped"], report["dropped"])

    def test_a_report_on_one_tensor_has_tensors(self):
        inputs = self.put([{"a": ("F32", [1], [i])} for i in range(5)])
        for options in [["--partial"], ["--scope", "per-tensor"]]:
            self.aggregate(inputs, "median", *options, "--report", self.path("r.json"), "--quiet")
            with open(self.path("r.json"), encoding="utf-8") as file:
                report = json.load(file)
            self.assertEqual([tensor["name"] for tensor in report["tensors"]], ["a"])
            self.assertNotIn("workers", report)

    def test_a_failure_counts_the_holders(self):
        models = [{"w": ("F32", [1], [i])} for i in range(6)]
        for i in [0, 2, 4, 5]:
            models[i]["x"] = ("F32", [1], [math.nan if i == 2 else 1])
        error = self.refused(self.put(models), "mean", "--partial", code=5, says='tensor "x"')
        self.assertIn("1 of 4 hold NaN or infinity", error)
        error = self.refused(self.put(models), "mean", "--partial", "--weights", "0,1,1,1,1,1", code=5, says='tensor "x"')
        self.assertIn("1 of 3 hold NaN or infinity", error)

    def test_a_tensor_of_bad_inputs_is_not_one_of_more_than_half(self):
        models = [{"w": ("F32", [1], [i])} for i in range(7)]
        for model in models[:3]:
            model["x"] = ("F32", [1], [1])
        inputs = self.put(models)
        cut = self.write("partial/w06.safetensors", safetensors({**models[6], "x": ("F32", [1], [1])})[:-1])
        out, report = self.run_partial([*inputs[:6], cut], "krum(f=2)")
        self.assertEqual(sorted(out), ["w"])
        self.assertEqual(report["dropped"], [{"name": "x", "inputs": 3, "reason": "held by 3 of 7 inputs, not by more than half"}])

    def test_a_name_that_is_there_twice_makes_no_majority(self):
        models = [{"w": ("F32", [1], [i])} for i in range(7)]
        models[0]["x"] = models[1]["x"] = models[2]["x"] = ("F32", [1], [1])
        inputs = self.put(models)
        entry = '"x":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]},'
        header = "{%s%s" % (entry % (4, 8), entry % (8, 12)) + '"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        for at in [3, 6]:
            paths = list(inputs)
            paths[at] = self.write("twice.safetensors", struct.pack("<Q", len(header)) + header.encode() + bytes(12))
            out, report = self.run_partial(paths, "trimmed_mean(f=2)")
            self.assertEqual(sorted(out), ["w"])
            self.assertEqual('tensor "x": is there twice', report["tensors"][0]["workers"][at]["bad"])

    def test_what_is_left_out_is_named(self):
        models = [{"a": ("F32", [1], [i])} for i in range(5)]
        models[1]["head"] = models[4]["head"] = ("F32", [1], [7])
        models[2]["x"] = ("F32", [1], [7])
        command = [BRAGG, "aggregate", *self.put(models), "--rule", "median", "--partial", "-o", self.output]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(
            done.stderr,
            'bragg: warning: left out of the output: "head": held by 2 of 5 inputs, not by more than half\n'
            'bragg: warning: left out of the output: "x": held by 1 of 5 inputs, not by more than half\n',
        )
        self.assertEqual(read_safetensors(self.output)[0], {"a": [2]})
        out, report = self.run_partial(self.put(models[:2] + models[3:]), "median")  # half is not more
        self.assertEqual((out, [each["inputs"] for each in report["dropped"]]), ({"a": [2]}, [2]))
        # Of weight 0: it is not looked at.
        report = self.run_partial(self.put(models), "median", "--weights", "1,1,0,1,1")[1]
        self.assertEqual([each["reason"] for each in report["dropped"]], ["held by 2 of 4 inputs, not by more than half"])

    def test_a_model_of_other_names_is_a_bad_input(self):
        honest = [{"a": ("F32", [2], [i, i * i]), "b": ("F32", [1], [i])} for i in range(7)]
        renamed = {"module.a": ("F32", [2], [1, 1]), "module.b": ("F32", [1], [1])}
        for at in [0, 3, 7]:
            inputs = self.put(honest[:at] + [renamed] + honest[at:])
            for rule in ["krum(f=1)", "trimmed_mean(f=2)"]:
                out, report = self.run_partial(inputs, rule)
                bad = report["tensors"][0]["workers"][at]
                self.assertEqual(bad["bad"], "holds none of the tensors of more than half of the inputs")
                self.assertFalse(bad["absent"])
                self.aggregate(inputs, rule, "--scope", "per-tensor", "--quiet")
                self.assertEqual(out, read_safetensors(self.output)[0])
        self.refused(inputs, "krum(f=1)", "--partial", "--strict", code=3, says="holds none of the tensors")

    def test_a_bad_input_counts_for_every_tensor(self):
        models = self.adapters()
        inputs = self.put(models)
        cut = self.write("partial/w99.safetensors", safetensors(models[0])[:-1])
        out, report = self.run_partial([*inputs, cut], "krum(f=2)")
        for tensor in report["tensors"]:
            self.assertFalse(tensor["workers"][9]["absent"])
            self.assertIsNotNone(tensor["workers"][9]["bad"])
            alone = self.put([{tensor["name"]: m[tensor["name"]]} for m in models if tensor["name"] in m], "alone")
            self.aggregate([*alone, cut], "krum(f=2)", "--quiet")
            self.assertEqual(out[tensor["name"]], read_safetensors(self.output)[0][tensor["name"]])
        self.refused([*inputs, cut], "mean", "--partial", code=5, says="w99", bad=1)

    def test_too_few_hold_a_tensor(self):
        models = [{"a": ("F32", [1], [i])} for i in range(6)]
        for model in models[:4]:
            model["b"] = model["c"] = ("F32", [1], [1])
        base = ["--base", self.write("base.safetensors", safetensors(models[0]))]
        says = ['--partial: tensor "b": held by 4 of 6 inputs: krum: n = 4 rows with f = 1: needs n ≥ 2f+3 = 5',
                "; 1 more tensor cannot be aggregated; exclude such tensors, or copy the base's"]
        self.refused(self.put(models), "krum(f=1)", "--partial", *base, code=2, says=says)
        self.refused(self.put(models), "krum(f=2)", "--partial", *base, code=2, says="krum: n = 6")
        self.assertEqual(self.run_partial(self.put(models), "krum(f=1)", "--exclude", "[bc]", *base)[0], {"a": [1]})
        says = 'tensor "b": held by 4 of 6 inputs: monna: pivot = 5 does not hold it'
        self.refused(self.put(models), "monna(f=1, pivot=5)", "--partial", *base, code=2, says=says)
        out, _ = self.run_partial(self.put(models[::-1]), "monna(f=1, pivot=5)", *base)
        self.assertEqual(out["b"], [1])
        # Without a base such tensors are left out, but not all of them.
        self.refused(self.put(models), "krum(f=2)", "--partial", code=2, says="error: krum: n = 6")
        models = [{"steps": ("I64", [], [1]), **{name: ("F32", [1], [1]) for name in names}} for names in ["a", "a", "ab", "ab", "b", "b"]]
        says = ['--partial: tensor "a": held by 4 of 6 inputs: krum: n = 4', "; 1 more tensor cannot be aggregated; no other is left"]
        self.refused(self.put(models), "krum(f=1)", "--partial", code=2, says=says)

    def test_a_base_says_which_tensors_there_are(self):
        base = {name: ("F32", [2], [1, 1]) for name in "abc"}
        base["steps"] = ("I64", [], [5])
        models = [{"a": ("F32", [2], [i, 2 * i]), "x": ("F32", [1], [i])} for i in range(5)]
        models[1]["b"] = models[2]["b"] = ("F32", [2], [3, 9])
        inputs = self.put(models)
        path = self.write("base.safetensors", safetensors(base))
        for rule in ["median", "centered_clipping(tau=1)"]:
            self.refused(inputs, rule, "--partial", "--base", path, code=2, says='tensor "c": held by no input')
            out, report = self.run_partial(inputs, rule, "--base", path, "--copy", "c", "--copy", "steps")
            self.assertEqual(sorted(out), ["a", "b", "c", "steps"])
            for name in "ab":
                self.assertEqual(out[name], self.by_hand(models, rule, name, base=base))
            self.assertEqual(out["c"], [1, 1])
            self.assertEqual(report["dropped"], [{"name": "x", "inputs": 5, "reason": "held by 5 of 5 inputs, but not by the base"}])
        models[4]["b"] = ("F32", [1], [3])
        out, report = self.run_partial(self.put(models), "median", "--base", path, "--copy", "c", "--copy", "steps")
        self.assertIn('tensor "b" has shape [1], but [2] in ' + path, report["tensors"][0]["workers"][4]["bad"])

    def test_adapters_of_different_ranks(self):
        small, large = self.adapters(), self.adapters(rank=3)
        out, report = self.run_partial(self.put(small[:7] + large[7:]), "median")
        self.assertEqual(len(out["layers.0.lora_A"]), 6)
        self.assertIn("has shape [3, 3], but [2, 3] in more than half", report["tensors"][0]["workers"][8]["bad"])
        for first in [4, 5]:  # no more than half of either
            says = ["error: no floating-point tensor is held", '; tensor "layers.', "F32 [2, 3] by ", "F32 [3, 3] by ", "different ranks have no average", "(--base)"]
            self.refused(self.put(small[:first] + large[:first]), "median", "--partial", code=3, says=says)

    def test_a_shape_of_more_than_half_is_the_right_one(self):
        models = [{"a": ("F32", [1], [i])} for i in range(5)]
        models[0]["head"] = models[1]["head"] = ("F32", [2], [1, 2])
        models[4]["head"] = ("F32", [3], [1, 2, 3])
        out, report = self.run_partial(self.put(models), "median")
        reason = "held by 3 of 5 inputs, but not by more than half in one dtype and shape: F32 [2] by 2, F32 [3] by 1"
        self.assertEqual((out, report["dropped"]), ({"a": [2]}, [{"name": "head", "inputs": 3, "reason": reason}]))
        # Held by more than half in one shape: another is a bad input.
        models[2]["head"] = ("F32", [2], [3, 4])
        self.assertIsNotNone(self.run_partial(self.put(models), "median")[1]["tensors"][0]["workers"][4]["bad"])

    def warned(self, inputs, rule):
        command = [BRAGG, "aggregate", *inputs, "--rule", rule, "--partial", "-o", self.output]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stderr

    def test_forms_that_exclude_each_other(self):
        """Each of two tensors has a shape of more than half, and most inputs have another of one of them."""
        models = [{"a": ("F32", [1 if i < 3 else 2], [i] * (1 if i < 3 else 2)), "b": ("F32", [1 + i % 4 % 3], [1] * (1 + i % 4 % 3))} for i in range(5)]
        self.refused(self.put(models), "median", "--partial", code=3, says="must hold some of the tensors that more than half hold")

    def test_refused(self):
        inputs = self.put(self.adapters())
        for options, says in [
            (["--judge-by", "layers.1*"], "--judge-by: where scope is per tensor"),
            (["--ignore-in-distances", "layers.1*"], "--ignore-in-distances: where scope is per tensor"),
            (["--scope", "whole"], "--scope"),
            (["--exclude", "nothing", "--strict"], '--exclude: "nothing" matches no tensor'),
            (["--exclude", "*"], "--exclude: every tensor is left out"),
        ]:
            with self.subTest(options):
                self.refused(inputs, "median", "--partial", *options, code=2, says=says)
        arrays = [self.write("x%d.npy" % i, npy([2], [1, 2])) for i in range(3)]
        self.output = self.path("out.npy")
        self.refused(arrays, "median", "--partial", code=2, says="--partial: %s is an npy" % arrays[0])
        self.refused([*arrays[:2], inputs[0]], "median", "--partial", "--strict", code=2, says="is an npy")
        self.refused(inputs, "median", "--partial", "--base", arrays[0], code=2, says="--partial: " + arrays[0])
        self.output = self.path("out.safetensors")
        self.aggregate([*inputs, arrays[0]], "median", "--partial", bad=1)
        self.aggregate(inputs[:3] + arrays[:1] + inputs[3:], "median", "--partial", bad=1)

    def test_inspect(self):
        models = self.adapters()
        models[2] = {"other": ("F32", [1], [1])}
        inputs = self.put(models)
        done = json.loads(self.run_bragg("inspect", "--partial", "--json", *inputs).stdout)
        self.assertEqual([i for i, each in enumerate(done["inputs"]) if each["bad"]], [2])
        self.assertEqual(len(done["tensors"]), 9)


class Report(Case):
    def report(self, inputs, rule, *options, bad=0):
        path = self.path("report.json")
        self.aggregate(inputs, rule, "--report", path, *options, bad=bad)
        self.assertEqual([name for name in os.listdir(self.folder) if "tmp" in name], [])
        with open(path) as file:
            return json.load(file, parse_constant=self.fail)  # NaN and Infinity are not JSON

    def test_says_who_was_kept_and_why(self):
        report = self.report(self.workers(FIVE), " krum( f = 1 ) ")
        self.assertEqual(report["pipeline"], "krum(f=1)")
        self.assertEqual(report["n"], 5)
        self.assertEqual(report["status"], "ok")
        self.assertEqual(report["version"], self.run_bragg("version").stdout.split()[1])
        self.assertTrue(report["converged"])
        self.assertEqual(report["iterations"], 0)
        workers = report["workers"]
        # Two neighbours: rows 1 and 2 have one at 101 on either side; the tie goes to the first.
        self.assertEqual([w["selected"] for w in workers], [False, True, False, False, False])
        self.assertEqual([w["weight"] for w in workers], [0, 1, 0, 0, 0])
        self.assertEqual([w["score"] for w in workers], [505, 202, 202, 505, None])
        self.assertEqual([w["nonfinite"] for w in workers], [0, 0, 0, 0, 2])

    def test_says_when_distances_needed_a_centre(self):
        for constant in (0, -1e9):
            report = self.report(self.workers([[constant, x] for x in (1, 1.5, 2, 2.5, 9)]), "krum(f=1)")
            self.assertEqual(report["recentred"], constant != 0)
            self.assertLess(report["distance_error"], 1e-6)
            # Two neighbours: rows 1 and 2 have one at ½ on either side.
            self.assertEqual([w["score"] for w in report["workers"][:4]], [1.25, 0.5, 0.5, 1.25])

    def test_says_nan_as_null(self):
        workers = self.report(self.workers(FIVE), "median")["workers"]
        self.assertEqual([w["score"] for w in workers], [None] * 5)

    def test_per_tensor_is_by_tensor(self):
        inputs = [
            self.write("%d.safetensors" % i, safetensors({"a": ("F32", [1], [a]), "b": ("F64", [1], [b])}))
            for i, (a, b) in enumerate([(1, 90), (2, 2), (80, 1)])
        ]
        report = self.report(inputs, "cge(f=1)", "--scope", "per-tensor")
        self.assertEqual(read_safetensors(self.output)[0], {"a": [1.5], "b": [1.5]})
        kept = {t["name"]: [w["selected"] for w in t["workers"]] for t in report["tensors"]}
        self.assertEqual(kept, {"a": [True, True, False], "b": [False, True, True]})

    def many_tensors(self):
        tensors = {"t%05d" % i: ("F32", [2], [i, -i]) for i in range(20000)}
        return [self.write("many%d.safetensors" % k, safetensors(tensors)) for k in range(5)]

    def test_per_tensor_takes_the_memory_of_one(self):
        inputs, path = self.many_tensors(), self.path("report.json")
        command = ["aggregate", *inputs, "--rule", "krum(f=1)", "--scope", "per-tensor", "--memory", "16MiB"]
        peak = self.peak_memory(*command, "--device", "cpu", "-q", "-o", self.output, "--report", path)
        if not os.environ.get("BRAGG_SANITIZE"):
            self.assertLess(peak, 16 + 64)
        with open(path) as file:
            text = file.read()
        report = json.loads(text)
        self.assertEqual([t["name"] for t in report["tensors"]], ["t%05d" % i for i in range(20000)])

        def indents(lines):
            return [len(line) - len(line.lstrip()) for line in lines]

        self.assertEqual(indents(text.splitlines()), indents(json.dumps(report, indent=2).splitlines()))

    def test_of_a_run_that_failed(self):
        inputs = self.workers(FIVE)
        path = self.path("r.json")

        def failed(rule, *options, code, bad=0):
            self.aggregate(inputs, rule, "--report", path, *options, code=code, bad=bad)
            self.assertFalse(os.path.exists(self.output))
            with open(path) as file:
                report = json.load(file, parse_constant=self.fail)
            self.assertEqual((report["exit_code"], report["n"], report["pipeline"]), (code, 5, rule))
            self.assertEqual([w["name"] for w in report["workers"]], inputs)
            return report

        report = failed("mean", code=5)
        self.assertEqual(report["status"], "too_many_nonfinite")
        self.assertIn("the output would hold NaN", report["message"])
        self.write("workers/w00.safetensors", "no model")
        self.write("workers/w01.safetensors", "no model")
        report = failed("krum(f=1)", code=5, bad=2)
        self.assertEqual([w["bad"] is None for w in report["workers"]], [False, False, True, True, True])
        report = failed("median", "--strict", code=3)
        self.assertEqual(report["status"], "bad_file")
        self.assertEqual([w["bad"] is None for w in report["workers"]], [False, True, True, True, True])
        self.assertIn(report["workers"][0]["bad"], report["message"])
        self.aggregate(inputs, "krum(f=2)", "--report", path, code=2, bad=2)
        with open(path) as file:  # wrong usage leaves the one that is there
            self.assertEqual(json.load(file)["pipeline"], "median")
        self.write("workers/w02.safetensors", "no model")  # the rest are no majority
        report = failed("median", code=3)
        self.assertEqual([w["bad"] is None for w in report["workers"]], [False, False, False, True, True])
        lone = inputs[0]
        self.aggregate([lone], "median", "--report", path, code=3)
        with open(path) as file:
            self.assertIn(json.load(file)["workers"][0]["bad"], report["message"])
        os.remove(path)
        self.workers(FIVE)
        self.assertEqual(self.report(inputs[2:4], "median")["exit_code"], 0)

    def test_says_the_form(self):
        report = self.report(self.workers(FIVE), "median")
        self.assertEqual(report["form"], "2 tensors (1 F32, 1 I64) of 16 bytes, safetensors")
        self.assertIsNone(report["message"])

    def sha256(self, *paths):
        return {path: hashlib.sha256(content).hexdigest() for path, content in zip(paths, contents(paths))}

    def test_has_the_hash_of_every_file_that_was_read(self):
        rng = random.Random(SEED)
        large = [self.write("large/%d.safetensors" % i, safetensors({"w": ("F32", [99991], [rng.random() for _ in range(99991)])})) for i in range(3)]
        self.assertEqual(self.report(large, "median", "--sha256")["sha256"], self.sha256(*large))
        self.assertNotIn("sha256", self.report(large, "median"))
        # A base, inputs of weight 0, a link, and bad inputs, of which one is no file.
        workers = self.workers(FIVE)
        base = self.write("base.safetensors", safetensors({"w": ("F32", [2], [0, 0]), "batches": ("I64", [], [0])}))
        html, link = self.write("workers/w05.safetensors", "<html>"), self.path("workers", "w06.safetensors")
        os.symlink(workers[0], link)
        inputs = [*workers, html, link, self.path("none.safetensors")]
        weights = ["--weights", "1,1,1,1,0,1,1,1"]
        report = self.report(inputs, "clip(c=5) | mean", "--base", base, "--sha256", *weights, bad=2)
        self.assertEqual(report["sha256"], self.sha256(*workers[:4], html, link, base))
        matrix = self.write("m.npy", npy([3, 2], range(6)))
        self.output = self.path("out.npy")
        self.assertEqual(self.report([matrix], "median", "--sha256")["sha256"], self.sha256(matrix))

    def test_has_a_hash_for_each_shard(self):
        models, shards = [], []
        for i in range(3):
            for name in "ab":
                shards.append(self.write("m%d/%s.safetensors" % (i, name), safetensors({name: ("F32", [2], [i, len(name)])})))
            index = json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}})
            self.write("m%d/model.safetensors.index.json" % i, index)
            models.append(self.path("m%d" % i))
        report = self.report(models, "median", "--sha256", "--threads", "2")
        self.assertEqual(report["sha256"], self.sha256(*shards))

    def test_has_the_hashes_of_a_run_that_fails(self):
        inputs, path = self.workers(FIVE), self.path("report.json")
        for bad in inputs[:2]:
            self.write(bad, "no model")
        self.aggregate(inputs, "krum(f=1)", "--report", path, "--sha256", code=5, bad=2)
        with open(path) as file:
            self.assertEqual(json.load(file)["sha256"], self.sha256(*inputs))
        self.refused(inputs, "median", "--sha256", code=2, says="--sha256: hashes go into the report; give --report, too")

    def test_has_the_hashes_of_a_run_that_opens_nothing(self):
        path, shards = self.path("report.json"), []
        for name in "ab":
            shards.append(self.write("m/%s.safetensors" % name, safetensors({name: ("F32", [2], [1, 2])})))
        self.write("m/model.safetensors.index.json", json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))
        inputs = self.workers(FIVE)
        html = self.write("w.safetensors", "<html>")
        base = self.write("base.safetensors", safetensors({"w": ("F32", [2], [0, 0]), "batches": ("I64", [], [0])}))
        broken = self.write("broken.safetensors", "{}")
        for given, options, code, hashed in [
            ([*inputs, html], ["--strict"], 3, [*inputs, html]),  # a bad input
            ([*inputs, html], ["--strict", "--base", base], 3, [*inputs, html, base]),
            ([*inputs, self.path("none")], ["--strict"], 4, inputs),
            ([inputs[0], html, self.path("m")], [], 3, [inputs[0], html, *shards]),  # no majority
            (inputs, ["--base", broken], 3, [*inputs, broken]),
            (inputs, ["--base", broken, "--weights", "0,1,1,1,1"], 3, [*inputs[1:], broken]),
            ([html], [], 3, [html]),
        ]:
            with self.subTest(given=given, options=options):
                self.aggregate(given, "median", "--report", path, "--sha256", *options, code=code)
                with open(path) as file:
                    self.assertEqual(json.load(file)["sha256"], self.sha256(*hashed))
        # Shards of a bad input.
        report = self.report([*inputs, self.path("m")], "median", "--sha256", bad=1)
        self.assertEqual(report["sha256"], self.sha256(*inputs, *shards))

    def test_a_huge_bad_input_is_not_hashed(self):
        inputs = self.workers(FIVE)
        os.truncate(inputs[0], 1 << 40)
        start = time.monotonic()
        report = self.report(inputs, "median", "--sha256", bad=1)
        self.assertEqual(report["sha256"], self.sha256(*inputs[1:]))
        self.assertLess(time.monotonic() - start, 60)

    def test_counts_iterations(self):
        report = self.report(self.workers([[0, 0], [1, 0], [0, 1], [5, 5]]), "geometric_median(max_iters=2, start=mean)")
        self.assertEqual((report["iterations"], report["converged"]), (2, False))

    def test_that_cannot_be_written_is_found_before_the_work(self):
        inputs = self.workers(FIVE)
        self.refused(inputs, "median", "--report", self.path("nowhere", "r.json"), code=4, says="nowhere")
        self.refused(inputs, "median", "--report", self.output, code=2, says="same file")

    def test_takes_the_place_of_nothing_else(self):
        inputs = self.workers(FIVE)
        base = self.write("base.safetensors", safetensors({"w": ("F32", [2], [0, 0]), "batches": ("I64", [], [0])}))
        os.symlink(inputs[3], self.path("link.json"))
        for report, says in [
            (os.path.relpath(self.output), "same file"),
            (inputs[2], "a file of the input"),
            (self.path("link.json"), "a file of the input"),
            (base, "a file of --base"),
            ("", "is empty"),
        ]:
            with self.subTest(report):
                before = contents([*inputs, base])
                self.refused(inputs, "median", "--base", base, "--report", report, code=2, says=["--report", says])
                self.assertEqual(contents([*inputs, base]), before)
        self.output = inputs[1]
        self.refused(inputs, "median", code=2, says="is a file of the input")
        self.output = ""
        self.refused(inputs, "median", code=2, says="--output: the name is empty")

    def test_goes_into_a_pipe_and_a_device(self):
        inputs = self.workers(FIVE)
        os.mkfifo(self.path("pipe"))
        reader = subprocess.Popen(["cat", self.path("pipe")], stdout=subprocess.PIPE)
        self.aggregate(inputs, "median", "--report", self.path("pipe"))
        self.assertEqual(json.loads(reader.communicate(timeout=60)[0])["n"], 5)
        self.assertTrue(stat.S_ISFIFO(os.stat(self.path("pipe")).st_mode))
        self.assertEqual(json.loads(self.aggregate(inputs, "median", "-q", "--report", "/dev/stdout").stdout)["n"], 5)
        try:
            os.mknod(self.path("null"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            return
        self.aggregate(inputs, "median", "--report", self.path("null"))
        self.run_bragg("verify", "--quick", "--rule", "mean", "--device", "cpu", "--json", self.path("null"))
        self.assertTrue(stat.S_ISCHR(os.stat(self.path("null")).st_mode))

    def into_open_file(self, place, descriptor, *arguments, code=0):
        """What a file holds that is open as a descriptor while a command writes to `place`: text before, what the
        command wrote, and text after."""
        path = self.path("log")
        with open(path, "wb", buffering=0) as log:
            log.write(b"before\n")
            process = subprocess.Popen(
                ["bash", "-c", 'log=$1; shift; exec "$@" %d>&"$log"' % descriptor, "bash", str(log.fileno()), BRAGG, *seeded([*arguments, place])],
                pass_fds=[log.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            errors = process.communicate(timeout=120)[1]
            self.assertEqual(process.returncode, code, errors)
            log.write(b"after\n")
        with open(path) as file:
            text = file.read()
        self.assertTrue(text.startswith("before\n") and text.endswith("after\n"), text)
        return text[len("before\n") : -len("after\n")]

    def test_goes_into_an_open_file_behind_what_that_holds(self):
        inputs = self.workers([[k, 10 * k + k % 2] for k in range(6)])
        os.symlink("/dev/fd/8", self.path("link"))
        os.symlink("link", self.path("link_to_link"))
        command = ["aggregate", *inputs, "--rule", "median", "-q", "-o", self.output, "--report"]
        for place, descriptor in [("/dev/stdout", 1), ("/proc/self/fd/1", 1), ("/proc/thread-self/fd/1", 1), ("/dev/stderr", 2),
                                  ("/dev/fd/8", 8), ("/proc/self/fd/8", 8), (self.path("link_to_link"), 8)]:
            with self.subTest(place):
                self.assertEqual(json.loads(self.into_open_file(place, descriptor, *command))["n"], 6)
        # A run that fails reports, too; the table comes behind the report.
        nothing = self.workers([[math.nan, 1]] * 3, folder="nothing")
        failing = ["aggregate", *nothing, "--rule", "median", "-q", "-o", self.output, "--report"]
        self.assertEqual(json.loads(self.into_open_file("/dev/stdout", 1, *failing, code=5))["exit_code"], 5)
        text = self.into_open_file("/dev/stdout", 1, *(word for word in command if word != "-q"))
        self.assertEqual(json.JSONDecoder().raw_decode(text)[0]["n"], 6)
        self.assertIn("from 6 workers", text)
        quick = ["--quick", "--rule", "mean", "--device", "cpu"]
        self.assertIn("rounds", json.loads(self.into_open_file("/dev/fd/8", 8, "verify", *quick, "--json")))
        svg = self.into_open_file("/dev/fd/8", 8, "audit", *inputs, "--rule", "median", "--svg")
        self.assertTrue(svg.startswith("<svg") and svg.endswith("</svg>\n"), svg)
        tiny = ["bench", "--n", "5", "--d", "100", "200", "--rule", "median", "--seconds", "0.01", "--device", "cpu"]
        self.assertEqual(len(json.loads(self.into_open_file("/dev/fd/8", 8, *tiny, "--json"))["rows"]), 2)
        self.assertEqual(len(list(csv.DictReader(self.into_open_file("/dev/fd/8", 8, *tiny, "--csv").splitlines()))), 2)

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_exit_code_4_leaves_what_the_help_says(self):
        said = " ".join(self.run_bragg("aggregate", "--help").stdout.split())
        self.assertIn("No output is written unless the exit code is 0. It is there, with all files that belong to it, "
                      "where only the table could not be written (4)", said)
        inputs, report = self.workers(FIVE), self.path("report.json")
        command = [BRAGG, "aggregate", *inputs, "--rule", "median", "-o", self.output, "--report"]
        done = subprocess.run([*command, "/dev/full"], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertFalse(os.path.exists(self.output))
        with open("/dev/full", "w") as full:
            done = subprocess.run([*command, report], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertTrue(os.path.exists(self.output) and os.path.exists(report))

    def test_goes_into_no_descriptor_that_takes_nothing(self):
        inputs = self.workers(FIVE)
        before = sorted(os.listdir(self.folder))
        for place in ("/dev/fd/97", "/dev/stdin"):
            command = ["aggregate", *inputs, "--rule", "median", "-o", self.output, "--report", place]
            with open(inputs[0], "rb") as readable:
                done = subprocess.run([BRAGG, *command], stdin=readable, capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 4, done.stderr)
            self.assertIn("--report: %s" % place, done.stderr)
        self.assertEqual(sorted(os.listdir(self.folder)), before)

    def test_nothing_takes_the_place_of_an_open_file(self):
        inputs = self.workers(FIVE)
        os.symlink("/dev/stdout", self.path("link.safetensors"))
        base = self.write("base.safetensors", safetensors({"w": ("F32", [2], [0, 0]), "batches": ("I64", [], [0])}))
        server = ["--base", base, "--server-lr", "1", "--server-optimizer", "adam"]
        for options, says in [
            (["-o", self.path("link.safetensors")], "--output: "),
            (["-o", self.output, "--reputation", "/dev/stdout"], "--reputation: /dev/stdout"),
            (["-o", self.output, "--server-state", "/dev/stdout", *server], "/dev/stdout"),
        ]:
            with self.subTest(options):
                with open(self.path("log"), "w") as log:
                    done = subprocess.run([BRAGG, "aggregate", *inputs, "--rule", "trimmed_mean(f=1)", *options],
                                          stdout=log, stderr=subprocess.PIPE, text=True, timeout=60)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(says, done.stderr)
                self.assertEqual(os.path.getsize(self.path("log")), 0)
                self.assertFalse(os.path.exists(self.output))

    def test_output_follows_links_and_keeps_modes(self):
        inputs = self.workers(FIVE)
        target = self.write("model/target.safetensors", "old")
        os.chmod(target, 0o640)
        os.symlink("model/target.safetensors", self.path("link.safetensors"))
        self.output = self.path("link.safetensors")
        self.aggregate(inputs, "median")
        self.assertTrue(os.path.islink(self.output))
        self.assertEqual(stat.S_IMODE(os.stat(target).st_mode), 0o640)
        self.assertEqual(read_safetensors(target)[0]["w"], [3, 30])
        os.symlink("model/new.safetensors", self.path("dangling.safetensors"))
        self.output = self.path("dangling.safetensors")
        self.aggregate(inputs, "median")
        self.assertTrue(os.path.islink(self.output) and os.path.isfile(self.path("model", "new.safetensors")))

    def test_names_of_temporary_files_cannot_be_foreseen(self):
        inputs = self.workers(FIVE)
        victim = self.write("victim", "victim")
        script = 'ln -s "$1" "$2.$$.tmp"; shift; exec "$0" aggregate "${@:2}"'
        report = self.path("r.json")
        subprocess.run(
            ["bash", "-c", script, BRAGG, victim, report, *inputs, "--rule", "median", "-q", "-o", self.output, "--report", report],
            check=True,
        )
        with open(victim) as file:
            self.assertEqual(file.read(), "victim")


def cuda_devices():
    """The names of those that `bragg verify` finds."""
    done = subprocess.run([BRAGG, *seeded(["verify", "--quick", "--rule", "median(even=lower)"])], capture_output=True, text=True, timeout=300)
    return [line.split(",")[0] for line in done.stdout.splitlines() if line.startswith("cuda:")]


class ServerOptions(Case):
    """The server's step from the base, and the moments that it keeps."""

    def setUp(self):
        super().setUp()
        self.state = self.path("server.safetensors")
        self.report = self.path("report.json")
        self.adam = ("--server-lr", "0.1", "--server-optimizer", "adam", "--server-state", self.state)
        # Three workers, of which one is far off: the median is that in the middle.
        self.inputs = self.workers([[1, 10], [3, 30], [9e9, -9e9]])
        self.base = self.write("base.safetensors", safetensors({"w": ("F32", [2], [2, 26]), "batches": ("I64", [], [7])}))

    def step(self, *options, notes=()):
        rule = () if "--rule" in options else ("--rule", "median")
        command = ["aggregate", *self.inputs, *rule, "--base", self.base, "-o", self.output, "--report", self.report]
        done = subprocess.run([BRAGG, *command, *options], capture_output=True, text=True, timeout=120)
        self.assertEqual((done.returncode, done.stderr), (0, "".join("bragg: note: %s\n" % note for note in notes)))
        with open(self.report) as file:
            self.told = json.load(file)
        self.printed = done.stdout
        return read_safetensors(self.output)[0]

    def test_goes_a_part_of_the_way_from_the_base(self):
        self.assertEqual(self.step("--server-lr", "0.5"), {"w": [2.5, 18], "batches": [10]})
        self.assertEqual(read_safetensors(self.output)[1]["bragg_server"], "sgd(lr=0.5, momentum=0)")
        self.assertIn("\nfrom the base by sgd(lr=0.5, momentum=0)\n", self.printed)
        self.assertEqual(self.told["server"], {"optimizer": "sgd", "lr": 0.5, "momentum": 0})
        self.assertEqual(self.step("--server-lr", "2", "--integers", "first"), {"w": [4, -6], "batches": [7]})
        whole = self.step()
        self.assertNotIn("server", self.told)
        self.assertEqual(self.step("--server-lr", "1", "--scope", "per-tensor"), whole)
        self.assertEqual(self.step("--server-lr", "0.5", "--copy", "w"), {"w": [2, 26], "batches": [10]})

    def test_rounds_once(self):
        # The mean is 1.001953125, which bf16 does not have; four times as far lies 1.0078125, which it has.
        one, above = 0x3F80, 0x3F81
        self.inputs = [self.write("%d.safetensors" % i, safetensors({"w": ("BF16", [1], [above if i < 1 else one])})) for i in range(4)]
        self.base = self.write("base.safetensors", safetensors({"w": ("BF16", [1], [one])}))
        command = ["--rule", "mean", "--base", self.base, "-o", self.output, "--quiet"]
        for options, value in [((), one), (("--server-lr", "4"), above), (("--server-lr", "1", "--out-dtype", "f32"), 1.001953125)]:
            self.run_bragg("aggregate", *self.inputs, *command, *options)
            self.assertEqual(read_safetensors(self.output)[0], {"w": [value]}, options)

    def moved(self, optimizer, change, moments):
        """The step by definition, where all is a float."""
        if optimizer == "sgd":
            moments[0] = 0.9 * moments[0] + change
            return moments[0]
        first, second = moments
        square = change * change
        first = 0.5 * first + (1 - 0.5) * change
        if optimizer == "adam":
            second = 0.75 * second + (1 - 0.75) * square
        else:
            second = second - (1 - 0.75) * square * ((second > square) - (second < square))
        moments[:] = first, second
        return first / (math.sqrt(second) + 0.01)

    def test_moments_are_those_of_the_definition(self):
        random_ = random.Random(SEED)
        sizes = {"a": 3000, "b": 10000}  # some windows of 1 MiB
        adaptive = ["--server-beta1", "0.5", "--server-beta2", "0.75", "--server-tau", "0.01"]
        print_seed()

        def tensors(values):
            """Of both, and of all."""
            return {"a": ("F64", [3000], values[:3000]), "b": ("F64", [10000], values[3000:])}

        for optimizer, names, options in [
            ("sgd", ["momentum"], ["--server-momentum", "0.9"]),
            ("adam", ["first", "second"], ["--scope", "per-tensor", *adaptive]),
            ("yogi", ["first", "second"], ["--rule", "krum(f=1)", "--judge-by", "a", *adaptive]),
        ]:
            state = self.path(optimizer + ".safetensors")
            options = ["--server-lr", "0.3", "--server-optimizer", optimizer, "--server-state", state, *options, "--memory", "1MiB"]
            model = [random_.gauss(0, 1) for _ in range(sum(sizes.values()))]
            moments = [[0.0 if k == 0 else 0.01 * 0.01 for k in range(len(names))] for _ in model]
            for step in (1, 2, 3):
                self.base = self.write("base.safetensors", safetensors(tensors(model)))
                middle = [x + random_.gauss(0, 10.0**-step) for x in model]
                self.inputs = [
                    self.write("%d.safetensors" % i, safetensors(tensors([x + i for x in middle]))) for i in (-3, -1, 0, 1, 3)
                ]
                notes = ["--server-state: %s begins now" % state] if step == 1 else []
                found = self.step(*options, notes=notes)
                model = [x + 0.3 * self.moved(optimizer, m - x, kept) for x, m, kept in zip(model, middle, moments)]
                self.assertTrue(found["a"] + found["b"] == model, (optimizer, step))
                kept, metadata = read_safetensors(state)
                for k, name in enumerate(names):
                    self.assertTrue(kept[name + ".a"] + kept[name + ".b"] == [each[k] for each in moments], (optimizer, step))
                self.assertEqual(metadata["bragg_server_step"], str(step))
                self.assertEqual((self.told["server"]["step"], self.told["server"]["state"]), (step, state))

    def test_goes_on_from_an_output_of_another_dtype(self):
        """Each step's base is the last one's output, and so are the models of the workers."""
        options = ("--server-lr", "0.5", "--server-momentum", "0.5", "--server-state", self.state, "--quiet", "--out-dtype")
        expected, momentum = 1.0, 0.0
        for model, out, kept in [("F32", "f64", "F32"), ("F64", "f32", "F64"), ("F32", "f32", "F32")]:
            self.base = self.write("base.safetensors", safetensors({"w": (model, [1], [expected])}))
            self.inputs = [self.write("%d.safetensors" % i, safetensors({"w": (model, [1], [x])})) for i, x in enumerate((0, 3, 9))]
            momentum = 0.5 * momentum + 3 - expected
            expected += 0.5 * momentum
            self.assertEqual(self.step(*options, out), {"w": [expected]})
            self.assertEqual(read_safetensors(self.state)[0], {"momentum.w": [momentum]})
            self.assertIn('"dtype":"%s"' % kept, contents([self.state])[0].decode(errors="replace"))

    def test_every_form_of_output_has_the_same_step(self):
        self.step(*self.adam, "--quiet", notes=())
        with open(self.state, "rb") as file:
            begun = file.read()
        outputs = []
        for options in [(), ("--scope", "per-tensor"), ("--partial",), ("--memory", "1MiB"), ("--shard-size", "1kB")]:
            self.write("server.safetensors", begun)
            if options[:1] == ("--shard-size",):
                self.run_bragg("aggregate", *self.inputs, "--rule", "median", "--base", self.base, "-o", self.path("model"), *self.adam, *options)
                outputs.append(read_safetensors(self.path("model", "model.safetensors"))[0])
            else:
                outputs.append(self.step(*self.adam, *options))
            self.assertEqual(read_safetensors(self.state)[1]["bragg_server_step"], "2")
        self.assertEqual(outputs, outputs[:1] * len(outputs))
        rows = self.write("rows.npy", npy([3, 2], [1, 10, 3, 30, 5, 50]))
        base = self.write("base.npy", npy([2], [1, 1]))
        state = self.path("rows.safetensors")
        self.run_bragg("aggregate", rows, "-r", "median", "--base", base, "-o", self.path("o.npy"), "-q", *self.adam[:-1], state)
        self.assertEqual(read_safetensors(state)[0].keys(), {"first", "second"})

    def test_a_run_that_fails_leaves_output_and_state(self):
        self.step(*self.adam, "--quiet")
        before = contents([self.output, self.state])
        nan = self.workers([[1, 2], [math.nan, 0], [math.nan, 0]], "nan")
        none = self.write("none.safetensors", safetensors({"w": ("F32", [2], [math.nan, 0]), "batches": ("I64", [], [7])}))
        huge = self.workers([[3e38, 0]] * 3, "huge")
        for inputs, base, options, code, says in [
            (nan, self.base, self.adam, 5, "w01"),
            (self.inputs, none, self.adam, 5, ["tensor \"w\" of " + none, "from which the server's step goes, holds NaN", "exclude the tensor, or copy it"]),
            (self.inputs, none, (*self.adam, "--allow-nonfinite"), 5, "from which the server's step goes, holds NaN"),
            (self.inputs, none, ("--server-lr", "1"), 5, "or ask for such an output (--allow-nonfinite)"),
            (nan, self.base, (*self.adam, "--allow-nonfinite"), 5, "the output would hold NaN or infinity, which median does not keep out"),
            (huge, self.base, self.adam, 5, ["--server-lr: the step takes values of \"second.w\" beyond the largest F32"]),
            (huge, self.base, ("--server-lr", "1e300"), 5, ["--server-lr: the step takes 2 of the values of tensor \"w\" beyond the largest F32"]),
        ]:
            self.refused(inputs, "median", "--base", base, *options, code=code, says=says)
            self.assertEqual(contents([self.output, self.state]), before)
        found = self.aggregate(self.inputs, "median", "--base", none, "--server-lr", "1", "--allow-nonfinite", "--report", self.report)
        self.assertIn("the output holds NaN or infinity in 1 value\n", found.stdout)
        self.assertTrue(math.isnan(read_safetensors(self.output)[0]["w"][0]))

    def test_a_frozen_tensor_need_not_be_finite(self):
        def model(*values):
            return safetensors({"mask": ("F32", [2], [-math.inf, 0]), "w": ("F32", [2], values)})

        self.inputs = [self.write("%d.safetensors" % i, model(i, 10)) for i in range(3)]
        self.base = self.write("base.safetensors", model(0, 10))
        momentum = ("--server-lr", "0.5", "--server-momentum", "0.5", "--server-state", self.state)
        error = self.refused(self.inputs, "median", "--base", self.base, "--copy", "mask", *momentum, code=5, says='tensor "mask" of ')
        self.assertTrue(error.endswith("or ask for such an output (--allow-nonfinite)\n"), error)
        found = self.step("--copy", "mask", *momentum, "--allow-nonfinite", "--quiet")
        self.assertEqual(found, {"mask": [-math.inf, 0], "w": [0.5, 10]})
        self.assertEqual(read_safetensors(self.state)[0], {"momentum.w": [1, 0]})
        self.assertEqual(self.step("--exclude", "mask", *momentum), {"w": [0.75, 10]})

    def test_a_state_that_is_none(self):
        self.step(*self.adam, "--quiet")
        kept, metadata = read_safetensors(self.state)
        os.remove(self.output)

        def state(changed=None, **more):
            tensors = {name: ("F32", [2], values) for name, values in kept.items()} | (changed or {})
            return safetensors({name: each for name, each in tensors.items() if each}, {**metadata, **more})

        remedy = ": it is the state of another model, or of other --exclude, --copy"
        for content, says in [
            (safetensors({"w": ("F32", [1], [1])}), "is not the state of a server's optimizer"),
            (b"nothing", ["has 7 bytes", "; begin anew without the file"]),
            (state(bragg_server_state="2"), 'is a state of version "2"; this bragg knows 1'),
            (state(bragg_server_optimizer="yogi"), 'is the state of "yogi", not of adam'),
            (state(bragg_server_step="0"), 'bragg_server_step is "0"'),
            (state({"first.w": None}), 'has no tensor "first.w"' + remedy),
            (state({"first.w": ("F32", [1], [0])}), 'tensor "first.w" is F32 of shape [1], which should be F32 of [2]' + remedy),
            (state({"first.w": ("BF16", [2], [0, 0])}), 'tensor "first.w" is BF16 of shape [2], which should be F32'),
            (state({"third": ("F32", [1], [0])}), "holds 3 tensors, which should be 2" + remedy),
            (state({"first.w": ("F32", [2], [0, math.nan])}), 'tensor "first.w" holds NaN or infinity; begin anew'),
            (state({"second.w": ("F32", [2], [0, -1])}), 'tensor "second.w" holds NaN, infinity or a number below 0'),
        ]:
            self.write("server.safetensors", content)
            error = self.refused(self.inputs, "median", "--base", self.base, *self.adam, code=3, says=says)
            self.assertIn("--server-state: " + self.state, error)
            self.assertEqual(contents([self.state]), [content])

    def test_usage(self):
        lr, base = ("--server-lr", "1"), ("--base", self.base)
        weights = self.write("weights.safetensors", "1\n" * 3)
        adam = (*base, *self.adam)
        for options, says in [
            (lr, "--server-lr: needs --base, the model that the step goes from"),
            ((*base, "--server-lr", "0"), "--server-lr = 0; needs a finite number above 0"),
            ((*base, "--server-lr", "nan"), "--server-lr = nan; needs"),
            ((*base, *lr, "--server-momentum", "1"), "--server-momentum = 1; needs at least 0, and less than 1"),
            ((*adam, "--server-tau", "0"), "--server-tau = 0; needs"),
            ((*adam, "--server-tau", "1e20"), "--server-tau = 1e+20; needs a number above 0, of at most 1e19"),
            ((*adam, "--server-momentum", "0.5"), "--server-momentum: is for --server-optimizer sgd"),
            ((*base, *lr, "--server-beta1", "0.5"), "--server-beta1: is for --server-optimizer adam or yogi"),
            ((*base, "--server-optimizer", "adam"), "--server-optimizer requires --server-lr"),
            ((*base, *lr, "--server-optimizer", "yogi"), "--server-state: yogi needs a file to keep its moments in"),
            ((*base, *lr, "--server-optimizer", "adm"), "did you mean adam?"),
            ((*base, *lr, "--server-state", self.state), "--server-state: sgd without momentum keeps nothing"),
            ((*adam[:-1], self.path("s.json")), "needs a name that ends in .safetensors"),
            ((*adam[:-1], self.output), "--server-state: %s is the same file as --output" % self.output),
            ((*adam[:-1], self.inputs[0]), "is a file of the input"),
            ((*adam[:-1], self.base), "is a file of --base"),
            ((*adam, "--report", self.state), "is the same file as --report"),
            ((*adam, "--reputation", self.state), "has the name of a model"),
            ((*adam[:-1], weights, "--weights", "@" + weights), "is the file of --weights"),
        ]:
            self.refused(self.inputs, "median", *options, code=2, says=says)
        self.output = self.base
        self.refused(self.inputs, "median", "--base", self.base, code=2, says="is a file of the base " + self.base)


class ReputationOption(Case):
    def setUp(self):
        super().setUp()
        self.state = self.path("state.json")
        self.report = self.path("report.json")

    def round(self, rows, rule="trimmed_mean(f=1)", *options, notes=0, bad=0, folder="workers"):
        """Of workers w00, w01 and so on, a text being the file of one."""
        inputs = self.workers([[0, 0] if isinstance(row, str) else row for row in rows], folder)
        for path, row in zip(inputs, rows):
            if isinstance(row, str):
                self.write(os.path.relpath(path, self.folder), row)
        return self.again(inputs, rule, *options, notes=notes, bad=bad)

    def again(self, inputs, rule="trimmed_mean(f=1)", *options, notes=0, bad=0):
        command = ["aggregate", *inputs, "--rule", rule, "-o", self.output, "--reputation", self.state, "--report", self.report]
        done = subprocess.run([BRAGG, *command, *options], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), notes + bad, done.stderr)
        with open(self.report) as file:
            self.told = json.load(file)
        self.table = done.stdout
        self.errors = done.stderr
        return {worker["name"]: worker for worker in self.told["reputation"]["workers"]}

    def names(self):
        with open(self.state) as file:
            return json.load(file)["names"]

    def test_a_broken_worker_is_left_out_and_comes_back(self):
        good = [[1, 10], [2, 20], [3, 30], [4, 40]]
        first = self.round([*good, "no model"], notes=1, bad=1)
        self.assertIn("state.json begins now: all workers are new", self.errors)
        self.assertEqual(first["w04"]["verdict"], "failed")
        self.assertIn("bad input: ", first["w04"]["reason"])
        self.assertEqual((first["w04"]["before"], first["w04"]["after"]), (0.2, 0.1))
        # Alike at first: the output is that of a run without.
        self.assertEqual({worker["weight"] for worker in first.values()}, {1})
        self.assertNotIn("given", self.table)
        alike = contents([self.output])
        self.aggregate([self.path("workers")], "trimmed_mean(f=1)", bad=1)
        self.assertEqual(contents([self.output]), alike)

        second = self.round([*good, [math.nan, 0]])
        self.assertLess(second["w04"]["weight"], 0.4)
        self.assertIn("given", self.table)
        self.assertEqual(second["w04"]["reason"], "1 of its values is NaN or infinite; in quarantine for 10 rounds")
        self.assertRegex(self.table, r"\nw04 +0\.1 +0\.1  1 of its values is NaN or infinite; in quarantine for 10 rounds\n")
        for left in range(9, -1, -1):
            out = self.round([*good, "no model"], notes=0)  # it is not opened
            self.assertEqual(out["w04"]["verdict"], "quarantined")
            self.assertEqual((out["w04"]["quarantine"], out["w04"]["weight"]), (left, 0))
        self.assertEqual(self.told["n"], 5)
        self.assertEqual([os.path.basename(worker["name"]) for worker in self.told["workers"]][4], "w04.safetensors")
        self.assertEqual((self.told["workers"][4]["weight"], self.told["workers"][4]["bad"]), (0, None))
        self.assertEqual(read_safetensors(self.output)[0]["w"], [2.5, 25])
        self.assertEqual(read_safetensors(self.output)[1]["bragg_n"], "4")
        back = self.round([*good, [5, 50]])
        self.assertEqual(back["w04"]["verdict"], "kept")
        self.assertAlmostEqual(back["w04"]["after"], 0.1 + 0.1 * 0.9)
        self.assertEqual(self.told["reputation"]["round"], 13)
        self.assertEqual(self.names()["w04"]["seen"], 13)

    def test_a_name_is_that_of_file_or_folder_in_any_format(self):
        rows = [[1, 10], [2, 20], [3, 30]]
        self.round(rows, "median", notes=1, folder="round-1")
        self.again([self.path("round-1")], "median", notes=0)
        npz = io.BytesIO()
        with zipfile.ZipFile(npz, "w") as archive:
            archive.writestr("w.npy", npy([2], [1, 10]))
        folder = os.path.dirname(self.write("round-2/w01/model.safetensors", safetensors({"w": ("F32", [2], [2, 20])})))
        last = self.write("round-2/w02.safetensors", safetensors({"w": ("F32", [2], [3, 30])}))
        first = self.write("round-2/w00.npz", npz.getvalue())
        self.again([first, folder + "/", last], "median")
        self.assertEqual(sorted(self.names()), ["w00", "w01", "w02"])
        self.assertEqual({name["rounds"] for name in self.names().values()}, {3})

    def test_weights_are_taken_in(self):
        rows = [[1, 10], [2, 20], [3, 30], [4, 40], [100, 100]]
        told = self.round(rows, "mean", "--weights", "1,1,1,1,0", notes=1)
        self.assertEqual(told["w04"]["verdict"], "not judged")
        self.assertEqual(self.told["reputation"]["only_watched"], "mean has no f, and the f of the reputation is 0")
        self.assertIn("only watched, no weights and no quarantine: mean has no f", self.table)
        self.assertEqual(read_safetensors(self.output)[0]["w"], [2.5, 25])
        self.assertNotIn("w04", self.names())
        # Only watched: by the weights and the cap that are given.
        self.round(rows, "mean", "--weights", "1,1,1,997,0")
        self.assertGreater(read_safetensors(self.output)[0]["w"][0], 3.99)
        self.round(rows, "mean", "--weights", "1,1,1,1000,0", "--max-weight-share", "0.4")
        self.assertAlmostEqual(read_safetensors(self.output)[0]["w"][0], 2.8, places=5)
        # With an f for it, no more than f' = 2 of n = 5 equal rows have.
        with open(self.state) as file:
            text = file.read()
        self.write("state.json", text.replace('"f": 0', '"f": 1'))
        rows[4] = [5, 50]
        self.round(rows, "mean", "--weights", "1,1,1,1000,1")
        self.assertIsNone(self.told["reputation"]["only_watched"])
        self.assertAlmostEqual(self.told["reputation"]["max_weight_share"], 0.4)
        self.refused(self.workers(rows), "krum(f=1)", "--weights", "1,1,1,1,2", "--reputation", self.state, code=2, says="krum has no weighted form")
        self.refused(self.workers(rows), "mean", "--weights", "1,2", "--reputation", self.state, code=2, says="--weights has 2 values for n = 5")

    def test_a_rule_without_a_weighted_form_has_quarantine_alone(self):
        rows = [[float(i), 0.0] for i in range(7)]
        for _ in range(2):
            self.round([*rows, "no model"], "krum(f=1)", notes=0 if os.path.exists(self.state) else 1, bad=1)
        self.assertEqual(self.round([*rows, "no model"], "krum(f=1)")["w07"]["verdict"], "quarantined")
        self.assertEqual(self.told["workers"][7]["score"], None)
        # Of five, of whom it is one, none can be done without; and it is told.
        self.again([self.path("workers", "w%02d.safetensors" % i) for i in (0, 1, 2, 3, 7)], "krum(f=1)", notes=1, bad=1)
        self.assertIn('"w07" is due for quarantine and counts nevertheless: krum: n = 4 rows with f = 1', self.errors)
        self.assertEqual(len(self.told["reputation"]["warnings"]), 1)

    def test_a_run_that_fails_teaches_nothing(self):
        inputs = self.workers(FIVE)
        self.refused(inputs, "krum(f=0)", "--reputation", self.state, "--quiet", code=5, says="too many workers are not finite")
        self.assertFalse(os.path.exists(self.state))
        self.aggregate(inputs, "krum(f=1)", "--reputation", self.state, "--quiet")
        before = contents([self.state])
        self.refused(inputs, "krum(f=0)", "--reputation", self.state, "--quiet", code=5, says="too many workers are not finite")
        self.write("workers/w03.safetensors", "no model")
        self.refused(inputs, "krum(f=1)", "--reputation", self.state, "--strict", code=3, says="w03")
        self.assertEqual(contents([self.state]), before)

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_a_run_whose_report_cannot_be_written_is_not_learnt(self):
        inputs = self.workers(FIVE)
        self.aggregate(inputs, "krum(f=1)", "--reputation", self.state, "--quiet")
        before = contents([self.state])
        command = ["aggregate", *inputs, "--rule", "krum(f=1)", "-o", self.output, "--reputation", self.state]
        done = subprocess.run([BRAGG, *command, "--report", "/dev/full", "--quiet"], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 4, done.stderr)
        self.assertEqual(contents([self.state]), before)

    def test_a_name_does_not_depend_on_how_the_path_is_spelled(self):
        for at, row in enumerate(FIVE[:3]):
            self.write("c%d/model.safetensors" % at, safetensors({"w": ("F32", [2], row)}))
        command = [BRAGG, "aggregate", ".", "../c1/.", "../c2/", "--rule", "median", "-o", self.output, "--reputation", self.state]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=self.path("c0"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(self.names()), ["c0", "c1", "c2"])

    def test_a_bad_file_is_an_error_and_stays(self):
        inputs = self.workers(FIVE)
        self.aggregate(inputs, "krum(f=1)", "--reputation", self.state, "--quiet")
        with open(self.state) as file:
            good = file.read()
        os.remove(self.output)
        for text, says in [
            (good[: len(good) // 2], "is not JSON, from byte"),
            ("", "is not JSON"),
            ("{}", "is not the file of a reputation"),
            (good.replace('"version": 1', '"version": 2'), "is of version 2"),
            (good.replace('"score": 0.28', '"score": -1', 1), 'name "w00": score is -1'),
        ]:
            self.write("state.json", text)
            self.refused(inputs, "krum(f=1)", "--reputation", self.state, code=3, says=["--reputation: " + self.state, says])
            self.assertEqual(contents([self.state]), [text.encode()])
        os.remove(self.state)
        os.mkdir(self.state)
        self.refused(inputs, "krum(f=1)", "--reputation", self.state, code=4, says="--reputation: %s: is a folder" % self.state)
        self.refused(inputs, "krum(f=1)", "--reputation", self.path("none", "s.json"), code=4, says="its folder does not exist")

    def test_takes_the_place_of_nothing_else(self):
        inputs = self.workers(FIVE)
        weights = self.write("weights.txt", "1\n" * 5)
        state = ("--reputation", self.state)
        for options, says in [
            (("--reputation", inputs[1]), "is a file of the input"),
            (("--reputation", self.output), "is the same file as --output"),
            ((*state, "--report", self.state), "is the same file as --report"),
            (("--reputation", weights, "--weights", "@" + weights), "is the file of --weights"),
            ((*state, "--partial"), "does not go with --partial"),
            (("--reputation", self.path("state.npz")), "has the name of a model"),
        ]:
            self.refused(inputs, "median", *options, code=2, says=["--reputation", says])
        folder = self.path("workers")  # whose files are those of the workers, the next time, too
        for options in (("--reputation", self.path("workers", "s.npy")), (*state, "--report", self.path("workers", "s.npz"))):
            self.refused([folder], "median", *options, code=2, says=[options[-2], "would be a file of the input"])
        rows = self.write("rows.npy", npy([5, 2], [0] * 10))
        self.output = self.path("out.npy")
        self.refused([rows], "median", *state, code=2, says="needs a file or a folder for each worker")
        others = self.workers(FIVE, "others")
        self.refused([inputs[0], others[0]], "median", *state, code=2, says="are both known as w00")


class Together(Case):
    """Output, report, server's state and reputation are those of one run."""

    def setUp(self):
        super().setUp()
        self.files = {name: self.path(name, name + end) for name, end in [("output", ".npz"), ("report", ".json"), ("state", ".safetensors"), ("reputation", ".json")]}
        for path in self.files.values():
            os.mkdir(os.path.dirname(path))
        self.rows = self.path("rows")

    def write_rows(self, elements, workers=5):
        os.makedirs(self.rows, exist_ok=True)
        for i in range(workers):
            self.write("rows/w%02d.safetensors" % i, safetensors({"w": ("F32", [elements], [float(i)] * elements)}))
        self.base = self.write("base.safetensors", safetensors({"w": ("F32", [elements], [0.0] * elements)}))

    def run_round(self, report=None, limit=None):
        """Exit code and stderr; no file may have more than `limit` bytes."""

        def restrict():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        command = [BRAGG, "aggregate", self.rows, "-r", "trimmed_mean(f=1)", "--base", self.base, "-q", "-o", self.files["output"]]
        command += ["--report", report or self.files["report"], "--reputation", self.files["reputation"]]
        command += ["--server-lr", "0.1", "--server-optimizer", "adam", "--server-state", self.files["state"]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, preexec_fn=restrict)
        return done.returncode, done.stderr

    def found(self):
        """What there is, by what it is; temporary files are none of it."""
        for name, path in self.files.items():
            self.assertLessEqual(os.listdir(os.path.dirname(path)), [os.path.basename(path)], name)
        return {name: contents([path])[0] for name, path in self.files.items() if os.path.exists(path)}

    def remember(self, names):
        """Adds names to the reputation, which makes its file long."""
        with open(self.files["reputation"]) as file:
            state = json.load(file)
        known = next(iter(state["names"].values()))
        state["names"].update(("other%05d" % k, known) for k in range(names))
        self.write("reputation/reputation.json", json.dumps(state))

    def fails(self, failing, limit):
        """All stay as they are where one cannot be written, whether or not they are there."""
        before = self.found()
        code, errors = self.run_round(limit=limit)
        self.assertEqual(code, 4, errors)
        self.assertIn(self.files[failing], errors)
        after = self.found()
        # A run that fails before its report is begun has one of its own.
        if failing != "report" and "report" in after:
            self.assertEqual(json.loads(after.pop("report"))["exit_code"], 4)
            before.pop("report", None)
        self.assertEqual(hashes(after), hashes(before))

    def test_the_first_failure_leaves_none(self):
        self.write_rows(20000)
        self.fails("output", limit=50 << 10)
        self.assertNotIn("output", self.found())

    def test_an_output_that_cannot_be_written(self):
        self.write_rows(20000)
        self.assertEqual(self.run_round()[0], 0)
        self.fails("output", limit=50 << 10)

    def test_a_state_that_cannot_be_written(self):
        self.write_rows(20000)  # two moments of a value
        self.assertEqual(self.run_round()[0], 0)
        self.fails("state", limit=100 << 10)

    def test_a_report_that_cannot_be_written(self):
        self.write_rows(2, workers=30)
        self.assertEqual(self.run_round()[0], 0)
        sizes = {name: len(found) for name, found in self.found().items()}
        self.assertGreater(sizes["report"], 1.2 * max(size for name, size in sizes.items() if name != "report"))
        self.fails("report", limit=int(sizes["report"] / 1.1))
        os.remove(self.files["report"])
        self.fails("report", limit=int(sizes["report"] / 1.1))

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_a_report_that_a_device_refuses(self):
        self.write_rows(2)
        self.assertEqual(self.run_round()[0], 0)
        before = self.found()
        code, errors = self.run_round(report="/dev/full")
        self.assertEqual((code, errors.count("\n")), (4, 1), errors)
        self.assertIn("--report: /dev/full", errors)
        self.assertEqual(hashes(self.found()), hashes(before))

    def test_a_reputation_that_cannot_be_written(self):
        self.write_rows(2)
        self.assertEqual(self.run_round()[0], 0)
        self.remember(2000)
        self.assertEqual(self.run_round()[0], 0)
        self.fails("reputation", limit=100 << 10)
        os.remove(self.files["state"])
        self.fails("reputation", limit=100 << 10)

    def test_a_round_that_is_made_once_more_is_the_same(self):
        """What the order of names is for: while the states are old, the same run makes the same files."""
        self.write_rows(10)
        self.assertEqual(self.run_round()[0], 0)
        old = self.found()
        self.assertEqual(self.run_round()[0], 0)
        new = self.found()
        for name in ("state", "reputation"):
            self.assertNotEqual(new[name], old[name])
            with open(self.files[name], "wb") as file:
                file.write(old[name])
        self.assertEqual(self.run_round()[0], 0)
        self.assertEqual(hashes(self.found()), hashes(new))


class DeviceOption(Case):
    def run_on(self, *options):
        """(output, device in the report, what was printed)"""
        path = self.path("r.json")
        done = self.aggregate(self.workers(FIVE), "trimmed_mean(f=1)", "--report", path, *options)
        with open(path) as file:
            return read_safetensors(self.output)[0], json.load(file)["device"], done.stdout

    def test_says_what_computed(self):
        values, device, printed = self.run_on("--device", "cpu")
        self.assertEqual((values["w"], device), ([3, 30], "cpu"))
        self.assertIn(", on the CPU\n", printed)
        for options in [[], ["--device", "auto"]]:
            values, device, printed = self.run_on(*options)
            self.assertEqual(values["w"], [3, 30])
            self.assertEqual(device, "cuda" if cuda_devices() else "cpu")
            self.assertIn(", on a CUDA device\n" if cuda_devices() else ", on the CPU\n", printed)

    def test_cuda_where_there_is_none_is_refused(self):
        if cuda_devices():
            self.assertEqual(self.run_on("--device", "cuda")[1], "cuda")
            return
        self.refused(self.workers(FIVE), "median", "--device", "cuda", code=2, says="device = cuda")
        self.assertIn("device = cuda", self.run_bragg("verify", "--device", "cuda", code=2).stderr)


class Verify(Case):
    def verify(self, *options, code=0):
        path = self.path("verify.json")
        done = self.run_bragg("verify", "--json", path, *options, code=code)
        self.assertEqual([name for name in os.listdir(self.folder) if "tmp" in name], [])
        with open(path) as file:
            return json.load(file, parse_constant=self.fail), done.stdout

    @unittest.skipIf(os.environ.get("BRAGG_SANITIZE"), "conformance_test runs such cases with them")
    def test_quick_is_one_round_of_everything(self):
        report, printed = self.verify("--quick", "--device", "cpu")
        self.assertEqual((report["rounds"], report["breaches"], report["findings"]), (1, 0, []))
        self.assertEqual(report["version"], self.run_bragg("version").stdout.split()[1])
        self.assertEqual([backend["name"] for backend in report["backends"]], ["cpu"])
        rules = [rule["name"] for rule in json.loads(self.run_bragg("rules", "--json").stdout)]
        cells = [(cell["rule"], cell["dtype"]) for cell in report["results"]]
        self.assertEqual(cells, [(rule, dtype) for rule in rules for dtype in ["f32", "f16", "bf16", "f64"]])
        for cell in report["results"]:
            self.assertGreater(cell["runs"], 0)
            self.assertLessEqual(cell["judged"], cell["runs"])
            self.assertLessEqual(cell["worst"], 1)
            self.assertIn("\n%s " % cell["rule"], printed)
        self.assertIn("seed %d: %d cases" % (report["seed"], report["cases"]), printed)
        self.assertTrue(printed.endswith("all right\n"), printed)

    def test_a_seed_repeats_and_a_fresh_one_differs(self):
        some = ["--quick", "--device", "cpu", "--rule", "trimmed_mean"]
        first, _ = self.verify(*some)
        again, _ = self.verify(*some, "--seed", str(first["seed"]))
        self.assertEqual(again["results"], first["results"])
        alone, _ = self.verify("--quick", "--device", "cpu", "--rule", "nnm(f=F) | trimmed_mean(f=F)", "--seed", str(first["seed"]))
        self.assertEqual(alone["cases"], 4)
        # What fresh data may show is for the soak: here its seeds count.
        fresh = set()
        for _ in range(2):
            done = subprocess.run([BRAGG, "verify", *some, "--json", self.path("v.json")], capture_output=True, timeout=120)
            self.assertIn(done.returncode, (0, 6))
            with open(self.path("v.json")) as file:
                fresh.add(json.load(file)["seed"])
        self.assertEqual(len(fresh - {first["seed"]}), 2)

    def test_rules_are_chosen(self):
        report, printed = self.verify("--quick", "--device", "cpu", "--rule", "mda", "cge")
        rules = {cell["rule"] for cell in report["results"]}
        self.assertEqual(rules, {"mda", "cge", "nnm", "arc", "clip"})
        self.assertNotIn("\nkrum ", printed)

    def test_seconds_are_kept_to(self):
        report, _ = self.verify("--seconds", "2", "--device", "cpu", "--rule", "median(even=lower)")
        self.assertGreater(report["rounds"], 1)
        self.assertLess(report["seconds"], 10)

    def test_aimed_cases_are_held_to_the_guarantees(self):
        some = ["--aimed", "--quick", "--device", "cpu", "--rule", "median", "trimmed_mean(f=F)"]
        report, printed = self.verify(*some)
        self.assertEqual((report["aimed"], report["rounds"], report["breaches"], report["findings"]), (True, 1, 0, []))
        for cell in report["results"]:
            self.assertEqual(cell["judged"], cell["runs"])
            self.assertLessEqual(cell["worst"], 1)
        self.assertIn("the largest distance", printed)
        self.assertNotIn("for rounding to decide", printed)
        again, _ = self.verify(*some, "--seed", str(report["seed"]))
        self.assertEqual(again["results"], report["results"])
        # The two lists of pipelines have their own texts.
        of_aimed = "bucketing(s=2, permutation=P) | median"
        self.verify("--aimed", "--quick", "--device", "cpu", "--rule", of_aimed)
        self.assertIn(of_aimed, self.run_bragg("verify", "--quick", "--rule", of_aimed, code=2).stderr)

    def test_usage(self):
        for options, says in [
            (["--rule", "crum"], "unknown rule 'crum'; did you mean krum?"),
            (["--aimed", "--rule", "median | krum"], "there are no aimed cases of the pipeline 'median | krum'"),
            (["--device", "abacus"], "abacus"),
            (["--seconds", "-1"], "seconds"),
            (["--seconds", "5", "--quick"], "--quick"),
            (["--seed", "one"], "seed"),
        ]:
            with self.subTest(options):
                self.assertIn(says, self.run_bragg("verify", *options, code=2).stderr)
        self.assertIn("--json", self.run_bragg("verify", "--json", self.path("nowhere", "v.json"), code=4).stderr)


class Bench(Case):
    TINY = ["--n", "5", "8", "--d", "1000", "lenet-5", "--seconds", "0.01", "--device", "cpu"]

    def bench(self, *options):
        """(JSON, rows of the CSV, what was printed)"""
        files = self.path("bench.json"), self.path("bench.csv")
        done = self.run_bragg("bench", *self.TINY, "--json", files[0], "--csv", files[1], *options)
        self.assertEqual(sorted(os.listdir(self.folder)), ["bench.csv", "bench.json"])
        with open(files[0]) as file:
            report = json.load(file, parse_constant=self.fail)
        with open(files[1], newline="") as file:
            return report, list(csv.DictReader(file)), done.stdout

    def test_every_row_is_in_the_table_the_json_and_the_csv(self):
        rules = ["median", "nnm(f=F) | trimmed_mean(f=F)"]
        report, lines, printed = self.bench("--rule", *rules, "--dtype", "f32", "bf16", "--threads", "1")
        rows = report["rows"]
        self.assertEqual(len(rows), 2 * 2 * 2 * 2)
        self.assertEqual({row["form"] for row in rows}, set(rules))
        self.assertEqual({(row["n"], row["rule"]) for row in rows if "nnm" in row["rule"]},
                         {(n, "nnm(f=1) | trimmed_mean(f=1)") for n in (5, 8)})
        self.assertEqual({(row["d"], row["model"]) for row in rows}, {(1000, None), (61706, "lenet-5")})
        self.assertEqual((report["schema"], report["threads"], report["device"]), (1, 1, "cpu"))
        self.assertIs(report["complete"], True)
        self.assertEqual(report["version"], self.run_bragg("version").stdout.split()[1])
        self.assertTrue(report["command"].startswith("bragg bench --n 5 8 --d 1000 lenet-5"), report["command"])
        self.assertIn('"nnm(f=F) | trimmed_mean(f=F)"', report["command"])
        self.assertIsNone(report["floors"].pop("min_max_16_gop_per_s"))  # no CPU compares floats of 16 bits
        for value in (v for k, v in report["floors"].items() if k.endswith("per_s")):
            self.assertGreater(value, 0)
        self.assertEqual(len(lines), len(rows))
        for row, line in zip(rows, lines):
            size = 4 if row["dtype"] == "f32" else 2
            passes = 1 if row["rule"] == "median" else 2
            self.assertEqual(row["bytes"], size * row["d"] * (passes * row["n"] + 1))
            self.assertLessEqual(row["ms"]["min"], row["ms"]["q1"])
            self.assertLessEqual(row["ms"]["q1"], row["ms"]["median"])
            self.assertGreaterEqual(row["timings"], 5)
            self.assertEqual(row["solve_ms"] is None, passes == 1)
            self.assertEqual((line["rule"], int(line["n"]), int(line["d"])), (row["rule"], row["n"], row["d"]))
            self.assertAlmostEqual(float(line["ms_median"]), row["ms"]["median"])
            self.assertEqual(line["peer"], "bragg")
            self.assertNotIn(None, line)  # as many cells as columns
            self.assertNotIn(None, line.values())
        self.assertEqual(printed.count("\nnnm(f=1) | trimmed_mean(f=1)"), 8)

    def test_files_are_measured_and_removed(self):
        os.mkdir(self.path("files"))
        done = self.run_bragg("bench", *self.TINY[:2], "--d", "1000", "--rule", "median", "--seconds", "0.01", "--files",
                              self.path("files"), "--csv", self.path("bench.csv"), "--dtype", "f32", "--device", "cpu")
        self.assertEqual(os.listdir(self.path("files")), [])
        self.assertIn("page cache", done.stdout)
        with open(self.path("bench.csv"), newline="") as file:
            self.assertEqual(next(csv.DictReader(file))["source"], "page cache")
        for options, words in ((["--files", self.path("nowhere")], "--files: "), (["--files", self.folder, "--against", "x"], "--against")):
            self.assertIn(words, self.run_bragg("bench", *options, code=2).stderr)

    def test_version_says_what_there_is(self):
        first, second = self.run_bragg("version").stdout.splitlines()
        self.assertRegex(first, r"^bragg \d+\.\d+\.\d+$")
        self.assertRegex(second, r"^(without CUDA|CUDA \d+\.\d[\d.]*(, without cuBLAS|; cuBLAS \d+\.\d+, on request \(BRAGG_GRAM=cublas\)))$")

    def test_choices_of_products_are_a_devices(self):
        for choice in ("all", "tensor", "double_float", "cublas"):
            self.assertIn("add --device cuda", self.run_bragg("bench", *self.TINY, "--gram", choice, code=2).stderr)
        self.assertIn("'float' is none of auto, all, tensor", self.run_bragg("bench", "--gram", "float", code=2).stderr)
        report, lines, printed = self.bench("--rule", "krum(f=F)", "--gram", "auto")
        self.assertEqual({(row["gram"], row["gram_difference"]) for row in report["rows"]}, {(None, None)})
        self.assertEqual({(line["gram"], line["gram_difference"]) for line in lines}, {("", "")})
        self.assertNotIn("products by", printed)

    def test_what_there_is_no_room_for_is_left_out(self):
        os.mkdir(self.path("files"))
        path = self.path("b.json")
        command = ["bench", "--rule", "median", "--n", "5", "--seconds", "0.01", "--device", "cpu", "--json", path]
        done = self.run_bragg(*command, "--d", "100", "1e13", "--files", self.path("files"))
        self.assertRegex(done.stdout, r"left out: median, n = 5, d = 10000000000000, f32: needs 283 TB in .*, \d\S* [kMGT]B are free")
        with open(path) as file:
            report = json.load(file)
        self.assertIn("page cache", {row["source"] for row in report["rows"]})
        self.assertEqual([(case["d"], case["source"]) for case in report["skipped"]], [(10**13, "page cache")])
        os.remove(path)
        for options, says in [
            (["--d", "1e4", "--files", "/proc"], "d = 10000, f32: needs 283 kB in /proc, 0 B are free"),
            (["--d", "1e6", "--files", "/proc"], "d = 1000000, f32: needs 28.3 MB in /proc, 0 B are free"),
            (["--d", "1e13"], "TB of memory, "),
        ]:
            with self.subTest(options):
                self.assertIn(says, self.run_bragg(*command, *options, code=4).stderr.replace("nothing was measured: ", "", 1))
                self.assertFalse(os.path.exists(path))

    def test_a_preset_can_be_changed(self):
        report, _, _ = self.bench("--preset", "tiny", "--dtype", "f32,f64")
        self.assertEqual({row["n"] for row in report["rows"]}, {5, 8})
        self.assertEqual({row["dtype"] for row in report["rows"]}, {"f32", "f64"})
        self.assertIn("krum(f=F)", {row["form"] for row in report["rows"]})

    def test_updates_may_be_in_tensors(self):
        report, _, _ = self.bench("--rule", "median", "krum(f=F)", "--tensors", "161")
        self.assertEqual([row["tensors"] for row in report["rows"]], [161] * 8)
        self.refused_bench("--d", "1000", "--tensors", "1001", says="--tensors: 1001; needs 1 to 1000")

    def fake_peer(self, body):
        text = """import array, json, os, struct, sys
rule, source, target = sys.argv[3], sys.argv[5], sys.argv[7]
with open(source, "rb") as file:
    raw = file.read()
start = 10 + raw[8] + 256 * raw[9]
d = eval(raw[10:start])["shape"][1]
rows = [array.array("f", raw[start + 4 * d * i : start + 4 * d * (i + 1)]) for i in range((len(raw) - start) // 4 // d)]
mean = [sum(column) / len(rows) for column in zip(*rows)]
header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }" % d
header += " " * (-(len(header) + 11) % 64) + "\\n"
def save(values):
    with open(target, "wb") as file:
        file.write(b"\\x93NUMPY\\x01\\x00" + struct.pack("<H", len(header)) + header.encode() + array.array("f", values).tobytes())
about = {"peer": sys.argv[1], "version": "1.0"}
""" + body
        self.write("peers/run.py", text)
        return ["--against", "plain", "--peers", self.path("peers"), "--python", sys.executable]

    def against(self, body, rule):
        peer = self.fake_peer(body)
        path = self.path("bench.json")
        done = self.run_bragg("bench", "--rule", rule, "--n", "5", "--d", "1000", "--seconds", "0.01", "--device", "cpu",
                              "--json", path, *peer)
        with open(path) as file:
            (row,) = json.load(file)["rows"]
        return row["peers"][0], row, done.stdout

    def test_a_peer_is_timed_on_the_same_data(self):
        peer, row, printed = self.against('save(mean); print(json.dumps({**about, "ms": [3, 1, 2], "threads": 1}))', "mean")
        self.assertEqual((peer["peer"], peer["version"], peer["failure"]), ("plain", "1.0", None))
        self.assertTrue(peer["agrees"])
        self.assertLess(peer["max_abs_difference"], 1e-5)
        self.assertAlmostEqual(peer["ratio"], 2 / row["ms"]["median"])
        self.assertIn("plain 1.0", printed)
        self.assertIn("×", printed)

    def test_a_peer_that_computes_something_else_has_no_ratio(self):
        peer, _, printed = self.against('save(mean); print(json.dumps({**about, "ms": [3, 1, 2]}))', "median")
        self.assertFalse(peer["agrees"])
        self.assertIsNone(peer["ratio"])
        self.assertIn("DIFFERS", printed)
        peer, _, _ = self.against(
            'save(mean); print(json.dumps({**about, "ms": [3, 1, 2], "equivalent_rule": "mean"}))', "median")
        self.assertTrue(peer["agrees"])

    def test_a_peer_that_fails_is_told_of(self):
        peer, _, printed = self.against('sys.exit("no such package")', "median")
        self.assertIn("no such package", peer["failure"])
        self.assertIn("FAILED", printed)
        peer, _, printed = self.against('print(json.dumps({**about, "unsupported": "has no median"}))', "median")
        self.assertEqual(peer["unsupported"], "has no median")
        self.assertIn("has no median", printed)

    def refused_bench(self, *options, code=2, says):
        before = sorted(os.listdir(self.folder))
        done = self.run_bragg("bench", "--device", "cpu", "--seconds", "0.01", *options, code=code)
        self.assertIn(says, done.stderr)
        self.assertEqual(sorted(os.listdir(self.folder)), before)
        return done.stderr

    def test_usage(self):
        for options, says in [
            (["--preset", "huge"], "unknown preset 'huge'; available: small, readme"),
            (["--d", "resnet-51"], "resnet-51"),
            (["--d", "0"], "--d: '0'"),
            (["--n", "0"], "--n: 0"),
            (["--n", "many"], "many"),
            (["--dtype", "f8"], "--dtype: unknown dtype 'f8'; available: f32"),
            (["--rule", "krum(f=9)", "--n", "8"], "needs n ≥ 2f+3"),
            (["--seconds", "0"], "seconds"),
            (["--threads", "-1"], "threads"),
            (["--device", "abacus"], "abacus"),
            (["--json", self.path("a"), "--csv", self.path("a")], "the same file"),
            (["--against", "plain", "--dtype", "f16"], "f32"),
            (["--files", ""], "--files: the name is empty"),
            (["--preset", ""], "--preset: the name is empty"),
            (["--peers", ""], "--peers: the name is empty"),
            (["--python", ""], "--python: the name is empty"),
            (["--json", ""], "--json: the name is empty"),
        ]:
            with self.subTest(options):
                self.refused_bench(*options, says=says)
        error = self.refused_bench("--rule", "median", "nnm(f=F) | crum(f=F)", "--n", "16", says="did you mean krum?")
        self.assertEqual(error.splitlines()[1:3], ["  nnm(f=3) | crum(f=3)", "  " + " " * 11 + "^"])
        self.refused_bench("--json", self.path("nowhere", "b.json"), code=4, says="--json")
        self.refused_bench("--against", "plain", "--peers", self.path("nowhere"), code=4, says="--peers")

    def test_a_run_that_is_stopped_leaves_its_rows(self):
        path = self.path("b.json")
        command = [BRAGG, "bench", "--n", "5", "--d", "1000", "--device", "cpu", "--rule", "median", "mean", "krum(f=F)",
                   "--seconds", "20", "--json", path]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not os.path.exists(path):
            time.sleep(0.05)
        process.kill()
        errors = process.communicate(timeout=60)[1]
        self.assertEqual(process.returncode, -signal.SIGKILL, errors)
        with open(path) as file:
            report = json.load(file)
        self.assertIs(report["complete"], False)
        self.assertIn("median", [row["rule"] for row in report["rows"]])
        self.assertLess(len(report["rows"]), 3)
        self.assertGreater(report["rows"][0]["floor_ms"], 0)

    def test_an_interrupted_run_leaves_nothing(self):
        peer = self.fake_peer("import time; time.sleep(60)")
        temporary = self.path("tmp")
        os.mkdir(temporary)
        command = [BRAGG, "bench", *self.TINY, "--rule", "median", "--json", self.path("b.json"), *peer]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                   env={**os.environ, "TMPDIR": temporary}, start_new_session=True)
        while process.poll() is None and not os.listdir(temporary):
            time.sleep(0.01)
        time.sleep(0.5)
        os.killpg(process.pid, signal.SIGINT)
        printed, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, printed), (130, ""), errors)
        self.assertIn("interrupted", errors)
        self.assertEqual(os.listdir(temporary), [])
        self.assertFalse(os.path.exists(self.path("b.json")))

    def test_an_interrupted_run_of_files_leaves_no_folder(self):
        folder = self.path("files")
        os.mkdir(folder)
        command = [BRAGG, "bench", "--files", folder, "--rule", "median", "krum(f=1)", "--n", "5", "--d", "100000", "--seconds", "0.2", "--device", "cpu"]
        for number in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP] * 4:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            while process.poll() is None and not os.listdir(folder):
                time.sleep(0.01)
            time.sleep(random.uniform(0, 0.5))
            process.send_signal(number)
            errors = process.communicate(timeout=60)[1]
            self.assertEqual(process.returncode, 128 + number, errors)
            self.assertIn("interrupted; nothing was written", errors)
            self.assertEqual(os.listdir(folder), [])


class Usage(Case):
    def test_processes_of_one_job_would_write_over_each_other(self):
        files = self.workers([[1, 2], [2, 3], [3, 4]])
        command = [BRAGG, "aggregate", *files, "--rule", "median", "-o", self.output]
        for variable in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
            for size, code in (("4", 2), ("1", 0), ("", 0)):
                done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, variable: size})
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertEqual("started as 4 processes of one job (%s)" % variable in done.stderr, code == 2)
                if code == 2:
                    self.assertFalse(os.path.exists(self.output))
                else:
                    os.remove(self.output)

    def test_a_pipeline_that_cannot_be_read_is_shown_with_a_caret(self):
        error = self.refused(self.workers(FIVE), "nnm(f=1) | crum(f=1)", code=2, says="did you mean krum?")
        lines = error.splitlines()
        self.assertEqual(lines[1], "  nnm(f=1) | crum(f=1)")
        self.assertEqual(lines[2], "  " + " " * 11 + "^")

    def test_options_that_are_given_again_take_one_value(self):
        text = self.run_bragg("aggregate", "--help").stdout
        for option in ["--judge-by", "--ignore-in-distances", "--exclude", "--copy"]:
            self.assertRegex(text, option + r" PATTERN\s+[a-z]")
        inputs = self.workers(FIVE)
        self.aggregate(["--exclude", "batches", *inputs], "median", "--quiet")
        self.assertEqual(sorted(read_safetensors(self.output)[0]), ["w"])
        self.refused(inputs, "median", "--exclude", "batches", "--exclude", "w", code=2, says="every tensor is left out")

    def test_too_little_memory_is_said_in_words(self):
        rows = [self.write("rows.npy", npy([2000, 1], [0] * 2000))]
        self.output = self.path("out.npy")
        self.refused(rows, "krum(f=1)", "--memory", "1MiB", code=4, says="too small for 2000 rows of 1 tensor with elements of 4 bytes; needs")

    def test_bounds_are_named(self):
        inputs = self.workers(FIVE)
        self.refused(inputs, "krum(f=2)", code=2, says="needs n ≥ 2f+3 = 7; lower f to at most 1 or add workers")
        self.refused(inputs, "clip(c=-1) | mean", code=2, says="c = -1")
        self.refused(inputs, "median", "--max-weight-share", "0.1", "--weights", "1,1,1,1,1", code=2, says="--max-weight-share = 0.1")
        self.refused(inputs, "krum(f=1)", "--weights", "1,1,1,1,1", code=2, says="krum has no weighted form")
        self.refused(inputs, "median", "--threads", "-1", code=2, says="threads")

    def test_options_are_checked(self):
        inputs = self.workers(FIVE)
        self.refused(inputs, "median", "--memory", "lots", code=2, says="--memory: 'lots'")
        self.refused(inputs, "median", "--memory", "-5MB", code=2, says="--memory")
        for amount in ("1e30", "9999999999999GiB", "8388608TiB"):
            self.refused(inputs, "median", "--memory", amount, code=2, says="'%s' is too large; needs less than 8388608TiB" % amount)
        self.refused(inputs, "median", "--memory", "1", code=2, says="memory")
        self.refused(inputs, "median", "--device", "abacus", code=2, says="abacus")
        self.refused(inputs, "median", "--scope", "galaxy", code=2, says="scope")
        self.refused(inputs, "median", "--weights", "1,x,3", code=2, says="item 2: 'x'")
        self.refused(inputs, "median", "--weights", "1,,3", code=2, says="item 2")
        self.refused(inputs, "median", "--weights", "@" + self.path("none"), code=4, says="cannot read")
        bad = self.write("bad.txt", "1\n2\nthree\n")
        self.refused(inputs, "median", "--weights", "@" + bad, code=2, says="line 3: 'three'")
        self.refused(inputs, "median", "--colour", code=2, says="unknown option --colour")
        self.refused(inputs, "median", "--threads", "5000", code=2, says="--threads")
        self.refused(inputs, "median", "--max-weight-share", "2", code=2, says="--max-weight-share")
        self.refused(inputs, "median", "--weights", "", code=2, says="--weights: is empty")
        self.refused(inputs, "median", "--weights", "inf,nan,-1,-inf,0", code=2, says="none of the 5")
        self.refused(inputs, "median", "--weights", "1,1,1,1,1e400", code=2, says="'1e400' is beyond the range")
        self.refused(inputs, "median", "--weights", "@" + self.folder, code=4, says="it is a folder")
        self.assertEqual(self.aggregate(inputs, "median", "--weights", "+1,1,1,1,1").stderr, "")

    def test_what_was_meant_is_said(self):
        inputs = self.workers(FIVE)
        done = self.run_bragg("aggregate", *inputs, "--rul", "median", "-o", self.output, code=2)
        self.assertIn("unknown option --rul; did you mean --rule?", done.stderr)
        self.assertIn("unknown command agregate; did you mean aggregate?", self.run_bragg("agregate", code=2).stderr)

    def test_missing_arguments(self):
        inputs = self.workers(FIVE)
        self.refused(inputs, "median", "--memory=", code=2, says="--memory: its value is missing")
        self.refused(inputs, "median", "--base", code=2, says="--base: its value is missing")
        self.refused(inputs, "median", "--rule", "mean", code=2, says="--rule is given more than once")
        self.refused(inputs, "median", "--weights", "1,2", code=2, says="--weights has 2 values for n = 5 rows")
        self.assertIn("--rule", self.run_bragg("aggregate", *inputs, "-o", self.output, code=2).stderr)
        self.assertIn("--output", self.run_bragg("aggregate", *inputs, "--rule", "median", code=2).stderr)
        self.assertIn("INPUT", self.run_bragg("aggregate", "--rule", "median", "-o", self.output, code=2).stderr)
        self.run_bragg(code=2)
        self.run_bragg("agregate", code=2)

    def test_output_among_the_workers_is_refused(self):
        self.workers(FIVE)
        self.output = self.path("workers", "new.safetensors")
        self.refused([self.path("workers")], "median", code=2, says="among the workers' files")
        os.symlink(self.path("workers", "linked.safetensors"), self.path("elsewhere.safetensors"))  # nothing is there
        self.output = self.path("elsewhere.safetensors")
        self.refused([self.path("workers")], "median", code=2, says="among the workers' files")
        self.output = self.path("workers", "new") + "/"
        self.refused([self.path("workers")], "median", "--shard-size", "1GB", code=2, says="among the workers' files")

    def test_output_in_a_workers_folder_is_refused(self):
        folders = []
        for i in range(3):
            self.write("workers/%d/model.safetensors" % i, safetensors({"w": ("F32", [1], [i])}))
            folders.append(self.path("workers", str(i)))
        self.output = self.path("workers", "1", "new.safetensors")
        for inputs in (folders, [self.path("workers")]):
            self.refused(inputs, "median", code=2, says=self.path("workers", "1") + ", and belong to that worker's model next time")

    def test_a_model_given_twice_is_refused(self):
        model = self.write("a/model.safetensors", safetensors({"w": ("F32", [1], [1])}))
        other = self.write("b.safetensors", safetensors({"w": ("F32", [1], [2])}))
        folder = self.path("a")
        for again, says in ((folder, "same file"), (folder + "/", "same file"), (folder + "/.", "same file"),
                            (model, "which is given as a model, too")):
            self.refused([folder, other, again], "median", code=2, says=says)

    @unittest.skipIf(os.environ.get("BRAGG_SANITIZE"), "sanitizers open files of their own")
    def test_too_few_descriptors_make_no_bad_worker(self):
        inputs = self.workers([[i, -i] for i in range(8)])
        codes = set()
        for limit in range(3, 16):
            done = subprocess.run(["sh", "-c", 'ulimit -n %d; exec "$@"' % limit, "sh", BRAGG, "aggregate", *inputs, "--rule",
                                   "mean(nonfinite=skip)", "-o", self.path("x.safetensors"), "--quiet"], capture_output=True, text=True, timeout=120)
            self.assertNotIn("warning: bad", done.stderr)
            codes.add(done.returncode)
        self.assertLessEqual(codes, {0, 4, 127})  # 127: the loader itself had none
        self.assertLessEqual({0, 4}, codes)

    def test_help_teaches(self):
        self.assertIn("Exit codes", self.run_bragg("--help").stdout)
        text = self.run_bragg("aggregate", "--help").stdout
        for words in ["nnm(f=2) | trimmed_mean(f=2)", "--base", "--exclude", "--copy", "--memory", "--device", "Choosing f", "Exit codes"]:
            self.assertIn(words, text)
        text = self.run_bragg("verify", "--help").stdout
        for words in ["--device", "--seed", "--quick", "--json", "oracle", "Exit codes"]:
            self.assertIn(words, text)
        text = self.run_bragg("bench", "--help").stdout
        for words in ["--against", "--preset", "readme", "large-n", "F stands for", "floor", "Exit codes"]:
            self.assertIn(words, text)

    def test_rules_are_listed_and_explained(self):
        text = self.run_bragg("rules").stdout
        for rule in json.loads(self.run_bragg("rules", "--json").stdout):
            self.assertIn("  %s" % rule["name"], text)
            explained = self.run_bragg("rules", rule["name"]).stdout
            self.assertIn(rule["needs"], explained)
            for parameter in rule["parameters"]:
                self.assertIn(parameter["meaning"], explained)
        self.assertEqual(len(json.loads(self.run_bragg("rules", "krum", "--json").stdout)), 1)
        self.assertIn("did you mean krum?", self.run_bragg("rules", "crum", code=2).stderr)


class Remedies(Case):
    """What a message says to do is right."""

    def test_weights_that_a_rule_has_no_use_for(self):
        inputs = self.workers([[1, 10], [2, 20], [3, 30], [4, 40], [5, 50]])
        for rule in ("dnc(f=1)", "autogm(lam=2)", "krum(f=1)"):
            says = "weights: %s has no weighted form; " % rule.partition("(")[0]
            self.refused(inputs, rule, "--weights", "1,2,1,1,1", code=2, says=says + "leave the weights out, put nnm")
            self.refused(inputs, rule, "--weights", "3,3,3,3,3", code=2, says=says + "these are all alike, so leave them out, put nnm")
            zero = "these are alike where they are not 0, so leave them out, and the rows of weight 0, too"
            self.refused(inputs, rule, "--weights", "3,3,3,3,0", code=2, says=says + zero)
            self.refused(inputs, rule, "--weights", "3,3,3,3,nan", code=2, says=says + "leave the weights out", bad=1)

    def test_memory_that_samples_would_take(self):
        inputs = [self.write("x.npy", npy([6, 1000], [float(k % 7) for k in range(6000)]))]
        self.output = self.path("out.npy")
        for rule, says in [
            ("dnc(f=1, iters=2147483647)", "of it for dnc: iters = 2147483647 samples of sample = 10000 coordinates; lower iters or sample"),
            ("dnc(f=1, iters=100000)", "MiB of it for dnc: iters = 100000 samples"),
        ]:
            error = self.refused(inputs, rule, code=4, says=says)
            need, samples = map(int, re.search(r"needs (\d+) MiB, (\d+) MiB of it", error).groups())
            self.assertLess(samples, need)
            iters = int(re.search(r"iters=(\d+)", rule).group(1))
            self.assertGreater(samples << 20, iters * 7 * 1000 * 8)
        self.refused(inputs, "krum(f=1)", "--memory", "1B", code=2, says="needs at least 1048576")
        # More than fits into 64 bits: n and d are as large as files that are not there can say.
        header = "{'descr': '<f4', 'fortran_order': False, 'shape': (500, 200000000), }"
        header += " " * (-(len(header) + 11) % 64) + "\n"
        path = self.write("huge.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        os.truncate(path, os.path.getsize(path) + 4 * 500 * 200000000)
        self.refused([path], "dnc(f=1, iters=2147483647, sample=2147483647)", code=4, says=["needs more than 2748779", ", more than 274877906944 MiB of it for dnc"])

    def test_rows_that_a_rule_without_f_does_not_stand(self):
        inputs = self.workers([[1, 10], [2, 20], [math.nan, 0], [math.nan, 0]])
        for rule, stands in [("geometric_median", "less than half of the weight"), ("huber(tau=1)", "less than half of the weight"), ("autogm(lam=2)", "fewer than half of the rows")]:
            error = self.refused(inputs, rule, code=5, says="%s stands %s; leave them out" % (rule.partition("(")[0], stands))
            self.assertNotIn("raise f", error)
        self.refused(inputs, "dnc(f=1)", code=5, says="; raise f, or leave them out")
        self.refused(inputs, "mean", code=5, says=["w02", "; ask for such an output"])


class Attack(Case):
    def attack(self, *arguments):
        """(what was printed, the files that were written)"""
        printed = self.run_bragg("attack", *arguments, "-o", self.path("drill")).stdout
        return printed, [self.path("drill", name) for name in sorted(os.listdir(self.path("drill")))]

    def refused(self, *arguments, code=2):
        error = self.run_bragg("attack", *arguments, "-o", self.path("drill"), code=code).stderr
        self.assertFalse(os.path.exists(self.path("drill")))
        return error

    def test_writes_a_file_of_the_form_for_each_bad_worker(self):
        self.workers([[0, 0], [2, 0], [4, 0]])
        printed, files = self.attack("min_max", self.path("workers"), "--f", "2", "--direction", "unit")
        self.assertEqual([os.path.basename(name) for name in files], ["min_max-1.safetensors", "min_max-2.safetensors"])
        for name in files:
            tensors, metadata = read_safetensors(name)
            self.assertEqual(tensors, {"w": [0, 0], "batches": [0]})  # the counter of the first worker
            self.assertEqual(metadata, {"bragg_attack": "min_max"})
        self.assertEqual(printed, "%s … min_max-2.safetensors: min_max on 3 workers, 2 coordinates; gamma = 2\n" % files[0])
        done = self.run_bragg("aggregate", *[self.path("workers", "w%02d.safetensors" % i) for i in range(3)], *files,
                              "--rule", "median", "-o", self.output)
        self.assertIn("median from 5 workers", done.stdout)
        self.assertEqual(read_safetensors(self.output)[0]["w"], [0, 0])

    def test_every_attack(self):
        inputs = self.workers([[1, 10], [2, 10], [6, 10], [3, 10]])  # mean 3, 10
        deviation = math.sqrt(14 / 4)
        flipped = [struct.unpack("<f", struct.pack("<I", struct.unpack("<I", struct.pack("<f", x))[0] ^ 0xE0200000))[0] for x in (2, 10)]
        reference = self.write("r.safetensors", safetensors({"w": ("F32", [2], [1, 0]), "batches": ("I64", [], [1])}))
        expected = {
            ("sign_flip",): [-3, -10],
            ("sign_flip", "--scale", "2"): [-6, -20],
            ("inner_product_manipulation", "--epsilon", "0.1"): [-0.3, -1],
            ("a_little_is_enough", "--z", "2"): [3 - 2 * deviation, 10],
            ("mimic",): [1, 10],
            ("mimic", "--row", "2"): [6, 10],
            ("bit_flip", "--row", "1"): flipped,
            ("hostile", "--kind", "huge"): [3e38, 3e38],
            ("rop", "--reference", reference): [3, 10 - math.hypot(3, 10)],
            ("min_max",): [1, 10],
            ("min_sum", "--direction", "sign"): None,
            ("fang_trimmed",): None,
            ("fang_krum",): None,
            ("optimal_alie", "--rule", "mean"): [3 - 10 * deviation, 10],
            ("optimal_ipm", "--rule", "mean", "--most", "3"): [-9, -30],
            ("gaussian", "--deviation", "3"): None,
        }
        for arguments, wanted in expected.items():
            with self.subTest(arguments):
                shutil.rmtree(self.path("drill"), ignore_errors=True)
                printed, files = self.attack(arguments[0], *inputs, *arguments[1:])
                self.assertIn("%s on 4 workers, 2 coordinates" % arguments[0], printed)
                got = read_safetensors(files[0])[0]["w"]
                for x, y in zip(got, wanted or got):
                    self.assertAlmostEqual(x, y, delta=1e-5 * max(1, abs(y)))
        shutil.rmtree(self.path("drill"))
        names = re.findall(r"^  (\w+)$", self.run_bragg("attack", "--help").stdout, re.MULTILINE)
        self.assertEqual(set(names), {arguments[0] for arguments in expected})
        # Drawn anew for each bad worker, and the same again.
        for name in ("gaussian", "fang_trimmed"):
            drawn = []
            for seed in ("1", "1", "2"):
                _, files = self.attack(name, *inputs, "--f", "2", "--seed", seed)
                drawn.append(contents(files[-2:] if name == "gaussian" else files[:2]))
                self.assertNotEqual(drawn[-1][0], drawn[-1][1])
            self.assertEqual(drawn[0], drawn[1])
            self.assertNotEqual(drawn[0], drawn[2])

    def test_writes_all_or_nothing(self):
        inputs = self.workers([[1, 10], [2, 10], [3, 10]])
        os.makedirs(self.path("drill", "mimic-2.safetensors"))
        self.run_bragg("attack", "mimic", *inputs, "--f", "3", "-o", self.path("drill"), code=2)
        self.assertEqual(os.listdir(self.path("drill")), ["mimic-2.safetensors"])

    def test_is_about_the_base(self):
        # Differences 1 and 3: the attack is at −2 from the base.
        inputs = self.workers([[11, 0], [13, 0]])
        base = self.write("base.safetensors", safetensors({"w": ("F32", [2], [10, 0]), "batches": ("I64", [], [1])}))
        _, files = self.attack("sign_flip", *inputs, "--base", base)
        self.assertEqual(read_safetensors(files[0])[0]["w"], [8, 0])
        _, files = self.attack("mimic", *inputs, "--base", base)
        self.assertEqual(read_safetensors(files[0])[0]["w"], [11, 0])
        _, files = self.attack("rop", *inputs, "--base", base, "--reference", base)
        self.assertEqual(read_safetensors(files[1])[0]["w"], [10, 0])  # the reference is the origin

    def test_takes_other_dtypes_and_npy(self):
        model = {"h": ("F16", [2], [1.5, -1]), "d": ("F64", [1], [1e100]), "e": ("F32", [0], [])}
        inputs = [self.write("m%d.safetensors" % i, safetensors(model)) for i in range(2)]
        _, files = self.attack("sign_flip", *inputs)
        self.assertEqual(read_safetensors(files[0])[0], {"h": [-1.5, 1], "d": [-1e100], "e": []})
        matrix = self.write("m.npy", npy([3, 2], [0, 0, 2, 0, 4, 0]))
        _, files = self.attack("min_max", matrix, "--direction", "unit")
        with open(files[0], "rb") as file:
            self.assertEqual(file.read()[-8:], struct.pack("<2f", 0, 0))

    def test_refuses_what_makes_no_attack(self):
        inputs = self.workers([[1, 2], [3, 4], [5, 7]])
        self.assertIn("unknown attack 'minmax'; did you mean min_max?", self.refused("minmax", *inputs))
        self.assertIn("unknown attack 'quux'; `bragg attack --help` lists them", self.refused("quux", *inputs))
        self.assertIn("--z: min_max does not take it, but --direction", self.refused("min_max", *inputs, "--z", "1"))
        self.assertIn("--rule: fang_krum has no options of its own", self.refused("fang_krum", *inputs, "--rule", "median"))
        self.assertIn("--f: '0' is not a whole number", self.refused("mimic", *inputs, "--f", "0"))
        self.assertIn("--row: 3; needs a number below 3", self.refused("mimic", *inputs, "--row", "3"))
        reference = ["--reference", inputs[0]]
        for name, option, value, says in [
            ("sign_flip", "--scale", "nan", "--scale = nan: needs a finite number"),
            ("sign_flip", "--scale", "-inf", "--scale = -inf: needs a finite number"),
            ("inner_product_manipulation", "--epsilon", "nan", "--epsilon = nan: needs a finite number"),
            ("a_little_is_enough", "--z", "inf", "--z = inf: needs a finite number"),
            ("gaussian", "--deviation", "nan", "--deviation = nan: needs a finite number, at least 0"),
            ("gaussian", "--deviation", "-1", "--deviation = -1: needs a finite number, at least 0"),
            ("fang_trimmed", "--b", "nan", "--b = nan: needs a finite number above 1"),
            ("fang_trimmed", "--seed", "-1", "--seed: '-1' is not a whole number"),
            ("rop", "--angle", "nan", "--angle = nan: needs a finite number"),
            ("optimal_alie", "--most", "nan", "--most = nan: needs a finite number above 0"),
            ("mimic", "--row", "-1", "--row: '-1' is not a whole number"),
            ("bit_flip", "--row", "99999999999999999999", "--row: '99999999999999999999' is not a whole number"),
            ("min_max", "--direction", "stt", "--direction: 'stt' is none of unit, std, sign; did you mean std?"),
        ]:
            more = {"rop": reference, "optimal_alie": ["--rule", "median"]}.get(name, [])
            self.assertIn("error: " + says, self.refused(name, *inputs, option, value, *more))
        self.assertIn("--reference: none: cannot open it", self.refused("rop", *inputs, "--reference", "none", code=4))
        error = self.run_bragg("attack", "mimic", *inputs, "-o", inputs[0], code=2).stderr
        self.assertIn("--output: \"%s\" exists and is no folder; give the name of a folder\n" % inputs[0], error)
        self.assertIn("with --rule", self.refused("optimal_alie", *inputs))
        error = self.refused("optimal_ipm", *inputs, "--rule", "crum(f=1)")
        self.assertIn("did you mean krum?", error)
        self.assertIn("  crum(f=1)\n  ^\n", error)
        self.assertIn("krum: n = 4", self.refused("optimal_ipm", *inputs, "--rule", "krum(f=1)"))
        self.assertIn("unknown option --directon; did you mean --direction?", self.refused("min_max", *inputs, "--directon", "std"))
        bad = self.write("bad.safetensors", safetensors({"w": ("F32", [2], [1, math.nan]), "batches": ("I64", [], [1])}))
        error = self.refused("min_max", *inputs, bad, code=3)
        self.assertIn('bad.safetensors: tensor "w" holds nan', error)
        other = self.write("other.safetensors", safetensors({"v": ("F32", [1], [1])}))
        self.assertIn("other.safetensors", self.refused("mimic", *inputs, other, code=3))
        self.assertIn("other.safetensors", self.refused("rop", *inputs, "--reference", other, code=3))
        self.assertIn("--reference", self.refused("rop", *inputs))
        codes = self.write("codes.safetensors", safetensors({"w": ("I64", [1], [1])}))
        self.assertIn("holds no floating-point tensor", self.refused("mimic", codes, code=3))
        before = contents(inputs)
        error = self.run_bragg("attack", "mimic", self.path("workers"), "-o", self.path("workers"), code=2).stderr
        self.assertIn("what is written to %s would lie among the workers' files" % self.path("workers"), error)
        for folder in ("workers/drill", "workers/drill/"):
            error = self.run_bragg("attack", "mimic", self.path("workers"), "-o", self.path(folder), code=2).stderr
            self.assertIn("would lie among the workers' files", error)
        self.assertIn("fang_krum: 3 honest rows with f = 1: krum needs at least f+3 = 4", self.refused("fang_krum", *inputs))
        more = self.workers([[i, i] for i in range(5)], "more")
        self.assertIn("lower f to at most 2 or add honest rows", self.refused("fang_krum", *more, "--f", "3"))
        huge = [self.write("huge/%d.safetensors" % i, safetensors({"w": ("F64", [1], [10.0 ** (143 + i)])})) for i in range(3)]
        error = self.refused("min_max", *huge, code=3)
        self.assertIn('huge/2.safetensors: tensor "w" holds 1e+145', error)
        taken = self.write("drill/mimic-1.safetensors", before[0])
        error = self.run_bragg("attack", "mimic", taken, "-o", self.path("drill"), code=2).stderr
        self.assertIn("is a file of the input", error)
        self.assertEqual(contents([*inputs, taken]), [*before, before[0]])


class Completion(Case):
    """What shells complete, asked of the shells themselves."""

    def setUp(self):
        super().setUp()
        self.write("weights.txt", "1\n")
        self.write("workers/w0.npy", "")
        self.bin = self.path("bin")
        os.mkdir(self.bin)
        os.symlink(os.path.abspath(BRAGG), os.path.join(self.bin, "bragg"))

    def in_terminal(self, shell, setup, typed, wanted):
        """Whether `wanted` is on the screen once `typed` was; all that was there."""
        child, terminal = pty.fork()
        if child == 0:
            os.chdir(self.folder)
            os.environ.update(TERM="dumb", PATH=self.bin + ":" + os.environ["PATH"])
            os.execvp(shell[0], shell)
        try:
            os.write(terminal, (setup + "; printf 're%s\\n' ady\n").encode())
            self.wait_for(terminal, b"ready")
            os.write(terminal, typed.encode())
            self.wait_for(terminal, wanted.encode())
        finally:
            os.close(terminal)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def wait_for(self, terminal, wanted):
        seen, end = b"", time.time() + 20
        while wanted not in seen:
            self.assertLess(time.time(), end, "%r is not in %r" % (wanted, seen))
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 4096)

    TYPED = [
        ("bragg agg\t", "bragg aggregate "),
        ("bragg aggregate --dev\t", "--device"),
        ("bragg aggregate --device=cu\t", "--device=cuda"),
        ("bragg aggregate --rule tri\t", "--rule trimmed_mean"),
        ('bragg aggregate --rule "nnm(f=2) | trim\t', "| trimmed_mean"),
        ("bragg aggregate --weights @wei\t", "@weights.txt"),
        ("bragg aggregate wor\t", "workers/"),
        ("bragg aggregate -q --report wei\t", "weights.txt"),
        ("bragg bench --dtype f32 bf\t", "bf16"),
        ("bragg bench --pre\t", "--preset"),
        ("bragg attack min_m\t", "min_max"),
        ("bragg attack --direction si\t", "sign"),
        ("bragg rules bul\t", "bulyan"),
        ("bragg completion fi\t", "fish"),
    ]

    def test_bash(self):
        for typed, wanted in self.TYPED:
            with self.subTest(typed):
                self.in_terminal(["bash", "--norc", "-i"], "source <(bragg completion bash)", typed, wanted)

    @unittest.skipUnless(shutil.which("zsh"), "needs zsh")
    def test_zsh(self):
        setup = "autoload -Uz compinit; compinit -D -u; source <(bragg completion zsh)"
        for typed, wanted in self.TYPED:
            with self.subTest(typed):
                self.in_terminal(["zsh", "-f", "-i"], setup, typed, wanted)

    @unittest.skipUnless(shutil.which("fish"), "needs fish")
    def test_fish(self):
        script = self.write("bragg.fish", self.run_bragg("completion", "fish").stdout)
        for typed, wanted in self.TYPED:
            if "|" in typed or "--device=" in typed or " f32 " in typed:
                continue  # fish completes a word by itself, and one value per option
            asked = 'source "%s"; complete -C "%s"' % (script, typed.strip("\t"))
            done = subprocess.run(["fish", "-c", asked], cwd=self.folder, capture_output=True, text=True, timeout=60)
            with self.subTest(typed):
                self.assertIn(wanted.split()[-1], done.stdout + done.stderr)

    def test_every_option_of_every_command_is_there(self):
        scripts = {shell: self.run_bragg("completion", shell).stdout for shell in ["bash", "zsh", "fish"]}
        for command in re.findall(r"^  ([a-z]+) {4}", self.run_bragg("--help").stdout, re.MULTILINE):
            for option in re.findall(r"--([a-z-]+)", self.run_bragg(command, "--help").stdout.split("\n\n\n")[0]):
                for shell, script in scripts.items():
                    with self.subTest("%s, %s --%s" % (shell, command, option)):
                        self.assertIn(("-l " if shell == "fish" else "--") + option, script)
        self.assertIn("SHELL", self.run_bragg("completion", code=2).stderr)
        self.assertIn("tcsh", self.run_bragg("completion", "tcsh", code=2).stderr)


class BadData(Case):
    def test_too_many_rows_that_are_not_finite(self):
        inputs = self.workers([[1, 2], [2, 3], [3, 4], [math.nan, 1], [1, math.inf]])
        self.refused(inputs, "nnm(f=1) | trimmed_mean(f=1)", code=5, says=["too many workers", "2 of 5", "w03.safetensors"])

    def test_a_base_that_is_not_finite(self):
        base = self.write("b.safetensors", safetensors({"w": ("F32", [2], [0, math.nan]), "batches": ("I64", [], [0])}))
        self.refused(self.workers(FIVE), "clip(c=1) | median", "--base", base, code=5, says="the base holds NaN or infinity")

    def test_a_search_that_is_too_large(self):
        inputs = self.workers([[i, i * i] for i in range(40)])
        self.refused(inputs, "smea(f=19)", code=5, says="limits of 2000000")


@unittest.skipIf(os.environ.get("BRAGG_SANITIZE"), "sanitizers take memory of their own")
class Refused(Case):
    """What the system refuses is exit code 4, and nothing stays behind."""

    def limited(self, limit, value, *arguments):
        before = sorted(os.listdir(self.folder))
        done = subprocess.run(
            [BRAGG, "aggregate", *arguments, "-q", "-o", self.output],
            capture_output=True,
            text=True,
            timeout=120,
            preexec_fn=lambda: resource.setrlimit(limit, (value, value)),
        )
        self.assertIn(done.returncode, [0, 4], done.stderr)
        if done.returncode != 0:
            self.assertEqual(sorted(os.listdir(self.folder)), before)
            self.assertTrue(done.stderr.startswith("bragg: error: "), done.stderr)
        return done.returncode

    def test_a_file_that_may_not_grow(self):
        self.output = self.path("out.npy")
        inputs = [self.write("x.npy", npy([4, 50000], [0] * 200000))]
        self.assertEqual(self.limited(resource.RLIMIT_FSIZE, 100 << 10, *inputs, "--rule", "median"), 4)

    def test_memory_or_threads_that_are_not_given(self):
        header = "{'descr': '<i8', 'fortran_order': False, 'shape': (2000, 300), }"
        header += " " * (-(len(header) + 11) % 64) + "\n"
        ints = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(8 * 2000 * 300)
        self.output = self.path("out.npy")
        inputs = [self.write("ints.npy", ints)]
        codes = set()
        for mebibytes in range(24, 400, 25):
            codes.add(self.limited(resource.RLIMIT_AS, mebibytes << 20, *inputs, "--rule", "median", "--threads", "3"))
        self.assertEqual(codes, {0, 4})
        self.output = self.path("out.safetensors")
        tensors = {"t%04d" % i: ("F32", [1], [i]) for i in range(1500)}
        inputs = [self.write("many%d.safetensors" % k, safetensors(tensors)) for k in range(5)]
        options = ["--rule", "krum(f=1)", "--threads", "2", "--scope", "per-tensor", "--report", "/dev/null"]

        def with_memory(kibibytes):
            return self.limited(resource.RLIMIT_AS, kibibytes << 10, *inputs, *options)

        refused, enough = 16 << 10, 1 << 20
        while enough - refused > 32:
            middle = (refused + enough) // 2
            refused, enough = (refused, middle) if with_memory(middle) == 0 else (middle, enough)
        # Just below it, what fails is what OpenMP asks for its teams, after all threads have been started.
        for kibibytes in range(enough - 768, enough, 48):
            codes.add(with_memory(kibibytes))
        self.assertEqual(codes, {0, 4})
        if os.geteuid() != 0:  # root has no such limit
            self.assertEqual(self.limited(resource.RLIMIT_NPROC, 1, *inputs, "--rule", "median", "--threads", "64"), 4)


class BadFiles(Case):
    GOOD = {"w": ("F32", [2], [1, 2])}

    def refused_file(self, content, says):
        good = [self.write("good%d.safetensors" % i, safetensors(self.GOOD)) for i in range(2)]
        bad = self.write("bad.safetensors", content)
        with self.subTest(says):
            self.refused([good[0], bad, good[1]], "median", "--strict", code=3, says=["error: " + bad, says])
            done = self.aggregate([good[0], bad, good[1]], "median", bad=1)
            for words in [bad, says]:
                self.assertIn(words, done.stderr)
            self.assertEqual(read_safetensors(self.output)[0], {"w": [1, 2]})
            os.remove(self.output)

    @staticmethod
    def with_header(header, data=b"\0" * 8):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    def test_malformed(self):
        whole = safetensors(self.GOOD)
        entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        for name, content in {
            "empty": b"",
            "shorter than a header length": whole[:5],
            "truncated header": whole[:20],
            "truncated data": whole[:-1],
            "trailing data": whole + b"\0",
            "header longer than the file": struct.pack("<Q", 1 << 40) + whole[8:],
            "absurd header length": b"\xff" * 8 + whole[8:],
            "not JSON": self.with_header(b"{not json"),
            "not UTF-8": self.with_header(b'{"\xff\xfe": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'),
            "not an object": self.with_header([1, 2]),
            "duplicate keys": self.with_header(
                b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
            ),
            "overlapping offsets": self.with_header(
                {"w": {**entry, "shape": [1], "data_offsets": [0, 4]}, "x": {**entry, "data_offsets": [0, 8]}}
            ),
            "hole": self.with_header({"w": {**entry, "shape": [1], "data_offsets": [4, 8]}}),
            "out of range": self.with_header({"w": {**entry, "shape": [4], "data_offsets": [0, 16]}}),
            "offsets reversed": self.with_header({"w": {**entry, "data_offsets": [8, 0]}}),
            "wrong size": self.with_header({"w": {**entry, "shape": [3]}}),
            "negative shape": self.with_header({"w": {**entry, "shape": [-2]}}),
            "absurd shape": self.with_header({"w": {**entry, "shape": [1 << 62, 1 << 62]}}),
            "no dtype": self.with_header({"w": {"shape": [2], "data_offsets": [0, 8]}}),
            "unknown dtype": self.with_header({"w": {**entry, "dtype": "F33"}}),
        }.items():
            with self.subTest(name):
                self.refused_file(content, "")

    def test_other_formats_are_known(self):
        for content, says in [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
            (b"<!DOCTYPE html><html></html>", "HTML page"),
            (b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pkl", "PyTorch file"),
            (b"PK\x03\x04" + b"\0" * 26 + b"w.npy", "npz: has no end of a zip archive"),
            (b"\x80\x02}q\x00.........", "pickle"),
            (b"\x1f\x8b\x08\x00\0\0\0\0\x02\xff", "gzip"),
            (b"GGUF\x03\0\0\0\0\0\0\0", "GGUF"),
            (b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
            (b"<?xml version='1.0'?><Error>", "is XML"),
            (b'{"error": "not found"}', "JSON text"),
        ]:
            self.refused_file(content, says)

    def test_bytes_behind_a_nul_are_refused(self):
        text = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
        self.refused_file(self.with_header(text + b'\0{"anything": here'), "holds a NUL at byte %d" % (8 + len(text)))

    def test_much_metadata_takes_no_time(self):
        keys = {"k%x" % i: "" for i in range(160000)}
        inputs = [self.write("m%d.safetensors" % i, safetensors(self.GOOD, keys)) for i in range(3)]
        began = time.time()
        self.aggregate(inputs, "median")
        self.assertLess(time.time() - began, 5)

    def test_the_format_is_that_of_most(self):
        def format_of_output(formats, *options):
            inputs = [
                self.write("f%d.safetensors" % i, safetensors(self.GOOD, f and {"format": f, "n": "1"}))
                for i, f in enumerate(formats)
            ]
            self.aggregate(inputs, "median", *options)
            return read_safetensors(self.output)[1].get("format")

        self.assertEqual(format_of_output([None, "pt", "pt", "pt"]), "pt")
        self.assertEqual(format_of_output(["mlx", "pt", "pt"]), "pt")
        self.assertIsNone(format_of_output(["mlx", "mlx", "pt", "pt"]))
        base = self.write("base.safetensors", safetensors(self.GOOD, {"format": "flax"}))
        self.assertEqual(format_of_output(["pt", "pt", "pt"], "--base", base), "flax")

    def test_a_file_given_twice(self):
        inputs = self.workers(FIVE)
        twice = os.path.join(os.path.dirname(inputs[2]), ".", os.path.basename(inputs[2]))
        self.refused([*inputs, twice], "median", code=2, says=["w02.safetensors", "same file"])
        os.link(inputs[0], self.path("link.safetensors"))  # a worker may do this: it is a copy
        self.aggregate([*inputs, self.path("link.safetensors")], "median")

    def test_one_npy_of_three_dimensions_is_refused(self):
        self.refused([self.write("z.npy", npy([3, 2, 2], [0] * 12))], "median", code=3, says=["[3, 2, 2]", "a row per worker"])

    def test_disagreement_names_file_tensor_and_values(self):
        self.refused_file(safetensors({"v": ("F32", [2], [1, 2])}), "v")
        self.refused_file(safetensors({"w": ("F64", [2], [1, 2])}), "F64")
        self.refused_file(safetensors({"w": ("F32", [1, 2], [1, 2])}), "[1, 2]")
        self.refused_file(safetensors({**self.GOOD, "x": ("F32", [1], [1])}), "x")

    def test_missing_files_and_folders(self):
        good = self.write("good.safetensors", safetensors(self.GOOD))
        none = self.path("none.safetensors")
        self.refused([good, none], "median", code=3, says=["1 like " + good, none + ": cannot open it"])
        self.refused([good, none], "median", "--strict", code=4, says="none.safetensors")
        os.mkdir(self.path("empty"))
        self.refused([self.path("empty")], "median", code=2, says="no *.safetensors")
        self.output = self.path("nowhere", "out.safetensors")
        self.refused([good], "median", code=4, says="nowhere")


class BadInputs(Case):
    """What a worker hands in that is no model of the agreed form counts as a bad worker, and stops nobody."""

    ROBUST = ["nnm(f=1) | trimmed_mean(f=1)", "krum(f=1)", "trimmed_mean(f=1)"]

    def model(self, i):
        return {"w": ("F32", [2], [i, -i * i]), "steps": ("I64", [], [7])}

    def honest(self, n=12, metadata=None):
        return [self.write("w%02d.safetensors" % i, safetensors(self.model(i), metadata)) for i in range(n)]

    def aggregated(self, inputs, rule, *options, bad=0):
        report = self.path("report.json")
        done = self.aggregate(inputs, rule, "--report", report, *options, bad=bad)
        with open(report) as file:
            workers = json.load(file)["workers"]
        self.assertEqual(sum(w["bad"] is not None for w in workers), bad)
        for worker in workers:
            if worker["bad"] is not None:
                self.assertEqual((worker["weight"], worker["selected"]), (0, False))
                self.assertIn(worker["bad"], done.stderr)
                self.assertIn(worker["name"], done.stderr)
        with open(self.output, "rb") as file:
            return file.read(), workers

    def hostile(self):
        """name: what it makes of a worker's path; what the reason says."""
        whole = safetensors(self.model(5))
        with_header = BadFiles.with_header
        entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
        renamed = {"weight": self.model(5)["w"], "steps": self.model(5)["steps"]}

        def content(data):
            return lambda path: self.write(os.path.basename(path), data)

        def index(weight_map, parts):
            def make(path):
                os.remove(path)
                for name, data in parts.items():
                    self.write(os.path.join(os.path.basename(path), name), data)
                self.write(os.path.join(os.path.basename(path), "model.safetensors.index.json"), json.dumps({"weight_map": weight_map}))

            return make

        part = {"a.safetensors": safetensors({"w": self.model(5)["w"]}), "b.safetensors": safetensors({"steps": self.model(5)["steps"]})}
        return {
            "1: truncated": (content(whole[:-1]), "not within"),
            "2: another tensor": (content(safetensors({**self.model(5), "a": ("F32", [1], [1])})), 'holds tensor "a"'),
            "2: renamed": (content(safetensors(renamed)), 'holds tensor "weight"'),
            "6: another precision": (content(safetensors({**self.model(5), "w": ("F64", [2], [1, 2])})), "dtype F64, but F32"),
            "7: compiled": (content(safetensors({"_orig_mod." + k: v for k, v in self.model(5).items()})), 'begin with "_orig_mod."'),
            "8: a tensor less": (content(safetensors({"w": self.model(5)["w"]})), 'no tensor "steps"'),
            "14: no tensor": (content(safetensors({}, {"format": "pt"})), "has no tensor"),
            "21: FP8": (content(with_header({"w": {**entry, "dtype": "F8_E4M3", "shape": [8]}})), "F8_E4M3"),
            "22: an unknown dtype": (content(with_header({"w": {**entry, "dtype": "F99", "data_offsets": [0, (1 << 63) - 1]}})), "F99"),
            "37: another rank": (content(safetensors({**self.model(5), "w": ("F32", [3], [1, 2, 3])})), "shape [3], but [2]"),
            "39: mapped, not in the shard": (
                index({"w": "a.safetensors", "steps": "b.safetensors", "x": "b.safetensors"}, part),
                'tensor "x" is not in "b.safetensors"',
            ),
            "39: in the shard, not mapped": (
                index({"w": "a.safetensors"}, {"a.safetensors": whole}),
                'tensor "steps" of "a.safetensors" is not in the weight_map',
            ),
            "39: a shard that is not there": (index({"w": "a.safetensors", "steps": "c.safetensors"}, part), "is not there"),
            "41: trailing bytes": (content(whole + b"\0"), "but the file at"),
            "41: duplicate keys": (
                content(
                    with_header(
                        b'{"steps":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"w":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},'
                        b'"w":{"dtype":"F32","shape":[2],"data_offsets":[16,24]}}',
                        bytes(24),
                    )
                ),
                "is there twice",
            ),
            "47: a pickle": (content(b"PK\x03\x04" + b"\0" * 26 + b"archive/data.pkl"), "PyTorch file"),
            "47: a pointer": (content(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "git lfs pull"),
            "47: a page": (content(b"<!DOCTYPE html><html></html>"), "HTML page"),
            "nothing": (content(b""), "is empty"),
            "noise": (content(bytes(random.randrange(256) for _ in range(200))), ""),
            "an npy": (content(npy([2], [1, 2])), "is npy"),
            "not there": (os.remove, "No such file"),
            "a folder": (lambda path: (os.remove(path), os.mkdir(path)), "this folder holds"),
            "a pipe": (lambda path: (os.remove(path), os.mkfifo(path)), "not a regular file"),
        }

    def test_one_of_twelve_never_stops_a_robust_pipeline(self):
        for name, (make, says) in self.hostile().items():
            for at in (0, 6, 11):
                with self.subTest(name, at=at):
                    for entry in os.listdir(self.folder):
                        path = self.path(entry)
                        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
                    inputs = self.honest()
                    rule = self.ROBUST[at % len(self.ROBUST)] if at else self.ROBUST[0]
                    self.write("w%02d.safetensors" % at, safetensors({**self.model(at), "w": ("F32", [2], [math.nan] * 2)}))
                    expected, _ = self.aggregated(inputs, rule)
                    make(inputs[at])
                    output, workers = self.aggregated(inputs, rule, bad=1)
                    self.assertEqual(output, expected)
                    self.assertIn(says, workers[at]["bad"])

    def test_the_form_is_the_bases(self):
        inputs = self.honest(4)
        for i in (0, 1, 2):
            self.write("w%02d.safetensors" % i, safetensors({"v": ("F32", [1], [i])}))
        base = self.write("base.safetensors", safetensors(self.model(0)))
        self.refused(inputs, "median", "--base", base, code=5, bad=3, says=["3 of 4 are bad inputs"])
        self.aggregate(inputs, "median", bad=1)
        self.assertEqual(read_safetensors(self.output)[0], {"v": [1.5]})  # of 0, 1, 2 and infinity

    def test_without_a_majority_the_groups_are_named(self):
        inputs = self.honest(4)
        for i in (0, 1):
            self.write("w%02d.safetensors" % i, safetensors({"v": ("F32", [1], [i])}))
        self.refused(
            inputs, "median", code=3, says=["more than half of the 4", "2 like " + inputs[0], "2 like " + inputs[2], "missing from"]
        )

    def test_without_a_majority_the_report_says_who_is_of_which_group(self):
        inputs, report = self.honest(4), self.path("report.json")
        for i in (1, 3):
            self.write("w%02d.safetensors" % i, safetensors({"v": ("F32", [1], [i])}))
        self.aggregate(inputs, "median", "--report", report, code=3)
        with open(report) as file:
            bad = [worker["bad"] for worker in json.load(file)["workers"]]
        says = "its form is that of 2 of 4 inputs (as %s), not of more than half"
        self.assertEqual(bad, [says % inputs[0], says % inputs[1]] * 2)

    def test_a_pivot_that_is_not_finite_is_named(self):
        inputs = self.honest(5)
        self.write("w02.safetensors", safetensors({**self.model(2), "w": ("F32", [2], [math.nan, 1])}))
        for rule in ["monna(f=1, pivot=2)", "balance(gamma=1, pivot=2)"]:
            says = "%s: pivot = 2 (%s): the row that the rule trusts (pivot) is not finite" % (rule.partition("(")[0], inputs[2])
            self.refused(inputs, rule, code=5, says=says)

    def test_too_many_are_all_listed(self):
        inputs = self.honest()
        for at in range(3):
            self.write("w%02d.safetensors" % at, "no model")
        error = self.refused(inputs, "nnm(f=2) | trimmed_mean(f=2)", code=5, bad=3, says="3 of 12 are bad inputs")
        for path in inputs[:3]:
            self.assertIn("worker: %s: header length" % path, error)
        self.refused(inputs, "nnm(f=2) | trimmed_mean(f=2)", "--quiet", code=5, bad=3, says="3 of 12 are bad inputs")
        self.refused(inputs, "mean", code=5, bad=3, says="too many workers")
        self.refused(inputs, "monna(f=3, pivot=1)", code=5, bad=3, says=["monna: pivot = 1 is a bad input", inputs[1]])
        self.refused(inputs, "median", "--strict", code=3, says="error: " + inputs[0])

    def test_the_format_is_not_a_workers_to_change(self):  # [3]
        for other in (None, {"format": "tf"}, {"format": "x" * 5000}):
            inputs = self.honest(5, {"format": "pt"})
            self.write("w04.safetensors", safetensors(self.model(4), other))
            self.aggregate(inputs, "median")
            self.assertEqual(read_safetensors(self.output)[1]["format"], "pt")

    def test_a_model_of_no_tensors_is_an_error(self):  # [14]
        inputs = [self.write("%d.safetensors" % i, safetensors({}, {"format": "pt"})) for i in range(3)]
        self.refused(inputs, "median", code=3, says="holds no tensor")

    def test_a_head_that_some_have_tied(self):  # [36]
        inputs = self.honest(5)
        for i in (0, 2, 4):
            self.write("w%02d.safetensors" % i, safetensors({**self.model(i), "lm_head.weight": ("F32", [1], [i])}))
        error = self.refused(inputs, "krum(f=1)", code=5, bad=2, says="2 of 5 are bad inputs")
        self.assertIn('%s: has no tensor "lm_head.weight"' % inputs[1], error)
        self.aggregate(inputs, "median", bad=2)
        self.assertEqual(read_safetensors(self.output)[0]["lm_head.weight"], [4])  # of 0, 2, 4 and two infinite

    def test_the_table_says_bad(self):
        inputs = self.honest()
        self.write("w03.safetensors", "no model")
        lines = self.aggregate(inputs, "median", bad=1).stdout.splitlines()
        self.assertEqual(lines[4].split(), ["w03.safetensors", "bad", "0", "-"])
        self.assertEqual(self.aggregate(inputs, "median", "--quiet").stdout, "")

    def test_an_output_does_not_take_the_place_of_a_bad_input(self):
        inputs = self.honest()
        self.write("w03.safetensors", "no model")
        self.output = inputs[3]
        self.refused(inputs, "median", code=2, bad=1, says="is a file of the input")


class NothingSilent(Case):
    def test_an_output_that_is_not_finite(self):  # [17]
        rows = [[i, 1] for i in range(8)] + [[math.nan, 1]] * 3
        inputs = self.workers(rows)
        for rule, paths in [("trimmed_mean(f=2)", inputs), ("median", inputs[6:]), ("mean", inputs)]:
            for scope in ("whole", "per-tensor"):
                with self.subTest(rule, scope=scope):
                    says = ['tensor "w": the output would hold NaN or infinity', "w08.safetensors (1 value)", "(--allow-nonfinite)"]
                    self.refused(paths, rule, "--scope", scope, code=5, says=says)
                    report = self.path("r.json")
                    done = self.aggregate(paths, rule, "--scope", scope, "--allow-nonfinite", "--report", report)
                    self.assertIn("holds NaN or infinity in 1 value\n", done.stdout)
                    with open(report) as file:
                        self.assertEqual(json.load(file)["output_nonfinite"], 1)
                    os.remove(report)
                    self.assertFalse(math.isfinite(read_safetensors(self.output)[0]["w"][0]))
                    os.remove(self.output)
        self.aggregate(inputs, "trimmed_mean(f=3)")

    def test_no_worker_is_finite(self):
        inputs = self.workers([[math.nan, i] for i in range(5)])
        base = self.workers([[1, 1]], "base")[0]
        good = self.workers([[3, 4]], "good")
        rules = ["clip(c=1) | median", "clip(c=1) | mean", "quantile_clip | mean", "quantile_clip | geometric_median", "centered_clipping(tau=1)", "sign_vote"]
        for rule in rules:
            for options in [[], ["--scope", "per-tensor"], ["--base", base], ["--allow-nonfinite"], ["--weights", "1,1,1,1,0"]]:
                with self.subTest(rule, options=options):
                    n = 4 if "--weights" in options else 5
                    self.refused(inputs, rule, *options, code=5, says=["%d of %d hold NaN or infinity" % (n, n), "w00.safetensors (1 value)"])
            self.aggregate(inputs[1:] + good, rule, "--quiet")
            os.remove(self.output)
            cut = [self.write("cut/%d.safetensors" % i, b"") for i in range(2)]
            self.refused(inputs[2:] + cut, rule, code=5, says=["2 of 5 are bad inputs", "3 of 5 hold NaN or infinity"], bad=2)
            self.refused(inputs[:2] + good, rule, "--weights=1,1,-1", code=5, says=["1 of 3 have a weight that is negative or not finite", "2 of 3 hold NaN"], bad=1)
        self.aggregate(inputs, "median", "--exclude", "w")
        huge = [self.write("huge/%d.safetensors" % i, safetensors({"w": ("F64", [2], [1e200, i])})) for i in range(5)]
        self.refused(huge, "clip(c=1) | median", code=5, says="5 of 5 hold values too large to measure")
        self.aggregate([*huge, self.write("huge/5.safetensors", safetensors({"w": ("F64", [2], [1, 1])}))], "clip(c=1) | median", "--quiet")

    def test_a_weight_that_is_none_is_named(self):
        inputs = self.workers([[i, 2 * i] for i in range(7)])
        says = ["bragg: warning: bad weight, counted as a bad worker: %s: %s\n" % (inputs[i], text) for i, text in [(1, "-2"), (4, "nan")]]
        for rule in ["mean", "median", "trimmed_mean(f=2)", "multi_krum(f=2)", "geometric_median", "clip(c=1) | mean"]:
            done = subprocess.run(
                [BRAGG, "aggregate", *inputs, "--rule", rule, "--weights=1,-2,1,1,nan,1,1", "-o", self.output], capture_output=True, text=True, timeout=120
            )
            self.assertEqual((done.returncode, done.stderr), (0, "".join(says)), rule)
        done = subprocess.run([BRAGG, "aggregate", *inputs, "-q", "--rule", "multi_krum(f=1)", "--weights=1,-2,1,1,nan,1,1", "-o", self.output], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 5)
        self.assertEqual(done.stderr.splitlines(keepends=True)[:2], says)
        named = "2 of 7 have a weight that is negative or not finite: %s (-2), %s (nan)" % (inputs[1], inputs[4])
        self.assertIn(named, done.stderr.splitlines()[2])

    def test_wrong_usage_writes_no_report(self):
        inputs = self.workers([[i, 2 * i] for i in range(7)])
        for rule, options, says in [
            ("krum(f=6)", [], "krum: n = 7"),
            ("median", ["--judge-by", "zz"], "matches no tensor"),
            ("median", ["--memory", "1"], "--memory = 1 bytes"),
            ("median", ["--integers", "error"], "--integers"),
            ("krum(f=1)", ["--weights", "1,1,1,1,1,1,1"], "weights"),
        ]:
            self.refused(inputs, rule, *options, "--report", self.path("r.json"), code=2, says=says)

    def quantised(self, tensors):
        return [self.write("q%d.safetensors" % i, safetensors(tensors)) for i in range(3)]

    def test_quantised_weights(self):  # [4]
        floats = {"norm": ("F32", [64], [1] * 64)}
        for tensors, says in [
            ({"w": ("U8", [8], range(8)), "w.SCB": ("F32", [1], [1])}, '"w.SCB"'),
            ({"a.weight": ("U8", [8], range(8)), "a.SCB": ("F32", [1], [1])}, '"a.weight" of U8'),
            ({"a.weight": ("U8", [8], range(8)), "a.weight.absmax": ("F32", [1], [1])}, '"a.weight.absmax"'),
            ({"blocks": ("U8", [8], range(8)), "scales": ("U8", [2], [1, 2])}, '"scales"'),
            ({"x_blocks": ("U8", [8], range(8)), "x_scales": ("U8", [2], [1, 2])}, '"x_scales"'),
            ({"p.qweight": ("I64", [2], [1, 2]), "p.qzeros": ("I64", [1], [1])}, '"p.qzeros"'),
            ({"p.weight_packed": ("I64", [2], [1, 2]), "p.weight_scale": ("F32", [1], [1])}, '"p.weight_scale"'),
        ]:
            inputs = self.quantised({**floats, **tensors})
            self.refused(inputs, "median", code=2, says=["seems to be quantised", "dequantise", "first", says])
            self.refused(inputs, "median", "--integers", "error", code=2, says="--integers = error: tensor ")
            self.aggregate(inputs, "median", "--integers", "lower-median")
            os.remove(self.output)
        most = {"w": ("U8", [300], [1] * 300), **floats}
        self.refused(self.quantised(most), "median", code=2, says="300 of a model's 556 bytes are integers")
        self.aggregate(self.quantised({**most, "norm": ("F32", [75], [1] * 75)}), "median")

    def test_what_is_no_code_takes_the_lower_median(self):
        tensors = {
            "w": ("F32", [4], [1] * 4),
            "num_batches_tracked": ("I64", [], [1]),
            "count": ("I64", [1], [1]),
            "mask": ("BOOL", [40], [True] * 40),
            "attn.relative_position_index": ("U8", [8], range(8)),
            "attn.logit_scale": ("F32", [1], [1]),
            "attn.scale": ("F32", [1], [1]),
        }
        self.assertIn("50 integers by lower median", self.aggregate(self.quantised(tensors), "median").stdout)

    def test_the_first_integers(self):
        inputs = self.workers([[i, 1] for i in range(5)])
        self.write("workers/w00.safetensors", "no model")
        done = self.aggregate(inputs, "median", "--integers", "first", bad=1)
        self.assertIn("1 integer of the first input", done.stdout)
        self.assertEqual(read_safetensors(self.output)[0]["batches"], [10])
        base = self.write("base.safetensors", safetensors({"w": ("F32", [2], [0, 0]), "batches": ("I64", [], [77])}))
        done = self.aggregate(inputs, "median", "--integers", "first", "--base", base, bad=1)
        self.assertIn("1 integer of the base", done.stdout)
        self.assertEqual(read_safetensors(self.output)[0]["batches"], [77])


class Field(Case):
    """What users of other systems met, where no other test has it: each with the right value."""

    def put(self, models):
        return [self.write("f%02d.safetensors" % i, safetensors(model)) for i, model in enumerate(models)]

    def rows(self, rows, dtype="F32"):
        return self.put([{"w": (dtype, [len(row)], row)} for row in rows])

    def result(self, inputs, rule, *options, bad=0):
        self.aggregate(inputs, rule, "--report", self.path("r.json"), *options, bad=bad)
        with open(self.path("r.json")) as file:
            return read_safetensors(self.output)[0], json.load(file)

    def test_counters_keep_their_dtype_and_take_the_lower_median(self):
        counters = [(3, True, 1), (4, False, 2**63 + 5), (2**62, False, 2**64 - 1)]
        models = [{"w": ("F32", [8], [1] * 8), "n": ("I64", [], [n]), "b": ("BOOL", [], [b]), "u": ("U64", [], [u])} for n, b, u in counters]
        out, _ = self.result(self.put(models), "krum(f=0)")
        self.assertEqual((out["n"], out["b"], out["u"]), ([4], [False], [2**63 + 5]))

    def test_what_is_never_negative_stays_so(self):
        rng = random.Random(SEED)
        for _ in range(5):
            models = [{"running_var": ("F32", [40], [abs(rng.gauss(0, 1)) * 10 ** rng.uniform(-6, 3) for _ in range(40)])} for _ in range(7)]
            base = self.write("base.safetensors", safetensors(models.pop()))
            for rule in ["clip(c=1) | mean", "centered_clipping(tau=1)", "nnm(f=1) | geometric_median", "arc(f=1) | trimmed_mean(f=1)"]:
                out, _ = self.result(self.put(models), rule, "--base", base)
                self.assertGreaterEqual(min(out["running_var"]), 0, rule)

    def test_nan_in_one_tensor_counts_there_alone(self):
        models = [{"a": ("F32", [2], [i, -i]), "b": ("F32", [2], [i, 2 * i])} for i in range(6)]
        models[3]["b"] = ("F32", [2], [math.nan] * 2)
        out, report = self.result(self.put(models), "trimmed_mean(f=1)", "--scope", "per-tensor")
        self.assertEqual(out["a"], [2.5, -2.5])
        self.assertEqual(out["b"], [(1 + 2 + 4 + 5) / 4, (2 + 4 + 8 + 10) / 4])
        self.assertEqual([t["workers"][3]["nonfinite"] for t in report["tensors"]], [0, 2])
        out, _ = self.result(self.put(models), "krum(f=1)", "--scope", "per-tensor")
        self.assertIn(out["b"], [[i, 2 * i] for i in (0, 1, 2, 4, 5)])

    def test_distances_of_near_rows_far_from_zero(self):
        # In float32, 512695^2 + 512804^2 - 2 * 512695 * 512804 is 0.
        _, report = self.result(self.rows([[512695], [512804], [512804]]), "krum(f=0)")
        self.assertEqual([worker["score"] for worker in report["workers"]], [109**2, 0, 0])
        out, _ = self.result(self.rows([[1e8], [1e8 + 1], [1e8 + 1], [1e8 + 2], [1e8 + 50]], "F64"), "krum(f=1)")
        self.assertEqual(out["w"], [1e8 + 1])
        rng = random.Random(SEED)
        near = [[1000 + 1e-3 * rng.gauss(0, 1) for _ in range(1000)] for _ in range(6)]
        _, report = self.result(self.rows([*near, near[0]]), "krum(f=2)")
        rounded = [struct.unpack("<1000f", struct.pack("<1000f", *row)) for row in [*near, near[0]]]
        for i, worker in enumerate(report["workers"]):
            nearest = sorted(sum((a - b) ** 2 for a, b in zip(rounded[i], other)) for k, other in enumerate(rounded) if k != i)[:3]
            self.assertAlmostEqual(worker["score"] / sum(nearest), 1, places=6)

    def test_bounds_are_the_right_way_round(self):
        inputs = self.rows([[i, -i] for i in range(7)])
        self.aggregate(inputs, "bulyan(f=1)")
        os.remove(self.output)
        self.refused(inputs[:6], "bulyan(f=1)", code=2, says="needs n ≥ 4f+3 = 7")
        self.refused(inputs[:6], "krum(f=2)", code=2, says=["krum: n = 6", "needs n ≥ 2f+3 = 7; lower f to at most 1 or add workers"])
        self.refused(inputs[:1], "krum(f=0)", code=2, says="krum: n = 1")

    def test_copies_count_as_often_as_they_are_there(self):
        out, _ = self.result(self.rows([[1], [1], [2], [3], [4], [5], [1e6]]), "bulyan(f=1)")
        self.assertTrue(1 <= out["w"][0] <= 5, out)
        out, _ = self.result(self.rows([[0], [0], [0], [10], [20]]), "geometric_median")
        self.assertLess(abs(out["w"][0]), 1e-6)

    def test_medians_of_symmetric_points(self):
        for rows, expected in [
            ([[0, 0], [1, 0], [0.5, math.sqrt(0.75)]], [0.5, math.sqrt(1 / 12)]),
            ([[0, 0], [1, 0], [0, 1], [1, 1]], [0.5, 0.5]),
            ([[0, 0], [2, 0], [4, 0], [6, 0], [100, 0]], [4, 0]),
            ([[-1, 0], [0, 0], [1, 0]], [0, 0]),  # the mean, where it starts, is a row
        ]:
            for start in ["mean", "medoid"]:
                out, _ = self.result(self.rows(rows), "geometric_median(start=%s)" % start)
                for got, right in zip(out["w"], expected):
                    self.assertAlmostEqual(got, right, places=4, msg=str(rows))
        out, _ = self.result(self.rows([[0], [0], [1], [1]]), "geometric_median")
        self.assertTrue(0 <= out["w"][0] <= 1, out)

    def test_beyond_4_gib(self):
        inputs = []
        for i in range(3):
            big = 4 * 1_200_000_000
            header = {"big": {"dtype": "F32", "shape": [1_200_000_000], "data_offsets": [0, big]}, "w": {"dtype": "F32", "shape": [2], "data_offsets": [big, big + 8]}}
            text = json.dumps(header).encode()
            path = self.write("large%d.safetensors" % i, struct.pack("<Q", len(text)) + text)
            with open(path, "r+b") as file:  # sparse
                file.seek(8 + len(text) + big)
                file.write(struct.pack("<2f", i, 7 * i))
            inputs.append(path)
        out, _ = self.result(inputs, "median", "--exclude", "big")
        self.assertEqual(out, {"w": [1, 7]})

    def test_a_row_to_trust_that_is_not_there(self):
        inputs = self.rows([[i, -i] for i in range(12)])
        for rule in ["monna(f=2, pivot=%s)", "fltrust(pivot=%s)", "balance(gamma=1, pivot=%s)"]:
            self.refused(inputs, rule % 12, code=2, says="pivot = 12: needs 0 ≤ pivot < n, here 0 to 11")
            if not rule.startswith("fltrust"):
                self.refused(inputs, rule % 3, "--weights", "1,1,1,0,1,1,1,1,1,1,1,1", code=2, says="pivot")
            gone = [*inputs[:3], self.path("gone.safetensors"), *inputs[4:]]
            self.refused(gone, rule % 3, code=5, bad=1, says=["pivot = 3 is a bad input", "gone.safetensors"])


class Audit(Case):
    def rows(self):
        """Nine workers of 40 values, alike but for what is their own: of a seed that was looked at, not of the session's."""
        random_numbers = random.Random(18)
        mean = [random_numbers.gauss(0, 1) for _ in range(40)]
        return [[x + random_numbers.gauss(0, 1) for x in mean] for _ in range(9)]

    def models(self, rows, folder="workers", base=0):
        return [
            self.write("%s/w%d.safetensors" % (folder, i), safetensors({"a": ("F32", [8], [x + base for x in row[:8]]), "b": ("F64", [4, 8], [x + base for x in row[8:]]), "steps": ("I64", [], [i])}))
            for i, row in enumerate(rows)
        ]

    def audit(self, *arguments):
        """(JSON, text)"""
        text = self.run_bragg("audit", *arguments).stdout
        return json.loads(self.run_bragg("audit", *arguments, "--json").stdout, parse_constant=self.fail), text

    def points(self, found, rule):
        return {point["f"]: point for point in next(r for r in found["rules"] if r["rule"] == rule)["points"]}

    def test_names_who_looks_bad_and_says_why(self):
        rows = self.rows()
        rows[1] = [-10 * x for x in rows[1]]
        rows[3][5] = math.nan
        inputs = self.models(rows)
        self.write("workers/w6.safetensors", "no model")
        found, text = self.audit(self.path("workers"), "--sample", "16")
        self.assertEqual((found["n"], found["honest"], found["coordinates"]), (9, 6, 40))
        self.assertTrue(16 <= found["sample"] < 32, found["sample"])  # of small tensors more
        self.assertEqual([worker["name"] for worker in found["workers"]], inputs)
        evidence = [[finding["evidence"] for finding in worker["findings"]] for worker in found["workers"]]
        self.assertEqual([i for i, findings in enumerate(evidence) if findings], [1, 3, 6])
        self.assertLessEqual({"norm", "distance", "direction"}, set(evidence[1]))
        self.assertEqual(evidence[3], ["non-finite"])
        self.assertEqual(evidence[6], ["bad input"])
        self.assertIn("header length", found["workers"][6]["findings"][0]["text"])
        self.assertEqual((found["workers"][3]["nonfinite"], found["workers"][3]["norm"]), (1, None))
        self.assertEqual(found["advice"]["f"], 3)
        self.assertAlmostEqual(sum(tensor["share"] for tensor in found["tensors"]), 1)
        self.assertEqual([tensor["name"] for tensor in found["tensors"]], ["a", "b"])
        self.assertRegex(text, r"(?m)^w0.safetensors +good ")
        self.assertRegex(text, r"(?m)^w3.safetensors +bad +non-finite: 1 value is NaN or infinite$")
        self.assertIn("6 of 9 workers look honest; 40 coordinates", text)
        self.assertIn('Recommended: "%s"' % found["advice"]["rule"], text)

        # What is recommended keeps to the honest mean, and as far as the table says.
        self.aggregate(inputs, found["advice"]["rule"], "--integers", "first", "--out-dtype", "f64", bad=1)
        out, _ = read_safetensors(self.output)
        honest = [rows[i] for i in (0, 2, 4, 5, 7, 8)]
        mean = [sum(column) / 6 for column in zip(*honest)]
        spread = sum((x - m) ** 2 for row in honest for x, m in zip(row, mean)) / 6
        off = sum((x - m) ** 2 for x, m in zip(out["a"] + out["b"], mean)) / spread
        self.assertAlmostEqual(found["spread"], math.sqrt(spread), places=5)
        whole = json.loads(self.run_bragg("audit", *inputs, "--sample", "0", "--json").stdout)
        advised = next(r["rule"] for r in whole["rules"] if r["rule"].replace("F", "3") == found["advice"]["rule"])
        self.assertAlmostEqual(self.points(whole, advised)[3]["given"], off, places=5)
        self.assertLess(off, self.points(whole, advised)[3]["kappa"])

    def test_a_base_that_no_worker_is_like_is_refused(self):
        inputs = self.models(self.rows())
        base = self.write("base.safetensors", safetensors({"a": ("F32", [8], [0] * 8), "b": ("F64", [8], [0] * 8), "steps": ("I64", [], [0])}))
        error = self.run_bragg("audit", *inputs, "--base", base, code=2).stderr
        self.assertIn("error: --base: none of the 9 inputs is like %s; the first: %s: tensor \"b\" has shape [4, 8]" % (base, inputs[0]), error)
        self.write("workers/w0.safetensors", safetensors({"a": ("F32", [8], [0] * 8), "b": ("F64", [8], [1] * 8), "steps": ("I64", [], [0])}))
        found, _ = self.audit(*inputs, "--base", base)  # one is like it: the others differ from what was agreed
        self.assertEqual([bool(worker["findings"]) for worker in found["workers"]], [False] + [True] * 8)

    def test_copies_have_names(self):
        rows = self.rows()
        rows[2] = rows[7]
        _, text = self.audit(*self.models(rows))
        self.assertRegex(text, r"(?m)^w2.safetensors +bad .* copy: 1 other row at a distance of 0, where .*: w7.safetensors$")
        self.assertRegex(text, r"(?m)^w7.safetensors +bad .*: w2.safetensors$")

    def test_prices(self):
        inputs = self.models(self.rows())
        found, text = self.audit(*inputs, "--rule", "mean", "--rule", "trimmed_mean(f=F)", "--rule", "krum(f=1)", "--f", "2")
        self.assertEqual([rule["rule"] for rule in found["rules"]], ["mean", "trimmed_mean(f=F)", "krum(f=1)"])
        self.assertEqual(found["honest"], 9)
        mean, trimmed = self.points(found, "mean"), self.points(found, "trimmed_mean(f=F)")
        self.assertEqual(sorted(trimmed), [0, 1, 2, 3, 4])
        self.assertLess(mean[0]["cost"], 1e-20)
        self.assertEqual((mean[1]["worst"], mean[1]["unbounded"], mean[1]["attack"], mean[1]["kappa"]), (None, True, "nan", None))
        self.assertAlmostEqual(trimmed[2]["bound"], 2 / 7)
        self.assertAlmostEqual(trimmed[2]["kappa"], 6 * 0.4 * 1.4)
        self.assertLess(trimmed[2]["worst"], trimmed[2]["kappa"])
        self.assertGreater(trimmed[2]["cost"], 0)
        self.assertIsNone(trimmed[2]["given"])
        self.assertEqual((found["advice"]["f"], found["advice"]["rule"]), (2, "trimmed_mean(f=2)"))
        self.assertIn("f = 2, as asked", text)
        self.assertRegex(text, r"(?m)^mean +1 +0 .* unbounded +nan ")
        self.assertIn("Larger f: in the JSON and the plot", text)

    def test_base_and_exclude(self):
        rows = self.rows()
        rows[4] = [-x for x in rows[4]]
        inputs = self.models(rows, base=1000)
        base = self.write("base.safetensors", safetensors({"a": ("F32", [8], [1000] * 8), "b": ("F64", [4, 8], [1000] * 32), "steps": ("I64", [], [0])}))
        found, _ = self.audit(*inputs, "--base", base)
        self.assertEqual([i for i, worker in enumerate(found["workers"]) if not worker["honest"]], [4])
        self.assertEqual(found["workers"][4]["findings"][-1]["evidence"], "direction")
        self.assertAlmostEqual(found["workers"][0]["norm"], math.sqrt(sum(x * x for x in rows[0])), places=3)
        found, _ = self.audit(*inputs, "--exclude", "b")
        self.assertEqual((found["coordinates"], len(found["tensors"])), (8, 1))
        broken = self.write("broken.safetensors", safetensors({"a": ("F32", [8], [math.nan] * 8), "b": ("F64", [4, 8], [0] * 32), "steps": ("I64", [], [0])}))
        self.assertIn("--base: holds NaN or infinity", self.run_bragg("audit", *inputs, "--base", broken, code=5).stderr)

    def test_plot(self):
        inputs = self.models(self.rows())
        plot = self.path("cost.svg")
        self.audit(*inputs, "--svg", plot)
        with open(plot) as file:
            text = file.read()
        root = xml.etree.ElementTree.fromstring(text)
        curves = root.findall("{http://www.w3.org/2000/svg}polyline")
        self.assertEqual(len(curves), 21)  # ten rules in two panels, and the bound
        self.assertEqual(len(curves[1].get("points").split()), 5)  # the mean, f from 0 to 4
        words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        self.assertIn("nnm(f=F) | geometric_median", words)
        self.assertIn("--svg", self.run_bragg("audit", *inputs, "--svg", self.path("none", "cost.svg"), code=4).stderr)

    def test_the_plot_takes_the_place_of_nothing_that_is_read(self):
        inputs = self.models(self.rows())
        base = self.write("base.safetensors", safetensors({"a": ("F32", [8], [0] * 8), "b": ("F64", [4, 8], [0] * 32), "steps": ("I64", [], [0])}))
        shard = self.write("global/a.safetensors", safetensors({"a": ("F32", [8], [0] * 8)}))
        stored = self.write("store/blob", safetensors({"b": ("F64", [4, 8], [0] * 32), "steps": ("I64", [], [0])}))
        os.symlink(stored, self.path("global", "b.safetensors"))
        names = {"a": "a.safetensors", "b": "b.safetensors", "steps": "b.safetensors"}
        index = self.write("global/m.safetensors.index.json", json.dumps({"weight_map": names}))
        os.symlink(base, self.path("link.svg"))
        os.link(base, self.path("same.svg"))
        files = [inputs[0], base, shard, stored, index]
        before = contents(files)
        for given, based, plot, says in [
            (inputs, base, inputs[0], "is a file of the input " + inputs[0]),
            (inputs, base, base, "is a file of --base"),
            (inputs, base, self.path("link.svg"), "is a file of --base"),
            (inputs, base, self.path("same.svg"), "is a file of --base"),
            (inputs, self.path("global"), shard, "is a file of --base"),
            (inputs, index, shard, "is a file of --base"),
            (inputs, index, index, "is a file of --base"),
            (inputs, index, stored, "is a file of --base"),
            ([self.path("workers")], base, self.path("workers", "new.npy"), "would be a file of the input"),
        ]:
            with self.subTest(plot=plot, base=based):
                error = self.run_bragg("audit", *given, "--base", based, "--svg", plot, code=2).stderr
                self.assertIn("error: --svg: %s %s" % (plot, says), error)
                self.assertEqual(contents(files), before)
        # A report of `aggregate` keeps off them, too.
        self.refused(inputs, "median", "--base", index, "--report", stored, code=2, says="--report: %s is a file of --base" % stored)
        self.assertEqual(contents(files), before)
        plot = self.path("workers", "cost.svg")  # which no worker is
        self.run_bragg("audit", self.path("workers"), "--svg", plot)
        self.assertTrue(os.path.exists(plot))
        self.run_bragg("audit", self.path("workers"), "--svg", plot)

    def test_wrong_usage(self):
        inputs = self.models(self.rows())
        error = self.run_bragg("audit", *inputs, "--rule", "krum(f=F) | median", code=2).stderr
        self.assertIn("  krum(f=F) | median\n", error)
        self.assertIn("^", error)
        self.assertIn("trusts a row", self.run_bragg("audit", *inputs, "--rule", "monna(f=F)", code=2).stderr)
        self.assertRegex(self.run_bragg("audit", *inputs, "--rule", "krum(f=9)", code=2).stderr, r"error: --rule: krum\(f=9\): .*2f\+3")
        error = self.run_bragg("audit", *inputs, "--rule", "dnc(f=F, sample=39)", code=2).stderr
        self.assertIn("error: --rule: dnc(f=F, sample=39): judges rows by 39 of 40 coordinates", error)
        self.run_bragg("audit", *inputs, "--rule", "dnc(f=F, sample=40)")
        warned = subprocess.run([BRAGG, "audit", *inputs, "--exclude", "nosuch*", "--json"], capture_output=True, text=True)
        self.assertEqual(warned.returncode, 0, warned.stderr)
        self.assertIn('bragg: warning: --exclude: "nosuch*" matches no tensor', warned.stderr)
        self.assertEqual(json.loads(warned.stdout)["coordinates"], 40)
        error = self.run_bragg("audit", *inputs, "--exclude", "[ab]", code=2).stderr
        self.assertIn("error: --exclude: no coordinate of a floating-point tensor is left", error)
        self.assertIn("--f: 5 of 9 workers", self.run_bragg("audit", *inputs, "--f", "5", code=2).stderr)
        self.assertIn("2 workers; an audit needs at least 3", self.run_bragg("audit", *inputs[:2], code=2).stderr)
        self.assertIn("error: 1 worker; an audit needs at least 3", self.run_bragg("audit", inputs[0], code=2).stderr)
        for option in ("--sample", "--seed", "--f"):
            self.assertIn("%s: '-1' is not a whole number" % option, self.run_bragg("audit", *inputs, option, "-1", code=2).stderr)
        self.assertIn("Run `bragg audit --help`", self.run_bragg("audit", code=2).stderr)

    def test_memory_is_bounded(self):
        # 5 workers of 96 MB, with 64 MB of windows; and what the command takes for three values.
        names = ["big/w%d.npy" % i for i in range(5)]
        for i, name in enumerate(names):
            values = array.array("f", [random.Random(i).random() for _ in range(1000)]) * 24000
            header = npy([len(values)], [])
            self.write(name, header + values.tobytes())
        small = self.models(self.rows())
        few = self.peak_memory("audit", *small, "--rule", "median", "--json")
        many = self.peak_memory("audit", *[self.path(name) for name in names], "--rule", "median", "--sample", "1000", "--json")
        if not os.environ.get("BRAGG_SANITIZE"):
            self.assertLess(many, few + 90)


class Inspect(Case):
    model = BadInputs.model

    def inspect(self, *arguments):
        """(JSON, lines of the table)"""
        table = self.run_bragg("inspect", *arguments).stdout
        return json.loads(self.run_bragg("inspect", *arguments, "--json").stdout, parse_constant=self.fail), table.splitlines()

    def test_says_what_is_bad_and_what_is_like_what(self):
        model = {"big": ("F32", [2], [3, 4]), "h": ("F16", [2], [0.5, 0]), "d": ("F64", [1], [0]), "steps": ("I64", [], [1])}
        inputs = [self.write("w/%d.safetensors" % i, safetensors(model)) for i in range(4)]
        self.write("w/1.safetensors", safetensors({**model, "h": ("F16", [2], [math.inf, math.nan])}))
        self.write("w/2.safetensors", safetensors({**model, "d": ("F64", [1], [1e300])}))
        self.write("w/3.safetensors", "no model")
        report, table = self.inspect(self.path("w"))
        self.assertEqual((report["n"], report["bad"], report["integers"]), (4, 1, None))
        self.assertEqual(report["form"], "4 tensors (1 F16, 1 F32, 1 F64, 1 I64) of 28 bytes, safetensors")
        self.assertEqual(report["tensors"][0], {"name": "big", "dtype": "F32", "shape": [2]})
        self.assertEqual([i["name"] for i in report["inputs"]], inputs)
        self.assertEqual([i["nonfinite"] for i in report["inputs"]], [0, 2, 0, None])
        self.assertEqual([i["dominant"] for i in report["inputs"]], ["big", "big", "d", None])
        self.assertAlmostEqual(report["inputs"][0]["norm"], math.sqrt(25.25))
        self.assertAlmostEqual(report["inputs"][0]["dominant_share"], 25 / 25.25)
        self.assertEqual(report["inputs"][2]["norm"], 1e300)
        self.assertIn("header length", report["inputs"][3]["bad"])
        self.assertEqual(table[1].split(), ["0.safetensors", "yes", "0", "5.025", "99", "%", "big"])
        self.assertEqual(table[4].split()[:2], ["3.safetensors", "bad"])
        self.assertIn("3 of 4 inputs have the form: 4 tensors", table[-1])

    def test_agrees_with_what_aggregate_takes_as_bad(self):
        hostile = BadInputs.hostile(self)
        for name in ["1: truncated", "2: renamed", "7: compiled", "41: trailing bytes", "not there", "a pipe"]:
            with self.subTest(name):
                inputs = BadInputs.honest(self, 5)
                hostile[name][0](inputs[0])
                report, _ = self.inspect(*inputs)
                self.assertEqual([i["bad"] is None for i in report["inputs"]], [False, True, True, True, True])
                error = self.aggregate(inputs, "median", bad=1).stderr
                self.assertIn(report["inputs"][0]["bad"], error)
                if os.path.exists(inputs[0]):
                    os.remove(inputs[0])

    def test_what_aggregate_would_refuse(self):
        good = self.workers([[1, 2]])[0]
        other = self.write("other.safetensors", safetensors({"v": ("F32", [1], [1])}))
        self.assertIn("1 like", self.run_bragg("inspect", good, other, code=3).stderr)
        report, table = self.inspect(good)
        self.assertEqual(report["bad"], 0)
        self.assertIn("1 of 1 input has the form: 2 tensors", table[-1])
        codes = self.write("q.safetensors", safetensors({"w": ("U8", [8], range(8)), "w.SCB": ("F32", [1], [1])}))
        report, table = self.inspect(codes)
        self.assertIn("seems to be quantised", report["integers"])
        self.assertIn("seems to be quantised", table[-1])

    def test_leaves_tensors_out(self):
        inputs = [self.write("w%d.safetensors" % i, safetensors({"w": ("F32", [1], [i]), "s": ("F32", [i], [1e9] * i)})) for i in range(3)]
        self.run_bragg("inspect", *inputs, code=3)
        report, table = self.inspect(*inputs, "--exclude", "s")
        self.assertEqual((report["bad"], [i["norm"] for i in report["inputs"]]), (0, [0, 1, 2]))
        self.assertIn("3 of 3 inputs have the form: 1 tensor (1 F32) of 4 bytes", table[-1])
        report, table = self.inspect(*inputs, "--base", inputs[2], "--copy", "s")
        self.assertEqual((report["bad"], [i["norm"] for i in report["inputs"]]), (0, [0, 1, 2]))
        self.assertIn("of the base: 2 tensors", table[-1])

    def test_takes_the_base_and_a_matrix(self):
        good = self.workers([[1, 2], [3, 4]])
        base = self.write("base.safetensors", safetensors({"v": ("F32", [1], [1])}))
        report, table = self.inspect(*good, "--base", base)
        self.assertEqual(report["bad"], 2)
        self.assertIn("0 of 2 inputs have the form of the base", table[-1])
        matrix = self.write("m.npy", npy([3, 2], [3, 4, 0, 0, math.nan, 1]))
        report, _ = self.inspect(matrix)
        self.assertEqual([(i["norm"], i["nonfinite"]) for i in report["inputs"]], [(5, 0), (0, 0), (1, 1)])
        self.assertEqual(report["form"], "1 tensor (1 F32) of 8 bytes, npy")


class Terminal(Case):
    def aggregate_on_terminal(self, *options):
        return self.run_on_terminal("aggregate", *self.workers(FIVE), "--rule", "median", "-o", self.output, *options)

    def run_on_terminal(self, *arguments):
        """stderr of a run that has a terminal there."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen([BRAGG, *seeded(arguments)], stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        seen = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                some = os.read(ours, 4096)
            except OSError:  # closed at the other end
                break
            if not some:
                break
            seen += some
        os.close(ours)
        process.communicate()
        self.assertEqual(process.returncode, 0)
        return seen.decode()

    def test_shows_progress_and_clears_it(self):
        for seen, words in [
            (self.aggregate_on_terminal(), "pass 1 of 1"),
            (self.run_on_terminal("verify", "--quick", "--rule", "krum"), "round 1"),
            (self.run_on_terminal("bench", *Bench.TINY, "--rule", "median"), "own speed"),
        ]:
            self.assertIn(words, seen)
            self.assertIn("%", seen)
            self.assertTrue(seen.endswith("\r\x1b[K"))

    def test_shows_none_when_quiet(self):
        self.assertEqual(self.aggregate_on_terminal("--quiet"), "")


if __name__ == "__main__":
    BRAGG = sys.argv.pop(1)
    print_seed()
    unittest.main(testLoader=Loader())
