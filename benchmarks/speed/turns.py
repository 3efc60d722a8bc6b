"""Compares the epochs of two checkouts: ``python -m benchmarks.speed.turns OLD NEW [--epochs N] [--cases ...]``.

For each case one process per checkout trains by the suite; the processes take turns epoch by epoch on the same random
data, and the medians of their CPU-seconds are compared. Both read this file and shapes.py, so OLD needs neither. The
first epoch, which also opens the data, does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.speed.shapes import Case, Shape, spec, write_corpus

ROOT = Path(__file__).parents[2]
RAVDESS = Shape(960, 960, {"audio": (116, 40), "vision": (111, 140)})
IEMOCAP = Shape(120, 5810, {"text": (1, 384), "audio": (1, 47)})
MULT = {"kernel": 5, "stride": 4, "layers": 2, "attention_dropout": 0.0}
#: name -> case; options are those of the suites
CASES = {
    f"{case.method}-{'ravdess' if case.shape is RAVDESS else 'iemocap'}": case
    for case in (
        Case("early_concat", RAVDESS, 32),
        Case("cfn_sr", RAVDESS, 32),
        Case("tacfn", RAVDESS, 32, {"encoder": "convolution"}),
        Case("mult", RAVDESS, 32, MULT),
        Case("early_concat", IEMOCAP, 32, {"hidden": 128, "dropout": 0.5}),
        Case("bc_lstm", IEMOCAP, 8, {"dropout": 0.5, "layers": 1}),
        Case("mmgcn", IEMOCAP, 8, {"dropout": 0.5, "hidden": 100}),
        Case("m3net", IEMOCAP, 8, {"dropout": 0.5, "hidden": 128}),
        Case("sdt", IEMOCAP, 8, {"dropout": 0.5, "hidden": 128}),
        Case("sync_tva", IEMOCAP, 8, {"hidden": 64, "layers": 1, "dropout": 0.4, "head_dropout": 0.5}),
    )
}


def train(case: Case, epochs: int) -> None:
    """Train in this process; before each epoch wait for a line, after it print the CPU-seconds that it took."""
    from mer_bench.training.execute import prepare_process
    from mer_bench.training.run import run

    prepare_process()
    started = time.process_time()

    def turn(*_: object) -> None:
        nonlocal started
        print(f"epoch {time.process_time() - started}", flush=True)
        sys.stdin.readline()
        started = time.process_time()

    with tempfile.TemporaryDirectory(prefix="mer-bench-speed-") as folder:
        root = Path(folder)
        write_corpus(root, case.shape)
        sys.stdin.readline()
        run(spec(case, root, epochs=epochs), root, logger="none", notify=turn)


def compare(name: str, checkouts: list[Path], epochs: int, scale: float) -> list[float]:
    """Median CPU-seconds of an epoch of a case in each checkout."""
    line = [sys.executable, "-W", "ignore", "-m", "benchmarks.speed.turns", "--train", name]
    line += ["--epochs", str(epochs), "--scale", str(scale)]
    taken: list[list[float]] = [[] for _ in checkouts]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    line,
                    cwd=ROOT,
                    env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout / "src")},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for checkout in checkouts
        ]
        for _ in range(epochs):
            for checkout, process, seconds in zip(checkouts, processes, taken, strict=True):
                assert process.stdin, "stdin is a pipe"
                assert process.stdout, "stdout is a pipe"
                process.stdin.write("go\n")
                process.stdin.flush()
                reply = next((said for said in process.stdout if said.startswith("epoch ")), "")
                if not reply:
                    raise SystemExit(f"{name} failed in {checkout}; see the messages above")
                seconds.append(float(reply.split()[1]))
        for process in processes:
            process.communicate("go\n")
    return [statistics.median(seconds[1:]) for seconds in taken]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, metavar="CHECKOUT", help="two checkouts, old and new")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of each, 2 or more; default: 8")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the utterances; default: 1")
    parser.add_argument("--train", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        case = CASES[arguments.train]
        train(replace(case, shape=case.shape.scaled(arguments.scale)), arguments.epochs)
        return
    if len(arguments.checkouts) != 2 or arguments.epochs < 2:
        parser.error("name two checkouts, and at least two epochs")
    print("| Case | Old, CPU-seconds | New | Old / new |\n| --- | ---: | ---: | ---: |")
    for name in arguments.cases:
        checkouts = [checkout.resolve() for checkout in arguments.checkouts]
        old, new = compare(name, checkouts, arguments.epochs, arguments.scale)
        print(f"| {name} | {old:.3f} | {new:.3f} | {old / new:.2f} |", flush=True)


if __name__ == "__main__":
    main()
