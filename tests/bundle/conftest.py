"""A small corpus, and models that were trained on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lab import CORPUS, spec_for, write_corpus
from suites import execute_and_write

from mer_bench.bundle.model import Bundle, load_model
from mer_bench.records import bundle_path
from mer_bench.training.options import RunSettings
from mer_bench.utterances import DESCRIPTION


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of corpora with the corpus ``lab``."""
    root = tmp_path_factory.mktemp("bundled")
    write_corpus(root / "lab")
    (root / "lab" / DESCRIPTION).write_text(CORPUS)
    return root


@pytest.fixture(scope="session")
def records(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Method -> the record of a run whose model was kept."""
    settings = RunSettings(data, tmp_path_factory.mktemp("kept"), "none", save_model=True)
    methods = ("early_concat", "bc_lstm", "majority")
    return {method: execute_and_write(spec_for(data, method), settings) for method in methods}


@pytest.fixture(scope="session")
def loaded(records: dict[str, Path]) -> dict[str, Bundle]:
    return {method: load_model(bundle_path(path)) for method, path in records.items()}


@pytest.fixture
def folder(records: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the model of early_concat that a test may change."""
    return Path(shutil.copytree(bundle_path(records["early_concat"]), tmp_path / "model"))


@pytest.fixture
def table(data: Path, tmp_path: Path) -> Path:
    """A copy of the table and its feature sets, without a description, that a test may change."""
    return Path(shutil.copytree(data / "lab", tmp_path / "new", ignore=shutil.ignore_patterns(DESCRIPTION)))
