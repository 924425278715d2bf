# SPDX-License-Identifier: Apache-2.0
"""examples/flower_digits.py and nvflare_digits.py: they train, and the reputation knows who does harm."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def trained(program, state, *options):
    """The scores in the end."""
    done = subprocess.run([sys.executable, EXAMPLES / program, state, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split("rounds: ")[1].split()[0]) > 0.85
    scores = {name: standing["score"] for name, standing in json.loads(state.read_text())["names"].items()}
    assert len(scores) == 11
    return scores


@pytest.mark.parametrize(("package", "prefix"), [("flwr", ""), ("nvflare", "site-")])
def test_an_example_trains_and_remembers(package, prefix, tmp_path):
    if not find_spec(package):
        pytest.skip(f"no {package}")
    program = {"flwr": "flower_digits.py", "nvflare": "nvflare_digits.py"}[package]
    scores = trained(program, tmp_path / "state.json")
    broken, hostile = scores.pop(f"{prefix}4"), scores.pop(f"{prefix}8")
    others = sorted(scores.values())
    assert broken <= 0.1 < 0.2 <= hostile <= others[0]
    assert others[1] > 0.9  # who is farthest of the honest may be doubted, too


def test_flower_s_simulation_trains_and_remembers(tmp_path):
    if not find_spec("flwr") or not find_spec("ray"):
        pytest.skip("no flwr[simulation]")
    scores = sorted(trained("flower_digits.py", tmp_path / "state.json", "--simulator").values())
    assert scores[0] <= 0.1 < 0.2 <= scores[1] and scores[3] > 0.9


def test_nvflare_s_simulator_trains_and_remembers(tmp_path):
    if not find_spec("nvflare"):
        pytest.skip("no nvflare")
    scores = trained("nvflare_digits.py", tmp_path / "state.json", "--simulator")
    assert scores == trained("nvflare_digits.py", tmp_path / "other.json", "--rounds=5")


def test_clients_of_nvflare_s_simulator_draw_their_ports_one_at_a_time(monkeypatch):
    """Of 20 starts of 11 at once, 19 clients were called at a port that another's process still listened at."""
    if not find_spec("nvflare"):
        pytest.skip("no nvflare")
    monkeypatch.syspath_prepend(EXAMPLES)
    import nvflare_digits as example
    from nvflare.private.fed.app.simulator import simulator_runner

    drawn = []
    monkeypatch.setattr(simulator_runner, "get_open_ports", lambda number: drawn.append(time.monotonic()))

    def simulated(*arguments, **options):
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(simulator_runner.get_open_ports, [1] * 4))

    monkeypatch.setattr(example.runpy, "run_module", simulated)
    example.simulator()
    assert len(drawn) == 4 and np.diff(drawn).min() > 0.15


def test_clients_learn_and_do_harm(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import digits_clients as made

    clients = made.Clients()
    model = made.initial()
    for _ in range(5):
        rows = [clients.trained(client, model) for client in range(made.CLIENTS)]
        good = [row for client, row in enumerate(rows) if client not in (made.BROKEN, made.HOSTILE)]
        back = rows[made.HOSTILE]
        model = {name: np.mean([row[name] for row in good], axis=0) for name in model}
    assert clients.accuracy(model) > 0.8 > clients.accuracy(back)
    assert rows[made.BROKEN].keys() != model.keys()
    assert clients.images_of(made.BOASTER) > 1000 * clients.images_of(0)
