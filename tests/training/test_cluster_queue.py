"""A cluster is given as many runs as it has room for, so that other benches can have the rest; Ray is played here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_runs
import pytest
from fake_runs import spec

from mer_bench.errors import Misuse
from mer_bench.probabilities import probabilities_path
from mer_bench.records import RunRecord
from mer_bench.training import cluster
from mer_bench.training.execute import Job
from mer_bench.training.options import RunSettings


class Ray:
    """What the module ray does, in this process: a task runs when its result is asked for."""

    exceptions = SimpleNamespace(RayError=ConnectionError)

    def __init__(self) -> None:
        self.down = False

    def init(self, address: str, **_: Any) -> None:
        pass

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **_: Any) -> Callable[..., Any]:
        def task(function: Callable[..., Any]) -> Any:
            return SimpleNamespace(remote=lambda job, *more: (job[0].sha256, lambda: function(job, *more)))

        return task

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        return reference[1]()

    def shutdown(self) -> None:
        self.down = True


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    played = Ray()
    monkeypatch.setitem(sys.modules, "ray", played)
    monkeypatch.setattr(cluster, "_execute", lambda job, *_: (fake_runs.record(job[0]), None))
    return played


def test_runs_are_read_as_the_cluster_has_room_and_all_come_back(ray: Ray, tmp_path: Path) -> None:
    read = done = most = 0

    def jobs() -> Iterator[Job]:
        nonlocal read, most
        for seed in range(20):
            read += 1
            most = max(most, read - done)
            yield spec("works", seed), None

    seeds = []
    for (each, _), record in cluster.run_on_cluster(jobs(), RunSettings(tmp_path), "local", workers=2):
        assert isinstance(record, RunRecord)
        seeds.append(each.seed)
        done += 1
    assert sorted(seeds) == list(range(20))
    assert most <= cluster.AHEAD * 2 + 1
    assert ray.down


def test_what_a_run_keeps_is_written_by_the_caller_before_its_record_is_given(
    ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_execute", lambda job, *_: (fake_runs.record(job[0]), b"content"))
    settings = RunSettings(tmp_path, tmp_path / "results")
    for (each, _), _ in cluster.run_on_cluster([(spec("works"), None)], settings, "local", workers=2):
        assert probabilities_path(each, settings.results).read_bytes() == b"content"


def test_without_runs_no_cluster_is_asked(ray: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_connect", lambda *_: pytest.fail("it is"))
    assert list(cluster.run_on_cluster([], RunSettings(tmp_path), "local", workers=2)) == []


def test_a_run_of_several_devices_is_refused_before_one_is_given_to_the_cluster(ray: Ray, tmp_path: Path) -> None:
    wide = replace(spec("works"), devices=2)
    with pytest.raises(Misuse, match="--cluster spreads runs of one device each"):
        list(cluster.run_on_cluster([(wide, None)], RunSettings(tmp_path), "local", workers=2))
