"""Simulated corpora with a known information structure: what `make bench` runs where no real corpus is prepared.

Three have the form of a real namesake (ids, speakers, sessions, dialogues, emotion codes, splits), so that label sets,
folds and protocols are the real ones; the others each isolate one kind of information. All are generated in seconds
on first use, with what is known about them (``truth.json``: information, Bayes rates). docs/simulated.md explains.

A symbol (:mod:`mer_bench.datasets.simulated_model`) is a fixed direction in feature space, added to a contiguous run
of frames; over it lie autocorrelated noise and the offset of the speaker and the session.

Equal dials give equal bytes on every machine with IEEE arithmetic: draws come from ``Generator.random`` alone, normal
deviates are sums of twelve of them, and no sum is left to a library that may order it otherwise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

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
    Dials,
    Floats,
    Integers,
    Random,
    below,
    draw_absent,
    draw_emotions,
    draw_speakers,
    draw_symbols,
)
from mer_bench.datasets.simulated_truth import truth
from mer_bench.errors import Misuse
from mer_bench.features import write_features
from mer_bench.files import new_folder, write_atomic
from mer_bench.utterances import write_table

VERSION = 2  #: of the generator; raise it when equal dials come to give other bytes
FILE = "simulation.json"  #: the dials
TRUTH = "truth.json"
MELD_DIALOGUES = {"train": 210, "validation": 30, "test": 60}
MELD_SPEAKERS = ("Rachel", "Ross", "Joey", "Chandler", "Monica", "Phoebe", "Mike", "Carol", "Janice", "Gunther")
PLAIN_DIALOGUES = {"train": 150, "validation": 40, "test": 120}
THREE = ("text", "audio", "vision")


def diagnostic(evidence: Mapping[str, float], **changes: Any) -> Dials:
    """Four equally frequent emotions, three modalities of equal size, no context, nothing missing: one thing shown."""
    usual: dict[str, Any] = {
        "inertia": 0.0,
        "contagion": 0.0,
        "missing": 0.0,
        "autocorrelation": dict.fromkeys(THREE, 0.4),
        "widths": dict.fromkeys(THREE, 16),
        "lengths": dict.fromkeys(THREE, (10, 14)),
    }
    return Dials("plain", THREE, evidence, **{**usual, **changes})


PRESETS = {
    "simulated-ravdess": Dials(
        "ravdess",
        ("audio", "vision"),
        {"audio=vision": 0.25, "audio": 0.1, "vision": 0.3, "audio+vision": 0.24},
        noise=0.02,
    ),
    "simulated-iemocap": Dials(
        "iemocap",
        THREE,
        {"text=audio=vision": 0.14, "text=audio": 0.04, "text": 0.18, "audio": 0.07, "vision": 0.06,
         "text+audio": 0.16, "audio+vision": 0.08},
        noise=0.02,
    ),
    "simulated-meld": Dials(
        "meld",
        THREE,
        {"text=audio=vision": 0.1, "text": 0.16, "audio": 0.05, "vision": 0.03, "text+audio": 0.12,
         "text+vision": 0.08},
        noise=0.02,
    ),
    "simulated-redundant": diagnostic({"text=audio=vision": 0.75}),
    "simulated-unique-text": diagnostic({"text": 0.75}),
    "simulated-unique-audio": diagnostic({"audio": 0.75}),
    "simulated-unique-vision": diagnostic({"vision": 0.75}),
    "simulated-synergy": diagnostic({"text+audio": 0.75}),
    "simulated-mixed": diagnostic(
        {"text=audio=vision": 0.2, "text": 0.12, "audio": 0.12, "vision": 0.12, "text+audio": 0.24}
    ),
    "simulated-unreliable": diagnostic({"text=audio=vision": 0.9}, unreliable=dict.fromkeys(THREE, 0.4)),
    "simulated-context": diagnostic({"text=audio=vision": 0.35}, inertia=0.6, contagion=0.2),
    "simulated-irrelevant": diagnostic(
        {"text=audio=vision": 0.75}, lengths=dict.fromkeys(THREE, (72, 96)), span=0.04
    ),
}  # fmt: skip


class Corpus(NamedTuple):
    """A corpus without features; ``emotion`` [utterance] is the true one, also where the table hides it."""

    table: pd.DataFrame
    emotion: Integers
    sidecars: Mapping[str, pd.Series[str]]  #: label set -> labels, indexed like the table


def simulate(folder: Path, dials: Dials) -> None:
    """Write the corpus that ``dials`` describe into ``folder``: table, sidecar labels, one feature set a modality."""
    form, evidence, *streams = np.random.default_rng(dials.seed).spawn(2 + len(dials.modalities))
    corpus = MAKERS[dials.form](dials, form)
    table, emotions = corpus.table, len(FORMS[dials.form].counts)
    write_table(folder, table)
    for name, labels in corpus.sidecars.items():
        side = pd.DataFrame({"id": table["id"][labels.index], "emotion": labels})
        write_atomic(folder / f"labels_{name}.csv", side.to_csv(index=False, lineterminator="\n"))
    symbols = draw_symbols(corpus.emotion, emotions, dials, evidence)
    absent = draw_absent(len(table), dials, evidence)
    for column, (name, stream) in enumerate(zip(dials.modalities, streams, strict=True)):
        sequences = draw_sequences(symbols[:, column], emotions + dials.pad, table, name, dials, stream)
        write_features(
            folder / f"simulated-{name}",
            (frames[:0] if gone else frames for frames, gone in zip(sequences, absent[:, column], strict=True)),
            ids=list(table["id"]),
            modality=name,
            extractor="simulation",
            revision=str(VERSION),
            settings=json.loads(_json(dials)),
            dtype="float16",
        )
    write_atomic(folder / FILE, _json(dials))


def ensure(folder: Path, dials: Dials) -> None:
    """Make ``folder`` hold the corpus of ``dials`` and its truth; of processes that ask at once, one generates them.

    Raises:
        Misuse: the folder holds something that no simulation wrote, or cannot be written.
    """
    if _holds(folder, dials):
        return
    with _lock(folder.with_name(f".{folder.name}.lock")):
        if _holds(folder, dials):  # another process was faster
            return
        if folder.exists() and any(folder.iterdir()) and not (folder / FILE).is_file():
            raise Misuse(f"{folder} is no simulated corpus: it has no {FILE}; move it away")
        with new_folder(folder) as temporary:
            simulate(temporary, dials)
            write_atomic(temporary / TRUTH, json.dumps(truth(dials), indent=1) + "\n")


def normal(generator: Random, shape: tuple[int, ...]) -> Floats:
    """Deviates of mean 0 and variance 1 that are all but normal: sums of twelve uniform ones, in a fixed order."""
    total = generator.random(shape)
    for _ in range(11):
        total += generator.random(shape)
    return total - 6


def draw_sequences(
    symbols: Integers, kinds: int, table: pd.DataFrame, modality: str, dials: Dials, generator: Random
) -> list[npt.NDArray[np.float16]]:
    """One modality's sequences [time, dim]: symbols [utterance] below ``kinds``, or -1, under noise and offsets."""
    shortest, longest = dials.lengths[modality]
    width, memory = dials.widths[modality], dials.autocorrelation[modality]
    length = shortest + below(generator, longest + 1 - shortest, len(symbols))
    direction = normal(generator, (kinds, width))
    direction *= dials.signal / np.sqrt(np.cumsum(direction**2, axis=1)[:, -1:])  # cumsum adds in order, sum need not
    direction = np.vstack([direction, np.zeros(width)])  # symbol -1, nothing, is the last row
    values = normal(generator, (len(symbols), longest, width))
    fresh = np.sqrt(1 - memory**2)
    for step in range(1, longest):
        values[:, step] = memory * values[:, step - 1] + fresh * values[:, step]
    for column in ("speaker", "session"):
        number, names = pd.factorize(table[column])
        values += (dials.speaker * normal(generator, (len(names), width)))[number, None]
    run = np.maximum(1, np.round(dials.span * length)).astype(np.int64)
    start = (generator.random(len(symbols)) * (length - run + 1)).astype(np.int64)
    after = np.arange(longest) - start[:, None]  # [utterance, time]
    values += ((after >= 0) & (after < run[:, None]))[..., None] * direction[symbols][:, None]
    return [frames[:end] for frames, end in zip(values.astype(np.float16), length, strict=True)]


def ravdess(dials: Dials, generator: Random) -> Corpus:
    """24 actors x 30 takes: the first repetition of every real take."""
    takes = [
        (f"01-{emotion + 1:02}-{intensity:02}-{statement:02}-01-{actor:02}", f"{actor:02}", emotion)
        for actor, emotion, intensity, statement in product(range(1, 25), range(len(EMOTIONS)), (1, 2), (1, 2))
        if (emotion, intensity) != (0, 2)  # neutral has no strong intensity
    ]
    names, actors, emotions = zip(*takes, strict=True)
    table = _table(id=names, dialogue=names, speaker=actors, session=actors, emotion=[EMOTIONS[e] for e in emotions])
    table["end"] = (3 + 2 * generator.random(len(table))).round(2)
    return Corpus(table, np.array(emotions), {})


def iemocap(dials: Dials, generator: Random) -> Corpus:
    """The 151 dialogues of five sessions, about 15 turns each; a quarter of the emotions is undecided (xxx)."""
    rows, emotions = [], []
    for session, gender, scene in product(range(1, 6), "FM", IEMOCAP_SCENES):
        takes = ("a", "b") if (session, gender, scene) == (3, "M", "impro08") else ("",)
        for dialogue in (f"Ses{session:02}{gender}_{scene}{take}" for take in takes):
            speakers = draw_speakers(FORMS["iemocap"], generator)
            for turn, speaker in enumerate(speakers):
                who = "FM"[speaker]
                number = speakers[:turn].count(speaker)
                rows.append((f"{dialogue}_{who}{number:03}", dialogue, dialogue[:5] + who, str(session)))
            emotions += draw_emotions(speakers, FORMS["iemocap"], dials, generator)
    ids, dialogues, people, sessions = zip(*rows, strict=True)
    emotion = np.array(emotions)
    true = np.array(list(FORMS["iemocap"].counts))[emotion]
    hidden = generator.random(len(true)) < UNDECIDED
    table = _table(id=ids, dialogue=dialogues, speaker=people, session=sessions, emotion=np.where(hidden, "xxx", true))
    _time(table, generator)
    recovered = hidden & (true == "hap") & (generator.random(len(true)) < RECOVERED)
    community = table["emotion"].mask(recovered, "hap")
    return Corpus(table, emotion, {"six_community": community[community.isin(list(IEMOCAP.label_sets["six"]))]})


def meld(dials: Dials, generator: Random) -> Corpus:
    """300 dialogues of a few turns among two to four of ten speakers; surprise is positive as often as negative."""
    rows, emotions = [], []
    for split, dialogues in MELD_DIALOGUES.items():
        for number in range(dialogues):
            cast = np.argsort(generator.random(len(MELD_SPEAKERS)))
            speakers = draw_speakers(FORMS["meld"], generator)
            name = f"{split}_dia{number}"
            rows += [(f"{name}_utt{i}", name, MELD_SPEAKERS[cast[who]], split) for i, who in enumerate(speakers)]
            emotions += draw_emotions(speakers, FORMS["meld"], dials, generator)
    ids, names, people, splits = zip(*rows, strict=True)
    shown = np.array(list(FORMS["meld"].counts))[emotions].tolist()
    table = _table(id=ids, dialogue=names, speaker=people, split=splits, emotion=shown)
    _time(table, generator)
    tone = below(generator, 2, len(table))
    options = [SENTIMENTS.get(emotion, ("negative",)) for emotion in shown]
    sentiment = pd.Series([each[i % len(each)] for each, i in zip(options, tone, strict=True)])
    return Corpus(table, np.array(emotions), {"sentiment": sentiment})


def plain(dials: Dials, generator: Random) -> Corpus:
    """310 dialogues of two speakers, about ten turns each; every dialogue has speakers of its own."""
    rows, emotions = [], []
    for split, dialogues in PLAIN_DIALOGUES.items():
        for number in range(dialogues):
            speakers = draw_speakers(FORMS["plain"], generator)
            name = f"{split}{number:03}"
            rows += [(f"{name}_{i:02}", name, f"{name}{'AB'[who]}", split) for i, who in enumerate(speakers)]
            emotions += draw_emotions(speakers, FORMS["plain"], dials, generator)
    ids, names, people, splits = zip(*rows, strict=True)
    table = _table(id=ids, dialogue=names, speaker=people, split=splits, emotion=np.array(PLAIN)[emotions].tolist())
    _time(table, generator)
    return Corpus(table, np.array(emotions), {})


IEMOCAP_SCENES = (
    *(f"impro{scene:02}" for scene in range(1, 9)),
    *("script01_1", "script01_2", "script01_3", "script02_1", "script02_2", "script03_1", "script03_2"),
)
MAKERS: dict[str, Callable[[Dials, Random], Corpus]] = {
    "ravdess": ravdess,
    "iemocap": iemocap,
    "meld": meld,
    "plain": plain,
}


def _table(**columns: Any) -> pd.DataFrame:
    """An utterance table from the columns given; there is no text and no media."""
    table = pd.DataFrame({"session": "", "start": 0.0, "end": 0.0, "text": "", "split": "", "media": "", **columns})
    table["turn"] = table.groupby("dialogue", sort=False).cumcount()
    return table


def _time(table: pd.DataFrame, generator: Random) -> None:
    """Lay the turns of each dialogue end to end."""
    seconds = pd.Series((1 + 7 * generator.random(len(table))).round(2))
    table["end"] = seconds.groupby(table["dialogue"], sort=False).cumsum().round(2)
    table["start"] = (table["end"] - seconds).round(2)


def _json(dials: Dials) -> str:
    return json.dumps({"version": VERSION, **asdict(dials)}, indent=1, sort_keys=True) + "\n"


def _holds(folder: Path, dials: Dials) -> bool:
    path = folder / FILE
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace") == _json(dials)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold a lock that the system releases when the process ends, however it ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise Misuse(f"cannot write {path}: {error.strerror or error}") from error
    with file:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Simulated(EmotionDataModule):
    """A corpus that is generated on first use, and again when its preset has changed."""

    simulated: ClassVar[bool] = True
    how_to_get = "it is generated on first use"

    def prepare_corpus(self) -> None:
        """Generate the corpus unless it is there."""
        ensure(self.folder, PRESETS[self.corpus])

    @property
    def attainable(self) -> Mapping[str, Any]:
        """Track -> modalities, joined by ``+`` -> Bayes rates."""
        known = json.loads((self.folder / TRUTH).read_text(encoding="utf-8"))
        rates: Mapping[str, Any] = known["attainable"][self.label_set]
        return rates


class SimulatedRAVDESS(Simulated, RAVDESS):
    """720 takes of 24 actors, audio and vision."""

    corpus = "simulated-ravdess"
    default_features = {"audio": "simulated-audio", "vision": "simulated-vision"}


class SimulatedIEMOCAP(Simulated, IEMOCAP):
    """151 dialogues in five sessions; text says most."""

    corpus = "simulated-iemocap"
    default_features = {"text": "simulated-text", "audio": "simulated-audio", "vision": "simulated-vision"}


class SimulatedMELD(Simulated, MELD):
    """300 dialogues in three splits; half the utterances are neutral."""

    corpus = "simulated-meld"
    default_features = {"text": "simulated-text", "audio": "simulated-audio", "vision": "simulated-vision"}


class Diagnostic(Simulated):
    """1,500 training, 400 validation and 1,200 test utterances, about; one kind of information each."""

    modalities = THREE
    label_sets = {"plain": {emotion: emotion for emotion in PLAIN}}
    protocols = {"independent": 1}
    default_features = {name: f"simulated-{name}" for name in THREE}

    def split(self, table: pd.DataFrame, protocol: str, fold: int) -> npt.NDArray[np.str_]:
        """The table's own."""
        return table["split"].to_numpy(dtype=np.str_)


#: One class for each preset of the plain form: ``simulated-synergy`` is ``SimulatedSynergy``.
DIAGNOSTICS: tuple[type[Diagnostic], ...] = tuple(
    type(name.title().replace("-", ""), (Diagnostic,), {"corpus": name, "__module__": __name__})
    for name, dials in PRESETS.items()
    if dials.form == "plain"
)
