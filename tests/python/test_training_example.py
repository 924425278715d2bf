# SPDX-License-Identifier: Apache-2.0
"""examples/pytorch_training.py: the mean is ruined, robust rules train."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch.func")

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "pytorch_training.py"
ROBUST = ["trimmed_mean(f=2)", "nnm(f=2) | trimmed_mean(f=2)", "centered_clipping(tau=1)"]
RUINOUS = ["sign_flip", "inner_product", "nan"]


def run(*arguments, check=True):
    done = subprocess.run([sys.executable, EXAMPLE, *map(str, arguments)], check=False, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


def table(text):
    """{rule: {attack: accuracy in percent}}"""
    lines = text.splitlines()[1:]
    attacks = lines[0].split()[1:]
    found = {}
    for line in lines[1:]:
        rule = line.split("  ")[0].strip()
        values = [float(value) for value in re.findall(r"([0-9.]+)%", line)]
        assert len(values) == len(attacks), line
        found[rule] = dict(zip(attacks, values))
    return found


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    plot = tmp_path_factory.mktemp("example") / "accuracy.svg"
    options = ["--plot", plot] if find_spec("matplotlib") else []
    return table(run("--rounds", 150, "--rules", "mean", *ROBUST, *options).stdout), plot


def test_without_hostile_workers_every_rule_trains(short):
    accuracies, _ = short
    assert list(accuracies) == ["mean", *ROBUST]
    for rule, by_attack in accuracies.items():
        assert by_attack["none"] > 85, rule


def test_attacks_ruin_the_mean(short):
    """To about the 10 % of a guess."""
    for attack in RUINOUS:
        assert short[0]["mean"][attack] < 25, attack


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("attack", [*RUINOUS, "alie"])
def test_robust_rules_train_all_the_same(rule, attack, short):
    assert short[0][rule][attack] > 65


def test_the_plot_has_every_rule_and_attack(short):
    if not find_spec("matplotlib"):
        pytest.skip("no matplotlib")
    text = short[1].read_text()
    for name in ["mean", *ROBUST, *RUINOUS, "alie", "none"]:
        assert f">{name}<" in text


def test_a_seed_gives_a_run():
    arguments = ("--rounds", 15, "--rules", "geometric_median", "--attacks", "alie")
    first = run(*arguments, "--seed", 5).stdout
    assert run(*arguments, "--seed", 5).stdout == first
    assert run(*arguments, "--seed", 6).stdout != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules", "medain"], "--rules: pipeline, column 1: unknown rule 'medain'"),
        (["--rules", "krum(f=5)"], "--rules: krum: n = 12 rows with f = 5: needs n ≥ 2f+3 = 13"),
        (["--attacks", "bribe"], "invalid choice: 'bribe'"),
        (["--rounds", "0"], "--rounds 0: needs at least 1"),
    ],
)
def test_mistakes_are_told(arguments, message):
    done = run(*arguments, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
