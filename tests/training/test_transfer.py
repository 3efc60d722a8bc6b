"""The measure ``transfer``: a trained model on another corpus, standardised as its own, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lab import CORPUS, WIDTHS, spec_for, write_corpus
from suites import Call, execute_and_write, train

from mer_bench.errors import Misuse
from mer_bench.features import open_features, write_features
from mer_bench.records import RunRecord, check_measures, measurable, measured, read_record, skipped, transfers
from mer_bench.suites import read_suite_file
from mer_bench.training.build import build
from mer_bench.training.execute import missing
from mer_bench.training.options import RunSettings
from mer_bench.training.suite import stand_in
from mer_bench.training.transfer import open_others, predict_other
from mer_bench.training.validate import validate

TWIN = ("transfer:twin",)
FOLDS = '[protocols.folds]\nfolds = "speaker"\n'


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, and a twin with the same test utterances, whose training utterances are quite different."""
    root = tmp_path_factory.mktemp("data")
    table = write_both(root)
    for modality, name in zip(WIDTHS, ("sound", "faces", "waves"), strict=True):
        change(root / "twin", table, name, modality, lambda row, frames: frames * 50 - 9 if row < 48 else frames)
    return root


def write_both(root: Path, twin: str = CORPUS) -> pd.DataFrame:
    """Write both corpora with equal utterances; ``twin`` describes the second."""
    for name, text in {"lab": CORPUS, "twin": twin}.items():
        (root / name).mkdir()
        (root / name / "corpus.toml").write_text(text, encoding="utf-8")
        table = write_corpus(root / name)
    return table


def change(
    corpus: Path,
    table: pd.DataFrame,
    name: str,
    modality: str,
    values: Callable[[int, Any], Any] = lambda row, frames: frames,
    **facts: Any,
) -> None:
    """Write a feature set again with other values, or as another extractor's."""
    opened = open_features(corpus / name)
    frames = [np.array(opened.values[a:b]) for a, b in zip(opened.offsets, opened.offsets[1:], strict=False)]
    usual = {"extractor": f"made-{modality}", "revision": "1", "settings": {"rate": 16, "source": "other files"}}
    rows = (values(row, each) for row, each in enumerate(frames))
    write_features(corpus / name, rows, ids=list(table["id"]), modality=modality, **{**usual, **facts})


@pytest.fixture(scope="module", params=["early_concat", "mult", "bc_lstm"])  # functionals, frames, dialogues
def pair(request: pytest.FixtureRequest, data: Path) -> tuple[RunRecord, RunRecord]:
    """A run without and with the measure."""
    options = {"layers": 1} if request.param == "mult" else {"hidden": 8}
    spec = spec_for(data, request.param, options=options, features={"audio": "sound", "vision": "faces"})
    return train(spec, data), train(spec, data, measures=TWIN)


def test_the_same_utterances_in_another_corpus_have_the_same_predictions(pair: tuple[RunRecord, RunRecord]) -> None:
    """So neither the training rows of the other corpus nor its statistics matter."""
    _, found = pair
    assert found.transfer is not None
    other = found.transfer["twin"]
    assert other.by_cluster == found.test_by_cluster
    assert len(other.by_cluster) == 4
    assert (other.protocol, other.facts.folds, other.facts.clusters) == ("fixed", 1, "dialogues")
    assert set(other.features_sha256) == {"audio", "vision"}
    assert not set(other.features_sha256.values()) & set(found.spec.features_sha256.values())


def test_a_run_is_the_same_with_and_without_it(pair: tuple[RunRecord, RunRecord]) -> None:
    plain, found = pair
    assert replace(found, transfer=None, seconds=0.0, peak_memory_mib=0.0) == replace(
        plain, seconds=0.0, peak_memory_mib=0.0
    )
    assert (measured(plain), measured(found)) == (set(), {"transfer:twin"})


def test_a_method_without_parameters_says_the_most_frequent_class_of_its_own_corpus(data: Path) -> None:
    spec = spec_for(data, "majority", features={"audio": "sound"})
    found = train(spec, data, measures=TWIN)
    assert found.transfer is not None
    assert found.transfer["twin"].by_cluster == found.test_by_cluster


def test_every_fold_of_the_other_corpus_is_tested(tmp_path: Path) -> None:
    write_both(tmp_path, CORPUS.replace('[protocols.fixed]\nsplit = "split"\n', FOLDS))
    spec = spec_for(tmp_path, "majority", features={"audio": "sound"})
    datamodule, method = build(spec, tmp_path)
    datamodule.setup("test")
    (other,) = open_others(spec, datamodule, tmp_path, TWIN).values()
    index, predicted = predict_other(method, datamodule, other)
    assert index.tolist() == list(range(72))
    assert len(predicted) == 72
    found = train(spec, tmp_path, measures=TWIN)
    assert found.transfer is not None
    assert np.sum(found.transfer["twin"].by_cluster) == 72
    assert found.transfer["twin"].facts.folds == 2


def test_a_record_without_it_is_measured_and_has_it_from_then_on(data: Path, tmp_path: Path) -> None:
    spec = spec_for(data, "majority", features={"audio": "sound"})
    settings = RunSettings(data, tmp_path / "results", "none")
    execute_and_write(spec, settings)
    assert missing([spec], settings.results, TWIN) == [spec]
    path = execute_and_write(spec, replace(settings, measures=TWIN))
    assert missing([spec], settings.results, TWIN) == []
    assert missing([spec], settings.results, ["transfer:lab"]) == []  # its own corpus is no other one
    again = read_record(execute_and_write(spec, settings))  # what a record has is measured again
    assert again.transfer == read_record(path).transfer
    assert again.transfer is not None


def test_the_names_of_the_measure() -> None:
    assert check_measures(["transfer:meld", "literature", "transfer:meld"]) == ("transfer:meld", "literature")
    assert transfers(["literature", "transfer:meld", "transfer:my_corpus"]) == ["meld", "my_corpus"]
    with pytest.raises(Misuse, match="unknown measure 'transfer': did you mean 'transfer:CORPUS'"):
        check_measures(["transfer"])
    with pytest.raises(Misuse, match=r"the corpus of the measure transfer '\.\./x' must be a name"):
        check_measures(["transfer:../x"])


def test_it_needs_whole_weights(data: Path) -> None:
    spec = replace(spec_for(data, "majority", features={"audio": "sound"}), strategy="fsdp", devices=2)
    assert measurable(spec, TWIN) == set()
    assert skipped([spec], TWIN) == ["transfer:twin is not measured under strategy 'fsdp', which shards the weights"]
    assert skipped([replace(spec, strategy="auto")], ["transfer:lab"]) == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"extractor": "another"}, "its extractor is 'another', not 'made-audio'"),
        ({"revision": "2"}, "its revision is '2', not '1'"),
        ({"settings": {"rate": 8}}, "its setting rate is 8, not 16"),
        ({"values": lambda row, frames: frames[:, :3]}, "its width is 3, not 5"),
        ({"values": lambda row, frames: frames[:1]}, "one of them has one frame per utterance"),
    ],
)
def test_features_of_another_kind_are_one_sentence_before_anything_trains(
    data: Path, tmp_path: Path, damage: dict[str, Any], said: str, call: Call
) -> None:
    table = write_both(tmp_path)
    change(tmp_path / "twin", table, "sound", "audio", **damage)
    spec = spec_for(tmp_path, "early_concat", features={"audio": "sound"})
    with pytest.raises(Misuse) as caught:
        validate([spec], tmp_path, measures=TWIN)
    expected = f"transfer from lab to twin: feature set 'sound' of twin is not of the kind of that of lab: {said}"
    assert str(caught.value) == f"{expected}; extract both in the same way"
    answer = call("run", "--dataset", "lab", "--method", "early_concat", "--feature", "audio=sound", "--data", tmp_path,
                  "--results", tmp_path / "results", "--logger", "none", "--measure", "transfer:twin")  # fmt: skip
    assert answer.code == 2
    assert answer.err.strip() == f"error: {expected}; extract both in the same way"
    assert not (tmp_path / "results").exists()


def test_imported_sets_of_one_extractor_are_of_one_kind_whatever_files_they_are_from(tmp_path: Path) -> None:
    table = write_both(tmp_path)
    for number, name in enumerate(("lab", "twin")):
        change(tmp_path / name, table, "sound", "audio", revision=f"hash {number}", settings={"ids": f"{number}"})
    validate([spec_for(tmp_path, "early_concat", features={"audio": "sound"})], tmp_path, measures=TWIN)
    change(tmp_path / "twin", table, "sound", "audio", revision="hash", settings={}, layer="other")
    with pytest.raises(Misuse, match="its revision is 'hash', not 'hash 0'"):
        validate([spec_for(tmp_path, "early_concat", features={"audio": "sound"})], tmp_path, measures=TWIN)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('three = ["happy", "sad", "angry"]', 'three = ["sad", "happy", "angry"]',
         "label set 'three' has the classes sad, happy, angry there, and happy, sad, angry here"),
        ("three =", "four =", "unknown label set of twin 'three'"),
        ("audio", "sound", "unknown modality of twin 'audio'"),
    ],
)  # fmt: skip
def test_another_corpus_without_the_classes_or_a_modality_is_one_sentence(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    write_both(tmp_path, CORPUS.replace(old, new))
    spec = spec_for(tmp_path, "early_concat", features={"audio": "sound"})
    with pytest.raises(Misuse, match=said):
        validate([spec], tmp_path, measures=TWIN)


def test_a_corpus_that_does_not_exist_or_is_only_simulated_is_one_sentence(data: Path) -> None:
    spec = spec_for(data, "early_concat", features={"audio": "sound"})
    with pytest.raises(
        Misuse, match="unknown dataset of the measure transfer from lab to twn 'twn': did you mean 'twin'"
    ):
        validate([spec], data, measures=["transfer:twn"])
    with pytest.raises(Misuse, match="a simulated corpus says nothing about a real one"):
        validate([spec], data, measures=["transfer:simulated-ravdess"])


SUITE = """
dataset = ["iemocap", "meld"]
label_set = "four"
protocol = { iemocap = "loso", meld = "official" }
seeds = [0]
measure = ["literature", "transfer:iemocap", "transfer:meld"]
[[table]]
features = { text = "minilm", audio = "prosody" }
methods = ["majority"]
"""


def test_a_suite_names_a_protocol_for_each_corpus_and_its_stand_in_measures_no_transfer(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(SUITE, encoding="utf-8")
    suite = read_suite_file(path)
    assert [suite.protocol_of(name) for name in suite.datasets] == ["loso", "official"]
    other = stand_in(suite)
    assert [other.protocol_of(name) for name in other.datasets] == ["loso", "official"]
    assert other.measures == ("literature",)
    path.write_text(SUITE.replace(', meld = "official"', ""), encoding="utf-8")
    with pytest.raises(Misuse, match=r"suite .*suite\.toml: protocol names none for the dataset 'meld'"):
        read_suite_file(path).protocol_of("meld")
