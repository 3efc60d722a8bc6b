"""A suite that a test may change, with results of its own, and a bench that trains nothing."""

from __future__ import annotations

from pathlib import Path

import fake_runs
import pytest
from suites import Workspace, write_suite

from mer_bench.training import bench as benches
from mer_bench.training.options import RunSettings


@pytest.fixture
def workspace(root: Path, tmp_path: Path) -> Workspace:
    return Workspace(write_suite(tmp_path / "suite.toml"), root, tmp_path / "results")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSettings:
    """Settings of a bench whose workers train nothing: the name of a method says what its run does."""
    monkeypatch.setattr(benches, "execute_job", fake_runs.execute_job)
    monkeypatch.setattr(benches, "begin_worker", fake_runs.begin_worker)
    monkeypatch.setattr(benches, "PRELOAD", "")
    (tmp_path / "attempts").mkdir()
    return RunSettings(tmp_path, tmp_path / "results", log_folder=tmp_path / "attempts")
