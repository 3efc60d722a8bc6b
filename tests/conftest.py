"""Settings of the whole test suite (one thread, no network logger, no deadlines in hypothesis) and shared fixtures."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before torch and numpy are imported; sums then do not depend on the machine
os.environ["WANDB_MODE"] = "offline"

import hypothesis  # noqa: E402
import pytest  # noqa: E402

if TYPE_CHECKING:
    from suites import Call

hypothesis.settings.register_profile("shared", deadline=None)  # a busy machine is not a defect
hypothesis.settings.load_profile("shared")


@pytest.fixture(autouse=True)
def _one_seeded_thread() -> None:
    torch = sys.modules.get("torch")  # tests without torch do not pay for its import
    if torch is not None:
        torch.set_num_threads(1)
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of simulated corpora that tests of runs only read; RAVDESS is there, others on first use."""
    from mer_bench.datasets import DATASETS

    folder = tmp_path_factory.mktemp("data")
    DATASETS["simulated-ravdess"](folder, label_set="eight", protocol="folds6")
    return folder


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """The command line in this process."""
    from suites import Answer, exit_code

    def called(*arguments: str | Path) -> Answer:
        capfd.readouterr()
        return Answer(exit_code(*arguments), *capfd.readouterr())

    return called


@pytest.fixture
def _workers_are_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker imports torch first, which takes longer than short runs; test_bench.py has benches with workers."""
    from suites import work_here

    work_here(monkeypatch)
