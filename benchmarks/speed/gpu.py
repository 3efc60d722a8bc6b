"""Checks and times a GPU in at most eight minutes and writes a page of it: ``python -m benchmarks.speed.gpu``.

It installs nothing and needs no corpus. Without a GPU it measures the CPU. Every measurement has processes of its own,
so that a device that fails in one of them is as new in the next; the page is written after each of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from benchmarks.speed import shapes, turns
from benchmarks.speed.epoch import DEVICE, seconds
from benchmarks.speed.shapes import Case, spec, write_corpus
from data_prep.corpora.ravdess import EMOTIONS, STATEMENTS, all_takes
from mer_bench.batch import Batch
from mer_bench.datasets.base import READS
from mer_bench.datasets.ravdess import RAVDESS
from mer_bench.errors import FailedRun, Misuse, printable
from mer_bench.features import write_features
from mer_bench.files import write_atomic
from mer_bench.probabilities import read_probabilities
from mer_bench.report.formatting import escape, markdown
from mer_bench.training.bench import begin_workers
from mer_bench.training.build import TF32, build_datamodule
from mer_bench.training.measures import device_name
from mer_bench.training.run import run
from mer_bench.training.suite import read_suite
from mer_bench.utterances import COLUMNS, write_table

MER_BENCH = (sys.executable, "-m", "mer_bench")
PAGE = Path(__file__).with_name("GPU.md")
SUITE = Path(__file__).parents[1] / "ravdess.toml"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MARGIN = 30.0  #: seconds of the time limit for imports before the first measurement and for the end of the last one

#: of each kind one: vectors of utterances, attention over frames, a large one, dialogues as sequences and as graphs
CASES: tuple[Case, ...] = (
    turns.CASES["early_concat-ravdess"],
    turns.CASES["cfn_sr-ravdess"],
    next(case for case in shapes.CASES if case.method == "tensor_fusion"),
    turns.CASES["bc_lstm-iemocap"],
    turns.CASES["mmgcn-iemocap"],
)
HELD = (CASES[1], CASES[4])  #: the same data for every method: utterances with frames, and dialogues
PRECISIONS = {"float32": "32-true", "tf32": TF32, "bf16-mixed": "bf16-mixed"}  #: name on the page -> in a spec
SIGNAL = 0.3  #: of the features from which they learn, so that a loss that does not fall means a fault
EPOCHS = 6  #: of a run that is checked; the fastest but the first is the time of an epoch
JOBS = (1, 2, 4, 8, 16)
SHARED = ("early_concat", "cfn_sr", "tensor_fusion", "bc_lstm")  #: methods that share the device
SEEDS = 4  #: runs of each of them
RAVDESS_EPOCHS = (1, 4)  #: of the two benches from which the time of the table is estimated

OK = "ok"
FAILED = "failed: "
LEFT_OUT = "left out: "
Row = tuple[str, ...]  #: the last cell is OK, or begins with FAILED or LEFT_OUT


class OutOfTime(Exception):
    """The time limit has ended the measurement that the message names, or leaves no time for it."""


@dataclass(frozen=True)
class Setting:
    """What all measurements share."""

    root: Path  #: folder of the random corpora
    scale: float  #: share of the utterances, of the runs that share the device, and of the methods on RAVDESS
    deadline: float  #: by ``time.monotonic``
    shared: dict[int, float] = field(default_factory=dict)  #: number of jobs -> seconds of the runs that share

    def check_time(self, what: str) -> None:
        """Raise OutOfTime if no time is left for ``what``."""
        if time.monotonic() >= self.deadline:
            raise OutOfTime(what)


# --- processes --------------------------------------------------------------------------------------------------------


def reason(error: Exception) -> str:
    """What an exception says, in one line."""
    kind = "" if isinstance(error, Misuse | FailedRun) else f"{type(error).__name__}: "
    return printable(kind + " ".join(str(error).split()))[:300]


def result(problem: str) -> str:
    """The last cell of a row."""
    return FAILED + problem if problem else OK


def attempt(job: Callable[[], Any]) -> tuple[Any, str]:
    """What a job returns, or None with the reason why it failed."""
    try:
        return job(), ""
    except Exception as error:  # a device may fail in any way
        return None, reason(error)


def apart(setting: Setting, what: str, function: Callable[..., Any], *given: Any) -> tuple[Any, str]:
    """Attempt a call in a process of its own, which ends when the time is over."""
    setting.check_time(what)
    with begin_workers(1) as workers:
        running = workers.run(
            attempt,
            [partial(function, *given)],
            crashed=lambda job: (None, "the process died twice"),
            started=lambda job: None,
            waiting=lambda: setting.check_time(what),
        )
        return next(running)[1]


def command(setting: Setting, what: str, line: Sequence[str]) -> tuple[float, float, str]:
    """Seconds of a ``mer-bench`` command, MiB in use on the device at its peak, and why it failed, if it did."""
    setting.check_time(what)
    began, peak = time.monotonic(), 0.0
    with tempfile.TemporaryFile() as errors:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([*MER_BENCH, *line], env=environment, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while process.returncode is None:
                setting.check_time(what)
                peak = max(peak, memory_in_use())
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
            taken = time.monotonic() - began
        finally:
            process.kill()  # its workers end with it
            process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace").split("\n")
    last = next((text.strip() for text in reversed(said) if text.strip()), "")
    return taken, peak, printable(f"exit code {process.returncode}: {last}")[:300] if process.returncode else ""


def memory_in_use() -> float:
    """MiB in use on the GPU by all processes, this one included; 0 without a GPU."""
    if DEVICE == "cpu":
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**20


# --- checks -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checked:
    """What came of a run."""

    epoch: float  #: seconds
    losses: list[float]  #: of training, by epoch
    expected: list[int]  #: table rows of the test utterances
    predicted: list[int]  #: those that were predicted; a row that is predicted twice is an error of the run
    probabilities: npt.NDArray[np.floating[Any]]  #: [test utterance, class]

    @property
    def checks(self) -> Mapping[str, bool]:
        """What may be wrong with it -> whether it is right."""
        missing = len(set(self.expected) - set(self.predicted))
        return {
            "the training loss does not fall": self.losses[-1] < self.losses[0],
            "a prediction is not finite": bool(np.isfinite(self.probabilities).all()),
            f"{missing} of {len(self.expected)} test utterances were not predicted": self.predicted == self.expected,
        }


def train(case: Case, root: Path, precision: str) -> Checked:
    """Train and test a method on the corpus in ``root``.

    Raises:
        FailedRun: a loss or a prediction is not finite.
        RuntimeError: a test utterance was predicted more than once.
    """
    wanted = spec(case, root, epochs=EPOCHS)
    wanted = replace(wanted, training=replace(wanted.training, precision=precision))
    ends: list[float] = []
    with tempfile.TemporaryDirectory(prefix="mer-bench-speed-") as folder:
        record = run(wanted, root, logger="none", notify=lambda *_: ends.append(seconds()), keep=Path(folder))
        assert record, "one process trains"
        probabilities = read_probabilities(record, Path(folder))
    assert probabilities is not None, "they were kept"
    return Checked(
        min(np.diff(ends)[1:].tolist()),
        [entry["train/loss"] for entry in record.curve],
        build_datamodule(wanted, root).rows["test"].tolist(),
        record.test_index,
        probabilities.astype(np.float32),
    )


def corpus(setting: Setting, case: Case) -> Path:
    """The folder of a random corpus of a case's shape, which is written at the first call."""
    sizes = (f"{name}{frames}x{width}" for name, (frames, width) in case.shape.sizes.items())
    root = setting.root / "-".join((f"{case.shape.dialogues}", *sizes))
    if not root.exists():
        write_corpus(root, case.shape.scaled(setting.scale), signal=SIGNAL)
    return root


def precision(setting: Setting) -> Iterator[Row]:
    """Train each of the methods in each precision."""
    for case in CASES:
        exact = None  #: probabilities in float32
        for name, wanted in PRECISIONS.items():
            what = f"{case.method} in {name}"
            setting.check_time(what)
            found, problem = apart(setting, what, train, case, corpus(setting, case), wanted)
            if problem:
                yield case.method, name, *["–"] * 7, result(problem)
                continue
            exact = found.probabilities if name == "float32" else exact
            alike = exact is not None and exact.shape == found.probabilities.shape
            difference = f"{np.abs(found.probabilities - exact).max():.4f}" if alike else "–"
            yield (
                case.method,
                name,
                f"{found.epoch:.3f}",
                *(f"{loss:.3f}" for loss in (found.losses[0], found.losses[-1])),
                *("yes" if right else "no" for right in found.checks.values()),
                difference,
                result(" and ".join(problem for problem, right in found.checks.items() if not right)),
            )


def tensors(batch: Batch) -> list[Tensor]:
    """All tensors of a batch, in a fixed order."""
    frames = (tensor for sequence in batch.frames.values() for tensor in (sequence.values, sequence.mask))
    rest = (batch.label, batch.speaker, batch.dialogue, batch.turn, batch.index, batch.grid)
    return [*batch.present.values(), *batch.functionals.values(), *frames, *rest]


def compare(case: Case, root: Path) -> list[tuple[str, int, int]]:
    """For each split its name, the number of its batches, and how many differ if the device holds the features."""
    mapped, held = (build_datamodule(spec(case, root, epochs=1), root) for _ in range(2))
    for each in (mapped, held):
        each.reads = READS
        each.setup("fit")
    held.cache_on_device(torch.device(DEVICE), 1 << 40)
    found = []
    for split in ("train", "val", "test"):
        pairs = list(zip(*(getattr(each, f"{split}_dataloader")() for each in (mapped, held)), strict=True))
        equal = [
            all(torch.equal(one, two.cpu()) for one, two in zip(tensors(gathered), tensors(kept), strict=True))
            for gathered, kept in pairs
        ]
        found.append((split, len(pairs), equal.count(False)))
    return found


def held_features(setting: Setting) -> Iterator[Row]:
    """Compare batches of features that the device holds with those gathered from the files."""
    for case, unit in zip(HELD, ("utterances", "dialogues"), strict=True):
        setting.check_time(unit)
        found, problem = apart(setting, unit, compare, case, corpus(setting, case))
        if problem:
            yield unit, "–", "–", "–", result(problem)
        for split, batches, different in found or ():
            yield unit, split, f"{batches}", f"{different}", result("batches differ" if different else "")


# --- times ------------------------------------------------------------------------------------------------------------


def write_ravdess(root: Path, scale: float) -> None:
    """Write random features in the form and the size of RAVDESS's, of ``scale`` times as many takes of each actor."""
    rng = np.random.default_rng(0)
    takes = np.array(sorted(all_takes(), key=lambda take: (take[-2:], take))).reshape(24, 60)
    count = max(1, round(60 * scale))
    chosen = [take for row in takes for take in sorted(rng.choice(row, count, replace=False))]
    rows = []
    for take in chosen:
        _, emotion, _, statement, _, actor = take.split("-")
        cell: dict[str, Any] = dict.fromkeys(COLUMNS, "")
        cell |= {"id": take, "dialogue": take, "turn": 0, "speaker": actor, "session": actor, "start": 0.0}
        rows.append(cell | {"end": 4.0, "text": STATEMENTS[int(statement) - 1], "emotion": EMOTIONS[int(emotion) - 1]})
    folder = root / RAVDESS.corpus
    folder.mkdir(parents=True)
    write_table(folder, pd.DataFrame(rows))
    for modality, (frames, width) in turns.RAVDESS.sizes.items():
        lengths = rng.integers(frames - 25, frames + 26, len(chosen))
        noise = (rng.standard_normal((length, width), np.float32) for length in lengths)
        name = RAVDESS.default_features[modality]
        write_features(folder / name, noise, ids=chosen, modality=modality, extractor="noise")


def bench(setting: Setting, what: str, suite: Path, jobs: int, *more: str) -> tuple[float, float, int, str]:
    """Seconds, peak of the device's memory in MiB, number of runs and problem of a bench of fold 1 of a suite."""
    setting.check_time(what)
    root = setting.root / "ravdess"
    if not root.exists():
        write_ravdess(root, setting.scale)
    with tempfile.TemporaryDirectory(dir=setting.root, ignore_cleanup_errors=True) as folder:
        line = ["bench", str(suite), "--data", str(root), "--results", folder, "--leaderboard", f"{folder}/page.md"]
        folds = RAVDESS.protocols["folds6"].folds
        line += ["--corpus", "real", "--logger", "none", "--jobs", f"{jobs}", "--shard", f"1/{folds}", *more]
        taken, peak, problem = command(setting, what, line)
        runs = len([path for path in Path(folder).glob("*/*/*.json") if "failed" not in path.name])
    return taken, peak, runs, problem


def sharing(setting: Setting) -> Iterator[Row]:
    """Time the same runs with several numbers of jobs."""
    suite = setting.root / "sharing.toml"
    seeds = list(range(max(1, round(SEEDS * setting.scale))))
    features = ", ".join(f'{modality} = "{name}"' for modality, name in RAVDESS.default_features.items())
    suite.write_text(
        f'dataset = "ravdess"\nlabel_set = "eight"\nprotocol = "folds6"\nseeds = {seeds}\n[training]\nepochs = 2\n'
        f"[[table]]\nfeatures = {{ {features} }}\nmethods = {list(SHARED)}\n",
        encoding="utf-8",
    )
    expected = len(seeds) * len(SHARED)
    for jobs in JOBS:
        if jobs > CORES:
            yield f"{jobs}", *["–"] * 5, f"{LEFT_OUT}the machine has {CORES} cores"
            continue
        taken, peak, runs, problem = bench(setting, f"{jobs}", suite, jobs)
        if problem or runs != expected:
            yield f"{jobs}", f"{runs}", *["–"] * 4, result(problem or f"{expected} runs were expected")
            continue
        setting.shared[jobs] = taken
        relative = f"{setting.shared[1] / taken:.2f}" if 1 in setting.shared else "–"
        memory = f"{peak:,.0f}" if peak else "–"
        yield f"{jobs}", f"{runs}", f"{taken:.1f}", f"{60 * runs / taken:.1f}", relative, memory, OK


def ravdess(setting: Setting) -> Iterator[Row]:
    """Time the suite of RAVDESS on one fold with few epochs, and estimate the whole table from it."""
    suite = read_suite(SUITE)
    names = list(dict.fromkeys(row.method for row in suite.rows))
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, max(3, round(len(names) * setting.scale))).astype(int)]
    expected = sum(row.method in chosen for row in suite.rows)
    jobs = min(setting.shared, key=lambda number: setting.shared[number], default=1)
    taken = []
    for epochs in RAVDESS_EPOCHS:
        what = f"{expected} rows of the table, fold 1, epochs {epochs}, JOBS={jobs}"
        options = ("--epochs", f"{epochs}", "--methods", " ".join(chosen))
        time_taken, _, runs, problem = bench(setting, what, SUITE, jobs, *options)
        if problem or runs != expected:
            yield what, "–", result(problem or f"{runs} of {expected} runs are recorded")
            return
        yield what, f"{time_taken:,.1f}", OK
        taken.append(time_taken)
    (few, many), (first, second) = RAVDESS_EPOCHS, taken
    epoch = max(second - first, 0) / (many - few)
    folds, epochs = RAVDESS.protocols["folds6"].folds, max(row.training.epochs for row in suite.rows)
    yield f"an epoch more of all of them: ({second:,.1f} - {first:,.1f}) / {many - few}", f"{epoch:,.1f}", OK
    whole = folds * (first + (epochs - few) * epoch)
    sum_of = f"{folds} folds x ({first:,.1f} + {epochs - few} epochs x {epoch:,.1f})"
    yield f"estimate of {expected} rows, {folds} folds, {epochs} epochs: {sum_of}", f"{whole:,.0f}", OK


# --- the page ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A table of the page."""

    title: str
    head: Row
    measure: Callable[[Setting], Iterator[Row]]

    def unmeasured(self, what: str, result: str) -> Row:
        """A row that says why nothing was measured."""
        return what, *["–"] * (len(self.head) - 2), result


PARTS = (
    Part(
        "Precision",
        (
            "Method",
            "Precision",
            "Seconds of an epoch",
            "First loss",
            "Last loss",
            "Loss falls",
            "Finite",
            "Each once",
            "Difference to float32",
            "Result",
        ),
        precision,
    ),
    Part("Held features", ("Batches of", "Split", "Batches", "Different", "Result"), held_features),
    Part("Sharing", ("JOBS", "Runs", "Seconds", "Runs per minute", "Speed", "Memory in use, MiB", "Result"), sharing),
    Part("RAVDESS", ("What", "Seconds", "Result"), ravdess),
)
METHOD = """\
Measured by `python -m benchmarks.speed.gpu --scale {scale:g} --limit {limit:g}` on {device}, {cores} CPU cores, torch
{torch}, with random features. Precision: {epochs} epochs through the suite, on features that tell the classes apart;
{unit} of the fastest epoch but the first; the largest difference of a test probability (in half precision) to that
after training in float32{tf32}. Held features: batches gathered on the device, compared bit by bit with those gathered
from files. Sharing: the whole command `mer-bench bench` on one fold of data in RAVDESS's shape, two epochs; the memory
is that of the whole device. RAVDESS: `benchmarks/ravdess.toml` on the same data with the fastest JOBS."""


def write_page(arguments: argparse.Namespace, device: str, tables: Mapping[Part, Sequence[Row]]) -> None:
    """Write what was measured."""
    gpu = DEVICE != "cpu"
    text = METHOD.format(
        scale=arguments.scale,
        limit=arguments.limit,
        device=escape(device),
        cores=CORES,
        torch=torch.__version__,
        epochs=EPOCHS,
        unit="seconds" if gpu else "CPU-seconds",
        tf32="" if gpu else "; without a GPU tf32 is the same as float32",
    )
    blocks = [f"# Speed on {escape(device)}" + ("" if gpu else ", a CPU: there is no GPU"), textwrap.fill(text, 120)]
    for part, rows in tables.items():
        cells = [tuple(map(escape, row)) for row in (part.head, *rows)]
        blocks += [f"## {part.title}", markdown(cells, "<" + ">" * (len(part.head) - 2) + "<").rstrip()]
    write_atomic(arguments.output, "\n\n".join(blocks) + "\n")


def measure(part: Part, setting: Setting, limit: float) -> Iterator[Row]:
    """The rows of a part; the last one says why there are no more, if the time is over or the part fails."""
    try:
        yield from part.measure(setting)
    except OutOfTime as what:
        yield part.unmeasured(f"{what} and what follows", f"{LEFT_OUT}the time limit of {limit:g} seconds")
    except Exception as error:  # the other parts can still be measured
        yield part.unmeasured("the rest", FAILED + reason(error))


def main(given: Sequence[str] | None = None) -> int:
    """Measure all parts; returns 1 if something failed, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the size, above 0 and up to 1; default: 1")
    parser.add_argument("--output", type=Path, default=PAGE, help=f"the page; default: {PAGE.name} beside this file")
    parser.add_argument("--limit", type=float, default=480.0, help="seconds that the command may take; default: 480")
    arguments = parser.parse_args(given)
    if not (0 < arguments.scale <= 1 and arguments.limit > 0):
        parser.error("--scale is above 0 and up to 1, and --limit above 0")
    deadline = time.monotonic() + arguments.limit - MARGIN
    device = device_name(torch.device(DEVICE))
    ended = f"{LEFT_OUT}the command ended before"
    done: dict[Part, list[Row]] = {}

    def write() -> None:
        ahead = {part: [part.unmeasured("everything", ended)] for part in PARTS if part not in done}
        write_page(arguments, device, {**done, **ahead})

    try:
        write()  # before anything is measured
    except Misuse as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory(prefix="mer-bench-speed-", ignore_cleanup_errors=True) as folder:
        setting = Setting(Path(folder), arguments.scale, deadline)
        for part in PARTS:
            rest, rows = part.unmeasured("the rest", ended), list[Row]()
            for row in measure(part, setting, arguments.limit):
                print(f"{part.title}:", "  ".join(row), flush=True)
                rows.append(row)
                done[part] = [*rows, rest]
                write()
            done[part] = rows
            write()
    return int(any(row[-1].startswith(FAILED) for rows in done.values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
