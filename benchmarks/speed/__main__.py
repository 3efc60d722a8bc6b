"""Measures the project's speed and writes benchmarks/speed/README.md: ``python -m benchmarks.speed [PART ...]``."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.speed import scaling
from benchmarks.speed.shapes import CASES, Case
from mer_bench.files import write_atomic
from mer_bench.fusion import METHODS
from mer_bench.metrics import confusion_matrix
from mer_bench.records import FeatureFacts, RunRecord, RunSpec, Training, write_record
from mer_bench.report.formatting import markdown
from mer_bench.training.measures import device_name

README = Path(__file__).with_name("README.md")
RECORDS = 1000
Row = tuple[str, ...]


def cost(arguments: argparse.Namespace) -> Iterator[Row]:
    """An epoch through the suite, compared with a bare loop, the public code and the target."""
    yield "Method", "Parameters", "Steps", "Public code", "Target", "Suite", "Bare loop", "Suite / bare"
    full = arguments.scale == 1
    for case, found in measured("cost", arguments):
        yield (
            case.method + (f" ({case.note})" if case.note else ""),
            f"{found['parameters']:,}",
            str(found["steps"]),
            f"{case.public:.1f}" if full else "–",
            f"{case.target:.1f}" if full else "–",
            f"{found['suite']:.2f}",
            f"{found['bare']:.2f}",
            f"{found['suite'] / found['bare']:.2f}",
        )


def memory(arguments: argparse.Namespace) -> Iterator[Row]:
    """Peak memory of a run in a fresh process."""
    yield "Method", "Peak, MiB", "of which before the run"
    for case, found in measured("memory", arguments):
        yield case.method, f"{found['peak']:,.0f}", f"{found['before']:,.0f}"


def growth(arguments: argparse.Namespace) -> Iterator[Row]:
    """The exponents of the growth of the cost of an epoch."""
    axes = ("dialogues", "utterances", "length", "width", "modalities")
    yield "Method", *(axis.capitalize() for axis in axes)
    for case, found in measured("growth", arguments):
        yield case.method, *(f"{found[axis]:.2f}" if axis in found else "–" for axis in axes)


def start(arguments: argparse.Namespace) -> Iterator[Row]:
    """The time of short commands, of a bench with nothing to do, and of a leaderboard of a thousand records."""
    yield "Command", "Target, s", "Seconds", "CPU-seconds"
    with tempfile.TemporaryDirectory(prefix="mer-bench-speed-") as folder:
        for record in records(RECORDS):
            write_record(record, Path(folder))
        done = ["bench", "simulated", "--methods", "majority", "--logger", "none"]
        done += ["--data", f"{folder}/data", "--results", f"{folder}/done", "--leaderboard", f"{folder}/page.md"]
        command(done)  # what it has to do is done now
        lines = (
            ("`mer-bench --help`", ["--help"], 0.5),
            ("a typo: `mer-bench bnech`", ["bnech"], 0.5),
            (f"`mer-bench leaderboard`, {RECORDS:,} records", ["leaderboard", "--results", folder], 2.0),
            ("`mer-bench bench`, nothing to do", done, 1.0),
        )
        for name, line, target in lines:
            taken = [command(line) for _ in range(3)]
            yield name, f"{target}", *(f"{min(column):.2f}" for column in zip(*taken, strict=True))


def scale(arguments: argparse.Namespace) -> Iterator[Row]:
    """Forty runs with several workers."""
    yield "40 runs", "Seconds"
    for name, seconds in scaling.measure():
        yield name, f"{seconds:.0f}"


Part = Callable[[argparse.Namespace], Iterator[Row]]  #: yields the head of a table, then its rows
PARTS: dict[str, Part] = {"cost": cost, "memory": memory, "growth": growth, "start": start, "scaling": scale}
SCALED = ("cost", "memory")  #: the parts whose sizes --full sets; the sizes of the others are fixed


def measured(part: str, arguments: argparse.Namespace) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Measure each of the methods asked for in its own process."""
    for case in CASES:
        if not arguments.methods or case.method in arguments.methods:
            print(f"{part} {case.method}", file=sys.stderr, flush=True)
            line = [sys.executable, "-m", "benchmarks.speed.epoch", case.method]
            line += ["--part", part, "--scale", str(arguments.scale)]
            done = subprocess.run(line, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
            yield case, json.loads(done.stdout.splitlines()[-1])


def command(line: Sequence[str]) -> tuple[float, float]:
    """Return the seconds and CPU-seconds that a command takes."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "mer_bench", *line], capture_output=True, check=False)
    taken, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def records(count: int) -> Iterator[RunRecord]:
    """Yield random records in the shape of a RAVDESS study: all methods, six folds, six seeds."""
    rng = np.random.default_rng(0)
    classes, actors, rows, epochs = 8, 4, 240, 30
    names = [name for name, method in METHODS.items() if method.most > 1]
    for name, fold, seed in itertools.islice(itertools.product(names, range(1, 7), range(6)), count):
        true = rng.integers(classes, size=rows)
        predicted = np.where(rng.random(rows) < 0.5, true, rng.integers(classes, size=rows))
        pairs = zip(np.split(true, actors), np.split(predicted, actors), strict=True)
        by_actor = [confusion_matrix(*pair, classes).tolist() for pair in pairs]
        matrix = confusion_matrix(true, predicted, classes).tolist()
        method, features = METHODS[name], {"audio": "mfcc", "vision": "landmarks"}
        yield RunRecord(
            spec=RunSpec(
                "ravdess", "eight", "folds6", fold, features, dict.fromkeys(features, "0" * 64), name, method.version,
                {}, Training(epochs), seed,
            ),
            classes=tuple(f"emotion_{k}" for k in range(classes)),
            context=method.context,
            provenance=method.provenance,
            simulated=False,
            features={m: FeatureFacts(f, f, "", "", 40, 0) for m, f in features.items()},
            rows={"train": 960, "validation": 240, "test": rows},
            validation_confusion=matrix,
            test_confusion=matrix,
            test_by_cluster=by_actor,
            test_index=list(range((fold - 1) * rows, fold * rows)),
            test_predictions=predicted.tolist(),
            curve=[{"train/loss": 1.0, "val/loss": 1.0, "val/weighted_f1": 0.5} for _ in range(epochs)],
            best_epoch=0,
            parameters=100_000,
            encoder_parameters=50_000,
            flops_per_utterance=1_000_000,
            seconds=60.0,
            peak_memory_mib=500.0,
            device="cpu",
            versions={"torch": torch.__version__},
        )  # fmt: skip


def caption(part: str, arguments: argparse.Namespace) -> str:
    """Return the line above a table: on which machine and at which size it was measured."""
    gpu = torch.cuda.is_available()
    name = device_name(torch.device("cuda" if gpu else "cpu"))
    device = name if gpu else f"{os.cpu_count()} x {name}, one thread"
    sizes = f", {arguments.scale:g} of the utterances" if part in SCALED and arguments.scale < 1 else ""
    what = "Measured" if part != "cost" else "Seconds" if gpu else "CPU-seconds"
    return f"{what} on {device}; torch {torch.__version__}{sizes}."


def write_rows(part: str, rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    """Write ``rows`` (the first is the head) into a table of the page; other rows of the same machine and size stay."""
    text = arguments.output.read_text(encoding="utf-8")
    block = re.compile(rf"(<!-- {part} -->\n)(.*?)(<!-- end -->)", re.DOTALL)
    found = block.search(text)
    assert found, f"{arguments.output} has no table <!-- {part} -->"
    head, *new = rows
    line = caption(part, arguments)
    lines = [line for line in found[2].splitlines() if line.startswith("|")][2:] if line in found[2] else []
    old = (tuple(cell.strip() for cell in line.strip("| ").split(" | ")) for line in lines)
    by_name = {row[0]: row for row in (*old, *new)}
    order = {case.method: number for number, case in enumerate(CASES)}
    ordered = sorted(by_name.values(), key=lambda row: order.get(row[0].split(" (")[0], 0))
    table = markdown([head, *ordered], "<" + ">" * (len(head) - 1))
    write_atomic(arguments.output, block.sub(lambda found: f"{found[1]}\n{line}\n\n{table}\n{found[3]}", text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; default: all")
    parser.add_argument(
        "--full", dest="scale", action="store_const", const=1.0, default=0.1, help="all utterances instead of a tenth"
    )
    parser.add_argument("--methods", nargs="*", choices=[case.method for case in CASES])
    parser.add_argument("--output", type=Path, default=README)
    arguments = parser.parse_args()
    for part in arguments.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}; the parts are {', '.join(PARTS)}")
    if not arguments.output.exists():
        shutil.copy(README, arguments.output)
    for part in arguments.parts or PARTS:
        measuring = PARTS[part](arguments)
        rows = [next(measuring)]
        for row in measuring:  # written one by one, because the next may take minutes
            print("  ".join(row), flush=True)
            rows.append(row)
            write_rows(part, rows, arguments)


if __name__ == "__main__":
    main()
