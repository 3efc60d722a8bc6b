"""Atomic writes and hashes: neither a killed process nor a full disk leaves a partly written file."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mer_bench.errors import Misuse
from mer_bench.processes import find_process, this_process

#: Seconds after which a temporary file of another machine is taken to be left over: no process there can be asked.
LEFT_OVER = 7 * 24 * 3600


def write_atomic(path: Path, text: str | bytes) -> None:
    """Write ``text`` (as UTF-8) to a temporary file and rename it to ``path``; readers see the old file or the new one.

    Raises:
        Misuse: The file cannot be written (no permission, full disk); an old file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{this_process()}.tmp")
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
    """Yield a temporary folder that replaces ``path`` if the block succeeds and is deleted if it fails.

    Those that killed processes have left are deleted as well once ``path`` is complete.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.{this_process()}.", dir=path.parent))
    try:
        yield temporary
        with writing(path):
            temporary.chmod(0o755)
            if path.exists():  # a folder cannot replace one that is not empty, so the old one is renamed first
                old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.{this_process()}.", dir=path.parent))
                try:
                    path.replace(old)
                    try:
                        temporary.replace(path)
                    except OSError:
                        if not path.exists():  # else another process was faster
                            old.replace(path)
                        raise
                finally:
                    shutil.rmtree(old, ignore_errors=True)
            else:
                temporary.replace(path)
        remove_leftovers(path.parent, f".{glob.escape(path.name)}.*")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Delete the temporary files and folders that killed processes have left in ``folder``, but none of a living one.

    Only names that match ``pattern`` and that hold the name of the process that made them are looked at.
    """
    for path in folder.glob(pattern):
        with suppress(OSError):  # of another user, or deleted meanwhile
            owner = find_process(path.name)
            ended = owner is not None and owner.ended
            if ended or (ended is None and time.time() - path.stat().st_mtime > LEFT_OVER):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def check_folder(folder: Path, option: str, least: int) -> None:
    """Check that files can be written in ``folder``, which is made if it is absent.

    Args:
        folder: The folder.
        option: What names it, for the message: "--results".
        least: Bytes that must be free.

    Raises:
        Misuse: it is not a folder, nothing can be written in it, or its disk is full.
    """
    if folder.exists() and not folder.is_dir():
        raise Misuse(f"{folder} ({option}) is a file; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise Misuse(f"cannot write in {folder} ({option}): {error.strerror or error}") from error
    if free < least:
        raise Misuse(
            f"the disk of {folder} ({option}) has {free >> 20} MiB left, but {least >> 20} MiB should be free: "
            "delete something, or name a folder on another disk"
        )


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
