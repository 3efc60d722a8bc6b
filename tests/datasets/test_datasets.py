"""Datasets, tested on the simulated corpora, which share their code with the real ones."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from factories import tensors, widths
from torch.utils.data import DataLoader

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.datasets import DATASETS, EmotionDataModule, simulated
from mer_bench.datasets.base import LIMIT, READS, SPLITS, Split, column_statistics
from mer_bench.datasets.iemocap import validation_dialogues
from mer_bench.datasets.ravdess import FOLDS
from mer_bench.datasets.sampler import GroupSampler
from mer_bench.datasets.simulated import PRESETS, TRUTH, ensure_generated, simulate
from mer_bench.errors import Misuse
from mer_bench.features import STAMP, open_features, verify_features, write_features
from mer_bench.functionals import VERSION, open_functionals
from mer_bench.utterances import FILE, read_table, write_table

SIMULATED = ("simulated-ravdess", "simulated-iemocap", "simulated-meld")
#: dataset, label set, protocol, fold
TASKS = [
    (name, label_set, protocol, fold)
    for name in SIMULATED
    for label_set in DATASETS[name].label_sets
    for protocol, facts in DATASETS[name].protocols.items()
    for fold in range(1, facts.folds + 1)
]
#: the first task of each corpus
FIRST = [next(task for task in TASKS if task[0] == name) for name in SIMULATED]
IEMOCAP_TASK = ("simulated-iemocap", "six", "session5", 1)
RAVDESS_TASK = ("simulated-ravdess", "eight", "folds6", 1)


@pytest.fixture(scope="session")
def root(root: Path) -> Path:
    """The folder that all tests share, with all three corpora; tests must not change them."""
    for name in SIMULATED:
        ensure_generated(root / name, PRESETS[name])
    return root


@pytest.fixture
def own_root(root: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    for name in SIMULATED:
        shutil.copytree(root / name, tmp_path / "data" / name)
    return tmp_path / "data"


def build(root: Path, task: tuple[str, str, str, int], **options: Any) -> EmotionDataModule:
    name, label_set, protocol, fold = task
    features = options.pop("features", DATASETS[name].default_features)
    return DATASETS[name](root, features, label_set=label_set, protocol=protocol, fold=fold, **options)


def ready(root: Path, task: tuple[str, str, str, int], **options: Any) -> EmotionDataModule:
    module = build(root, task, **options)
    module.setup("fit")
    return module


def batches(loader: DataLoader[Batch] | list[DataLoader[Batch]]) -> Iterator[Batch]:
    assert isinstance(loader, DataLoader)
    return iter(loader)


def groups(module: EmotionDataModule, column: str) -> dict[str, set[str]]:
    return {split: set(module.table[column].iloc[module.rows[split]]) for split in SPLITS}


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS, ids=lambda task: "-".join(map(str, task)))
def test_splits_are_disjoint(root: Path, task: tuple[str, str, str, int]) -> None:
    module = build(root, task, features={})
    columns = ["id", "dialogue"]
    if task[0] == "simulated-ravdess":
        columns += ["speaker", "session"]
    for column in columns:
        parts = groups(module, column).values()
        assert sum(map(len, parts)) == len(set().union(*parts)), column
    if (
        task[0] == "simulated-iemocap"
    ):  # training and validation share sessions and actors, the test session has its own
        for column in ("speaker", "session"):
            train, validation, test = groups(module, column).values()
            assert not (train | validation) & test
            assert validation <= train
    for split in SPLITS:
        assert (module.labels[module.rows[split]] >= 0).all()
        assert (np.diff(module.rows[split]) > 0).all()
    counts = np.bincount(module.labels[module.rows["train"]], minlength=module.num_classes)
    assert module.class_counts.tolist() == counts.tolist()
    assert (module.class_counts > 0).all()
    assert module.has_validation == bool(len(module.rows["validation"]))


def test_meld_splits_are_the_tables_and_share_speakers(root: Path) -> None:
    module = build(root, ("simulated-meld", "seven", "official", 1), features={})
    for split in SPLITS:
        assert set(module.table["split"].iloc[module.rows[split]]) == {split}
    train, _, test = groups(module, "speaker").values()
    assert train & test  # as in the real corpus


def actors(root: Path, protocol: str, fold: int) -> dict[str, set[int]]:
    module = build(root, ("simulated-ravdess", "eight", protocol, fold), features={})
    return {split: {int(actor) for actor in people} for split, people in groups(module, "speaker").items()}


def test_ravdess_folds_cover_every_actor_once() -> None:
    assert sorted(actor for fold in FOLDS for actor in fold) == list(range(1, 25))


@pytest.mark.parametrize("fold", range(1, 7))
def test_ravdess_validates_on_the_next_fold(root: Path, fold: int) -> None:
    found = actors(root, "folds6", fold)
    assert found["test"] == set(FOLDS[fold - 1])
    assert found["validation"] == set(FOLDS[0 if fold == 6 else fold])
    assert found["train"] == set(range(1, 25)) - found["test"] - found["validation"]
    fixed = actors(root, "fixed", fold)
    assert fixed == {"train": set(range(1, 25)) - found["test"], "validation": set(), "test": found["test"]}


def test_ravdess_literature_never_tests_the_last_four_actors(root: Path) -> None:
    found = [actors(root, "literature", fold) for fold in range(1, 6)]
    assert [sorted(fold["test"]) for fold in found] == [list(range(a, a + 4)) for a in (1, 5, 9, 13, 17)]
    for fold in found:
        assert fold["train"] == set(range(1, 25)) - fold["test"]
        assert not fold["validation"]


def test_protocols_without_validation_have_no_validation_loader(root: Path) -> None:
    for protocol in ("fixed", "literature"):
        module = ready(root, ("simulated-ravdess", "eight", protocol, 1))
        assert not module.has_validation
        assert module.val_dataloader() == []


@pytest.mark.parametrize("fold", range(1, 6))
def test_iemocap_validates_on_the_listed_dialogues(root: Path, fold: int) -> None:
    module = build(root, ("simulated-iemocap", "six", "loso", fold), features={})
    found = groups(module, "dialogue")
    assert found["validation"] == {name for name in validation_dialogues() if name[3:5] != f"{fold:02}"}
    assert {name[:5] for name in found["test"]} == {f"Ses{fold:02}"}
    if fold == 5:
        other = build(root, IEMOCAP_TASK, features={})
        for split in SPLITS:
            assert np.array_equal(module.rows[split], other.rows[split])


def test_four_counts_excited_as_happy(root: Path) -> None:
    module = build(root, ("simulated-iemocap", "four", "session5", 1), features={})
    assert module.classes == ("angry", "happy", "sad", "neutral")
    counts = Counter(module.table["emotion"])
    found = np.bincount(module.labels[module.labels >= 0], minlength=4).tolist()
    assert found == [counts["ang"], counts["hap"] + counts["exc"], counts["sad"], counts["neu"]]
    assert set(module.table["emotion"][module.labels < 0]) >= {"xxx", "fru"}


def test_sidecar_labels(root: Path) -> None:
    six = build(root, IEMOCAP_TASK, features={})
    community = build(root, ("simulated-iemocap", "six_community", "session5", 1), features={})
    assert six.classes == community.classes == ("happy", "sad", "neutral", "angry", "excited", "frustrated")
    more = (community.labels >= 0) & (six.labels < 0)
    assert more.any()
    assert set(six.table["emotion"][more]) == {"xxx"}
    assert set(community.labels[more]) == {0}
    assert np.array_equal(community.labels[~more], six.labels[~more])
    sentiment = build(root, ("simulated-meld", "sentiment", "official", 1), features={})
    assert (sentiment.labels >= 0).all()
    surprise = sentiment.labels[(sentiment.table["emotion"] == "surprise").to_numpy()]
    assert set(surprise) == {0, 2}  # surprise may have either sentiment


def test_damaged_sidecars(own_root: Path) -> None:
    path = own_root / "simulated-meld/labels_sentiment.csv"
    task = ("simulated-meld", "sentiment", "official", 1)
    path.write_text(path.read_text() + "test_dia999_utt0,positive\n")
    with pytest.raises(Misuse, match="ids that the table lacks"):
        build(own_root, task, features={})
    path.unlink()
    with pytest.raises(Misuse, match=r"'sentiment' needs .*labels_sentiment\.csv"):
        build(own_root, task, features={})


def test_class_counts_do_not_depend_on_test_labels(own_root: Path) -> None:
    before = build(own_root, RAVDESS_TASK, features={})
    table = before.table.copy()
    table.loc[before.rows["test"], "emotion"] = "calm"
    write_table(own_root / "simulated-ravdess", table)
    assert torch.equal(build(own_root, RAVDESS_TASK, features={}).class_counts, before.class_counts)


# --- loaders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["utterance", "dialogue"])
@pytest.mark.parametrize("task", FIRST, ids=lambda task: task[0])
def test_every_utterance_is_in_one_batch(root: Path, task: tuple[str, str, str, int], context: Any) -> None:
    module = ready(root, task, context=context, batch_size=8)
    loaders = (module.train_dataloader(), module.val_dataloader(), module.test_dataloader())
    for split, loader in zip(SPLITS, loaders, strict=True):
        found = torch.cat([batch.index for batch in batches(loader)])
        assert sorted(found.tolist()) == module.rows[split].tolist(), split


@pytest.mark.parametrize("task", FIRST, ids=lambda task: task[0])
def test_batches_hold_whole_dialogues_in_turn_order(root: Path, task: tuple[str, str, str, int]) -> None:
    module = ready(root, task, context="dialogue", batch_size=8)
    names = module.table["dialogue"].to_numpy()
    for batch in batches(module.test_dataloader()):
        assert torch.equal(batch.label, torch.from_numpy(module.labels)[batch.index])
        for i, line in enumerate(batch.grid):
            positions = line[line >= 0]
            rows = batch.index[positions].numpy()
            assert len(set(names[rows])) == 1
            kept = module.rows["test"]
            assert rows.tolist() == kept[names[kept] == names[rows[0]]].tolist()
            assert (batch.dialogue[positions] == i).all()
            assert batch.turn[positions].tolist() == list(range(len(rows)))
        flat = torch.randn(len(batch), 2)
        assert torch.equal(batch.flatten(batch.by_dialogue(flat)), flat)


def test_in_utterance_context_the_grid_has_one_column(root: Path) -> None:
    module = ready(root, IEMOCAP_TASK, batch_size=8)
    batch = next(batches(module.train_dataloader()))
    assert len(batch) == 8
    assert batch.grid.tolist() == [[i] for i in range(8)]


def frames_of(module: EmotionDataModule, name: str, split: Split = "train") -> Any:
    """Which frames of a modality belong to a split."""
    return np.repeat(np.isin(np.arange(len(module.table)), module.rows[split]), np.diff(module.features[name].offsets))


def test_frames_are_standardised_and_zero_at_padding(root: Path) -> None:
    module = ready(root, IEMOCAP_TASK, batch_size=8)
    statistics = {
        name: column_statistics(opened.values, frames_of(module, name)) for name, opened in module.features.items()
    }
    for batch in islice(batches(module.train_dataloader()), 20):
        for name, sequence in batch.frames.items():
            opened = module.features[name]
            mean, scale = (part.numpy() for part in statistics[name])
            assert not sequence.values[~sequence.mask].any()
            for i, row in enumerate(batch.index.tolist()):
                span = np.asarray(opened.values[opened.offsets[row] : opened.offsets[row + 1]], np.float32)
                found = sequence.values[i][sequence.mask[i]].numpy()
                assert np.allclose(found, (span - mean) * scale, atol=1e-5)
                assert sequence.mask[i].tolist() == sorted(sequence.mask[i].tolist(), reverse=True)


def test_statistics_are_those_of_the_training_frames(root: Path) -> None:
    module = build(root, IEMOCAP_TASK)
    opened = module.features["audio"]
    rows = module.rows["train"]
    frames = np.concatenate([opened.values[opened.offsets[r] : opened.offsets[r + 1]] for r in rows]).astype(float)
    for chunk_size in (1 << 30, 1000, 1):  # in one chunk, in several, frame by frame
        mean, scale = column_statistics(opened.values, frames_of(module, "audio"), chunk_size)
        assert np.allclose(mean, frames.mean(0), atol=1e-6)
        assert np.allclose(scale, 1 / frames.std(0), rtol=1e-6)


def test_statistics_survive_a_large_mean_and_a_constant_column(own_root: Path) -> None:
    folder = own_root / "simulated-ravdess"
    table = read_table(folder)
    generator = np.random.default_rng(0)
    frames = [np.hstack([1e6 + generator.standard_normal((3, 1)), np.full((3, 1), 0.1)]) for _ in table["id"]]
    write_features(folder / "odd", frames, ids=list(table["id"]), modality="audio", extractor="odd", dtype="float64")
    mean, scale = column_statistics(open_features(folder / "odd").values, np.ones(3 * len(table), bool))
    assert np.allclose(mean, [1e6, 0.1], rtol=1e-6)
    assert np.allclose(scale, [1, 1], rtol=0.05)


def test_statistics_do_not_depend_on_test_or_validation_rows(own_root: Path) -> None:
    folder = own_root / "simulated-iemocap"
    before = ready(own_root, IEMOCAP_TASK, features={"audio": "simulated-audio"})
    opened = before.features["audio"]
    train = set(before.rows["train"].tolist())

    def changed() -> Iterator[Any]:
        for row in range(opened.spec.rows):
            span = np.asarray(opened.values[opened.offsets[row] : opened.offsets[row + 1]], np.float32)
            yield span if row in train else 100 - 50 * span[:1]  # other values and other lengths

    write_features(folder / "other", changed(), ids=list(before.table["id"]), modality="audio", extractor="other")
    after = ready(own_root, IEMOCAP_TASK, features={"audio": "other"})
    one, two = next(batches(before.train_dataloader())), next(batches(after.train_dataloader()))
    assert torch.equal(one.index, two.index)
    assert torch.equal(one.frames["audio"].values, two.frames["audio"].values)
    assert torch.equal(one.functionals["audio"], two.functionals["audio"])
    one, two = next(batches(before.test_dataloader())), next(batches(after.test_dataloader()))
    assert not torch.equal(one.frames["audio"].values, two.frames["audio"].values)
    assert not torch.equal(one.functionals["audio"], two.functionals["audio"])


def test_functionals_are_standardised_over_training_rows_that_have_the_modality(root: Path) -> None:
    module = ready(root, RAVDESS_TASK)
    rows = module.rows["train"]
    for name, opened in module.features.items():
        raw = open_functionals(module.folder / opened.spec.name, opened).astype(float)
        have = rows[np.diff(opened.offsets)[rows] > 0]
        assert 0 < len(have) < len(rows)
        batch = module.collate([np.array([row]) for row in range(len(module.table))])
        found, there = batch.functionals[name].numpy(), np.diff(opened.offsets) > 0
        assert found.shape == (len(module.table), module.dims[name].functionals)
        expected = (raw - raw[have].mean(0)) / raw[have].std(0)
        assert np.allclose(found[there], expected[there].clip(-LIMIT, LIMIT), atol=1e-3)
        assert not found[~there].any()
        assert (batch.present[name].numpy() == there).all()


def test_functionals_are_cut_at_six_deviations_and_constant_columns_are_zero(own_root: Path) -> None:
    folder = own_root / "simulated-ravdess"
    module = build(own_root, RAVDESS_TASK, features={})
    values = np.random.default_rng(0).standard_normal((len(module.table), 1, 3)).astype(np.float32)
    values[:, :, 1] = 0.1
    test = module.rows["test"]
    values[test[0]], values[test[1]] = 1000, -1000
    ids = list(module.table["id"])
    write_features(folder / "one", values, ids=ids, modality="audio", extractor="one")
    module = ready(own_root, RAVDESS_TASK, features={"audio": "one"})
    assert module.dims["audio"] == Width(3, 3)
    found = module.collate([test[:1], test[1:2], test[2:3]]).functionals["audio"]
    assert found[0].tolist() == [LIMIT] * 3
    assert found[1].tolist() == [-LIMIT] * 3
    assert found[2, 1] == pytest.approx(0, abs=1e-6)
    assert found[2, [0, 2]].any()


def test_functionals_of_frames_are_those_that_are_gathered(root: Path) -> None:
    for context in ("utterance", "dialogue"):
        module = ready(root, IEMOCAP_TASK, context=context)
        for batch in islice(batches(module.test_dataloader()), 3):
            for name in module.dims:
                found = module.functionals_of(name, batch.frames[name])
                torch.testing.assert_close(found, batch.functionals[name], rtol=1e-3, atol=1e-3)
        noisy = PaddedSequence(batch.frames["audio"].values + 1, batch.frames["audio"].mask)
        assert float((module.functionals_of("audio", noisy) - batch.functionals["audio"]).abs().max()) > 0.1


@pytest.mark.parametrize("reads", [READS, {"functionals"}, {"frames"}, ()])
def test_batches_hold_what_the_method_reads_and_nothing_else_is_opened(
    root: Path, monkeypatch: pytest.MonkeyPatch, reads: Any
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(
        "mer_bench.datasets.base.open_functionals", lambda *given: opened.append(given[0]) or open_functionals(*given)
    )
    module = build(root, RAVDESS_TASK)
    module.reads = frozenset(reads)
    module.setup("fit")
    assert len(opened) == 2 * ("functionals" in reads)
    batch = next(batches(module.train_dataloader()))
    assert list(batch.present) == ["audio", "vision"]
    assert list(batch.functionals) == ["audio", "vision"] * ("functionals" in reads)
    assert list(batch.frames) == ["audio", "vision"] * ("frames" in reads)
    module.reads = READS  # as robustness does
    module.setup("test")
    batch = next(batches(module.test_dataloader()))
    assert list(batch.functionals) == list(batch.frames) == ["audio", "vision"]
    module.reads = frozenset(reads)  # what is open is not gathered
    batch = next(batches(module.test_dataloader()))
    assert list(batch.functionals) == ["audio", "vision"] * ("functionals" in reads)
    assert list(batch.frames) == ["audio", "vision"] * ("frames" in reads)


@pytest.mark.parametrize("context", ["utterance", "dialogue"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_batches_gathered_from_cached_features_are_the_same(own_root: Path, context: Any, dtype: str) -> None:
    folder = own_root / "simulated-ravdess"
    stored = open_features(folder / "simulated-audio")
    spans = [stored.values[start:end] for start, end in pairwise(stored.offsets)]
    ids = list(read_table(folder)["id"])
    write_features(folder / "other", spans, ids=ids, modality="audio", extractor="other", dtype=dtype)
    features = {"audio": "other", "vision": "simulated-vision"}
    mapped, cached = (ready(own_root, RAVDESS_TASK, features=features, context=context) for _ in range(2))
    cached.cache_on_device(torch.device("cpu"), 1 << 40)
    for one, two in zip(batches(mapped.test_dataloader()), batches(cached.test_dataloader()), strict=True):
        assert all(torch.equal(*parts) for parts in zip(tensors(one), tensors(two), strict=True))
    assert np.array_equal(mapped.features["audio"].values, cached.features["audio"].values)


@pytest.mark.parametrize("reads", [READS, {"functionals"}])
def test_features_that_are_cached_keep_the_statistics_for_disturbed_frames_and_bundles(root: Path, reads: Any) -> None:
    """A run on a GPU caches what its method reads; then robustness opens the rest and computes functionals."""
    module, cached = build(root, RAVDESS_TASK), build(root, RAVDESS_TASK)
    module.reads = cached.reads = frozenset(reads)
    cached.setup("fit")
    cached.cache_on_device(torch.device("cpu"), 1 << 40)
    for kind, expected in module.statistics.items():
        assert cached.statistics[kind].keys() == expected.keys()
        for name in expected:
            assert all(map(torch.equal, cached.statistics[kind][name], expected[name]))
    cached.reads = READS
    cached.setup("test")
    batch = next(batches(cached.test_dataloader()))
    for name, frames in batch.frames.items():
        assert torch.allclose(cached.functionals_of(name, frames), batch.functionals[name], rtol=1e-3, atol=1e-3)


def test_cached_features_never_leave_their_device_and_pixels_stay_on_disk(own_root: Path) -> None:
    folder = own_root / "simulated-ravdess"
    ids = list(read_table(folder)["id"])
    pixels = [np.zeros((2, 3), np.uint8)] * len(ids)
    write_features(folder / "pixels", pixels, ids=ids, modality="vision", extractor="pixels", dtype="uint8")
    module = ready(own_root, RAVDESS_TASK, features={"audio": "simulated-audio", "vision": "pixels"})
    size = 4 * (module.features["audio"].values.size + len(ids) * module.dims["audio"].functionals)
    module.cache_on_device(torch.device("meta"), size - 1)
    assert not next(batches(module.train_dataloader())).frames["audio"].values.is_meta
    module.cache_on_device(torch.device("meta"), size)
    batch = next(batches(module.train_dataloader()))  # reading a value from the meta device would raise
    assert batch.frames["audio"].values.is_meta
    assert batch.frames["audio"].mask.is_meta
    assert batch.functionals["audio"].is_meta
    assert not batch.frames["vision"].values.is_meta
    assert list(batch.functionals) == ["audio"]


@pytest.mark.parametrize(("device", "stage", "expected"), [
    ("cuda", "fit", [(torch.device("cuda"), 500)]), ("cuda", "test", []), ("cpu", "fit", [])
])  # fmt: skip
def test_features_take_at_most_half_of_the_free_memory_of_a_gpu_that_trains(
    root: Path, monkeypatch: pytest.MonkeyPatch, device: str, stage: str, expected: Any
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1001, 4000))
    monkeypatch.setattr(EmotionDataModule, "cache_on_device", lambda self, *arguments: asked.append(arguments))
    module = build(root, RAVDESS_TASK)
    module.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(device)))  # type: ignore[assignment]
    module.setup(stage)
    assert asked == expected


def test_a_missing_modality_is_not_present_a_mask_of_false_and_zero(root: Path) -> None:
    module = ready(root, RAVDESS_TASK)
    empty = np.diff(module.features["audio"].offsets) == 0
    assert 0 < empty.mean() < 0.05
    rows = np.flatnonzero(empty)[:3]
    batch = module.collate([rows[:1], rows[1:2], rows[2:]])
    assert not batch.present["audio"].any()
    assert not batch.functionals["audio"].any()
    assert not batch.frames["audio"].mask.any()
    assert not batch.frames["audio"].values.any()
    assert batch.present["vision"].all()
    assert batch.frames["vision"].mask.any(1).all()


def test_dialogue_lengths_come_from_the_label_set(root: Path) -> None:
    module = ready(root, IEMOCAP_TASK, context="dialogue")
    kept = module.table.iloc[module.rows["test"]].groupby("dialogue").size()
    found = torch.cat([batch.turns.sum(1) for batch in batches(module.test_dataloader())])
    assert sorted(found.tolist()) == sorted(kept.tolist())


def test_speakers_are_numbered_within_their_dialogue(root: Path) -> None:
    module = ready(root, ("simulated-meld", "seven", "official", 1), context="dialogue")
    for batch in batches(module.test_dataloader()):
        for line in batch.grid:
            positions = line[line >= 0]
            names = module.table["speaker"].to_numpy()[batch.index[positions].numpy()]
            order = list(dict.fromkeys(names))
            assert batch.speaker[positions].tolist() == [order.index(name) for name in names]


def test_a_subset_of_the_modalities_and_none(root: Path) -> None:
    module = ready(root, IEMOCAP_TASK, features={"vision": "simulated-vision", "text": "simulated-text"})
    assert list(module.dims) == ["text", "vision"]  # in a fixed order, whatever the caller's
    assert list(next(batches(module.train_dataloader())).frames) == ["text", "vision"]
    every = {name: f"simulated-{name}" for name in ("vision", "audio", "text")}
    assert list(build(root, IEMOCAP_TASK, features=every).dims) == ["text", "audio", "vision"]
    bare = ready(root, IEMOCAP_TASK, features={})
    assert bare.dims == {}
    batch = next(batches(bare.train_dataloader()))
    assert batch.present == batch.functionals == batch.frames == {}


@pytest.mark.parametrize("task", FIRST, ids=lambda task: task[0])
def test_shape_is_known_after_construction(root: Path, task: tuple[str, str, str, int]) -> None:
    module = build(root, task)
    preset = PRESETS[task[0]]
    assert module.dims == widths(**{name: preset.widths[name] for name in preset.modalities})
    assert module.num_classes == len(module.classes) == {"eight": 8, "six": 6, "seven": 7}[task[1]]
    assert module.simulated


# --- order of batches -------------------------------------------------------------------------------------------------


def order(root: Path, seed: int, epoch: int, context: Any = "utterance") -> list[list[int]]:
    module = ready(root, IEMOCAP_TASK, seed=seed, features={"text": "simulated-text"}, context=context)
    loader = module.train_dataloader()
    assert isinstance(loader.sampler, GroupSampler)
    loader.sampler.set_epoch(epoch)
    return [batch.index.tolist() for batch in loader]


@pytest.mark.parametrize("context", ["utterance", "dialogue"])
def test_the_order_depends_on_seed_and_epoch_only(root: Path, context: str) -> None:
    first = order(root, seed=1, epoch=2, context=context)
    np.random.seed(5)  # noqa: NPY002  the global generators have no influence
    torch.manual_seed(5)
    assert order(root, seed=1, epoch=2, context=context) == first
    assert order(root, seed=1, epoch=3, context=context) != first
    other = order(root, seed=2, epoch=2, context=context)
    assert other not in (first, order(root, seed=1, epoch=3, context=context))  # nor is it that of their sum


def test_evaluation_has_one_order(root: Path) -> None:
    first = [b.index.tolist() for b in batches(ready(root, IEMOCAP_TASK, seed=1).test_dataloader())]
    assert [b.index.tolist() for b in batches(ready(root, IEMOCAP_TASK, seed=2).test_dataloader())] == first


def test_batches_are_buckets_of_similar_lengths() -> None:
    sizes = np.random.default_rng(0).integers(1, 1000, 4096)
    for seed in (0, None):
        sampler = GroupSampler(sizes, 16, shuffle_seed=seed)
        padded = sum(16 * sizes[batch].max() for batch in sampler)
        assert padded < 1.15 * sizes.sum()  # 1.9 if batches are shuffled without sorting
    starts = [sizes[batch].mean() for batch in GroupSampler(sizes, 16, shuffle_seed=0)]
    assert abs(np.corrcoef(starts, np.arange(len(starts)))[0, 1]) < 0.2  # lengths do not increase during the epoch
    # a batch holds 16 neighbours of a window of 256 that is spread over 1,000 lengths
    spans = [np.ptp(sizes[batch]) for batch in GroupSampler(sizes, 16, shuffle_seed=0)]
    assert np.mean(spans) == pytest.approx(1000 * 15 / 257, rel=0.1)
    evaluated = [int(sizes[group]) for batch in GroupSampler(sizes, 16, shuffle_seed=None) for group in batch]
    assert evaluated == sorted(evaluated)


@pytest.mark.parametrize("context", ["utterance", "dialogue"])
def test_batches_are_sorted_by_the_longest_modality_or_by_the_turns(root: Path, context: Any) -> None:
    module = ready(root, IEMOCAP_TASK, context=context)
    module.reads = frozenset({"frames"})
    sampler = module.test_dataloader().sampler
    assert isinstance(sampler, GroupSampler)
    if context == "dialogue":
        dialogues = module.table["dialogue"].iloc[module.rows["test"]]
        expected = [int((dialogues == name).sum()) for name in dict.fromkeys(dialogues)]
    else:
        lengths = [np.diff(opened.offsets) for opened in module.features.values()]
        expected = [max(int(length[row]) for length in lengths) for row in module.rows["test"]]
        assert len({tuple(length) for length in lengths}) > 1
    assert sampler.sizes.tolist() == expected
    if context == "utterance":  # functionals need no padding
        module.reads = frozenset({"functionals"})
        sampler = module.test_dataloader().sampler
        assert isinstance(sampler, GroupSampler)
        assert set(sampler.sizes.tolist()) == {1}


def test_evaluation_batches_are_four_times_as_large_but_every_device_has_one(root: Path) -> None:
    module = ready(root, RAVDESS_TASK, batch_size=8)  # 4 actors are tested, 16 train
    assert [len(batch) for batch in batches(module.test_dataloader())] == [32, 32, 32, 24]
    assert [len(batch) for batch in batches(module.train_dataloader())] == [8] * 60
    found = []
    for rank in range(30):
        module = build(root, RAVDESS_TASK, features={})
        module.trainer = SimpleNamespace(global_rank=rank, world_size=30)  # type: ignore[assignment]
        found += [len(batch) for batch in batches(module.test_dataloader())]
    assert found == [4] * 30


@pytest.mark.parametrize(("count", "world"), [*product((40, 41, 97, 100), (1, 2, 3, 5)), (3, 4), (9, 8)])
def test_ranks_share_batches(count: int, world: int) -> None:
    sizes = np.random.default_rng(count).integers(1, 50, count)
    evaluation = [GroupSampler(sizes, 4, shuffle_seed=None, rank=rank, world=world) for rank in range(world)]
    found = [group for sampler in evaluation for batch in sampler for group in batch]
    assert sorted(found) == list(range(count))
    training = [GroupSampler(sizes, 4, shuffle_seed=0, rank=rank, world=world) for rank in range(world)]
    shares = [list(sampler) for sampler in training]
    assert {len(share) for share in shares} == {-(-count // (4 * world))}
    assert {group for share in shares for batch in share for group in batch} == set(range(count))
    for sampler in evaluation + training:
        assert len(list(sampler)) == len(sampler)


def test_the_loader_takes_its_rank_from_the_trainer(root: Path) -> None:
    found = []
    for rank in range(2):
        module = ready(root, RAVDESS_TASK)
        module.trainer = SimpleNamespace(global_rank=rank, world_size=2)  # type: ignore[assignment]
        found += [index for batch in batches(module.test_dataloader()) for index in batch.index.tolist()]
    assert sorted(found) == module.rows["test"].tolist()


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"label_set": "sixx"}, "unknown label set of simulated-iemocap 'sixx': did you mean 'six'"),
        ({"protocol": "sesion5"}, "unknown protocol of simulated-iemocap 'sesion5': did you mean 'session5'"),
        ({"fold": 2}, "session5 has folds 1 to 1, not 2"),
        ({"fold": 0}, "session5 has folds 1 to 1, not 0"),
        ({"features": {"visual": "simulated-vision"}}, "unknown modality of simulated-iemocap 'visual'"),
        (
            {"features": {"text": "simulated-txt"}},
            r"no feature set 'simulated-txt' in .*\(available: simulated-audio, ",
        ),
        ({"features": {"text": "simulated-audio"}}, "simulated-audio is audio, not text"),
    ],
)
def test_unknown_names(root: Path, change: dict[str, Any], sentence: str) -> None:
    options: dict[str, Any] = {"label_set": "six", "protocol": "session5", "features": {}, **change}
    with pytest.raises(Misuse, match=sentence):
        DATASETS["simulated-iemocap"](root, **options)


def test_ravdess_has_no_text(root: Path) -> None:
    with pytest.raises(Misuse, match="unknown modality of simulated-ravdess 'text'"):
        build(root, RAVDESS_TASK, features={"text": "simulated-text"})


@pytest.mark.parametrize("name", ["ravdess", "iemocap", "meld"])
def test_an_absent_corpus_says_how_to_get_it(tmp_path: Path, name: str) -> None:
    module = DATASETS[name]
    label_set, protocol = next(iter(module.label_sets)), next(iter(module.protocols))
    with pytest.raises(Misuse, match=f"make data DATASET={name} RAW="):
        module(tmp_path, label_set=label_set, protocol=protocol)
    assert list(tmp_path.iterdir()) == []


def test_features_of_another_table(own_root: Path) -> None:
    folder = own_root / "simulated-ravdess"
    table = read_table(folder)
    write_table(folder, table.assign(text=["changed", *table["text"][1:]]))
    with pytest.raises(Misuse, match=r"was made for another utterances\.csv"):
        build(own_root, RAVDESS_TASK)
    write_table(folder, table.iloc[1:])
    with pytest.raises(Misuse, match="has 720 rows, its table 719"):
        build(own_root, RAVDESS_TASK)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_found_before_training(own_root: Path, bad: float) -> None:
    path = own_root / "simulated-ravdess/simulated-audio/values.npy"
    values = np.load(path, mmap_mode="r+")
    offsets = np.load(path.with_name("offsets.npy"))
    values[offsets[17], 3] = bad
    values.flush()
    del values
    with pytest.raises(Misuse, match="NaN or infinite values at row 17"):
        ready(own_root, RAVDESS_TASK)


def test_a_task_without_a_test_utterance_is_refused(own_root: Path) -> None:
    folder = own_root / "simulated-ravdess"
    write_table(folder, read_table(folder).query("speaker == '01'"))
    with pytest.raises(Misuse, match="folds6 fold 1: no train utterance"):
        build(own_root, RAVDESS_TASK, features={})


# --- the table --------------------------------------------------------------------------------------------------------


def test_texts_that_look_like_missing_values_stay_text(own_root: Path) -> None:
    folder = own_root / "simulated-ravdess"
    table = read_table(folder)
    texts = ["None", "NA", "nan", "null", "", '"quoted", with a comma', "two\nlines", "café"]
    table["text"] = texts + ["-"] * (len(table) - len(texts))
    write_table(folder, table)
    assert read_table(folder)["text"].tolist()[: len(texts)] == texts


def test_the_table_round_trips(root: Path) -> None:
    for name in SIMULATED:
        before = (root / name / FILE).read_bytes()
        write_table(root / name, read_table(root / name))
        assert (root / name / FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda t: t.iloc[:0], "holds no utterances"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "more than once"),
        (lambda t: t.iloc[::-1], "does not continue its dialogue's"),
        (lambda t: pd.concat([t.iloc[1:], t.iloc[:1]]), "are not adjacent"),
    ],
)
def test_broken_tables_are_refused(root: Path, tmp_path: Path, damage: Any, sentence: str) -> None:
    with pytest.raises(Misuse, match=sentence):
        write_table(tmp_path, damage(read_table(root / "simulated-iemocap")))
    assert list(tmp_path.iterdir()) == []


# --- the simulator ----------------------------------------------------------------------------------------------------


def content(folder: Path) -> dict[str, bytes]:
    """All files that :func:`simulate` writes."""
    made_later = (TRUTH, STAMP, f"functionals-{VERSION}")
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and not {p.name, p.parent.name} & set(made_later))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", SIMULATED)
def test_equal_configurations_give_equal_bytes(root: Path, tmp_path: Path, name: str) -> None:
    simulate(tmp_path, PRESETS[name])
    assert content(tmp_path) == content(root / name)
    for modality in PRESETS[name].modalities:
        verify_features(tmp_path / f"simulated-{modality}")
    known = json.loads((root / name / TRUTH).read_text())
    module = build(root, next(task for task in FIRST if task[0] == name), features={})
    assert module.attainable == known["attainable"][module.label_set]


def test_another_seed_gives_another_corpus(root: Path, tmp_path: Path) -> None:
    simulate(tmp_path, replace(PRESETS["simulated-meld"], seed=1))
    other = content(tmp_path)
    for name, bytes_ in content(root / "simulated-meld").items():
        assert other[name] != bytes_, name


def test_only_a_changed_preset_is_generated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "simulated-ravdess"
    build(tmp_path, RAVDESS_TASK)
    inode = folder.stat().st_ino
    build(tmp_path, RAVDESS_TASK)
    assert folder.stat().st_ino == inode
    before = content(folder)
    changed = replace(PRESETS["simulated-ravdess"], signal=9.0)
    monkeypatch.setitem(PRESETS, "simulated-ravdess", changed)
    build(tmp_path, RAVDESS_TASK)
    assert json.loads((folder / simulated.FILE).read_text())["signal"] == 9.0
    assert content(folder)[FILE] == before[FILE]
    assert content(folder)["simulated-audio/values.npy"] != before["simulated-audio/values.npy"]
    monkeypatch.setattr(simulated, "VERSION", 99)
    build(tmp_path, RAVDESS_TASK)
    assert json.loads((folder / simulated.FILE).read_text())["version"] == 99


def test_an_interrupted_simulation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(simulated, "write_features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path, RAVDESS_TASK)
    assert [path.name for path in tmp_path.iterdir()] == [".simulated-ravdess.lock"]
    build(tmp_path, RAVDESS_TASK)


def test_a_folder_with_other_files_is_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "simulated-ravdess"
    folder.mkdir()
    (folder / "thesis.txt").write_text("the only copy")
    with pytest.raises(Misuse, match="is not a simulated corpus"):
        build(tmp_path, RAVDESS_TASK)
    assert (folder / "thesis.txt").is_file()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_processes_may_generate_at_once(root: Path, tmp_path: Path) -> None:
    names = ("simulated-meld", "simulated-ravdess")
    (tmp_path / "simulated-ravdess").mkdir()  # an old version, which has to be replaced
    (tmp_path / "simulated-ravdess" / simulated.FILE).write_text("{}")
    context = multiprocessing.get_context("fork")  # a fresh process would first import torch, for many seconds
    both_are_here = context.Barrier(2)

    def generate() -> None:
        both_are_here.wait(60)
        for name in names:
            ensure_generated(tmp_path / name, PRESETS[name])

    other = context.Process(target=generate)
    other.start()
    generate()
    for name in names:
        assert content(tmp_path / name) == content(root / name)
    other.join(60)
    assert other.exitcode == 0
    for name in names:
        assert content(tmp_path / name) == content(root / name)
    assert {path.name for path in tmp_path.iterdir()} == {*names, *(f".{name}.lock" for name in names)}


def test_corpora_have_the_form_of_the_real_ones(root: Path) -> None:
    ravdess = read_table(root / "simulated-ravdess")
    assert len(ravdess) == 720
    assert Counter(ravdess["emotion"]) == {"neutral": 48, **dict.fromkeys(
        ("calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"), 96)}  # fmt: skip
    assert ravdess["id"].str.fullmatch(r"01(-0[1-8])(-0[12])(-0[12])-01-\d\d").all()
    assert (ravdess["id"].str[-2:] == ravdess["speaker"]).all()
    iemocap = read_table(root / "simulated-iemocap")
    assert iemocap["dialogue"].nunique() == 151
    assert set(validation_dialogues()) <= set(iemocap["dialogue"])
    assert iemocap["id"].str.fullmatch(r"Ses0[1-5][FM]_(impro0\d[ab]?|script0\d_\d)_[FM]\d{3}").all()
    assert iemocap["speaker"].nunique() == 10
    assert (iemocap["end"] >= iemocap["start"]).all()
    meld = read_table(root / "simulated-meld")
    assert meld.groupby("split")["dialogue"].nunique().to_dict() == {"train": 210, "validation": 30, "test": 60}
    assert 0.4 < (meld["emotion"] == "neutral").mean() < 0.55


def test_emotions_have_inertia_and_keep_their_shares(tmp_path: Path) -> None:
    config = replace(PRESETS["simulated-iemocap"], inertia=0.5, contagion=0.2)
    chained = simulated.iemocap(config, np.random.default_rng(0))
    independent = simulated.iemocap(replace(config, inertia=0, contagion=0), np.random.default_rng(0))
    stays = {}
    for name, corpus in (("chained", chained), ("independent", independent)):
        previous = pd.Series(corpus.emotion).groupby(corpus.table["speaker"] + corpus.table["dialogue"]).shift()
        stays[name] = (previous == corpus.emotion)[previous.notna()].mean()
        assert abs((corpus.emotion == 0).mean() - 1708 / 7532) < 0.04
    assert stays["independent"] < 0.25 < 0.5 < stays["chained"]


def accuracy(module: EmotionDataModule, names: tuple[str, ...]) -> float:
    """Test accuracy of a linear model on the mean and standard deviation of each modality over time."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    columns = []
    for name in names:
        opened = module.features[name]
        spans = np.split(np.asarray(opened.values, np.float64), opened.offsets[1:-1])
        columns.append([np.r_[s.mean(0), s.std(0)] if len(s) else np.zeros(2 * s.shape[1]) for s in spans])
    pooled = np.hstack(columns)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=300))
    model.fit(pooled[module.rows["train"]], module.labels[module.rows["train"]])
    return float(model.score(pooled[module.rows["test"]], module.labels[module.rows["test"]]))


def test_fusion_helps_and_the_task_is_neither_trivial_nor_hopeless(root: Path) -> None:
    scores: dict[tuple[str, ...], list[float]] = {}
    for fold in range(1, 7):
        module = build(root, ("simulated-ravdess", "eight", "folds6", fold))
        for names in (("audio", "vision"), ("audio",), ("vision",)):
            scores.setdefault(names, []).append(accuracy(module, names))
    means = {names: np.mean(values) for names, values in scores.items()}
    assert 0.58 < means["audio", "vision"] < 0.72
    for one in (("audio",), ("vision",)):
        assert 0.3 < means[one] < means["audio", "vision"] - 0.05


# --- odd files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "id\na\n", "name,label\na,b\n", 'id,emotion\n"a', "id,emotion\na,b,c\nd,e\n", "\0"]
)
def test_labels_that_cannot_be_read_are_one_sentence(own_root: Path, text: str) -> None:
    path = own_root / "simulated-meld" / "labels_sentiment.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Misuse, match=r"labels_sentiment\.csv") as caught:
        build(own_root, ("simulated-meld", "sentiment", "official", 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "column"), [(("simulated-ravdess", "eight", "folds6", 1), "speaker"), (IEMOCAP_TASK, "session")]
)
def test_a_session_or_speaker_that_is_no_number_is_one_sentence(
    own_root: Path, task: tuple[str, str, str, int], column: str
) -> None:
    folder = own_root / task[0]
    table = read_table(folder)
    table.loc[3, column] = "one"
    table.to_csv(folder / FILE, index=False)
    with pytest.raises(Misuse, match="splits by a session or speaker that is no number"):
        build(own_root, task, features={})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"attainable": {}}', "[" * 20_000])
def test_what_is_known_of_a_simulated_corpus_is_checked(own_root: Path, text: str) -> None:
    (own_root / "simulated-ravdess" / TRUTH).write_text(text)
    with pytest.raises(Misuse, match=r"truth\.json"):
        assert build(own_root, RAVDESS_TASK).attainable
