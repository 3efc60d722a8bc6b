"""A suite that a test may change, with results of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from suites import Workspace, write_suite


@pytest.fixture
def workspace(root: Path, tmp_path: Path) -> Workspace:
    return Workspace(write_suite(tmp_path / "suite.toml"), root, tmp_path / "results")
