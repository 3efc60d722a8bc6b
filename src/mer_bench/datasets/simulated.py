"""Simulated corpora with a known information structure: what `make bench` runs where no real corpus is prepared.

Each has the form of its real namesake (ids, speakers, sessions, dialogues, emotion codes, splits), so that label sets,
folds and protocols are the real ones, and is generated in a second or two on first use.

An utterance shows its emotion y, one of K, in one way alone, drawn with dialled probabilities:

- *redundant*: every modality shows the symbol y;
- *unique* to a modality: it shows y, the others nothing;
- *synergistic*: two modalities show a and b, uniform each, with a + b = y modulo ``pad`` (a one-time pad): either alone
  says nothing, both together say y mod ``pad``;
- otherwise nothing.

Symbols of the third kind differ from those of the first two, so without noise the emotion's information divides exactly
into these parts. A symbol is a fixed direction in feature space, added to a contiguous run of frames; over it lie
autocorrelated noise and the offset of the speaker and the session.

Equal dials give equal bytes with one version of numpy on one kind of machine. Nothing is a matrix product and values
are rounded to half precision, so other machines agree but for a rare last bit; other numpy versions may draw otherwise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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
from mer_bench.errors import Misuse, unknown
from mer_bench.features import write_features
from mer_bench.files import new_folder, write_atomic
from mer_bench.table import write_table

VERSION = 1  #: of the generator; raise it when equal dials come to give other bytes
FILE = "simulation.json"
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Utterances of each emotion in the real corpora. IEMOCAP's 2,507 undecided ones (xxx) are hidden later.
IEMOCAP_COUNTS = {"neu": 1708, "fru": 1849, "ang": 1103, "sad": 1084, "exc": 1041, "hap": 595,
                  "sur": 107, "fea": 40, "oth": 3, "dis": 2}  # fmt: skip
MELD_COUNTS = {"neutral": 6436, "joy": 2308, "surprise": 1636, "anger": 1607, "sadness": 1002, "disgust": 361,
               "fear": 358}  # fmt: skip
MELD_DIALOGUES = {"train": 210, "validation": 30, "test": 60}
MELD_SPEAKERS = ("Rachel", "Ross", "Joey", "Chandler", "Monica", "Phoebe", "Mike", "Carol", "Janice", "Gunther")
SENTIMENTS = {"neutral": ("neutral",), "joy": ("positive",), "surprise": ("negative", "positive")}  # else negative


@dataclass(frozen=True)
class Dials:
    """Everything that decides a simulated corpus.

    Raises:
        Misuse: the probabilities of evidence are negative or exceed 1 together, or name an unknown modality.
    """

    form: str  #: of which real corpus
    modalities: tuple[str, ...]
    redundant: float  #: probability that every modality shows the emotion
    unique: Mapping[str, float]  #: modality -> probability that it alone does
    synergistic: float  #: probability that only two together do
    pad: int = 4  #: symbols of synergistic evidence; with K of them it says all, but then K * K pairs must be learnt
    inertia: float = 0.45  #: probability that a speaker goes on in the emotion of the last own turn
    contagion: float = 0.15  #: probability that a turn takes over the emotion of the one before
    signal: float = 4.5  #: length of a symbol's direction; noise has deviation 1 in every column
    span: float = 0.4  #: share of an utterance's frames that carry the symbol
    autocorrelation: float = 0.5  #: of the noise, from frame to frame
    speaker: float = 0.3  #: deviation of the speakers' offsets in every column, and of the sessions'
    missing: float = 0.03  #: probability that an utterance lacks one of its modalities
    widths: Mapping[str, int] = field(default_factory=lambda: {"text": 32, "audio": 24, "vision": 24})
    lengths: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: {"text": (8, 16), "audio": (16, 24), "vision": (16, 24)}
    )
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.unique:
            if name not in self.modalities:
                raise unknown("modality of the simulation", name, self.modalities)
        if min(self.chances) < 0:
            raise Misuse(f"probabilities of evidence must be at least 0 and sum to 1 at most, not {self.chances[:-1]}")

    @property
    def chances(self) -> tuple[float, ...]:
        """Probabilities of redundant, of each modality's unique, of synergistic and of no evidence."""
        some = (self.redundant, *(self.unique.get(name, 0.0) for name in self.modalities), self.synergistic)
        return (*some, round(1 - sum(some), 9))


PRESETS = {
    "simulated-ravdess": Dials("ravdess", ("audio", "vision"), 0.25, {"audio": 0.18, "vision": 0.18}, 0.27),
    "simulated-iemocap": Dials(
        "iemocap", ("text", "audio", "vision"), 0.2, {"text": 0.2, "audio": 0.1, "vision": 0.08}, 0.22
    ),
    "simulated-meld": Dials(
        "meld", ("text", "audio", "vision"), 0.15, {"text": 0.25, "audio": 0.08, "vision": 0.05}, 0.2
    ),
}


class Corpus(NamedTuple):
    """A corpus without features; ``emotion`` [utterance] is the true one, also where the table hides it."""

    table: pd.DataFrame
    emotion: Integers
    emotions: int
    sidecars: Mapping[str, pd.Series[str]]  #: label set -> labels, indexed like the table


def simulate(folder: Path, dials: Dials) -> None:
    """Write the corpus that ``dials`` describe into ``folder``: table, sidecar labels, one feature set a modality."""
    form, evidence, *streams = np.random.default_rng(dials.seed).spawn(2 + len(dials.modalities))
    corpus = FORMS[dials.form](dials, form)
    table = corpus.table
    write_table(folder, table)
    for name, labels in corpus.sidecars.items():
        side = pd.DataFrame({"id": table["id"][labels.index], "emotion": labels})
        write_atomic(folder / f"labels_{name}.csv", side.to_csv(index=False, lineterminator="\n"))
    symbols = draw_symbols(corpus.emotion, corpus.emotions, dials, evidence)
    absent = draw_absent(len(table), dials, evidence)
    for column, (name, stream) in enumerate(zip(dials.modalities, streams, strict=True)):
        sequences = draw_sequences(symbols[:, column], corpus.emotions + dials.pad, table, name, dials, stream)
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
    """Make ``folder`` hold the corpus of ``dials``; of several processes that ask at once, one generates it.

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


def draw_symbols(emotion: Integers, emotions: int, dials: Dials, generator: np.random.Generator) -> Integers:
    """What each modality shows, [utterance, modality]: an emotion, ``emotions`` + a symbol of the pad, or -1."""
    modalities = len(dials.modalities)
    kind = generator.choice(len(dials.chances), size=len(emotion), p=dials.chances)
    symbols = np.full((len(emotion), modalities), -1)
    symbols[kind == 0] = emotion[kind == 0, None]
    for column in range(modalities):
        symbols[kind == 1 + column, column] = emotion[kind == 1 + column]
    rows = np.flatnonzero(kind == 1 + modalities)
    first, second, *_ = generator.permuted(np.tile(np.arange(modalities), (len(rows), 1)), axis=1).T
    share = generator.integers(dials.pad, size=len(rows))
    symbols[rows, first] = emotions + share
    symbols[rows, second] = emotions + (emotion[rows] - share) % dials.pad
    return symbols


def draw_absent(rows: int, dials: Dials, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Which modalities are missing, [utterance, modality]; never more than one of an utterance."""
    modalities = len(dials.modalities)
    which = generator.integers(modalities, size=rows)
    return (generator.random(rows) < dials.missing)[:, None] & (which[:, None] == np.arange(modalities))


def draw_sequences(
    symbols: Integers, kinds: int, table: pd.DataFrame, modality: str, dials: Dials, generator: np.random.Generator
) -> list[npt.NDArray[np.float16]]:
    """One modality's sequences [time, dim]: symbols [utterance] below ``kinds``, or -1, under noise and offsets."""
    shortest, longest = dials.lengths[modality]
    width = dials.widths[modality]
    length = generator.integers(shortest, longest + 1, size=len(symbols))
    direction = generator.standard_normal((kinds, width))
    direction *= dials.signal / np.sqrt((direction**2).sum(1, keepdims=True))
    direction = np.vstack([direction, np.zeros(width)])  # symbol -1, nothing, is the last row
    values = generator.standard_normal((len(symbols), longest, width))
    fresh = np.sqrt(1 - dials.autocorrelation**2)
    for step in range(1, longest):
        values[:, step] = dials.autocorrelation * values[:, step - 1] + fresh * values[:, step]
    for column in ("speaker", "session"):
        number, names = pd.factorize(table[column])
        values += (dials.speaker * generator.standard_normal((len(names), width)))[number, None]
    run = np.maximum(1, np.round(dials.span * length)).astype(np.int64)
    start = (generator.random(len(symbols)) * (length - run + 1)).astype(np.int64)
    after = np.arange(longest) - start[:, None]  # [utterance, time]
    values += ((after >= 0) & (after < run[:, None]))[..., None] * direction[symbols][:, None]
    return [frames[:end] for frames, end in zip(values.astype(np.float16), length, strict=True)]


def ravdess(dials: Dials, generator: np.random.Generator) -> Corpus:
    """24 actors x 30 takes: the first repetition of every real take."""
    takes = [
        (f"01-{emotion + 1:02}-{intensity:02}-{statement:02}-01-{actor:02}", f"{actor:02}", emotion)
        for actor, emotion, intensity, statement in product(range(1, 25), range(len(EMOTIONS)), (1, 2), (1, 2))
        if (emotion, intensity) != (0, 2)  # neutral has no strong intensity
    ]
    names, actors, emotions = zip(*takes, strict=True)
    table = _table(id=names, dialogue=names, speaker=actors, session=actors, emotion=[EMOTIONS[e] for e in emotions])
    table["end"] = generator.uniform(3, 5, len(table)).round(2)
    return Corpus(table, np.array(emotions), len(EMOTIONS), {})


def iemocap(dials: Dials, generator: np.random.Generator) -> Corpus:
    """The 151 dialogues of five sessions, about 15 turns each; a quarter of the emotions is undecided (xxx)."""
    rows, emotions = [], []
    for session, gender, scene in product(range(1, 6), "FM", IEMOCAP_SCENES):
        takes = ("a", "b") if (session, gender, scene) == (3, "M", "impro08") else ("",)
        for dialogue in (f"Ses{session:02}{gender}_{scene}{take}" for take in takes):
            speakers, chain = _conversation(int(generator.integers(10, 21)), 2, IEMOCAP_COUNTS, dials, generator)
            for turn, speaker in enumerate(speakers):
                who = "FM"[speaker]
                number = speakers[:turn].count(speaker)
                rows.append((f"{dialogue}_{who}{number:03}", dialogue, dialogue[:5] + who, str(session)))
            emotions += chain
    ids, dialogues, people, sessions = zip(*rows, strict=True)
    emotion = np.array(emotions)
    true = np.array(list(IEMOCAP_COUNTS))[emotion]
    shown = np.where(generator.random(len(true)) < 2507 / 10039, "xxx", true)
    table = _table(id=ids, dialogue=dialogues, speaker=people, session=sessions, emotion=shown)
    _time(table, generator)
    six = table["emotion"].isin(list(IEMOCAP.label_sets["six"]))
    hidden = np.flatnonzero((shown == "xxx") & (true == "hap"))[: round(six.sum() * 53 / 7380)]
    community = table["emotion"].mask(table.index.isin(hidden), "hap")
    return Corpus(table, emotion, len(IEMOCAP_COUNTS), {"six_community": community[six | table.index.isin(hidden)]})


def meld(dials: Dials, generator: np.random.Generator) -> Corpus:
    """300 dialogues of a few turns among two to four of ten speakers; surprise is positive as often as negative."""
    rows, emotions = [], []
    for split, dialogues in MELD_DIALOGUES.items():
        for number in range(dialogues):
            cast = generator.permutation(MELD_SPEAKERS)[: generator.integers(2, 5)]
            turns = int(generator.integers(3, 13))
            speakers, chain = _conversation(turns, len(cast), MELD_COUNTS, dials, generator)
            name = f"{split}_dia{number}"
            rows += [(f"{name}_utt{i}", name, str(cast[who]), split) for i, who in enumerate(speakers)]
            emotions += chain
    ids, names, people, splits = zip(*rows, strict=True)
    shown = [list(MELD_COUNTS)[emotion] for emotion in emotions]
    table = _table(id=ids, dialogue=names, speaker=people, split=splits, emotion=shown)
    _time(table, generator)
    tone = generator.integers(2, size=len(table))
    options = [SENTIMENTS.get(emotion, ("negative",)) for emotion in shown]
    sentiment = pd.Series([each[i % len(each)] for each, i in zip(options, tone, strict=True)])
    return Corpus(table, np.array(emotions), len(MELD_COUNTS), {"sentiment": sentiment})


IEMOCAP_SCENES = (
    *(f"impro{scene:02}" for scene in range(1, 9)),
    *("script01_1", "script01_2", "script01_3", "script02_1", "script02_2", "script03_1", "script03_2"),
)
FORMS: dict[str, Callable[[Dials, np.random.Generator], Corpus]] = {
    "ravdess": ravdess,
    "iemocap": iemocap,
    "meld": meld,
}


def _conversation(
    turns: int, people: int, counts: Mapping[str, int], dials: Dials, generator: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Who speaks and in which emotion, turn by turn; copying earlier turns keeps each emotion's share at its count."""
    share = np.array(list(counts.values())) / sum(counts.values())
    fresh = generator.choice(len(share), size=turns, p=share)
    speakers: list[int] = [0]
    emotions: list[int] = [int(fresh[0])]
    own = {0: emotions[0]}
    for turn in range(1, turns):
        stays = generator.random() < 0.2
        speaker = speakers[-1] if stays else (speakers[-1] + int(generator.integers(1, people))) % people
        draw = generator.random()
        if draw < dials.inertia and speaker in own:
            emotion = own[speaker]
        elif dials.inertia <= draw < dials.inertia + dials.contagion:
            emotion = emotions[-1]
        else:
            emotion = int(fresh[turn])
        own[speaker] = emotion
        speakers.append(speaker)
        emotions.append(emotion)
    return speakers, emotions


def _table(**columns: Any) -> pd.DataFrame:
    """An utterance table from the columns given; there is no text and no media."""
    table = pd.DataFrame({"session": "", "start": 0.0, "end": 0.0, "text": "", "split": "", "media": "", **columns})
    table["turn"] = table.groupby("dialogue", sort=False).cumcount()
    return table


def _time(table: pd.DataFrame, generator: np.random.Generator) -> None:
    """Lay the turns of each dialogue end to end."""
    seconds = pd.Series(generator.uniform(1, 8, len(table)).round(2))
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
