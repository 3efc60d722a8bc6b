"""A committed suite rebuilds its table: every record of today's code is a run of a suite, seeds included.

Records of earlier versions of a method are marked in every table and have no rank; no suite can make them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mer_bench.methods import is_current
from mer_bench.records import FAILED, RunSpec, read_spec
from mer_bench.training import suite as suites
from mer_bench.training.suite import read_suite, suite_specs
from mer_bench.training.tuned import find_tuned, read_tuned, tuned_specs

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ABSENT = SimpleNamespace(sha256="0" * 64)  #: identity of a feature set that no record names


def committed_specs() -> list[RunSpec]:
    """The specs of all committed records."""
    return [read_spec(path) for path in (BENCHMARKS / "results").glob("*/*/*.json") if not path.name.endswith(FAILED)]


def identities(specs: Iterable[RunSpec]) -> dict[tuple[str, str], set[str]]:
    """Corpus and name of a feature set -> what the specs say that its identity is."""
    found: dict[tuple[str, str], set[str]] = {}
    for spec in specs:
        for modality, name in spec.features.items():
            found.setdefault((spec.dataset, name), set()).add(spec.features_sha256[modality])
    return found


def suite_runs(file: Path) -> Iterator[RunSpec]:
    """The runs of a committed suite, with its own settings and with those that are committed as tuned."""
    suite = read_suite(file)
    specs = suite_specs(suite, Path("data"))
    yield from specs
    if path := find_tuned(suite, BENCHMARKS / "results"):
        yield from tuned_specs(suite, specs, path, read_tuned(path))[0].values()


def from_no_suite(specs: Iterable[RunSpec], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the specs of today's code that no committed suite would write, on the features that they name."""
    current = [spec for spec in specs if is_current(spec.method, spec.version)]
    known = {key: SimpleNamespace(sha256=min(each)) for key, each in identities(current).items()}
    monkeypatch.setattr(suites, "read_feature_spec", lambda path: known.get((path.parent.name, path.name), ABSENT))
    runs = {spec.path(Path()) for file in sorted(BENCHMARKS.glob("*.toml")) for spec in suite_runs(file)}
    return sorted(path.as_posix() for path in {spec.path(Path()) for spec in current} - runs)


def test_every_committed_record_of_todays_code_comes_from_a_committed_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = committed_specs()
    several = {key: found for key, found in identities(specs).items() if len(found) > 1}
    assert not several, f"a suite makes one table of a feature set, and records name several of one name: {several}"
    lacking = from_no_suite(specs, monkeypatch)
    assert not lacking, (
        f"no suite in benchmarks makes {len(lacking)} of the committed records: name their method, options, training "
        "and seeds in a suite, or remove them:\n" + "\n".join(lacking)
    )


def test_a_record_that_no_suite_makes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = next(spec for spec in committed_specs() if is_current(spec.method, spec.version))
    training = replace(spec.training, epochs=spec.training.epochs + 1)
    foreign = [replace(spec, seed=987), replace(spec, training=training), replace(spec, options={"width": 3})]
    foreign += [replace(spec, fold=99), replace(spec, devices=2)]
    tuned = next(each for each in committed_specs() if each.tuned)
    foreign.append(replace(tuned, training=replace(tuned.training, learning_rate=0.123)))
    older = replace(spec, version=spec.version - 1, seed=986)  # is marked in the tables
    found = from_no_suite([spec, older, tuned, *foreign], monkeypatch)
    assert found == sorted(each.path(Path()).as_posix() for each in foreign)
