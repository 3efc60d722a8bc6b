"""Numbers of every method after three training steps: `make golden` stores them, test_golden.py compares with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from factories import DIMS, random_batch

from mer_bench.batch import Batch
from mer_bench.datasets.iemocap import IEMOCAP
from mer_bench.files import write_atomic
from mer_bench.fusion import METHODS

FILE = Path(__file__).with_name("golden.json")
NAMES = list(IEMOCAP.label_sets["six"].values())  # GraphSmile knows their sentiments
CLASSES = len(NAMES)


def numbers(name: str) -> list[float]:
    """With default options: losses of the third AdamW step, then in evaluation six logits and the norm of all.

    In double precision, because a first step of AdamW divides each gradient by its size: of a gradient near zero,
    single precision leaves the sign to the rounding of a processor.
    """
    method = METHODS[name]
    dims = DIMS if method.most > 1 else {"audio": DIMS["audio"]}
    gaps = {modality: [3, row] for row, modality in enumerate(dims)}
    batch = _double(random_batch(dims, CLASSES, (5, 3, 1), context=method.context, times=(6, 12), missing=gaps))
    torch.manual_seed(0)
    module = method(dims, CLASSES, **method.options_for(NAMES)).double().train()
    module.class_counts.copy_(torch.arange(CLASSES) + 5)
    losses = [loss.detach() for loss in module.losses(batch).values()]
    if module.num_parameters:
        optimizer = module.adamw()
        for _ in range(3):
            optimizer.zero_grad()
            terms = list(module.losses(batch).values())
            torch.stack(terms).sum().backward()
            optimizer.step()
            losses = [term.detach() for term in terms]
    with torch.no_grad():
        logits = module.eval()(batch)
    return torch.stack([*losses, *logits[0], logits.norm()]).tolist()


def _double(batch: Batch) -> Batch:
    functionals = {name: values.double() for name, values in batch.functionals.items()}
    frames = {name: replace(sequence, values=sequence.values.double()) for name, sequence in batch.frames.items()}
    return replace(batch, functionals=functionals, frames=frames)


def main() -> None:
    """Store the numbers of methods that are new or have another version, and of no other."""
    stored = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for name, method in METHODS.items():
        if stored.get(name, {}).get("version") != method.version:
            stored[name] = {"version": method.version, "values": [round(value, 5) for value in numbers(name)]}
    lines = (f"{json.dumps(name)}: {json.dumps(stored[name])}" for name in METHODS)
    write_atomic(FILE, "{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
