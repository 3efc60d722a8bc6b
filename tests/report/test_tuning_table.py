"""The table "Tuning": default and tuned rows, their gain, and what the trials say; and how settings were chosen."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pages as report
import pytest
from test_leaderboard import clustered

from mer_bench.methods import method_facts
from mer_bench.records import RunRecord, Training, Tuned
from mer_bench.report.across import ranked
from mer_bench.report.chosen import committed_recipes, with_settings
from mer_bench.report.reproduce import commands
from mer_bench.report.statistics import difference, holm
from mer_bench.report.table_page import facts
from mer_bench.report.tables import Table, tables
from mer_bench.report.tuning import expected_best, tuning_lines, tuning_notes, tunings, with_trials
from mer_bench.trials import TrialRecord

DEFAULT = {"hidden": 64, "learning_rate": 1e-3}
SPACES = {"early_concat": "space-a", "gated": "space-b", "linear": "space-c"}


def runs(method: str, hits: int, *, seeds: int = 3, trials: int | None = None) -> list[RunRecord]:
    """Records of a method; of the tuned row each seed has another trial's settings, as each fold has."""
    found = []
    for seed in range(seeds):
        record = clustered(method, seed, hits, options={"hidden": 64}, version=method_facts()[method].version)
        if trials is not None:
            tuned = Tuned(1 + seed, SPACES[method], DEFAULT, trials)
            spec = replace(record.spec, tuned=tuned, options={"hidden": 32 + seed})
            record = replace(record, spec=replace(spec, training=Training(learning_rate=2e-3 + seed)))
        found.append(record)
    return found


def trial(record: RunRecord, number: int, hits: int, *, fold: int = 0, space: str = "") -> TrialRecord:
    spec = replace(record.spec, fold=fold, seed=0, tuned=Tuned(number, space or SPACES[record.spec.method], DEFAULT))
    rows = {"train": 40, "validation": 20}
    return TrialRecord(spec, record.classes, "utterance", rows, [[hits, 10 - hits, 0], [0, 10, 0], [0, 0, 0]], 0, 2, 9, 1.0, "cpu")  # type: ignore[arg-type]  # fmt: skip  # noqa: E501


RECORDS = [*runs("early_concat", 3), *runs("early_concat", 9, trials=4), *runs("gated", 5), *runs("gated", 5, trials=4)]
TRIALS = [trial(runs("early_concat", 3)[0], number, hits) for number, hits in enumerate([4, 6, 9, 5, 10])]
TRIALS += [trial(runs("gated", 5)[0], number, hits) for number, hits in enumerate([7, 3])]


def shown(records: list[RunRecord] = RECORDS, trials: list[TrialRecord] = TRIALS) -> Table:
    (table,) = tables(records)
    return with_trials(table, trials)


@pytest.mark.parametrize("draws", [1, 2, 3])
def test_the_expected_best_is_that_of_all_draws(draws: int) -> None:
    scores = [0.3, 0.7, 0.7, 0.1]
    every = [max(drawn) for drawn in product(scores, repeat=draws)]
    assert expected_best(scores, draws) == pytest.approx(np.mean(every))


def test_settings_that_differ_between_runs_make_one_tuned_row() -> None:
    table = shown()
    assert {row.label.removesuffix(row.mark): row.complete for row in table.rows} == {
        "early_concat (hidden=64, tuned in 4 trials)": 3, "early_concat (hidden=64)": 3,
        "gated (hidden=64)": 3, "gated (hidden=64, tuned in 4 trials)": 3,
    }  # fmt: skip
    assert all(row.spec.training == Training() for row in table.rows)
    assert not any("Trained with" in text for text in report.leaderboard(RECORDS, []).splitlines())


def test_the_folds_of_a_tuned_row_are_pooled_whatever_each_has_chosen() -> None:
    """Both rows have all folds, and the score of the tuned one is that of its pooled folds."""
    folds = []
    for fold in (1, 2, 3):
        for record, hits in zip((runs("gated", 5)[0], runs("gated", 5, trials=4)[fold - 1]), (5, 8), strict=True):
            scored = clustered("gated", 0, hits, fold=fold)
            folds.append(
                replace(record, spec=replace(record.spec, fold=fold, seed=0), test_confusion=scored.test_confusion)
            )
    (table,) = tables(folds)
    assert [(row.complete, len(row.records)) for row in table.rows] == [(1, 3), (1, 3)]
    best = table.rows[0]
    assert best.spec.tuned
    assert len({str(record.spec.options) for record in best.records}) == 3
    assert best.pooled[0].tolist() == np.sum([record.test_confusion for record in best.records], 0).tolist()


def test_two_budgets_and_two_spaces_are_rows_of_their_own() -> None:
    more = runs("early_concat", 6, trials=8)
    other = [
        replace(r, spec=replace(r.spec, tuned=replace(r.spec.tuned, space="new"))) for r in runs("gated", 6, trials=4)
    ]
    assert len(shown([*RECORDS, *more, *other]).rows) == 6


def test_gains_are_paired_and_corrected_over_the_tuned_rows() -> None:
    table = shown()
    pairs = list(table.tuned.items())
    found = [difference(table.evidence[row], table.evidence[default]) for row, default in pairs if default]
    assert list(table.tuned_effects.values()) == list(zip(found, holm([one.p for one in found]), strict=True))
    head, first, second = tuning_lines(table)
    by_name = {line[0].split(" ")[0]: line for line in (first, second)}
    assert head[-3:] == ("After 1", "After 2", "After 4")
    assert by_name["Early"][2:5] == ("4", *(row.score("weighted_f1") for row in (pairs[0][1], pairs[0][0]) if row))
    assert not by_name["Early"][5].endswith("≈")
    assert by_name["GMU"][5].endswith("≈")


def test_validation_counts_the_trials_of_the_budget_alone() -> None:
    table = shown()
    tuning = next(each for each in tunings(table) if each.trials[0].spec.method == "early_concat")
    (scores,) = tuning.scores
    assert len(scores) == 4  # the fifth trial is beyond what the tuned row chose from
    assert tuning.validation_gain == pytest.approx(TRIALS[2].score - TRIALS[0].score)
    assert tuning.expected(2) == pytest.approx(expected_best(scores, 2))
    line = next(line for line in tuning_lines(table) if line[0].startswith("Early"))
    assert line[7] == f"+{100 * tuning.validation_gain:.1f}"


def test_few_seeds_say_nothing_of_a_gain() -> None:
    table = shown([*runs("gated", 5, seeds=1), *runs("gated", 5, seeds=1, trials=4)])
    assert "≈" not in tuning_lines(table)[1][5]
    assert len(list(tuning_notes(table))) == 1
    notes = list(tuning_notes(shown()))
    assert "of 2 rows it is shown to help 1 (Early concatenation) and to harm none" in notes[1]


def test_trials_stand_alone_until_what_they_chose_is_trained() -> None:
    (_, line) = tuning_lines(shown(runs("early_concat", 3), TRIALS[:4]))
    assert line[4:7] == ("–", "–", "–")
    assert line[7].startswith("+")
    assert tuning_lines(shown(trials=[])) == []
    assert "| Tuning " not in report.leaderboard(RECORDS, [])
    assert "| Tuning " in report.leaderboard(RECORDS, [], trials=TRIALS)


def test_the_page_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    page = pytest.importorskip("mer_bench.report.page")
    monkeypatch.setattr(page, "draw", lambda found, *_: ({page.plots.slug(table): [] for table in found}, []))
    assert "<summary>Tuning: " not in page.page(RECORDS, published=[])
    text = page.page(RECORDS, published=[], trials=TRIALS)
    start = text.index("<summary>Tuning: ")
    cells = re.findall(r'<td(?: class="number")?>(.*?)</td>', text[start : text.index("</table>", start)])
    assert cells == [html.escape(cell) for line in tuning_lines(shown())[1:] for cell in line[1:]]


def test_trials_of_other_features_or_versions_are_not_of_the_table() -> None:
    stranger = replace(TRIALS[0], spec=replace(TRIALS[0].spec, features_sha256={"audio": "f" * 64, "text": "f" * 64}))
    older = replace(TRIALS[0], spec=replace(TRIALS[0].spec, version=1))
    assert shown(trials=[stranger, older]).trials == ()


def test_over_several_tables_a_method_is_the_row_that_was_not_tuned() -> None:
    table = shown()
    default = next(row for row in table.rows if row.method == "early_concat" and not row.spec.tuned)
    assert ranked(table).scores["early_concat"][1] == default.weighted_f1


SUITE = """
dataset = "{dataset}"
label_set = "{label_set}"
protocol = "{protocol}"
seeds = [0]
chosen = \"\"\"
By hand, on
a *guess*.\"\"\"

[[table]]
features = {{ audio = "mfcc", text = "minilm" }}
methods = [{{ name = "early_concat", options = {{ hidden = 64 }} }}]
"""


def test_a_table_says_how_the_suites_that_train_it_were_set(tmp_path: Path) -> None:
    spec = RECORDS[0].spec
    splits = {name: getattr(spec, name) for name in ("dataset", "label_set", "protocol")}
    sets = ", ".join(f'{modality} = "{name}"' for modality, name in spec.features.items())
    text = SUITE.format(**splits).replace('audio = "mfcc", text = "minilm"', sets)
    (tmp_path / "mine.toml").write_text(text)
    (tmp_path / "broken.toml").write_text("dataset = ")
    recipes = committed_recipes(tmp_path)
    table = with_settings(shown(), recipes)
    assert table.settings == (
        "Settings (`mine.toml`, 2 of 4 rows): By hand, on a \\*guess\\*.",
        "Rows with options of their own beside those that all share: Early concatenation.",
        "No suite trains these rows today: GMU.",
    )
    assert table.settings[0] in list(facts(table))
    assert with_settings(shown(), []).settings == ()
    tuned = next(row for row in table.rows if row.spec.tuned and row.method == "early_concat")
    assert "mine.toml" in dict(commands(tuned, recipes, lambda record: tmp_path))["The row"]
