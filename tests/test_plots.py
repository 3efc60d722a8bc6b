"""Pictures: one for each table and kind, the same bytes for the same records, nothing drawn that is not known."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_compare import record

from mer_bench import plots
from mer_bench.errors import Misuse
from mer_bench.records import RunRecord

pytest.importorskip("matplotlib")

WRONG = {"a": [7], "b": [7, 20, 40], "c": list(range(0, 60, 4)), "majority": list(range(20, 60))}


@pytest.fixture(scope="module")
def records() -> list[RunRecord]:
    made = [replace(record(name, seed, wrong), parameters=10 ** (3 + place))
            for place, (name, wrong) in enumerate(WRONG.items()) for seed in range(2)]  # fmt: skip
    curve = [{"val/weighted_f1": 0.1 * epoch} for epoch in range(4)]
    return [replace(one, curve=[] if one.spec.method == "majority" else curve) for one in made]


def test_every_kind_is_drawn_and_equal_records_give_equal_bytes(records: list[RunRecord], tmp_path: Path) -> None:
    first = plots.write(records, tmp_path / "first")
    assert {path.stem.rpartition("-")[2] for path in first} == set(plots.PLOTS)
    for path, again in zip(first, plots.write(records[::-1], tmp_path / "second"), strict=True):
        assert path.name == again.name == f"meld-emotion-official-utterance-minilm-{path.stem.rpartition('-')[2]}.svg"
        assert path.read_bytes() == again.read_bytes()


def test_names_and_numbers_stand_in_the_picture_as_text(records: list[RunRecord], tmp_path: Path) -> None:
    texts = {}
    for path in plots.write(records, tmp_path):
        svg = path.read_text(encoding="utf-8")
        assert not re.search(r"<dc:date>|20\d\d-\d\d", svg)
        texts[path.stem.rpartition("-")[2]] = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    names = [text.removesuffix(" (text)") for text in texts["ranking"]]
    assert [name for name in names if name in WRONG] == ["a", "b", "c", "majority"]  # best first
    assert "majority" not in texts["classes"]
    assert {"angry", "happy", "sad", "true"} <= set(texts["confusion"])
    assert "98" in texts["classes"]
    assert {"a", "b", "c"} <= set(texts["frontier"])
    assert {"a", "b", "c"} <= set(texts["learning"])


def test_what_is_not_known_is_not_drawn(records: list[RunRecord], tmp_path: Path) -> None:
    few = [replace(one, test_by_cluster=None, curve=[]) for one in records if one.spec.method in ("a", "b")]
    assert {path.stem.rpartition("-")[2] for path in plots.write(few, tmp_path)} == {"classes", "confusion"}


def test_pictures_of_tables_that_are_gone_are_removed(records: list[RunRecord], tmp_path: Path) -> None:
    (tmp_path / "old-table-ranking.svg").write_text("")
    (tmp_path / "notes.txt").write_text("mine")
    made = plots.write(records, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in made} | {"notes.txt"}


def test_png_is_written_too(records: list[RunRecord], tmp_path: Path) -> None:
    made = plots.write(records, tmp_path, ("png",))
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(Misuse, match=r"pip install 'mer-bench\[report\]'"):
        plots.write([], tmp_path)
