#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Federated learning in Flower with hostile and broken nodes: a reputation, bad replies, capped weights.

    python examples/flower_digits.py [STATE.json]                seconds; the reputation goes on from STATE.json, if there
    python examples/flower_digits.py [STATE.json] --simulator    in Flower's own simulation, flwr[simulation]: half a minute

Flower's own loop and strategy run, on a grid whose nodes are functions in this process (digits_clients.py) in the place of
its transport: so it needs neither Ray nor a server. With --simulator a ServerApp and ClientApps run in Ray, as Flower does
it; it names nodes by numbers drawn afresh each time, so that a reputation means nothing to the next run.
Needs bragg and flwr.
"""

import argparse
import logging
import os
from collections.abc import Iterable

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import bragg
import numpy as np
from bragg.flower import RobustStrategy
from digits_clients import CLIENTS, ROUNDS, RULE, Clients, initial, told
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result
from flwr.supercore.task_identity import TaskIdentity


def record(model: dict[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in model.items()})


def values(arrays: ArrayRecord) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in arrays.items()}


def reply(clients: Clients, client: int, message: Message) -> Message:
    model = values(message.content["arrays"])
    if message.metadata.message_type.startswith("train"):
        examples = {"num-examples": clients.images_of(client)}
        content = {"arrays": record(clients.trained(client, model)), "metrics": MetricRecord(examples)}
    else:
        content = {"metrics": MetricRecord({"num-examples": 1, "accuracy": clients.accuracy(model)})}
    return Message(RecordDict(content), reply_to=message)


class Nodes(Grid):
    """Node k + 1 is client k."""

    def __init__(self) -> None:
        self._clients = Clients()

    def get_node_ids(self) -> Iterable[int]:
        return range(1, CLIENTS + 1)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return [reply(self._clients, message.metadata.dst_node_id - 1, message) for message in messages]

    run = None
    set_run = create_message = push_messages = pull_messages = None


def simulate(strategy: RobustStrategy) -> Result:
    from flwr.clientapp import ClientApp
    from flwr.simulation import run_simulation

    nodes, server = ClientApp(), ServerApp()
    results = []

    @nodes.train()
    @nodes.evaluate()
    def answer(message: Message, context: Context) -> Message:
        return reply(Clients(), int(context.node_config["partition-id"]), message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        results.append(strategy.start(grid, record(initial()), num_rounds=ROUNDS))

    ray = {"init_args": {"num_cpus": 2}, "client_resources": {"num_cpus": 1.0, "num_gpus": 0.0}}
    run_simulation(server, nodes, num_supernodes=CLIENTS, backend_config=ray)
    return results[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("state", nargs="?")
    parser.add_argument("--simulator", action="store_true")
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)  # what strategy and reputation have to say is at INFO
    reputation = bragg.Reputation(given.state) if given.state else bragg.Reputation()
    strategy = RobustStrategy(RULE, weighted=True, max_weight_share=0.12, reputation=reputation)
    if given.simulator:
        result = simulate(strategy)
    else:
        TaskIdentity._task_id = TaskIdentity._run_id = TaskIdentity._node_id = 1  # as Flower sets for a ServerApp
        result = strategy.start(Nodes(), record(initial()), num_rounds=ROUNDS)
    print(f"accuracy after {ROUNDS} rounds: {Clients().accuracy(values(result.arrays)):.3f}")
    print(f"scores of nodes: {told(reputation.scores)}")


if __name__ == "__main__":
    main()
