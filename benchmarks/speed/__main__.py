"""Measures the project's speed and writes benchmarks/speed/README.md: ``python -m benchmarks.speed [PART ...]``."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import re
import resource
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
from mer_bench.records import RunRecord, RunSpec, Training, write_record
from mer_bench.typography import markdown

README = Path(__file__).with_name("README.md")
RECORDS = 1000
Rows = list[tuple[str, ...]]


def cost(arguments: argparse.Namespace) -> str:
    """An epoch through the suite beside a bare loop, the public code and the target."""
    head = ("Method", "Parameters", "Steps", "Public code", "Target", "Suite", "Bare loop", "Suite / bare")
    rows: Rows = [head]
    for case in chosen(arguments):
        found = child(case, "cost", arguments)
        full = arguments.scale == 1
        rows.append((
            case.method + (f" ({case.note})" if case.note else ""),
            f"{found['parameters']:,}",
            str(found["steps"]),
            f"{case.public:.1f}" if full else "–",
            f"{case.target:.1f}" if full else "–",
            f"{found['suite']:.2f}",
            f"{found['bare']:.2f}",
            f"{found['suite'] / found['bare']:.2f}",
        ))  # fmt: skip
    return caption(arguments) + markdown(rows, "<>>>>>>>")


def memory(arguments: argparse.Namespace) -> str:
    """Peak memory of a run in a fresh process."""
    rows: Rows = [("Method", "Peak, MiB", "of which before the run")]
    for case in chosen(arguments):
        found = child(case, "memory", arguments)
        rows.append((case.method, f"{found['peak']:,.0f}", f"{found['before']:,.0f}"))
    return caption(arguments) + markdown(rows, "<>>")


def growth(arguments: argparse.Namespace) -> str:
    """The exponents with which cost grows."""
    axes = ("dialogues", "utterances", "length", "width", "modalities")
    rows: Rows = [("Method", *(axis.capitalize() for axis in axes))]
    for case in chosen(arguments):
        found = child(case, "growth", arguments)
        rows.append((case.method, *(f"{found[axis]:.2f}" if axis in found else "–" for axis in axes)))
    return caption(replace_scale(arguments)) + markdown(rows, "<>>>>>")


def start(arguments: argparse.Namespace) -> str:
    """The command line's answers, and a leaderboard of a thousand records."""
    with tempfile.TemporaryDirectory(prefix="mer-bench-speed-") as folder:
        for record in records(RECORDS):
            write_record(record, Path(folder))
        lines = (
            ("`mer-bench --help`", ["--help"], 0.5),
            ("a typo: `mer-bench bnech`", ["bnech"], 0.5),
            (f"`mer-bench leaderboard`, {RECORDS:,} records", ["leaderboard", "--results", folder], 2.0),
        )
        rows: Rows = [("Command", "Target, s", "Seconds", "CPU-seconds")]
        for name, line, target in lines:
            taken = [command(line) for _ in range(arguments.epochs + 1)]
            rows.append((name, f"{target}", *(f"{min(column):.2f}" for column in zip(*taken, strict=True))))
    return caption(replace_scale(arguments)) + markdown(rows, "<>>>")


def scale(arguments: argparse.Namespace) -> str:
    """Forty runs over workers."""
    rows: Rows = [("40 runs", "Seconds")]
    rows += [(name, f"{seconds:.0f}") for name, seconds in scaling.measure(arguments.epochs)]
    return caption(replace_scale(arguments)) + markdown(rows, "<>")


PARTS: dict[str, Callable[[argparse.Namespace], str]] = {
    "cost": cost, "memory": memory, "growth": growth, "start": start, "scaling": scale
}  # fmt: skip


def chosen(arguments: argparse.Namespace) -> list[Case]:
    return [case for case in CASES if not arguments.methods or case.method in arguments.methods]


def child(case: Case, part: str, arguments: argparse.Namespace) -> dict[str, Any]:
    line = [sys.executable, "-m", "benchmarks.speed.epoch", case.method, "--part", part]
    line += ["--scale", str(arguments.scale), "--epochs", str(arguments.epochs)]
    print(f"{part} {case.method}", file=sys.stderr, flush=True)
    done = subprocess.run(line, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def command(line: Sequence[str]) -> tuple[float, float]:
    """Seconds and CPU-seconds of a command."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "mer_bench", *line], capture_output=True, check=False)
    taken, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def records(count: int) -> Iterator[RunRecord]:
    """Invented records in the shape of a RAVDESS study: six folds, five seeds, all methods."""
    rng = np.random.default_rng(0)
    classes, actors, rows, epochs = 8, 4, 240, 30
    names = [name for name, method in METHODS.items() if method.most > 1]
    for name, fold, seed in itertools.islice(itertools.product(names, range(1, 7), range(6)), count):
        true = rng.integers(classes, size=rows)
        predicted = np.where(rng.random(rows) < 0.5, true, rng.integers(classes, size=rows))
        parts = [slice(k * rows // actors, (k + 1) * rows // actors) for k in range(actors)]
        by_actor = [confusion_matrix(true[part], predicted[part], classes).tolist() for part in parts]
        matrix = confusion_matrix(true, predicted, classes).tolist()
        method, features = METHODS[name], {"audio": "mfcc", "vision": "landmarks"}
        yield RunRecord(
            spec=RunSpec(
                "ravdess", "eight", "folds6", fold, features, dict.fromkeys(features, "0" * 64), name, method.version,
                {}, Training(epochs), seed,
            ),
            classes=tuple(f"emotion {k}" for k in range(classes)),
            context=method.context,
            provenance=method.provenance,
            simulated=False,
            features={m: {"name": f, "extractor": f, "dim": 40, "parameters": 0} for m, f in features.items()},
            rows={"train": 960, "validation": 240, "test": rows},
            validation_confusion=matrix,
            test_confusion=matrix,
            test_by_cluster=by_actor,
            test_index=list(range((fold - 1) * rows, fold * rows)),
            test_predictions=predicted.tolist(),
            curve=[{"train/loss": 1.0, "val/loss": 1.0, "val/weighted_f1": 0.5} for _ in range(epochs)],
            best_epoch=epochs - 1,
            parameters=100_000,
            encoder_parameters=50_000,
            flops_per_utterance=1_000_000,
            seconds=60.0,
            peak_memory_mib=500.0,
            device="cpu",
            versions={"torch": torch.__version__},
        )  # fmt: skip


def caption(arguments: argparse.Namespace) -> str:
    """Where and at what size."""
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else f"{os.cpu_count()} x {processor()}, one thread"
    sizes = "" if arguments.scale == 1 else f", {arguments.scale:g} of the utterances"
    return f"{'Seconds' if gpu else 'CPU-seconds'} on {device}; torch {torch.__version__}{sizes}.\n\n"


def replace_scale(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments of a part that has sizes of its own."""
    return argparse.Namespace(**{**vars(arguments), "scale": 1})


def processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--full", dest="scale", action="store_const", const=1.0, default=0.1, help="the whole shapes")
    parser.add_argument("--methods", nargs="*", choices=[case.method for case in CASES])
    parser.add_argument("--epochs", type=int, default=2, help="measured; the best counts")
    parser.add_argument("--output", type=Path, default=README)
    arguments = parser.parse_args()
    for part in arguments.parts:
        if part not in PARTS:
            parser.error(f"no part {part!r}: {', '.join(PARTS)}")
    text = README.read_text(encoding="utf-8")
    for part in arguments.parts or PARTS:
        table = PARTS[part](arguments)
        block = re.compile(rf"(<!-- {part} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = block.sub(lambda found, table=table: f"{found[1]}\n{table}\n{found[2]}", text)
        print(table, flush=True)
    write_atomic(arguments.output, text)


if __name__ == "__main__":
    main()
