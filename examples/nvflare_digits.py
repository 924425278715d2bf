#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Federated learning by NVFlare's aggregator with hostile and broken clients: a reputation, bad inputs, capped weights.

    python examples/nvflare_digits.py [STATE.json]                seconds; the reputation goes on from STATE.json, if there
    python examples/nvflare_digits.py [STATE.json] --simulator    5 rounds in NVFlare's simulator: half a minute

NVFlare's models and its context go to bragg.nvflare.RobustAggregator round by round, as its workflow FedAvg does it; the
clients are functions in this process (digits_clients.py), in the place of its transport. With --simulator they are
executors in processes of their own, and FedAvg, its messages and its way of making a job's components are NVFlare's.
Needs bragg and nvflare.
"""

import argparse
import contextlib
import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import bragg
import numpy as np
from bragg.nvflare import RobustAggregator
from digits_clients import CLIENTS, ROUNDS, RULE, Clients, Model, initial, told
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLMetaKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.abstract.model import ModelLearnable, ModelLearnableKey, make_model_learnable
from nvflare.app_common.abstract.model_persistor import ModelPersistor
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.job_config.api import FedJob


class Client(Executor):
    """Of site-1, which is client 0, and so on."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        client = int(fl_ctx.get_identity_name().removeprefix("site-")) - 1
        clients = Clients()
        params = clients.trained(client, FLModelUtils.from_shareable(shareable).params)
        meta = {FLMetaKey.NUM_STEPS_CURRENT_ROUND: clients.images_of(client)}
        return FLModelUtils.to_shareable(FLModel(params_type=ParamsType.FULL, params=params, meta=meta))


class Persistor(ModelPersistor):
    """The model of the server, in a file."""

    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def load_model(self, fl_ctx: FLContext) -> ModelLearnable:
        return make_model_learnable(initial(), {})

    def save_model(self, model: ModelLearnable, fl_ctx: FLContext) -> None:
        np.savez(self.file, **model[ModelLearnableKey.WEIGHTS])


def simulator() -> None:
    """NVFlare's, on this process' arguments, but its threads draw the ports of their clients one at a time.

    To draw a port is to listen at it for a moment. A process that another thread forks in that moment goes on listening
    until it has become a client; who calls its client then is answered by that one, and waits for ever.
    """
    from nvflare.private.fed.app.simulator import simulator_runner

    turn = threading.Lock()
    draw = simulator_runner.get_open_ports

    def in_turn(number: int) -> list[int]:
        with turn:
            time.sleep(0.2)  # in which the thread before starts its client
            return draw(number)

    simulator_runner.get_open_ports = in_turn
    runpy.run_module("nvflare.private.fed.app.simulator.simulator", run_name="__main__")


def simulate(aggregator: RobustAggregator, rounds: int, folder: Path) -> Model:
    """The aggregator is made once more, from a description in JSON, and keeps its reputation in its file."""
    job = FedJob(name="digits", min_clients=CLIENTS)
    job.set_app_packages(["bragg", "nvflare_digits", "digits_clients"])  # found here, not copied into the job
    job.to_server(Persistor(str(folder / "model.npz")), id="persistor")
    job.to_server(FedAvg(num_clients=CLIENTS, num_rounds=rounds, aggregator=aggregator))
    job.to_clients(Client(), tasks=["train"])
    job.export_job(str(folder))
    # A site makes components of the classes that it allows, in the simulator and elsewhere.
    local = folder / "workspace" / "local"
    local.mkdir(parents=True)
    allowed = [*DEFAULT_CLASS_ALLOW_LIST, "bragg.", "nvflare_digits."]
    (local / "resources.json").write_text(json.dumps({"format_version": 2, "class_allow_list": allowed}))
    command = [sys.executable, "-c", "import nvflare_digits; nvflare_digits.simulator()", str(folder / "digits")]
    # With a thread for each client their processes stay; with fewer, each round starts them all anew.
    options = f"-w {folder / 'workspace'} -n {CLIENTS} -t {CLIENTS} -l ERROR".split()
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen([*command, *options], env=here, start_new_session=True) as running:
        try:
            code = running.wait(timeout=300)
        except subprocess.TimeoutExpired:
            sys.exit("NVFlare's simulator did not end in 300 s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
    if code:
        sys.exit(f"NVFlare's simulator ended with {code}")
    with np.load(folder / "model.npz") as model:
        return dict(model)


def in_this_process(aggregator: RobustAggregator, rounds: int) -> Model:
    logging.disable(logging.ERROR)  # of warnings about the broken client, and that this process has no engine
    clients = Clients()
    model = FLModel(params_type=ParamsType.FULL, params=initial())
    for _ in range(rounds):
        context = FLContext()
        context.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(model.params, {}), private=True, sticky=True)
        aggregator.fl_ctx = context
        aggregator.reset_stats()
        for client in range(CLIENTS):
            meta = {"client_name": f"site-{client + 1}", FLMetaKey.NUM_STEPS_CURRENT_ROUND: clients.images_of(client)}
            params = clients.trained(client, model.params)
            aggregator.accept_model(FLModel(params_type=ParamsType.FULL, params=params, meta=meta))
        model = FLModelUtils.update_model(model, aggregator.aggregate_model())
    params: Model = model.params
    return params


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("state", nargs="?")
    parser.add_argument("--simulator", action="store_true")
    parser.add_argument("--rounds", type=int)
    given = parser.parse_args()
    rounds = given.rounds or (5 if given.simulator else ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        state = str(Path(given.state or Path(folder, "state.json")).absolute())
        aggregator = RobustAggregator(RULE, weighted=True, max_weight_share=0.12, reputation=state)
        model = simulate(aggregator, rounds, Path(folder)) if given.simulator else in_this_process(aggregator, rounds)
        scores = bragg.Reputation(state).scores
    print(f"accuracy after {rounds} rounds: {Clients().accuracy(model):.3f}")
    print(f"scores of clients: {told(scores)}")


if __name__ == "__main__":
    main()
