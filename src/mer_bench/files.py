"""Atomic writes and hashes: neither a killed process nor a full disk leaves a partly written file."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mer_bench.errors import Misuse


def write_atomic(path: Path, text: str | bytes) -> None:
    """Write ``text`` (as UTF-8) to a temporary file and rename it to ``path``; readers see the old file or the new one.

    Raises:
        Misuse: The file cannot be written (no permission, full disk); an old file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(text.encode() if isinstance(text, str) else text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that replaces ``path`` if the block succeeds and is deleted if it fails."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        with writing(path):
            temporary.chmod(0o755)
            if path.exists():  # a folder cannot replace one that is not empty, so the old one is renamed first
                old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
                path.replace(old)
                temporary.replace(path)
                shutil.rmtree(old)
            else:
                temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise Misuse instead of an OSError in the block that writes ``path``."""
    try:
        yield
    except OSError as error:
        raise Misuse(f"cannot write {path}: {error.strerror or error}") from error


def sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_toml(path: Path, what: str, *, parse_float: Callable[[str], Any] = float) -> dict[str, Any]:
    """The content of a TOML file, which messages call ``what``, such as "suite".

    Raises:
        Misuse: the file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=parse_float)
    except OSError as error:
        raise Misuse(f"cannot read {what} {path}: {error.strerror}") from error
    except RecursionError as error:
        raise Misuse(f"{what} {path} is nested too deeply") from error
    except ValueError as error:  # also of a number with thousands of digits
        raise Misuse(f"{what} {path} is not TOML: {error}") from error
