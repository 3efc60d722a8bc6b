"""What was computed from records, kept beside them so that the next call need not compute it again.

The cache is a folder of files that can be deleted at any time. A value is believed only if this user's mer_bench wrote
it, by the code of today: it is signed with a key that is made for the user, and with the source of what computes it.
Whoever asks for a value states what it was computed from, so none is believed of files that have changed since. What
cannot be read or written is computed anew; nothing in these files decides a path.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from mer_bench.processes import this_process

T = TypeVar("T")

FOLDER = ".mer_bench_cache"  #: beside the folders of the corpora
PACKAGE = Path(__file__).parents[1]
SOURCES = (PACKAGE, PACKAGE / "report")  #: what computes the values stands in these folders
SIGNATURE = 32  #: bytes


@dataclass(frozen=True)
class Cache:
    """A folder of signed values; without a key nothing is kept."""

    folder: Path
    key: bytes

    def get(self, name: str, kind: type[T]) -> T | None:
        """The value of that name; None where there is none that can be believed."""
        path = self._path(name)
        try:
            if not (self.key and path.is_file()):
                return None
            content = path.read_bytes()
            if not hmac.compare_digest(content[:SIGNATURE], self._sign(name, content[SIGNATURE:])):
                return None
            return msgspec.msgpack.decode(content[SIGNATURE:], type=kind)
        except (OSError, msgspec.MsgspecError):
            return None

    def put(self, name: str, value: Any) -> None:
        """Keep a value if that is possible; another process sees the old file or the new one."""
        if not self.key:
            return
        content = msgspec.msgpack.encode(value)
        path = self._path(name)
        temporary = path.with_name(f".{path.name}.{this_process()}.tmp")
        with suppress(OSError):
            try:
                self.folder.mkdir(exist_ok=True)
                temporary.write_bytes(self._sign(name, content) + content)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.folder / hashlib.blake2b(os.fsencode(name), key=self.key, digest_size=16).hexdigest()

    def _sign(self, name: str, content: bytes) -> bytes:
        parts = hashlib.blake2b(code() + hash_of(name), key=self.key, digest_size=SIGNATURE)
        parts.update(content)
        return parts.digest()


NOT_KEPT = Cache(Path(), b"")


def open_cache(folder: Path) -> Cache:
    """The cache of the records below ``folder``, for this user."""
    return Cache(folder / FOLDER, _user_key() if folder.is_dir() else b"")


def hash_of(*parts: str | bytes) -> bytes:
    """Hash of texts, each of which counts by itself."""
    found = hashlib.sha256()
    for part in parts:
        content = os.fsencode(part)  # names of files may be no UTF-8
        found.update(len(content).to_bytes(8, "big") + content)
    return found.digest()


@cache
def code() -> bytes:
    """Hash of the source that reads records and makes pages of them, and of the software that it stands on."""
    files = sorted(path for folder in SOURCES for path in folder.iterdir() if path.suffix in (".py", ".json", ".toml"))
    software = sys.version, np.__version__, msgspec.__version__
    return hash_of(*software, *(part for path in files for part in (path.name, path.read_bytes())))


def _user_key() -> bytes:
    """A secret of this user, which is made when it is first asked for; empty where that is impossible."""
    try:
        path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mer_bench" / "key"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".key.{this_process()}.tmp")
            try:
                temporary.touch(mode=0o600)
                temporary.write_bytes(secrets.token_bytes(32))
                with suppress(FileExistsError):  # another process was faster
                    os.link(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
        key = path.read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return b""
    return key if len(key) == 32 else b""
