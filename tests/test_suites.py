"""The form of suite files; tests/training/test_suite.py has what depends on methods and corpora."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mer_bench.errors import Misuse
from mer_bench.records import Training
from mer_bench.suites import read_suite_file

SUITE = """
dataset = ["meld", "iemocap"]
label_set = "six"
protocol = "official"
seeds = [0, 3]
measure = ["literature"]

[training]
epochs = 4
learning_rate = 1e-3

[[table]]
features = { text = "minilm", audio = "mfcc" }
options = { dropout = 0.5 }
methods = [
  "early_concat",
  { name = "cfn_sr", modalities = ["audio"], options = { hidden = 8 }, training = { epochs = 2 } },
]

[[table]]
features = { text = "minilm" }
training = { batch_size = 8 }
methods = ["bc_lstm"]
"""


def test_a_suite_says_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(SUITE, encoding="utf-8")
    suite = read_suite_file(path)
    assert (suite.datasets, suite.label_set, suite.protocol) == (("meld", "iemocap"), "six", "official")
    assert (suite.seeds, suite.measures) == ((0, 3), ("literature",))
    first, second, third = suite.rows
    assert (first.method, first.features, first.options, first.common) == (
        "early_concat", {"text": "minilm", "audio": "mfcc"}, {}, {"dropout": 0.5},
    )  # fmt: skip
    assert (second.features, second.options, second.common) == ({"audio": "mfcc"}, {"hidden": 8}, {"dropout": 0.5})
    assert [(row.training.epochs, row.training.batch_size) for row in suite.rows] == [(4, 32), (2, 32), (4, 8)]
    assert {row.training.learning_rate for row in suite.rows} == {1e-3}
    assert third.common == {}


def test_a_dataset_that_is_listed_twice_is_one(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_text(SUITE.replace('["meld", "iemocap"]', '["meld", "meld"]'), encoding="utf-8")
    assert read_suite_file(path).datasets == ("meld",)


def test_a_suite_has_what_it_does_not_say_from_the_one_that_it_extends(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE, encoding="utf-8")
    other = tmp_path / "other.toml"
    other.write_text('extends = "suite"\nprotocol = "loso"\nseeds = [7]\n[training]\nepochs = 2\n', encoding="utf-8")
    found, base = read_suite_file(other), read_suite_file(tmp_path / "suite.toml")
    assert (found.file, found.protocol, found.seeds) == (other, "loso", (7,))
    assert (found.datasets, found.label_set, found.measures) == (base.datasets, base.label_set, base.measures)
    assert [(row.method, row.features, row.options) for row in found.rows] == [
        (row.method, row.features, row.options) for row in base.rows
    ]
    assert found.rows[0].training == Training(epochs=2)  # a table replaces that of the other suite as a whole


def test_a_suite_reads_other_feature_sets_instead(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE, encoding="utf-8")
    other = tmp_path / "other.toml"
    other.write_text('extends = "suite"\ninstead = { mfcc = "whisper" }\n', encoding="utf-8")
    found, base = read_suite_file(other).rows, read_suite_file(tmp_path / "suite.toml").rows
    assert found[0].features == {"text": "minilm", "audio": "whisper"}
    assert found[1].features == {"audio": "whisper"}
    assert [replace(row, features={}, where="") for row in found] == [replace(r, features={}, where="") for r in base]
    other.write_text('extends = "suite"\ninstead = { mfc = "whisper" }\n', encoding="utf-8")
    with pytest.raises(Misuse, match=r"other\.toml, instead 'mfc': did you mean 'mfcc'"):
        read_suite_file(other)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("5", "other.toml, extends: its content must be a text, not 5"),
        ('"../suite"', "other.toml, extends: its content must be a name of at most 100 letters"),
        ('"siute"', "unknown suite in .* 'siute': did you mean 'suite'?"),
        ('"other"', "other.toml extends other, which extends another suite: name that one"),
    ],
)
def test_a_suite_that_cannot_be_extended_is_one_sentence(tmp_path: Path, said: str, sentence: str) -> None:
    (tmp_path / "suite.toml").write_text(SUITE, encoding="utf-8")
    (tmp_path / "other.toml").write_text(f"extends = {said}\n", encoding="utf-8")
    with pytest.raises(Misuse, match=sentence):
        read_suite_file(tmp_path / "other.toml")


def test_the_suites_of_iemocap_and_of_ravdess_differ_in_what_their_comments_say() -> None:
    benchmarks = Path(__file__).parents[1] / "benchmarks"
    usual, session5 = (read_suite_file(benchmarks / f"{name}.toml") for name in ("iemocap", "iemocap_session5"))
    assert (usual.protocol, usual.seeds) == ("loso", (0, 1, 2))
    assert (session5.protocol, session5.seeds) == ("session5", (0, 1, 2, 3, 4))
    names = "ravdess", "ravdess_whisper", "ravdess_text"
    ravdess, whisper, text = (read_suite_file(benchmarks / f"{name}.toml") for name in names)
    assert (ravdess.protocol, whisper.protocol, text.protocol) == ("folds6", "folds6", "folds6_text")
    assert (len(ravdess.seeds), len(whisper.seeds), len(text.seeds)) == (1, 5, 1)
    assert {row.features.get("audio") for row in (*whisper.rows, *text.rows)} == {"whisper-base-l3"}
    for one, other in ((usual, session5), (whisper, text)):
        assert [replace(row, where="") for row in one.rows] == [replace(row, where="") for row in other.rows]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"minilm", audio', '"../x", audio', "table[0].features[...] must be a name of at most 100 letters"),
        ('protocol = "official"', 'protocol = "a/b"', "protocol must be a name of at most 100 letters"),
        ("dropout = 0.5", "dropout = nan", "table[0].options[...] must be"),
        ("dropout = 0.5", '"drop out" = 1', "a key of table[0].options must be a name"),
        ("epochs = 4", "epochs = " + "9" * 6_000, "is not TOML: Exceeds the limit"),
        ("epochs = 4", "epochs = " + "[" * 5_000, "is nested too deeply"),
        ("epochs = 4", "epochs = 2024-01-01", "[training]: epochs must be a whole number"),
        ("epochs = 4", "epochs = 4\nepochs = 5", "is not TOML: Cannot overwrite a value"),
        ("seeds = [0, 3]", "seeds = [4294967296]", "seeds[0] must be a whole number <= 4294967295"),
        ("seeds = [0, 3]", "seeds = [0]\nshares = [0.0, 1.0]", "shares[0] must be a number > 0.0"),
        ("seeds = [0, 3]", "seeds = [0]\nshares = [1.0, 2]", "shares[1] must be a number <= 1.0"),
        ("seeds = [0, 3]", "seeds = [0]\nshares = []", "shares must"),
        ("seeds = [0, 3]", "seeds = [0]\nshares = [1, 0.5, 1.0]", "shares names a share twice: 1, 0.5, 1"),
    ],
)
def test_what_a_suite_cannot_say_is_one_sentence(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "suite.toml"
    assert old in SUITE
    path.write_text(SUITE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(Misuse) as caught:
        read_suite_file(path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf" + SUITE.encode(), SUITE.encode("utf-16"), b"\x00", b"a"])
def test_what_is_not_toml_is_one_sentence(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "suite.toml"
    path.write_bytes(text)
    with pytest.raises(Misuse, match=r"suite .*suite\.toml is not TOML: ") as caught:
        read_suite_file(path)
    assert "\n" not in str(caught.value)


# Of two statements about a row, the one nearer to it holds


LAYERS = """
dataset = "simulated-ravdess"
label_set = "eight"
protocol = "folds6"
seeds = [0]
training = { epochs = 9, learning_rate = 0.1, batch_size = 16 }

[[table]]
features = { audio = "simulated-audio", vision = "simulated-vision" }
options = { dropout = 0.4, hidden = 24, sites = 3 }
training = { epochs = 7, batch_size = 8 }
methods = [
  "early_concat",
  { name = "early_concat", options = { hidden = 8 }, training = { epochs = 5 } },
  { name = "early_concat", options = { dropout = 0.0, hidden = 8 } },
  "majority",
]
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "suite.toml"
    path.write_text(LAYERS, encoding="utf-8")
    return path


def test_a_table_s_options_go_to_the_methods_that_have_them_and_a_method_s_own_win(suite: Path) -> None:
    pytest.importorskip("torch")
    from mer_bench.training.suite import read_suite

    found = [(row.method, dict(row.options)) for row in read_suite(suite).rows]
    assert found == [
        ("early_concat", {"dropout": 0.4, "hidden": 24}),
        ("early_concat", {"dropout": 0.4, "hidden": 8}),
        ("early_concat", {"dropout": 0.0, "hidden": 8}),
        ("majority", {}),
    ]


def test_the_training_of_a_method_wins_over_its_table_s_and_that_over_the_suite_s(suite: Path) -> None:
    found = [row.training for row in read_suite_file(suite).rows]
    table = Training(epochs=7, learning_rate=0.1, batch_size=8)
    assert found == [table, Training(epochs=5, learning_rate=0.1, batch_size=8), table, table]
