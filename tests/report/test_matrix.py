"""The matrix of the front pages: which columns, rows and order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from test_compare import record

from mer_bench.records import FeatureFacts, RunRecord, Tuned
from mer_bench.report.columns import seeds
from mer_bench.report.matrix import Block, matrix, standing
from mer_bench.report.tables import tables

WRONG = {"gated": [7], "tensor_fusion": [7, 20, 40], "low_rank": [7, 20, 40, 41, 44], "majority": list(range(20, 60))}


def run(method: str, seed: int = 0, wrong: list[int] | None = None, **change: Any) -> RunRecord:
    """A run on audio and text, of IEMOCAP if nothing else is said."""
    made = record(method, seed, WRONG.get(method, []) if wrong is None else wrong)
    where: dict[str, Any] = {"dataset": "iemocap", "label_set": "six", "protocol": "loso"} | change
    features = {"text": "minilm", "audio": "gemaps"} | where.pop("features", {})
    context = where.pop("context", "utterance")
    facts = {modality: FeatureFacts(name, "", "", "", 1, 0) for modality, name in features.items()}
    hashes = {modality: "0" * 64 for modality in features}
    spec = replace(made.spec, features=features, features_sha256=hashes, **where)
    return replace(made, spec=spec, features=facts, context=context)


def made(*records: RunRecord) -> tuple[Block, ...]:
    return matrix(standing(table) for table in tables(records))


def single(record: RunRecord, modality: str) -> RunRecord:
    features = {modality: record.spec.features[modality]}
    spec = replace(record.spec, features=features, features_sha256={modality: "0" * 64})
    return replace(record, spec=spec, features={modality: record.features[modality]})


def test_each_track_is_a_block_with_a_column_per_corpus() -> None:
    two = [run(name, dataset=corpus, label_set=labels, protocol=protocol)
           for name in ("gated", "low_rank")
           for corpus, labels, protocol in (("iemocap", "six", "loso"), ("ravdess", "eight", "folds6"))]  # fmt: skip
    utterances, dialogues = made(*two, run("bc_lstm", context="dialogue"))
    assert [column.splits[0] for column in utterances.columns] == ["iemocap", "ravdess"]
    assert [line.name for line in utterances.lines] == ["GMU", "LMF"]
    assert [cell.rank for line in utterances.lines for cell in line.cells if cell] == [1, 1, 2, 2]
    assert [line.name for line in dialogues.lines] == ["bc-LSTM"]
    assert (utterances.heading, dialogues.heading) == ("Single utterances", "Dialogues")


def test_the_first_protocol_with_ranked_rows_is_shown_and_of_feature_sets_the_one_with_most() -> None:
    unranked = single(run("unimodal"), "text")
    (block,) = made(unranked, run("gated", protocol="session5"))
    assert [column.splits[2] for column in block.columns] == ["session5"]
    more = [run(name, features={"text": "roberta"}) for name in ("gated", "low_rank")]
    (block,) = made(unranked, run("gated", protocol="session5"), run("gated"), *more)
    (column,) = block.columns
    assert (column.splits[2], column.features, len(column.ranked)) == ("loso", "roberta and gemaps", 2)


def test_a_table_whose_ranks_are_known_comes_before_a_longer_one_of_one_seed() -> None:
    settled = [run(name, seed) for name in ("gated", "low_rank") for seed in range(3)]
    longer = [run(name, features={"text": "roberta"}) for name in ("gated", "low_rank", "tensor_fusion")]
    (block,) = made(*longer, *settled)
    (column,) = block.columns
    assert (column.features, column.settled, len(column.ranked)) == ("minilm and gemaps", 2, 2)


def test_a_method_has_no_place_where_it_did_not_run_and_those_in_more_columns_come_first() -> None:
    there: dict[str, Any] = {"dataset": "ravdess", "label_set": "eight", "protocol": "folds6"}
    (block,) = made(run("gated"), run("tensor_fusion"), run("low_rank"), run("low_rank", **there))
    assert [(line.name, [cell and cell.rank for cell in line.cells]) for line in block.lines] == [
        ("LMF", [3, 1]), ("GMU", [1, None]), ("TFN", [2, None])
    ]  # fmt: skip


def test_rows_that_fusion_has_to_beat_are_set_apart() -> None:
    text, audio = (single(run("unimodal", wrong=wrong), m) for m, wrong in (("text", [3, 4]), ("audio", [3])))
    (block,) = made(run("gated"), run("linear", wrong=[2, 3, 5]), run("majority"), text, audio)
    assert [line.name for line in block.lines] == ["GMU"]
    assert [line.name for line in block.references] == ["Best single modality", "Linear", "Majority class"]
    (best,) = block.references[0].cells
    assert best is not None
    assert (best.reads, best.rank, best.tied) == (("audio",), None, None)


def test_in_a_table_with_one_modality_the_single_one_is_no_ranked_row() -> None:
    one, other = single(run("gated"), "text"), single(run("unimodal", wrong=[3]), "text")
    (block,) = made(one, other)
    assert [(line.name, [cell and cell.method for cell in line.cells]) for line in block.references] == [
        ("Best single modality", ["unimodal"])
    ]  # fmt: skip
    assert made(one)[0].references == ()


def test_ranks_and_ties_are_those_of_the_table_and_few_seeds_have_none() -> None:
    enough = [run(name, seed) for name in ("gated", "tensor_fusion") for seed in range(3)]
    ((table,), (block,)) = tables(enough), made(*enough)
    for row, line in zip(table.rows, block.lines, strict=True):
        (cell,) = line.cells
        assert cell is not None
        assert (cell.ranks, cell.tied, cell.seeds) == (table.rank_intervals[row], table.tied(row), 3)
        assert cell.score == 100 * row.weighted_f1
    assert all(cell and cell.ranks is None and cell.tied is None for line in made(*enough[::3])[0].lines
               for cell in line.cells)  # fmt: skip


def test_a_tuned_row_is_a_line_of_its_own_even_where_its_default_is_missing() -> None:
    tuned = run("gated", dataset="ravdess", label_set="eight", protocol="folds6")
    settings = Tuned(2, "space", {"hidden": 8}, 4)
    (block,) = made(run("gated"), replace(tuned, spec=replace(tuned.spec, tuned=settings)))
    assert [(line.name, line.tuned) for line in block.lines] == [("GMU", False), ("GMU, tuned", True)]


def test_the_order_of_records_does_not_matter() -> None:
    some = [run(name) for name in WRONG] + [run("gated", protocol="session5")]
    assert made(*some) == made(*reversed(some))


def test_a_row_of_one_modality_does_not_set_how_many_seeds_the_others_should_have() -> None:
    of_both = [run(name, seed) for name, seed in (("gated", 0), ("low_rank", 0), ("low_rank", 1))]
    of_text = [single(run("unimodal", seed, []), "text") for seed in range(3)]
    (table,) = tables([*of_both, *of_text])
    shown = {row.method: seeds(table, row) for row in table.rows}
    assert shown == {"gated": "1/2 seeds", "low_rank": "2", "unimodal": "3"}
    (table,) = tables([*of_both, of_text[0]])
    assert {row.method: seeds(table, row) for row in table.rows}["unimodal"] == "1/2 seeds"
