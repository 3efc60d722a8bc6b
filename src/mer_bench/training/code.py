"""Which code makes a run: the source of its method, all of its options, and the commit of the repository."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import mer_bench
from mer_bench.errors import Misuse
from mer_bench.files import sha256
from mer_bench.records import Code, RunRecord, RunSpec
from mer_bench.training.facts import find_facts


def code_of(spec: RunSpec, classes: Sequence[str]) -> Code:
    """The code that makes a run today; some options have defaults that depend on the names of its ``classes``."""
    from mer_bench.fusion.find import find_method

    facts, (commit, dirty) = find_facts(spec.method), _repository()
    options = {**facts.options, **find_method(spec.method).options_for(classes), **spec.options}
    return Code(source_of(facts.file), json.loads(json.dumps(options)), commit, dirty)


def is_changed(record: RunRecord) -> bool:
    """Whether the method was edited, or a default of its options, since it made a record; False where not recorded."""
    if record.code is None:
        return False
    try:
        facts = find_facts(record.spec.method)
        source = source_of(facts.file)
    except (Misuse, OSError):  # there is no such method today
        return False
    # an option whose default depends on the classes has it from the file whose hash is compared
    stated, today = (
        {name: value for name, value in options.items() if name not in facts.by_class}
        for options in (record.code.options, {**facts.options, **record.spec.options})
    )
    return record.code.source != source or stated != json.loads(json.dumps(today))


@cache
def source_of(file: str) -> str:
    """The hash of the file that defines a method."""
    return sha256(Path(file))


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
