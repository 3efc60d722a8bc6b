"""Simulated corpora: the stored properties are true, and features carry the information of the symbols, no other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from mer_bench.datasets import DATASETS, simulated, simulated_truth
from mer_bench.datasets.simulated import PRESETS, Latent, diagnostic, draw_sequences, ideal_posterior, normal, simulate
from mer_bench.datasets.simulated_model import FORMS, Form, SimulationConfig, draw_absent, draw_emotions, draw_symbols
from mer_bench.datasets.simulated_truth import (
    Atoms,
    DialogueSample,
    bayes_rates,
    chance_of,
    decompose,
    mutual_information,
    observed_table,
    smooth,
    symbol_tables,
    truth,
)
from mer_bench.errors import Misuse
from mer_bench.features import open_features
from mer_bench.fusion import METHODS, FusionModule
from mer_bench.metrics import accuracy, confusion_matrix, weighted_f1
from mer_bench.modalities import MODALITIES

Array = npt.NDArray[Any]
SYNERGY = PRESETS["simulated-synergy"]


def draw(config: SimulationConfig, rows: int = 40_000) -> tuple[Array, Array]:
    """Draw symbols [utterance, modality], -2 where one is missing, and emotions of independent utterances."""
    generator = np.random.default_rng(1)
    form = FORMS[config.form]
    emotion = generator.choice(len(form.share), size=rows, p=form.share)
    symbols = draw_symbols(emotion, len(form.share), config, generator)
    return np.where(draw_absent(rows, config, generator), -2, symbols), emotion


def plug_in(shown: Array, emotion: Array) -> float:
    """Estimate from counts the bits that discrete columns together carry about the emotion."""
    digits = shown - shown.min()
    columns, number = np.unique(digits @ (digits.max() + 1) ** np.arange(shown.shape[1]), return_inverse=True)
    joint = np.bincount(emotion * len(columns) + number).astype(float)
    joint = np.pad(joint, (0, -len(joint) % len(columns))).reshape(-1, len(columns))
    return mutual_information(joint[joint.any(1)] / len(emotion))


@pytest.fixture
def without_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the decomposition, which takes longest and has its own tests."""
    monkeypatch.setattr(simulated_truth, "decompose", lambda _: Atoms(0, 0, 0, 0))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Preset -> folder of the corpus, generated once."""

    @cache
    def generate(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name, numbered=False)
        simulate(folder, PRESETS[name])
        return folder

    return generate


# --- bytes ------------------------------------------------------------------------------------------------------------

GOLDEN = {
    "simulated-ravdess": "412705d5b33e9eaa01074da432568b84444f2f367c2c975a9df9026ff808672a",
    "simulated-synergy": "2bc8678d8df6a59a9dffe6e840c994fba26ffe315d1f47cab408dd3abf1f607f",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_same_seed_gives_the_same_bytes_on_any_machine(corpus: Callable[[str], Path], name: str) -> None:
    folder = corpus(name)
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    assert digest.hexdigest() == GOLDEN[name]


def test_sums_of_uniform_deviates_are_all_but_normal() -> None:
    values = normal(np.random.default_rng(0), (200_000,))
    assert values.mean() == pytest.approx(0, abs=0.01)
    assert values.std() == pytest.approx(1, abs=0.01)
    assert (np.abs(values) > 1.96).mean() == pytest.approx(0.05, abs=0.003)


# --- the distribution of symbols --------------------------------------------------------------------------------------

RICH = SimulationConfig(
    "plain", MODALITIES, {"text=audio": 0.2, "vision": 0.2, "text+vision": 0.3, "text+audio+vision": 0.1},
    noise=0.1, unreliable={"text": 0.3, "vision": 0.1}, pad=3, missing=0.1,
)  # fmt: skip


def test_symbols_have_the_distribution_that_truth_is_computed_with() -> None:
    shown, emotion = draw(RICH, 400_000)
    table = observed_table(RICH)  # its last two symbols are nothing and missing
    assert table.sum((1, 2, 3)) == pytest.approx([1] * 4)
    counts = np.zeros_like(table)
    np.add.at(counts, (emotion, *np.where(shown < 0, table.shape[-1] - 3 - shown, shown).T), 1)
    expected = table * np.bincount(emotion)[:, None, None, None]
    assert (counts[expected == 0] == 0).all()
    some = expected > 5
    chi2 = ((counts[some] - expected[some]) ** 2 / expected[some]).sum()
    assert chi2 == pytest.approx(some.sum(), abs=5 * np.sqrt(2 * some.sum()))


@pytest.mark.usefixtures("without_decomposition")
@pytest.mark.parametrize("name", PRESETS)
def test_stored_information_is_what_counts_of_symbols_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_truth, "_attainable", lambda *_: {})
    config = PRESETS[name]
    known = truth(config)
    form = FORMS[config.form]
    shown, emotion = draw(config)
    classes = form.classes(next(iter(form.labels)))
    label = np.where(classes.sum(1) > 0, classes.argmax(1), -1)[emotion]
    for part, bits in known["information"].items():
        columns = [config.modalities.index(modality) for modality in part.split("+")]
        assert plug_in(shown[label >= 0][:, columns], label[label >= 0]) == pytest.approx(bits, abs=0.03), part
    assert sum(known["evidence"].values()) == pytest.approx(known["information"]["+".join(config.modalities)], abs=1e-4)


@pytest.mark.usefixtures("without_decomposition")
def test_shuffling_a_modality_removes_exactly_its_information() -> None:
    config = PRESETS["simulated-mixed"]
    known = truth(config)["information"]
    shown, emotion = draw(config)
    for column, rest in enumerate(("audio+vision", "text+vision", "text+audio")):
        mixed = shown.copy()
        mixed[:, column] = np.random.default_rng(0).permutation(mixed[:, column])
        assert plug_in(mixed, emotion) == pytest.approx(known[rest], abs=0.02)
        assert known[rest] < known["text+audio+vision"] - 0.1


# --- decomposition ----------------------------------------------------------------------------------------------------


def gate(*cases: tuple[int, int, int]) -> Array:
    """Equally likely (target, first, second)."""
    joint = np.zeros((4, 4, 4))
    for case in cases:
        joint[case] += 1 / len(cases)
    return joint


BITS = list(product((0, 1), repeat=2))


@pytest.mark.parametrize(
    ("joint", "atoms"),
    [
        (gate((0, 0, 0), (1, 1, 1)), (1, 0, 0, 0)),
        (gate(*((a, a, b) for a, b in BITS)), (0, 1, 0, 0)),
        (gate(*((b, a, b) for a, b in BITS)), (0, 0, 1, 0)),
        (gate(*((a ^ b, a, b) for a, b in BITS)), (0, 0, 0, 1)),
        (gate(*((2 * a + b, a, b) for a, b in BITS)), (0, 1, 1, 0)),  # Williams and Beer's I_min is wrong here
        (gate(*((a & b, a, b) for a, b in BITS)), (0.31128, 0, 0, 0.5)),  # Bertschinger et al. 2014, table 1
    ],
    ids=["copy", "first", "second", "xor", "two bits", "and"],
)
def test_known_decompositions(joint: Array, atoms: tuple[float, ...]) -> None:
    found = decompose(joint)
    assert found == pytest.approx(atoms, abs=1e-3)
    assert sum(found) == pytest.approx(mutual_information(joint), abs=1e-9)


def decomposition(name: str, first: int, second: list[int]) -> Atoms:
    config = PRESETS[name]
    joint = np.tensordot(np.array(config.probabilities), symbol_tables(config), 1) / 4
    kept = joint.sum(tuple(axis for axis in (1, 2, 3) if axis - 1 not in (first, *second)))
    return decompose(np.moveaxis(kept, 1 + first, 1).reshape(4, kept.shape[1], -1))


@pytest.mark.parametrize(
    ("name", "first", "second", "atom"),
    [
        ("redundant", 0, [1, 2], "redundant"),
        ("unique-text", 0, [1, 2], "unique_first"),
        ("unique-audio", 0, [1], "unique_second"),
        ("synergy", 0, [1, 2], "synergistic"),
    ],
)
def test_pure_corpora_have_one_atom(name: str, first: int, second: list[int], atom: str) -> None:
    found = decomposition(f"simulated-{name}", first, second)._asdict()
    expected = {**dict.fromkeys(found, 0.0), atom: 1.5}  # 0.75 of 2 bits
    assert found == pytest.approx(expected, abs=2e-3)


def test_equally_informed_modalities_share_all_that_each_knows() -> None:
    atoms = decomposition("simulated-unreliable", 0, [1])
    assert atoms.unique_first == pytest.approx(0, abs=0.01)  # the two channels are the same
    assert atoms.synergistic > 0.3  # agreement shows which can be believed


# --- Bayes rates ------------------------------------------------------------------------------------------------------


def by_hand(config: SimulationConfig, columns: tuple[int, ...]) -> float:
    """Best accuracy on plain emotions without noise and unreliable modalities, by enumerating every case."""
    seen: dict[Any, Array] = {}
    ways = [*config.evidence.items(), (None, config.probabilities[-1])]
    for emotion in range(4):
        for (way, chance), shares in product(ways, product(range(4), repeat=2)):
            shown: list[Any] = [None] * 3
            if way is not None and "+" in way:
                names = way.split("+")
                last = (emotion - sum(shares[: len(names) - 1])) % 4
                for name, value in zip(names, [*shares[: len(names) - 1], last], strict=True):
                    shown[MODALITIES.index(name)] = ("share", value)
            elif way is not None:
                for name in way.split("="):
                    shown[MODALITIES.index(name)] = ("emotion", emotion)
            for gone in (None, 0, 1, 2):
                weight = chance / 4 / 16 * (1 - config.missing if gone is None else config.missing / 3)
                view = tuple("absent" if column == gone else shown[column] for column in columns)
                seen.setdefault(view, np.zeros(4))[emotion] += weight
    return float(sum(weights.max() for weights in seen.values()))


@pytest.mark.usefixtures("without_decomposition")
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_bayes_accuracy_is_what_enumeration_by_hand_gives(missing: float) -> None:
    evidence = {"text=audio=vision": 0.1, "text=audio": 0.1, "text": 0.2, "audio+vision": 0.2, "text+audio+vision": 0.2}
    config = diagnostic(evidence, missing=missing)
    found = truth(config)["attainable"]["plain"]["utterance"]
    for part, each in found.items():
        columns = tuple(MODALITIES.index(name) for name in part.split("+"))
        assert each["accuracy"] == pytest.approx(by_hand(config, columns), abs=2e-5), part


def test_the_best_weighted_f1_is_that_of_the_best_of_all_rules() -> None:
    generator = np.random.default_rng(0)
    rules = np.array(list(product(range(3), repeat=6)))
    short = []
    for _ in range(20):
        joint = generator.dirichlet(np.full(18, 0.5)).reshape(3, 6)
        matrices = np.stack([(joint * (rules == label)[:, None]).sum(2) for label in range(3)], 2)
        best = bayes_rates(joint)
        short.append(float(weighted_f1(matrices).max()) - best["weighted_f1"])
        assert best["accuracy"] == pytest.approx(float(accuracy(matrices).max()))
    assert np.median(short) < 1e-6  # negative if guessing at random is better than any fixed rule
    assert max(short) < 0.05  # where the maximisation ends in a local maximum


def test_without_information_the_best_rule_guesses_by_class_frequency() -> None:
    assert bayes_rates(np.full((4, 1), 0.25)) == pytest.approx({"accuracy": 0.25, "weighted_f1": 0.25})
    nearly = bayes_rates(np.array([[0.9], [0.1]]))
    assert nearly["accuracy"] == pytest.approx(0.9)
    assert nearly["weighted_f1"] >= 0.9 * 2 * 0.9 / 1.9  # the score if only the larger class is predicted


def test_the_posterior_of_a_dialogue_is_what_enumeration_of_all_chains_gives() -> None:
    form = Form({"a": 3, "b": 2, "c": 1}, (5, 5), (3, 3), {})
    config = replace(PRESETS["simulated-context"], inertia=0.5, contagion=0.3)
    speakers = [0, 1, 0, 0, 2]
    likelihood = np.random.default_rng(0).random((2, 5, 3))
    found = np.zeros((2, 5, 3))
    for chain in product(range(3), repeat=5):
        chance = np.ones(2)
        for turn, emotion in enumerate(chain):
            own = [chain[t] for t in range(turn) if speakers[t] == speakers[turn]]
            keep, take = 0.5 * bool(own), 0.3 * bool(turn)
            transition = (1 - keep - take) * form.share[emotion]
            transition += keep * (bool(own) and own[-1] == emotion) + take * (bool(turn) and chain[turn - 1] == emotion)
            chance *= transition * likelihood[:, turn, emotion]
        for turn, emotion in enumerate(chain):
            found[:, turn, emotion] += chance
    found /= found.sum(-1, keepdims=True)
    assert smooth(likelihood, speakers, form, config) == pytest.approx(found)


def test_emotions_are_drawn_from_the_chain_that_posteriors_assume() -> None:
    """The posterior given the emotions of the first two turns equals the frequencies of the third."""
    config = PRESETS["simulated-context"]
    generator = np.random.default_rng(0)
    speakers = [0, 1, 0]
    chains = np.array([draw_emotions(speakers, FORMS["plain"], config, generator) for _ in range(20_000)])
    here = (chains[:, 0] == 0) & (chains[:, 1] == 1)
    likelihood = np.ones((1, 3, 4))
    likelihood[0, :2] = np.eye(4)[:2]
    expected = smooth(likelihood, speakers, FORMS["plain"], config)[0, 2]
    assert np.bincount(chains[here, 2], minlength=4) / here.sum() == pytest.approx(expected, abs=0.04)
    assert expected == pytest.approx([0.65, 0.25, 0.05, 0.05])


@pytest.mark.usefixtures("without_decomposition")
def test_context_helps_only_where_emotions_last() -> None:
    known = truth(PRESETS["simulated-context"])["attainable"]["plain"]
    alone, whole = known["utterance"]["text"], known["dialogue"]["text"]
    assert alone["accuracy"] == pytest.approx(0.35 + 0.65 / 4, abs=1e-5)
    assert whole["accuracy"] > 0.7
    assert 0 < whole["standard_error"] < 0.01
    still = truth(SYNERGY)["attainable"]["plain"]
    assert still["utterance"] == still["dialogue"]


@pytest.mark.usefixtures("without_decomposition")
def test_without_inertia_the_sample_of_dialogues_gives_the_exact_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_truth, "SPEAKER_ORDERS", 24)
    config = replace(PRESETS["simulated-meld"], inertia=0.0, contagion=0.0)
    form = FORMS["meld"]
    exact = truth(config)["attainable"]["sentiment"]["dialogue"]
    sampled = DialogueSample.draw(config, form, observed_table(config)).rates(form.classes("sentiment"), config, form)
    for part, each in sampled.items():
        assert abs(each["accuracy"] - exact[part]["accuracy"]) < 4 * each["standard_error"], part


# --- the ideal observer of the test rows ------------------------------------------------------------------------------


def test_an_ideal_observer_of_the_drawn_corpus_is_right_as_often_as_the_bayes_rate_says() -> None:
    """Over all rows, in both tracks: within four standard errors over dialogues."""
    for name, label_set, context in (
        ("simulated-iemocap", "six", "utterance"), ("simulated-iemocap", "six_community", "dialogue"),
        ("simulated-meld", "sentiment", "dialogue"), ("simulated-synergy", "plain", "dialogue"),
    ):  # fmt: skip
        corpus, config, form = DATASETS[name], PRESETS[name], FORMS[PRESETS[name].form]
        latent = Latent.draw(config).corpus
        labels = latent.sidecars.get(label_set, latent.table["emotion"]).reindex(latent.table.index)
        mapping = corpus.label_sets[label_set]
        classes = tuple(dict.fromkeys(mapping.values()))
        label = labels.map({emotion: classes.index(each) for emotion, each in mapping.items()}).fillna(-1).to_numpy(int)
        index = np.flatnonzero(label >= 0)
        posterior = ideal_posterior(config, label_set, classes, label >= 0, index, config.modalities, context)
        assert posterior.sum(1) == pytest.approx(1)
        chance = chance_of(posterior, label[index])
        joint = np.tensordot((form.classes(label_set) * form.share[:, None]).T, observed_table(config), 1)
        if context == "utterance" or not config.has_context:
            expected, error = bayes_rates(joint.reshape(len(joint), -1))["accuracy"], 0.0
        else:
            sample = DialogueSample.draw(config, form, observed_table(config))
            best = sample.rates(form.classes(label_set), config, form)["+".join(config.modalities)]
            expected, error = best["accuracy"], best["standard_error"]
        sums = np.bincount(pd.factorize(latent.table["dialogue"].to_numpy()[index])[0], chance - chance.mean())
        assert abs(chance.mean() - expected) < 4 * (error + np.sqrt((sums**2).sum()) / len(index)), (name, label_set)


def test_equally_likely_classes_are_guesses() -> None:
    posterior = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3]])
    assert chance_of(posterior, np.array([0, 2, 2, 0, 1])).tolist() == pytest.approx([0.5, 0, 1, 0, 1 / 3])


def test_the_datamodule_knows_the_ideal_observer_of_its_own_modalities(corpus: Callable[[str], Path]) -> None:
    module = DATASETS["simulated-synergy"]
    root = corpus("simulated-synergy").parent

    def ideal(*modalities: str) -> float:
        chosen = {name: module.default_features[name] for name in modalities}
        data = module(root, chosen, label_set="plain", protocol="independent")
        found = data.ideal(data.rows["test"])
        assert found is not None
        return float(found.mean())

    assert ideal("text") == ideal("audio", "vision") == 0.25  # a share alone tells nothing
    assert ideal("text", "audio") == pytest.approx(0.8125, abs=0.04)


def test_the_seed_in_the_shape_of_meld_is_the_first_with_ordinary_test_labels() -> None:
    def deviation(seed: int) -> float:
        found = Latent.draw(replace(PRESETS["simulated-meld"], seed=seed)).corpus
        shares = np.bincount(found.emotion[(found.table["split"] == "test").to_numpy()], minlength=7)
        return float(np.abs(shares / shares.sum() - FORMS["meld"].share).max())

    chosen = PRESETS["simulated-meld"].seed
    assert [deviation(seed) <= 0.03 for seed in range(chosen + 1)] == [False] * chosen + [True]


def test_no_two_diagnostic_corpora_share_their_labels_or_their_noise() -> None:
    drawn = [Latent.draw(config) for config in PRESETS.values() if config.form == "plain"]
    labels = {tuple(each.corpus.emotion[:300].tolist()) for each in drawn}
    noise = {tuple(each.streams[0].random(3).tolist()) for each in drawn}
    assert len(labels) == len(noise) == len(drawn) == 9


# --- what fusion can do -----------------------------------------------------------------------------------------------


def test_late_averaging_cannot_exceed_chance_on_pure_synergy_and_a_joint_decision_can() -> None:
    """With the true posteriors: their average is uniform, so that any decision is as good as any other."""
    joint = np.tensordot(np.array(SYNERGY.probabilities), symbol_tables(SYNERGY), 1) / 4
    with np.errstate(invalid="ignore"):
        single = [joint.sum(tuple({1, 2, 3} - {axis}), keepdims=True) for axis in (1, 2, 3)]
        late = np.mean([np.nan_to_num(each / each.sum(0)) for each in np.broadcast_arrays(*single)], axis=0)
    possible = joint.sum(0) > 0
    assert late[:, possible] == pytest.approx(0.25)
    assert joint.max(0).sum() == pytest.approx(0.8125)


# --- features ---------------------------------------------------------------------------------------------------------


def pooled(folder: Path, name: str) -> tuple[list[Array], Array]:
    opened = open_features(folder / f"simulated-{name}")
    return np.split(np.asarray(opened.values, np.float64), opened.offsets[1:-1]), opened.offsets


def linear(folder: Path, name: str) -> float:
    """Test accuracy of least squares on the mean of one modality over time."""
    table = pd.read_csv(folder / "utterances.csv", keep_default_na=False)
    x = np.stack([span.mean(0) for span in pooled(folder, name)[0]])
    x = np.column_stack([x, np.ones(len(x))])
    number, _ = pd.factorize(table["emotion"])
    train, test = (table["split"] == "train").to_numpy(), (table["split"] == "test").to_numpy()
    weights = np.linalg.lstsq(x[train], np.eye(4)[number[train]], rcond=None)[0]
    return float(((x[test] @ weights).argmax(1) == number[test]).mean())


def test_linear_decoders_reach_the_unimodal_bayes_rate_on_unique_and_chance_on_synergy(
    corpus: Callable[[str], Path],
) -> None:
    error = np.sqrt(0.8 * 0.2 / 1200)
    unique = corpus("simulated-unique-text")
    assert linear(unique, "text") == pytest.approx(0.8125, abs=4 * error)
    assert linear(unique, "audio") == pytest.approx(0.25, abs=4 * error)
    for name in MODALITIES:
        assert linear(corpus("simulated-synergy"), name) == pytest.approx(0.25, abs=4 * error)


@pytest.mark.parametrize("name", ["simulated-ravdess", "simulated-iemocap", "simulated-irrelevant"])
def test_an_ideal_observer_reads_nearly_every_symbol_from_the_frames(name: str) -> None:
    """Matched filter: whiten the noise in time, then find the symbol and the run that explain the frames best."""
    config = PRESETS[name]
    kinds, rows, modality = 12, 400, "audio"
    symbols = np.random.default_rng(0).integers(-1, kinds, size=rows)
    table = pd.DataFrame({"speaker": ["a"] * rows, "session": ["b"] * rows})

    def frames(shown: Array, **changes: Any) -> list[Array]:
        generator = np.random.default_rng(3)
        sequences = draw_sequences(shown, kinds, table, modality, replace(config, **changes), generator)
        return [each.astype(np.float64) for each in sequences]

    silent = frames(np.full(rows, -1))
    offset = np.concatenate(silent).mean(0)
    memory = config.autocorrelation[modality]
    # with equal random numbers, two corpora differ only in the symbol
    whole = frames(np.arange(rows) % kinds, span=1.0)
    direction = np.stack([(whole[kind] - silent[kind]).mean(0) for kind in range(kinds)])

    @cache
    def kernels(length: int) -> Array:
        """The whitened shape of a run at each position: [position, time]."""
        run = max(1, round(config.span * length))
        after = np.arange(length) - np.arange(length - run + 1)[:, None]
        return whiten(((after >= 0) & (after < run)).astype(np.float64).T).T

    def whiten(x: Array) -> Array:
        return np.concatenate([x[:1] * np.sqrt(1 - memory**2), x[1:] - memory * x[:-1]])

    wrong = 0
    for each, symbol in zip(frames(symbols), symbols, strict=True):
        kernel = kernels(len(each))
        power = (kernel**2).sum(1, keepdims=True) * config.signal**2 / 2
        gain = (kernel @ whiten(each - offset) @ direction.T - power) / (1 - memory**2)
        # the prior of a symbol at one position against that of no symbol
        found = gain.max(0).argmax() if gain.max() > np.log(gain.size) else -1
        wrong += found != symbol
    assert wrong / rows < 0.01


def test_trained_on_pure_synergy_tensor_fusion_learns_and_late_averaging_does_not(
    corpus: Callable[[str], Path],
) -> None:
    """Without information the accuracy on this corpus has a standard deviation of 8 points, see docs/simulated.md."""
    folder = corpus("simulated-synergy")
    module = DATASETS["simulated-synergy"]
    data = module(folder.parent, module.default_features, label_set="plain", protocol="independent", batch_size=128)
    data.setup("fit")

    def trained(method: FusionModule) -> float:
        optimizer = torch.optim.AdamW(method.parameters(), 5e-3)
        for batch in (batch for _ in range(6) for batch in data.train_dataloader()):
            optimizer.zero_grad()
            sum(method.losses(batch).values()).backward()
            optimizer.step()
        method.eval()
        with torch.no_grad():
            hits = [method(batch).argmax(1) == batch.label for batch in data.test_dataloader()]
        return float(torch.cat(hits).float().mean())

    assert trained(METHODS["tensor_fusion"](data.dims, 4, hidden=10)) > 0.55
    assert trained(METHODS["late_average"](data.dims, 4, hidden=8)) < 0.25 + 2 * 0.08


# --- configuration ----------------------------------------------------------------------------------------------------


def test_missing_modalities() -> None:
    absent = draw_absent(20_000, replace(PRESETS["simulated-iemocap"], missing=0.3), np.random.default_rng(0))
    assert absent.sum(1).max() == 1
    assert absent.mean(0) == pytest.approx([0.1] * 3, abs=0.01)


@pytest.mark.parametrize(
    ("evidence", "options", "message"),
    [
        ({"audio=vision": 0.8, "audio": 0.3}, {}, "sum to 1 at most"),
        ({"audio": -0.1}, {}, "at least 0"),
        ({"visoin": 0.2}, {}, "'visoin': did you mean 'vision'"),
        ({"audio+text": 0.2}, {}, "unknown modality of the simulation 'text'"),
        ({"audio=vision+audio": 0.2}, {}, "mixes = "),
        ({"audio": 0.2}, {"unreliable": {"text": 0.1}}, "unknown modality of the simulation 'text'"),
    ],
)
def test_impossible_configurations(evidence: dict[str, float], options: dict[str, Any], message: str) -> None:
    with pytest.raises(Misuse, match=message):
        SimulationConfig("ravdess", ("audio", "vision"), evidence, **options)


def test_label_sets_give_classes_the_shares_that_the_corpora_have(tmp_path: Path) -> None:
    corpus = simulated.iemocap(replace(PRESETS["simulated-iemocap"], inertia=0, contagion=0), np.random.default_rng(0))
    given = {"six": corpus.table["emotion"], "six_community": corpus.sidecars["six_community"]}
    form = FORMS["iemocap"]
    for label_set, labels in given.items():
        expected = form.share @ form.classes(label_set)
        found = [(labels == emotion).sum() / len(corpus.table) for emotion in form.labels["six"]]
        assert found == pytest.approx(expected.tolist(), abs=0.03)
    assert form.share @ form.classes("six_community") - form.share @ form.classes("six") == pytest.approx(
        [53 / 7532 * (1 - 2507 / 10039), 0, 0, 0, 0, 0]
    )


@pytest.mark.usefixtures("without_decomposition")
def test_scores_of_the_best_rule_match_the_metrics_on_a_drawn_corpus() -> None:
    config = diagnostic({"text": 0.6, "text+audio": 0.2}, noise=0.1)
    shown, emotion = draw(config, 100_000)
    known = truth(config)["attainable"]["plain"]["utterance"]["text+audio"]
    joint = pd.crosstab([shown[:, 0], shown[:, 1]], emotion).idxmax(axis=1)
    decided = joint.loc[list(map(tuple, shown[:, :2]))].to_numpy()
    matrix = confusion_matrix(emotion, decided, 4)
    assert accuracy(matrix) == pytest.approx(known["accuracy"], abs=0.01)
    assert known["weighted_f1"] - 0.02 < weighted_f1(matrix) < known["weighted_f1"] + 0.01
