# SPDX-License-Identifier: Apache-2.0
"""The classes that are made of the table of rules."""

import inspect
import json
import subprocess
import sys
from pathlib import Path

import bragg
import numpy as np
import pytest
from bragg import _bragg, rules

SOURCE = Path(__file__).parent.parent.parent

REQUIRED = {"f": 1, "tau": 2.5, "s": 2, "c": 0.5, "gamma": 0.5, "lam": 4.0, "pivot": 0}


def class_of(name):
    return getattr(bragg, "".join(part.capitalize() for part in name.split("_")))


def test_there_is_a_class_for_every_rule(command):
    table = json.loads(command("rules", "--json").stdout)
    for rule in table:
        made = class_of(rule["name"])
        assert made.__name__ in bragg.__all__
        assert issubclass(made, bragg.PreAggregator) == (rule["kind"] == "pre-aggregator")
        for text in (rule["definition"], rule["needs"], rule["guarantee"], rule["source"]):
            assert text in made.__doc__
        signature = inspect.signature(made)
        assert list(signature.parameters) == [parameter["name"] for parameter in rule["parameters"]]
        for parameter in rule["parameters"]:
            assert f"{parameter['name']}: {parameter['meaning']}" in made.__doc__
            in_signature = signature.parameters[parameter["name"]]
            assert in_signature.kind is inspect.Parameter.KEYWORD_ONLY
            assert (in_signature.default is inspect.Parameter.empty) == (parameter["default"] is None)


@pytest.mark.parametrize("rule", _bragg.rules(), ids=lambda rule: rule["name"])
def test_classes_are_the_text(rule, rng):
    made = class_of(rule["name"])
    given = {p["name"]: REQUIRED[p["name"]] for p in rule["parameters"] if not p["default"]}
    one = made(**given)
    plain = f"{rule['name']}({', '.join(f'{k}={v}' for k, v in given.items())})" if given else rule["name"]
    pre = isinstance(one, bragg.PreAggregator)
    pipeline = one | bragg.Median() if pre else one
    text = f"{plain} | median" if pre else plain
    assert _bragg.normalized(str(pipeline)) == _bragg.normalized(text)
    assert eval(repr(pipeline), vars(bragg)) == pipeline
    assert made(**given) == one
    assert hash(made(**given)) == hash(one)
    rows = rng.standard_normal((7, 5))
    assert (bragg.aggregate(rows, pipeline) == bragg.aggregate(rows, text)).all()


def test_parameters_are_passed_on():
    for made, text in [
        (bragg.Krum(f=2, neighbors=3), "krum(f=2, neighbors=3)"),
        (bragg.Krum(f=2, neighbors=None), "krum(f=2)"),
        (bragg.Krum(f=np.int64(2)), "krum(f=2)"),
        (bragg.Median(even="lower"), "median(even=lower)"),
        (
            bragg.GeometricMedian(nu=1e-6, max_iters=3, start="mean"),
            "geometric_median(nu=1e-06, max_iters=3, start=mean)",
        ),
        (bragg.CenteredClipping(tau=1), "centered_clipping(tau=1)"),
        (bragg.Bucketing(s=2, seed=2**64 - 1) | bragg.Mean(), "bucketing(s=2, seed=18446744073709551615) | mean"),
        (bragg.Bucketing(s=2, permutation=[2, 0, 1]) | bragg.Mean(), "bucketing(s=2, permutation=[2,0,1]) | mean"),
        (bragg.Bucketing(s=2, permutation=np.array([1, 0])) | bragg.Mean(), "bucketing(s=2, permutation=[1,0]) | mean"),
    ]:
        assert _bragg.normalized(str(made)) == text


def test_pipelines_are_made_by_bars():
    pipeline = bragg.Nnm(f=2) | bragg.Clip(c=1) | bragg.TrimmedMean(f=2)
    assert isinstance(pipeline, bragg.Pipeline)
    assert str(pipeline) == "nnm(f=2) | clip(c=1.0) | trimmed_mean(f=2)"
    assert pipeline == bragg.Nnm(f=2) | (bragg.Clip(c=1) | bragg.TrimmedMean(f=2))
    assert pipeline != bragg.Nnm(f=2) | bragg.TrimmedMean(f=2)
    with pytest.raises(ValueError, match=r"^trimmed_mean\(f=2\) ends a pipeline"):
        pipeline | bragg.Median()
    with pytest.raises(TypeError):
        bragg.Median() | bragg.Median()
    with pytest.raises(TypeError):
        bragg.Nnm(f=1) | "median"


@pytest.mark.parametrize(
    ("make", "error", "what"),
    [
        (lambda: bragg.Krum(), TypeError, "Krum: missing a required (keyword-only )?argument: 'f'"),
        (lambda: bragg.Krum(2), TypeError, ""),
        (lambda: bragg.Krum(f=2, g=1), TypeError, "Krum: got an unexpected keyword argument 'g'"),
        (lambda: bragg.Krum(f=2.5), TypeError, "Krum: f = 2.5; needs .* of type int"),
        (lambda: bragg.Krum(f=None), TypeError, "Krum: f = None; needs"),
        (lambda: bragg.Krum(f="2"), TypeError, "Krum: f = '2'; needs"),
        (lambda: bragg.Clip(c="3"), TypeError, "Clip: c = '3'; needs"),
        (lambda: bragg.Clip(c=float("nan")), ValueError, "pipeline, column 8: c = 'nan'"),
        (lambda: bragg.Median(even="most"), ValueError, "pipeline, column 13: even = 'most': needs one of midpoint"),
        (lambda: bragg.Median(even=3), TypeError, "Median: even = 3; needs midpoint"),
        (lambda: bragg.Bucketing(s=2, seed=-1), ValueError, "pipeline, column 21: seed = '-1'"),
        (lambda: bragg.Bucketing(s=2, permutation=[0.5]), TypeError, r"Bucketing: permutation = \[0.5\]; needs"),
        (lambda: bragg.Krum(f=2, neighbors="few"), TypeError, "Krum: neighbors = 'few'; needs"),
        (lambda: bragg.TrimmedMean(f=2**40), ValueError, "pipeline, column 16: f = '1099511627776' is out of range"),
    ],
)
def test_bad_parameters_are_refused(make, error, what):
    with pytest.raises(error, match="^" + what):
        make()


def test_stub_is_fresh():
    made = subprocess.run(
        [sys.executable, SOURCE / "scripts/make_rule_stubs.py"], capture_output=True, text=True, check=True
    ).stdout
    assert (SOURCE / "python/bragg/rules.pyi").read_text() == made, "run scripts/generate.sh"


def test_types_are_right(tmp_path):
    """What a type checker makes of a program, and of the package's own source."""
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(
        "import bragg\n"
        "pipeline: bragg.Pipeline = bragg.Nnm(f=2) | bragg.TrimmedMean(f=2)\n"
        "result, report = bragg.aggregate([], pipeline, return_report=True)\n"
        "weights: tuple[float, ...] = bragg.aggregate_with_report([], pipeline).report.weights\n"
        "plan = bragg.Plan('median', result, on_failure='nan')\n"
        "status: str = plan.wait()\n"
        "bragg.Krum(g=2)  # wrong\n"
        "bragg.Median(even='most')  # wrong\n"
        "bragg.aggregate([], 3)  # wrong\n"
        "bragg.pre_aggregate_with_report([], 'nnm(f=1)').reports[0].weights.append(1)  # wrong\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            f"--cache-dir={tmp_path}",
            "-m",
            "bragg",
            "-m",
            "bragg.__main__",
            "--no-error-summary",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout == ""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    wrong = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert wrong == {7, 8, 9, 10}, done.stdout


def test_all_is_what_there_is():
    for name in bragg.__all__:
        assert hasattr(bragg, name)
    assert set(rules.__all__) <= set(bragg.__all__)
    assert (
        bragg.__version__
        == ((SOURCE / "CMakeLists.txt").read_text().partition("project(bragg VERSION ")[2].partition(" ")[0])
    )


def test_importing_brings_no_library_in():
    code = "import sys, bragg; print([m for m in ('numpy', 'torch', 'jax', 'cupy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
