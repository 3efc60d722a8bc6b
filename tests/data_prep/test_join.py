"""Columns of several feature sets as one set that says where each of them comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import lengths, refused, works, write_corpus

from data_prep.imports.join import join_features
from mer_bench.exposure import Exposure
from mer_bench.features import open_features, verify_features, write_features

IDS = ["a", "b", "c", "d"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "iemocap", IDS)


def store(corpus: Path, name: str, frames: list[int], dim: int, **facts: Any) -> list[np.ndarray]:
    values = [np.random.default_rng([dim, row]).normal(size=(count, dim)) for row, count in enumerate(frames)]
    facts = {"modality": "audio", "extractor": name, "revision": f"r-{name}", **facts}
    write_features(corpus / name, values, ids=IDS, **facts)
    return [each.astype(np.float32) for each in values]


def test_columns_stand_side_by_side_and_an_utterance_that_one_set_lacks_is_missing(corpus: Path) -> None:
    voice = store(corpus, "voice", [1, 1, 0, 0], 3, layer="mean", extractor_parameters=5)
    pitch = store(corpus, "pitch", [1, 0, 1, 0], 2, extractor_parameters=7)
    assert "2 utterances are in some of the sets only" in works("join", "--table", corpus, "--sets", "voice pitch")
    spec = verify_features(corpus / "voice-pitch")
    assert lengths(corpus / "voice-pitch") == [1, 0, 0, 0]
    np.testing.assert_array_equal(open_features(corpus / "voice-pitch").values, np.hstack([voice[0], pitch[0]]))
    assert (spec.modality, spec.extractor, spec.revision) == ("audio", "voice + pitch", "r-voice + r-pitch")
    assert (spec.layer, spec.dim, spec.extractor_parameters) == ("mean", 5, 12)
    assert [each.split()[0] for each in spec.settings["joined"]] == ["voice", "pitch"]
    assert "already done" not in works("join", "--table", corpus, "--sets", "pitch voice", "--name", "voice-pitch")
    works("join", "--table", corpus, "--sets", "voice pitch")
    assert "already done" in works("join", "--table", corpus, "--sets", "voice pitch")
    store(corpus, "pitch", [1, 0, 1, 0], 2, layer="another")
    assert "already done" not in works("join", "--table", corpus, "--sets", "voice pitch")


def test_sequences_of_equal_length_are_joined_frame_by_frame(corpus: Path) -> None:
    one, other = store(corpus, "one", [3, 2, 1, 4], 2), store(corpus, "other", [3, 2, 1, 4], 1)
    join_features(corpus, ["one", "other"], name="both")
    expected = np.hstack([np.concatenate(one), np.concatenate(other)])
    np.testing.assert_array_equal(open_features(corpus / "both").values, expected)


def test_the_gravest_exposure_counts(corpus: Path) -> None:
    store(corpus, "a", [1] * 4, 2, extractor="gemaps47")
    store(corpus, "b", [1] * 4, 2, extractor="mine", exposure=Exposure("labels", "fine-tuned on them"))
    store(corpus, "c", [1] * 4, 2, extractor="prosody10")
    assert join_features(corpus, ["a", "b"]).exposure == Exposure(
        "labels", "gemaps47: signal processing; nothing is learnt from examples; mine: fine-tuned on them"
    )
    spec = join_features(corpus, ["a", "c"])
    assert spec.exposure
    assert spec.exposure.kind == "none"


def test_sets_that_do_not_fit_together_are_one_sentence(corpus: Path) -> None:
    store(corpus, "a", [1, 2, 1, 1], 2)
    store(corpus, "longer", [1, 3, 1, 1], 2)
    store(corpus, "text", [1, 2, 1, 1], 2, modality="text")
    store(corpus, "fast", [1, 2, 1, 1], 2, frame_rate=50.0)
    write_features(
        corpus / "pixels", [np.zeros((1, 3), np.uint8)] * 4, ids=IDS, modality="audio", extractor="p", dtype="uint8"
    )
    for sets, reason in (
        ("a longer", "a, longer have 2 and 3 frames of b"),
        ("a text", "a and text differ in modality (audio and text)"),
        ("a fast", "a and fast differ in frame_rate (None and 50.0)"),
        ("a pixels", "pixels holds pixels"),
        ("a", "name two or more different feature sets to join, not a"),
        ("a a", "name two or more different feature sets to join, not a, a"),
        ("a absent", "no feature set 'absent'"),
    ):
        assert reason in refused("join", "--table", corpus, "--sets", sets)
    assert not (corpus / "a-longer").exists()
