"""Strategies that keep one modality from dominating: whom they take, their formulas, and what they leave alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from factories import assert_close, random_batch, widths
from suites import execute_and_write, spec_of, train, write_suite
from torch import Tensor

from mer_bench.batch import Batch
from mer_bench.errors import Misuse
from mer_bench.fusion import METHODS, base
from mer_bench.fusion.base import FusionModule
from mer_bench.records import RunRecord, Training, load_records, read_record, write_record
from mer_bench.report.balance import balance_lines
from mer_bench.report.tables import tables
from mer_bench.training import balance
from mer_bench.training.balance import AGM, OGMGE, MMPareto, keeping_pace, slowing, without_conflict
from mer_bench.training.execute import missing
from mer_bench.training.options import Hardware, RunSettings
from mer_bench.training.suite import read_suite, suite_specs
from mer_bench.training.validate import validate

SUITES = Path(__file__).parents[2] / "benchmarks"
STRATEGIES = ("ogm_ge", "agm", "modality_dropout", "mmpareto")
#: methods whose modalities share their first layer, or whose recurrent weights are one tensor
REFUSED = {"majority", "linear", "ef_lstm", "mfn"}


# Whom they take


def built(name: str, *modalities: str) -> FusionModule:
    return METHODS[name](widths(**dict.fromkeys(modalities, 3)), 3)


@pytest.mark.parametrize("name", METHODS)
def test_encoders_by_modality_are_all_of_a_methods_unimodal_encoders_or_none(name: str) -> None:
    sets = [chosen for chosen in METHODS[name].accepted_modalities() if len(chosen) > 1]
    for modalities in {len(chosen): chosen for chosen in sets}.values():
        module = built(name, *modalities)
        found = module.encoders_by_modality()
        counted = [id(p) for each in found.values() for p in each]
        assert len(set(counted)) == len(counted)
        if name in REFUSED or (name, len(modalities)) == ("mctn", 3):
            assert found == {}
        else:
            assert list(found) == list(module.dims)
            assert sum(p.numel() for each in found.values() for p in each) == module.encoder_parameters


@pytest.mark.parametrize("name", ["early_concat", "mult", "bottleneck", "mmgcn", "sync_tva", "msaf"])
def test_an_encoder_by_modality_reads_its_own_modality_alone(name: str) -> None:
    """Weights that multiply features of another modality than the one that is present have no gradient."""
    module = built(name, "text", "audio").eval()
    batch = random_batch(module.dims, num_classes=3)
    for own, other in (("text", "audio"), ("audio", "text")):
        module.zero_grad()
        module(batch.only([own])).square().sum().backward()
        encoders = module.encoders_by_modality()
        assert all(p.grad is None or not p.grad.any() for p in encoders[other][:1])
        assert any(p.grad is not None and p.grad.any() for p in encoders[own][:1])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("method", ["linear", "majority", "unimodal", "mfn"])
def test_a_method_without_encoders_for_each_modality_is_refused_by_name(root: Path, method: str, strategy: str) -> None:
    options = {"options": {}} if method != "unimodal" else {}
    with pytest.raises(Misuse) as caught:
        spec_of(root, method, training={"balance": strategy}, **options)
    said = str(caught.value)
    assert f"method {method!r} on audio" in said
    assert f"does not take balance = {strategy!r}" in said
    assert "\n" not in said


def test_a_suite_is_refused_though_it_trains_the_same_row_without_a_strategy_first(tmp_path: Path, root: Path) -> None:
    methods = '"linear", { name = "linear", training = { balance = "agm" } }'
    features = 'audio = "simulated-audio", vision = "simulated-vision"'
    suite = read_suite(write_suite(tmp_path / "suite.toml", features=features, methods=methods))
    with pytest.raises(Misuse, match="method 'linear' on audio and vision does not take balance = 'agm'"):
        validate(suite_specs(suite, root), root)


def test_a_strategy_that_shards_the_weights_is_refused(root: Path) -> None:
    with pytest.raises(Misuse, match="balance = 'agm' does not go with strategy 'fsdp', which shards the weights"):
        spec_of(root, "early_concat", training={"balance": "agm"}, hardware=Hardware(devices=2, strategy="fsdp"))


def test_a_strategy_that_does_not_exist_is_one_sentence(root: Path) -> None:
    valid = "balance must be none, ogm_ge, agm, modality_dropout or mmpareto, not 'ogm'"
    with pytest.raises(Misuse, match=valid):
        spec_of(root, "early_concat", training={"balance": "ogm"})


@pytest.mark.parametrize("corpus", ["ravdess", "iemocap"])
def test_the_suites_cross_methods_of_the_corpus_s_suite_with_every_strategy(corpus: str) -> None:
    usual, suite = read_suite(SUITES / f"{corpus}.toml"), read_suite(SUITES / f"balance_{corpus}.toml")
    assert (suite.seeds, suite.measures) == (usual.seeds, ("robustness", "gradients"))
    plain = [row for row in suite.rows if row.training.balance == "none"]

    def key(row: Any) -> str:
        return repr((row.method, row.features, sorted(row.options.items()), row.training))

    assert {key(row) for row in plain} <= {key(row) for row in usual.rows}
    crossed = {key(replace(row, training=replace(row.training, balance=s))) for row in plain for s in STRATEGIES}
    assert {key(row) for row in suite.rows} == crossed | {key(row) for row in plain}


# Formulas, against loops over utterances and modalities


def trainer(epoch: int = 0) -> Any:
    """As much of a Trainer of one device as a strategy reads."""
    return SimpleNamespace(
        current_epoch=epoch,
        max_epochs=10,
        strategy=SimpleNamespace(reduce=lambda tensor, reduce_op: tensor),
        precision_plugin=SimpleNamespace(forward_context=nullcontext),
    )


@pytest.fixture
def method() -> FusionModule:
    found = METHODS["early_concat"](widths(text=3, audio=3, vision=3), 3, hidden=4, dropout=0.2)
    return found.train()


@pytest.fixture
def batch(method: FusionModule) -> Batch:
    """Utterances that lack modalities among them."""
    whole = random_batch(method.dims, num_classes=3)
    lost = {name: torch.arange(len(whole)) % 4 == number for number, name in enumerate(method.dims)}
    return whole.without(lost)


def stepped(strategy: Any, method: FusionModule, batch: Batch, epoch: int = 0) -> tuple[Any, Any]:
    """Gradients by modality, of the loss and as the strategy leaves them."""
    method.zero_grad()
    method.cross_entropy(method(batch), batch).backward()  # type: ignore[no-untyped-call]
    before = gradients(method)
    strategy.on_train_batch_start(trainer(epoch), method, batch, 0)
    strategy.on_before_optimizer_step(trainer(epoch), method, None)
    return before, gradients(method)


def gradients(method: FusionModule) -> dict[str, list[Tensor]]:
    found = {name: [p.grad.clone() for p in each] for name, each in method.encoders_by_modality().items()}  # type: ignore[union-attr]
    inside = {id(p) for each in method.encoders_by_modality().values() for p in each}
    return {**found, "": [p.grad.clone() for p in method.parameters() if id(p) not in inside and p.grad is not None]}


def scores_alone(method: FusionModule, batch: Batch, names: list[str]) -> list[float]:
    """Mean probability of the true class, over the utterances that have the modality."""
    method.eval()
    found = []
    for name in names:
        p = method(batch.only([name])).softmax(1).detach()
        rows = [row for row in range(len(batch)) if batch.present[name][row]]
        found.append(sum(float(p[row, batch.label[row]]) for row in rows) / len(rows))
    method.train()
    return found


def test_ogm_ge_slows_the_modality_that_is_ahead_and_adds_noise(method: FusionModule, batch: Batch) -> None:
    names, strategy = list(method.dims), OGMGE(5)
    strategy.on_train_start(trainer(), method)
    before, after = stepped(strategy, method, batch)
    score, noise = scores_alone(method, batch, names), torch.Generator().manual_seed(5)
    slowed = 0
    for index, name in enumerate(names):
        others = sum(s for other, s in enumerate(score) if other != index) / 2
        ratio = score[index] / others
        k = 1 - math.tanh(balance.OGM_ALPHA * ratio) if ratio > 1 else 1.0
        slowed += k < 1
        for old, new in zip(before[name], after[name], strict=True):
            if old.ndim > 1:
                drawn = torch.empty_like(old).normal_(generator=noise)
                assert_close(new, k * old + float(np.std(old.numpy())) * drawn)
            else:
                assert torch.equal(old, new)
    assert 0 < slowed < 3
    assert all(torch.equal(a, b) for a, b in zip(before[""], after[""], strict=True))


def test_ogm_ge_ends_with_the_first_half_of_the_epochs(method: FusionModule, batch: Batch) -> None:
    strategy = OGMGE(0)
    strategy.on_train_start(trainer(), method)
    for epoch, changes in ((5, True), (6, False)):
        before, after = stepped(strategy, method, batch, epoch)
        assert torch.equal(before["text"][0], after["text"][0]) != changes


def test_factors_of_two_modalities_by_hand() -> None:
    known = torch.tensor([True, True])
    found = slowing(torch.tensor([0.6, 0.2]), known)
    assert found.tolist() == pytest.approx([1 - math.tanh(0.3 * 3), 1])
    now, earlier = torch.tensor([1.0, 2.0]), torch.tensor([1.5, 1.75])
    tau, r = math.exp(0.25), math.exp(1)
    assert keeping_pace(now, known, earlier, known).tolist() == pytest.approx(
        [math.exp(tau - r), math.exp(1 / tau - 1 / r)]
    )
    # a modality that no utterance has, and a first step
    none = torch.tensor([True, False])
    assert slowing(torch.tensor([0.6, 0.0]), none).tolist() == [1, 1]
    assert keeping_pace(now, none, earlier, known)[1] == 1
    assert keeping_pace(now, known, torch.zeros(2), ~known).tolist() == pytest.approx(
        [math.exp(1 - r), math.exp(1 - 1 / r)]
    )
    # the exponent is limited: without it, this would be e to the 403
    far = keeping_pace(torch.tensor([0.0, 0.0]), known, torch.tensor([0.0, 6.0]), known)
    assert float(far[0]) == pytest.approx(math.exp(balance.AGM_LARGEST))


def test_agm_scales_each_encoder_by_its_lead_against_its_average_lead(method: FusionModule, batch: Batch) -> None:
    names, strategy = list(method.dims), AGM(0)
    strategy.on_train_start(trainer(), method)
    other = random_batch(method.dims, num_classes=3, dialogues=(7, 6))
    averages: list[list[float]] = []
    for seen in (batch, other, batch):
        before, after = stepped(strategy, method, seen)
        method.eval()
        with torch.no_grad():
            value = {(): torch.zeros(len(seen), 3)}
            value |= {tuple(sorted(c)): method(seen.only(c)) for n in (1, 2, 3) for c in permutations(names, n)}
        method.train()
        entropy = []
        for name in names:
            orders = list(permutations(names))
            parts = []
            for order in orders:
                ahead = order[: order.index(name)]
                parts.append(value[tuple(sorted((*ahead, name)))] - value[tuple(sorted(ahead))])
            logits = torch.stack(parts).mean(0)
            each = F.cross_entropy(logits, seen.label, reduction="none")
            entropy.append(float(each[seen.present[name]].mean()))
        earlier = np.mean(averages, 0) if averages else np.zeros(3)
        for index, name in enumerate(names):
            rest = [n for n in range(3) if n != index]
            r = math.exp(np.mean([entropy[n] for n in rest]) - entropy[index])
            tau = math.exp(np.mean([earlier[n] for n in rest]) - earlier[index])
            for old, new in zip(before[name], after[name], strict=True):
                assert_close(new, math.exp(balance.AGM_ALPHA * (tau - r)) * old)
        assert all(torch.equal(a, b) for a, b in zip(before[""], after[""], strict=True))
        averages.append(entropy)


@pytest.mark.parametrize(
    ("ours", "own"),
    [([1.0, 2.0], [2.0, 1.0]), ([1.0, 2.0], [-3.0, 1.0]), ([4.0, 1.0], [-0.5, 0.2]), ([0.2, 0.1], [0.5, -3.0])],
)
def test_mmpareto_takes_the_shortest_mixture_where_gradients_conflict(ours: list[float], own: list[float]) -> None:
    a, b = np.array(ours), np.array(own)
    shares = np.linspace(0, 1, 100_001)[:, None]
    mixtures = shares * a + (1 - shares) * b
    h = 2 * mixtures[np.argmin((mixtures**2).sum(1))] if a @ b < 0 else a + b
    expected = 1.5 * max(np.linalg.norm(a + b) / np.linalg.norm(h), 1) * h
    found = without_conflict(torch.tensor(ours), torch.tensor(own))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert float(found @ torch.tensor(ours)) > 0  # neither loss grows
    assert float(found @ torch.tensor(own)) > 0


def test_opposite_gradients_leave_none_and_no_division_by_zero() -> None:
    gradient = torch.tensor([1.0, -2.0, 0.5])
    assert without_conflict(gradient, -gradient).tolist() == [0, 0, 0]
    assert without_conflict(torch.zeros(3), torch.zeros(3)).tolist() == [0, 0, 0]


def test_mmpareto_adds_the_losses_of_single_modalities(batch: Batch) -> None:
    method = METHODS["early_concat"](widths(text=3, audio=3, vision=3), 3, hidden=4, dropout=0.0).train()
    method.training_options = Training(label_smoothing=0.1)
    strategy = MMPareto(0)
    strategy.on_train_start(trainer(), method)
    before, after = stepped(strategy, method, batch)
    own: dict[str, dict[str, list[Tensor]]] = {}
    for name in method.dims:
        method.zero_grad()
        rows = batch.present[name]
        logits = method(batch.only([name]))[rows]
        F.cross_entropy(logits, batch.label[rows], label_smoothing=0.1).backward()  # type: ignore[no-untyped-call]
        own[name] = gradients(method)
    for name in method.dims:
        a, b = (torch.cat([each.flatten() for each in found[name]]) for found in (before, own[name]))
        assert_close(torch.cat([each.flatten() for each in after[name]]), without_conflict(a, b))
    for index, found in enumerate(after[""]):
        assert_close(found, before[""][index] + sum(own[name][""][index] for name in method.dims))


# Whole runs


CHOSEN: dict[str, Any] = {"epochs": 2, "learning_rate": 4e-3}


@pytest.fixture(scope="module")
def plain(root: Path) -> RunRecord:
    return train(spec_of(root, "simbamm", training=CHOSEN), root, measures=["gradients"])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_reaches_the_training_and_a_run_gives_the_same_twice(
    root: Path, plain: RunRecord, strategy: str, tmp_path: Path
) -> None:
    spec = spec_of(root, "simbamm", training={**CHOSEN, "balance": strategy})
    first, again = (train(spec, root, measures=["gradients"]) for _ in range(2))
    assert spec.sha256 != plain.spec.sha256
    assert first.curve == again.curve
    assert first.gradients == again.gradients
    assert first.curve != plain.curve
    assert read_record(write_record(first, tmp_path)) == first


def test_what_a_strategy_looks_at_changes_no_random_number_and_no_mode_of_the_training(
    root: Path, plain: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AGM with factors of one; SimBaMM draws masks in its forward pass."""
    monkeypatch.setattr(balance, "AGM_ALPHA", 0.0)
    found = train(spec_of(root, "simbamm", training={**CHOSEN, "balance": "agm"}), root)
    assert found.curve == plain.curve
    assert found.test_predictions == plain.test_predictions


def test_modality_dropout_drops_in_training_alone_and_never_the_last_modality(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[Tensor] = []
    seen: dict[bool, list[Tensor]] = {True: [], False: []}
    step, forward = FusionModule.training_step, METHODS["early_concat"].forward

    def begun(self: FusionModule, batch: Batch, batch_idx: int) -> Tensor:
        whole.append(self.present(batch))
        return step(self, batch, batch_idx)

    def noted(self: FusionModule, batch: Batch) -> Tensor:
        seen[self.training].append(self.present(batch))
        return forward(self, batch)

    monkeypatch.setattr(FusionModule, "training_step", begun)
    monkeypatch.setattr(METHODS["early_concat"], "forward", noted)
    spec = spec_of(root, "early_concat", training={**CHOSEN, "balance": "modality_dropout"})
    train(spec, root)
    before, after, evaluated = (torch.cat(each, 1) for each in (whole, seen[True], seen[False]))
    assert torch.equal(before.any(0), after.any(0))
    assert not (after & ~before).any()
    both = before.all(0)
    p = base.MODALITY_DROPOUT  # where both would go, both stay
    assert (after[:, both].float().mean(1) - (1 - p + p * p)).abs().max() < 0.05
    assert (evaluated.float().mean(1) > 0.95).all()


# Gradients


@pytest.fixture
def norms(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, float]]]:
    """Norm of each encoder's gradient in each step, as the loss gives it."""
    found: list[dict[str, float]] = []

    def noted(self: FusionModule, *_: Any) -> None:
        by_name = {name: self.encoders.get_submodule(name).parameters() for name in self.dims}
        squares = {name: sum(float(p.grad.square().sum()) for p in each) for name, each in by_name.items()}  # type: ignore[union-attr]
        found.append({name: math.sqrt(each) for name, each in squares.items()})

    monkeypatch.setattr(FusionModule, "on_after_backward", noted)
    return iter([found])


@pytest.mark.parametrize("strategy", ["none", "ogm_ge"])
def test_gradients_are_those_of_the_loss_whatever_is_done_to_them_later(
    root: Path, norms: Iterator[list[dict[str, float]]], strategy: str
) -> None:
    training = {**CHOSEN, "balance": strategy, "gradient_clip": 0.01}
    record = train(spec_of(root, "early_concat", training=training), root, measures=["gradients"])
    steps = next(norms)
    half = len(steps) // 2
    assert record.gradients is not None
    assert set(record.gradients) == {"audio", "vision"}
    for name, found in record.gradients.items():
        expected = [np.mean([step[name] for step in part]) for part in (steps[:half], steps[half:])]
        assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", ["majority", "linear"])
def test_a_method_without_encoders_has_measured_no_gradients_and_is_not_run_again(root: Path, method: str) -> None:
    record = train(spec_of(root, method, options={}), root, measures=["gradients"])
    assert record.gradients == {}


def test_a_suite_crosses_methods_with_strategies_and_the_report_pairs_them(root: Path, tmp_path: Path) -> None:
    names = [
        f'{{ name = "{method}", options = {{ hidden = 8 }}, training = {{ balance = "{strategy}" }} }}'
        for method in ("early_concat", "late_average")
        for strategy in ("none", "mmpareto")
    ]
    features = 'audio = "simulated-audio", vision = "simulated-vision"'
    path = write_suite(tmp_path / "suite.toml", features=features, methods=", ".join(names), training="epochs = 1")
    specs = [spec for spec in suite_specs(read_suite(path), root) if spec.fold == 1]
    validate(specs, root)
    settings = RunSettings(root, tmp_path / "results", logger="none", measures=("robustness", "gradients"))
    for spec in specs:
        execute_and_write(spec, settings)
    assert missing(specs, settings.results, settings.measures) == []
    records, problems = load_records(settings.results)
    assert (len(records), problems) == (4, [])
    (table,) = tables(records)
    pairs = {(row.label, of.label) for row, of in table.strategies.items()}
    plain = ("early_concat (hidden=8) °", "late_average (hidden=8) °")
    assert pairs == {(name.replace("8)", '8, balance="mmpareto")'), name) for name in plain}
    lines = balance_lines(table)
    assert [line[1] for line in lines] == ["Strategy", "none", "mmpareto", "none", "mmpareto"]
    # one fold of six is no complete seed, so that nothing but gradients is shown
    assert [[cell == "–" for cell in line[6:-1]] for line in lines[1:]] == [[True] * 4 + [False] * 2] * 4
