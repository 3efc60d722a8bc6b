"""Fixtures that several tests of data preparation share."""

from pathlib import Path

import pytest
from recordings import save_encoder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that contains a small text encoder."""
    return save_encoder(tmp_path_factory.mktemp("encoders") / "tiny")
