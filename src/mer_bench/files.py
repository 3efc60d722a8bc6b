"""Atomic writes and hashes: what keeps a kill, or a full disk, from leaving half a file."""

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
    """Write ``text`` (as UTF-8) beside ``path`` and rename it into place; readers see the old file or the new one.

    Raises:
        Misuse: the file cannot be written (no permission, disk full); the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _writing(path):
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
    """Yield a temporary folder that replaces ``path`` when the block succeeds and vanishes when it does not."""
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        with _writing(path):
            temporary.chmod(0o755)
            if path.exists():  # a folder cannot be renamed onto a full one: move the old one aside first
                old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
                path.replace(old)
                temporary.replace(path)
                shutil.rmtree(old)
            else:
                temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misuse(f"{what} {path} is not TOML: {error}") from error
