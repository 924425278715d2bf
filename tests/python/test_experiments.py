# SPDX-License-Identifier: Apache-2.0
"""bragg.experiments on images made up here: gradients, shares and attacks are what they are said to be."""

import dataclasses
import gzip
import subprocess
import sys

import bragg
import numpy as np
import pytest
from bragg.experiments import catalogue, data, simulation
from bragg.experiments.simulation import Network, Setup, train


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
    assert len(train(common)) == simulation.LOOKS
    assert catalogue.accuracy(train(common)) > 0.9
    assert train(common) == train(common) != train(dataclasses.replace(common, seed=1))
    with pytest.raises(bragg.AggregationError):
        train(hostile)
    for attack in simulation.ATTACKS:
        assert catalogue.accuracy(train(dataclasses.replace(robust, attack=attack))) > 0.8, attack


@pytest.mark.parametrize("name", catalogue.EXPERIMENTS)
@pytest.mark.parametrize("quick", [True, False])
def test_tables_claims_and_lines_are_of_the_trainings(name, quick):
    """Of accuracies that are no training's: that which NNM is before is always the better one."""
    experiment = catalogue.EXPERIMENTS[name]
    setups = experiment.setups(quick)
    assert len(setups) == len(set(setups))
    for setup in setups:
        # Legal for the rows that there are.
        bragg.aggregate(np.zeros((setup.honest + setup.hostile, 3)), setup.rule)

    def looks(setup, worst):
        robust = setup.rule.startswith("nnm") or setup.rule == "mean"
        return [0.9 if robust != worst else 0.3 + 0.01 * setup.alpha] * simulation.LOOKS

    runs = [(setup, looks(setup, False)) for setup in setups]
    assert all(experiment.claims(runs).values())
    reversed_ = [(setup, looks(setup, True)) for setup in setups]
    assert not all(experiment.claims(reversed_).values())
    table = experiment.table(runs)
    assert len({len(row) for row in table}) == 1 and any("90.0" in cell for row in table for cell in row)
    if experiment.lines is not None:
        for x, y in experiment.lines(runs).values():
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
    for arguments in (["mixing", "--jobs", "0"], ["mixing", "--plot", "x.svg"], ["nothing"]):
        done = subprocess.run([sys.executable, "-m", "bragg.experiments", *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and arguments[1 % len(arguments)] in done.stderr
