"""A corpus of one's own, described by a file: four modalities, folds by groups, every method."""

from __future__ import annotations

import shutil
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from suites import Call

from mer_bench import datasets
from mer_bench.datasets import DATASETS, find_dataset
from mer_bench.datasets.table_corpus import read_corpus
from mer_bench.errors import Misuse
from mer_bench.features import write_features
from mer_bench.fusion import METHODS
from mer_bench.records import Protocol, load_records
from mer_bench.training.build import build, options_of
from mer_bench.training.suite import one_run
from mer_bench.utterances import DESCRIPTION, FILE, read_table, write_table

WIDTHS = {"eeg": 8, "gaze": 3, "audio": 5, "text": 6}
TEXT = """
modalities = ["eeg", "gaze", "audio", "text"]
features = { eeg = "eeg-raw", gaze = "gaze-raw", audio = "audio-raw", text = "text-raw" }
cluster = "speaker"
licence = "CC BY 4.0"

[label_sets]
three = ["happy", "sad", "angry"]
two = { happy = "positive", sad = "negative", angry = "negative" }

[protocols.loso]
folds = "session"
validation = 0.2
validate = "dialogue"

[protocols.speakers]
folds = "speaker"
number = 2
text = "two folds of speakers."

[protocols.fixed]
split = "split"
"""
SUITE = """
dataset = "lab"
label_set = "three"
protocol = "speakers"
seeds = [0]
training = { epochs = 1 }
[[table]]
features = { eeg = "eeg-raw", gaze = "gaze-raw", audio = "audio-raw", audio2 = "audio-loud", text = "text-raw" }
options = { hidden = 4 }
methods = ["majority", "unimodal", "early_concat"]
"""
UTTERANCES = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of corpora with one of ten dialogues in five sessions, with four speakers."""
    root = tmp_path_factory.mktemp("own")
    folder, random = root / "lab", np.random.default_rng(0)
    rows = np.arange(UTTERANCES)
    table = pd.DataFrame({"id": [f"u{row}" for row in rows], "dialogue": [f"d{row // 6}" for row in rows],
                          "turn": rows % 6, "speaker": [f"s{row // 6 % 4}" for row in rows],
                          "session": [str(row // 12 + 1) for row in rows], "start": np.nan, "end": np.nan, "text": "",
                          "emotion": np.array(["happy", "sad", "angry", "other"])[rows % 4], "media": "",
                          "split": np.repeat(["train", "validation", "test"], [36, 12, 12])})  # fmt: skip
    write_table(folder, table)
    for name, width in {**WIDTHS, "audio-loud": 2}.items():
        modality = name.removesuffix("-loud")
        sequences = [random.standard_normal((1 + row % 4, width)).astype(np.float32) for row in rows]
        file = folder / (name if name != modality else f"{name}-raw")
        write_features(file, sequences, ids=list(table["id"]), modality=modality, extractor="made")
    (folder / DESCRIPTION).write_text(TEXT)
    (folder / "suite.toml").write_text(SUITE)
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the corpus that a test may change."""
    return Path(shutil.copytree(made / "lab", tmp_path / "lab"))


def open_corpus(root: Path, protocol: str, fold: int = 1, **options: Any) -> Any:
    return find_dataset("lab", root)(root, label_set="three", protocol=protocol, fold=fold, **options)


def test_the_file_says_what_the_corpus_is(made: Path) -> None:
    corpus = find_dataset("lab", made)
    assert (corpus.corpus, corpus.modalities, corpus.cluster) == ("lab", tuple(WIDTHS), "speaker")
    assert corpus.default_features == {name: f"{name}-raw" for name in WIDTHS}
    assert corpus.protocols["speakers"] == Protocol(2, "two folds of speakers.", "speakers")
    assert corpus.protocols["loso"].folds == 5
    assert "validation on a share of 0.2 of the training groups by dialogue" in corpus.protocols["loso"].text
    assert corpus.protocols["fixed"].folds == 1
    module = open_corpus(made, "fixed")
    assert module.classes == ("happy", "sad", "angry")
    assert [len(module.rows[split]) for split in ("train", "validation", "test")] == [27, 9, 9]  # of 36, 12 and 12
    two = find_dataset("lab", made)(made, label_set="two", protocol="fixed")
    assert two.classes == ("positive", "negative")


def test_groups_are_those_of_the_columns_that_the_file_lists(made: Path, folder: Path) -> None:
    table = read_table(folder)
    assert open_corpus(made, "fixed").groups(table) == {}
    (folder / DESCRIPTION).write_text('groups = ["speaker", "session"]\n' + TEXT)
    found = open_corpus(folder.parent, "fixed").groups(table)
    assert found == {"speaker": list(table["speaker"]), "session": list(table["session"])}


@pytest.mark.parametrize(("protocol", "column", "folds"), [("loso", "session", 5), ("speakers", "speaker", 2)])
def test_folds_are_of_whole_groups_and_test_every_utterance_once(
    made: Path, protocol: str, column: str, folds: int
) -> None:
    tested: list[int] = []
    for fold in range(1, folds + 1):
        module = open_corpus(made, protocol, fold)
        groups = {split: set(module.table[column].iloc[rows]) for split, rows in module.rows.items()}
        assert not groups["test"] & (groups["train"] | groups["validation"])
        dialogues = {split: set(module.table["dialogue"].iloc[rows]) for split, rows in module.rows.items()}
        assert not dialogues["validation"] & dialogues["train"]
        assert len(dialogues["validation"]) == (2 if protocol == "loso" else 0)  # of eight
        tested += module.rows["test"].tolist()
    assert sorted(tested) == np.flatnonzero(read_table(made / "lab")["emotion"] != "other").tolist()


def test_the_validation_groups_depend_on_their_names_alone(made: Path, folder: Path) -> None:
    table = read_table(folder)
    order = table["dialogue"].map(lambda name: -int(name[1:])).argsort(kind="stable")
    write_table(folder, table.iloc[order].reset_index(drop=True))
    modules = [open_corpus(made, "loso", 2), open_corpus(folder.parent, "loso", 2)]
    one, other = (sorted(module.table["id"].iloc[module.rows["validation"]]) for module in modules)
    assert one == other


@pytest.mark.parametrize("name", METHODS)
def test_every_method_reads_modalities_of_other_names(made: Path, name: str) -> None:
    method = METHODS[name]
    chosen = {"eeg": "eeg-raw"} if method.most == 1 else {m: f"{m}-raw" for m in ("eeg", "gaze", "audio", "text")}
    if method.most == 3:
        del chosen["gaze"]
    small = {"hidden": 40, "heads": 2, "graph_heads": 2, "block": 4, "steps": 4, "sketch": 16}
    options = {option: value for option, value in small.items() if option in options_of(method)}
    datamodule, built = build(one_run(made, "lab", name, features=chosen, options=options), made)
    datamodule.setup("fit")
    logits = built.eval()(next(iter(datamodule.train_dataloader())))
    assert logits.shape[1] == 3
    assert list(built.dims) == [m for m in ("text", "audio", "eeg", "gaze") if m in chosen]


@pytest.mark.usefixtures("_workers_are_this_process")
def test_a_bench_runs_the_suite_beside_the_corpus(call: Call, folder: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    answer = call("bench", folder / "suite.toml", "--results", results, "--logger", "none", "--measure", "robustness")
    assert answer.code == 0, answer.err
    records, problems = load_records(results)
    assert (len(records), problems) == (14, [])  # majority, early fusion and five single modalities, two folds each
    assert {record.protocol for record in records} == {Protocol(2, "two folds of speakers.", "speakers")}
    (fused, _) = (record for record in records if record.spec.method == "early_concat")
    assert set(fused.spec.features) == {*WIDTHS, "audio2"}
    assert fused.robustness is not None
    assert {"noise eeg", "noise audio2"} <= set(fused.robustness)
    assert "lab, three, speakers, single utterances" in (results / "leaderboard.md").read_text(encoding="utf-8")
    (page,) = (path.read_text(encoding="utf-8") for path in (results / "tables").glob("lab-*.md"))
    assert "- Protocol `speakers`: two folds of speakers.\n" in page
    assert "text + audio + audio2 + eeg + gaze" in page
    assert "bootstrap over speakers" in page


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("modalities = [", "modality = [", "'modality': did you mean 'modalities'?"),
        ('cluster = "speaker"', 'cluster = "actor"', "cluster must be"),
        ('cluster = "speaker"', 'groups = ["actor"]', "groups[0] must be"),
        ('folds = "session"', 'folds = "sesion"', "protocols[...].folds"),
        ('split = "split"', "", "protocol fixed needs either split or folds"),
        ('split = "split"', 'split = "split"\nfolds = "session"', "protocol fixed needs either split or folds"),
        ("number = 2", "number = 5", "protocol speakers needs 2 to 4 folds, as speaker has 4 groups"),
        ("number = 2", "number = 1", "protocol speakers needs 2 to 4 folds"),
        ("validation = 0.2", "validation = 1.0", "protocols[...].validation"),
        ('gaze = "gaze-raw"', 'gazes = "gaze-raw"', "features names the modality 'gazes', which modalities does not"),
        ('"gaze", "audio"', '"audio2", "audio"', "modalities[1] must be"),
        ('three = ["happy", "sad", "angry"]', 'three = ["happy"]', "label set three has fewer than two classes"),
        ("[label_sets]", "[label_set]", "'label_set': did you mean 'label_sets'?"),
        ("[protocols.loso]", "[protocols.'../x']", "a key of protocols must be a name"),
        ('licence = "CC BY 4.0"', 'licence = "a\\u001b"', "licence must be one line of text"),
        ("[label_sets]", "[label_sets", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(folder: Path, old: str, new: str, said: str) -> None:
    assert old in TEXT
    (folder / DESCRIPTION).write_text(TEXT.replace(old, new, 1))
    with pytest.raises(Misuse) as caught:
        read_corpus(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_odd_splits_and_names_are_one_sentence(folder: Path) -> None:
    root = folder.parent
    table = read_table(folder)
    write_table(folder, table.assign(split=table["split"].replace("validation", "dev")))
    with pytest.raises(Misuse, match="the column 'split' holds 'dev'; it may hold train, validation, test"):
        open_corpus(root, "fixed")
    with pytest.raises(Misuse, match="unknown dataset 'lob': did you mean 'lab'"):
        find_dataset("lob", root)
    with pytest.raises(Misuse, match=r"the dataset '\.\./lab' must be a name"):
        find_dataset("../lab", root)
    moved = folder.rename(root / "simulated-lab")
    with pytest.raises(Misuse, match="the names of simulated corpora alone begin with simulated-"):
        read_corpus(moved)
    moved.rename(root / "lab")
    (root / "lab" / FILE).unlink()
    with pytest.raises(Misuse, match="there is no utterance table"):
        find_dataset("lab", root)


def test_a_built_in_corpus_is_not_replaced_by_a_file(folder: Path) -> None:
    folder.rename(folder.parent / "meld")
    assert find_dataset("meld", folder.parent) is DATASETS["meld"]


class Elsewhere(DATASETS["simulated-ravdess"]):  # type: ignore[misc]
    corpus = "elsewhere"


def test_an_installed_package_registers_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known: list[tuple[str, str]] = []

    def entry_points(group: str) -> EntryPoints:
        return EntryPoints(EntryPoint(name, value, group) for name, value in known)

    monkeypatch.setattr(datasets, "entry_points", entry_points)
    here = f"{__name__}:Elsewhere"
    known.append(("elsewhere", here))
    assert find_dataset("elsewhere", tmp_path) is Elsewhere
    known.append(("meld", here))
    assert find_dataset("meld", tmp_path) is DATASETS["meld"]  # a built-in corpus is not replaced
    for value, said in [
        ("nowhere:Elsewhere", "cannot be imported: No module named 'nowhere'"),
        (f"{__name__}:WIDTHS", "is no EmotionDataModule"),
    ]:
        known[:] = [("elsewhere", value)]
        with pytest.raises(Misuse, match=said):
            find_dataset("elsewhere", tmp_path)
    known.append(("elsewhere", here))
    with pytest.raises(Misuse, match="the dataset 'elsewhere' is registered by"):
        find_dataset("elsewhere", tmp_path)
    with pytest.raises(Misuse, match="unknown dataset 'elsewher': did you mean 'elsewhere'"):
        find_dataset("elsewher", tmp_path)
