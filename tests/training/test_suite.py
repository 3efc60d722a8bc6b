"""Suite files: the runs that they list, and that each mistake in one is a sentence before anything trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mer_bench.datasets import DATASETS, simulated
from mer_bench.errors import Misuse
from mer_bench.features import read_spec
from mer_bench.fusion import METHODS
from mer_bench.records import Training
from mer_bench.training.options import Hardware
from mer_bench.training.suite import generate_simulated, is_prepared, read_suite, stand_in, suite_specs
from mer_bench.training.validate import validate

GOOD = """
dataset = "simulated-iemocap"
label_set = "six"
protocol = "session5"
seeds = [0, 3]

[training]
epochs = 4
learning_rate = 1

[[table]]
features = { audio = "simulated-audio", text = "simulated-text", vision = "simulated-vision" }
methods = ["majority", "unimodal", { name = "early_concat", options = { hidden = 8 }, training = { epochs = 2 } }]

[[table]]
features = { text = "simulated-text", audio = "simulated-audio" }
methods = ["bc_lstm", { name = "cfn_sr", modalities = ["audio", "text"] }]
training = { batch_size = 8 }
"""
SHIPPED = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.toml"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of simulated corpora that are small and have no Bayes rates: only their form matters here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulated, "PLAIN_DIALOGUES", {"train": 8, "validation": 2, "test": 2})
        patch.setattr(simulated, "truth", lambda _: {})
        yield tmp_path_factory.mktemp("data")


def write(folder: Path, text: str = GOOD) -> Path:
    path = folder / "suite.toml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, f"{old!r} is not once in the good suite"
    return GOOD.replace(old, new)


# The runs of a suite


def test_a_suite_is_read_as_written(tmp_path: Path) -> None:
    suite = read_suite(write(tmp_path))
    assert (suite.datasets, suite.label_set) == (("simulated-iemocap",), "six")
    assert (suite.protocol, suite.seeds) == ("session5", (0, 3))
    rows = {(row.method, tuple(row.features)): row for row in suite.rows}
    every = ("text", "audio", "vision")  # in this order however the file has them
    assert list(rows) == [
        ("majority", every),
        ("unimodal", ("text",)),
        ("unimodal", ("audio",)),
        ("unimodal", ("vision",)),
        ("early_concat", every),
        ("bc_lstm", ("text", "audio")),
        ("cfn_sr", ("text", "audio")),
    ]
    assert rows["majority", every].training == Training(epochs=4, learning_rate=1.0)
    assert rows["early_concat", every].training == Training(epochs=2, learning_rate=1.0)
    assert rows["early_concat", every].options == {"hidden": 8}
    assert rows["bc_lstm", ("text", "audio")].training == Training(epochs=4, learning_rate=1.0, batch_size=8)
    assert type(rows["majority", every].training.learning_rate) is float


def test_the_runs_are_the_product_of_rows_folds_and_seeds(tmp_path: Path, root: Path) -> None:
    suite = read_suite(write(tmp_path, changed('"session5"', '"loso"')))
    generate_simulated(suite, root)
    specs = suite_specs(suite, root, Hardware(devices=2, strategy="ddp"))
    assert len({spec.sha256 for spec in specs}) == len(specs) == 7 * 5 * 2
    assert {(spec.seed, spec.fold) for spec in specs} == {(seed, fold) for seed in (0, 3) for fold in range(1, 6)}
    assert [spec.seed for spec in specs] == [0] * 35 + [3] * 35
    for spec in specs:
        assert (spec.devices, spec.strategy) == (2, "ddp")
        assert spec.version == METHODS[spec.method].version
        for modality, name in spec.features.items():
            assert spec.features_sha256[modality] == read_spec(root / "simulated-iemocap" / name).sha256
    validate(specs, root)


def test_a_suite_of_shares_runs_each_row_with_each_and_all_data_first(tmp_path: Path, root: Path) -> None:
    plain = read_suite(write(tmp_path))
    suite = read_suite(write(tmp_path, changed("seeds = [0, 3]", "seeds = [0]\nshares = [0.25, 1.0, 0.1]")))
    assert (plain.shares, suite.shares) == ((1.0,), (1.0, 0.25, 0.1))
    generate_simulated(suite, root)
    specs = suite_specs(suite, root)
    assert [spec.share for spec in specs] == [1.0] * 7 + [0.25] * 7 + [0.1] * 7
    assert len({spec.sha256 for spec in specs}) == 21
    assert {spec.sha256 for spec in specs[:7]} <= {spec.sha256 for spec in suite_specs(plain, root)}


def test_a_suite_of_several_datasets_runs_each_row_on_each(tmp_path: Path, root: Path) -> None:
    names = ("simulated-unique-text", "simulated-synergy")
    text = changed('"simulated-iemocap"', str(list(names)))
    text = text.replace('"six"', '"plain"').replace('"session5"', '"independent"')
    suite = read_suite(write(tmp_path, text))
    assert suite.datasets == names
    assert len(suite.rows) == 7
    generate_simulated(suite, root)
    specs = suite_specs(suite, root)
    assert [(spec.seed, spec.dataset) for spec in specs] == [
        (seed, name) for seed in (0, 3) for name in names for _ in range(7)
    ]
    for spec in specs:
        for modality, name in spec.features.items():
            assert spec.features_sha256[modality] == read_spec(root / spec.dataset / name).sha256
    validate(specs, root)


def test_a_row_that_two_tables_list_is_run_once(tmp_path: Path) -> None:
    again = 'features = { text = "simulated-text", vision = "simulated-vision", audio = "simulated-audio" }\n'
    suite = read_suite(write(tmp_path, f'{GOOD}\n[[table]]\n{again}methods = ["unimodal", "late_average"]\n'))
    assert [row.method for row in suite.rows].count("unimodal") == 3
    assert len(suite.rows) == 8


def test_methods_seeds_and_epochs_override_the_file(tmp_path: Path) -> None:
    suite = read_suite(write(tmp_path), methods=["early_concat", "majority"], seeds=[7], epochs=1)
    assert [row.method for row in suite.rows] == ["majority", "early_concat"]
    assert suite.seeds == (7,)
    assert [row.training.epochs for row in suite.rows] == [1, 1]


# The stand-in


REAL = """
dataset = "ravdess"
label_set = "eight"
protocol = "folds6"
seeds = [4, 5, 6]

[[table]]
features = { audio = "mfcc", vision = "landmarks" }
methods = ["majority", "unimodal", "early_concat"]

[[table]]
features = { audio = "wavlm", vision = "landmarks" }
methods = ["early_concat", { name = "early_concat", options = { hidden = 8 } }]
"""


def test_the_stand_in_is_simulated_has_one_seed_and_no_row_twice(tmp_path: Path, root: Path) -> None:
    suite = read_suite(write(tmp_path, REAL))
    assert len(suite.rows) == 6
    other = stand_in(suite)
    assert (other.datasets, other.label_set) == (("simulated-ravdess",), "eight")
    assert (other.protocol, other.seeds) == ("folds6", (4,))
    both = {"audio": "simulated-audio", "vision": "simulated-vision"}
    assert [(row.method, dict(row.features), dict(row.options)) for row in other.rows] == [
        ("majority", both, {}),
        ("unimodal", {"audio": "simulated-audio"}, {}),
        ("unimodal", {"vision": "simulated-vision"}, {}),
        ("early_concat", both, {}),
        ("early_concat", both, {"hidden": 8}),
    ]
    assert not is_prepared("ravdess", root)
    assert is_prepared("simulated-ravdess", root)


def test_there_are_shipped_suites() -> None:
    assert {"simulated", "ravdess"} <= {path.stem for path in SHIPPED}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_suite_or_its_stand_in_is_valid(path: Path, root: Path) -> None:
    suite = read_suite(path)
    assert suite.rows
    for row in suite.rows:
        assert all(set(row.features) <= set(DATASETS[dataset].modalities) for dataset in suite.datasets)
    if not DATASETS[suite.datasets[0]].simulated:
        suite = stand_in(suite)
    generate_simulated(suite, root)
    validate(suite_specs(suite, root), root)


# Mistakes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [0, 3]", "seeds = [0, 3", "is not TOML: "),
        ("label_set =", "labelset =", "unknown key in .* 'labelset': did you mean 'label_set'?"),
        ('protocol = "session5"', "", "lacks the key 'protocol'"),
        ('"simulated-iemocap"', '"simulated-iemocp"', "unknown dataset in .* did you mean 'simulated-iemocap'?"),
        ('"simulated-iemocap"', "5", "dataset must be a text or a list, not 5"),
        ('"simulated-iemocap"', "[]", "dataset must be a list of length >= 1, not []"),
        ('"simulated-iemocap"', '["simulated-iemocap", "melt"]', "unknown dataset in .* did you mean 'meld'?"),
        ('"six"', '"sixx"', "unknown label set of simulated-iemocap 'sixx': did you mean 'six'?"),
        ('"session5"', '"session"', "unknown protocol of simulated-iemocap 'session': did you mean 'session5'?"),
        ("[0, 3]", '["0"]', "seeds[0] must be a whole number, not '0'"),
        ("[0, 3]", "[0.5]", "seeds[0] must be a whole number, not 0.5"),
        ("[0, 3]", "[true]", "seeds[0] must be a whole number, not True"),
        ("[0, 3]", "[-1]", "seeds[0] must be a whole number >= 0, not -1"),
        ("[0, 3]", "[2, 2]", "seeds are different whole numbers from 0 on, below 2^32, not [2, 2]"),
        ("[0, 3]", "[]", "seeds must be a list of length >= 1, not []"),
        ("[0, 3]", "[4294967296]", "seeds[0] must be a whole number <= 4294967295, not 4294967296"),
        ("[0, 3]", "3", "seeds must be a list, not 3"),
        ("epochs = 4", "epochs = -4", "[training]: epochs must be a whole number >= 1, not -4"),
        ("epochs = 4", "epochs = 0", "[training]: epochs must be a whole number >= 1, not 0"),
        ("epochs = 4", 'epochs = "4"', "[training]: epochs must be a whole number, not '4'"),
        ("epochs = 4", "epochs = 4.5", "[training]: epochs must be a whole number, not 4.5"),
        ("epochs = 4", "epoch = 4", "unknown key in .* 'epoch': did you mean 'epochs'?"),
        ("learning_rate = 1", "learning_rate = 0", "learning_rate must be a number > 0.0, not 0"),
        ("learning_rate = 1", "patience = -1", "patience must be a whole number >= 0, not -1"),
        ("learning_rate = 1", "learning_rate = nan", "learning_rate must be a number > 0.0, not nan"),
        ("learning_rate = 1", "weight_decay = inf", "weight_decay must be a number <= 1e+30, not inf"),
        ("learning_rate = 1", "warmup = 1.5", "warmup must be a number <= 1.0, not 1.5"),
        ("learning_rate = 1", "label_smoothing = 1", "label_smoothing must be a number < 1.0, not 1"),
        ("epochs = 2", "epochs = 0", "method early_concat: epochs must be a whole number >= 1"),
        ("batch_size = 8", "batch_size = 0", "table 2: batch_size must be a whole number >= 1"),
        ('methods = ["bc_lstm", { name = "cfn_sr", modalities = ["audio", "text"] }]', "",
         "table[1] lacks the key 'methods'"),
        ('methods = ["bc_lstm", { name = "cfn_sr", modalities = ["audio", "text"] }]', "methods = []",
         "table[1].methods must be a list of length >= 1, not []"),
        ('features = { text = "simulated-text", audio = "simulated-audio" }', "", "table[1] lacks the key 'features'"),
        ('"bc_lstm"', '"bc_lstn"', "unknown method in .*table 2 'bc_lstn': did you mean 'bc_lstm'?"),
        ('"bc_lstm"', "4", "table[1].methods[0] must be a text or a mapping, not 4"),
        ('"bc_lstm"', "{ options = {} }", "table[1].methods[0] lacks the key 'name'"),
        ("{ hidden = 8 }", "8", "options must be a mapping, not 8"),
        ("options = { hidden = 8 }", "option = { hidden = 8 }", "'option': did you mean 'options'?"),
        ('text = "simulated-text", audio = "simulated-audio" }',
         'txt = "simulated-text", text = "simulated-text", audio = "simulated-audio" }',
         "unknown modality in .*table 2 'txt': did you mean 'text'?"),
        ('text = "simulated-text", audio = "simulated-audio" }', "text = 3 }",
         "table[1].features[...] must be a text, not a whole number"),
        ('["audio", "text"]', '["audio", "vision"]', "unknown modality of cfn_sr in .*table 2 'vision': "),
        ('["audio", "text"]', '["audio"]', "method 'cfn_sr' takes 2 or more modalities; given audio"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(Misuse) as caught:
        read_suite(write(tmp_path, changed(old, new)))
    assert "\n" not in str(caught.value)
    for part in message.split(".*"):
        assert part in str(caught.value)


def test_a_suite_that_is_absent_or_not_text_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_bytes(b"dataset = '\xff'")
    with pytest.raises(Misuse, match=r"suite.toml is not TOML: "):
        read_suite(tmp_path / "suite.toml")
    with pytest.raises(Misuse, match=r"unknown suite in .* 'suit': did you mean 'suite'\?"):
        read_suite(tmp_path / "suit.toml")


def test_without_a_table_nothing_could_run_and_the_suite_says_so(tmp_path: Path) -> None:
    head = GOOD.partition("[training]")[0]
    with pytest.raises(Misuse, match="lacks the key 'table'"):
        read_suite(write(tmp_path, head))
    with pytest.raises(Misuse, match="table"):
        read_suite(write(tmp_path, head + "table = []\n"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"methods": ["earlyconcat"]}, r"unknown method 'earlyconcat': did you mean 'early_concat'\?"),
        ({"methods": ["tacfn"]}, "does not list the method 'tacfn'; it lists bc_lstm, cfn_sr, early_concat, majority"),
        ({"seeds": [1, 1]}, "seeds are different whole numbers"),
        ({"seeds": [-1]}, "seeds are different whole numbers"),
        ({"epochs": 0}, "EPOCHS: epochs must be a whole number >= 1, not 0"),
    ],
)
def test_a_mistake_in_an_override_is_one_sentence(tmp_path: Path, override: Mapping[str, object], message: str) -> None:
    with pytest.raises(Misuse, match=message):
        read_suite(write(tmp_path), **override)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{ hiden = 8 }", r"unknown option of early_concat 'hiden': did you mean 'hidden'\?"),
        ("{ hidden = 'wide' }", "option hidden of early_concat must be a whole number from 1 on, not 'wide'"),
        ("{ dropout = 1.5 }", "option dropout of early_concat must be a number from 0 to below 1, not 1.5"),
        ("{ hidden = -8 }", "option hidden of early_concat must be a whole number from 1 on, not -8"),
    ],
)
def test_an_option_that_the_method_does_not_take_shows_before_training(
    tmp_path: Path, root: Path, options: str, message: str
) -> None:
    suite = read_suite(write(tmp_path, changed("{ hidden = 8 }", options)))
    generate_simulated(suite, root)
    with pytest.raises(Misuse, match=message) as caught:
        validate(suite_specs(suite, root), root)
    assert "\n" not in str(caught.value)


def test_a_feature_set_that_is_absent_or_of_another_modality_shows_before_training(tmp_path: Path, root: Path) -> None:
    absent, other = (
        read_suite(write(tmp_path, changed('text = "simulated-text", vision', f'text = "{name}", vision')))
        for name in ("roberta", "simulated-audio")
    )
    generate_simulated(absent, root)
    with pytest.raises(Misuse, match=r"no feature set 'roberta' in .*simulated-audio, simulated-text, simulated-vis"):
        suite_specs(absent, root)
    with pytest.raises(Misuse, match="simulated-audio is audio, not text"):
        validate(suite_specs(other, root), root)
