# SPDX-License-Identifier: Apache-2.0
"""`bragg audit` on the demo's models: audit_demo_test.py BRAGG FEDERATED_DIGITS DIGITS. Needs nothing but Python.

Two of the demo's twelve clients are hostile. The audit of a round names these two and no other, and the rule that it
recommends keeps the training under attack close to the mean's without one.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

BRAGG = DEMO = DIGITS = ""


class AuditDemo(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = temporary.name

    def train(self, rounds, rule):
        """Accuracies in percent after the last round, of the mean and the rule: ([honest], [under attack])."""
        command = [DEMO, "--data", DIGITS, "--bragg", BRAGG, "--folder", self.folder, "--rounds", str(rounds), "--rule", rule]
        command += ["--plot", os.path.join(self.folder, "plot.svg")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        last = [float(line.split()[-1]) for line in done.stdout.splitlines() if re.match(r"  \S.*\d\.\d$", line)]
        self.assertEqual(len(last), 4, done.stdout)
        return last[:2], last[2:]

    def audit(self):
        inputs = [os.path.join(self.folder, "client-%02d.safetensors" % i) for i in range(1, 13)]
        command = [BRAGG, "audit", *inputs, "--base", os.path.join(self.folder, "global.safetensors"), "--json"]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)

    def test_hostile_clients_are_named_and_the_rule_holds(self):
        # The models of the first round, and of one when training is under way, under a rule that no audit chose.
        for rounds in (1, 8):
            self.train(rounds, "median")
            found = self.audit()
            bad = {i + 1: worker["findings"] for i, worker in enumerate(found["workers"]) if not worker["honest"]}
            self.assertEqual(sorted(bad), [4, 9], bad)
            self.assertEqual([finding["evidence"] for finding in bad[4]], ["non-finite"])
            self.assertIn("norm", [finding["evidence"] for finding in bad[9]])
            self.assertEqual(found["advice"]["f"], 2)
        (honest_mean, _), (mean, advised) = self.train(15, found["advice"]["rule"])
        print("%s: %.1f %% under attack; the mean: %.1f %%, and %.1f %% without" % (found["advice"]["rule"], advised, mean, honest_mean))
        self.assertLess(mean, 20)
        self.assertGreater(advised, honest_mean - 8)


if __name__ == "__main__":
    BRAGG, DEMO, DIGITS = [os.path.abspath(path) for path in sys.argv[1:4]]
    unittest.main(argv=sys.argv[:1])
