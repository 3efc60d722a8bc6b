"""Groups of test utterances: each has the confusion matrix that counting gives, and little room is taken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_runs import record, spec

from mer_bench.errors import Misuse
from mer_bench.groups import Groups, group_cells, group_matrices, group_totals, make_groups, statements
from mer_bench.records import RunRecord, check_record, read_record, write_record

CLASSES = 6


def drawn(utterances: int, clusters: int, seed: int = 0) -> dict[str, Any]:
    """Two speakers in each dialogue, half of the dialogues scripted, three levels of agreement."""
    draw = np.random.default_rng(seed)
    cluster = np.sort(draw.permutation(utterances) % clusters)
    true = draw.integers(0, CLASSES, utterances)
    predicted = np.where(draw.random(utterances) < 0.5, true, draw.integers(0, CLASSES, utterances))
    speaker = draw.integers(0, 2, utterances)
    kinds = {
        "speaker": [f"s{each}" for each in speaker],
        "gender": ["female" if each else "male" for each in speaker],
        "scene": ["scripted" if each % 2 else "improvised" for each in cluster],
        "agreement": np.array(["all", "few", "most"])[draw.integers(0, 3, utterances)].tolist(),
    }
    return {"kinds": kinds, "cluster": cluster, "true": true, "predicted": predicted}


def by_cluster(given: Mapping[str, Any], chosen: np.ndarray | bool = True) -> np.ndarray:
    found = np.zeros((given["cluster"].max() + 1, CLASSES, CLASSES), np.int64)
    np.add.at(found, tuple(given[name] for name in ("cluster", "true", "predicted")), np.asarray(chosen, np.int64))
    return found


def test_every_group_has_the_matrices_that_counting_gives() -> None:
    given = drawn(400, 20)
    clusters, found = by_cluster(given), make_groups(**given, classes=CLASSES)
    assert {kind: each.within for kind, each in found.items()} == {
        "speaker": "cells", "gender": "speaker", "scene": "clusters", "agreement": "cells",
    }  # fmt: skip
    for kind, of_each in given["kinds"].items():
        assert found[kind].names == sorted(set(of_each))
        for name, total in zip(found[kind].names, group_totals(found, kind, clusters), strict=True):
            counted = by_cluster(given, np.array(of_each) == name)
            np.testing.assert_array_equal(group_matrices(found, kind, name, clusters), counted)
            np.testing.assert_array_equal(total, counted.sum(0))
    assert all(holds for holds, _ in statements(found, clusters))


def test_groups_that_are_clusters_or_of_them_are_derived() -> None:
    given = drawn(60, 6)
    kinds = {
        "speaker": [f"a{each}" for each in given["cluster"]],
        "gender": [f"{each % 2}" for each in given["cluster"]],
    }
    found = make_groups(**{**given, "kinds": kinds}, classes=CLASSES)
    assert found["speaker"] == Groups([f"a{each}" for each in range(6)], "clusters", ["012345"])
    assert found["gender"] == Groups(["0", "1"], "clusters", ["010101"])


def test_the_groups_of_a_test_session_take_less_than_a_kilobyte() -> None:
    given = drawn(1623, 31)  # as session 5 of IEMOCAP
    del given["kinds"]["agreement"]
    found = {kind: asdict(each) for kind, each in make_groups(**given, classes=CLASSES).items()}
    assert len(json.dumps(found, separators=(",", ":"))) < 1000


def test_counts_without_a_character_are_numbers() -> None:
    given = drawn(1, 1)
    many = {name: np.repeat(each, 200) for name, each in given.items() if name != "kinds"}
    found = make_groups({"half": ["a"] * 100 + ["b"] * 100}, **many, classes=CLASSES)
    assert found["half"].numbers == [[100]]
    assert group_cells(found, "half", by_cluster(many)).sum(1).tolist() == [100, 100]


def grouped(**groups: Groups) -> RunRecord:
    """A record of a run without training: three utterances in two clusters."""
    made = replace(
        record(spec("majority")), rows={"train": 9, "validation": 0, "test": 3}, validation_confusion=None, curve=[],
        test_by_cluster=[[[1, 1], [0, 0]], [[0, 0], [0, 1]]], groups=groups,
    )  # fmt: skip
    return replace(made, spec=replace(made.spec, version=99))


def test_a_record_with_groups_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = grouped(speaker=Groups(["a", "b"], "cells", ["100"]), gender=Groups(["m"], "speaker", ["00"]))
    path = write_record(made, tmp_path)
    assert read_record(path) == made
    assert group_cells(made.groups or {}, "speaker", by_cluster_of(made)).sum(1).tolist() == [1, 2]


def by_cluster_of(made: RunRecord) -> np.ndarray:
    assert made.clusters is not None
    return made.clusters


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        (Groups(["a", "b"], "cells", ["200"]), "do not sum to test_confusion"),
        (Groups(["a", "b", "c"], "cells", ["110", "010"]), "do not sum to test_confusion"),
        (Groups(["a", "b"], "cells", ["10"]), "do not fit the clusters"),
        (Groups(["a", "b"], "cells", ["10_"]), "do not fit the clusters"),
        (Groups(["a", "b"], "clusters", ["012"]), "do not fit the clusters"),
        (Groups(["a", "b"], "clusters", ["02"]), "do not sum to test_confusion"),
        (Groups(["a", "b"], "clusters", ["00"]), "has no utterance"),
        (Groups(["a", "b"], "dialect", ["01"]), "do not fit the clusters"),
        (Groups(["a", "b"], "kind", ["01"]), "do not fit the clusters"),
        (Groups(["b", "a"], "clusters", ["01"]), "do not ascend"),
        (Groups(["a", "a"], "clusters", ["01"]), "do not ascend"),
        (Groups([], "clusters", []), "do not ascend"),
    ],
)
def test_groups_that_contradict_the_confusion_matrix_are_refused(groups: Groups, reason: str) -> None:
    made = grouped(kind=groups)
    with pytest.raises(Misuse, match=f"the groups of kind {reason}|a group of kind {reason}"):
        check_record(made, made.spec.path(Path("results")))


def test_groups_need_clusters() -> None:
    made = replace(grouped(kind=Groups(["a"], "clusters", ["00"])), test_by_cluster=None)
    with pytest.raises(Misuse, match="there is no test_by_cluster"):
        check_record(made, made.spec.path(Path("results")))
