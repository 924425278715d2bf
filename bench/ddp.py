#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Step time of a small transformer, and bytes sent, with gradients by PyTorch's mean and by a robust rule.

    python bench/ddp.py                              a table
    python bench/ddp.py --json bench/results/NAME.json

Processes of gloo share this machine, over loopback, a thread each. In each repetition all contenders take a step, one
after another; medians over repetitions, of the slowest rank. A step is the forward and the backward pass, `check` and the
optimizer. Bytes are what the loopback interface sent meanwhile, per rank: whatever else uses it is in them, too. Needs
torch (with gloo) and bragg, and Linux for the bytes.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

COUNTER = Path("/sys/class/net/lo/statistics/tx_bytes")
WORDS, LENGTH, BATCH = 2000, 32, 4


class Transformer(torch.nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(WORDS, width)
        self.layers = torch.nn.ModuleList(
            torch.nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0, batch_first=True) for _ in range(layers)
        )
        self.head = torch.nn.Linear(width, WORDS)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embedding(words)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)  # type: ignore[no-any-return]


class Contender:
    def __init__(
        self, name: str, model: torch.nn.Module, check: Callable[[], None] | None = None, shards: bool = False
    ) -> None:
        self.name = name
        self.shards = shards  # the model, by fully_shard
        self.model = model
        self.check = check
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        self.ms: list[float] = []
        self.sent: list[float] = []

    def step(self, words: Tensor) -> None:
        self.optimizer.zero_grad()
        cross_entropy(self.model(words).flatten(0, 1), words.roll(-1, 1).flatten()).backward()
        if self.check is not None:
            self.check()
        self.optimizer.step()


def gather_hook(rule: str) -> Callable[[Any, Any], Any]:
    """The usual way: every rank gathers the rows of all, and aggregates all of them."""
    import bragg

    def hook(state, bucket):  # type: ignore[no-untyped-def]  # DistributedDataParallel checks annotations
        rows = torch.empty(dist.get_world_size(), bucket.buffer().numel())
        work = dist.all_gather_into_tensor(rows.view(-1), bucket.buffer(), async_op=True)
        return work.get_future().then(lambda _: bragg.aggregate(rows, rule, threads=1))

    return hook


def contenders(options: argparse.Namespace) -> list[Contender]:
    import bragg.torch

    def in_ddp(name: str, **hook_options: Any) -> Contender:
        ddp = DistributedDataParallel(Transformer(options.width, options.layers), bucket_cap_mb=options.bucket_mb)
        if not hook_options:
            return Contender(name, ddp)
        state, hook = bragg.torch.ddp_hook(options.rule, threads=1, **hook_options)
        ddp.register_comm_hook(state, hook)
        return Contender(name, ddp, state.check)

    def in_fsdp(name: str, rule: str | None) -> Contender:
        model = Transformer(options.width, options.layers)
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for layer in model.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        state = bragg.torch.use_in_fsdp(model, rule, threads=1) if rule is not None else None
        return Contender(name, model, state.check if state is not None else None, shards=True)

    gathering = in_ddp("gather, then aggregate")
    gathering.model.register_comm_hook(None, gather_hook(options.rule))  # type: ignore[operator]
    return [
        in_ddp("DistributedDataParallel"),
        in_ddp("ddp_hook, bucket", scope="bucket"),
        in_ddp("ddp_hook, bucket, bfloat16", scope="bucket", wire_dtype=torch.bfloat16),
        in_ddp("ddp_hook, whole", scope="whole"),
        in_ddp("ddp_hook, bucket, replicas = 2", scope="bucket", replicas=2),
        gathering,
        in_fsdp("fully_shard", None),
        in_fsdp("use_in_fsdp", options.rule),
    ]


def sent() -> int:
    return int(COUNTER.read_text()) if COUNTER.exists() else 0


def process(rank: int, store: str, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=options.ranks)
    random = torch.Generator().manual_seed(rank)
    running = contenders(options)
    for repetition in range(-options.warmup, options.repetitions):
        for contender in running:
            words = torch.randint(WORDS, (BATCH, LENGTH), generator=random)
            dist.barrier()
            before, start = sent(), time.perf_counter()
            contender.step(words)
            dist.barrier()
            if repetition >= 0:
                contender.ms.append(1000 * (time.perf_counter() - start))
                contender.sent.append((sent() - before) / options.ranks)
    if rank == 0:
        report(running, options)
    dist.barrier()
    dist.destroy_process_group()


def report(running: list[Contender], options: argparse.Namespace) -> None:
    d = sum(parameter.numel() for parameter in running[0].model.parameters())
    print(f"{options.ranks} ranks, d = {d}, float32, {options.rule}\n")
    print("| gradients by | ms per step | / its mean | MB sent per rank | / 4d |\n|---|---|---|---|---|")
    for contender in running:
        mean = next(c for c in running if c.name == ("fully_shard" if contender.shards else "DistributedDataParallel"))
        ms, megabytes = statistics.median(contender.ms), statistics.median(contender.sent) / 1e6
        ratio = ms / statistics.median(mean.ms)
        print(f"| {contender.name} | {ms:.0f} | {ratio:.2f} | {megabytes:.1f} | {megabytes * 1e6 / (4 * d):.2f} |")
    if options.json:
        result = {
            "command": " ".join(["python", "bench/ddp.py", *sys.argv[1:]]),
            "cores": os.cpu_count(),
            "d": d,
            "dtype": "f32",
            "load": os.getloadavg(),
            "ranks": options.ranks,
            "rows": [
                {"bytes_sent": statistics.median(c.sent), "ms": c.ms, "name": c.name, "bytes": c.sent} for c in running
            ],
            "rule": options.rule,
            "torch": torch.__version__,
        }
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--rule", default="nnm(f=1) | trimmed_mean(f=1)")
    parser.add_argument("--width", type=int, default=384, help="of the transformer")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--bucket-mb", type=float, default=8, help="DistributedDataParallel's bucket_cap_mb")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(process, (f"{folder}/store", options), nprocs=options.ranks)
    return 0


if __name__ == "__main__":
    sys.exit(main())
