"""Code on the pages of the documentation and in the README is run, or says why it is not.

Blocks run in the order of their page, in a folder that begins empty: Python in one namespace, commands one by one. A
block whose first line is the comment ``# NAME.ext`` is written to the file of that name. A block that cannot run here
has ``<!-- not run: REASON -->`` in the line before it.
"""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_blocks import FILE, Block, blocks, commands
from suites import Call

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
RUN = ("python", "console")
WRITTEN = ("python", "toml")
SHELL = ("cat", "cp", "ls", "mkdir", "mv")  #: programs that commands may call, beside mer-bench and python


def expanded(word: str) -> list[str]:
    """The files that a word with an asterisk means, as a shell has it."""
    return sorted(map(str, Path().glob(word))) or [word] if "*" in word else [word]


@pytest.fixture
def folder(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder: empty, but for simulated corpora that need not be generated again for each page."""
    (tmp_path / "data").mkdir()
    for corpus in root.iterdir():
        (tmp_path / "data" / corpus.name).symlink_to(corpus)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(entry for entry in sys.path if entry)])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(tmp_path):
            del sys.modules[name]


def run(block: Block, names: dict[str, Any], folder: Path, call: Call, where: str) -> int:
    """Run a block; returns how many commands or programs that were."""
    if block.kind in WRITTEN and (file := FILE.match(block.text)):
        path = folder / file[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text[file.end() :], encoding="utf-8")
        return 1
    if block.kind == "python":
        exec(compile("\n" * block.line + block.text, where, "exec"), names)
        return 1
    lines = commands(block.text)
    for line in lines:
        words = shlex.split(line, comments=True)
        program, arguments = words[0], [found for word in words[1:] for found in expanded(word)]
        if program == "mer-bench":
            answer = call(*arguments)
            assert answer.code == 0, f"{where}: {line}\n{answer.err}"
        elif program == "python" and len(arguments) == 1:
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            assert program in SHELL, f"{where}: {program} is not run here: say why before the block (<!-- not run: -->)"
            subprocess.run([program, *arguments], cwd=folder, check=True)
    return len(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("_workers_are_this_process")
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning's Trainer.predict with torch 2.13
def test_every_block_of_a_page_is_run_or_says_why_not(page: Path, folder: Path, call: Call) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page.read_text(encoding="utf-8")):
        where = f"{page.relative_to(ROOT)}, line {block.line}"
        if block.reason:
            assert len(block.reason.split()) > 1, f"{where}: not run for no reason"
        elif block.kind in RUN:
            assert run(block, names, folder, call, where), f"{where}: a console block without a command"
        elif block.kind == "toml" and FILE.match(block.text):
            run(block, names, folder, call, where)


def test_no_block_escapes_the_reader_of_blocks() -> None:
    """As many fences are read as there are, so that an unclosed or indented one cannot hide code."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        fences = len(re.findall(r"^\s*(?:```|~~~)", text, flags=re.MULTILINE))
        assert fences == 2 * len(blocks(text)), page


def test_a_block_that_fails_or_is_not_marked_fails_the_page(folder: Path, call: Call) -> None:
    text = "```python\nx = 1\n```\n<!-- not run: needs a network -->\n```console\n$ pip install x\n```\n"
    first, second = blocks(text)
    assert (first.reason, second.reason, second.line) == ("", "needs a network", 6)
    names: dict[str, Any] = {}
    assert run(first, names, folder, call, "page") == names["x"] == 1
    with pytest.raises(AssertionError, match="pip is not run here"):
        run(second, names, folder, call, "page")
    with pytest.raises(AssertionError, match="unknown command 'bench2'"):
        run(Block("console", "$ mer-bench bench2\n", "", 1), names, folder, call, "page")
    with pytest.raises(NameError):
        run(Block("python", "y\n", "", 1), names, folder, call, "page")


def test_commands_go_on_after_a_backslash_and_outputs_are_none() -> None:
    assert commands("$ mer-bench a \\\n    --b c\noutput\n$ ls\n") == ["mer-bench a      --b c", "ls"]
