"""wandb: one run per training, grouped by suite, with the scores of the record; offline runs are uploaded on demand."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from report.test_compare import record
from suites import Call, execute_and_write, spec_of, write_suite

from mer_bench.errors import Misuse
from mer_bench.metrics import f1, weighted_f1
from mer_bench.records import RunRecord, read_record
from mer_bench.training import tracking
from mer_bench.training.options import RunSettings

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No account, no server, nothing in the home folder."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", tracking.GROUP):
        monkeypatch.setenv(name, "")  # so that the end of the test restores it
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    yield
    end_service()


def end_service() -> None:
    """End wandb's service, which then writes its remaining data and sometimes hangs after that."""
    ending = Thread(target=wandb.teardown, daemon=True)
    ending.start()
    ending.join(30)


def offline_run(folder: Path, made: RunRecord) -> dict[str, Any]:
    """Finish an offline run with this record; returns its group, its log and its tables by key."""
    logger = tracking.wandb_logger(made.spec, folder)
    group = logger.experiment.group
    tracking.finish(made)
    assert wandb.run is None
    return {"group": group, **stored(folder)}


def stored(folder: Path) -> dict[str, Any]:
    end_service()
    (run,) = folder.glob("wandb/offline-run-*")
    tables = {path.name.split("_")[0]: json.loads(path.read_text()) for path in run.rglob("*.table.json")}
    (log,) = run.glob("run-*.wandb")
    return {"tables": tables, "log": log.read_bytes()}


def test_an_offline_run_holds_the_scores_of_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = record("a", 0, [7, 20])
    monkeypatch.setenv(tracking.GROUP, "my_suite")
    found = offline_run(tmp_path, made)
    assert found["group"] == "my_suite"
    matrix = np.array(made.test_confusion)
    assert str(float(weighted_f1(matrix))).encode() in found["log"]
    classes = found["tables"]["classes"]
    assert classes["columns"] == ["emotion", "precision", "recall", "F1", "utterances"]
    assert [row[0] for row in classes["data"]] == list(made.classes)
    assert [row[3] for row in classes["data"]] == pytest.approx(list(f1(matrix)))
    assert [row[4] for row in classes["data"]] == matrix.sum(1).tolist()
    counted = {(true, predicted): count for true, predicted, count in found["tables"]["confusion"]["data"]}
    for i, true in enumerate(made.classes):
        for j, predicted in enumerate(made.classes):
            assert counted[true, predicted] == matrix[i, j]


def test_without_a_suite_the_group_is_the_table(tmp_path: Path) -> None:
    assert offline_run(tmp_path, record("a", 0, []))["group"] == "meld-emotion-official"


def test_a_training_ends_with_its_record_in_its_run(root: Path, tmp_path: Path) -> None:
    spec = spec_of(root, options={"hidden": 8}, training={"epochs": 1})
    path = execute_and_write(spec, RunSettings(root, tmp_path / "results", "wandb", tmp_path / "logs"))
    assert wandb.run is None  # closed: the next training has a run of its own
    found = stored(tmp_path / "logs")
    assert b"val/weighted_f1" in found["log"]
    support = np.sum(read_record(path).test_confusion, axis=1).tolist()
    assert [row[4] for row in found["tables"]["classes"]["data"]] == support


def offline_folder(logs: Path, name: str, *, synced: bool = False) -> Path:
    folder = logs / "wandb" / f"offline-run-20260101_000000-{name}"
    folder.mkdir(parents=True)
    (folder / f"run-{name}.wandb").write_bytes(b"")
    if synced:
        (folder / f"run-{name}.wandb.synced").write_bytes(b"")
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that accepts connections, with a key of the right form."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        yield url


def test_sync_uploads_what_was_not_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], *, check: bool) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", run)
    assert tracking.sync(tmp_path) == 0
    waiting = [offline_folder(tmp_path, name) for name in ("one", "two")]
    offline_folder(tmp_path, "done", synced=True)
    code = 0
    assert tracking.sync(tmp_path) == 2
    assert commands == [[sys.executable, "-m", "wandb", "sync", *map(str, waiting)]]
    code = 1
    with pytest.raises(Misuse, match="wandb sync failed"):
        tracking.sync(tmp_path)


def test_sync_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline_folder(tmp_path, "one")
    with pytest.raises(Misuse, match=r"1 runs in .* wait for an account: log in first"):
        tracking.sync(tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    with pytest.raises(Misuse, match=r"http://127.0.0.1:9 does not answer"):
        tracking.sync(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(Misuse, match=r"pip install 'mer-bench\[wandb\]'"):
        tracking.sync(tmp_path)


def test_a_bench_groups_its_runs_by_suite_and_sync_is_a_command(
    call: Call, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[str | None] = []

    def run_nothing(*_: object, **__: object) -> list[object]:
        groups.append(os.environ.get(tracking.GROUP))
        return []

    monkeypatch.setattr("mer_bench.training.bench.run_missing", run_nothing)
    suite = write_suite(tmp_path / "my_suite.toml")
    for logger in ("csv", "wandb"):
        answer = call("bench", suite, "--logger", logger, "--data", root, "--results", tmp_path / "results")
        assert answer.code == 0
    assert groups == [None, "my_suite"]
    assert call("sync", "--logs", tmp_path) == (0, f"nothing to upload in {tmp_path / 'wandb'}\n", "")
