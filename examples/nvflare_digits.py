#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Federated learning by NVFlare's aggregator with hostile and broken clients: a reputation, bad inputs, capped weights.

    python examples/nvflare_digits.py [STATE.json]    seconds; the reputation goes on from STATE.json, where that is there

NVFlare's models and its context go to bragg.nvflare.RobustAggregator round by round, as its workflow FedAvg does it; the
clients are functions in this process (digits_clients.py), in the place of its transport and simulator. In a job, it is
`FedAvg(..., aggregator=RobustAggregator(...))`. Needs bragg and nvflare.
"""

import logging
import sys

import bragg
from bragg.nvflare import RobustAggregator
from digits_clients import CLIENTS, ROUNDS, RULE, Clients, initial, told
from nvflare.apis.fl_constant import FLMetaKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.utils.fl_model_utils import FLModelUtils


def main() -> None:
    logging.disable(logging.ERROR)  # of warnings about the broken client, and that this process has no engine
    reputation = bragg.Reputation(*sys.argv[1:2])
    aggregator = RobustAggregator(RULE, weighted=True, max_weight_share=0.12, reputation=reputation)
    clients = Clients()
    model = FLModel(params_type=ParamsType.FULL, params=initial())
    for _ in range(ROUNDS):
        context = FLContext()
        context.set_prop(AppConstants.GLOBAL_MODEL, make_model_learnable(model.params, {}), private=True, sticky=True)
        aggregator.fl_ctx = context
        aggregator.reset_stats()
        for client in range(CLIENTS):
            meta = {"client_name": f"site-{client + 1}", FLMetaKey.NUM_STEPS_CURRENT_ROUND: clients.images_of(client)}
            params = clients.trained(client, model.params)
            aggregator.accept_model(FLModel(params_type=ParamsType.FULL, params=params, meta=meta))
        model = FLModelUtils.update_model(model, aggregator.aggregate_model())
    print(f"accuracy after {ROUNDS} rounds: {clients.accuracy(model.params):.3f}")
    print(f"scores of clients: {told(reputation.scores)}")


if __name__ == "__main__":
    main()
