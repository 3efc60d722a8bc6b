"""Whose a file is: living, ended and recycled processes; temporary files of killed ones are deleted, no others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mer_bench import files, processes
from mer_bench.files import new_folder, remove_leftovers, write_atomic
from mer_bench.processes import Process, find_process, this_process


@pytest.fixture(scope="module")
def ended() -> Process:
    code = "from mer_bench.processes import this_process; print(this_process())"
    text = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    found = find_process(text)
    assert found is not None
    return found


def test_a_process_is_found_in_a_name_and_its_end_is_seen(ended: Process) -> None:
    me = this_process()
    assert find_process(f".record.json.{me}.tmp") == find_process(f"mer-bench-{me}-abc") == me
    assert find_process(".record.json.123.tmp") is None
    assert me.ended is False
    assert ended.ended is True


def test_a_later_process_of_the_same_number_is_another_one() -> None:
    me = this_process()
    assert me.started > 0
    assert Process(me.system, me.pid, me.started - 1).ended is True


def test_a_process_that_its_parent_has_not_waited_for_has_ended() -> None:
    code = "from mer_bench.processes import this_process; print(this_process(), flush=True)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    found = find_process(child.stdout.read())
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert found is not None
    assert found.ended is True
    child.wait()
    child.stdout.close()


def test_of_a_process_of_another_machine_nothing_is_known() -> None:
    assert Process("0" * 12, this_process().pid, this_process().started).ended is None


def test_without_a_process_table_a_living_number_is_not_ended(monkeypatch: pytest.MonkeyPatch, ended: Process) -> None:
    monkeypatch.setattr(processes, "_started", lambda pid: None)  # as on macOS
    assert this_process().started == 0
    assert this_process().ended is False
    assert ended.ended is True


def test_temporary_files_of_ended_processes_are_deleted_and_no_others(tmp_path: Path, ended: Process) -> None:
    other = Process("0" * 12, 1, 1)
    kept = [f".a.json.{this_process()}.tmp", f".b.json.{other}.tmp", ".c.json.99.tmp", "a.json"]
    for name in [f".a.json.{ended}.tmp", f".old.json.{other}.tmp", *kept]:
        (tmp_path / name).touch()
    long_ago = time.time() - files.LEFT_OVER - 60
    os.utime(tmp_path / f".old.json.{other}.tmp", (long_ago, long_ago))
    (tmp_path / f".folder.{ended}.tmp" / "inside").mkdir(parents=True)
    remove_leftovers(tmp_path, ".*.tmp")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_what_is_written_carries_the_name_of_the_process_that_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []

    def stop(path: Path, target: Path) -> None:
        names.append(path.name)
        raise OSError("killed")

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(files.Misuse):
        write_atomic(tmp_path / "file", "text")
    with pytest.raises(files.Misuse), new_folder(tmp_path / "folder"):
        pass
    assert [find_process(name) for name in names] == [this_process()] * 2


def test_a_new_folder_sweeps_what_killed_processes_have_left_of_it(tmp_path: Path, ended: Process) -> None:
    (tmp_path / f".set.{ended}.abcd").mkdir()
    (tmp_path / f".set2.{ended}.abcd").mkdir()
    with new_folder(tmp_path / "set"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".set2.{ended}.abcd", "set"]
