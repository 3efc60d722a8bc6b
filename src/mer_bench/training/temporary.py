"""Temporary files of runs: where they are, how they are named, and how much room a disk should have. No torch."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mer_bench.errors import Misuse
from mer_bench.processes import this_process

TEMPORARY = "mer-bench-"  #: beginning of the names of temporary files and folders
FREE = 64 << 20  #: bytes that should be free on every disk that a run writes to


def temporary_folder() -> Path:
    """The folder of temporary files."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise Misuse(f"there is no folder for temporary files; name one by TMPDIR ({error.strerror})") from error


def temporary_prefix() -> str:
    """How the names of this process's temporary files begin; it says whose they are when the process was killed."""
    return f"{TEMPORARY}{this_process()}-"
