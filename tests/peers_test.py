# SPDX-License-Identifier: Apache-2.0
"""The adapters of bench/peers: peers_test.py BRAGG SOURCE [PYTHON].

PYTHON has the peers' packages: by default that of SOURCE/build/peers-venv, which
bench/peers/setup.sh makes, or else the one that runs this. Every peer that it can import computes
every rule that its adapter names, in a process of its own; `bragg aggregate` of the pipeline that
the adapter says this is must give the same. Exit status 77: there was no peer.
"""

import functools
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import textwrap
import unittest

from seed import SEED, print_seed

EPSILON = 2.0**-24  # of a rounding in float32
NO_PEER = 77

BRAGG = SOURCE = PYTHON = ""

# Even and odd n; above 25 rows torch.cdist is a matrix product. n >= 4f+3, which Bulyan needs.
SHAPES = [(11, 61, 2), (16, 37, 3), (30, 33, 6)]
RULES = [
    "mean",
    "median",
    "trimmed_mean(f={f})",
    "trimmed_mean(f=0)",
    "meamed(f={f})",
    "krum(f={f})",
    "krum(f={f}, neighbors={most})",
    "multi_krum(f={f})",
    "multi_krum(f={f}, m=2)",
    "multi_krum(f={f}, neighbors={most})",
    "geometric_median",
    "geometric_median(nu=0.1, max_iters=3, start=origin)",
    "geometric_median(nu=0.5, max_iters=5)",
    "centered_clipping(tau=5, iters=5)",
    "centered_clipping(tau=1000)",
    "mda(f={f})",
    "monna(f={f}, pivot=1)",
    "bulyan(f={f})",
    "nnm(f={f}) | mean",
    "nnm(f={f}) | trimmed_mean(f={f})",
    "nnm(f={f}) | median",
    "quantile_clip | mean",
    "quantile_clip(q=0.8) | median",
    "huber(tau=6)",
    "faba(f={f})",
    "dnc(f={f})",
    "dnc(f={f}, c=1.5)",
    "foolsgold",
    "foolsgold(kappa=0.5)",
    "fltrust(pivot=1)",
    "balance(gamma=1.1)",
    "balance(gamma=0.8, alpha=0.25, pivot=2)",
    "sign_vote(step=0.5)",
]


def write_npy(path, rows):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }" % (
        len(rows),
        len(rows[0]),
    )
    header += " " * (-(11 + len(header)) % 64) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        for row in rows:
            file.write(struct.pack("<%df" % len(row), *row))


def read_npy(path):
    with open(path, "rb") as file:
        content = file.read()
    data = content[10 + struct.unpack("<H", content[8:10])[0] :]
    assert b"'<f4'" in content[:128], content[:128]
    return struct.unpack("<%df" % (len(data) // 4), data)


def random_rows(generator, n, d):
    """Rows of different spread about a common offset, in float32."""
    places = generator.sample(range(n), n)
    rows = [[1.5 + (1 + place / n) * generator.gauss(0, 1) for _ in range(d)] for place in places]
    return [struct.unpack("<%df" % d, struct.pack("<%df" % d, *row)) for row in rows]


def is_telling(rows, f):
    """Whether the geometric rules' choice is 1e-4 from any other: float32 distances make it too.

    Also, Krum's two conventions, n-f-2 and n-f-1 neighbours, have to choose differently.
    """
    n = len(rows)
    far = [sorted(math.dist(a, b) ** 2 for b in rows) for a in rows]

    def apart(values, k):
        return values[k] - values[k - 1] > 1e-4 * values[k]

    def chosen(neighbors, m):
        scores = sorted((sum(distances[1 : neighbors + 1]), i) for i, distances in enumerate(far))
        return {i for _, i in scores[:m]} if apart([score for score, _ in scores], m) else None

    everything = sorted(value for distances in far for value in distances)[n::2]
    decided = all(apart(distances, n - f) for distances in far)
    decided = decided and all(b - a > 1e-7 * b for a, b in zip(everything, everything[1:]))
    for m in (1, 2, n - f):
        fewer, more = chosen(n - f - 2, m), chosen(n - f - 1, m)
        decided = decided and None not in (fewer, more) and (m == 2 or fewer != more)
    return decided


def tolerances(rule, rows):
    """Of each coordinate: a sum of n float32 terms; in iterations also factors, made of norms.

    What starts at the mean is geom_median, which ends when its float32 objective stands still: the
    objective is flat about its minimum, so that is the square root of a rounding away.
    """
    share = 2 * (len(rows) + 2) * EPSILON
    made_of_norms = ("geometric_median", "centered_clipping", "huber", "clip", "foolsgold", "fltrust")
    if any(name in rule for name in made_of_norms):
        share = math.sqrt(2 * EPSILON) if "start=mean" in rule else 5 * share
    return [share * max(abs(x) for x in column) for column in zip(*rows)]


def run(*arguments, folder=None, environment=None, code=0):
    """run.py's output, or what it says of an error."""
    run_py = os.path.join(folder or os.path.join(SOURCE, "bench", "peers"), "run.py")
    done = subprocess.run(
        [PYTHON, run_py, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=300,
    )
    if done.returncode != code:
        raise AssertionError("run.py %s: status %d\n%s" % (arguments, done.returncode, done.stderr))
    return json.loads(done.stdout) if code == 0 else done.stderr


def compute(peer, folder):
    """In the peer's own process: writes its results of cases.json; prints what the adapter says."""
    from peers import contract, run as runner

    adapter = runner.find_adapter(peer)
    adapter.load(2)
    import numpy

    with open(os.path.join(folder, "cases.json"), encoding="utf-8") as file:
        cases = json.load(file)
    said = []
    for case in cases:
        matrix = numpy.load(os.path.join(folder, case["input"]))
        try:
            prepared = contract.prepare(adapter.STEPS, case["rule"], *matrix.shape)
        except contract.Unsupported as reason:
            said.append({"unsupported": str(reason)})
            continue
        result = adapter.unwrap(prepared.call(adapter.wrap(matrix)))
        output = "%s-%d.npy" % (peer, len(said))
        numpy.save(os.path.join(folder, output), numpy.asarray(result, dtype="f4"))
        said.append({"output": output, "equivalent_rule": prepared.equivalent_rule})
    print(json.dumps(said))


class InFolder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="bragg-peers-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write_rows(self, name, generator, n, d, f):
        while not is_telling(rows := random_rows(generator, n, d), f):
            pass
        write_npy(self.path(name), rows)
        return rows


class Contract(unittest.TestCase):
    """Reading bragg's text, and saying where a peer's convention differs."""

    def test_text_is_read(self):
        from peers.contract import parse

        pipeline = parse("nnm(f=3)|geometric_median( nu=1e-6 , start=mean)")
        self.assertEqual([stage.name for stage in pipeline], ["nnm", "geometric_median"])
        self.assertEqual(pipeline[1].parameters, {"nu": 1e-6, "start": "mean"})
        self.assertEqual(str(parse("krum(f=3, neighbors=12)")[0]), "krum(f=3, neighbors=12)")
        for text in ("", "krum(f)", "krum(f=3", "krum(=3)", "nnm(f=1) | "):
            with self.assertRaises(ValueError, msg=text):
                parse(text)

    def test_a_default_gives_way_to_the_peer_and_a_named_value_does_not(self):
        from peers.contract import Unsupported, parse

        self.assertEqual(parse("krum(f=3)")[0].convention(neighbors=12).parameters["neighbors"], 12)
        with self.assertRaises(Unsupported):
            parse("krum(f=3, neighbors=11)")[0].convention(neighbors=12)

    def test_only_a_difference_has_an_equivalent_rule(self):
        from peers.contract import Step, prepare

        steps = {
            "krum": lambda stage, n, d: Step(None, "", stage.convention(neighbors=n - stage.f - 1))
        }
        self.assertEqual(
            prepare(steps, "krum(f=3)", 16, 1).equivalent_rule, "krum(f=3, neighbors=12)"
        )
        self.assertIsNone(prepare(steps, "krum(f=3, neighbors=12)", 16, 1).equivalent_rule)

    def test_defaults_are_those_of_the_command(self):
        from peers.contract import DEFAULTS

        known = json.loads(
            subprocess.run([BRAGG, "rules", "--json"], capture_output=True, check=True).stdout
        )
        rules = {rule["name"]: rule for rule in known}
        n, f = 17, 3
        for name, defaults in DEFAULTS.items():
            ours = {
                p["name"]: p["default"]
                for p in rules[name]["parameters"]
                if p["default"] is not None
            }
            formulas = {"n−f": n - f, "n−f−2": n - f - 2}
            ours = {key: str(formulas.get(value, value)) for key, value in ours.items()}
            self.assertEqual(ours, {k: str(v) for k, v in defaults(n, f).items()}, name)


class Results(InFolder):
    """What peers compute is what their adapters say, by bragg's own computation."""

    def test_agree_with_bragg(self):
        generator = random.Random(SEED)
        cases, rows = [], {}
        for n, d, f in SHAPES:
            name = "%d.npy" % n
            rows[name] = self.write_rows(name, generator, n, d, f)
            cases += [{"input": name, "rule": rule.format(f=f, most=n - f - 1)} for rule in RULES]
        with open(self.path("cases.json"), "w", encoding="utf-8") as file:
            json.dump(cases, file)
        for peer in importable():
            for case, said in zip(cases, self.ask(peer), strict=True):
                with self.subTest(peer=peer, seed=SEED, **case):
                    self.check(case, said, rows[case["input"]])

    def ask(self, peer):
        command = [PYTHON, os.path.abspath(__file__), "--compute", peer, self.folder]
        environment = os.environ | {
            "PYTHONPATH": os.path.join(SOURCE, "bench"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, env=environment, check=True, timeout=600
        )
        return json.loads(done.stdout)

    def check(self, case, said, rows):
        if "unsupported" in said:
            self.assertTrue(said["unsupported"])
            return
        rule = said["equivalent_rule"] or case["rule"]
        ours = self.path("ours.npy")
        subprocess.run(
            [BRAGG, "aggregate", self.path(case["input"]), "--rule", rule, "-o", ours, "-q"],
            check=True,
        )
        theirs, expected = read_npy(self.path(said["output"])), read_npy(ours)
        for j, (a, b, bound) in enumerate(
            zip(theirs, expected, tolerances(rule, rows), strict=True)
        ):
            self.assertLessEqual(
                abs(a - b), bound, "coordinate %d: %r, not %r as %s" % (j, a, b, rule)
            )

    def test_every_rule_of_an_adapter_is_tried(self):
        tried = {part.strip().split("(")[0] for rule in RULES for part in rule.split("|")}
        for peer in listed():
            self.assertLessEqual(set(peer["rules"]), tried, peer["peer"])


class Run(InFolder):
    """run.py, with a peer made up for the purpose."""

    FAKE = """
        import os
        from peers.contract import Step
        DISTRIBUTION = "numpy"
        ENVIRONMENT = {"OMP_PROC_BIND": "true"}
        SEEN = ("OPENBLAS_CORETYPE", "OMP_WAIT_POLICY", "OMP_NUM_THREADS", "OMP_PROC_BIND")
        def load(threads): print("hello")
        def wrap(matrix): return matrix
        def unwrap(result): return result
        def slow(x):
            import time
            time.sleep(0.3)
            return x[0]
        def spoils(x):
            x += 1
            return x[0]
        def takes(x):
            y = x + x
            return y[0].copy()
        def step(call):
            path = ",".join(os.environ.get(name, "-") for name in SEEN)
            return lambda stage, n, d: Step(call, path, stage)
        STEPS = {"mean": step(takes), "median": step(slow), "krum": step(spoils)}
        STEPS["mda"] = step(lambda x: x)
    """

    def setUp(self):
        super().setUp()
        self.peers = self.path("peers")
        shutil.copytree(os.path.join(SOURCE, "bench", "peers"), self.peers)
        with open(os.path.join(self.peers, "made_up.py"), "w", encoding="utf-8") as file:
            file.write(textwrap.dedent(self.FAKE))
        self.rows = random_rows(random.Random(SEED), 8, 50000)
        write_npy(self.path("x.npy"), self.rows)

    def measure(self, rule, *more, peer="made-up", code=0, **environment):
        files = ("--input", self.path("x.npy"), "--output", self.path("out.npy"))
        arguments = (peer, "--rule", rule, *files, "--threads", "2", *more)
        environment = os.environ | environment
        return run(*arguments, folder=self.peers, environment=environment, code=code)

    def test_reports(self):
        found = self.measure("mean", "--seconds", "0.01")
        self.assertEqual(
            (found["peer"], found["n"], found["d"], found["dtype"]), ("made-up", 8, 50000, "f32")
        )
        self.assertEqual(found["threads"], 2)
        self.assertGreaterEqual(len(found["ms"]), 3)
        self.assertNotIn("equivalent_rule", found)
        self.assertEqual(read_npy(self.path("out.npy"))[:2], tuple(2 * x for x in self.rows[0][:2]))

    def test_counts_memory_beyond_input_and_output(self):
        extra = self.measure("mean")["extra_memory_bytes"]
        if extra is None:
            self.skipTest("the peak of resident memory cannot be reset here")
        input_bytes = 4 * 8 * 50000  # and so much is the one array that it makes
        self.assertGreater(extra, input_bytes - 2**19)
        self.assertLess(extra, input_bytes + 2**20)

    def test_settings_that_slow_a_peer_are_removed(self):
        found = self.measure(
            "mean", OPENBLAS_CORETYPE="Nehalem", OPENBLAS_L2_SIZE="1", OMP_WAIT_POLICY="passive"
        )
        self.assertEqual(found["path"], "-,-,2,true")

    def test_one_call_longer_than_the_time_is_enough(self):
        self.assertEqual(len(self.measure("median", "--seconds", "0.1")["ms"]), 1)
        self.assertEqual(len(self.measure("median", "--seconds", "0.4")["ms"]), 3)

    def test_a_peer_that_writes_into_its_input_is_found(self):
        self.assertIn("wrote into its input", self.measure("krum(f=1)", code=1))
        self.assertFalse(os.path.exists(self.path("out.npy")))

    def test_a_result_of_another_shape_is_refused(self):
        self.assertIn("(8, 50000)", self.measure("mda(f=1)", code=1))

    def test_what_a_peer_lacks_is_no_failure(self):
        found = self.measure("bulyan(f=1)")
        self.assertEqual(found["unsupported"], "the peer has no bulyan")

    def test_mistakes_are_failures(self):
        self.assertIn("made-up", self.measure("mean", peer="nobody", code=1))
        self.assertIn("not name=value", self.measure("krum(f)", code=1))


@functools.cache
def listed():
    return run("--list")


def importable():
    return [peer["peer"] for peer in listed() if peer["importable"]]


def main():
    global BRAGG, SOURCE, PYTHON
    if sys.argv[1] == "--compute":
        compute(*sys.argv[2:])
        return 0
    print_seed()
    BRAGG, SOURCE = sys.argv[1], os.path.abspath(sys.argv[2])
    default = os.path.join(SOURCE, "build", "peers-venv", "bin", "python")
    PYTHON = (
        sys.argv[3] if len(sys.argv) > 3 else default if os.path.exists(default) else sys.executable
    )
    sys.path.insert(0, os.path.join(SOURCE, "bench"))
    sys.dont_write_bytecode = True

    peers = importable()
    cases = [Contract, Results, Run] if peers else [Contract]
    loader = unittest.TestLoader()
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)
    passed = unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful()
    print(
        "peers: "
        + (", ".join(peers) or "none can be imported by %s; see bench/peers/README.md" % PYTHON)
    )
    return 1 if not passed else 0 if peers else NO_PEER


if __name__ == "__main__":
    sys.exit(main())
