"""Measures the project's speed and writes benchmarks/speed/README.md: ``python -m benchmarks.speed [PART ...]``."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import scaling
from benchmarks.speed.large import KINDS
from benchmarks.speed.shapes import CASES, Case
from mer_bench.files import write_atomic
from mer_bench.records import CHECKSUM, RunSpec, read_record, write_record
from mer_bench.report.cache import FOLDER
from mer_bench.report.formatting import markdown
from mer_bench.schema import canonical_json, decode
from mer_bench.training.measures import device_name

README = Path(__file__).with_name("README.md")
Row = tuple[str, ...]


def cost(arguments: argparse.Namespace) -> Iterator[Row]:
    """An epoch through the suite, compared with a bare loop."""
    yield "Method", "Parameters", "Steps", "Suite", "Bare loop", "Suite / bare"
    for case, found in measured("cost", arguments):
        yield (
            case.method,
            f"{found['parameters']:,}",
            str(found["steps"]),
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


def large(arguments: argparse.Namespace) -> Iterator[Row]:
    """What an utterance costs in corpora of a thousand utterances to a hundred thousand."""
    yield "Features, and utterances", "Files, MiB", "First opening, s", "An epoch, ms per utterance", "Memory, MiB"
    counts = (1_000, 10_000, 100_000) if arguments.scale == 1 else (1_000, 10_000)
    for kind in KINDS:
        for count in counts:
            found = apart("benchmarks.speed.large", kind, str(count))
            memory = "–" if found["memory"] is None else f"{found['memory']:,.0f}"
            sizes = (f"{found['megabytes']:,.0f}", f"{found['opened']:.1f}", f"{found['milliseconds']:.2f}", memory)
            yield f"{kind}, {count:,}", *sizes


def start(arguments: argparse.Namespace) -> Iterator[Row]:
    """The time of short commands and of a bench with nothing to do."""
    yield "Command", "Target, s", "Seconds", "CPU-seconds"
    with tempfile.TemporaryDirectory(prefix="mer-bench-speed-") as folder:
        done = ["bench", "simulated", "--methods", "majority", "--logger", "none"]
        done += ["--data", f"{folder}/data", "--results", f"{folder}/done", "--leaderboard", f"{folder}/page.md"]
        command(done)  # what it has to do is done now
        lines = (
            ("`mer-bench --help`", ["--help"], 0.5),
            ("a typo: `mer-bench bnech`", ["bnech"], 0.5),
            ("`mer-bench bench`, nothing to do", done, 1.0),
        )
        for name, line, target in lines:
            taken = [command(line) for _ in range(3)]
            yield name, f"{target}", *(f"{min(column):.2f}" for column in list(zip(*taken, strict=True))[:2])


def leaderboard(arguments: argparse.Namespace) -> Iterator[Row]:
    """The leaderboard of the committed records and of copies of them, without its cache and with it."""
    yield (
        "Records",
        "CPU-seconds, first call",
        "second call",
        "one record changed",
        "Peak MiB, first call",
        "second call",
    )
    published = Path("benchmarks/results")
    committed = len([*published.glob("*/*/*.json")])
    counts = sorted({committed, 10_000, 100_000} if arguments.scale == 1 else {committed})
    with tempfile.TemporaryDirectory(prefix="mer-bench-speed-") as folder:
        results = Path(folder) / "results"
        line = ["leaderboard", "--results", str(results)]
        made, copies = 0, copied(published, results)
        for count in counts:
            last = [path for path, _ in zip(copies, range(count - made), strict=False)][-1]
            made = count
            shutil.rmtree(results / FOLDER, ignore_errors=True)
            first, second = command(line), command(line)
            record = read_record(last)
            write_record(replace(record, seconds=record.seconds + 1), results)
            changed = command(line)
            seconds = (f"{taken[1]:.2f}" for taken in (first, second, changed))
            yield f"{count:,}", *seconds, f"{first[2]:,.0f}", f"{second[2]:,.0f}"


def copied(source: Path, target: Path) -> Iterator[Path]:
    """Write the records of a folder into another one, again and again under other seeds."""
    contents = [json.loads(path.read_bytes()) for path in sorted(source.glob("*/*/*.json"))]
    for number in itertools.count():
        for content in contents:
            spec = decode({**content["spec"], "seed": content["spec"]["seed"] + 1000 * number}, RunSpec, "a spec")
            copy = {**content, "spec": asdict(spec)}
            copy.pop(CHECKSUM, None)
            path = spec.path(target)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                canonical_json({**copy, CHECKSUM: sha256(canonical_json(copy).encode()).hexdigest()}) + "\n"
            )
            yield path


def scale(arguments: argparse.Namespace) -> Iterator[Row]:
    """Forty runs with several workers."""
    yield "40 runs", "Seconds"
    for name, seconds in scaling.measure():
        yield name, f"{seconds:.0f}"


Part = Callable[[argparse.Namespace], Iterator[Row]]  #: yields the head of a table, then its rows
PARTS: dict[str, Part] = {
    "cost": cost,
    "memory": memory,
    "growth": growth,
    "large": large,
    "start": start,
    "leaderboard": leaderboard,
    "scaling": scale,
}
SCALED = ("cost", "memory")  #: the parts whose sizes --full sets; the sizes of the others are fixed


def measured(part: str, arguments: argparse.Namespace) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Measure each of the methods asked for in its own process."""
    for case in CASES:
        if not arguments.methods or case.method in arguments.methods:
            options = ("--part", part, "--scale", str(arguments.scale))
            yield case, apart("benchmarks.speed.epoch", case.method, *options)


def apart(*line: str) -> dict[str, Any]:
    """What a module prints in a process of its own with one thread."""
    print(*line, file=sys.stderr, flush=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", *line], env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


#: Runs a command and prints what it used. A process of its own, since a child's peak counts that of who started it.
LAUNCHER = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
used = os.wait4(child.pid, 0)[2]
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
"""


def command(line: Sequence[str]) -> tuple[float, float, float]:
    """Return the seconds, the CPU-seconds and the peak memory in MiB of a command."""
    began = time.perf_counter()
    launched = [sys.executable, "-c", LAUNCHER, sys.executable, "-m", "mer_bench", *line]
    done = subprocess.run(launched, stdout=subprocess.PIPE, text=True, check=True)
    taken = time.perf_counter() - began
    cpu, peak = map(float, done.stdout.split())
    return taken, cpu, peak / 2**10


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
    lines = [each.strip("| ").split(" | ") for each in found[2].splitlines() if each.startswith("|")]
    old_head, _, *old = [tuple(cell.strip() for cell in cells) for cells in lines] or [(), ()]
    kept = old if old_head == head and line in found[2] else []
    by_name = {row[0]: row for row in (*kept, *new)}
    order = {case.method: number for number, case in enumerate(CASES)}
    ordered = sorted(by_name.values(), key=lambda row: order.get(row[0], 0))
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
