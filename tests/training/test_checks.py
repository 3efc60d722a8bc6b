"""What is known before training is said before: folders, disks, hardware, loggers, folds without validation."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
from suites import RAVDESS, Answer, Call, Workspace, spec_of, train

from mer_bench.errors import Misuse
from mer_bench.processes import find_process, this_process
from mer_bench.training import bench as benches
from mer_bench.training import run as running
from mer_bench.training.build import PRECISIONS
from mer_bench.training.checks import is_first_machine, is_first_process
from mer_bench.training.run import run
from mer_bench.training.temporary import FREE
from mer_bench.training.validate import validate

Usage = namedtuple("Usage", "total used free")


class Command:
    """``mer-bench bench`` or ``mer-bench run`` in this process, where nothing may train."""

    def __init__(self, name: str, call: Call, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name, self.call, self.workspace, self.trained = name, call, workspace, 0
        monkeypatch.setattr(benches, "_execute_all", self._execute_all)
        monkeypatch.setattr("mer_bench.training.execute.execute", self._train)

    def _train(self, *_: object, **__: object) -> None:
        self.trained += 1

    def _execute_all(self, *_: object) -> Iterator[Any]:
        self.trained += 1
        yield from ()

    def __call__(self, *more: str | Path) -> Answer:
        if self.name == "bench":
            return self.call(*self.workspace.bench(), *more)
        run = ["run", "--dataset", RAVDESS, "--method", "unimodal", "--feature", "audio=simulated-audio"]
        return self.call(*run, *self.workspace.options, *more)

    def refused(self, *more: str | Path) -> str:
        """The sentence with which the command refuses to train."""
        answer = self(*more)
        assert (answer.code, answer.out, self.trained) == (2, "", 0)
        sentence = answer.err.removeprefix("error: ")
        assert sentence.count("\n") == 1
        return sentence


@pytest.fixture(params=["bench", "run"])
def command(
    _workers_are_this_process: None,
    request: pytest.FixtureRequest,
    call: Call,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> Command:
    return Command(request.param, call, workspace, monkeypatch)


def test_the_command_trains_where_nothing_is_wrong(command: Command) -> None:
    assert command().code == 0
    assert command.trained == 1


@pytest.mark.parametrize("option", ["--results", "--logs"])
def test_a_folder_that_cannot_be_written_is_refused(command: Command, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("content")
    logger = ["--logger", "csv"]
    file, below = tmp_path / "file", tmp_path / "file" / "folder"
    assert command.refused(*logger, option, file) == f"{file} ({option}) is a file; name a folder\n"
    assert command.refused(*logger, option, below) == f"cannot write in {below} ({option}): Not a directory\n"
    assert command.refused(*logger, option, "/proc/folder").startswith(f"cannot write in /proc/folder ({option}): ")
    assert (tmp_path / "file").read_text() == "content"


def test_without_a_logger_the_folder_of_logs_does_not_matter(command: Command) -> None:
    assert command("--logs", "/proc/folder").code == 0


@pytest.mark.parametrize("option", ["--results", "--logs", "TMPDIR"])
def test_a_full_disk_is_refused(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    full = Path(tempfile.gettempdir()) if option == "TMPDIR" else tmp_path / "full"
    usage = shutil.disk_usage
    little = Usage(FREE, FREE - 5_000_000, 5_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: little if path == full else usage(path))
    more = () if option == "TMPDIR" else (option, full)
    sentence = command.refused("--logger", "csv", *more)
    assert sentence.startswith(f"the disk of {full} ({option}) has 4 MiB left, but 64 MiB should be free: ")


def test_no_folder_for_temporary_files_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("mer_bench.training.temporary.tempfile", SimpleNamespace(gettempdir=absent))
    assert command.refused().startswith("there is no folder for temporary files; name one by TMPDIR (No usable")


def test_a_run_needs_room_for_two_checkpoints(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(root, options={"hidden": 4096})
    weights = 4 * running.build(spec, root)[1].num_parameters
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, FREE + weights))
    with pytest.raises(Misuse, match=r"\(TMPDIR\) has "):
        run(spec, root, logger="none")


def test_a_leaderboard_that_cannot_be_written_is_refused(
    call: Call, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = Command("bench", call, workspace, monkeypatch)
    assert command.refused("--leaderboard", tmp_path) == f"{tmp_path} (--leaderboard) is a folder; name a file\n"
    assert "cannot write in /proc/folder (--leaderboard)" in command.refused("--leaderboard", "/proc/folder/page.md")


def test_what_lightning_cannot_do_on_this_machine_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = L.Trainer

    def without_gpu(**settings: object) -> L.Trainer:
        if settings["strategy"] == "fsdp":
            raise ValueError("The strategy `fsdp` requires a GPU accelerator.\nHint")
        return trainer(**settings)

    monkeypatch.setattr(L, "Trainer", without_gpu)
    sentence = command.refused("--devices", "2", "--strategy", "fsdp")
    assert sentence.startswith(
        "Lightning cannot train with devices 2, num_nodes 1, strategy fsdp, precision 32-true on "
    )


def test_wandb_that_is_not_installed_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command.refused("--logger", "wandb") == (
        "LOGGER=wandb needs the package wandb: pip install 'mer-bench[wandb]'\n"
    )


# The hardware of a spec that a file describes


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"strategy": "dpp"}, "unknown strategy 'dpp': did you mean 'ddp'? "),
        ({"training": {"precision": "bf16-mixd"}}, "unknown precision 'bf16-mixd': did you mean 'bf16-mixed'? "),
        (
            {"dataset": "simulated-ravdes"},
            "unknown dataset in {file} 'simulated-ravdes': did you mean 'simulated-ravdess'? ",
        ),
        ({"method": "unimodel"}, "unknown method in {file} 'unimodel': did you mean 'unimodal'? "),
    ],
)
def test_a_spec_file_is_checked_as_the_options_are(
    root: Path, tmp_path: Path, call: Call, changes: dict[str, object], sentence: str
) -> None:
    content = asdict(spec_of(root))
    training = changes.pop("training", {})
    assert isinstance(training, dict)
    file = tmp_path / "spec.json"
    file.write_text(json.dumps({**content, **changes, "training": content["training"] | training}))
    line = ["run", "--spec", file, "--data", root, "--results", tmp_path / "results", "--logger", "none"]
    answer = call(*line)
    assert answer.code == 2
    assert answer.err.startswith(f"error: {sentence.format(file=file)}")


@pytest.mark.filterwarnings("ignore")  # Lightning's, about 16 bits on a CPU
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_run_of_every_precision_trains_and_tests(root: Path, precision: str) -> None:
    record = train(spec_of(root, training={"epochs": 1, "precision": precision}), root, measures=("efficiency",))
    assert len(record.test_predictions) == 120


@pytest.mark.parametrize("precision", ["64-true", "64", "16-true", "bf16-true", "transformer-engine"])
def test_precisions_that_convert_the_weights_are_refused(command: Command, precision: str) -> None:
    more = ["--train", f"precision='{precision}'"] if command.name == "run" else ["--precision", precision]
    assert command.refused(*more).startswith(f"unknown precision '{precision}'")


# Folds without validation


def test_run_says_that_the_last_epoch_is_scored_where_there_is_no_validation(
    call: Call, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = Command("run", call, workspace, monkeypatch)
    warning = f"warning: {RAVDESS} fixed fold 1 has no validation rows: the last epoch is scored\n"
    assert command("--protocol", "fixed").err == warning
    assert command("--protocol", "folds6").err == ""


def test_each_fold_without_validation_is_named_once(root: Path) -> None:
    fixed = spec_of(root, protocol="fixed")
    specs = [fixed, replace(fixed, seed=1), spec_of(root, fold=2), spec_of(root, "majority", protocol="fixed")]
    assert validate(specs, root) == [f"{RAVDESS} fixed fold 1 has no validation rows: the last epoch is scored"]


# Who writes


@pytest.mark.parametrize(
    ("variables", "process", "machine"),
    [
        ({}, True, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True, True),
        ({"LOCAL_RANK": "1"}, False, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False, False),
        ({"RANK": "1", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False, False),
        ({"SLURM_PROCID": "1", "SLURM_NODEID": "0"}, False, True),
    ],
)
def test_the_first_process_of_the_first_machine_writes(
    root: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], process: bool, machine: bool
) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "SLURM_NODEID"):
        monkeypatch.delenv(name, raising=False)
    alone = spec_of(root, "majority")
    wide = replace(alone, devices=2, num_nodes=2)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (is_first_process(wide), is_first_machine(wide)) == (process, machine)
    assert is_first_process(alone)
    assert is_first_machine(alone)


def test_the_temporary_folder_of_a_run_says_whose_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    folder = tempfile.TemporaryDirectory

    def noted(prefix: str) -> tempfile.TemporaryDirectory[str]:
        names.append(prefix)
        return folder(prefix=prefix)

    monkeypatch.setattr(tempfile, "TemporaryDirectory", noted)
    train(spec_of(root, "majority"), root)
    assert [find_process(name) for name in names] == [this_process()]
