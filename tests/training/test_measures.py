"""The measures beside the score: they change no training, choice or prediction, and their values are right."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from factories import DIMS, alone, pad, random_batch, widths
from suites import execute_and_write, permute_labels, spec_of, train
from torch import Tensor

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.calibration import Scaled, probability_scores
from mer_bench.errors import Misuse
from mer_bench.functionals import COUNT, functionals
from mer_bench.fusion.base import FusionModule
from mer_bench.groups import group_totals
from mer_bench.metrics import confusion_matrix
from mer_bench.probabilities import read_probabilities
from mer_bench.raters import FILE, Ratings, cross_entropies, distributions, divergences, raters_csv, votes
from mer_bench.records import MEASURES, RunRecord, measured, read_record, write_record
from mer_bench.training import measures as measure
from mer_bench.training.bench import missing
from mer_bench.training.build import build_datamodule, build_method
from mer_bench.training.measures import DECIBELS, RATES, Disturbances
from mer_bench.training.options import Hardware, RunSettings
from mer_bench.training.validate import validate
from mer_bench.utterances import read_table

TRAINING = {"epochs": 3, "learning_rate": 4e-3}


def bare(record: RunRecord) -> RunRecord:
    """Without measures and without times."""
    measures = dict.fromkeys(MEASURES)
    return replace(record, **measures, seconds=0.0, peak_memory_mib=0.0)


@pytest.fixture(scope="module", autouse=True)
def ratings(root: Path) -> Iterator[Ratings]:
    """Three raters of the simulated takes: one is right, the others call every second and every third one calm."""
    folder = root / "simulated-ravdess"
    table = read_table(folder)
    found = {
        name: {"E1": [label], **{f"E{n}": ["calm" if row % n == 0 else label] for n in (2, 3)}}
        for row, (name, label) in enumerate(zip(table["id"], table["emotion"], strict=True))
    }
    (folder / FILE).write_text(raters_csv(found))
    yield found
    (folder / FILE).unlink()


@pytest.fixture(scope="module")
def plain(root: Path) -> RunRecord:
    return train(spec_of(root, "early_concat", training=TRAINING), root)


@pytest.fixture(scope="module")
def full(root: Path) -> RunRecord:
    """All measures; a disturbance of strength zero stands beside each real one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(measure, "RATES", (0.0, 0.5))
        patched.setattr(measure, "DECIBELS", (400, 0))
        return train(spec_of(root, "early_concat", training=TRAINING), root, measures=MEASURES)


# Nothing else changes


def test_a_run_is_the_same_with_and_without_measures(plain: RunRecord, full: RunRecord) -> None:
    assert measured(plain) == set()
    assert measured(full) == set(MEASURES)
    assert bare(full) == bare(plain)
    assert len({json.dumps(entry) for entry in plain.curve}) == 3


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("bc_lstm", {"training": {"epochs": 2, "batch_size": 8}}),
        ("mmim", {"training": {"epochs": 2}}),  # estimates densities during training
        ("early_concat", {"protocol": "fixed", "training": {"epochs": 2}}),  # without validation
    ],
)
def test_counting_on_the_test_set_changes_no_kind_of_training(root: Path, method: str, changes: dict[str, Any]) -> None:
    spec = spec_of(root, method, **changes)
    counted = train(spec, root, measures=["literature"])
    assert bare(counted) == bare(train(spec, root))
    assert counted.literature is not None
    assert counted.literature[counted.best_epoch] == counted.test_confusion


def test_test_labels_reach_neither_curve_nor_choice_nor_predictions_through_the_literature_measure(
    root: Path, full: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    permute_labels(monkeypatch, "test")
    other = train(full.spec, root, measures=["literature"])
    assert other.literature != full.literature
    assert other.curve == full.curve
    assert other.best_epoch == full.best_epoch
    assert other.test_predictions == full.test_predictions


# Groups, raters and temperature


def test_groups_have_the_predictions_of_their_utterances(root: Path, plain: RunRecord) -> None:
    corpus = build_datamodule(plain.spec, root)
    assert plain.groups is not None
    assert plain.clusters is not None
    assert (plain.groups["speaker"].within, plain.groups["gender"].within) == ("clusters", "clusters")
    of_gender = group_totals(plain.groups, "gender", plain.clusters)
    index, predicted = np.array(plain.test_index), np.array(plain.test_predictions)
    male = corpus.table["speaker"].to_numpy()[index].astype(int) % 2 == 1
    assert plain.groups["gender"].names == ["female", "male"]
    for matrix, chosen in zip(of_gender, (~male, male), strict=True):
        np.testing.assert_array_equal(matrix, confusion_matrix(corpus.labels[index][chosen], predicted[chosen], 8))


def test_raters_are_compared_with_the_probabilities_of_the_test(
    root: Path, full: RunRecord, ratings: Ratings, tmp_path: Path
) -> None:
    kept = train(full.spec, root, measures=["raters"], keep=tmp_path)
    assert kept.raters == full.raters
    assert full.raters is not None
    probabilities = read_probabilities(kept, tmp_path)
    assert probabilities is not None
    corpus = build_datamodule(full.spec, root)
    ids = corpus.table["id"].to_numpy()[full.test_index].tolist()
    given = distributions(votes(ratings, ids, corpus.class_of, 8))
    assert sum(full.raters.utterances) == len(ids)
    assert sum(full.raters.cross_entropy) / 100 == pytest.approx(cross_entropies(probabilities, given).sum(), rel=1e-3)
    assert sum(full.raters.divergence) / 100 == pytest.approx(divergences(probabilities, given).sum(), rel=1e-2)
    assert set(full.raters.agreement.names) == {"all", "most", "few"}


def test_raters_that_a_corpus_lacks_are_missed_before_anything_trains(root: Path, full: RunRecord) -> None:
    path = root / "simulated-ravdess" / FILE
    content = path.read_bytes()
    path.unlink()
    try:
        with pytest.raises(Misuse, match=r"the measure raters needs .*raters\.csv"):
            validate([full.spec], root, measures=["raters"])
        validate([full.spec], root, measures=["temperature"])
    finally:
        path.write_bytes(content)


def test_the_temperature_is_fitted_on_validation_and_applied_to_the_test(
    root: Path, full: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = full.temperature
    assert found is not None
    assert found.temperature not in (None, 1.0)
    assert found.calibration is not None
    assert full.calibration is not None
    assert probability_scores([found.calibration])[0] < probability_scores([full.calibration])[0]
    permute_labels(monkeypatch, "test")
    other = train(full.spec, root, measures=["temperature"]).temperature
    assert other is not None
    assert other.temperature == found.temperature  # test labels have no part in it
    assert other.calibration != found.calibration


def test_without_validation_there_is_no_temperature(root: Path) -> None:
    record = train(spec_of(root, "majority", protocol="fixed"), root, measures=["temperature"])
    assert record.temperature == Scaled(None, None)


# Literature


def test_literature_counts_the_whole_test_set_on_the_weights_of_each_epoch(full: RunRecord) -> None:
    assert full.literature is not None
    assert len(full.literature) == len(full.curve) == 3
    assert full.literature[full.best_epoch] == full.test_confusion
    assert len({json.dumps(matrix) for matrix in full.literature}) == 3
    support = np.sum(full.test_confusion, 1).tolist()
    assert [np.sum(matrix, 1).tolist() for matrix in full.literature] == [support] * 3


def test_a_method_without_parameters_has_measures_too(root: Path) -> None:
    record = train(spec_of(root, "majority"), root, measures=MEASURES)
    assert record.literature == [record.test_confusion]
    assert record.robustness is not None
    assert all(m == record.test_confusion for kind in record.robustness.values() for m in kind.values())
    assert record.efficiency is not None


# Robustness


def test_robustness_is_of_the_weights_that_were_scored_and_of_every_test_utterance(full: RunRecord) -> None:
    assert full.robustness is not None
    assert set(full.robustness) == {"only", "missing", "noise", "noise audio", "noise vision"}
    assert set(full.robustness["only"]) == {"audio", "vision"}
    for kind, none, real in (("missing", "0", "0.5"), ("noise", "400", "0"), ("noise audio", "400", "0")):
        assert full.robustness[kind][none] == full.test_confusion
        assert full.robustness[kind][real] != full.test_confusion
    support = np.sum(full.test_confusion, 1).tolist()
    for kinds in full.robustness.values():
        assert all(np.sum(matrix, 1).tolist() == support for matrix in kinds.values())


class ReadsFunctionals(FusionModule):
    """Logits are the first functionals of audio, its means."""

    def forward(self, batch: Batch) -> Tensor:
        return batch.functionals["audio"][:, : self.num_classes]


def test_noise_changes_the_predictions_of_a_method_that_reads_functionals_alone(root: Path) -> None:
    datamodule = build_datamodule(spec_of(root, "early_concat"), root)
    datamodule.reads = ReadsFunctionals.reads
    datamodule.setup("test")
    method = ReadsFunctionals(datamodule.dims, datamodule.num_classes)
    found = measure.robustness(method, datamodule)
    assert datamodule.reads == ReadsFunctionals.reads  # as before
    batches = list(datamodule.test_dataloader())
    assert not any(batch.frames for batch in batches)
    predicted = torch.cat([method(batch).argmax(1) for batch in batches]).bincount(minlength=8).tolist()
    assert np.sum(found["noise vision"]["0"], 0).tolist() == predicted
    changes = [np.abs(np.sum(found["noise audio"][str(level)], 0) - predicted).sum() for level in DECIBELS]
    assert changes[-1] > 0
    assert changes == sorted(changes)


class CountModalities(FusionModule):
    """Predicts how many modalities an utterance has."""

    def forward(self, batch: Batch) -> Tensor:
        return torch.nn.functional.one_hot(self.present(batch).sum(0), self.num_classes).float()


def test_the_predictions_under_each_disturbance_are_counted_under_its_name(root: Path) -> None:
    datamodule = build_datamodule(spec_of(root, "early_concat"), root)
    datamodule.setup("test")
    found = measure.robustness(CountModalities(datamodule.dims, datamodule.num_classes), datamodule)
    seen = {kind: {level: np.sum(m, 0).tolist() for level, m in of.items()} for kind, of in found.items()}
    rows = datamodule.rows["test"]
    lack = {n: int((np.diff(opened.offsets)[rows] == 0).sum()) for n, opened in datamodule.features.items()}
    whole = len(rows) - sum(lack.values())  # have both
    assert min(lack.values()) > 0
    assert seen["only"] == {name: [absent, len(rows) - absent] + [0] * 6 for name, absent in lack.items()}
    assert list(seen["missing"]) == [f"{rate:g}" for rate in RATES]
    assert list(seen["noise"]) == [f"{level}" for level in DECIBELS]
    assert all(counts == [0, len(rows) - whole, whole] + [0] * 5 for counts in seen["noise audio"].values())
    both = [counts[2] for counts in seen["missing"].values()]
    assert both == sorted(both, reverse=True)
    assert whole > both[0] > 0.6 * whole > 0.3 * whole > both[-1] > 0
    assert all(counts[0] == 0 for counts in seen["missing"].values())


def functionals_of(name: str, frames: PaddedSequence) -> Tensor:
    """As the datamodule computes them, but not standardised."""
    return functionals(frames, COUNT * frames.values.shape[2]).float()


def conditions(batch: Batch, names: Iterable[str] = DIMS) -> dict[tuple[str, str], Batch]:
    plan = Disturbances(60, list(batch.present), list(names), functionals_of)
    return {(kind, level): changed for kind, level, changed in plan.of(batch)}


def test_the_disturbances_of_three_modalities() -> None:
    found = conditions(random_batch())
    only = ["text", "audio", "vision", "audio+text", "text+vision", "audio+vision"]
    assert [level for kind, level in found if kind == "only"] == only
    assert {kind for kind, _ in found} == {"only", "missing", "noise", "noise text", "noise audio", "noise vision"}
    pair = found["only", "audio+text"]
    assert not pair.present["vision"].any()
    assert not pair.functionals["vision"].any()
    assert not pair.frames["vision"].mask.any()
    assert not pair.frames["vision"].values.any()
    assert torch.equal(pair.frames["audio"].values, random_batch().frames["audio"].values)
    assert torch.equal(pair.functionals["audio"], random_batch().functionals["audio"])


def test_one_modality_is_never_dropped_and_pixels_get_no_noise() -> None:
    batch = random_batch(widths(audio=5))
    assert {kind for kind, _ in conditions(batch, ["audio"])} == {"noise"}
    assert conditions(batch, []) == {}


def same(left: Batch, right: Batch, rows: Tensor | slice = slice(None)) -> bool:
    """Whether ``right`` holds the utterances ``rows`` of ``left``, but for padding."""
    for name, sequence in right.frames.items():
        time = min(sequence.mask.shape[1], left.frames[name].mask.shape[1])
        mask = left.frames[name].mask[rows]
        values = left.frames[name].values[rows]
        if not torch.equal(left.present[name][rows], right.present[name]):
            return False
        if not torch.allclose(left.functionals[name][rows], right.functionals[name], rtol=1e-5, atol=1e-6):
            return False
        if not torch.equal(mask[:, :time], sequence.mask[:, :time]) or mask[:, time:].any():
            return False
        if sequence.mask[:, time:].any() or not torch.equal(values[:, :time], sequence.values[:, :time]):
            return False
    return True


def test_an_utterance_is_treated_alike_with_any_padding_and_beside_any_other() -> None:
    batch = random_batch(missing={"vision": [0, 4]})
    padded = conditions(pad(batch))
    by_itself, rows = alone(batch, 1)
    single = conditions(by_itself)
    for condition, changed in conditions(batch).items():
        assert same(changed, padded[condition]), condition
        assert same(changed, single[condition], rows), condition
    assert not same(batch, padded["noise", "10"])


def test_methods_on_fewer_modalities_lose_the_same_and_get_the_same_noise() -> None:
    batch = random_batch()
    pair = replace(
        batch,
        present={name: batch.present[name] for name in ("audio", "vision")},
        functionals={name: batch.functionals[name] for name in ("audio", "vision")},
        frames={name: batch.frames[name] for name in ("audio", "vision")},
    )
    every, two = conditions(batch), conditions(pair)
    for name in ("audio", "vision"):
        assert torch.equal(every["noise", "0"].frames[name].values, two["noise", "0"].frames[name].values)
        assert torch.equal(every["noise", "0"].functionals[name], two["noise", "0"].functionals[name])
        kept = two["missing", "0.5"].present[name]
        # with fewer modalities it is sooner the last one that is left
        assert bool((kept | ~every["missing", "0.5"].present[name]).all())


def test_modalities_go_missing_at_the_rate_independently_but_never_the_last_that_an_utterance_has() -> None:
    count = 3000
    lacking = range(0, count, 5)
    batch = random_batch(dialogues=[count], context="utterance", times=(1, 2), missing={"text": lacking})
    batch = replace(batch, index=torch.arange(count))
    plan = Disturbances(count, list(DIMS), [], functionals_of)
    before: Tensor | None = None
    for rate in RATES:
        changed = plan.missing(batch, rate)
        have = torch.stack([changed.present[name] for name in DIMS], 1)
        for column, name in enumerate(DIMS):
            assert torch.equal(have[:, column], changed.frames[name].mask.any(1))
            assert torch.equal(have[:, column], changed.functionals[name].any(1))
        assert have.any(1).all()
        assert before is None or not (have & ~before).any()  # what is lost at a low rate is lost at a higher one
        before = have
        full = have[[row for row in range(count) if row % 5]]
        expected = rate - rate**3 / 3
        assert full.float().mean(0).numpy() == pytest.approx([1 - expected] * 3, abs=0.04)
        two = (~full).sum(1) == 2
        assert float(two.float().mean()) == pytest.approx(3 * rate**2 * (1 - rate) + rate**3, abs=0.04)


@pytest.mark.parametrize("decibels", DECIBELS)
def test_noise_is_standard_gaussian_at_its_level_on_real_frames_of_its_modality_alone(decibels: int) -> None:
    dims = widths(audio=40, vision=30)
    batch = random_batch(dims, dialogues=[50], context="utterance", times=(10, 40), missing={"audio": [3]})
    batch = replace(batch, index=torch.arange(50))
    changed = conditions(batch, dims)["noise audio", str(decibels)]
    assert changed.frames["vision"] is batch.frames["vision"]
    assert changed.functionals["vision"] is batch.functionals["vision"]
    before, after = batch.frames["audio"], changed.frames["audio"]
    assert torch.equal(changed.functionals["audio"], functionals_of("audio", after))
    added = after.values - before.values
    assert torch.equal(before.mask, after.mask)
    assert not added[~before.mask].any()
    sigma = 10 ** (-decibels / 20)
    real = added[before.mask] / sigma
    assert float(real.mean()) == pytest.approx(0, abs=0.02)
    assert float(real.std()) == pytest.approx(1, abs=0.02)
    assert float((real.abs() < 1).float().mean()) == pytest.approx(0.683, abs=0.01)


# Efficiency


def test_efficiency_names_the_device_and_times_one_utterance_and_thirty_two(full: RunRecord) -> None:
    found = full.efficiency
    assert found is not None
    assert (found.latency_utterances, found.throughput_utterances, found.threads) == (1, 32, 1)
    assert 1e-6 < found.latency_seconds < 1
    assert 1e-6 < found.throughput_seconds < 32 * found.latency_seconds  # batches are faster
    assert found.device


def test_a_dialogue_method_is_timed_on_whole_dialogues(root: Path) -> None:
    datamodule = build_datamodule(spec_of(root, "bc_lstm", "simulated-iemocap"), root)
    datamodule.setup("test")
    lengths = datamodule.table["dialogue"].iloc[datamodule.rows["test"]].value_counts()
    method = build_method(spec_of(root, "bc_lstm", "simulated-iemocap"), datamodule.dims, datamodule.classes)
    found = measure.efficiency(method, datamodule)
    assert found.latency_utterances == sorted(lengths)[len(lengths) // 2]
    assert 32 <= found.throughput_utterances < 32 + lengths.max()


# In a bench: which measures are missing, which are kept


@pytest.fixture
def settings(root: Path, tmp_path: Path) -> RunSettings:
    return RunSettings(root, tmp_path / "results", "none")


def test_a_record_that_lacks_a_measure_is_run_again_and_keeps_what_it_has(root: Path, settings: RunSettings) -> None:
    spec = spec_of(root, "early_concat", training={"epochs": 1})
    assert missing([spec], settings.results) == [spec]
    path = execute_and_write(spec, replace(settings, measures=("robustness",)))
    first = read_record(path)
    assert first.robustness is not None
    assert (first.literature, first.efficiency) == (None, None)
    assert missing([spec], settings.results) == missing([spec], settings.results, ["robustness"]) == []
    assert missing([spec], settings.results, ["literature", "robustness"]) == [spec]
    assert execute_and_write(spec, replace(settings, measures=("literature",))) == path
    second = read_record(path)
    assert second.literature is not None
    assert second.robustness == first.robustness
    assert bare(second) == bare(first)
    assert missing([spec], settings.results, ["literature", "robustness"]) == []


def test_speed_alone_is_measured_without_training_again(
    root: Path, settings: RunSettings, plain: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(plain, settings.results)
    monkeypatch.setattr(L.Trainer, "fit", None)
    path = execute_and_write(plain.spec, replace(settings, measures=("efficiency",)))
    record = read_record(path)
    assert record.efficiency is not None
    assert record.efficiency.latency_seconds > 0
    assert replace(record, efficiency=None) == plain


def test_what_needs_whole_weights_is_not_missing_under_a_strategy_that_shards_them(
    settings: RunSettings, plain: RunRecord
) -> None:
    sharded = replace(plain, spec=replace(plain.spec, strategy="fsdp", devices=2))
    write_record(sharded, settings.results)
    assert missing([sharded.spec], settings.results, ["literature", "robustness"]) == []
    assert missing([sharded.spec], settings.results, MEASURES) == [sharded.spec]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore")  # from Lightning and Python, about logging and forking
def test_two_devices_measure_every_utterance_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "RATES", (0.0,))
    monkeypatch.setattr(measure, "DECIBELS", (400,))
    training = {"epochs": 2, "batch_size": 12}  # evaluation takes 48, 48 and 24
    hardware = Hardware(devices=2, strategy="ddp_fork")
    spec = spec_of(root, "early_concat", training=training, hardware=hardware)
    record = train(spec, root, measures=MEASURES, keep=tmp_path)
    probabilities = read_probabilities(record, tmp_path)
    assert probabilities is not None
    assert probabilities.astype(float).sum(1) == pytest.approx(1, abs=0.005)
    assert record.literature is not None
    assert record.robustness is not None
    assert record.literature[record.best_epoch] == record.test_confusion
    assert len(record.literature) == 2
    assert record.robustness["missing"]["0"] == record.robustness["noise"]["400"] == record.test_confusion
    assert record.efficiency is not None
