"""Columns that a table has only where they are known, titles of own methods, and what LaTeX makes of all of it."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pages as report
import pytest
from fake_runs import consistent
from test_leaderboard import cells, clustered, line, make, score_rows
from test_plots import ERRORS, over_tables

import mer_bench
from mer_bench.calibration import Calibration, calibrate, probability_scores
from mer_bench.methods import titles
from mer_bench.metrics import brier_scores, calibration_error, log_losses, reliability
from mer_bench.records import RunRecord, write_record
from mer_bench.report.columns import GROUP, PAGE, RETENTION, columns, print_table
from mer_bench.report.formatting import escape, latex
from mer_bench.report.printed import choose, print_tables
from mer_bench.report.rows import ResultRow
from mer_bench.report.tables import tables

NAMES = ["NLL", "Brier", "ECE"]


def calibrated(record: RunRecord) -> RunRecord:
    """The record with probabilities that have its predictions and belong to its clusters."""
    matrices = np.array(record.test_by_cluster)
    cluster, true, predicted = (np.repeat(index, matrices[matrices > 0]) for index in np.nonzero(matrices))
    logits = np.random.default_rng(record.spec.seed + 10 * record.spec.fold).random((len(true), 3))
    logits[np.arange(len(true)), predicted] += 1.5
    p = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
    return replace(record, calibration=calibrate(p, true, predicted, cluster))


def shown(record: RunRecord) -> Calibration:
    assert record.calibration is not None
    return record.calibration


# Calibration


def test_without_probabilities_no_table_has_a_column_or_a_note_of_them() -> None:
    records = [clustered(name, seed, 7) for name in "ab" for seed in range(2)]
    (table,) = tables(records)
    for kind in ("ranking", PAGE):
        assert not {column.name for column in columns(table, kind)} & set(NAMES)
    assert "NLL" not in report.leaderboard(records)


def test_a_row_has_the_mean_over_seeds_each_pooled_over_its_folds() -> None:
    facts = {"dataset": "ravdess", "protocol": "folds6"}
    records = [calibrated(clustered("a", seed, 7, fold=fold, **facts)) for seed in range(2) for fold in range(1, 4)]
    records += [clustered("b", seed, 6, fold=fold, **facts) for seed in range(2) for fold in range(1, 4)]
    (table,) = tables(records)
    row = next(row for row in table.rows if row.method == "a")
    by_seed = np.array([probability_scores([shown(r) for r in folds]) for folds in row.complete_seeds.values()])
    assert by_seed.shape == (2, 3)
    head, *body = csv.reader(print_table(table, "csv").splitlines())
    known, unknown = (dict(zip(head, found, strict=True)) for found in sorted(body, key=lambda found: found[1]))
    for at, name in enumerate(NAMES):
        assert float(known[name]) == pytest.approx(by_seed[:, at].mean(), abs=1e-4)
        assert float(known[f"{name}, standard deviation"]) == pytest.approx(by_seed[:, at].std(ddof=1), abs=1e-4)
        assert unknown[name] == ""
    page = report.leaderboard(records)
    at = cells(line(page, "| Rank")).index("NLL")
    (first, second) = sorted(score_rows(page), key=lambda found: found[1])
    assert first[at : at + 3] == [f"{value:.3f}" for value in by_seed.mean(0)]
    assert second[at : at + 3] == ["–"] * 3
    assert "\n- Probabilities, the smaller the better and never ranked: " in page
    assert set(NAMES) <= {column.name for column in columns(table, PAGE)}
    assert "& NLL & Brier & ECE &" in print_table(table, "latex")


def test_a_seed_of_which_a_fold_lacks_them_does_not_count() -> None:
    facts: dict[str, Any] = {"dataset": "ravdess", "protocol": "folds6"}
    records = [clustered("a", seed, 7, fold=fold, **facts) for seed in range(2) for fold in (1, 2)]
    (row,) = tables([calibrated(records[0]), *map(calibrated, records[2:]), records[1]])[0].rows
    assert row.probability_scores is not None
    assert len(row.probability_scores.log_loss) == 1
    (row,) = tables([calibrated(records[0]), *records[1:]])[0].rows
    assert row.probability_scores is None


def test_data_frames_have_the_scores_of_probabilities(tmp_path: Path) -> None:
    records = [calibrated(clustered("a", seed, 7)) for seed in range(2)]
    records = [replace(consistent(each), probabilities="0" * 64) for each in records]
    for each in (*records, consistent(clustered("b", 0, 7))):
        write_record(each, tmp_path)
    runs = mer_bench.load_results(tmp_path).set_index("method")
    expected = [probability_scores([shown(each)]) for each in records]
    assert sorted(map(tuple, runs.loc["a", ["nll", "brier", "ece"]].to_numpy().tolist())) == sorted(expected)
    assert runs.loc[["b"], ["nll", "brier", "ece", "probabilities"]].isna().to_numpy().all()
    assert set(runs.loc["a", "probabilities"]) == {"0" * 64}
    rows = mer_bench.load_tables(tmp_path).set_index("method")
    assert list(rows.loc["a", ["nll", "brier", "ece"]]) == pytest.approx(np.mean(expected, 0))
    assert rows.loc[["b"], ["nll", "brier", "ece"]].isna().to_numpy().all()


def test_records_and_scores_of_other_toolkits_share_one_definition() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), 500).astype(np.float32)
    true = np.random.default_rng(1).integers(0, 3, 500)
    found = probability_scores([calibrate(p, true, p.argmax(1), np.zeros(500, np.int64))])
    bins = reliability(p.max(1), p.argmax(1) == true)
    expected = (log_losses(p, true).mean(), brier_scores(p, true).mean(), calibration_error(bins))
    assert found == pytest.approx(expected, abs=1e-4)


# Titles of own methods


def test_an_own_method_has_the_name_of_its_class_unless_another_has_it_too() -> None:
    names = titles(["cfn_sr", "my_module:SumFusion", "a:Net", "b.c:Net", "x:TFN", "registered"])
    assert {name: names[name] for name in ("cfn_sr", "my_module:SumFusion", "registered")} == {
        "cfn_sr": "CFN-SR", "my_module:SumFusion": "SumFusion", "registered": "registered"
    }  # fmt: skip
    assert {names[name] for name in ("a:Net", "b.c:Net")} == {"a:Net", "b.c:Net"}
    assert (names["x:TFN"], names["tensor_fusion"]) == ("x:TFN", "TFN")  # as the paper of a built-in method calls it


def test_pages_show_the_class_of_an_own_method_and_its_code_name() -> None:
    own = ("my_module:SumFusion", "a:Net", "b:Net", "odd:__Net__")
    records = [make(name, provenance="own", hits=9) for name in own] + [make("cfn_sr", hits=5)]
    (table,) = tables(records)
    names: dict[str, ResultRow] = {row.method: row for row in table.rows}
    assert names["my_module:SumFusion"].name == "SumFusion ◇"
    assert [names[f"{module}:Net"].name for module in "ab"] == ["a:Net ◇", "b:Net ◇"]
    page = re.sub(" +", " ", report.leaderboard(records))
    assert "| SumFusion ◇ | `my_module:SumFusion` |" in page
    assert "| a:Net ◇ |" in page
    assert r"| \_\_Net\_\_ `odd:__Net__` ◇ |" in page
    assert r"SumFusion \texttt{my\_module:SumFusion} $\diamond$ &" in print_table(table, "latex")
    assert "◇ not built in" in print_tables(choose(records), "markdown")
    assert "◇" not in print_tables(choose(records[-1:]), "markdown")


def test_ranks_over_tables_name_own_methods_as_the_tables_do() -> None:
    errors = {f"my_module:Net{name}" if name == "a" else name: wrong for name, wrong in ERRORS.items()}
    records = [replace(r, provenance="own") if ":" in r.spec.method else r for r in over_tables(errors)]
    assert re.search(r"Mean ranks: .*(?<!:)\bNeta \d", report.leaderboard(records))


# Modalities of any name


def test_each_modality_has_its_column_of_what_remains_with_it_alone() -> None:
    sets = {"audio": "a", "audio2": "b", "eeg": "e", "text": "t"}
    half = [[15, 15, 0], [0, 0, 0], [0, 0, 0]]
    only = {name: half for name in sets} | {"audio+eeg": half}
    robustness = {"only": only, "noise": {"10": half}, "noise audio2": {"10": half}}
    run = make("a", modalities=tuple(sets), sets=sets, hits=30)
    records = [replace(run, robustness=robustness)]
    (table,) = tables(records)
    head = [column.name for column in columns(table, GROUP, RETENTION)]
    assert head[:2] == ["Method", "Modalities"]
    assert head[3:] == ["Only text", "Only audio", "Only audio2", "Only eeg", "Noise 10 dB"]
    assert columns(table, GROUP, RETENTION)[6].explanation.endswith("with eeg as the only modality.")
    page = report.leaderboard(records)
    assert "Only eeg" in line(page, "| Retained")


# LaTeX


def parsed(text: str) -> list[list[str]]:
    """The cells of a tabular; asserts that its environment, its braces and the number of its cells are right."""
    lines = [each for each in text.splitlines() if not each.startswith("%")]
    assert all(each.isascii() for each in lines)
    (kinds,) = re.findall(r"^\\begin\{tabular\}\{([lr]+)\}$", lines[0])
    assert lines[-1] == r"\end{tabular}"
    assert [each for each in lines[1:-1] if each in (r"\toprule", r"\midrule", r"\bottomrule")] == [
        r"\toprule", r"\midrule", r"\bottomrule"
    ]  # fmt: skip
    assert (lines[1], lines[3], lines[-2]) == (r"\toprule", r"\midrule", r"\bottomrule")
    rows = []
    for each in (lines[2], *lines[4:-2]):
        assert each.endswith(r" \\")
        row = each.removesuffix(r" \\")
        assert not row.startswith("["), "an optional argument of the line before"
        depth = 0
        for token in re.findall(r"\\.|[{}]", row):
            depth += {"{": 1, "}": -1}.get(token, 0)
            assert depth >= 0
        assert depth == 0
        assert row.replace(r"\$", "").count("$") % 2 == 0
        assert not re.search(r"(?<!\\)[#%_^~]", re.sub(r"\$[^$]*\$", "", row))
        found = re.split(r"(?<!\\)&", row)
        assert len(found) == len(kinds), row
        rows.append([cell.strip() for cell in found])
    return rows


def test_latex_is_balanced_whatever_options_say() -> None:
    options = {"by": "50 % of {a} & b_c^d ~ #1 \\x [y] `code` $z$ <w> |v|", "sizes": [64, 32], "star": "*a*"}
    records = [
        *(
            calibrated(clustered("my_module:Sum_Fusion", seed, 9, options=options, provenance="own"))
            for seed in range(2)
        ),
        *(clustered("lmf", seed, 5, provenance="reconstruction") for seed in range(2)),
        make("majority", hits=3, provenance="baseline"),
    ]
    text = print_tables(choose(records), "latex")
    head, first, *_ = parsed(text)
    assert head[1:3] == ["Method", "Modalities"]
    assert r"sizes=[64, 32]" in first[1]
    assert r'star="*a*"' in first[1]
    assert r"[y] `code` \$z\$" in first[1]
    assert r"\textbackslash{}\textbackslash{}x" in first[1]  # JSON writes a backslash twice
    assert first[1].startswith(r"Sum\_Fusion \texttt{my\_module:Sum\_Fusion} (by=")


@pytest.mark.parametrize("text", ["a*b*", "*a*", "**a**", "`a`", "[1, 2]", "\\", "_a_", "<b>", "a ~ b # c", "&lt"])
def test_latex_prints_what_markdown_would_show(text: str) -> None:
    cell = latex([["h"], [escape(text)]], "<").splitlines()[4].removesuffix(r" \\")
    back = cell
    for written, character in ((r"\textbackslash{}", "\\"), (r"\textless{}", "<"), (r"\textgreater{}", ">"),
                               (r"\textasciitilde{}", "~"), (r"\_", "_"), (r"\#", "#"), (r"\&", "&")):  # fmt: skip
        back = back.replace(written, character)
    assert back == text
