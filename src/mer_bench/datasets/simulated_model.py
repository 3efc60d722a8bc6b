"""The latent variables of simulated corpora: emotions, and the discrete symbols by which modalities show them.

Features depend on the emotion only through these symbols, so that the information in a corpus is an exact sum over
symbols, which :mod:`mer_bench.datasets.simulated_truth` computes. docs/simulated.md has the model in formulas.

All random numbers come from ``Generator.random``, which gives the same numbers in every release of numpy, so that equal
configurations give equal latent variables everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mer_bench.datasets.iemocap import IEMOCAP
from mer_bench.datasets.meld import MELD
from mer_bench.datasets.ravdess import RAVDESS
from mer_bench.errors import Misuse, unknown

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Random = np.random.Generator


class Way(NamedTuple):
    """One way in which an utterance may show its emotion."""

    columns: tuple[int, ...]  #: indices of the modalities that show it
    shares: bool  #: whether each of them shows only a share, and only their sum tells the emotion


@dataclass(frozen=True)
class SimulationConfig:
    """The configuration of a simulated corpus, which determines every byte of it.

    Raises:
        Misuse: A probability is negative, their sum exceeds 1, or a modality is unknown.
    """

    form: str  #: a key of FORMS
    modalities: tuple[str, ...]
    #: way in which an utterance may show its emotion -> probability; the other utterances show nothing. In ``"text"``
    #: only the text shows it (unique), in ``"text=audio"`` both show the same symbol (redundant), in ``"text+audio"``
    #: each shows a symbol, and only their sum modulo ``pad`` tells something (synergistic).
    evidence: Mapping[str, float]
    noise: float = 0.0  #: probability that another emotion is shown, the same in all modalities that show it
    unreliable: Mapping[str, float] = field(default_factory=dict)  #: modality -> probability of a random symbol
    pad: int = 4  #: number of symbols of a share; if it is the number of emotions, the sum tells the emotion
    inertia: float = 0.45  #: probability that a turn has the emotion of the same speaker's last turn
    contagion: float = 0.15  #: probability that a turn has the emotion of the turn before
    missing: float = 0.03  #: probability that an utterance lacks one of its modalities
    signal: float = 6.0  #: length of a symbol's direction; the noise has standard deviation 1 in every column
    span: float = 0.4  #: share of an utterance's frames that carry the symbol
    speaker: float = 0.3  #: standard deviation of the offsets of speakers, and of sessions, in every column
    #: autocorrelation of the noise from frame to frame
    autocorrelation: Mapping[str, float] = field(default_factory=lambda: {"text": 0.2, "audio": 0.5, "vision": 0.6})
    widths: Mapping[str, int] = field(default_factory=lambda: {"text": 32, "audio": 24, "vision": 24})
    lengths: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: {"text": (8, 16), "audio": (16, 24), "vision": (16, 24)}
    )
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (*self.unreliable, *(part for way in self.evidence for part in way.replace("+", "=").split("="))):
            if name not in self.modalities:
                raise unknown("modality of the simulation", name, self.modalities)
        for way in self.evidence:
            if "=" in way and "+" in way:
                raise Misuse(f"evidence {way!r} mixes = (the same symbol in each) with + (a share in each)")
        if min(self.probabilities) < 0:
            raise Misuse(
                f"probabilities of evidence must be at least 0 and sum to 1 at most, not {self.probabilities[:-1]}"
            )

    @property
    def ways(self) -> tuple[Way, ...]:
        """The keys of ``evidence``, parsed."""
        return tuple(
            Way(tuple(self.modalities.index(name) for name in way.split("+" if "+" in way else "=")), "+" in way)
            for way in self.evidence
        )

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Probability of each way, followed by the probability of showing nothing."""
        return (*self.evidence.values(), round(1 - sum(self.evidence.values()), 9))

    @property
    def has_context(self) -> bool:
        """Whether turns of a dialogue tell something about each other."""
        return FORMS[self.form].turns[1] > 1 and bool(self.inertia or self.contagion)


@dataclass(frozen=True)
class Form:
    """The properties that a simulated corpus has in common with a real one."""

    counts: Mapping[str, int]  #: utterances of each emotion
    turns: tuple[int, int]  #: smallest and largest number of turns in a dialogue
    cast: tuple[int, int]  #: smallest and largest number of speakers in a dialogue
    #: label set -> emotion -> class -> probability of this class; the label set leaves out the other utterances
    labels: Mapping[str, Mapping[str, Mapping[str, float]]]

    @property
    def share(self) -> Floats:
        """Probability of each emotion."""
        return np.array(list(self.counts.values())) / sum(self.counts.values())

    def classes(self, label_set: str, order: Sequence[str] = ()) -> Floats:
        """Probability [emotion, class] of each class; a row sums to less than 1 where utterances are left out.

        Classes are in the given ``order``, or else as they appear.
        """
        given = self.labels[label_set]
        names = order or dict.fromkeys(name for row in given.values() for name in row)
        return np.array([[given.get(emotion, {}).get(name, 0.0) for name in names] for emotion in self.counts])


#: utterances of each emotion in the real corpora, without IEMOCAP's utterances that have no majority label (xxx)
IEMOCAP_COUNTS = {"neu": 1708, "fru": 1849, "ang": 1103, "sad": 1084, "exc": 1041, "hap": 595,
                  "sur": 107, "fea": 40, "oth": 3, "dis": 2}  # fmt: skip
MELD_COUNTS = {"neutral": 6436, "joy": 2308, "surprise": 1636, "anger": 1607, "sadness": 1002, "disgust": 361,
               "fear": 358}  # fmt: skip
UNDECIDED = 2507 / 10039  #: share of IEMOCAP's utterances without a majority label
#: share of the happy ones among these that the older labels include: 53 more utterances than the release's 7,380
RECOVERED = 53 / 595 * (1 - UNDECIDED) / UNDECIDED
SENTIMENTS = {"neutral": ("neutral",), "joy": ("positive",), "surprise": ("negative", "positive")}  # else negative
PLAIN = ("neutral", "joy", "anger", "sadness")

_six = {emotion: {name: 1 - UNDECIDED} for emotion, name in IEMOCAP.label_sets["six"].items()}
FORMS: dict[str, Form] = {
    "ravdess": Form(
        {emotion: 48 if emotion == "neutral" else 96 for emotion in RAVDESS.label_sets["eight"]},
        (1, 1),
        (1, 1),
        {"eight": {emotion: {name: 1.0} for emotion, name in RAVDESS.label_sets["eight"].items()}},
    ),
    "iemocap": Form(
        IEMOCAP_COUNTS,
        (10, 20),
        (2, 2),
        {
            "six": _six,
            "four": {emotion: {name: 1 - UNDECIDED} for emotion, name in IEMOCAP.label_sets["four"].items()},
            "six_community": {**_six, "hap": {"happy": 1 - UNDECIDED + RECOVERED * UNDECIDED}},
        },
    ),
    "meld": Form(
        MELD_COUNTS,
        (3, 12),
        (2, 4),
        {
            "seven": {emotion: {name: 1.0} for emotion, name in MELD.label_sets["seven"].items()},
            "sentiment": {
                emotion: {tone: 1 / len(tones) for tone in tones}
                for emotion in MELD_COUNTS
                for tones in (SENTIMENTS.get(emotion, ("negative",)),)
            },
        },
    ),
    "plain": Form(dict.fromkeys(PLAIN, 1), (8, 12), (2, 2), {"plain": {emotion: {emotion: 1.0} for emotion in PLAIN}}),
}


def random_integers(generator: Random, bound: int, size: int | tuple[int, ...]) -> Integers:
    """Draw integers from 0 to ``bound - 1``."""
    return (generator.random(size) * bound).astype(np.int64)


def random_integer(generator: Random, bounds: tuple[int, int]) -> int:
    """Draw one integer between two bounds, both included."""
    return bounds[0] + int(generator.random() * (bounds[1] - bounds[0] + 1))


def draw_speakers(form: Form, generator: Random) -> list[int]:
    """Draw the speaker of each turn."""
    turns, people = random_integer(generator, form.turns), random_integer(generator, form.cast)
    speakers = [0]
    while len(speakers) < turns:
        stays = people == 1 or generator.random() < 0.2
        speakers.append(speakers[-1] if stays else (speakers[-1] + random_integer(generator, (1, people - 1))) % people)
    return speakers


def draw_emotions(speakers: Sequence[int], form: Form, config: SimulationConfig, generator: Random) -> list[int]:
    """Draw the emotion of each turn; every turn has the shares of ``form``, since it copies a turn or is drawn anew."""
    fresh = np.searchsorted(np.cumsum(form.share)[:-1], generator.random(len(speakers)), side="right").tolist()
    uniform = generator.random(len(speakers)).tolist()
    emotions: list[int] = []
    own: dict[int, int] = {}
    for turn, speaker in enumerate(speakers):
        if speaker in own and uniform[turn] < config.inertia:
            emotion = own[speaker]
        elif emotions and config.inertia <= uniform[turn] < config.inertia + config.contagion:
            emotion = emotions[-1]
        else:
            emotion = fresh[turn]
        own[speaker] = emotion
        emotions.append(emotion)
    return emotions


def draw_symbols(emotion: Integers, emotions: int, config: SimulationConfig, generator: Random) -> Integers:
    """Draw what each modality shows, [utterance, modality]: an emotion, ``emotions`` + a share, or -1 (nothing)."""
    rows = len(emotion)
    way = np.searchsorted(np.cumsum(config.probabilities[:-1]), generator.random(rows), side="right")
    other = (emotion + 1 + random_integers(generator, emotions - 1, rows)) % emotions
    shown = np.where(generator.random(rows) < config.noise, other, emotion)
    symbols = np.full((rows, len(config.modalities)), -1)
    for number, (columns, shares) in enumerate(config.ways):
        here = np.flatnonzero(way == number)
        if shares:
            parts = random_integers(generator, config.pad, (len(here), len(columns) - 1))
            last = (shown[here] - parts.sum(1)) % config.pad
            symbols[here[:, None], columns] = emotions + np.column_stack([parts, last])
        else:
            symbols[here[:, None], columns] = shown[here, None]
    for column, name in enumerate(config.modalities):
        value = symbols[:, column]
        low, size = np.where(value < emotions, 0, emotions), np.where(value < emotions, emotions, config.pad)
        random = low + (generator.random(rows) * size).astype(np.int64)
        wrong = (generator.random(rows) < config.unreliable.get(name, 0.0)) & (value >= 0)
        symbols[:, column] = np.where(wrong, random, value)
    return symbols


def draw_absent(rows: int, config: SimulationConfig, generator: Random) -> npt.NDArray[np.bool_]:
    """Draw which modalities are missing, [utterance, modality]; at most one per utterance."""
    modalities = len(config.modalities)
    which = random_integers(generator, modalities, rows)
    return (generator.random(rows) < config.missing)[:, None] & (which[:, None] == np.arange(modalities))
