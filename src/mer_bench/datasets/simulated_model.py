"""The latent side of simulated corpora: dials, forms, emotion chains and the discrete symbols that modalities show.

Everything that tells about an emotion is a symbol drawn here, so that what a corpus says is an exact sum over symbols:
:mod:`mer_bench.datasets.simulated_truth` computes it. docs/simulated.md has the model in formulas.

Draws use ``Generator.random`` alone, whose stream numpy never changes for a bit generator; equal dials then give equal
latents everywhere.
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
    """One way to show an emotion: which modalities (columns), and whether each holds a share of it or all of it."""

    columns: tuple[int, ...]
    shares: bool


@dataclass(frozen=True)
class Dials:
    """Everything that decides a simulated corpus.

    ``evidence`` maps each way in which an utterance may show its emotion to its probability; the rest shows nothing.
    ``"text"`` is evidence in the text alone (unique), ``"text=audio"`` the same symbol in both (redundant),
    ``"text+audio"`` a symbol in each of which only the sum modulo ``pad`` tells something (synergistic).

    Raises:
        Misuse: a probability is negative, they exceed 1 together, or a modality is unknown.
    """

    form: str  #: of FORMS
    modalities: tuple[str, ...]
    evidence: Mapping[str, float]
    noise: float = 0.0  #: probability that the emotion shown is another one, alike in all modalities that show it
    unreliable: Mapping[str, float] = field(default_factory=dict)  #: modality -> probability that it shows at random
    pad: int = 4  #: symbols of a share; with as many as emotions the sum says all
    inertia: float = 0.45  #: probability that a speaker goes on in the emotion of the last own turn
    contagion: float = 0.15  #: probability that a turn takes over the emotion of the one before
    missing: float = 0.03  #: probability that an utterance lacks one of its modalities
    signal: float = 6.0  #: length of a symbol's direction; noise has deviation 1 in every column
    span: float = 0.4  #: share of an utterance's frames that carry the symbol
    speaker: float = 0.3  #: deviation of the speakers' offsets in every column, and of the sessions'
    autocorrelation: Mapping[str, float] = field(  #: of the noise, from frame to frame
        default_factory=lambda: {"text": 0.2, "audio": 0.5, "vision": 0.6}
    )
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
                raise Misuse(f"evidence {way!r} mixes = (the same in each) with + (a share in each)")
        if min(self.chances) < 0:
            raise Misuse(f"probabilities of evidence must be at least 0 and sum to 1 at most, not {self.chances[:-1]}")

    @property
    def ways(self) -> tuple[Way, ...]:
        """The keys of ``evidence``, parsed."""
        return tuple(
            Way(tuple(self.modalities.index(name) for name in way.split("+" if "+" in way else "=")), "+" in way)
            for way in self.evidence
        )

    @property
    def chances(self) -> tuple[float, ...]:
        """Probability of each way, and last that of showing nothing."""
        return (*self.evidence.values(), round(1 - sum(self.evidence.values()), 9))


@dataclass(frozen=True)
class Form:
    """What a simulated corpus takes over from a real one."""

    counts: Mapping[str, int]  #: utterances of each emotion
    turns: tuple[int, int]  #: fewest and most of a dialogue
    cast: tuple[int, int]  #: fewest and most speakers of a dialogue
    #: label set -> emotion -> class -> probability that it is given that class; the rest is left out
    labels: Mapping[str, Mapping[str, Mapping[str, float]]]

    @property
    def share(self) -> Floats:
        """Probability of each emotion."""
        return np.array(list(self.counts.values())) / sum(self.counts.values())

    def classes(self, label_set: str) -> Floats:
        """Probability [emotion, class] of each class; a row sums to less than 1 where utterances are left out."""
        given = self.labels[label_set]
        names = list(dict.fromkeys(name for row in given.values() for name in row))
        return np.array([[given.get(emotion, {}).get(name, 0.0) for name in names] for emotion in self.counts])


#: Emotions of the real corpora; IEMOCAP's undecided utterances (xxx) are hidden from the table later.
IEMOCAP_COUNTS = {"neu": 1708, "fru": 1849, "ang": 1103, "sad": 1084, "exc": 1041, "hap": 595,
                  "sur": 107, "fea": 40, "oth": 3, "dis": 2}  # fmt: skip
MELD_COUNTS = {"neutral": 6436, "joy": 2308, "surprise": 1636, "anger": 1607, "sadness": 1002, "disgust": 361,
               "fear": 358}  # fmt: skip
UNDECIDED = 2507 / 10039  #: share of IEMOCAP's utterances
#: share of the undecided happy ones that the older labelling holds: 53 more than the 7,380 of the release
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


def below(generator: Random, bound: int, size: int | tuple[int, ...]) -> Integers:
    """Whole numbers from 0 to ``bound - 1``."""
    return (generator.random(size) * bound).astype(np.int64)


def between(generator: Random, bounds: tuple[int, int]) -> int:
    """One whole number, bounds included."""
    return bounds[0] + int(generator.random() * (bounds[1] - bounds[0] + 1))


def draw_speakers(form: Form, generator: Random) -> list[int]:
    """Who speaks, turn by turn."""
    turns, people = between(generator, form.turns), between(generator, form.cast)
    speakers = [0]
    while len(speakers) < turns:
        stays = people == 1 or generator.random() < 0.2
        speakers.append(speakers[-1] if stays else (speakers[-1] + between(generator, (1, people - 1))) % people)
    return speakers


def draw_emotions(speakers: Sequence[int], form: Form, dials: Dials, generator: Random) -> list[int]:
    """Emotion of each turn; copying earlier turns keeps each emotion's share."""
    fresh = np.searchsorted(np.cumsum(form.share)[:-1], generator.random(len(speakers)), side="right").tolist()
    draws = generator.random(len(speakers)).tolist()
    emotions: list[int] = []
    own: dict[int, int] = {}
    for turn, speaker in enumerate(speakers):
        if speaker in own and draws[turn] < dials.inertia:
            emotion = own[speaker]
        elif emotions and dials.inertia <= draws[turn] < dials.inertia + dials.contagion:
            emotion = emotions[-1]
        else:
            emotion = fresh[turn]
        own[speaker] = emotion
        emotions.append(emotion)
    return emotions


def draw_symbols(emotion: Integers, emotions: int, dials: Dials, generator: Random) -> Integers:
    """What each modality shows, [utterance, modality]: an emotion, ``emotions`` + a share, or -1 (nothing)."""
    rows = len(emotion)
    way = np.searchsorted(np.cumsum(dials.chances[:-1]), generator.random(rows), side="right")
    other = (emotion + 1 + below(generator, emotions - 1, rows)) % emotions
    shown = np.where(generator.random(rows) < dials.noise, other, emotion)
    symbols = np.full((rows, len(dials.modalities)), -1)
    for number, (columns, shares) in enumerate(dials.ways):
        here = np.flatnonzero(way == number)
        if shares:
            parts = below(generator, dials.pad, (len(here), len(columns) - 1))
            last = (shown[here] - parts.sum(1)) % dials.pad
            symbols[here[:, None], columns] = emotions + np.column_stack([parts, last])
        else:
            symbols[here[:, None], columns] = shown[here, None]
    for column, name in enumerate(dials.modalities):
        value = symbols[:, column]
        low, size = np.where(value < emotions, 0, emotions), np.where(value < emotions, emotions, dials.pad)
        random = low + (generator.random(rows) * size).astype(np.int64)
        wrong = (generator.random(rows) < dials.unreliable.get(name, 0.0)) & (value >= 0)
        symbols[:, column] = np.where(wrong, random, value)
    return symbols


def draw_absent(rows: int, dials: Dials, generator: Random) -> npt.NDArray[np.bool_]:
    """Which modalities are missing, [utterance, modality]; never more than one of an utterance."""
    modalities = len(dials.modalities)
    which = below(generator, modalities, rows)
    return (generator.random(rows) < dials.missing)[:, None] & (which[:, None] == np.arange(modalities))
