#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Federated learning in Flower with hostile and broken nodes: a reputation, bad replies, capped weights.

    python examples/flower_digits.py [STATE.json]    seconds; the reputation goes on from STATE.json, where that is there

Flower's own loop and strategy run, on a grid whose nodes are functions in this process (digits_clients.py) in the place of
its transport: so it needs neither Ray nor a server. In a ServerApp, give the strategy the grid that Flower gives.
Needs bragg and flwr.
"""

import logging
import os
import sys
from collections.abc import Iterable

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import bragg
import numpy as np
from bragg.flower import RobustStrategy
from digits_clients import CLIENTS, ROUNDS, RULE, Clients, initial, told
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity


def record(model: dict[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in model.items()})


class Nodes(Grid):
    """Node k + 1 is client k."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def get_node_ids(self) -> Iterable[int]:
        return range(1, CLIENTS + 1)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        for message in messages:
            client = message.metadata.dst_node_id - 1
            model = {name: array.numpy() for name, array in message.content["arrays"].items()}
            if message.metadata.message_type.startswith("train"):
                examples = {"num-examples": self._clients.images_of(client)}
                content = {"arrays": record(self._clients.trained(client, model)), "metrics": MetricRecord(examples)}
            else:
                content = {"metrics": MetricRecord({"num-examples": 1, "accuracy": self._clients.accuracy(model)})}
            yield Message(RecordDict(content), reply_to=message)

    run = None
    set_run = create_message = push_messages = pull_messages = None


def main() -> None:
    logging.getLogger("flwr").setLevel(logging.ERROR)  # what strategy and reputation have to say is at INFO
    TaskIdentity._task_id = TaskIdentity._run_id = TaskIdentity._node_id = 1  # as Flower sets for a ServerApp
    reputation = bragg.Reputation(*sys.argv[1:2])
    strategy = RobustStrategy(RULE, weighted=True, max_weight_share=0.12, reputation=reputation)
    clients = Clients()
    result = strategy.start(Nodes(clients), record(initial()), num_rounds=ROUNDS)
    model = {name: array.numpy() for name, array in result.arrays.items()}
    print(f"accuracy after {ROUNDS} rounds: {clients.accuracy(model):.3f}")
    print(f"scores of nodes: {told(reputation.scores)}")


if __name__ == "__main__":
    main()
