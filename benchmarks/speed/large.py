"""Measures training on a corpus of any size, and prints JSON: ``python -m benchmarks.speed.large KIND UTTERANCES``.

One process measures one size, so that its memory is its own: what a new feature set costs once (its hash and the
functionals), what an utterance costs in an epoch of the suite, and the memory that is left without mapped files.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed.shapes import Case, Shape, spec, write_corpus
from mer_bench.training.build import build
from mer_bench.training.execute import prepare_process
from mer_bench.training.run import run

#: name -> method, and modality -> frames and width; 9.2 and 18.4 KB for an utterance
KINDS = {
    "vectors": ("early_concat", {"text": (1, 768), "audio": (1, 768), "vision": (1, 768)}),
    "functionals of frames": ("early_concat", {"audio": (32, 64), "vision": (32, 80)}),
    "frames": ("cfn_sr", {"audio": (32, 64), "vision": (32, 80)}),
}
EPOCHS = 2  #: the first reads the files from the disk, the fastest counts


def measure(kind: str, utterances: int, root: Path) -> dict[str, Any]:
    """The seconds of the first opening, the milliseconds of an utterance and the MiB of a run on one corpus."""
    method, sizes = KINDS[kind]
    case = Case(method, Shape(utterances, utterances, sizes), 32)
    write_corpus(root, case.shape)
    prepare_process()
    wanted = spec(case, root, epochs=EPOCHS)
    began = time.process_time()
    datamodule, _ = build(replace(wanted, training=replace(wanted.training, epochs=1)), root)
    datamodule.setup("fit")
    opened = time.process_time() - began
    del datamodule
    ends: list[float] = []
    record = run(wanted, root, logger="none", notify=lambda *_: ends.append(time.process_time()))
    assert record is not None
    megabytes = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) / 2**20
    return {
        "opened": opened,
        "milliseconds": 1000 * float(np.diff(ends).min()) / utterances,
        "memory": record.peak_memory_mib,
        "megabytes": megabytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("utterances", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="mer-bench-speed-") as folder:
        print(json.dumps(measure(arguments.kind, arguments.utterances, Path(folder))))


if __name__ == "__main__":
    main()
