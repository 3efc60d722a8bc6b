"""Which code makes a run: the source of its method, all of its options, and the commit of the repository."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import mer_bench
from mer_bench.errors import Misuse
from mer_bench.files import sha256
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.find import find_method
from mer_bench.records import Code, RunRecord, RunSpec
from mer_bench.training.build import options_of


def code_of(spec: RunSpec, classes: Sequence[str]) -> Code:
    """The code that makes a run today; some options have defaults that depend on the names of its ``classes``."""
    method = find_method(spec.method)
    commit, dirty = _repository()
    options = {**options_of(method), **method.options_for(classes), **spec.options}
    options = json.loads(json.dumps(options))  # as a record holds them
    return Code(_source(spec.method), options, commit, dirty)


def is_changed(record: RunRecord) -> bool:
    """Whether the method was edited, or a default of its options, since it made a record; False where not recorded."""
    if record.code is None:
        return False
    try:
        today = code_of(record.spec, record.classes)
    except Misuse:  # there is no such method today
        return False
    return (record.code.source, record.code.options) != (today.source, today.options)


@cache
def _source(method: str) -> str:
    return source_of(find_method(method))


def source_of(method: type[FusionModule]) -> str:
    """The hash of the file that defines a method."""
    return sha256(Path(inspect.getfile(method)))


@cache
def _repository() -> tuple[str | None, bool]:
    """Commit of the repository that holds the package, and whether the package has uncommitted changes there.

    None where the package is installed from elsewhere, or git is absent.
    """
    folder = Path(mer_bench.__file__).parent
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # a repository around an environment does not hold it
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", "."))
    except (OSError, subprocess.CalledProcessError):
        return None, False
