"""IEMOCAP's raters, from small files in the form of the release."""

from __future__ import annotations

from pathlib import Path

import pytest
from recordings import iemocap_files, refused, works, write_files

from data_prep.corpora import iemocap
from data_prep.corpora.iemocap_raters import read_ratings
from mer_bench.raters import FILE, read_raters
from mer_bench.utterances import read_table

ROWS = [
    (6.0, "Ses01F_impro01_F000", "neu", "Excuse me."),
    (8.0, "Ses01F_impro01_M000", "fru", "Do you have your forms?"),
    (1.0, "Ses02M_script01_1_F000", "xxx", "You heard me."),
]
RATED = {
    ROWS[0][1]: "C-E1:\tNeutral;\t()\nC-E2:\tNeutral; Frustration;\t(unsure)\nC-E4:\tNeutral;\t()\nC-F1:\tAnger;\t()\n",
    ROWS[1][1]: "C-E1:\tExcited;\t()\nC-E2:\tExcited;\t()\nC-E4:\tOther;\t()\nC-M1:\tFrustration;\t()\n",
    ROWS[2][1]: "C-E2: Sadness; ()\nC-E3: Surprise; ()\nC-F2: Sadness; Anger; ()\n",
}
SCORES = "A-E1:\tval 3; act 2; dom  3;\t()\n"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    files = iemocap_files(ROWS)
    for path, content in files.items():
        text = content.decode("latin-1")
        for name, lines in RATED.items():
            at = text.find(f"\t{name}\t")
            if "EmoEvaluation/Ses" in path and at >= 0:
                start = text.index("\n", at) + 1
                text = text[:start] + lines + SCORES + text[text.index("C-E2:\tNeutral;\t()\n\n", start) + 18 :]
        files[path] = text.encode("latin-1")
    return iemocap.find_root(write_files(tmp_path / "IEMOCAP_full_release", files))


def test_evaluators_are_read_with_all_their_categories_and_self_reports_are_not(release: Path) -> None:
    assert read_ratings(release) == {
        ROWS[0][1]: {"E1": ["neu"], "E2": ["neu", "fru"], "E4": ["neu"]},
        ROWS[1][1]: {"E1": ["exc"], "E2": ["exc"], "E4": ["oth"]},
        ROWS[2][1]: {"E2": ["sad"], "E3": ["sur"]},
    }


def test_the_option_writes_them_beside_the_table(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.prepare.iemocap.extract_text_sets", lambda corpus, **_: None)
    command = "iemocap", "--raw", release, "--out", tmp_path, "--partial"
    assert "raters" not in works(*command)
    assert not (tmp_path / "iemocap" / FILE).exists()
    said = works(*command, "--raters")
    assert "raters: 8 ratings of 3 utterances by 4 evaluators; 2 have a category of more than half of them" in said
    assert "the label of 1 (50%)" in said  # two say excited where the label is frustrated
    table = read_table(tmp_path / "iemocap")
    assert read_raters(tmp_path / "iemocap", list(table["id"])) == read_ratings(release)


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("C-E1:\tNeutral;\t()", "C-E1:\tNeutral", 4, "'C-E1:\\tNeutral' is no rating; expected C-E1: category; ()"),
        ("C-E1:\tNeutral;\t()", "C-E1:\t;\t()", 4, "'C-E1:\\t;\\t()' is no rating"),
        ("C-E1:\tNeutral;\t()", "C-X1:\tNeutral;\t()", 4, "'C-X1:\\tNeutral;\\t()' is no rating"),
        ("C-F1:\tAnger;\t()", "C-F1:\tAnger", 7, "'C-F1:\\tAnger' is no rating"),
        ("C-E1:\tNeutral;", "C-E1:\tNeutrall;", 4, "'Neutrall': did you mean 'Neutral'?"),
        ("C-E4:\tNeutral;", "C-E1:\tNeutral;", 6, "E1 has another rating of Ses01F_impro01_F000 before"),
        ("Neutral; Frustration;", "Neutral; Neutral;", 5, "Neutral;\\t(unsure)' names a category twice"),
        ("[6.0000", "C-E1:\tNeutral;\t()\n[6.0000", 3, "' stands before the first utterance of its file"),
    ],
)
def test_a_malformed_line_is_named_with_its_file(release: Path, old: str, new: str, line: int, reason: str) -> None:
    (path,) = release.rglob("EmoEvaluation/Ses01F_impro01.txt")
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    message = refused("iemocap", "--raw", release, "--out", release.parent, "--partial", "--raters")
    assert f"{path}, line {line}: " in message
    assert reason in message


def test_a_release_without_lines_of_raters_is_refused(release: Path) -> None:
    for path in release.rglob("EmoEvaluation/Ses*.txt"):
        path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("C-")))
    message = refused("iemocap", "--raw", release, "--out", release.parent, "--partial", "--raters")
    assert "hold no lines of raters" in message
