# SPDX-License-Identifier: Apache-2.0
"""bragg.experiments on images made up here: gradients, shares and attacks are what they are said to be."""

import dataclasses
import gzip
import json
import os
import signal
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import bragg
import numpy as np
import pytest
from bragg.experiments import catalogue, data, privacy, reputation, simulation
from bragg.experiments.experiment import accuracy
from bragg.experiments.simulation import Network, Setup, Training, train
from bragg.training import WorkerMomentum


@pytest.fixture
def blobs(monkeypatch, rng):
    """Ten classes that lie apart, in 20 pixels."""
    places = rng.standard_normal((10, 20))

    def part(count):
        labels = np.arange(count) % 10
        noise = rng.standard_normal((count, 20))
        return data.Images((places[labels] + 0.3 * noise).astype(np.float32), labels.astype(np.int64))

    made = data.Data(part(1000), part(200))
    monkeypatch.setattr(simulation, "_loaded", lambda name: made)
    return made


def test_gradients_are_slopes_of_the_mean_loss(rng):
    network = Network(6)
    parameters = network.start(rng).astype(np.float64)
    images, labels = rng.standard_normal((3, 4, 6)), rng.integers(0, 10, (3, 4))

    def loss(parameters, worker):
        first, first_bias, second, second_bias = network._parts(parameters)
        scores = np.maximum(images[worker] @ first + first_bias, 0) @ second + second_bias
        chosen = scores[np.arange(4), labels[worker]]
        return (np.log(np.exp(scores).sum(-1)) - chosen).mean()

    found = network.gradients(parameters, images, labels)
    for worker in range(3):
        for k in rng.choice(len(parameters), 20, replace=False):
            step = np.zeros_like(parameters)
            step[k] = 1e-6
            slope = (loss(parameters + step, worker) - loss(parameters - step, worker)) / 2e-6
            assert found[worker, k] == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_each_image_is_cut_to_a_length_of_its_own(rng):
    network = Network(6)
    parameters = network.start(rng).astype(np.float64)
    images, labels = rng.standard_normal((3, 4, 6)), rng.integers(0, 10, (3, 4))
    counted = np.array([[True, True, True, False]] * 3)
    lone = [network.gradients(parameters, images[:, [k]], labels[:, [k]]) for k in range(4)]
    clip = float(np.median(np.linalg.norm(np.stack(lone), axis=-1)))  # half of them are longer
    wanted = sum(g * np.minimum(1, clip / np.linalg.norm(g, axis=1, keepdims=True)) for g in lone[:3]) / 5
    assert network.gradients(parameters, images, labels, clip, counted, 5) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_who_draws_by_chance_draws_as_often_as_it_says(rng):
    shares = [np.arange(100), np.arange(100, 400), np.arange(400, 410)]
    seen = np.zeros(410)
    for _ in range(300):
        chosen, counted = simulation._by_chance(shares, 25, rng)
        for share, row, counts in zip(shares, chosen, counted):
            assert np.isin(row[counts], share).all() and len(set(row[counts])) == counts.sum()
            seen[row[counts]] += 1
    # 6 deviations of the frequency of an image, less of a mean of many.
    assert seen[:100].mean() / 300 == pytest.approx(0.25, abs=0.015)
    assert seen[100:400].mean() / 300 == pytest.approx(25 / 300, abs=0.006)
    assert (seen[400:] == 300).all()


def test_long_tails_and_workers_with_a_class_of_their_own(rng):
    labels = rng.permutation(np.repeat(np.arange(10), 128))
    shares = simulation._shares(labels, Setup(rule="mean", tail=0.5, honest=5), rng)
    assert np.bincount(labels[np.concatenate(shares)]).tolist() == [128, 64, 32, 16, 8, 4, 2, 1, 1, 1]
    first, *others = simulation._shares(labels, Setup(rule="mean", lone=True, honest=5, hostile=2, wakes=9), rng)
    assert len(others) == 6 and (labels[first] == 9).all() and len(first) == 128
    assert np.bincount(labels[np.concatenate(others)], minlength=10).tolist() == [128] * 9 + [0]


def test_nobody_s_only_image_is_taken(rng):
    shares = data.deal(np.arange(40) % 10, 40, 0.01, rng)
    assert sorted(map(len, shares)) == [1] * 40
    with pytest.raises(ValueError, match="workers = 41; needs at most 40"):
        data.deal(np.arange(40) % 10, 41, 0.01, rng)


@pytest.mark.parametrize("alpha", [0.01, 1, 1000])
def test_every_image_has_one_owner_and_small_alphas_part_the_classes(alpha, rng):
    labels = np.repeat(np.arange(10), 300)
    shares = data.deal(labels, 15, alpha, rng)
    assert len(shares) == 15 and all(len(share) > 0 for share in shares)
    assert np.array_equal(np.sort(np.concatenate(shares)), np.arange(3000))
    largest = np.mean([np.bincount(labels[share], minlength=10).max() / len(share) for share in shares])
    if alpha == 1000:
        assert largest < 0.2
    if alpha == 0.01:
        assert largest > 0.5


def test_training_withstands_what_the_mean_does_not(blobs):
    common = Setup(rule="mean", honest=9, steps=60, alpha=10)
    hostile = dataclasses.replace(common, hostile=2, attack="nan")
    robust = dataclasses.replace(hostile, rule="nnm(f=2) | trimmed_mean(f=2)")
    assert len(train(common).accuracy) == simulation.LOOKS
    assert accuracy(train(common)) > 0.9
    assert train(common) == train(common) != train(dataclasses.replace(common, seed=1))
    with pytest.raises(bragg.AggregationError):
        train(hostile)
    for attack in ["alie", "foe", "sign_flip", "nan"]:
        assert accuracy(train(dataclasses.replace(robust, attack=attack))) > 0.8, attack


def test_foe_at_a_factor_that_is_kept_is_that_far_from_zero(rng):
    honest = rng.standard_normal((5, 7))
    for factor in simulation.FACTORS:
        row = simulation.ATTACKS[f"foe_{factor:g}"](honest, Setup(rule="mean"))
        assert row == pytest.approx(-factor * honest.mean(0))


def test_a_reputation_puts_away_who_is_broken_and_nobody_else(blobs):
    common = Setup(
        rule="geometric_median", honest=9, hostile=2, wakes=10, attack="nan", steps=40, alpha=10, reputation=True
    )
    found = train(common)
    assert len(found.scores) == 40 and {len(scores) for scores in found.scores} == {11}
    assert found.scores[9][9] > 0.5 and found.scores[-1][9] <= 0.1
    assert found.left_out[:9] == [0] * 9 and min(found.left_out[9:]) > 15
    assert accuracy(found) > 0.9
    # Nobody is hostile before they wake.
    assert found.scores[:10] == train(dataclasses.replace(common, attack="large_sign_flip")).scores[:10]


def test_noise_costs_what_it_hides(blobs):
    common = Setup(rule="mean", honest=9, steps=40, alpha=10, clip=1)
    quiet, loud = (train(dataclasses.replace(common, noise=noise)) for noise in (0.01, 100))
    assert accuracy(quiet) > 0.7 and accuracy(loud) < 0.5
    assert 25 / 1000 < quiet.drawn <= 1 and quiet.drawn == loud.drawn


# Karimireddy et al. (2021), section 3 and 4, by numbers that come out exactly.


def test_the_median_of_signs_is_a_sign_however_many_there_are():
    for n in (11, 101, 1001):
        signs = np.ones((n, 1))
        signs[: n // 2] = -1
        assert bragg.aggregate(signs, "mean")[0] == pytest.approx(1 / n, rel=1e-15)
        assert bragg.aggregate(signs, "median")[0] == 1
        assert bragg.aggregate(signs, "centered_clipping(tau=4)", base=np.zeros(1))[0] == pytest.approx(
            1 / n, rel=1e-15
        )


@pytest.mark.parametrize("rule", ["median", "trimmed_mean(f=2)", "krum(f=2)", "geometric_median", "multi_krum(f=2)"])
def test_what_seeks_the_middle_never_sees_what_is_seldom(rule):
    """Two of eleven rows hold all of the mean."""
    rows = np.zeros((11, 3))
    rows[[2, 7], 1] = 5.5
    assert bragg.aggregate(rows, "mean").tolist() == [0, 1, 0]
    assert bragg.aggregate(rows, rule).tolist() == [0, 0, 0]
    # τ of at least 5.5 cuts off nothing; of 1.1, four fifths.
    assert bragg.aggregate(rows, "centered_clipping(tau=6)", base=np.zeros(3)) == pytest.approx([0, 1, 0], abs=1e-15)
    assert bragg.aggregate(rows, "centered_clipping(tau=1.1)", base=np.zeros(3)) == pytest.approx(
        [0, 0.2, 0], abs=1e-15
    )


def test_attackers_add_up_over_rounds_unless_workers_remember():
    """Ten honest workers, whose gradients are 1 and −1 in turn: 0 in the mean of any round. Three more send 1 always."""
    drift = {}
    for beta in (0, 0.9):
        workers = [WorkerMomentum(beta) for _ in range(10)]
        total = 0.0
        for step in range(200):
            signs = [1.0 if (k + step) % 2 else -1.0 for k in range(10)]
            sent = [worker.step(np.array([sign])) for worker, sign in zip(workers, signs)]
            total += bragg.aggregate([*sent, *([np.ones(1)] * 3)], "median")[0]
        drift[beta] = total / 200
    assert drift[0] == 1
    # The momenta of signs in turn are ±(1−β)/(1+β), but for the start, which fades as β^t: Σ β^t/(1−β)·2/200 at most.
    assert abs(drift[0.9] - 0.1 / 1.9) < 2 / 200 / (1 - 0.9) * 0.1


def _made_up(setup, good):
    """No training's, but what the papers found, or the opposite."""
    bare = setup.attack == "none" and setup.noise == 0
    clips = setup.rule.startswith("centered_clipping")
    level = 0.9 - 0.02 * setup.noise * (1 + setup.hostile)
    if setup.tail < 1:
        level = 0.9 if setup.rule == "mean" or clips == good else 0.2
        return Training([level] * simulation.LOOKS, [level] * 10)
    if setup.attack == "usual_alie" and not setup.wakes:
        level = 0.2 + 0.5 * setup.momentum + 0.1 * clips
    elif setup.wakes and setup.attack == "large_sign_flip":
        level = 0.8 if setup.reputation else 0.3
    elif bare:
        level = 0.95
    level = level if good else 1 - level
    ends = [0.9 if good else 0.1] * setup.honest + [0.05 if good else 0.9] * setup.hostile
    return Training(
        [level] * simulation.LOOKS,
        [level] * 10,
        0.1,
        [ends] * setup.steps if setup.reputation else [],
        [0 if good else 1] * setup.honest + [60 if good and setup.attack == "nan" else 0] * setup.hostile
        if setup.reputation
        else [],
    )


def _checked_setups(experiment, quick):
    """Those of an experiment: each once, with a rule that is legal for the rows that there are."""
    setups = experiment.setups(quick)
    assert len(setups) == len(set(setups))
    for setup in setups:
        bragg.aggregate(np.zeros((setup.honest + setup.hostile, 3)), setup.rule)
    return setups


@pytest.mark.parametrize("name", ["history", "privacy", "reputation"])
@pytest.mark.parametrize("quick", [True, False])
def test_claims_are_of_what_was_found(name, quick):
    experiment = catalogue.EXPERIMENTS[name]
    setups = _checked_setups(experiment, quick)
    runs = [(setup, _made_up(setup, True)) for setup in setups]
    assert [claim for claim, holds in experiment.claims(runs).items() if not holds] == []
    assert not any(experiment.claims([(setup, _made_up(setup, False)) for setup in setups]).values())
    for table in experiment.tables(runs):
        assert len({len(row) for row in table}) == 1
    for x, y in experiment.lines(runs).of.values():
        assert len(x) == len(y) > 1


def test_epsilon_is_of_the_worker_whose_images_are_drawn_most():
    pytest.importorskip("dp_accounting")
    setup = Setup(rule="mean", noise=1.0, steps=100)
    few, many = (Training([0.5], [0.5] * 10, drawn) for drawn in (0.05, 0.2))
    alone, both = (float(privacy._epsilon([(setup, each) for each in runs], 1.0)) for runs in ([few], [few, many]))
    assert 0 < alone < both == float(privacy._epsilon([(setup, many)], 1.0))


def test_workers_of_a_reputation_are_who_they_are_said_to_be():
    setup = next(setup for setup in reputation.EXPERIMENT.setups(True) if setup.reputation)
    assert setup.lone and setup.honest == reputation.OTHERS.stop and setup.hostile == reputation.F


@pytest.mark.parametrize("name", ["price", "ablation", "mixing", "factors"])
@pytest.mark.parametrize("quick", [True, False])
def test_tables_claims_and_lines_are_of_the_trainings(name, quick):
    """Of accuracies that are no training's: that which NNM is before is always the better one."""
    experiment = catalogue.EXPERIMENTS[name]
    setups = _checked_setups(experiment, quick)

    def looks(setup, worst):
        robust = setup.rule.startswith("nnm") or setup.rule == "mean"
        level = (
            0.9 if robust != worst else 0.3 + 0.01 * setup.alpha - 0.001 * (setup.clip > 2 or "foe_" in setup.attack)
        )
        return Training([level] * simulation.LOOKS, [level] * 10)

    runs = [(setup, looks(setup, False)) for setup in setups]
    assert all(experiment.claims(runs).values())
    reversed_ = [(setup, looks(setup, True)) for setup in setups]
    assert not all(experiment.claims(reversed_).values())
    (table,) = experiment.tables(runs)
    assert len({len(row) for row in table}) == 1 and any("90.0" in cell for row in table for cell in row)
    for x, y in experiment.lines(runs).of.values():
        assert len(x) == len(y) > 1


def test_files_of_idx(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])))
    assert data._idx(path).tolist() == [[[1, 2, 3]], [[4, 5, 6]]]


def test_what_is_missing_is_told(tmp_path, monkeypatch, capsys):
    from bragg.experiments.__main__ import main

    monkeypatch.setattr(data, "FASHION", tmp_path / "none")
    monkeypatch.setattr(sys, "argv", ["experiments", "mixing", "--data", "fashion"])
    assert main() == 1
    assert "dataset-fashion-mnist" in capsys.readouterr().err


def test_arguments():
    for arguments in (["mixing", "--jobs", "0"], ["mixing", "--seeds", "0"], ["nothing"]):
        done = subprocess.run([sys.executable, "-m", "bragg.experiments", *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and arguments[1 % len(arguments)] in done.stderr


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_files_that_cannot_be_written_are_told_before_the_trainings(option, tmp_path, monkeypatch, capsys):
    from bragg.experiments import __main__ as program

    monkeypatch.setattr(program, "_run", lambda *arguments: pytest.fail("it trains"))
    for path in (tmp_path / "none" / "a.json", tmp_path, Path("/dev/null")):
        monkeypatch.setattr(sys, "argv", ["experiments", "price", option, str(path)])
        with pytest.raises(SystemExit, match="2"):
            program.main()
        assert f"{option} {path}: cannot be written" in capsys.readouterr().err
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["experiments", "price", "--plot", str(tmp_path / "a.svg")])
    assert program.main() == 1 and "pip install matplotlib" in capsys.readouterr().err


def test_a_process_that_is_killed_ends_the_run(monkeypatch):
    """It waited for ever."""
    from bragg.experiments import __main__ as program

    monkeypatch.setattr(program, "train", os._exit)
    with pytest.raises(program.BrokenProcessPool):
        program._run([9, 9, 9], 2, print)


def test_an_interrupt_ends_the_processes():
    """Each of them printed where it was. Who runs the tests may have interrupts ignored."""
    code = (
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nfrom bragg.experiments import __main__ as program\nprogram.train = time.sleep\n"
        "program._bar = lambda done, all_, seconds: print(done, flush=True)\n"
        "try:\n    program._run([0, 0, 60, 60], 2, lambda run: None)\nexcept KeyboardInterrupt:\n    print('interrupted')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while process.stdout.readline().strip() != "2":
        assert process.poll() is None, process.stderr.read()
    os.killpg(process.pid, signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert out == "interrupted\n" and error == ""


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, 130), (BrokenProcessPool, 1)])
def test_a_run_that_ends_early_says_so_in_a_line(error, status, monkeypatch, capsys):
    from bragg.experiments import __main__ as program

    def run(setups, jobs, kept):
        assert jobs <= (os.cpu_count() or 1)
        raise error

    monkeypatch.setattr(program, "_run", run)
    monkeypatch.setattr(data, "check", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["experiments", "price", "--quick", "--jobs", "99999"])
    assert program.main() == status
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_names_of_all():
    done = subprocess.run([sys.executable, "-m", "bragg.experiments", "--names"], capture_output=True, text=True)
    assert done.stdout.split() == list(catalogue.EXPERIMENTS) and done.returncode == 0
    done = subprocess.run([sys.executable, "-m", "bragg.experiments"], capture_output=True, text=True)
    assert done.returncode == 2 and "price" in done.stderr


@pytest.fixture
def small(blobs, monkeypatch):
    """`price`, in two rules and two seeds; returns what runs it, and the setups that it trained."""
    from bragg.experiments import __main__ as program

    setups = [Setup(rule=rule, honest=5, steps=20, seed=seed) for rule in ("mean", "median") for seed in (0, 1)]
    experiment = dataclasses.replace(
        catalogue.EXPERIMENTS["price"],
        setups=lambda quick: setups,
        tables=lambda runs: [[["a"], [" ".join(f"{setup.rule}{setup.seed}" for setup, _ in runs)]]],
        claims=lambda runs: {"c": False},
    )
    monkeypatch.setitem(catalogue.EXPERIMENTS, "price", experiment)
    monkeypatch.setattr(data, "check", lambda name: None)
    trained = []

    def run(setups, jobs, kept):
        for setup in setups:
            trained.append((setup.rule, setup.seed))
            kept((setup, train(setup)))

    monkeypatch.setattr(program, "_run", run)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["experiments", "price", *map(str, arguments)])
        return program.main()

    return call, trained


def test_the_file_has_every_training(small, tmp_path, capsys):
    call, _ = small
    path = tmp_path / "found.json"
    assert call("--seeds", 1, "--json", path) == 3
    assert "DOES NOT HOLD: c" in capsys.readouterr().out
    found = json.loads(path.read_text())
    assert found["claims"] == {"c": False} and found["command"].endswith(f"--seeds 1 --json {path}")
    assert [(run["rule"], run["seed"], len(run["accuracy"])) for run in found["runs"]] == [
        ("mean", 0, 20),
        ("median", 0, 20),
    ]


def test_a_run_that_is_stopped_goes_on_where_it_was(small, tmp_path, monkeypatch, capsys):
    from bragg.experiments import __main__ as program

    call, trained = small
    path = tmp_path / "found.json"
    run = program._run

    def stopped(setups, jobs, kept):
        run(setups[:3], jobs, kept)
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_run", stopped)
    assert call("--json", path) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
    found = json.loads(path.read_text())
    # The first seed of all comes before the second of any.
    assert found["claims"] is None and [(run["rule"], run["seed"]) for run in found["runs"]] == trained
    assert trained == [("mean", 0), ("median", 0), ("mean", 1)]
    path.write_text(path.read_text().replace(f'"seconds": {found["seconds"]}', '"seconds": 1000'))

    monkeypatch.setattr(program, "_run", run)
    capsys.readouterr()
    assert call("--json", path, "--resume", path) == 3
    assert trained[3:] == [("median", 1)]
    assert "| mean0 mean1 median0 median1 |" in capsys.readouterr().out
    found = json.loads(path.read_text())
    assert len(found["runs"]) == 4 and found["seconds"] >= 1000 and found["claims"] == {"c": False}
    whole = tmp_path / "whole.json"
    assert call("--json", whole) == 3
    assert json.loads(whole.read_text())["runs"] == found["runs"]
    # What is there is not trained again, and of what was not asked for nothing is told.
    del trained[:]
    capsys.readouterr()
    assert call("--seeds", 1, "--resume", path) == 3 and trained == []
    assert "| mean0 median0 |" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", '{"runs": [{}], "seconds": 1}', '{"runs": []}'])
def test_a_file_to_resume_that_is_none_is_told(text, small, tmp_path, capsys):
    call, trained = small
    path = tmp_path / "found.json"
    path.write_text(text)
    with pytest.raises(SystemExit, match="2"):
        call("--resume", path)
    assert f"--resume {path}: is no file that --json of this version wrote" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        call("--resume", tmp_path / "none")
    assert "No such file" in capsys.readouterr().err and trained == []
