"""Times one method in a process of its own: ``python -m benchmarks.speed.epoch METHOD``; prints JSON.

``cost`` compares a bare PyTorch loop and the suite's own run of the same module on the same batches, ``memory`` is the
suite's run alone, ``growth`` the bare loop at growing sizes. On a CPU time is the process's CPU time with one thread,
on a GPU wall time.
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
from mer_bench.training.build import build_datamodule, build_method
from mer_bench.training.run import prepare_process, run

TRIES = (2, 20)  #: fewest and most epochs of each loop; the cheapest counts
ENOUGH = 30.0  #: seconds of each loop, within these
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def seconds() -> float:
    if DEVICE == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def batches(case: Case, root: Path) -> tuple[FusionModule, list[Batch], list[Batch]]:
    """The module of a case, the training batches that the suite would give it in its first epoch, and validation's."""
    wanted = spec(case, root, epochs=1)
    prepare_process(wanted.training.precision)  # as the suite's run does
    datamodule = build_datamodule(wanted, root)
    datamodule.setup("fit")
    torch.manual_seed(0)
    module = build_method(wanted, datamodule.dims, datamodule.num_classes).to(DEVICE)
    training, validation = (
        [batch.to(DEVICE) for batch in loader]
        for loader in (datamodule.train_dataloader(), datamodule.val_dataloader())
    )
    return module, training, validation


def bare(module: FusionModule, training: Sequence[Batch], validation: Sequence[Batch], epochs: int) -> list[float]:
    """Seconds of each epoch of the recipe and nothing else: AdamW, clipped gradients, a schedule; then validation."""
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
    """Seconds of each epoch of the suite's run: loading, validation, scores, log and checkpoint included."""
    at: list[float] = []
    run(spec(case, root, epochs=epochs), root, log_folder=root / "logs", notify=lambda *_: at.append(seconds()))
    return np.diff(at).tolist()


def cost(case: Case, root: Path) -> dict[str, Any]:
    """Seconds of the cheapest epoch of each loop; the shorter an epoch is, the more tries it has."""
    write_corpus(root, case.shape)
    module, training, validation = batches(case, root)
    alone = bare(module, training, validation, 1)
    fewest, most = TRIES
    tries = max(fewest, min(most, round(ENOUGH / alone[0])))
    ours = suite(case, root, tries)
    alone += bare(module, training, validation, tries - 1)
    return {
        "bare": min(alone),
        "suite": min(ours),
        "steps": len(training),
        "parameters": module.num_parameters,
        "utterances": sum(map(len, training)),
    }


def memory(case: Case, root: Path) -> dict[str, Any]:
    """Peak of a run in MiB: resident memory on a CPU, that of the device on a GPU; and before the run."""
    before = _resident()
    write_corpus(root, case.shape)
    run(spec(case, root, epochs=1), root, logger="none")
    peak = torch.cuda.max_memory_allocated() / 2**20 if DEVICE == "cuda" else _resident()
    return {"before": before, "peak": peak}


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def growth(case: Case, root: Path) -> dict[str, Any]:
    """Axis -> exponent of the cost of an epoch in it, fitted to sizes once, twice and four times the least."""
    conversational = METHODS[case.method].context == "dialogue"
    least = replace(case.shape, dialogues=case.batch_size, utterances=case.batch_size * (24 if conversational else 1))
    sizes = least.sizes
    longer = [
        replace(least, utterances=times * least.utterances)
        if conversational
        else replace(least, sizes={name: (times * frames, width) for name, (frames, width) in sizes.items()})
        for times in (1, 2, 4)
    ]
    wider = [
        replace(least, sizes={name: (frames, times * width) for name, (frames, width) in sizes.items()})
        for times in (1, 2, 4)
    ]
    counts = [count for count in (1, 2, 3) if METHODS[case.method].least <= count <= len(sizes)]
    alike = max(sizes.values())  # modalities of one size, or the count would say little
    more = [replace(least, sizes=dict.fromkeys(list(sizes)[:count], alike)) for count in counts]
    axes: dict[str, tuple[Sequence[float], Sequence[Shape]]] = {
        "dialogues" if conversational else "utterances": ((1, 2, 4), [least.scaled(times) for times in (1, 2, 4)]),
        "length": ((1, 2, 4), longer),
        "width": ((1, 2, 4), wider),
    }
    if len(counts) > 1:
        axes["modalities"] = (counts, more)
    exponents = {}
    for axis, (times, shapes) in axes.items():
        taken = []
        for number, shape in enumerate(shapes):
            place = root / f"{axis}{number}"
            write_corpus(place, shape)
            module, training, _ = batches(replace(case, shape=shape), place)
            taken.append(min(bare(module, training, [], 4)))
        exponents[axis] = float(np.polyfit(np.log(times), np.log(taken), 1)[0])
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
