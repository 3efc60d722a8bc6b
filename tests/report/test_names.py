"""Short names of rows, and headings of tables in words."""

from __future__ import annotations

from test_leaderboard import make

from mer_bench.corpora import corpus_facts
from mer_bench.records import Training
from mer_bench.report.names import feature_names, in_words, short_names, splits_in_words
from mer_bench.report.tables import tables


def names(*records: object) -> set[str]:
    (table,) = tables(records)  # type: ignore[arg-type]
    return set(short_names(table, [*table.rows, *table.ablations]).values())


def test_rows_have_the_names_of_their_papers_with_what_tells_two_of_a_method_apart() -> None:
    found = names(
        make("tensor_fusion", options={"hidden": 8}),
        make("cfn_sr", options={"dropout": 0.4}),
        make("cfn_sr", options={"dropout": 0.4, "scale": True}),
        make("cfn_sr", options={"dropout": 0.4, "guide": "text"}),
        make("low_rank", options={"rank": 4}),
        make("low_rank", options={"rank": 8}),
    )
    assert found == {
        "TFN",
        "CFN-SR",
        "CFN-SR, scaled",
        "CFN-SR, text guides, not audio",
        "LMF, rank = 4",
        "LMF, rank = 8",
    }


def test_a_row_on_part_of_the_modalities_says_which() -> None:
    found = names(
        make("bc_lstm", context="dialogue"),
        make("bc_lstm", modalities=("text",), context="dialogue"),
        make("unimodal", modalities=("text",)),
        make("majority", modalities=("text",)),
    )
    assert found == {"bc-LSTM", "bc-LSTM, text only", "Single modality, text", "Majority class"}


def test_rows_that_differ_in_training_alone_say_so_and_no_two_names_are_equal() -> None:
    assert names(make("gated"), make("gated", training=Training(epochs=7))) == {
        f"GMU, epochs {Training().epochs}",
        "GMU, epochs 7",
    }


def test_headings_are_in_words_and_unknown_names_stay() -> None:
    assert splits_in_words("iemocap", "six", "loso") == "IEMOCAP, six emotions, leave one session out"
    assert splits_in_words("simulated-unique-text", "plain", "independent") == "Simulated: unique text"
    assert splits_in_words("mine", "two", "halves") == "mine, two, halves"
    (table,) = tables([make("gated", modalities=("text", "audio"))])
    assert in_words(table).endswith(", single utterances")
    assert feature_names(table).count(" and ") == 1


def test_every_label_set_and_protocol_of_a_built_in_corpus_has_words() -> None:
    for facts in corpus_facts().values():
        assert facts.title, facts.name
        assert {*facts.label_sets, *facts.protocols} <= facts.words.keys(), facts.name
