"""Simulated corpora with a known information structure, which ``make bench`` uses if no real corpus is prepared.

Three corpora have the form of a real one (ids, speakers, sessions, dialogues, emotion codes, splits), so that its label
sets, folds and protocols apply. Each of the others isolates one kind of information. A corpus is generated within
seconds on first use, together with its information content and Bayes rates (``truth.json``); see docs/simulated.md.

A symbol (:mod:`mer_bench.datasets.simulated_model`) is a fixed direction in feature space that is added to a contiguous
run of frames, beside autocorrelated noise and an offset for the speaker and for the session.

Equal configurations give equal bytes on every machine with IEEE arithmetic: all random numbers come from
``Generator.random``, normal deviates are sums of twelve of them, and no sum is computed by a library function that may
choose another order of summation.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from mer_bench.batch import Rows
from mer_bench.corpora import SIMULATION as FILE
from mer_bench.corpora import CorpusFacts
from mer_bench.datasets.base import EmotionDataModule
from mer_bench.datasets.iemocap import IEMOCAP
from mer_bench.datasets.meld import MELD
from mer_bench.datasets.ravdess import EMOTIONS, RAVDESS
from mer_bench.datasets.simulated_model import (
    FORMS,
    PLAIN,
    RECOVERED,
    SENTIMENTS,
    UNDECIDED,
    Floats,
    Integers,
    Random,
    SimulationConfig,
    draw_absent,
    draw_emotions,
    draw_speakers,
    draw_symbols,
    random_integers,
)
from mer_bench.datasets.simulated_truth import (
    chance_of,
    dialogue_posterior,
    likelihood_of,
    observed_table,
    truth,
    utterance_posterior,
)
from mer_bench.errors import Misuse
from mer_bench.exposure import known
from mer_bench.features import write_features
from mer_bench.files import new_folder, write_atomic, writing
from mer_bench.modalities import MODALITIES, modality_of
from mer_bench.records import Protocol
from mer_bench.schema import read_json
from mer_bench.utterances import write_table

VERSION = 3  #: version of the generator; raise it when a configuration gives other bytes than before
TRUTH = "truth.json"
MELD_DIALOGUES = {"train": 210, "validation": 30, "test": 60}
MELD_SPEAKERS = ("Rachel", "Ross", "Joey", "Chandler", "Monica", "Phoebe", "Mike", "Carol", "Janice", "Gunther")
PLAIN_DIALOGUES = {"train": 150, "validation": 40, "test": 120}


def diagnostic(evidence: Mapping[str, float], **changes: Any) -> SimulationConfig:
    """Configure four equally frequent emotions in three modalities of equal size, without context or missing data."""
    defaults: dict[str, Any] = {
        "inertia": 0.0,
        "contagion": 0.0,
        "missing": 0.0,
        "autocorrelation": dict.fromkeys(MODALITIES, 0.4),
        "widths": dict.fromkeys(MODALITIES, 16),
        "lengths": dict.fromkeys(MODALITIES, (10, 14)),
    }
    return SimulationConfig("plain", MODALITIES, evidence, **{**defaults, **changes})


PRESETS = {
    "simulated-ravdess": SimulationConfig(
        "ravdess",
        ("audio", "vision"),
        {"audio=vision": 0.25, "audio": 0.1, "vision": 0.3, "audio+vision": 0.24},
        noise=0.02,
    ),
    "simulated-iemocap": SimulationConfig(
        "iemocap",
        MODALITIES,
        {"text=audio=vision": 0.14, "text=audio": 0.04, "text": 0.18, "audio": 0.07, "vision": 0.06,
         "text+audio": 0.16, "audio+vision": 0.08},
        noise=0.02,
    ),
    "simulated-meld": SimulationConfig(
        "meld",
        MODALITIES,
        {"text=audio=vision": 0.1, "text": 0.16, "audio": 0.05, "vision": 0.03, "text+audio": 0.12,
         "text+vision": 0.08},
        noise=0.02,
        seed=4,  # the first whose test rows have every emotion within 3 points of its share in the population
    ),
    # a seed of its own for each, so that luck with labels, symbols and noise is not common to all
    "simulated-redundant": diagnostic({"text=audio=vision": 0.75}, seed=11),
    "simulated-unique-text": diagnostic({"text": 0.75}, seed=12),
    "simulated-unique-audio": diagnostic({"audio": 0.75}, seed=13),
    "simulated-unique-vision": diagnostic({"vision": 0.75}, seed=14),
    "simulated-synergy": diagnostic({"text+audio": 0.75}, seed=15),
    "simulated-mixed": diagnostic(
        {"text=audio=vision": 0.2, "text": 0.12, "audio": 0.12, "vision": 0.12, "text+audio": 0.24}, seed=16
    ),
    "simulated-unreliable": diagnostic({"text=audio=vision": 0.9}, unreliable=dict.fromkeys(MODALITIES, 0.4), seed=17),
    "simulated-context": diagnostic({"text=audio=vision": 0.35}, inertia=0.6, contagion=0.2, seed=18),
    "simulated-irrelevant": diagnostic(
        {"text=audio=vision": 0.75}, lengths=dict.fromkeys(MODALITIES, (72, 96)), span=0.04, seed=19
    ),
}  # fmt: skip


class Corpus(NamedTuple):
    """A corpus without features."""

    table: pd.DataFrame
    emotion: Integers  #: [utterance], the true emotion, also where the table has none
    sidecars: Mapping[str, pd.Series[str]]  #: label set -> labels, indexed like the table


class Latent(NamedTuple):
    """A corpus, and what its features are drawn from."""

    corpus: Corpus
    symbols: Integers  #: [utterance, modality], see :func:`draw_symbols`
    absent: npt.NDArray[np.bool_]  #: [utterance, modality], which modalities are missing
    streams: Sequence[Random]  #: source of random numbers for the features of each modality

    @classmethod
    def draw(cls, config: SimulationConfig) -> Latent:
        """Draw all but the features, within a fraction of a second."""
        form, evidence, *streams = np.random.default_rng(config.seed).spawn(2 + len(config.modalities))
        corpus = GENERATORS[config.form](config, form)
        symbols = draw_symbols(corpus.emotion, len(FORMS[config.form].counts), config, evidence)
        return cls(corpus, symbols, draw_absent(len(symbols), config, evidence), streams)


def simulate(folder: Path, config: SimulationConfig) -> None:
    """Write a corpus into ``folder``: table, sidecar labels and one feature set per modality."""
    corpus, symbols, absent, streams = Latent.draw(config)
    table, emotions = corpus.table, len(FORMS[config.form].counts)
    write_table(folder, table)
    for name, labels in corpus.sidecars.items():
        sidecar = pd.DataFrame({"id": table["id"][labels.index], "emotion": labels})
        write_atomic(folder / f"labels_{name}.csv", sidecar.to_csv(index=False, lineterminator="\n"))
    for column, (name, stream) in enumerate(zip(config.modalities, streams, strict=True)):
        sequences = draw_sequences(symbols[:, column], emotions + config.pad, table, name, config, stream)
        write_features(
            folder / f"simulated-{name}",
            (frames[:0] if gone else frames for frames, gone in zip(sequences, absent[:, column], strict=True)),
            ids=list(table["id"]),
            modality=name,
            extractor="simulation",
            revision=str(VERSION),
            settings=json.loads(_json(config)),
            dtype="float16",
            exposure=known("simulation", folder.name),
        )
    write_atomic(folder / FILE, _json(config))


def ensure_generated(folder: Path, config: SimulationConfig) -> None:
    """Generate the corpus of ``config`` in ``folder`` unless it exists; only one of several processes does the work.

    Raises:
        Misuse: The folder holds other files than a simulated corpus, or cannot be written.
    """
    if _is_current(folder, config):
        return
    with _lock(folder.with_name(f".{folder.name}.lock")):
        if _is_current(folder, config):  # another process has generated it
            return
        if folder.exists() and any(folder.iterdir()) and not (folder / FILE).is_file():
            raise Misuse(f"{folder} is not a simulated corpus, because it has no {FILE}; move it to another folder")
        with new_folder(folder) as temporary:
            simulate(temporary, config)
            write_atomic(temporary / TRUTH, json.dumps(truth(config), indent=1) + "\n")


def normal(generator: Random, shape: tuple[int, ...]) -> Floats:
    """Draw approximately normal deviates of mean 0 and variance 1: sums of twelve uniform ones, in a fixed order."""
    total = generator.random(shape)
    for _ in range(11):
        total += generator.random(shape)
    return total - 6


def draw_sequences(
    symbols: Integers, kinds: int, table: pd.DataFrame, modality: str, config: SimulationConfig, generator: Random
) -> list[npt.NDArray[np.float16]]:
    """Draw the sequences [time, dim] of one modality.

    Args:
        symbols: [utterance], the symbol that each utterance shows, or -1 for none.
        kinds: Number of different symbols.
        table: Utterance table with the speakers and sessions.
        modality: Name of the modality.
        config: Configuration of the corpus.
        generator: Source of random numbers.
    """
    shortest, longest = config.lengths[modality]
    width, memory = config.widths[modality], config.autocorrelation[modality]
    length = shortest + random_integers(generator, longest + 1 - shortest, len(symbols))
    direction = normal(generator, (kinds, width))
    direction *= config.signal / np.sqrt(np.cumsum(direction**2, axis=1)[:, -1:])  # sum may add in another order
    direction = np.vstack([direction, np.zeros(width)])  # symbol -1 (none) is the last row
    values = normal(generator, (len(symbols), longest, width))
    fresh = np.sqrt(1 - memory**2)
    for step in range(1, longest):
        values[:, step] = memory * values[:, step - 1] + fresh * values[:, step]
    for column in ("speaker", "session"):
        number, names = pd.factorize(table[column])
        values += (config.speaker * normal(generator, (len(names), width)))[number, None]
    run = np.maximum(1, np.round(config.span * length)).astype(np.int64)
    start = (generator.random(len(symbols)) * (length - run + 1)).astype(np.int64)
    after = np.arange(longest) - start[:, None]  # [utterance, time]
    values += ((after >= 0) & (after < run[:, None]))[..., None] * direction[symbols][:, None]
    return [frames[:end] for frames, end in zip(values.astype(np.float16), length, strict=True)]


def ravdess(config: SimulationConfig, generator: Random) -> Corpus:
    """Generate 24 actors x 30 takes: the first repetition of every real take."""
    rows, emotions = [], []
    for actor, emotion, intensity, statement in product(range(1, 25), range(len(EMOTIONS)), (1, 2), (1, 2)):
        if (emotion, intensity) != (0, 2):  # neutral has no strong intensity
            name = f"01-{emotion + 1:02}-{intensity:02}-{statement:02}-01-{actor:02}"
            rows.append((name, name, f"{actor:02}", f"{actor:02}"))
            emotions.append(emotion)
    seconds = 3 + 2 * generator.random(len(rows))
    return Corpus(_table(rows, "session", np.array(EMOTIONS)[emotions], seconds), np.array(emotions), {})


def iemocap(config: SimulationConfig, generator: Random) -> Corpus:
    """Generate the 151 dialogues of five sessions with about 15 turns; annotators disagree on a quarter (xxx)."""
    rows, emotions = [], []
    for session, gender, scene in product(range(1, 6), "FM", IEMOCAP_SCENES):
        takes = ("a", "b") if (session, gender, scene) == (3, "M", "impro08") else ("",)
        for dialogue in (f"Ses{session:02}{gender}_{scene}{take}" for take in takes):
            speakers = draw_speakers(FORMS["iemocap"], generator)
            for turn, speaker in enumerate(speakers):
                who = "FM"[speaker]
                number = speakers[:turn].count(speaker)
                rows.append((f"{dialogue}_{who}{number:03}", dialogue, dialogue[:5] + who, str(session)))
            emotions += draw_emotions(speakers, FORMS["iemocap"], config, generator)
    emotion = np.array(emotions)
    true = np.array(list(FORMS["iemocap"].counts))[emotion]
    hidden = generator.random(len(true)) < UNDECIDED
    table = _table(rows, "session", np.where(hidden, "xxx", true), 1 + 7 * generator.random(len(rows)))
    recovered = hidden & (true == "hap") & (generator.random(len(true)) < RECOVERED)
    community = table["emotion"].mask(recovered, "hap")
    return Corpus(table, emotion, {"six_community": community[community.isin(list(IEMOCAP.label_sets["six"]))]})


def meld(config: SimulationConfig, generator: Random) -> Corpus:
    """Generate 300 dialogues of two to four out of ten speakers; surprise is positive as often as negative."""
    rows, emotions = [], []
    for split, dialogues in MELD_DIALOGUES.items():
        for number in range(dialogues):
            cast = np.argsort(generator.random(len(MELD_SPEAKERS)))
            speakers = draw_speakers(FORMS["meld"], generator)
            name = f"{split}_dia{number}"
            rows += [(f"{name}_utt{i}", name, MELD_SPEAKERS[cast[who]], split) for i, who in enumerate(speakers)]
            emotions += draw_emotions(speakers, FORMS["meld"], config, generator)
    shown = np.array(list(FORMS["meld"].counts))[emotions]
    table = _table(rows, "split", shown, 1 + 7 * generator.random(len(rows)))
    tone = random_integers(generator, 2, len(table))
    options = [SENTIMENTS.get(emotion, ("negative",)) for emotion in shown]
    sentiment = pd.Series([each[i % len(each)] for each, i in zip(options, tone, strict=True)])
    return Corpus(table, np.array(emotions), {"sentiment": sentiment})


def plain(config: SimulationConfig, generator: Random) -> Corpus:
    """Generate 310 dialogues with about ten turns of two speakers, who are in no other dialogue."""
    rows, emotions = [], []
    for split, dialogues in PLAIN_DIALOGUES.items():
        for number in range(dialogues):
            speakers = draw_speakers(FORMS["plain"], generator)
            name = f"{split}{number:03}"
            rows += [(f"{name}_{i:02}", name, f"{name}{'AB'[who]}", split) for i, who in enumerate(speakers)]
            emotions += draw_emotions(speakers, FORMS["plain"], config, generator)
    table = _table(rows, "split", np.array(PLAIN)[emotions], 1 + 7 * generator.random(len(rows)))
    return Corpus(table, np.array(emotions), {})


IEMOCAP_SCENES = (
    *(f"impro{scene:02}" for scene in range(1, 9)),
    *("script01_1", "script01_2", "script01_3", "script02_1", "script02_2", "script03_1", "script03_2"),
)
GENERATORS: dict[str, Callable[[SimulationConfig, Random], Corpus]] = {
    "ravdess": ravdess,
    "iemocap": iemocap,
    "meld": meld,
    "plain": plain,
}


def _table(rows: Sequence[tuple[str, ...]], column: str, emotion: npt.NDArray[Any], seconds: Floats) -> pd.DataFrame:
    """Make an utterance table without text and media, in which the turns of a dialogue follow one another.

    Args:
        rows: Id, dialogue, speaker and ``column`` of each utterance.
        column: "session" or "split"; the other one is empty.
        emotion: [utterance], emotions of the table.
        seconds: [utterance], durations, which are rounded to hundredths.
    """
    table = pd.DataFrame(rows, columns=["id", "dialogue", "speaker", column]).assign(emotion=emotion, text="", media="")
    table["split" if column == "session" else "session"] = ""
    turns = table.assign(seconds=seconds.round(2)).groupby("dialogue", sort=False)["seconds"]
    table["turn"], table["end"] = turns.cumcount(), turns.cumsum().round(2)
    table["start"] = (table["end"] - seconds.round(2)).round(2)
    return table


def _json(config: SimulationConfig) -> str:
    return json.dumps({"version": VERSION, **asdict(config)}, indent=1, sort_keys=True) + "\n"


def _is_current(folder: Path, config: SimulationConfig) -> bool:
    path = folder / FILE
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace") == _json(config)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Lock a file in the block; the operating system releases the lock if the process is killed."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ideal_posterior(
    config: SimulationConfig,
    label_set: str,
    classes: Sequence[str],
    has_label: npt.NDArray[np.bool_],
    index: Rows,
    part: Collection[str],
    context: str,
) -> Floats:
    """Exact posterior [utterance, class] of the classes of utterances, given what their modalities show.

    Args:
        config: Configuration of the corpus.
        label_set: Name of the label set.
        classes: Its classes, in the order of the result.
        has_label: [table row], whether the label set has the utterance.
        index: Table rows of the result.
        part: The modalities that are seen.
        context: "utterance", or "dialogue" if all turns of the dialogue are seen and the speaker of each is known.
    """
    form, latent = FORMS[config.form], Latent.draw(config)
    likelihood = likelihood_of(latent.symbols, latent.absent, part, observed_table(config), config)
    chance = form.classes(label_set, classes)
    if context == "utterance" or not config.has_context:
        return utterance_posterior(likelihood[index], chance, form)
    found = np.empty((len(has_label), len(classes)))
    table = latent.corpus.table
    dialogue, speaker = table["dialogue"].to_numpy(), table["speaker"].to_numpy()
    for name in dict.fromkeys(dialogue[index]):
        turns = np.flatnonzero(dialogue == name)
        speakers = pd.factorize(speaker[turns])[0].tolist()
        shown = has_label[turns][None]
        found[turns[shown[0]]] = dialogue_posterior(likelihood[turns][None], chance, speakers, shown, form, config)
    return found[index]


class Simulated(EmotionDataModule):
    """A corpus that is generated on first use, and again if its preset has changed."""

    simulated: ClassVar[bool] = True
    default_features = {name: f"simulated-{name}" for name in MODALITIES}
    how_to_get = "it is generated on first use"
    licence = "none is needed: mer_bench generates the corpus"

    @classmethod
    def facts(cls) -> CorpusFacts:
        """What suites need to know of the corpus."""
        config = PRESETS.get(cls.corpus)  # a package may have another, which it generates itself
        return replace(super().facts(), generated=hashlib.sha256(_json(config).encode()).hexdigest() if config else "")

    def prepare_corpus(self) -> None:
        """Generate the corpus unless it exists."""
        ensure_generated(self.folder, PRESETS[self.corpus])

    @property
    def attainable(self) -> Mapping[str, Any] | None:
        """Track -> modalities, joined by ``+`` -> Bayes rates; None for a label set whose rates are not computed."""
        config = PRESETS.get(self.corpus)
        if config and self.label_set not in FORMS[config.form].labels:
            return None
        try:
            return read_json(self.folder / TRUTH, "what is known of a simulated corpus")["attainable"][self.label_set]
        except (KeyError, TypeError) as error:
            raise Misuse(
                f"{self.folder / TRUTH} was changed; delete {self.folder}, and the corpus is generated again"
            ) from error

    def ideal(self, index: Rows) -> Floats | None:
        """Chance of an ideal observer of the same modalities and context to be right on each of these table rows."""
        if self.corpus not in PRESETS:  # that of a package, which generates it itself
            return None
        part = {modality_of(name) for name in self.features}
        posterior = ideal_posterior(
            PRESETS[self.corpus], self.label_set, self.classes, self.labels >= 0, index, part, self.context
        )
        return chance_of(posterior, self.labels[index])


class SimulatedRAVDESS(Simulated, RAVDESS):
    """720 takes of 24 actors, audio and vision."""

    corpus = "simulated-ravdess"
    title = "Simulated RAVDESS"
    default_features = {"audio": "simulated-audio", "vision": "simulated-vision"}


class SimulatedIEMOCAP(Simulated, IEMOCAP):
    """151 dialogues in five sessions; the text carries the most information."""

    corpus = "simulated-iemocap"
    title = "Simulated IEMOCAP"


class SimulatedMELD(Simulated, MELD):
    """300 dialogues in three splits; half of the utterances are neutral."""

    corpus = "simulated-meld"
    title = "Simulated MELD"


class Diagnostic(Simulated):
    """About 1,500 training, 400 validation and 1,200 test utterances with one kind of information."""

    words = {"plain": "", "independent": ""}  # all have these, so that headings do not name them
    modalities = MODALITIES
    label_sets = {"plain": {emotion: emotion for emotion in PLAIN}}
    protocols = {
        "independent": Protocol(
            1,
            "training, validation and test dialogues drawn independently from one model; no speaker occurs in two "
            "dialogues.",
        )
    }


#: one class per preset of the plain form: ``simulated-synergy`` is ``SimulatedSynergy``
DIAGNOSTICS: tuple[type[Diagnostic], ...] = tuple(
    type(
        name.title().replace("-", ""),
        (Diagnostic,),
        {"corpus": name, "title": name.replace("-", ": ", 1).replace("-", " ").capitalize(), "__module__": __name__},
    )
    for name, config in PRESETS.items()
    if config.form == "plain"
)
