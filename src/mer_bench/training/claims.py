"""Which runs of a results folder are being made, and by whom, so that benches that share the folder share the work.

A run that is being made has a lock file beside the path of its record, which names the process that makes it. The lock
of a process that has ended is taken over. Processes of other machines cannot be asked, so that every process touches
its locks each minute, and a lock that nobody has touched for a quarter of an hour is taken over as well. Should this
ever be wrong (a machine was asleep), a run is made twice, and both processes write the same record.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from mer_bench.files import writing
from mer_bench.processes import find_process, this_process
from mer_bench.records import RunSpec

if sys.platform != "win32":
    import fcntl

TOUCH = 60.0  #: seconds between two signs of life
STALE = 900.0  #: seconds without one after which a lock of another machine is taken over


class Claims:
    """The runs that this process is making; a context that gives them all back when it is left.

    Args:
        results: Folder of the records.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self._held: dict[str, Path] = {}
        self._done = threading.Event()

    def __enter__(self) -> Claims:
        threading.Thread(target=self._touch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._done.set()
        for path in list(self._held.values()):
            _remove(path)

    def take(self, spec: RunSpec) -> bool:
        """Claim a run; False if another process is making it.

        Raises:
            Misuse: the lock cannot be written.
        """
        path = lock_path(spec, self.results)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            taken = _create(path) or _take_over(path)
        if taken:
            self._held[spec.sha256] = path
        return taken

    def give_back(self, spec: RunSpec) -> None:
        """Say that a run is no longer being made."""
        if path := self._held.pop(spec.sha256, None):
            _remove(path)

    def _touch(self) -> None:
        while not self._done.wait(TOUCH):
            for path in list(self._held.values()):
                with suppress(OSError):
                    os.utime(path)


def lock_path(spec: RunSpec, results: Path) -> Path:
    """Where the lock of a run stands; its name is not that of a record."""
    path = spec.path(results)
    return path.with_name(f".{path.name}.lock")


def maker(spec: RunSpec, results: Path) -> str:
    """Who is making a run, for messages."""
    try:
        content = json.loads(lock_path(spec, results).read_text(encoding="utf-8"))
        return f"process {int(content['pid'])} on {content['host']!s}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def announced(spec: RunSpec, results: Path) -> Iterator[None]:
    """Claim a run that is made in any case, so that benches leave it alone meanwhile."""
    with Claims(results) as claims:
        claims.take(spec)
        yield


def remove_stale(results: Path) -> None:
    """Delete the locks of processes that have ended."""
    for path in results.glob("*/*/.*.lock"):
        with suppress(OSError), _stale(path) as file:
            if file is not None:
                path.unlink(missing_ok=True)


def _content() -> bytes:
    owner = this_process()
    facts = {"host": socket.gethostname(), "pid": owner.pid, "started": owner.started, "process": str(owner)}
    return json.dumps(facts).encode()


def _create(path: Path) -> bool:
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(file, _content())
    except OSError:  # full disk
        path.unlink()
        raise
    finally:
        os.close(file)
    return True


def _take_over(path: Path) -> bool:
    """Make a stale lock that of this process; the lock of another user stays as it is."""
    with suppress(FileNotFoundError, PermissionError), _stale(path) as file:
        if file is not None:
            os.ftruncate(file, 0)
            os.pwrite(file, _content(), 0)
            return True
    return False


@contextmanager
def _stale(path: Path) -> Iterator[int | None]:
    """The open file of a stale lock, which only one process at a time receives; None if the lock is not stale."""
    file = os.open(path, os.O_RDWR)
    try:
        try:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process is about to take it over
            yield None
            return
        except OSError:  # a file system without flock: two processes could take it over at the same instant
            pass
        facts = os.fstat(file)
        owner = find_process(os.pread(file, 4096, 0).decode(errors="replace"))
        ended = owner.ended if owner else None  # without an owner it has just been created, or its disk is full
        stale = time.time() - facts.st_mtime > STALE if ended is None else ended
        yield file if stale and path.stat().st_ino == facts.st_ino else None
    finally:
        os.close(file)


def _remove(path: Path) -> None:
    """Delete a lock, unless another process has taken it over."""
    with suppress(OSError):
        if path.read_bytes() == _content():
            path.unlink()
