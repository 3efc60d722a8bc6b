"""examples/own_method, copied out of the repository, does what its README says."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from suites import Call

from mer_bench.files import sha256
from mer_bench.records import load_records

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_method"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy, which is the working folder; what is imported from there is forgotten afterwards."""
    copy = tmp_path / "mine"
    shutil.copytree(EXAMPLE, copy)
    monkeypatch.chdir(copy)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)
    yield copy
    for module in set(sys.modules) - before:
        if module in ("sum_fusion", "test_sum_fusion"):
            del sys.modules[module]


@pytest.mark.usefixtures("_workers_are_this_process")
def test_the_commands_of_the_readme_work_from_outside_and_the_row_has_its_mark(
    folder: Path, root: Path, call: Call
) -> None:
    block = (folder / "README.md").read_text(encoding="utf-8").partition("```console\n")[2].partition("```")[0]
    commands = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    short = ["--epochs", "1", "--methods", "sum_fusion:SumFusion early_concat", "--data", str(root), "--logger", "none"]
    said = {}
    for program, *arguments in commands:
        if program == "mer-bench":
            answer = call(*arguments, *(short if arguments[0] == "bench" else []))
            assert answer.code == 0, answer.err
            said[arguments[0]] = answer.out
    importlib.import_module("test_sum_fusion").test_sum_fusion_holds_what_every_method_must_hold()
    assert set(said) == {"check", "bench", "compare", "list"}
    assert "sum_fusion:SumFusion (hidden=32) ◇" in said["bench"]
    assert "SumFusion `sum_fusion:SumFusion` (hidden=32) ◇ against Early concatenation" in said["compare"]
    assert "| [SumFusion ◇][1]" in (folder / "leaderboard.md").read_text(encoding="utf-8")
    (page,) = (path.read_text(encoding="utf-8") for path in (folder / "tables").glob("*-*.md"))
    assert re.search(r"\| SumFusion ◇ +\| `sum_fusion:SumFusion` \| audio \+ vision \| hidden=32 ", page)
    assert "- ◇ marks methods that are not part of mer_bench" in page
    records, problems = load_records(folder / "results")
    own = [record for record in records if record.spec.method == "sum_fusion:SumFusion"]
    assert (len(own), problems, {record.provenance for record in own}) == (6, [], {"own"})
    assert {record.code and record.code.source for record in own} == {sha256(folder / "sum_fusion.py")}
    assert own[0].spec.path(Path()).parent.name == "sum_fusion.SumFusion"


def test_the_module_is_as_short_as_promised() -> None:
    assert len((EXAMPLE / "sum_fusion.py").read_text(encoding="utf-8").splitlines()) <= 30


def test_a_method_that_fails_while_it_trains_is_a_failed_run_in_one_sentence(
    folder: Path, root: Path, call: Call
) -> None:
    text = (folder / "sum_fusion.py").read_text(encoding="utf-8")
    (folder / "sum_fusion.py").write_text(re.sub(r"        return ", "        return self.nothing or ", text, count=1))
    line = "run --dataset simulated-ravdess --method sum_fusion:SumFusion --train epochs=1 --logger none"
    answer = call(*line.split(), "--data", root, "--results", folder / "results")
    assert answer.code == 1
    said = [each for each in answer.err.splitlines() if each.startswith("error: ")]
    assert len(said) == 1
    assert "method 'sum_fusion:SumFusion' failed: AttributeError" in said[0]
    assert "Traceback" not in answer.err


def test_a_method_that_declares_an_unknown_input_is_refused_before_it_trains(
    folder: Path, root: Path, call: Call
) -> None:
    text = (folder / "sum_fusion.py").read_text(encoding="utf-8")
    declared = re.sub(r"(class SumFusion.*:\n)", r'\1    reads = frozenset({"frame"})\n', text)
    (folder / "sum_fusion.py").write_text(declared)
    line = "run --dataset simulated-ravdess --method sum_fusion:SumFusion --train epochs=1 --logger none"
    answer = call(*line.split(), "--data", root, "--results", folder / "results")
    assert answer.code == 2
    assert "'sum_fusion:SumFusion' declares by reads 'frame': did you mean 'frames'? " in answer.err
