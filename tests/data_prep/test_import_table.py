"""The utterance table of one's own corpus, from any CSV."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from data_prep.__main__ import main
from mer_bench.utterances import read_table


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_columns_get_the_names_of_the_table_and_dialogues_are_put_together(tmp_path: Path) -> None:
    source = tmp_path / "own.csv"
    source.write_text(
        "\ufefffile,who,talk,feeling,part,start\r\na1,ann,x,happy,Train,0.5\r\nb1,bob,y,sad,dev,\r\na2,bob,x,sad,TEST,2\r\n",
        encoding="utf-8",
        newline="",
    )
    pairs = ["id=file", "speaker=who", "dialogue=talk", "emotion=feeling", "split=part"]
    columns = [word for pair in pairs for word in ("--column", pair)]
    code, said = run("import-table", "--source", source, "--to", tmp_path / "lab", *columns)
    assert code == 0
    assert "3 utterances in 2 dialogues; sad 2, happy 1" in said
    assert "corpus.toml" in said
    table = read_table(tmp_path / "lab")
    assert table["id"].tolist() == ["a1", "a2", "b1"]
    assert table["turn"].tolist() == [0, 1, 0]
    assert table["split"].tolist() == ["train", "test", "validation"]
    assert table["start"].tolist()[:2] == [0.5, 2.0]


def test_without_dialogues_each_utterance_is_one(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("id,emotion\na,happy\nb,sad\n")
    assert run("import-table", "--source", tmp_path / "own.csv", "--to", tmp_path / "lab")[0] == 0
    assert read_table(tmp_path / "lab")["dialogue"].tolist() == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("", [], "is not a readable CSV"),
        ("name,emotion\na,happy\n", [], "an utterance, or one without an id"),
        ("id,emotion\n", [], "has no utterance"),
        ("id,emotion\n,happy\n", [], "without an id"),
        ("id,emotion\na,happy\na,sad\n", [], "holds the id 'a' more than once"),
        ("id,emotion\na,happy\n", ["--column", "speaker=who"], "unknown column of"),
        ("id,emotion\na,happy\n", ["--column", "speeker=id"], "did you mean 'speaker'?"),
        ("id,emotion\na,happy\n", ["--column", "speaker"], "--column takes NAME=COLUMN"),
        ("id,start\na,soon\n", [], "no number of seconds"),
        ("id,split\na,elsewhere\n", [], "the split 'elsewhere' is none of train, validation and test"),
    ],
)
def test_a_mistake_is_one_sentence_and_makes_nothing(
    tmp_path: Path, text: str, arguments: list[str], said: str
) -> None:
    (tmp_path / "own.csv").write_text(text)
    code, output = run("import-table", "--source", tmp_path / "own.csv", "--to", tmp_path / "lab", *arguments)
    assert code == 2
    assert said.replace("an utterance, or", "no utterance, or") in output
    assert not (tmp_path / "lab").exists()


def test_the_folder_s_name_is_that_of_the_corpus_and_is_checked(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("id,emotion\na,happy\n")
    code, output = run("import-table", "--source", tmp_path / "own.csv", "--to", tmp_path / "my corpus")
    assert code == 2
    assert "the corpus 'my corpus' must be a name" in output
