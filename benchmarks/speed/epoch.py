"""Measures one method in this process and prints JSON: ``python -m benchmarks.speed.epoch METHOD``.

``cost`` times a bare PyTorch loop and a run of the suite, with the same module and the same batches. ``memory``
measures a run of the suite, ``growth`` the bare loop at several sizes. Time is CPU time with one thread, or wall time
on a GPU.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.speed.shapes import CASES, Case, Shape, spec, write_corpus
from mer_bench.batch import Batch
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.training.build import build
from mer_bench.training.execute import prepare_process
from mer_bench.training.run import run

EPOCHS = (2, 20)  #: smallest and largest number of epochs that a loop measures; the fastest counts
SECONDS = 30.0  #: time that the epochs of a loop take together, within these limits
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def seconds() -> float:
    if DEVICE == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def batches(case: Case, root: Path) -> tuple[FusionModule, list[Batch], list[Batch]]:
    """Return the module of a case, and the batches that it gets in its first epoch, for training and for validation."""
    wanted = spec(case, root, epochs=1)
    prepare_process()
    torch.manual_seed(0)
    datamodule, module = build(wanted, root)
    datamodule.setup("fit")
    module = module.to(DEVICE)
    training, validation = (
        [batch.to(DEVICE) for batch in loader]
        for loader in (datamodule.train_dataloader(), datamodule.val_dataloader())
    )
    return module, training, validation


def bare(module: FusionModule, training: Sequence[Batch], validation: Sequence[Batch], epochs: int) -> list[float]:
    """Return the seconds of each epoch in plain PyTorch: AdamW, clipped gradients, a schedule; then validation."""
    optimizer = module.adamw()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(training))
    taken = []
    for _ in range(epochs):
        start = seconds()
        module.train()
        for batch in training:
            optimizer.zero_grad()
            torch.stack(list(module.losses(batch).values())).sum().backward()
            nn.utils.clip_grad_norm_(module.parameters(), module.training_options.gradient_clip)
            optimizer.step()
            schedule.step()
        module.eval()
        with torch.no_grad():
            for batch in validation:
                module(batch).argmax(1)
        taken.append(seconds() - start)
    return taken


def suite(case: Case, root: Path, epochs: int) -> list[float]:
    """Return the seconds of each epoch of a run of the suite, with loading, validation, scores, log and checkpoint."""
    ends: list[float] = []
    run(spec(case, root, epochs=epochs), root, log_folder=root / "logs", notify=lambda *_: ends.append(seconds()))
    return np.diff(ends).tolist()


def cost(case: Case, root: Path) -> dict[str, Any]:
    """Measure the seconds of the fastest epoch of each loop."""
    write_corpus(root, case.shape)
    module, training, validation = batches(case, root)
    bare_seconds = bare(module, training, validation, 1)
    epochs = max(EPOCHS[0], min(EPOCHS[1], round(SECONDS / bare_seconds[0])))
    suite_seconds = suite(case, root, epochs)
    bare_seconds += bare(module, training, validation, epochs - 1)
    return {
        "bare": min(bare_seconds),
        "suite": min(suite_seconds),
        "steps": len(training),
        "parameters": module.num_parameters,
    }


def memory(case: Case, root: Path) -> dict[str, Any]:
    """Measure the MiB of resident memory before a run, and its peak (of device memory if there is a GPU)."""
    before = _resident()
    write_corpus(root, case.shape)
    run(spec(case, root, epochs=1), root, logger="none")
    peak = torch.cuda.max_memory_allocated() / 2**20 if DEVICE == "cuda" else _resident()
    return {"before": before, "peak": peak}


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def growth(case: Case, root: Path) -> dict[str, float]:
    """Fit the exponent with which the cost of an epoch grows along each axis, at one, two and four times a size."""
    method = METHODS[case.method]
    dialogues = method.context == "dialogue"
    base = replace(case.shape, dialogues=case.batch_size, utterances=case.batch_size * (24 if dialogues else 1))

    def resized(frames: int = 1, width: int = 1) -> Shape:
        return replace(base, sizes={name: (frames * f, width * w) for name, (f, w) in base.sizes.items()})

    factors = (1, 2, 4)
    longer = [replace(base, utterances=n * base.utterances) if dialogues else resized(frames=n) for n in factors]
    axes: dict[str, tuple[Sequence[float], Sequence[Shape]]] = {
        "dialogues" if dialogues else "utterances": (factors, [base.scaled(n) for n in factors]),
        "length": (factors, longer),
        "width": (factors, [resized(width=n) for n in factors]),
    }
    counts = [count for count in (1, 2, 3) if method.least <= count <= len(base.sizes)]
    if len(counts) > 1:
        size = max(base.sizes.values())  # the same for all modalities, so that only their number changes
        axes["modalities"] = (counts, [replace(base, sizes=dict.fromkeys(list(base.sizes)[:n], size)) for n in counts])
    exponents = {}
    for axis, (sizes, shapes) in axes.items():
        taken = []
        for number, shape in enumerate(shapes):
            folder = root / f"{axis}{number}"
            write_corpus(folder, shape)
            module, training, _ = batches(replace(case, shape=shape), folder)
            taken.append(min(bare(module, training, [], 4)))
        exponents[axis] = float(np.polyfit(np.log(sizes), np.log(taken), 1)[0])
    return exponents


def main() -> None:
    cases = {case.method: case for case in CASES}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=cases)
    parser.add_argument("--part", choices=("cost", "memory", "growth"), default="cost")
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    case = cases[arguments.method]
    with tempfile.TemporaryDirectory(prefix="mer-bench-speed-") as folder:
        root = Path(folder)
        if arguments.part != "growth":
            case = replace(case, shape=case.shape.scaled(arguments.scale))
        found = {"cost": cost, "memory": memory, "growth": growth}[arguments.part](case, root)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
