"""Whose a file is, so that what a killed process has left is told from what a living one still needs."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process, also after it has ended; its text form can be a part of a file's name."""

    system: str  #: identity of the machine, of its last start, and of the namespace of its process numbers
    pid: int
    started: int  #: when, in clock ticks, which tells it from a later process of the same number; 0 = unknown

    def __str__(self) -> str:
        return f"{self.system}-{self.pid}-{self.started}"

    @property
    def ended(self) -> bool | None:
        """Whether the process has ended; None for one of another machine or container, which this one cannot see."""
        if self.system != _system():
            return None
        started = _started(self.pid)
        return not _exists(self.pid) if started is None else started != self.started


def this_process() -> Process:
    """The process that calls."""
    return Process(_system(), os.getpid(), _started(os.getpid()) or 0)


def find_process(text: str) -> Process | None:
    """The process whose text form is a part of ``text``."""
    found = re.search(r"(?<![0-9a-f])([0-9a-f]{12})-(\d{1,10})-(\d{1,20})(?!\d)", text)
    return Process(found[1], int(found[2]), int(found[3])) if found else None


@cache
def _system() -> str:
    facts = [socket.gethostname()]
    with suppress(OSError):  # only Linux has these; without them the name of the machine has to do
        facts += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _started(pid: int) -> int | None:
    """When a process started; -1 if it has ended and its parent has not noticed, None if the system does not say."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if state in "ZX" else int(rest[18])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # the process of another user
    return True
