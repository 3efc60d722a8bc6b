"""The engine under every frozen extractor: media or transcripts and an utterance table in, one feature set out.

An :class:`Extractor` says what one utterance is decoded to (in worker processes) and what a list of such is encoded to
(in this one, on the GPU if there is one); :func:`extract` streams a corpus through it. The media of a corpus never fit
in memory, take hours to decode and are never all sound: what is done is kept on disk as it is made, a killed extraction
goes on where it stopped, and an utterance that cannot be read becomes a missing modality with a reason.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from mer_bench.errors import Misuse
from mer_bench.features import FeatureSpec, open_features, write_features
from mer_bench.files import sha256, write_atomic
from mer_bench.training.workers import run_in_workers
from mer_bench.utterances import FILE

FloatArray = npt.NDArray[Any]

EMPTY = np.empty((0, 0), np.float32)
MISSING = "missing.csv"  #: in the folder of a feature set: which utterances it lacks, and why
REMARKS = "remarks.csv"  #: likewise: which of those it has are not quite what they should be


class Unreadable(Exception):
    """One utterance cannot be decoded; the message is the reason that the user reads."""


class Incomplete(Exception):
    """``--strict`` and a feature set that lacks utterances; it is stored all the same."""


@dataclass(frozen=True)
class Remarked:
    """Features of an utterance that the user should be told something about, such as that no face was found."""

    values: FloatArray
    remark: str


@dataclass(frozen=True)
class Clip:
    """What an extractor is told of one utterance."""

    id: str
    path: Path | None = None  #: its media, if it has any
    text: str = ""
    start: float = 0.0  #: seconds within ``path``
    end: float | None = None  #: None for all that is left
    half: str = ""  #: "left" or "right" where the speaker has but one half of the picture

    @property
    def media(self) -> Path:
        """Its file.

        Raises:
            Unreadable: there is none.
        """
        if self.path is None:
            raise Unreadable("there is no file for it")
        if not self.path.is_file():
            raise Unreadable("the file is absent")
        return self.path


def release(package: str) -> str:
    """A library's minor release, for a recipe: a set that a patch release makes is no other set.

    Should its values differ after all, their sketch tells the two apart.
    """
    return ".".join(version(package).split(".")[:2])


@dataclass(frozen=True)
class Recipe:
    """All that decides the values of a feature set, given its utterance table."""

    name: str
    modality: str
    extractor: str
    revision: str = ""
    layer: str = ""
    frame_rate: float | None = None
    dtype: str = "float32"
    settings: dict[str, Any] = field(default_factory=dict)

    def made(self, corpus: Path) -> FeatureSpec | None:
        """The spec of the set in the folder ``corpus`` if this recipe and the present table gave it, else None."""
        try:
            spec = open_features(corpus / self.name).spec
        except Misuse:  # absent or damaged
            return None
        mine = asdict(self)
        same = mine == {name: getattr(spec, name) for name in mine}
        return spec if same and spec.table_sha256 == sha256(corpus / FILE) else None


@dataclass(frozen=True)
class Extractor:
    """A frozen extractor.

    Args:
        recipe: Its identity.
        decode: From one clip to what ``encode`` takes. It runs in worker processes, hence is a function of a module, or
            a ``partial`` of one. :class:`Unreadable`, OSError, ValueError and RuntimeError say that the clip is bad.
        encode: From a list of such to one array [time, dim] each, in order, :class:`Remarked` or not, or the
            :class:`Unreadable` that says why there is none.
        parameters: The extractor's frozen parameters; called only if there is work to do.
        batch_size: Utterances that are encoded together, which is also what a kill may cost.
    """

    recipe: Recipe
    decode: Callable[[Clip], Any]
    encode: Callable[[list[Any]], Sequence[FloatArray | Remarked | Unreadable]]
    parameters: Callable[[], int] = lambda: 0
    batch_size: int = 32


def extract(
    corpus: Path,
    extractor: Extractor,
    clips: Sequence[Clip],
    *,
    workers: int = 0,
    strict: bool = False,
    force: bool = False,
) -> FeatureSpec:
    """Write the feature set of ``extractor`` into the folder ``corpus``, unless it is there already.

    Args:
        corpus: The folder that holds ``utterances.csv``.
        extractor: What is being made, and how.
        clips: One for each row of the table, in its order.
        workers: Processes that decode; with 0 this one does.
        strict: Complain in the end about utterances that could not be read.
        force: Make it again in any case.

    Raises:
        Misuse: no utterance could be read.
        Incomplete: ``strict``, and some could not.
    """
    recipe = extractor.recipe
    journal = Journal(corpus / f".{recipe.name}.partial", recipe.dtype)

    def sequences() -> Iterator[FloatArray]:
        journal.begin({**asdict(recipe), "table": sha256(corpus / FILE)}, restart=force)
        run(extractor, clips, journal, workers)
        if not journal.frames:
            shutil.rmtree(journal.folder)  # what is wrong may be put right before the next call
            raise Misuse(f"{recipe.name}: not one of {len(clips):,} utterances could be read: {journal.missing[0][1]}")
        report_unread(recipe.name, journal.missing)
        report_unread(recipe.name, journal.remarks, what="made, with a remark, for")
        return journal.sequences()

    spec = store(
        corpus, recipe, sequences, ids=[clip.id for clip in clips], parameters=extractor.parameters, force=force
    )
    folder = corpus / recipe.name
    if journal.folder.is_dir():
        for name, lines in ((MISSING, journal.missing), (REMARKS, journal.remarks)):
            if lines:
                text = io.StringIO()
                csv.writer(text, lineterminator="\n").writerows([("id", "reason"), *lines])
                write_atomic(folder / name, text.getvalue())
        shutil.rmtree(journal.folder)
    if strict and (folder / MISSING).is_file():
        raise Incomplete(f"{recipe.name} is stored, but lacks utterances: see {folder / MISSING}")
    return spec


def store(
    corpus: Path,
    recipe: Recipe,
    sequences: Callable[[], Iterable[FloatArray]],
    *,
    ids: Sequence[str],
    parameters: Callable[[], int] = lambda: 0,
    force: bool = False,
) -> FeatureSpec:
    """Write the feature set of ``recipe`` into the folder ``corpus``, unless it is there already.

    Args:
        corpus: The folder that holds ``utterances.csv``.
        recipe: What is being made.
        sequences: Called only if there is work to do; gives one array [time, dim] for each row.
        ids: The table's ids in order.
        parameters: Called likewise; the frozen extractor's parameter count.
        force: Make it again in any case.
    """
    spec = None if force else recipe.made(corpus)
    if spec:
        click.echo(f"{recipe.name}: already done ({spec.frames:,} frames; --force extracts it again)")
        return spec
    spec = write_features(
        corpus / recipe.name,
        sequences(),
        ids=ids,
        modality=recipe.modality,
        extractor=recipe.extractor,
        revision=recipe.revision,
        layer=recipe.layer,
        frame_rate=recipe.frame_rate,
        dtype=recipe.dtype,
        extractor_parameters=parameters(),
        settings=recipe.settings,
    )
    empty = int((np.diff(open_features(corpus / recipe.name).offsets) == 0).sum())
    lacking = f", {empty:,} of them without {recipe.modality}" if empty else ""
    click.echo(f"{recipe.name}: {spec.rows:,} utterances{lacking}, {spec.frames:,} frames of {spec.dim}")
    return spec


# --- what is done so far ----------------------------------------------------------------------------------------------


class Journal:
    """A half-made feature set on disk: values one after another, and a line for each utterance that is done.

    The line is written after the values, so that a kill at any moment leaves a prefix of the corpus: on return the
    values beyond the last whole line are cut off.
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder, self.dtype = folder, np.dtype(dtype)
        self.shapes: list[tuple[int, int]] = []  # [time, dim] of each utterance that is done
        self.missing: list[tuple[str, str]] = []  # (id, reason)
        self.remarks: list[tuple[str, str]] = []  # (id, remark)

    @property
    def frames(self) -> int:
        """How many there are so far."""
        return sum(time for time, _ in self.shapes)

    def begin(self, identity: dict[str, Any], *, restart: bool) -> None:
        """Take up the journal of the same ``identity``, or start one."""
        path = self.folder / "identity.json"
        text = json.dumps(identity, sort_keys=True)
        if restart or not path.is_file() or path.read_text(encoding="utf-8") != text:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            (self.folder / "values").touch()
            (self.folder / "lines").touch()
            write_atomic(path, text)
        lines = (self.folder / "lines").read_text(encoding="utf-8").splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        for line in whole:
            self._note(*json.loads(line))
        with (self.folder / "lines").open("rb+") as file:
            file.truncate(len("".join(whole).encode()))
        with (self.folder / "values").open("rb+") as file:
            file.truncate(sum(time * dim for time, dim in self.shapes) * self.dtype.itemsize)

    def append(self, done: Sequence[tuple[str, FloatArray, str]]) -> None:
        """Keep (id, array [time, dim], reason why it is empty, remark or "") of the next utterances."""
        arrays = [np.ascontiguousarray(array, self.dtype) for _, array, _ in done]
        with (self.folder / "values").open("ab") as file:
            for array in arrays:
                file.write(array.data)
        rows = [(name, *array.shape, words) for (name, _, words), array in zip(done, arrays, strict=True)]
        with (self.folder / "lines").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for row in rows:
            self._note(*row)

    def sequences(self) -> Iterator[FloatArray]:
        """Everything that was appended, read from disk one by one."""
        with (self.folder / "values").open("rb") as file:
            for time, dim in self.shapes:
                yield np.fromfile(file, self.dtype, time * dim).reshape(time, dim)

    def _note(self, name: str, time: int, dim: int, words: str) -> None:
        self.shapes.append((time, dim))
        if words:
            (self.remarks if time else self.missing).append((name, words))


# --- the stream -------------------------------------------------------------------------------------------------------


def run(extractor: Extractor, clips: Sequence[Clip], journal: Journal, workers: int) -> None:
    """Decode and encode the clips that the journal lacks, with a progress bar."""
    from tqdm import tqdm

    first = len(journal.shapes)
    if first:
        click.echo(f"{extractor.recipe.name}: going on after {first:,} of {len(clips):,} utterances", err=True)
    decoded = zip(clips[first:], decode_all(extractor.decode, clips[first:], workers), strict=True)
    with tqdm(total=len(clips), initial=first, desc=extractor.recipe.name, unit=" clips", mininterval=1.0) as bar:
        while batch := list(islice(decoded, extractor.batch_size)):
            journal.append(encode_batch(extractor.encode, batch))
            bar.update(len(batch))


def decode_all(decode: Callable[[Clip], Any], clips: Iterable[Clip], workers: int) -> Iterator[Any]:
    """What ``decode`` makes of each clip, in order, or the :class:`Unreadable` that it ended in.

    At most four clips per worker are decoded ahead. A decoder that crashes its process, as a damaged video can make it
    do, costs the clip that crashes it and no other.
    """
    attempt = partial(_attempt, decode)
    if not workers:
        yield from map(attempt, clips)
        return

    def crashed(clip: Clip) -> Any:
        return Unreadable("the decoder crashed")

    for _, result in run_in_workers(attempt, clips, workers, crashed=crashed, ahead=4, in_order=True):
        yield result


def encode_batch(
    encode: Callable[[list[Any]], Sequence[FloatArray | Remarked | Unreadable]], batch: Sequence[tuple[Clip, Any]]
) -> list[tuple[str, FloatArray, str]]:
    """(id, array, reason why it is empty, remark or "") of each; one that cannot be encoded takes no others along."""
    sound = [item for _, item in batch if not isinstance(item, Unreadable)]
    outcomes: list[Any]
    try:
        outcomes = list(encode(sound)) if sound else []
    except (ValueError, RuntimeError):
        outcomes = [_attempt(lambda item: encode([item])[0], item) for item in sound]
    encoded = iter(outcomes)
    done: list[tuple[str, FloatArray, str]] = []
    for clip, item in batch:
        remark: str = ""
        outcome: Any = item if isinstance(item, Unreadable) else next(encoded)
        if isinstance(outcome, Remarked):
            outcome, remark = outcome.values, outcome.remark
        if not isinstance(outcome, Unreadable) and not len(outcome):
            outcome = Unreadable("there is nothing in it")
        if not isinstance(outcome, Unreadable) and not np.isfinite(outcome).all():
            outcome = Unreadable("its features are not finite")
        if isinstance(outcome, Unreadable):
            done.append((clip.id, EMPTY, str(outcome).replace(str(clip.path), "the file")))
        else:
            done.append((clip.id, outcome, remark))
    return done


def _attempt(function: Callable[[Any], Any], item: Any) -> Any:
    """``function(item)``, or the :class:`Unreadable` that stands for its failure."""
    try:
        return function(item)
    except (Unreadable, OSError, ValueError, RuntimeError) as error:  # decoders' errors are RuntimeErrors
        return Unreadable((str(error).strip().splitlines() or [type(error).__name__])[-1])


# --- what the user reads ----------------------------------------------------------------------------------------------


def fingerprint(paths: Iterable[Path], root: Path) -> str:
    """Sixteen hex digits that change when a file below ``root`` appears, vanishes, moves or changes size."""
    lines = (f"{p.relative_to(root).as_posix()} {p.stat().st_size}\n" for p in sorted(paths) if p.is_file())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def report_unread(name: str, reasons: Sequence[tuple[str, str]], shown: int = 5, *, what: str = "missing for") -> None:
    """Say aloud for how many utterances each reason holds, naming ``shown`` of them: by default, why they lack it."""
    for reason, count in Counter(reason for _, reason in reasons).most_common():
        ids = [i for i, r in reasons if r == reason]
        more = ", ..." if count > shown else ""
        click.echo(f"{name}: {what} {count:,} utterances: {reason} ({', '.join(ids[:shown])}{more})", err=True)
