"""Word vectors: read line by line, checked, and stored only for the words of a corpus."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recordings import lengths, works, write_corpus

from data_prep.corpora.base import Unreadable
from data_prep.extract import MISSING
from data_prep.extractors.glove import WordVectors, encode_words, read_vectors, tokens
from mer_bench.errors import Misuse
from mer_bench.features import verify_features

LINES = ["the 1 0 0", "Do 0 1 0", "do 9 9 9", "n't 0 0 1", ". 0.5 0.5 0.5", "café 2 2 2", ". . 7 7 7", "go -1 1e-3 0 "]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "GloVe.tiny.3d.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't go.", "Do n't go ."),
        ("I’m sure they'll say it's Joey's…", "I 'm sure they 'll say it 's Joey 's …"),
        ("CAN'T  wait--really?!", "CA N'T wait - - really ? !"),
        ("the 'quoted' word, 3.5%", "the ' quoted ' word , 3 . 5 %"),
        ("café", "café"),
        (" \n", ""),
    ],
)
def test_tokens(text: str, expected: str) -> None:
    assert " ".join(tokens(text)) == expected


def test_a_word_is_looked_up_as_written_and_then_in_lower_case(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["Don't go.", "do DO The zebra", "Zebra zebra", "Café"]
    vectors = WordVectors(file, texts)
    first, second, third, fourth = encode_words(texts, vectors, pooling="tokens")
    np.testing.assert_allclose(first, [[0, 1, 0], [0, 0, 1], [-1, 1e-3, 0], [0.5] * 3])
    np.testing.assert_array_equal(second, [[9] * 3, [9] * 3, [1, 0, 0]])  # "DO" has the vector of "do"
    assert isinstance(third, Unreadable)
    np.testing.assert_array_equal(fourth, [[2, 2, 2]])
    (mean, *_) = encode_words(texts, vectors, pooling="mean")
    np.testing.assert_allclose(mean, first.mean(axis=0, keepdims=True))  # type: ignore[union-attr]
    assert first.dtype == mean.dtype == np.float32  # type: ignore[union-attr]
    said = capsys.readouterr().err
    assert said.count("no vector for") == 1
    assert "no vector for 3 of 11 tokens (27.3 %), 2 different ones, omitted: zebra 2, Zebra 1" in said
    assert vectors.parameters() == 24


def test_only_used_vectors_are_stored_and_word2vecs_header_is_skipped(file: Path) -> None:
    found, size = read_vectors(file, {"the", "go", "absent", ". ."})
    assert (sorted(found), size) == ([". .", "go", "the"], 24)
    np.testing.assert_array_equal(found[". ."], [7, 7, 7])
    headed = file.with_name("headed.txt")
    headed.write_text("8 3\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    again, size = read_vectors(headed, {"the", "go", "absent", ". ."})
    assert size == 24
    assert all((again[word] == found[word]).all() for word in found)
    repeated = file.with_name("repeated.txt")
    repeated.write_text("a 1 2\nb 3 4\na 5 6\n")
    np.testing.assert_array_equal(read_vectors(repeated, {"a"})[0]["a"], [1, 2])


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("broken 1 2", "line 9 holds 2 numbers instead of 3"),
        ("cut", "line 9 holds 0 numbers instead of 3"),
        ("used 1 2 x", r"line 9 \(used\) lacks 3 finite numbers"),
        ("used 1 nan 2", r"line 9 \(used\) lacks 3 finite numbers"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(file: Path, line: str, complaint: str) -> None:
    file.write_text("\n".join([*LINES, line, "last 1 2 3"]) + "\n", encoding="utf-8")
    with pytest.raises(Misuse, match=complaint):
        read_vectors(file, {"the", "used"})


def test_files_without_word_vectors_are_refused(file: Path) -> None:
    with pytest.raises(Misuse, match="for 8 words, but for none that the transcripts use"):
        read_vectors(file, {"absent"})
    file.write_bytes(b"PK\x03\x04 not unpacked")
    with pytest.raises(Misuse, match="not a file of word vectors"):
        read_vectors(file, {"the"})
    file.write_bytes(b"")
    with pytest.raises(Misuse):
        read_vectors(file, {"the"})


def test_the_text_command_takes_word_vectors(file: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "data", list("abcd"), text=["Don't go.", "", "zebra", "the"])
    command = ("text", "--table", corpus, "--glove", file)
    assert "no vector for 1 of 6 tokens" in works(*command)
    spec = verify_features(corpus / "glove.tiny.3d-tokens")
    assert (spec.extractor, spec.modality, spec.dim, spec.extractor_parameters) == ("GloVe.tiny.3d", "text", 3, 24)
    assert str(tmp_path) not in str(spec)
    assert lengths(corpus / "glove.tiny.3d-tokens") == [4, 0, 0, 1]
    missing = pd.read_csv(corpus / "glove.tiny.3d-tokens" / MISSING)
    assert missing["reason"].tolist() == ["there is no transcript of it", "none of its words has a vector"]
    assert "already done" in works(*command)
    works(*command, "--pooling", "mean")
    assert verify_features(corpus / "glove.tiny.3d").frames == 2
    file.write_text(file.read_text(encoding="utf-8") + "more 1 2 3\n", encoding="utf-8")
    assert "already done" not in works(*command)
