#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/check_kernels.py with a stand-in for the compiler.

    check_kernels_test.py TREE
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

# Says of one kernel what ptxas says, for each architecture that it is asked for: on 100 it spills, on 120 it is large.
COMPILER = r"""#!/bin/sh
echo "$*" >> @HOME@/calls
for code in $(echo "$*" | grep -o 'sm_[0-9]*'); do
  spills=0
  registers=20
  case $code in
  sm_100) spills=24 ;;
  sm_120) registers=250 ;;
  esac
  echo "ptxas info    : Compiling entry function 'upload_kernel' for '$code'"
  echo "ptxas info    : Function properties for upload_kernel"
  echo "    $spills bytes stack frame, $spills bytes spill stores, $spills bytes spill loads"
  echo "ptxas info    : Used $registers registers, used 1 barriers"
done >&2
"""


class CheckKernels(unittest.TestCase):
    def setUp(self):
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.home = pathlib.Path(made.name)
        compiler = self.home / "compiler"
        compiler.write_text(COMPILER.replace("@HOME@", str(self.home)))
        compiler.chmod(0o755)
        code = " ".join(f"--generate-code=arch=compute_{a},code=[compute_{a},sm_{a}]" for a in (80, 90))
        commands = [{"directory": str(self.home), "file": f"{self.home}/kernels/common/upload.cu",
                     "command": f"{compiler} {code} -x cu -c upload.cu -o upload.o"},
                    {"directory": str(self.home), "file": f"{self.home}/host/other.cu", "command": "false"}]
        (self.home / "compile_commands.json").write_text(json.dumps(commands))
        # The script judges by the budgets of the tree that it is in.
        (self.home / "kernels").mkdir()
        (self.home / "scripts").mkdir()
        (self.home / "kernels/budgets.txt").write_text("upload_kernel 40\n")
        for name in ("check_kernels.py", "kernel_names.py"):
            (self.home / "scripts" / name).write_text((TREE / "scripts" / name).read_text(encoding="utf-8"))

    def check(self, *arguments, code):
        done = subprocess.run([sys.executable, self.home / "scripts/check_kernels.py", self.home, *arguments], capture_output=True,
                              text=True, check=False, env={"PATH": "/usr/bin:/bin", "CCACHE_DISABLE": "1"})
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout, done.stderr

    def test_without_names_it_takes_the_architectures_of_the_build(self):
        out, _ = self.check(code=0)
        self.assertIn("sm_80: 1 kernels, 0 with spills, 20 registers and 0 bytes of stack at most\n", out)
        self.assertIn("sm_90: 1 kernels", out)
        self.assertIn("2 kernels, 0 failures", out)

    def test_each_architecture_that_is_named_is_compiled_by_itself(self):
        out, errors = self.check("--for", "89", "100", "120", code=1)
        self.assertEqual([line.split(":")[0] for line in out.splitlines()], ["sm_89", "sm_100", "sm_120", "3 kernels, 3 failures"])
        self.assertIn("upload_kernel [sm_100]: spills 24 bytes of stores, 24 of loads", errors)
        self.assertIn("upload_kernel [sm_100]: a stack frame of 24 bytes, budget 0", errors)
        self.assertIn("upload_kernel [sm_120]: 250 registers, budget 40", errors)
        self.assertNotIn("sm_89", errors)
        calls = (self.home / "calls").read_text().splitlines()
        self.assertEqual(len(calls), 3)
        for call in calls:
            self.assertEqual(call.count("--generate-code"), 1)
            self.assertIn("-o /dev/null", call)

    def test_logs_of_several_builds_are_read_together(self):
        logs = []
        for architecture in ("89", "103"):
            log = self.home / f"log-{architecture}"
            done = subprocess.run([self.home / "compiler", f"--generate-code=code=sm_{architecture}"], capture_output=True, text=True,
                                  check=True)
            log.write_text(done.stderr)
            logs.append(log)
        out, _ = self.check("--log", *logs, code=0)
        self.assertIn("2 kernels, 0 failures", out)
        self.check("--log", *logs, "--for", "89", code=2)


if __name__ == "__main__":
    TREE = pathlib.Path(sys.argv.pop(1)).resolve()
    unittest.main()
