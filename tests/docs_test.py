# SPDX-License-Identifier: Apache-2.0
"""The documentation against the program: docs_test.py BRAGG SOURCE BUILD. Needs Python, and CC and CXX or cc and c++.

Checked: C++, CMake and make blocks are in the tree word for word; C programs and console blocks give the output
shown; the worked example of adding-a-rule.md compiles and runs; links and paths lead somewhere; tables say what the
program says; docs/rules.md is what scripts/generate.sh makes.
"""

import concurrent.futures
import difflib
import glob
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import textwrap
import unittest
import xml.etree.ElementTree

from seed import SEED, print_seed, seeded

BRAGG = SOURCE = BUILD = ""
SANITIZE = os.environ.get("BRAGG_SANITIZE", "")

BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
ADDING_A_RULE = "docs/adding-a-rule.md"

# The new rule of adding-a-rule.md against its oracle: seeded rows, some of them bad.
PROGRAM = """
#include <bragg/pipeline.hpp>
#include <bragg/plan.hpp>
#include <bragg/updates.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>
#include "host/reference/oracle.hpp"

int main(int, char** argv) {
  std::mt19937_64 random(std::strtoull(argv[1], nullptr, 10));
  int judged = 0;
  for (const char* const text : {"nearest_pair(f=2)", "nnm(f=2) | nearest_pair(f=2)"}) {
    for (int round = 0; round < 20; ++round) {
      const int n = 5 + round % 8;
      constexpr int d = 7;
      std::vector<double> rows(n * d);
      for (double& x : rows) x = std::normal_distribution<double>(1, 1)(random);
      for (int j = 0; j < d; ++j) rows[j] = round % 2 == 0 ? 1e6 : NAN;
      bragg::reference::Input input;
      input.f64 = true;
      for (int i = 0; i < n; ++i) input.rows.emplace_back(rows.begin() + i * d, rows.begin() + (i + 1) * d);
      const bragg::Pipeline pipeline = bragg::parse(text);
      const bragg::reference::Result expected = bragg::reference::aggregate(pipeline, input);
      if (expected.status != bragg::Status::ok || bragg::to_string(pipeline) != text) return 2;
      std::vector<double> out(d);
      bragg::aggregate(pipeline, bragg::Updates::matrix(rows.data(), n, d, bragg::DType::f64), bragg::Output(out.data()));
      if (expected.margin < 1e-9) continue;
      ++judged;
      for (int j = 0; j < d; ++j) {
        if (std::abs(out[j] - expected.out[j]) <= 1e-9) continue;
        std::printf("%s, n = %d: %g, but the oracle has %Lg\\n", text, n, out[j], expected.out[j]);
        return 1;
      }
    }
  }
  try {
    bragg::validate(bragg::parse("nearest_pair(f=2)"), 4);
    return 3;
  } catch (const bragg::Error&) {
  }
  std::printf("%d\\n", judged);
  return judged < 20 ? 4 : 0;
}
"""


def read(path):
    with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
        return file.read()


def pages():
    found = []
    for pattern in ("*.md", "docs/*.md", "bench/**/README.md", "examples/**/README.md", "tests/simt/README.md"):
        found += sorted(glob.glob(pattern, root_dir=SOURCE, recursive=True))
    return found


def blocks(page, language):
    """[(line, text)] of a page's blocks in a language, without their indentation."""
    text = read(page)
    return [
        (text.count("\n", 0, match.start()) + 1, textwrap.dedent(match.group(3)))
        for match in BLOCK.finditer(text)
        if match.group(2) == language
    ]


def prose(page):
    return BLOCK.sub("", read(page))


def tables(text):
    """The tables of a page: lists of rows, which are lists of cells."""
    found, rows = [], []
    for line in text.splitlines() + [""]:
        if line.startswith("|"):
            rows.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif rows:
            found.append([rows[0]] + rows[2:])
            rows = []
    return found


def bragg(*arguments, folder=None):
    return subprocess.run([BRAGG, *seeded(arguments)], cwd=folder, capture_output=True, text=True, check=True, timeout=120).stdout


def rules():
    return json.loads(bragg("rules", "--json"))


def without_chance(text):
    """Without what differs from run to run, or machine to machine: times, rates, the device, the sign of a NaN."""
    text = re.sub(r"\bin [\d.]+ (m?s|min)( \([\d.]+ [kMGT]?B/s\))?", "in TIME", text)
    text = re.sub(r", on (the CPU|a CUDA device)$", ", on DEVICE", text, flags=re.MULTILINE)
    return re.sub(r"-nan\b", "nan", text)


def safetensors(path, values):
    data = struct.pack("<%df" % len(values), *values)
    header = json.dumps({"weight": {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(data)]}}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + data)


class Docs(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = temporary.name

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def same(self, got, shown, where):
        if got != shown:
            difference = difflib.unified_diff(shown.splitlines(), got.splitlines(), where, "what it is", lineterm="")
            self.fail("\n".join(["%s is not what it is" % where, *difference, "", got]))

    def run_shell(self, command):
        environment = {**os.environ, "PATH": os.path.dirname(BRAGG) + os.pathsep + os.environ["PATH"]}
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        ).stdout


class Snippets(Docs):
    def test_code_is_in_the_tree_word_for_word(self):
        patterns = {
            "cpp": ["examples/*.cpp", "examples/*/*.cpp", "tests/*.cpp", "tests/device/*.cpp"],
            "cmake": ["examples/*/CMakeLists.txt"],
            "make": ["examples/*/Makefile"],
        }
        for language, places in patterns.items():
            files = [name for place in places for name in glob.glob(place, root_dir=SOURCE)]
            sources = [read(name) for name in files]
            for page in pages():
                if page == ADDING_A_RULE:
                    continue  # its blocks make a rule that there is not: see the test of that page
                for line, block in blocks(page, language):
                    with self.subTest("%s:%d" % (page, line)):
                        self.assertTrue(any(block in source for source in sources), "in no %s:\n%s" % (places, block))
        quickstart = read("examples/quickstart.cpp").partition("\n")[2]
        self.assertEqual(blocks("README.md", "cpp")[0][1], quickstart)

    def test_every_block_is_of_a_kind_that_is_checked(self):
        for page in pages():
            for match in BLOCK.finditer(read(page)):
                with self.subTest(page):
                    self.assertIn(match.group(2), {"cpp", "c", "cmake", "make", "console", "sh", "text", "python"}, match.group(0))

    def test_c_programs_give_the_text_below_them(self):
        compiler = os.environ.get("CC", "cc")
        found = 0
        for page in pages():
            for block in re.finditer(r"^```c\n(.*?)^```\n+```text\n(.*?)^```$", read(page), re.MULTILINE | re.DOTALL):
                found += 1
                with open(self.path("program.c"), "w") as file:
                    file.write(block.group(1))
                flags = ["-fsanitize=" + SANITIZE] if SANITIZE else []
                flags += ["-I" + os.path.join(root, "include") for root in (SOURCE, BUILD)]
                flags += ["-L" + BUILD, "-Wl,-rpath," + BUILD, "program.c", "-o", "program", "-lbragg"]
                subprocess.run([compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", *flags], cwd=self.folder, check=True)
                self.same(self.run_shell("./program"), block.group(2), "the output of the C program in " + page)
        self.assertEqual(found, sum(len(blocks(page, "c")) for page in pages()), "a C program without its output")
        self.assertGreater(found, 0)

    def test_commands_give_the_output_shown(self):
        # The commands see the tree's examples, its build in build/cpu, and small models of five workers.
        os.mkdir(self.path("build"))
        os.symlink(BUILD, self.path("build", "cpu"))
        os.symlink(os.path.join(SOURCE, "examples"), self.path("examples"))
        os.mkdir(self.path("workers"))
        for i, values in enumerate([[1, 10], [2, 20], [3, 30], [4, 40], [float("nan"), 50]]):
            safetensors(self.path("workers", "w%d.safetensors" % (i + 1)), values)
        found = 0
        for page in pages():
            for line, block in blocks(page, "console"):
                parts = re.split(r"^\$ ((?:.*\\\n)*.*)\n", block, flags=re.MULTILINE)
                self.assertEqual(parts[0], "", "%s:%d does not begin with a command" % (page, line))
                for command, shown in zip(parts[1::2], parts[2::2]):
                    found += 1
                    with self.subTest("%s:%d %s" % (page, line, command)):
                        got = self.run_shell(command)
                        self.same(without_chance(got), without_chance(shown), "%s:%d, $ %s" % (page, line, command))
        self.assertGreater(found, 0)

    def test_the_rule_of_adding_a_rule_runs(self):
        """In library, oracle and the steps of the kernels. What depends on the list of rules is compiled, the rest is the build's."""
        for part in ("host", "include", "kernels", "rules"):
            shutil.copytree(os.path.join(SOURCE, part), self.path(part))
        struct_block, rule_block, oracle_block = [block for _, block in blocks(ADDING_A_RULE, "cpp")]

        def splice(name, *changes):
            text = read(name)
            for anchor, replacement in changes:
                text, count = re.subn(anchor, replacement, text)
                self.assertEqual(count, 1, "%s has changed: where is %r?" % (name, anchor))
            with open(self.path(name), "w", encoding="utf-8") as file:
                file.write(text)

        listed = (r"(using Aggregators =\s[^>]*)>;", r"\1, NearestPair>;")
        splice("include/bragg/pipeline.hpp", (r"// The closed list of rules", struct_block + r"\n\g<0>"), listed)
        splice("rules/all.hpp", (r'#include "rules/nnm.hpp"\n', r'#include "rules/nearest_pair.hpp"\n\g<0>'))
        made = {"rules/nearest_pair.hpp": rule_block, "host/reference/nearest_pair.cpp": oracle_block, "program.cpp": PROGRAM}
        for name, content in made.items():
            with open(self.path(name), "w", encoding="utf-8") as file:
                file.write(content)

        compiler = [os.environ.get("CXX", "c++"), "-std=c++20", "-fopenmp", "-Wall", "-Wextra", "-Werror"]
        compiler += ["-DBRAGG_STATIC_DEFINE", "-I" + self.folder, "-I" + self.path("include"), "-I" + os.path.join(BUILD, "include")]
        compiler += ["-fsanitize=" + SANITIZE] if SANITIZE else []
        sources = ["program.cpp", "host/reference/nearest_pair.cpp", "host/reference/oracle.cpp"]
        sources += ["rules/%s.cpp" % name for name in ("needs", "parse", "table")]
        sources += ["host/plan/%s.cpp" % name for name in ("cpu_plan", "cpu_rows", "engine", "plan", "plan_request", "report", "weights")]
        objects = [source.replace("/", "_") + ".o" for source in sources]

        def run(command):
            return subprocess.run(command, cwd=self.folder, capture_output=True, text=True)

        commands = [[*compiler, "-O0", "-c", source, "-o", out] for source, out in zip(sources, objects)]
        # The kernels' source, on the executor of the tests.
        executor = ["-DBRAGG_HAS_CUDA=1", "-I" + os.path.join(SOURCE, "tests", "simt")]
        commands.append([*compiler, *executor, "-fsyntax-only", "-x", "c++", "kernels/solve/step.cu"])
        commands.append([*compiler, *executor, "-fsyntax-only", "host/plan/cuda_plan.cpp"])
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for done in pool.map(run, commands):
                self.assertEqual(done.returncode, 0, " ".join(done.args) + done.stderr[-4000:])
        libraries = [os.path.join(BUILD, "libbragg.a"), os.path.join(BUILD, "host/reference/libbragg_reference.a")]
        done = run([*compiler, *objects, *libraries, "-lfmt", "-lhwy", "-o", "program"])
        self.assertEqual(done.returncode, 0, done.stderr[-4000:])
        done = run(["./program", str(SEED)])
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


class References(Docs):
    def test_links_lead_somewhere(self):
        for page in pages():
            for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
                if re.match(r"\w+:", target):
                    continue
                with self.subTest("%s: %s" % (page, target)):
                    name, _, anchor = target.partition("#")
                    path = os.path.normpath(os.path.join(os.path.dirname(page), name)) if name else page
                    self.assertTrue(os.path.exists(os.path.join(SOURCE, path)), "no such file")
                    if anchor:
                        headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
                        slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
                        self.assertIn(anchor, slugs)

    def test_paths_are_of_files_that_there_are(self):
        folders = "bench|cmake|docs|examples|host|include|kernels|python|rules|scripts|tests"
        for page in pages():
            for path in re.findall(r"`((?:%s)/[^`\s]*)`" % folders, prose(page)):
                if page == ADDING_A_RULE and "nearest_pair" in path:
                    continue  # the file that a reader is to write
                with self.subTest("%s: %s" % (page, path)):
                    self.assertTrue(glob.glob(path, root_dir=SOURCE, recursive=True), "no such file")

    def test_scripts_shown_can_be_run(self):
        shown = re.findall(r"^(scripts/\S+)", "".join(block for _, block in blocks("README.md", "sh")), re.MULTILINE)
        self.assertGreaterEqual(set(shown), {"scripts/demo.sh", "scripts/test.sh"})
        for script in shown:
            self.assertTrue(os.access(os.path.join(SOURCE, script), os.X_OK), script)

    def test_options_exist(self):
        helps = bragg("--help")
        for command in re.findall(r"^  (\w+)  ", helps[helps.index("Subcommands:") :], re.MULTILINE):
            helps += bragg(command, "--help")
        for script in ("bench/compare.py", "bench/plot.py"):
            command = [sys.executable, os.path.join(SOURCE, script), "--help"]
            helps += subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
        known = set(re.findall(r"--[a-z-]+", helps))
        for page in pages():
            for span in re.findall(r"`([^`]*)`", prose(page)):
                if span.startswith("--") or span.startswith("bragg "):
                    for option in re.findall(r"--[a-z][a-z-]+", span):
                        self.assertIn(option, known, "%s: `%s`" % (page, span))


class Tables(Docs):
    def test_the_page_of_rules_is_what_the_program_says(self):
        page = subprocess.run(
            [sys.executable, os.path.join(SOURCE, "scripts/make_rules_page.py"), BRAGG],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        self.same(page, read("docs/rules.md"), "docs/rules.md (run scripts/generate.sh)")

    def test_readme_s_rules_are_lines_of_the_page_of_rules(self):
        (full,) = [table for table in tables(read("docs/rules.md")) if table[0][:2] == ["rule", "kind"]]
        self.assertEqual([row[0].strip("`").partition("(")[0] for row in full[1:]], [rule["name"] for rule in rules()])
        (shown,) = [table for table in tables(read("README.md")) if table[0][:2] == ["rule", "what it is"]]
        columns = [full[0].index(column) for column in shown[0]]
        known = [[row[k] for k in columns] for row in full[1:]]
        self.assertGreaterEqual(len(shown), 7)
        for row in shown[1:]:
            self.assertIn(row, known)

    def test_install_lists_the_build_s_options(self):
        lists = read("CMakeLists.txt")
        options = set(re.findall(r"^(?:option|set)\((BRAGG_\w+) (?:\w+ CACHE STRING )?\"", lists, re.MULTILINE))
        shown = set(re.findall(r"`(BRAGG_\w+)`", prose("docs/install.md")))
        self.assertIn("BRAGG_CUDA", options)
        self.assertEqual(shown, options)

    def test_readme_is_short(self):
        self.assertLessEqual(len(read("README.md").splitlines()), 160)

    def test_the_threat_model_counts_the_hostile_pipelines(self):
        cases = re.search(r"^const Case cases\[\] = \{\n(.*?)^\};", read("tests/hostile_test.cpp"), re.MULTILINE | re.DOTALL)
        self.assertIn("holds %d pipelines" % cases.group(1).count('{"'), prose("docs/threat-model.md"))

    def test_choosing_speaks_of_every_rule(self):
        words = set(re.findall(r"`(\w+)", prose("docs/choosing.md")))
        self.assertEqual({rule["name"] for rule in rules()} - words, set())

    def test_exit_codes_are_those_of_the_help(self):
        section = re.search(r"^Exit codes:\n(.*?)^\S", bragg("--help"), re.MULTILINE | re.DOTALL).group(1)
        told = {code: " ".join(words.split()) for code, words in re.findall(r"^  (\d)  (.*(?:\n     .*)*)", section, re.MULTILINE)}
        (shown,) = [table for table in tables(read("docs/command.md")) if table[0] == ["code", "meaning"]]
        self.assertEqual({code: words for code, words in shown[1:]}, told)

    def test_the_report_has_the_fields_described(self):
        for i, values in enumerate([[1, 2], [2, 3], [3, 4]]):
            safetensors(self.path("w%d.safetensors" % i), values)
        inputs = ["w%d.safetensors" % i for i in range(3)]
        bragg("aggregate", *inputs, "--rule", "median", "-o", "out.safetensors", "--report", "r.json", "-q", folder=self.folder)
        with open(self.path("r.json")) as file:
            report = json.load(file)
        (shown,) = [table for table in tables(read("docs/command.md")) if table[0] == ["field", "meaning"]]
        self.assertEqual([field.strip("`") for field, _ in shown[1:]], list(report["workers"][0]))
        for field in report:
            self.assertIn("`%s`" % field, prose("docs/command.md"))

    def test_the_verification_has_the_fields_described(self):
        bragg("verify", "--quick", "--device", "cpu", "--rule", "median(even=lower)", "--json", "v.json", folder=self.folder)
        with open(self.path("v.json")) as file:
            report = json.load(file)
        for field in [*report, *report["backends"][0], *report["results"][0]]:
            self.assertIn("`%s`" % field, prose("docs/command.md"))

    def test_the_measurements_have_the_fields_described(self):
        options = ["--rule", "krum(f=F)", "--n", "8", "--d", "1000", "--seconds", "0.01", "--device", "cpu"]
        bragg("bench", *options, "--json", "b.json", folder=self.folder)
        with open(self.path("b.json")) as file:
            report = json.load(file)
        row = report["rows"][0]
        for field in [*report, *report["floors"], *row, *row["ms"], *row["passes"][0]]:
            self.assertIn("`%s`" % field, prose("docs/command.md"))

    def test_the_readme_counts_rules_and_attacks(self):
        kinds = [rule["kind"] for rule in json.loads(bragg("rules", "--json", folder=self.folder))]
        before = kinds.count("pre-aggregator")
        names = re.findall(r"^  ([a-z_]+)$", bragg("attack", "--help", folder=self.folder), re.MULTILINE)
        wanted = "%d rules and %d pre-aggregators" % (len(kinds) - before, before)
        self.assertIn(wanted, prose("README.md"))
        self.assertIn("[%d attacks]" % len(names), prose("README.md"))
        table = re.findall(r"^\| `(\w+)` \|", prose("docs/attacks.md"), re.MULTILINE)
        self.assertEqual(table, names)

    @unittest.skipIf(SANITIZE, "the same figures, but slowly")
    def test_choosing_has_the_figures_of_compare_rules(self):
        program = os.path.join(BUILD, "examples", "compare_rules")
        drawn = os.path.join(self.folder, "rules.svg")
        printed = subprocess.run([program, drawn], capture_output=True, text=True, check=True, timeout=300).stdout
        printed = without_chance(printed)
        expected = tables(printed)
        shown = [table for table in tables(read("docs/choosing.md")) if table[0][1:2] == ["nobody attacks"]]
        self.assertEqual(len(expected), 2)
        self.assertEqual(shown, expected, printed)
        picture = xml.etree.ElementTree.parse(drawn).getroot()
        cells = [cell for table in expected for line in table[1:] for cell in line[1:]]
        space = "{http://www.w3.org/2000/svg}"
        words = [without_chance(text.text) for text in picture.iter(space + "text")]
        numbers = [word for word in words if re.fullmatch(r"nan|\d+\.\d\d", word)]
        self.assertEqual(numbers, cells)
        colors = [cell.get("fill") for cell in picture.iter(space + "rect")]
        self.assertEqual(len(colors), len(cells))
        for cell, color in zip(cells, colors):
            if cell in ("nan", "0.00"):
                self.assertIn(color, ("#000",) if cell == "nan" else ("#ffffff", "#fffefe"), cell)


if __name__ == "__main__":
    BRAGG, SOURCE, BUILD = (os.path.abspath(argument) for argument in sys.argv[1:4])
    print_seed()
    unittest.main(argv=sys.argv[:1] + sys.argv[4:])
