"""Plots: one per table and kind, equal bytes for equal records, and nothing is drawn that is not known."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import leaderboard
from test_compare import record

from mer_bench.errors import Misuse
from mer_bench.metrics import weighted_f1
from mer_bench.records import RunRecord
from mer_bench.report import look, plots
from mer_bench.report.across import across, ranked
from mer_bench.report.cache import open_cache
from mer_bench.report.names import slug
from mer_bench.report.tables import tables

pytest.importorskip("matplotlib")
from matplotlib.text import Text

WRONG = {"a": [7], "b": [7, 20, 40], "c": list(range(0, 60, 4)), "majority": list(range(20, 60))}


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    made = [replace(record(name, seed, wrong), parameters=10 ** (3 + index))
            for index, (name, wrong) in enumerate(WRONG.items()) for seed in range(2)]  # fmt: skip
    return [measured(one) for one in made]


def measured(one: RunRecord) -> RunRecord:
    """A run with a curve, without errors at its best test epoch, and with half of its hits lost under disturbances."""
    if one.spec.method == "majority":
        return one
    matrix = np.array(one.test_confusion)
    half = matrix // 2 + np.roll(matrix - matrix // 2, 1, axis=1)
    return replace(
        one,
        curve=[{"val/weighted_f1": 0.1 * epoch} for epoch in range(4)],
        literature=[one.test_confusion, np.diag(matrix.sum(1)).tolist()],
        robustness={"missing": {"0.1": one.test_confusion, "0.5": half.tolist()}, "noise": {"20": half.tolist()}},
    )


@pytest.fixture(scope="module")
def written(records: list[RunRecord], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The pictures of a table that has all kinds of them."""
    half = [replace(one, spec=replace(one.spec, share=0.5)) for one in records if one.spec.method == "a"]
    return plots.write([*records, *half], tmp_path_factory.mktemp("written"))


def test_every_kind_is_drawn_and_equal_records_give_equal_bytes(
    records: list[RunRecord], written: list[Path], tmp_path: Path
) -> None:
    assert {path.name for path in written} == {
        f"meld-emotion-official-utterance-minilm-{kind}.svg" for kind in plots.PLOTS
    }
    half = [replace(one, spec=replace(one.spec, share=0.5)) for one in records if one.spec.method == "a"]
    for path, again in zip(written, plots.write([*half, *records[::-1]], tmp_path), strict=True):
        assert path.name == again.name
        assert path.read_bytes() == again.read_bytes()


def test_names_and_numbers_stand_in_the_picture_as_text(records: list[RunRecord], written: list[Path]) -> None:
    texts = {}
    for path in written:
        svg = path.read_text(encoding="utf-8")
        assert not re.search(r"<dc:date>|20\d\d-\d\d", svg)
        texts[path.stem.rpartition("-")[2]] = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    names = [text.removesuffix(" (text)") for text in texts["ranking"]]
    assert [name for name in names if name in {*WRONG, "Majority class"}] == [
        "a",
        "b",
        "c",
        "Majority class",
    ]  # best first
    assert "Majority class" not in texts["classes"]
    assert {"angry", "happy", "sad", "true class"} <= set(texts["confusion"])
    assert "98" in texts["classes"]
    assert {"a", "b", "c"} <= set(texts["frontier"])
    for kind in ("operations", "learning", "literature", "robustness"):
        assert {"a", "b", "c"} <= {text.removesuffix(" (text)") for text in texts[kind]}
    assert "Majority class" not in texts["literature"] + texts["robustness"]
    gaps = [float(text) for text in texts["literature"] if text.startswith("+")]
    assert gaps == sorted(gaps)  # the best row has least to gain
    honest = [100 * weighted_f1(np.array(records[2 * index].test_confusion)) for index in range(3)]
    assert gaps == pytest.approx([100 - score for score in honest], abs=0.06)
    assert {"undisturbed", "10 %", "50 %", "20 dB"} <= set(texts["robustness"])


def test_names_beside_points_never_cover_each_other() -> None:
    """Forty methods of nearly equal cost and score."""
    crowd = [replace(record(f"method_{i}", 0, list(range(i // 4))), parameters=10_000 + 20 * i) for i in range(40)]
    (table,) = tables(crowd)
    figure = plots.frontier(table)
    assert figure is not None
    figure.draw_without_rendering()
    boxes = [note.get_window_extent() for note in figure.axes[0].texts if note.get_text()]
    assert len(boxes) == 40
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]


def test_names_without_room_are_left_out_and_told() -> None:
    page = look.sheet("title", "facts", "shows", 2.0)
    axes = page.axes(0.5, 0.0, 2.0, 1.5)
    points = {f"method {i}": (0.5, 0.5) for i in range(60)}
    unnamed = look.label_points(axes, points)
    shown = [note for note in axes.texts if note.get_text()]
    assert 0 < len(unnamed) < 60
    assert {note.get_text() for note in shown} | set(unnamed) == set(points)
    boxes = [note.get_window_extent() for note in shown]
    assert not [(a, b) for a, b in combinations(boxes, 2) if a.overlaps(b)]


# Several tables


def over_tables(scores: dict[str, list[int]], **changes: Any) -> list[RunRecord]:
    """Runs of methods, with three seeds each, with these numbers of errors in table 0, 1, 2 ..."""
    made = [
        (record(name, seed, list(range(wrong))), f"set{index}")
        for name, errors in scores.items() for index, wrong in enumerate(errors) for seed in range(3)
    ]  # fmt: skip
    return [
        replace(one, spec=replace(one.spec, features={"text": name}, features_sha256={"text": name}), **changes)
        for one, name in made
    ]


ERRORS = {"a": [1, 2, 3], "b": [4, 5, 6], "c": [7, 8, 9], "d": [2, 9, 1]}


def test_methods_are_ranked_over_the_tables_of_a_track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = over_tables({"e": [1]})  # is in one table only
    (found,) = across(map(ranked, tables(over_tables(ERRORS) + few)))
    assert found.methods == ("a", "d", "b", "c")
    assert found.test is not None
    assert found.test.ranks == pytest.approx((4 / 3, 7 / 3, 8 / 3, 11 / 3))
    page = leaderboard(over_tables(ERRORS), [])
    assert "# Tests over several tables\n" in page
    assert "4 methods over 3 tables of one corpus: Friedman chi² = 5.00, df = 3, p = 0.172; critical difference" in page
    monkeypatch.setattr(plots, "PLOTS", {})
    ((path,), (again,)) = (plots.write(over_tables(ERRORS), tmp_path / folder) for folder in ("first", "second"))
    assert path.read_bytes() == again.read_bytes()
    assert path.name == "real-utterance-critical.svg"
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))
    assert "Real corpora, single utterances: 3 tables" in texts
    result = "Friedman chi² = 5.00, df = 3, p = 0.172; critical difference 2.71 (Nemenyi, 5 %)"
    assert f"4 methods; {result}" in texts


def test_rows_with_fewer_than_three_seeds_are_not_compared_over_tables() -> None:
    two = [one for one in over_tables(ERRORS) if one.spec.method != "d" or one.spec.seed < 2]
    (found,) = across(map(ranked, tables(two)))
    assert found.methods == ("a", "b", "c")
    assert across(map(ranked, tables([one for one in over_tables(ERRORS) if one.spec.seed < 2]))) == []


@pytest.mark.parametrize(
    ("seeds", "marks"),
    [
        (3, [look.BEST, look.TIED, look.REFERENCE, look.BEHIND]),
        (2, [look.UNTESTED, look.UNTESTED, look.REFERENCE, look.UNTESTED]),
    ],
)
def test_the_ranking_marks_best_tied_behind_and_references_and_has_crosses_where_nothing_is_tested(
    seeds: int, marks: list[look.Mark]
) -> None:
    wrong = {"a": [7], "b": [7, 20 + seeds], "linear": [7, 9, 20, 40], "c": list(range(0, 60, 2))}
    (table,) = tables([record(name, seed, rows) for name, rows in wrong.items() for seed in range(seeds)])
    assert [row.method for row in table.rows] == list(wrong)
    figure = plots.ranking(table)
    assert figure is not None
    dots = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", "", None)]
    assert [(dot.get_marker(), dot.get_markerfacecolor()) for dot in dots] == [
        (mark.shape, mark.colour if mark.filled else "white") for mark in marks
    ]
    texts = {text.get_text() for text in figure.findobj(Text)}
    assert {mark.words for mark in marks} == texts & {mark.words for mark in look.MARKS}  # the legend has no others
    assert ("1–2" in texts) == (seeds == 3)  # the interval of a rank


def test_only_scores_below_the_axis_of_a_ranking_are_triangles() -> None:
    every = {"majority": list(range(0, 60, 6)), "linear": list(range(58))}
    wrong = {"a": [7], "b": [7, 20], "c": [7, 20, 40], "d": list(range(0, 60, 4))} | every
    (table,) = tables([record(name, seed, rows) for name, rows in wrong.items() for seed in range(3)])
    figure = plots.ranking(table)
    assert figure is not None
    (axes,) = figure.axes
    below = [row.method for row in table.rows if 100 * row.weighted_f1 < axes.get_xlim()[0]]
    assert below == ["linear"]  # and not the majority class
    triangles = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "<"]
    assert triangles == [[row.method for row in table.rows].index("linear")]
    assert "a triangle" in axes.get_xlabel()


def test_marks_differ_without_colour() -> None:
    assert len({(mark.shape, mark.filled) for mark in look.MARKS}) == len(look.MARKS)


def crowd(methods: int) -> list[RunRecord]:
    """Runs of so many methods, each with one error more than the one before, and of the linear model, which is last."""
    names = [f"m{i:02}" for i in range(methods)] + ["linear"]
    return [replace(record(name, 0, list(range(i))), parameters=10_000 + 20 * i) for i, name in enumerate(names)]


def test_long_tables_keep_their_references_and_say_what_is_left_out() -> None:
    (table,) = tables(crowd(55))
    for draw, most in ((plots.ranking, plots.ROWS), (plots.per_class, plots.METHODS)):
        figure = draw(table)
        assert figure is not None
        names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert names == [f"m{i:02}" for i in range(most - 1)] + ["Linear"]
        assert f"Not shown: {56 - most} ranked rows of lower score." in {each.get_text() for each in figure.texts}
        assert figure.get_figheight() < 10


def test_one_low_score_does_not_squeeze_the_cost_picture() -> None:
    low = [replace(record("low", 0, list(range(55))), parameters=9_000)]
    for added, cut in ((low, True), ([], False)):
        (table,) = tables([*crowd(12), *added])
        figure = plots.frontier(table)
        assert figure is not None
        (axes,) = figure.axes
        assert axes.get_xscale() == "log"
        assert "logarithmic axis" in axes.get_xlabel()
        assert axes.get_ylim()[0] > 75  # the others have 80 to 100
        assert ("axis cut" in axes.get_ylabel()) == cut
        score = f"low {100 * table.rows[-1].weighted_f1:.1f}"
        assert (score in {text.get_text() for text in axes.texts}) == cut
        assert sum(line.get_marker() == "v" for line in axes.lines) == cut


def test_robustness_has_a_panel_for_each_disturbance_on_one_axis_with_the_highest_in_each(
    records: list[RunRecord],
) -> None:
    (table,) = tables(records)
    figure = plots.robustness(table)
    assert figure is not None
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["undisturbed", "10 %", "50 %", "undisturbed", "20 dB"]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert shown == [f"{100 * row.weighted_f1:.1f}" for row in table.ranks if row.retention]
    words = {text.get_text() for text in figure.texts}
    assert {"highest in its panel", look.UNTESTED.words} <= words
    assert not words & {look.BEST.words, look.BEHIND.words}  # which none of these rows is
    for axes in figure.axes:
        best = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == look.BEST.shape]
        points = [line.get_xdata()[0] for line in axes.lines if line.get_marker() not in ("None", "", None)]
        assert set(best) == {max(points)}


def test_names_that_are_too_long_keep_both_ends() -> None:
    name = "Single modality, audio, dropout = 0.5, hidden = 128"
    short = look.fitted(name, 2.0)
    assert look.text_width(short) <= 2.0 < look.text_width(name)
    assert short.startswith("Single mod")
    assert short.endswith("= 128")
    assert look.fitted("TFN", 2.0) == "TFN"


def test_texts_are_texts_in_a_generic_font(written: list[Path]) -> None:
    for path in written:
        svg = path.read_text(encoding="utf-8")
        assert svg.count("<text") > 5
        assert set(re.findall(r"font-family[:=] ?[^;>]*?['\"]?([\w-]+)[\"';]", svg)) == {"sans-serif"}
        assert "DejaVu" not in svg


def test_the_index_has_every_picture_once_under_its_table(
    records: list[RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "PLOTS", {kind: plots.PLOTS[kind] for kind in ("confusion", "ranking")})
    demo = [replace(one, simulated=True, spec=replace(one.spec, dataset="demo")) for one in records]
    made = plots.write([*records, *demo], tmp_path)
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall('<img src="([^"]*)"', page)) == sorted(path.name for path in made)
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings == [
        "# Pictures", "## MELD", "### MELD, emotion, official split, single utterances",
        "## demo", "### demo, emotion, official, single utterances",
    ]  # fmt: skip
    plots.write([*demo, *records][::-1], tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == page
    plots.write(demo, tmp_path)
    assert "MELD" not in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_a_page_of_somebody_else_is_not_overwritten(records: list[RunRecord], tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# mine")
    with pytest.raises(Misuse, match="name another folder with --output"):
        plots.write(records, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert (tmp_path / "README.md").read_text() == "# mine"


def test_the_committed_index_lists_exactly_the_committed_pictures() -> None:
    folder = Path(__file__).parents[2] / "benchmarks" / "plots"
    page = (folder / "README.md").read_text(encoding="utf-8")
    pictures = sorted(path.name for path in folder.iterdir() if path.name != "README.md")
    assert sorted(re.findall('<img src="([^"]*)"', page)) == pictures
    assert sorted(re.findall('<a href="([^"]*)"', page)) == pictures


def test_too_few_tables_or_methods_are_no_test() -> None:
    two = over_tables({name: errors[:2] for name, errors in ERRORS.items()})
    (found,) = across(map(ranked, tables(two)))
    assert found.test is None
    assert "a test over tables needs three of each" in leaderboard(two, [])
    assert across(map(ranked, tables(over_tables({"a": [1, 2, 3], "b": [4, 5, 6]})))) == []


def test_simulated_tables_are_never_mixed_with_real_ones() -> None:
    simulated = over_tables({name: errors[:2] for name, errors in ERRORS.items()}, simulated=True)
    found = across(map(ranked, tables(over_tables({name: errors[:1] for name, errors in ERRORS.items()}) + simulated)))
    assert [(part.simulated, len(part.tables), part.test) for part in found] == [(True, 2, None), (False, 1, None)]


def test_of_several_rows_of_a_method_none_is_chosen_by_its_score() -> None:
    errors = over_tables({"c": [0, 0, 0]})
    better = [replace(one, spec=replace(one.spec, options={"hidden": 9})) for one in errors]
    (found,) = across(map(ranked, tables(over_tables(ERRORS) + better)))
    assert found.methods[-1] == "c"


def test_what_is_not_known_is_not_drawn(records: list[RunRecord], tmp_path: Path) -> None:
    unknown = {"test_by_cluster": None, "curve": [], "literature": None, "robustness": None}
    few = [replace(one, **unknown) for one in records if one.spec.method in ("a", "b")]
    assert {path.stem.rpartition("-")[2] for path in plots.write(few, tmp_path)} == {"classes", "confusion"}


def test_pictures_of_tables_that_are_gone_are_removed(records: list[RunRecord], tmp_path: Path) -> None:
    (tmp_path / "old-table-ranking.svg").write_text("")
    (tmp_path / "notes.txt").write_text("mine")
    made = plots.write(records, tmp_path, ("svg", "png"))
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in made} | {"notes.txt", "README.md"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made if path.suffix == ".png")


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(plots, "version", version)
    with pytest.raises(Misuse, match=r"pip install 'mer-bench\[report\]'"):
        plots.write([], tmp_path)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tables that are drawn; "" are the pictures of several tables."""
    found: list[str] = []
    original = plots._files

    def files(name: str, *others: Any) -> dict[str, bytes]:
        found.append(name)
        return original(name, *others)

    monkeypatch.setattr(plots, "_files", files)
    return found


def test_a_picture_is_drawn_once_for_what_it_shows(
    records: list[RunRecord], tmp_path: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    cache = open_cache(tmp_path)
    other = [replace(one, spec=replace(one.spec, label_set="sentiment")) for one in records]
    names = [slug(table) for table in tables([*records, *other])]
    first = plots.draw(tables([*records, *other]), cache=cache)
    assert drawn == [*names, ""]
    drawn.clear()
    assert plots.draw(tables([*other, *records]), cache=cache) == first
    assert drawn == []
    changed = [replace(one, parameters=one.parameters + 1) for one in other]
    second = plots.draw(tables([*records, *changed]), cache=cache)
    assert drawn == [names[1], ""]
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} == {f"{names[1]}-frontier.svg"}
    drawn.clear()
    assert {name.rpartition(".")[2] for name in plots.draw(tables(records), ("png",), cache=cache)} == {"png"}
    assert drawn == [names[0], ""]


def test_pictures_that_are_drawn_side_by_side_are_the_same(
    records: list[RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "PLOTS", {kind: plots.PLOTS[kind] for kind in ("confusion", "ranking", "frontier")})
    found = tables([*records, *(replace(one, spec=replace(one.spec, label_set="sentiment")) for one in records)])
    assert plots.draw(found, jobs=2) == plots.draw(found)
