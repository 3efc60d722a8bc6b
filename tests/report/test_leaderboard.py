"""The leaderboard: which rows a table has, how they are scored, and that equal records give equal bytes."""

from __future__ import annotations

import csv
import random
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pages as report
import pytest
import test_compare
from fake_runs import consistent
from pages import cells, coded

from mer_bench.errors import Misuse
from mer_bench.methods import method_facts
from mer_bench.metrics import SCORES
from mer_bench.records import Efficiency, FeatureFacts, Protocol, RunRecord, Training, load_records, write_record
from mer_bench.report.board import Layout, check, make_board, read_board, write_board
from mer_bench.report.columns import print_table
from mer_bench.report.formatting import escape, latex, unescape
from mer_bench.report.published import load_published
from mer_bench.report.tables import tables

SETS = {"audio": "wavlm", "text": "minilm", "vision": "clip"}


def make(
    method: str = "early_concat",
    seed: int = 0,
    fold: int = 0,
    modalities: tuple[str, ...] = ("audio", "text"),
    *,
    hits: int | None = None,
    confusion: list[list[int]] | None = None,
    sets: dict[str, str] = SETS,
    context: str = "utterance",
    provenance: str = "reimplemented",
    simulated: bool = False,
    **spec: Any,
) -> RunRecord:
    """A record with a random matrix that depends on its identity, or with ``hits`` of 30 utterances right."""
    if confusion is None:
        draw = np.random.default_rng([seed, fold, *method.encode(), *"".join(modalities).encode()])
        confusion = draw.integers(0, 9, (3, 3)).tolist() if hits is None else _right(hits)
    base, chosen = test_compare.record(method, seed, []), {modality: sets[modality] for modality in modalities}
    hashes = {modality: sha256(name.encode()).hexdigest() for modality, name in chosen.items()}
    facts = {name: FeatureFacts(name, f"org/{name}", "r1", "last", 384, 22_713_216) for name in chosen.values()}
    return replace(
        base,
        spec=replace(base.spec, **{"fold": fold, "features": chosen, "features_sha256": hashes} | spec),
        context=context, provenance=provenance, simulated=simulated, parameters=123_456, seconds=12.345 + seed,
        features={modality: facts[name] for modality, name in chosen.items()},
        rows={"train": 900, "validation": 100, "test": int(np.sum(confusion))},
        test_confusion=confusion, test_by_cluster=None, peak_memory_mib=99.0, device="a device of some host",
    )  # fmt: skip


def _right(hits: int) -> list[list[int]]:
    return [[hits, 30 - hits, 0], [0, 0, 0], [0, 0, 0]]


def line(page: str, *needles: str) -> str:
    """The one line of the page that holds all needles."""
    (found,) = [text for text in page.splitlines() if all(needle in text for needle in needles)]
    return found


def score_rows(page: str) -> list[list[str]]:
    """Rows of the score tables with their code names, in page order."""
    rows, inside = [], False
    for text in coded(page).splitlines():
        inside = text.startswith("| Rank") or (inside and text.startswith("|"))
        if inside and not text.startswith(("| Rank", "| --")):
            rows.append(cells(text))
    return rows


def suite() -> list[RunRecord]:
    """Records of every kind."""
    records = [make("early_concat", s, provenance="baseline") for s in range(3)]
    records += [make("lmf", s) for s in range(3)]
    records += [make("unimodal", s, modalities=(m,)) for m in ("audio", "text") for s in range(3)]
    records += [make("majority", 0, provenance="baseline")]
    records += [make("sync_tva", s, context="dialogue", provenance="reconstruction") for s in range(2)]
    records += [make("lmf", s, simulated=True, dataset="simulated_meld") for s in range(2)]
    return records + [make("cfn_sr", s, f, dataset="ravdess", protocol="folds6") for s in range(2) for f in range(6)]


def test_bytes_depend_neither_on_the_order_of_records_nor_on_the_machine() -> None:
    records = suite()
    expected = report.leaderboard(records)
    for seed in range(5):
        random.Random(seed).shuffle(records)
        assert report.leaderboard(records) == expected
        assert printed(records, "meld") == printed(suite(), "meld")
    elsewhere = [replace(r, device="other", seconds=1.0, peak_memory_mib=1.0, versions={"torch": "9"}) for r in records]
    assert report.leaderboard(elsewhere) == expected
    assert "some host" not in expected
    for block in (block for block in expected.split("\n\n") if block.startswith("|")):
        assert len({len(text) for text in block.strip().splitlines()}) == 1  # columns are aligned


def test_folds_of_a_seed_are_pooled_before_scoring_and_seeds_averaged_after() -> None:
    records = [make("lmf", s, f, protocol="by_speaker") for s in range(3) for f in range(4)]
    pooled = np.array([np.sum([r.test_confusion for r in records if r.spec.seed == seed], axis=0) for seed in range(3)])
    (row,) = score_rows(report.leaderboard(records))
    for cell, score in zip(row[3:7], SCORES.values(), strict=True):
        values = 100 * score(pooled)
        assert cell == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    assert row[-1] == "3"


def test_deviation_is_the_sample_deviation_over_seeds_and_one_seed_has_none() -> None:
    page = report.leaderboard([make("a", s, hits=h) for s, h in enumerate((12, 15, 18))] + [make("b", hits=15)])
    a, b = sorted(score_rows(page), key=lambda row: row[1])
    assert a[4] == "50.00 ± 10.00"  # accuracies 40, 50, 60
    assert b[4] == "50.00"
    assert (a[-1], b[-1]) == ("3", "1/3 seeds")


def test_rows_are_ranked_by_weighted_f1_then_name() -> None:
    page = report.leaderboard([make("b", hits=20), make("c", hits=25), make("a", hits=20)])
    assert [row[:2] for row in score_rows(page)] == [["1", "c"], ["2", "a"], ["3", "b"]]


def test_a_modality_subset_is_a_row_of_the_larger_table_and_other_feature_sets_make_another() -> None:
    page = report.leaderboard([make("lmf"), make("lmf", modalities=("text",))])
    assert page.count("| Rank") == 1
    assert sorted(row[2] for row in score_rows(page)) == ["text", "text + audio"]
    other = SETS | {"text": "roberta"}
    page = report.leaderboard([make("lmf"), make("lmf", sets=other), make("unimodal", modalities=("audio",))])
    assert page.count("| Rank") == 2
    assert [row[1] for row in score_rows(page)].count("unimodal") == 2  # its audio features are in both


def test_reference_rows_stand_unranked_in_the_dialogue_table_too() -> None:
    references = [make("majority", hits=29), make("unimodal", modalities=("text",), hits=28)]
    page = report.leaderboard([make("lmf"), make("sync_tva", context="dialogue"), *references])
    rows = score_rows(page)
    assert page.count("| Rank") == 2
    assert [row[:3] for row in rows if row[0] == "–"] == [["–", "majority", "none"], ["–", "unimodal", "text"]] * 2
    assert [row[1] for row in rows if row[0] == "1"] == ["lmf", "sync_tva"]
    assert line(page, "reference rows read utterances")
    alone = report.leaderboard([make("unimodal", modalities=("text",))])
    assert [row[:2] for row in score_rows(alone)] == [["–", "unimodal"]]


def test_a_method_that_reads_one_modality_of_several_competes_only_where_there_is_no_other() -> None:
    text = make("bc_lstm", modalities=("text",), hits=29, context="dialogue")
    first, second = score_rows(report.leaderboard([text, make("bc_lstm", hits=20, context="dialogue")]))
    assert [row[:3] for row in (first, second)] == [["–", "bc_lstm", "text"], ["1", "bc_lstm", "text + audio"]]
    (only,) = score_rows(report.leaderboard([text]))
    assert only[:3] == ["1", "bc_lstm", "text"]


def test_a_track_makes_its_tables_of_its_own_runs() -> None:
    text = make("bc_lstm", modalities=("text",), context="dialogue")
    page = report.leaderboard([text, make("lmf")])
    assert [row[1:3] for row in score_rows(page)] == [["lmf", "text + audio"], ["bc_lstm", "text"]]
    assert "utterance track" in page
    assert "dialogue track" in page


def test_an_incomplete_seed_is_left_out_of_the_scores() -> None:
    whole = [make("a", s, f, protocol="p", hits=15) for s in range(2) for f in range(3)]
    part = [make("b", 0, f, protocol="p", hits=21) for f in range(3)] + [make("b", 1, 2, protocol="p", hits=0)]
    rows = {row[1]: row for row in score_rows(report.leaderboard(whole + part))}
    assert rows["b"][4] == "70.00"
    assert rows["b"][-1] == "1/2 seeds (1/3 folds of another)"
    assert rows["a"][-1] == "2"


def test_a_row_without_a_complete_seed_is_italic_last_and_unranked() -> None:
    whole = [make("a", 0, f, protocol="p", hits=3) for f in range(3)]
    part = [make("b", 0, 0, protocol="p", hits=30), make("b", 0, 1, protocol="p", hits=15)]
    last = score_rows(report.leaderboard(whole + part))[-1]
    assert last[:2] == ["–", "b"]
    assert last[4] == "*75.00*"
    assert last[-1] == "0/1 seeds (2/3 folds of another)"
    facts = Protocol(6, "six folds of actors", "actors")
    records = [replace(make("a", 0, fold, protocol="folds6"), protocol=facts) for fold in range(4)]
    page = report.leaderboard(records)
    assert score_rows(page)[0][-1] == "0/1 seeds (4/6 folds of another)"  # the record says how many there are
    assert "- Protocol `folds6`: six folds of actors\n" in page


def test_every_protocol_of_every_corpus_is_described_with_its_folds_and_clusters() -> None:
    pytest.importorskip("torch")
    from mer_bench.datasets import DATASETS

    for module in DATASETS.values():
        for protocol in module.protocols.values():
            assert protocol.text.endswith(".")
            assert protocol.clusters == {"speaker": "actors", "dialogue": "dialogues"}[module.cluster]


def test_equal_runs_on_several_numbers_of_devices_count_once() -> None:
    records = [make("a", hits=15), make("a", hits=30, devices=2)]
    (row,) = score_rows(report.leaderboard(records))
    assert (row[4], row[-1]) == ("50.00", "1")
    (table,) = tables([clustered("a", 0, 5), clustered("a", 0, 9, devices=2)])
    counts = table.rows[0].counts
    assert counts is not None
    assert (counts.sum(1) == table.rows[0].pooled).all()


def test_simulated_corpora_stand_apart() -> None:
    page = report.front(suite())
    real, simulated = page.index("## Methods and corpora"), page.index("## Simulated corpora")
    assert real < page.index("MELD, emotion") < simulated < page.index("(tables/simulated_meld-emotion-")
    assert "never evidence about real corpora" in page[simulated:]
    assert "Simulated corpora" not in report.front([make()])
    alone = report.front([make(simulated=True)])
    assert alone.index("never evidence about real corpora") < alone.index("## Methods and corpora")
    warned = [name for name, text in report.files(suite()).items() if "never evidence about real corpora" in text]
    assert warned == ["simulated_meld-emotion-official-utterance-minilm-wavlm.md", "leaderboard.md"]
    clone = Layout(Path("leaderboard.md"), Path("benchmarks/tables"), docs=Path("docs"))
    page = report.front(suite(), layout=clone)
    assert "[Tables of simulated corpora](docs/simulated.md)" in page
    assert "simulated_meld" not in page


def test_simulated_corpora_show_the_share_of_what_is_attainable() -> None:
    best = {"text+audio": {"accuracy": 0.8, "weighted_f1": 0.9}, "audio": {"accuracy": 0.5, "weighted_f1": 0.6}}
    known = {"utterance": best, "dialogue": {"text+audio": {"accuracy": 1.0, "weighted_f1": 1.0}}}
    pairs = [("majority", 6), ("lmf", 18), ("early_concat", 30)]  # of 30, of which an ideal observer has 24 here

    def attained(ideal: list[float], records: list[RunRecord], **changes: Any) -> tuple[dict[str, str], str]:
        made = [replace(each, ideal_by_cluster=ideal, **changes) for each in records]
        page = report.leaderboard([replace(each, test_by_cluster=[each.test_confusion]) for each in made])
        at = cells(next(line for line in page.splitlines() if line.startswith("| Rank"))).index("Attained")
        return {row[1]: row[at].partition(" (")[0] for row in score_rows(page)}, page

    records = [replace(make(name, hits=hits, simulated=True), attainable=known) for name, hits in pairs]
    shares, page = attained([24.0], records)
    assert shares == {"majority": "0", "lmf": "67", "early_concat": "133"}
    assert "text + audio 90.0 (80.0); audio 60.0 (50.0)." in page
    assert "ideal observer has an accuracy of 80.0 here." in page
    assert attained([30.0], records[:2], context="dialogue")[0] == {"majority": "0", "lmf": "50"}
    counted = [replace(each, test_by_cluster=[each.test_confusion], ideal_by_cluster=[24.0]) for each in records]
    assert "| Attained" not in report.leaderboard(counted[1:])  # the accuracy of the largest class is not known
    assert "| Attained" not in report.leaderboard(records)  # nor here what an ideal observer has
    assert "Attained" not in report.leaderboard([make(simulated=True), make()])


def test_differing_training_is_a_footnote() -> None:
    records = [make("a"), make("b"), make("c", training=Training(epochs=50, learning_rate=5e-4))]
    page = report.leaderboard(records)
    assert "c ¹" in [row[1] for row in score_rows(page)]
    assert line(page, "- ¹ Trained with") == (
        "- ¹ Trained with epochs 50 instead of 30, learning rate 0.0005 instead of 0.001."
    )
    assert "- Training: epochs 30, batch size 32, learning rate 0.001," in page


def test_options_and_provenance_stand_in_the_label() -> None:
    records = [make("cfn_sr", options={"self_attention": False, "k": 3}), make("tva", provenance="reconstruction")]
    records.append(make("mean", provenance="baseline", options={"by": "a|b"}))
    labels = {row[1] for row in score_rows(report.leaderboard(records[:2]))}
    assert labels == {"cfn_sr (k=3, self_attention=false)", "tva †"}
    page = report.leaderboard(records)
    assert 'mean (by="a\\|b") °' in {row[1] for row in score_rows(page)}
    assert "◇" not in page
    records.append(make("my_module:MyFusion", provenance="own"))
    page = report.leaderboard(records)
    assert "| MyFusion ◇ | `my_module:MyFusion` |" in re.sub(" +", " ", page)
    assert "\n- ◇ marks methods that are not part of mer_bench" in page
    assert "| CFN-SR | `cfn_sr` | text + audio | k=3, self_attention=false |" in re.sub(" +", " ", page)


def test_a_row_of_another_version_than_the_code_s_is_not_ranked_and_its_runs_wait() -> None:
    today = method_facts()["gated"].version
    for version in (today - 1, today + 1, 99):
        old = [make("gated", seed, hits=30, version=version) for seed in range(3)]
        page = report.leaderboard([*old, make("early_concat", hits=9), make("unimodal", modalities=("text",), hits=6)])
        assert [row[:2] for row in score_rows(page)] == [["1", "early_concat"], ["–", "unimodal"], ["–", "gated ‡"]]
        assert line(page, "3 runs of another version of their method wait to be made again.", "‡ and have no rank")
        assert "gains" in page  # over the single modality, by the row of today's code
        # what today's code has made again does not wait, and stands alone
        page = report.leaderboard([*old, make("gated", 0, hits=15, version=today)])
        assert [row[1:5:3] for row in score_rows(page)] == [["gated", "50.00"]]
        assert line(page, "2 runs of another version")
    assert "another version" not in report.leaderboard([make("gated", version=today), make("a"), make("a", version=7)])


def test_scores_by_class_leave_out_classes_without_utterances() -> None:
    page = report.leaderboard([make("a", seed, confusion=[[8, 0, 2], [0, 0, 0], [5, 0, 5]]) for seed in range(2)])
    assert cells(line(page, "| F1 by class")) == ["F1 by class", "Modalities", "angry", "sad"]
    assert cells(line(page, "*utterances*")) == ["*utterances*", "", "10", "10"]
    assert [cells(text) for text in page.splitlines() if text.startswith("| a ")] == [
        ["a", "text + audio", "69.6", "58.8"],
        ["a", "`a`", "text + audio", "defaults"],
    ]


def test_notes_name_features_and_counts() -> None:
    page = report.leaderboard(suite())
    digest = sha256(SETS["text"].encode()).hexdigest()[:12]
    size = f"384 columns, 22,713,216 frozen parameters; sha256 `{digest}`."
    assert f"- Features `minilm` (text): org/minilm, r1, last; {size}" in page.splitlines()
    assert line(page, "train 900", "tested in all")


def test_parameters_outside_the_encoders_stand_beside_all_where_they_were_counted() -> None:
    counted = replace(make("a", hits=20), encoder_parameters=123_000)
    page = report.leaderboard([counted, make("b", hits=10), replace(make("c", hits=5), encoder_parameters=0)])
    assert cells(line(page, "| Rank"))[-3:] == ["Parameters", "Fusion", "Seeds"]
    assert {row[1]: row[-3:-1] for row in score_rows(page)} == {
        "a": ["123,456", "456"], "b": ["123,456", "–"], "c": ["123,456", "123,456"]
    }  # fmt: skip
    assert line(page, "*Fusion* counts")
    assert "Fusion" not in report.leaderboard([make("b")]).partition("# Published")[0]


def block(page: str, head: str) -> dict[str, list[str]]:
    """Rows of the one table whose first heading is ``head``, by their first cell."""
    (text,) = [table for table in coded(page).split("\n\n") if table.startswith(f"| {head} ")]
    return {first: rest for first, *rest in map(cells, text.splitlines()[2:])}


def test_choosing_the_epoch_on_the_test_set_is_shown_and_never_ranks() -> None:
    epochs = [_right(12), _right(24), _right(18)]
    plain = [make("a", s, f, protocol="p", hits=h) for s in range(2) for f, h in enumerate((18, 12))]
    plain += [make("b", 0, f, protocol="p", hits=15) for f in range(2)]
    measured = [replace(record, literature=epochs) for record in plain[:4]]
    page, honest = report.leaderboard(measured + plain[4:]), report.leaderboard(plain)
    assert score_rows(page) == score_rows(honest)
    assert "| Best test epoch" not in honest
    before, after = (float(100 * SCORES["weighted_f1"](np.array(_right(h)))) for h in (15, 24))
    expected = ["text + audio", f"{before:.2f} ± 0.00", f"{after:.2f} ± 0.00", f"{after - before:+.2f}"]
    assert block(page, "Best test epoch") == {"a": expected}  # b has not been measured
    assert line(page, "*Optimistic*, never ranked").endswith(f"on average {after - before:.1f}.")


def test_the_best_test_epoch_counts_seeds_that_have_it_in_every_fold() -> None:
    records = [make("a", s, f, protocol="p", hits=15 + s) for s in range(3) for f in range(2)]
    chosen = {(0, 0), (0, 1), (1, 0)}  # one seed wholly, one by half
    records = [replace(r, literature=[_right(21)]) if (r.spec.seed, r.spec.fold) in chosen else r for r in records]
    f1 = [f"{100 * SCORES['weighted_f1'](np.array(_right(hits))):.2f}" for hits in (15, 21)]
    assert block(report.leaderboard(records), "Best test epoch")["a"][1:3] == f1


def test_what_remains_without_retraining_is_a_share_of_the_weighted_f1() -> None:
    half, none = _right(15), _right(0)
    found = {"only": {"audio": none, "text": half}, "missing": {"0.3": half, "0.5": half, "0.7": half},
             "noise": {"20": half, "10": half, "0": none}}  # fmt: skip
    records = [replace(make("a", s, hits=30), robustness=found) for s in range(2)]
    alone = make("unimodal", modalities=("text",), hits=30)
    records.append(replace(alone, robustness={"noise": {"10": half, "0": half}}))
    records.append(replace(make("majority", hits=30), robustness=found))
    page = report.leaderboard([*records, make("b")])
    retained = f"{100 * SCORES['weighted_f1'](np.array(half)):.0f} %"
    rows = block(page, "Retained")
    head = cells(line(page, "| Retained"))[3:]
    assert head == ["Only text", "Only audio", "Missing 0.3", "Missing 0.5", "Missing 0.7", "Noise 10 dB", "Noise 0 dB"]
    assert rows["a"][2:] == [retained, "0 %", retained, retained, retained, retained, "0 %"]
    assert rows["unimodal"][2:] == ["–"] * 5 + [retained] * 2
    assert set(rows) == {"a", "unimodal"}  # the majority class reads nothing that could be missing
    assert "| Retained" not in report.leaderboard([make("a"), make("b")])


def test_costs_stand_in_a_table_of_their_own_with_the_device() -> None:
    def timed(record: RunRecord, latency: float) -> RunRecord:
        times = Efficiency("Processor X", 1, latency, 1, 0.004, 32)
        return replace(record, efficiency=times, encoder_parameters=123_000, flops_per_utterance=2_500_000)

    records = [timed(make("a", seed), latency) for seed, latency in enumerate((0.001, 0.002, 0.009))]
    page = report.leaderboard([*records, make("b")])
    assert block(page, "Cost") == {
        "a": ["text + audio", "123,456", "456", "45,426,432", "2.50", "2.00", "8,000", "13", "99"]
    }
    assert line(page, "Never ranked.").endswith("on Processor X (1 thread).")
    assert score_rows(page) == score_rows(
        report.leaderboard([*(replace(r, efficiency=None) for r in records), make("b")])
    )
    assert "| Cost" not in report.leaderboard([make("a"), make("b")])


def test_the_front_page_sets_the_rows_to_beat_apart_from_the_ranked_ones() -> None:
    records = [make("a", hits=20), make("unimodal", modalities=("text",), hits=25), make("majority", hits=29)]
    matrix = [
        cells(text) for text in report.front(records).split("### Single utterances")[1].split("\n\n")[1].splitlines()
    ]
    assert [row[0] for row in matrix[2:]] == ["[a][1]", "*Best single modality*", "*Majority class*"]
    assert [row[1] for row in matrix[2:]] == ["80.0 (one seed)", "90.9 (text)", "98.3"]
    assert [row[-1] for row in matrix[2:]] == ["default", "not ranked", "not ranked"]


def printed(records: list[RunRecord], dataset: str) -> str:
    return make_board(records).terminal.get(dataset, "")


def test_terminal_table_shows_one_corpus() -> None:
    text = printed(suite(), "simulated_meld")
    assert text.splitlines()[0] == "simulated_meld: emotion, official, utterance track (simulated)"
    assert text.splitlines()[1].split() == ["method", "name", "modalities", "weighted", "F1", "accuracy", "seeds"]
    assert len(text.splitlines()) == 3
    assert ["Sync-TVA", "sync_tva", "†"] in [line.split()[:3] for line in printed(suite(), "meld").splitlines()]
    assert printed([], "meld") == ""


def test_published_numbers_are_quoted_with_their_digits_and_never_ranked() -> None:
    assert "`mer-bench bench simulated`" in report.front([])  # without records it states how to make some
    assert "[Numbers that papers print](tables/published.md)" in report.front([])
    assert "published" not in report.front([], [])
    published = report.leaderboard([])
    assert cells(line(published, "Sync-TVA", "weighted F1"))[2] == "67.40"
    assert cells(line(published, "CFN-SR", "last epoch"))[2] == "66.50"
    assert "Rank" not in published
    for item in load_published():
        assert item.source
        assert item.trust
        assert 0 < item.value < 100


def test_write_then_check_finds_nothing_until_something_changes(tmp_path: Path) -> None:
    results, layout = tmp_path / "results", Layout.of(tmp_path / "leaderboard.md")
    made = [consistent(make(name, s, hits=9 + s)) for name in ("early_concat", "sync_tva", "lmf") for s in range(3)]
    for record in made:
        write_record(record, results)
    assert "does not exist" in (check(results, layout) or "")
    records, problems = load_records(results)
    assert (len(records), problems) == (len(made), [])
    write_board(make_board(records), layout)
    assert {path: path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.[mc][ds]*")} == make_board(made).files(
        layout
    )
    assert check(results, layout) is None
    write_record(consistent(make("lmf", 7, hits=8)), results)
    assert "from line" in (check(results, layout) or "")
    write_board(read_board(results), layout)
    for path in sorted([layout.front, *layout.tables.iterdir()]):
        content = path.read_bytes()
        path.write_bytes(b"x" + content)
        assert (check(results, layout) or "").startswith(f"{path} is not what the records say, from line 1 on")
        path.unlink()
        assert (check(results, layout) or "").startswith(f"{path} does not exist")
        path.write_bytes(content)
    assert check(results, layout) is None
    path = write_record(consistent(make("lmf", 8, hits=8)), results)
    path.write_text(path.read_text(encoding="utf-8")[:100], encoding="utf-8")
    write_board(read_board(results), layout)
    expected = make_board([*made, consistent(make("lmf", 7, hits=8))])
    assert layout.front.read_text(encoding="utf-8") == expected.files(layout)[layout.front]
    assert path.name in (check(results, layout) or "")  # an unreadable record is named and left out


def test_a_thousand_records_are_all_used() -> None:
    rows = score_rows(report.leaderboard([make(f"m{number:02}", seed) for number in range(100) for seed in range(10)]))
    assert len(rows) == 100
    assert {row[-1] for row in rows} == {"10"}


@pytest.mark.parametrize("format", ["markdown", "csv", "latex"])
def test_a_table_is_printed_in_every_format(format: str) -> None:
    best = clustered("mm_dfn", 0, 9, options={"by": "a&b"}, provenance="reconstruction")
    records = [best, *(clustered("lmf", s, 5) for s in range(2)), make("majority", hits=3)]
    (table,) = tables([replace(each, context="dialogue") for each in records])
    printed, low = print_table(table, format), 100 * table.evidence[table.rows[0]].interval[0]
    if format == "markdown":
        assert '| MM-DFN `mm_dfn` (by="a&b") † ' in printed
        same = [text.split("|")[3:] for text in printed.splitlines()]  # short names stand in place of the second column
        page = report.leaderboard(table.records).splitlines()
        assert [text.split("|")[3:] for text in page if "|" in text][: len(same)] == same
    elif format == "csv":
        head, first, *_, last = csv.reader(printed.splitlines())
        found, majority = dict(zip(head, first, strict=True)), dict(zip(head, last, strict=True))
        assert found["Method"] == 'MM-DFN (by="a&b") †'
        assert (found["Method, code name"], found["Parameters"]) == ("mm_dfn", "123456")
        assert float(found["Weighted F1"]) == pytest.approx(100 * table.rows[0].weighted_f1, abs=1e-4)
        assert float(found["95 % interval"]) == pytest.approx(low, abs=1e-4)
        assert found["Weighted F1, standard deviation"] == majority["Rank"] == majority["95 % interval"] == ""
    else:
        lines = printed.splitlines()
        assert lines[:2] == [r"\begin{tabular}{rllrrrrrrrl}", r"\toprule"]
        assert lines[2].startswith(r"Rank & Method & Modalities & Weighted F1 & 95 \% interval &")
        assert lines[4].startswith(r'1 & MM-DFN \texttt{mm\_dfn} (by="a\&b") $\dagger$ & text + audio &')
        assert lines[-3].startswith("-- & Majority class")
    with pytest.raises(Misuse, match="did you mean 'latex'"):
        print_table(table, "latx")


def test_special_characters_of_latex_are_escaped() -> None:
    printed = latex([["a\\b", "50 % ± 2"], ["*{x}*", "~^#$_<|>"]], "<>")
    assert r"a\textbackslash{}b & 50 \% $\pm$ 2 \\" in printed
    assert (
        r"\textit{\{x\}} & \textasciitilde{}\textasciicircum{}\#\$\_\textless{}\textbar{}\textgreater{} \\" in printed
    )


# --- evidence ---------------------------------------------------------------------------------------------------------


def clustered(
    method: str, seed: int, hits: int, *, fold: int = 0, modalities: tuple[str, ...] = ("audio", "text"), **spec: Any
) -> RunRecord:
    """A record of twelve dialogues of ten utterances, of which about ``hits`` are right in each."""
    draw = np.random.default_rng([seed, fold, *method.encode(), *"".join(modalities).encode()])
    right = draw.binomial(10, hits / 10, 12)
    clusters = [[[int(n), 10 - int(n), 0], [0, 0, 0], [0, 0, 0]] for n in right]
    confusion = np.sum(clusters, 0).tolist()
    record = make(method, seed, fold, modalities, confusion=confusion, **spec)
    return replace(record, test_by_cluster=clusters)


def test_rows_say_how_certain_they_are_and_which_are_tied() -> None:
    records = [clustered(name, seed, hits) for name, hits in (("a", 8), ("b", 8), ("c", 3)) for seed in range(5)]
    records += [clustered("unimodal", seed, 5, modalities=("text",)) for seed in range(5)]
    page = report.leaderboard(records)
    first, second, third, single = score_rows(page)
    assert {first[1], second[1]} == {"a", "b"}
    assert first[5] == "–"
    assert second[5].endswith("≈")
    assert third[1] == "unimodal"
    assert third[5] == "–"  # a reference row does not compete
    assert single[1] == "c"
    assert not single[5].endswith("≈")
    low, high = (float(bound) for bound in single[4].split(" to "))
    assert low < float(single[3].split(" ")[0]) < high
    assert "over the best single modality, Single modality, text." in page
    assert "bootstrap over dialogues and seeds" in page


def test_folds_bring_their_clusters() -> None:
    records = [
        clustered(name, 0, hits, fold=fold, dataset="ravdess", protocol="folds6")
        for name, hits in (("a", 8), ("b", 3))
        for fold in range(1, 7)
    ]
    (table,) = tables(records)
    assert [row.counts.shape for row in table.rows if row.counts is not None] == [(1, 72, 3, 3)] * 2
    assert "bootstrap over dialogues" in report.leaderboard(records)
    actors = [replace(each, protocol=Protocol(6, "six folds", "actors")) for each in records]
    assert "bootstrap over actors" in report.leaderboard(actors)


def test_rows_without_clusters_have_no_interval() -> None:
    page = report.leaderboard([clustered("a", 0, 8), make("b", 0, confusion=[[60, 60, 0], [0, 0, 0], [0, 0, 0]])])
    assert score_rows(page)[0][5] == "one seed"
    assert score_rows(page)[1][4:6] == ["–", "–"]
    assert "bootstrap over dialogues, but not over seeds, as there is only one" in page
    assert "95 % interval" not in report.leaderboard([make("a", 0)])


EVIL = "**bold** _em_ [a](b) `c` <img src=x> # head | a\\b snake_case"
SHOWN = r"\*\*bold\*\* \_em\_ \[a\](b) \`c\` &lt;img src=x> \# head | a\\b snake_case"


def test_text_of_records_is_no_markup_within_tables_and_outside() -> None:
    facts = FeatureFacts("minilm", EVIL, "", "", 384, 0)
    run = make("a", modalities=("text",), options={"by": EVIL})
    run = replace(run, features={"text": facts}, protocol=Protocol(1, EVIL), classes=("_a_", "b", "c"))
    run = replace(run, efficiency=Efficiency(EVIL, 1, 0.001, 1, 0.02, 32))
    page = report.leaderboard([run], [])
    front = report.front([replace(run, spec=replace(run.spec, method=f"m:{EVIL}"))], [])
    assert f"(text): {SHOWN}; 384 columns" in page
    assert f"- Protocol `official`: {SHOWN}\n" in page
    assert f"Medians, on {SHOWN} (1 thread)." in page
    in_table = SHOWN.replace("|", "\\|").replace("a\\\\b", "a" + 4 * "\\" + "b")  # JSON doubles a backslash
    assert f'| by="{in_table}" |' in page
    assert r"\_a\_" in page
    assert "<img" not in page
    assert not any(text.lstrip("-# ").startswith("head") for text in page.splitlines())
    assert SHOWN.replace("|", "\\|") in front
    assert "<img" not in front
    for text in (EVIL, "a_b", "_", "\\", "\\*", "&lt;", "`"):
        assert unescape(escape(text)) == text.replace("&lt;", "<")
