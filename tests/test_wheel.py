"""The wheel: what is in it, and that it works outside a clone."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from page_blocks import FILE, blocks, commands

ROOT = Path(__file__).parent.parent
SOURCES = ("src", "data_prep", "benchmarks", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")

pytest.importorskip("setuptools", minversion="77")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel; it is built from a copy, since a build leaves files in its folder."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("out")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", out, copy], check=True, timeout=200)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_holds_all_that_the_commands_need(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read("mer_bench-0.1.0.dist-info/METADATA").decode()
    package = {
        "py.typed",
        "methods.json",
        "corpora.json",
        "report/published.toml",
        "report/page.html",
        "report/page.css",
    }
    package |= {"report/page.js", "datasets/iemocap_validation.txt", "bundled/records.zip.xz"}
    package |= {f"bundled/benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.toml")}
    package |= {f"bundled/benchmarks/tuned/{path.name}" for path in (ROOT / "benchmarks").glob("tuned/*.toml")}
    modules = [path.relative_to(ROOT / "src" / "mer_bench") for path in (ROOT / "src").rglob("*.py")]
    package |= {module.as_posix() for module in modules}
    package |= {f"bundled/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "data_prep").rglob("*.py")}
    assert {f"mer_bench/{name}" for name in package} <= names
    assert {name.partition("/")[0] for name in names} == {"mer_bench", "mer_bench-0.1.0.dist-info"}
    assert wheel.stat().st_size < 8_000_000
    for line in ("Author: The mer_bench authors", "Requires-Python: >=3.11", "License-Expression: MIT"):
        assert line in metadata
    assert "Classifier: Programming Language :: Python :: 3.13" in metadata


@pytest.mark.slow  # several starts of Python with torch
def test_the_wheel_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    def call(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "mer_bench", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == code, done.stderr
        assert "make " not in done.stdout + done.stderr
        return done

    few = ("--methods", "majority", "--epochs", "1", "--seeds", "0", "--logger", "none")
    benched = call("bench", "simulated", *few, "--with-published")
    assert "leaderboard: leaderboard.md" in benched.stdout
    assert "(own)" in benched.stdout
    page = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "## Methods and corpora" in page, "the published rows"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "leaderboard.md", "results", "tables"]
    assert "RAVDESS IS NOT PREPARED" in call("bench", "ravdess", *few).stderr
    absent = call("bench", "ravdess", "--corpus", "real", code=2)
    assert "mer-bench prepare ravdess --raw <folder>" in absent.stderr
    assert "usage: mer-bench prepare" in call("prepare", "--help").stdout.lower()

    call("records", "published")
    committed = sorted(
        path.relative_to(ROOT / "benchmarks/results") for path in (ROOT / "benchmarks").glob("results/*/*/*.json")
    )
    unpacked = sorted(path.relative_to(tmp_path / "published") for path in (tmp_path / "published").rglob("*.json"))
    assert unpacked == committed
    assert json.loads((tmp_path / "published" / committed[0]).read_bytes()) == json.loads(
        (ROOT / "benchmarks/results" / committed[0]).read_bytes()
    )
    call("records", "published", code=2)


#: runs Python blocks in one namespace, and says after each that it is done
PYTHON = """
import json, sys
names = {"__name__": "__main__"}
for line in sys.stdin:
    exec(compile(json.loads(line), "page", "exec"), names)
    print("done", file=sys.stderr, flush=True)
"""


@pytest.mark.slow  # minutes: every command of the pages, each in a process of its own
@pytest.mark.parametrize(
    ("page", "calls", "pieces", "left"),
    [
        ("quickstart", 7, 1, ("leaderboard.md", "Early concatenation °")),
        ("your_method", 4, 1, ("leaderboard.md", "SumFusion ◇")),
        ("your_corpus", 6, 1, ("tables/*.md", "audio + eeg + gaze")),
        ("your_features", 4, 2, ("data/simulated-redundant/my-audio/spec.json", '"extractor": "my-encoder"')),
        ("your_model", 3, 3, ("explained.csv", "share_audio")),
        ("your_predictions", 10, 3, ("tables/*.md", "MyNet ▷")),
    ],
)
def test_a_page_runs_as_it_is_written(
    installed: Path, tmp_path: Path, page: str, calls: int, pieces: int, left: tuple[str, str]
) -> None:
    """From the wheel, in an empty folder; a block whose first line names a file is that file."""
    command = tmp_path / "bin" / "mer-bench"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mer_bench "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    path = os.pathsep.join([str(command.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = {"console": 0, "python": 0}
    with (
        (tmp_path / "python.log").open("w+", encoding="utf-8") as log,
        subprocess.Popen(
            [sys.executable, "-c", PYTHON], cwd=empty, env=environment, text=True, stdin=-1, stdout=log, stderr=-1
        ) as python,
    ):
        assert python.stdin
        assert python.stderr
        for kind, content, reason, _ in blocks((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")):
            if reason or kind not in ("console", "python", "toml"):
                continue
            if named := FILE.match(content):
                (empty / named[1]).write_text(content[named.end() :], encoding="utf-8")
            elif kind == "python":
                print(json.dumps(content), file=python.stdin, flush=True)
                said = ""
                while (line := python.stderr.readline()) not in ("done\n", ""):
                    said += line
                assert line, said  # it has ended
                ran["python"] += 1
            else:
                for line in commands(content):
                    call = ["sh", "-c", line]
                    done = subprocess.run(call, cwd=empty, env=environment, capture_output=True, text=True)
                    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
                    ran["console"] += 1
    assert ran == {"console": calls, "python": pieces}
    assert left[1] in "".join(path.read_text(encoding="utf-8") for path in empty.glob(left[0]))
