"""benchmarks/speed/gpu.py on this machine's CPU at a hundredth of the size, and the faults that it has to report."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_runs
import pytest
import torch
from suites import exit_code, work_here
from torch import Tensor

from benchmarks.speed import gpu
from benchmarks.speed.gpu import Row, Setting
from benchmarks.speed.shapes import Case, RandomCorpus, Shape
from mer_bench.batch import Batch, Source
from mer_bench.datasets import DATASETS
from mer_bench.datasets.ravdess import EMOTIONS, RAVDESS
from mer_bench.fusion import METHODS
from mer_bench.fusion.linear import Linear
from mer_bench.training import bench as benches

del DATASETS[RandomCorpus.corpus]  # other tests go through all corpora
SMALL = Shape(30, 30, {"text": (3, 4), "audio": (3, 4)})


def tables(page: str) -> dict[str, list[Row]]:
    """Return the rows of each table of a page, without its head."""
    found = {}
    for block in page.split("\n## ")[1:]:
        title, *lines = block.splitlines()
        rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
        found[title] = [tuple(cell.strip() for cell in row) for row in rows[2:]]
    return found


def command_here(setting: Setting, what: str, line: list[str]) -> tuple[float, float, str]:
    """Execute a command of the command line in this process, which saves its imports."""
    began, code = time.monotonic(), exit_code(*line)
    return time.monotonic() - began, 0.0, f"exit code {code}" if code else ""


@pytest.fixture(scope="module", autouse=True)
def _random_corpus() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, RandomCorpus.corpus, RandomCorpus)
        yield


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path, 1.0, time.monotonic() + 3600)


@pytest.fixture
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    work_here(monkeypatch)
    monkeypatch.setattr(gpu, "command", command_here)


# --- a whole run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("gpu") / "page.md"
    with pytest.MonkeyPatch.context() as patch:
        work_here(patch)
        patch.setattr(gpu, "command", command_here)
        patch.setattr(gpu, "CORES", 2)
        assert gpu.main(["--scale", "0.01", "--limit", "3600", "--output", str(path)]) == 0
    return path.read_text(encoding="utf-8")


def test_the_first_line_names_the_device_and_the_paragraph_torch_and_cores(page: str) -> None:
    head, _, rest = page.partition("\n")
    if not torch.cuda.is_available():
        assert head.startswith("# Speed on ")
        assert head.endswith(", a CPU: there is no GPU")
        assert "without a GPU tf32 is the same as float32" in " ".join(rest.split())
    assert f"2 CPU cores, torch {torch.__version__}" in " ".join(rest.split())
    assert "left out: the command ended before" not in page


def test_five_methods_train_in_three_precisions(page: str) -> None:
    rows = tables(page)["Precision"]
    assert [row[:2] for row in rows] == [(case.method, name) for case in gpu.CASES for name in gpu.PRECISIONS]
    assert len(gpu.CASES) == 5
    for _, name, seconds, first, last, *checks, difference, result in rows:
        assert float(seconds) > 0
        assert float(first) > float(last)
        assert checks == ["yes"] * 3
        assert float(difference) <= (0.5 if name == "bf16-mixed" else 0.0)
        assert result == "ok"
    assert any(float(row[-2]) > 0 for row in rows)  # half precision computes something else


def test_held_features_give_the_same_batches(page: str) -> None:
    rows = tables(page)["Held features"]
    assert [row[:2] for row in rows] == [
        (unit, split) for unit in ("utterances", "dialogues") for split in ("train", "val", "test")
    ]
    assert all(int(row[2]) > 0 and row[3:] == ("0", "ok") for row in rows)


def test_more_jobs_than_cores_are_left_out(page: str) -> None:
    rows = tables(page)["Sharing"]
    assert [row[0] for row in rows] == ["1", "2", "4", "8", "16"]
    for _, runs, seconds, rate, *_, result in rows[:2]:
        assert runs == "4"
        assert float(rate) == pytest.approx(60 * 4 / float(seconds), rel=0.2)  # both are rounded
        assert result == "ok"
    assert rows[0][4] == "1.00"
    assert all(row[-1] == "left out: the machine has 2 cores" for row in rows[2:])


def test_the_time_of_the_ravdess_table_is_estimated_from_two_benches(page: str) -> None:
    rows = tables(page)["RAVDESS"]
    assert [row[-1] for row in rows] == ["ok"] * 4
    first, second, epoch, whole = (float(row[1].replace(",", "")) for row in rows)
    assert epoch == pytest.approx(max(second - first, 0) / 3, abs=0.1)
    assert whole == pytest.approx(6 * (first + 19 * epoch), abs=1 + 6 * 19 * 0.05)  # the epoch is rounded
    assert rows[-1][0].startswith("estimate of 3 rows, 6 folds, 20 epochs: 6 folds x (")


def test_random_takes_have_the_form_of_ravdess(tmp_path: Path) -> None:
    gpu.write_ravdess(tmp_path, 0.1)
    found = RAVDESS(tmp_path, RAVDESS.default_features, label_set="eight", protocol="folds6", fold=1)
    assert {split: len(rows) for split, rows in found.rows.items()} == {"train": 96, "validation": 24, "test": 24}
    assert {name: width.frames for name, width in found.dims.items()} == {"audio": 40, "vision": 140}
    assert set(found.table["emotion"]) == set(EMOTIONS)
    assert set(found.table["speaker"]) == {f"{actor:02}" for actor in range(1, 25)}


# --- what is wrong is reported ----------------------------------------------------------------------------------------


class Rising(Linear):
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        return {name: 0 * loss + self.current_epoch for name, loss in super().losses(batch).items()}


class NoNumber(Linear):
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.test_predictions is not None
        self.test_predictions.update(batch.index, self(batch) * torch.nan)


class Forgetful(Linear):
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        assert self.test_predictions is not None
        self.test_predictions.update(batch.index[1:], self(batch)[1:])


class Repeating(Linear):
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        super().test_step(batch, batch_idx)


@pytest.mark.parametrize(("method", "problem", "checks"), [
    (Linear, "", ("yes", "yes", "yes")),
    (Rising, "the training loss does not fall", ("no", "yes", "yes")),
    (NoNumber, "the logits of 3 test utterances are not finite: training diverged", ("–", "–", "–")),
    (Forgetful, "1 of 3 test utterances were not predicted", ("yes", "yes", "no")),
    (Repeating, "an utterance was evaluated more than once", ("–", "–", "–")),
])  # fmt: skip
@pytest.mark.usefixtures("_here")
def test_a_faulty_method_is_a_row_that_says_so_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: type[Linear], problem: str, checks: Row
) -> None:
    monkeypatch.setitem(METHODS, "faulty", method)
    monkeypatch.setattr(gpu, "CASES", (Case("faulty", SMALL, 32), Case("linear", SMALL, 32)))
    monkeypatch.setattr(gpu, "PRECISIONS", {"float32": "32-true"})
    monkeypatch.setattr(gpu, "PARTS", gpu.PARTS[:1])
    code = gpu.main(["--output", str(tmp_path / "page.md")])
    faulty, sound = tables((tmp_path / "page.md").read_text(encoding="utf-8"))["Precision"]
    assert faulty[5:8] == checks
    assert faulty[-1].startswith("failed: " if problem else "ok")
    assert problem in faulty[-1]
    assert (sound[0], sound[-1]) == ("linear", "ok")  # what follows was measured
    assert code == bool(problem)


@pytest.mark.usefixtures("_here")
def test_held_batches_that_differ_are_reported(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    to_device = Source.to

    def inexact(self: Source, device: torch.device | str) -> Source:
        held = to_device(self, device)
        return replace(held, values=held.values * (1 + 1e-6))

    monkeypatch.setattr(gpu, "HELD", (Case("linear", SMALL, 8), Case("bc_lstm", SMALL, 8)))
    assert [row[-1] for row in gpu.held_features(setting)] == ["ok"] * 6
    monkeypatch.setattr(Source, "to", inexact)
    assert [row[2:] for row in gpu.held_features(setting)][:2] == [
        ("4", "4", "failed: batches differ"), ("1", "1", "failed: batches differ")
    ]  # fmt: skip


def test_a_bench_that_fails_or_lacks_runs_is_reported(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "CORES", 4)
    answers = {1: (10.0, 0.0, 16, ""), 2: (9.0, 0.0, 15, ""), 4: (2.0, 512.0, 16, "")}
    monkeypatch.setattr(gpu, "bench", lambda setting, what, suite, jobs, *more: answers[jobs])
    assert [row[1:] for row in gpu.sharing(setting)][:3] == [
        ("16", "10.0", "96.0", "1.00", "–", "ok"),
        ("15", "–", "–", "–", "–", "failed: 16 runs were expected"),
        ("16", "2.0", "480.0", "5.00", "512", "ok"),
    ]
    assert setting.shared == {1: 10.0, 4: 2.0}
    answers[4] = (2.0, 512.0, 0, "exit code 1: the device is lost")
    (row,) = gpu.ravdess(setting)
    assert row[0].endswith("JOBS=4")  # the fastest
    assert row[1:] == ("–", "failed: exit code 1: the device is lost")


def test_a_part_that_fails_ends_with_a_row_and_not_with_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(setting: Setting) -> Iterator[Row]:
        yield "one", "ok"
        raise OSError("no space | left")

    parts = [gpu.Part("First", ("What", "Result"), broken), gpu.Part("Second", ("What", "Result"), broken)]
    monkeypatch.setattr(gpu, "PARTS", parts)
    assert gpu.main(["--output", str(tmp_path / "page.md")]) == 1
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert text.count("failed: OSError: no space \\| left") == 2


# --- time -------------------------------------------------------------------------------------------------------------


def test_without_time_every_part_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "begin_workers", None)
    monkeypatch.setattr(gpu, "command", None)
    assert gpu.main(["--limit", "20", "--output", str(tmp_path / "page.md")]) == 0
    found = tables((tmp_path / "page.md").read_text(encoding="utf-8"))
    assert list(found) == ["Precision", "Held features", "Sharing", "RAVDESS"]
    assert all(row[-1] == "left out: the time limit of 20 seconds" for (row,) in found.values())
    assert found["Precision"][0][0] == "early_concat in float32 and what follows"


def test_what_was_measured_stands_on_the_page_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pages = tmp_path / "page.md", list[str]()

    def slow(setting: Setting) -> Iterator[Row]:
        pages.append(path.read_text(encoding="utf-8"))
        yield "one", "ok"
        pages.append(path.read_text(encoding="utf-8"))
        raise gpu.OutOfTime("two")

    monkeypatch.setattr(gpu, "PARTS", [gpu.Part(title, ("What", "Result"), slow) for title in ("First", "Second")])
    assert gpu.main(["--output", str(path)]) == 0
    measured, late = ("one", "ok"), ("two and what follows", "left out: the time limit of 480 seconds")
    nothing, rest = ((what, "left out: the command ended before") for what in ("everything", "the rest"))
    assert [tables(page) for page in [*pages, path.read_text(encoding="utf-8")]] == [
        {"First": [nothing], "Second": [nothing]},
        {"First": [measured, rest], "Second": [nothing]},
        {"First": [measured, late], "Second": [nothing]},
        {"First": [measured, late], "Second": [measured, rest]},
        {"First": [measured, late], "Second": [measured, late]},
    ]


def test_the_time_limit_ends_a_process_and_a_command(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benches, "begin_worker", fake_runs.begin_worker)  # a worker without torch starts at once
    monkeypatch.setattr(benches, "PRELOAD", "")
    began = time.monotonic()
    with pytest.raises(gpu.OutOfTime, match="a nap"):
        gpu.apart(replace(setting, deadline=time.monotonic() + 0.5), "a nap", time.sleep, 100)
    monkeypatch.setattr(gpu, "MER_BENCH", (sys.executable, "-c"))
    with pytest.raises(gpu.OutOfTime, match="a nap"):
        gpu.command(replace(setting, deadline=time.monotonic() + 0.5), "a nap", ["import time; time.sleep(100)"])
    assert time.monotonic() - began < 50
    taken, _, problem = gpu.command(setting, "a fault", ["import time; time.sleep(0.1); raise SystemExit('no device')"])
    assert taken >= 0.1
    assert problem == "exit code 1: no device"
    assert gpu.command(setting, "nothing", ["pass"])[2] == ""


@pytest.mark.parametrize("wrong", [("--scale", "0"), ("--scale", "2"), ("--scale", "nan"), ("--limit", "nan")])
def test_wrong_options_are_refused(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        gpu.main([*wrong])
    assert left.value.code == 2
    assert "--scale is above 0 and up to 1" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        gpu.main(["--output", str(tmp_path)])
    assert left.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_itself_runs_with_processes_of_its_own(tmp_path: Path) -> None:
    line: list[Any] = [
        sys.executable,
        "-m",
        "benchmarks.speed.gpu",
        "--scale",
        "0.01",
        "--output",
        tmp_path / "page.md",
    ]
    done = subprocess.run(line, cwd=gpu.SUITE.parents[1], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out: the time limit" not in (tmp_path / "page.md").read_text(encoding="utf-8")
