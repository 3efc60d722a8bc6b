from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from suites import Call

from mer_bench.errors import Misuse
from mer_bench.fusion import METHODS
from mer_bench.fusion.find import find_method, provenance

Write: TypeAlias = Callable[[str, str], None]

MODULE = """
from mer_bench.fusion import CFNSR, FusionModule

class MyFusion(FusionModule):
    def forward(self, batch):
        return batch

class Extended(CFNSR):
    provenance = "reimplemented"

class Idle(FusionModule):
    pass

class Other:
    pass
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a file into the working folder; what is imported from there is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    before = set(sys.modules)

    def written(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    yield written
    for module in set(sys.modules) - before:
        del sys.modules[module]


def test_a_class_is_found_in_the_working_folder_and_in_a_package_there(write: Write) -> None:
    write("found_here.py", MODULE)
    write("found_package/__init__.py", "")
    write("found_package/sub.py", MODULE)
    assert find_method("found_here:MyFusion").__name__ == "MyFusion"
    assert find_method("found_package.sub:MyFusion").__module__ == "found_package.sub"
    assert find_method("cfn_sr") is METHODS["cfn_sr"]


def test_provenance_is_own_whatever_the_class_extends_or_says(write: Write) -> None:
    write("found_here.py", MODULE)
    assert provenance("found_here:Extended") == "own"
    assert (provenance("majority"), provenance("sync_tva")) == ("baseline", "reconstruction")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("found_her:MyFusion", r"looked for in .*, 'found_her': did you mean 'found_here'"),
        ("found_package.su:MyFusion", r"looked for in found_package, 'su': did you mean 'sub'"),
        ("found_here:MyFusio", r"unknown class .*found_here.py, 'MyFusio': did you mean 'MyFusion'"),
        ("found_here:Other", "'found_here:Other' is no FusionModule"),
        ("found_here:CFNSR", "is the built-in method 'cfn_sr'"),
        ("found_here:FusionModule", r"has no forward"),
        ("found_here:Idle", r"has no forward"),
        ("lacks:MyFusion", r"cannot be imported: ModuleNotFoundError: No module named 'absent' \(.*lacks.py, line 2\)"),
        ("wrong:MyFusion", r"cannot be imported: SyntaxError: .* \(.*wrong.py, line 1\)"),
        ("ends:MyFusion", r"cannot be imported: SystemExit: 3 \(.*ends.py, line 1\)"),
        ("inside.lacks:MyFusion", r"cannot be imported: ZeroDivisionError: .* \(.*inside/__init__.py, line 1\)"),
        ("found_here:", "must be module:Class"),
        ("found-here:MyFusion", "must be module:Class"),
        (":MyFusion", "must be a name"),
        ("found_here:My Fusion", "must be a name"),
        ("found_here", "unknown method 'found_here': did you mean 'found_here:Class'"),
        ("found_here.Mine", "unknown method 'found_here.Mine': did you mean 'found_here:Mine'"),
        ("nothing_here", "unknown method 'nothing_here': .*module:Class"),
        ("cfn_srr", "did you mean 'cfn_sr'"),
    ],
)
def test_what_is_no_method_is_one_sentence(name: str, sentence: str, write: Write) -> None:
    write("found_here.py", MODULE)
    write("found_package/__init__.py", "")
    write("found_package/sub.py", MODULE)
    write("lacks.py", "\nimport absent")
    write("wrong.py", "x = 1 +")
    write("ends.py", "raise SystemExit(3)")
    write("inside/__init__.py", "1 / 0")
    with pytest.raises(Misuse, match=sentence) as caught:
        find_method(name)
    assert "\n" not in str(caught.value)


def test_messages_say_where_the_name_stands(write: Write) -> None:
    write("found_here.py", MODULE)
    with pytest.raises(Misuse, match="method in suite x, table 1 'found_here:Other' is no"):
        find_method("found_here:Other", "method in suite x, table 1")


def register(write: Write, package: str, **points: str) -> None:
    """An installed package that registers methods."""
    write(f"{package}-1.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    write(f"{package}-1.dist-info/entry_points.txt", "\n".join(["[mer_bench.methods]", *lines]) + "\n")


def test_registered_methods_are_listed_without_being_imported(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    register(write, "one", fine="absent:MyFusion", cfn_sr="absent:MyFusion")
    listed = call("list", "methods").out.splitlines()
    assert listed[-1].split() == ["fine", "absent:MyFusion", "own"]
    assert "absent" not in "".join(listed[:-1])


def test_installed_packages_register_methods_and_cannot_take_the_place_of_built_in_ones(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    write("found_here.py", MODULE)
    register(write, "one", fine="found_here:MyFusion", cfn_sr="found_here:MyFusion", twice="found_here:MyFusion",
             no_class="found_here:Gone", other="found_here:Other")  # fmt: skip
    register(write, "two", twice="found_here:Extended")
    assert find_method("fine").__name__ == "MyFusion"
    assert provenance("fine") == "own"
    assert find_method("cfn_sr") is METHODS["cfn_sr"]
    for name, sentence in {
        "twice": r"'twice' is registered by two \(found_here:Extended\) and one \(found_here:MyFusion\)",
        "no_class": "found_here:Gone of one, cannot be imported: AttributeError",
        "other": "found_here:Other of one, is no FusionModule",
        "fin": "did you mean 'fine'",
    }.items():
        with pytest.raises(Misuse, match=sentence):
            find_method(name)
