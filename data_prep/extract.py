"""The engine that runs every frozen extractor: from media or transcripts and an utterance table to one feature set.

An :class:`Extractor` consists of ``decode``, which reads one utterance (in worker processes), and ``encode``, which
turns a list of decoded utterances into features (in the main process, on the GPU if there is one). :func:`extract`
streams a corpus through both. The media of a corpus do not fit into memory, take hours to decode, and some of them are
damaged. Therefore results are written to disk as soon as they are computed, an extraction that was killed continues
where it stopped, and an utterance that cannot be read becomes a missing modality with a reason.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from data_prep.corpora.base import Clip, Unreadable, report_reasons
from mer_bench.errors import Misuse
from mer_bench.exposure import Exposure, known
from mer_bench.features import FeatureSpec, open_features, write_features, write_spec
from mer_bench.files import sha256, write_atomic
from mer_bench.schema import check_name
from mer_bench.training.workers import Workers
from mer_bench.utterances import FILE

FloatArray = npt.NDArray[Any]

EMPTY = np.empty((0, 0), np.float32)
MISSING = "missing.csv"  #: in the folder of a feature set: the utterances without features, and the reasons
REMARKS = "remarks.csv"  #: in the same folder: utterances whose features the user should check, and the reasons


class Incomplete(Exception):
    """Some utterances have no features although ``--strict`` was given; the feature set is stored nevertheless."""


@dataclass(frozen=True)
class Remarked:
    """Features of an utterance with a remark for the user, for example that no face was found."""

    values: FloatArray
    remark: str


def plain_name(text: str) -> str:
    """``text`` in lower case, with other characters than those of a name replaced, for the name of a feature set."""
    return re.sub(r"[^a-z0-9._+-]+", "-", text.lower()).strip("._+-")


def minor_version(package: str) -> str:
    """The major and minor version of an installed package, for a recipe.

    Sets that differ only in a library's patch release share one recipe. Should their values differ nevertheless, the
    hash of the values distinguishes them.
    """
    return ".".join(version(package).split(".")[:2])


@dataclass(frozen=True)
class Recipe:
    """Everything that determines the values of a feature set, given its utterance table."""

    name: str
    modality: str
    extractor: str
    revision: str = ""
    layer: str = ""
    frame_rate: float | None = None
    dtype: str = "float32"
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a name that no folder may have, before anything is computed or written."""
        check_name(self.name, "feature set")

    def stored_spec(self, corpus: Path) -> FeatureSpec | None:
        """The spec of the stored set if it comes from this recipe and the present utterance table, otherwise None."""
        try:
            spec = open_features(corpus / self.name).spec
        except Misuse:  # the set is absent or damaged
            return None
        wanted = asdict(self)
        same = wanted == {name: getattr(spec, name) for name in wanted}
        return spec if same and spec.table_sha256 == sha256(corpus / FILE) else None


@dataclass(frozen=True)
class Extractor:
    """A frozen extractor.

    Args:
        recipe: The identity of the feature set.
        decode: Function from one clip to an input of ``encode``. It is sent to worker processes, hence it must be a
            function of a module or a ``partial`` of one. It raises :class:`Unreadable`, OSError, ValueError or
            RuntimeError if the clip cannot be decoded.
        encode: Function from a list of decoded clips to one result per clip in the same order: an array [time, dim],
            which may be wrapped in :class:`Remarked`, or :class:`Unreadable` with the reason why there is none.
        parameters: Function that returns the number of frozen parameters; called only if features are computed.
        batch_size: Number of utterances that are encoded together, and the most that are lost if the process is killed.
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
    """Write the feature set of ``extractor`` into the folder ``corpus``, unless it is up to date.

    Args:
        corpus: Folder that contains ``utterances.csv``.
        extractor: The extractor to run.
        clips: One clip per row of the table, in its order.
        workers: Number of processes that decode; with 0 the main process decodes.
        strict: Whether to raise an error after the set is stored if some utterances could not be read.
        force: Whether to compute the set even if it is up to date.

    Raises:
        Misuse: no utterance could be read.
        Incomplete: ``strict`` is set and some utterances could not be read.
    """
    recipe = extractor.recipe
    journal = Journal(corpus / f".{recipe.name}.partial", recipe.dtype)

    def sequences() -> Iterator[FloatArray]:
        journal.begin({**asdict(recipe), "table": sha256(corpus / FILE)}, restart=force)
        run(extractor, clips, journal, workers)
        if not journal.frames:
            shutil.rmtree(journal.folder)  # the next call shall read the utterances again
            raise Misuse(f"{recipe.name}: none of {len(clips):,} utterances could be read: {journal.missing[0][1]}")
        report_reasons(recipe.name, journal.missing)
        report_reasons(recipe.name, journal.remarks, what="computed, with a remark, for")
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
    exposure: Exposure | None = None,
    force: bool = False,
) -> FeatureSpec:
    """Write the feature set of ``recipe`` into the folder ``corpus``, unless it is up to date.

    Args:
        corpus: Folder that contains ``utterances.csv``.
        recipe: The identity of the feature set.
        sequences: Function that returns one array [time, dim] per row; called only if the set is not up to date.
        ids: The ids of the table in its order.
        parameters: Function that returns the number of frozen parameters; called only if the set is not up to date.
        exposure: What the extractor saw of the corpus; by default what is known of an extractor of its name.
        force: Whether to compute the set even if it is up to date.

    Raises:
        Misuse: the place of the set is taken by something else, which would be deleted.
    """
    place = corpus / recipe.name
    parts = ("spec.json", "values.npy", "offsets.npy")  # a damaged set has some of them
    foreign = place.is_dir() and any(place.iterdir()) and not any((place / part).is_file() for part in parts)
    if foreign or place.is_file():
        raise Misuse(f"{place} exists and is not a feature set; choose another name (--name), or remove it")
    exposure = exposure or known(recipe.extractor, corpus.resolve().name)
    spec = None if force else recipe.stored_spec(corpus)
    if spec:
        if exposure not in (None, spec.exposure):  # which is no part of the identity
            spec = replace(spec, exposure=exposure)
            write_spec(corpus / recipe.name, spec)
        click.echo(f"{recipe.name}: already done ({spec.frames:,} frames; --force extracts it again)")
        return spec
    facts = asdict(recipe)
    folder = corpus / facts.pop("name")
    spec = write_features(folder, sequences(), ids=ids, extractor_parameters=parameters(), exposure=exposure, **facts)
    empty = int((np.diff(open_features(folder).offsets) == 0).sum())
    lacking = f", {empty:,} of them without {recipe.modality}" if empty else ""
    click.echo(f"{recipe.name}: {spec.rows:,} utterances{lacking}, {spec.frames:,} frames of {spec.dim}")
    return spec


# --- results so far ---------------------------------------------------------------------------------------------------


class Journal:
    """An unfinished feature set on disk: a file of values, and a file with one line per finished utterance.

    The line is written after the values. If the process is killed, the complete lines therefore describe a prefix of
    the corpus; :meth:`begin` removes the values after that prefix.

    Args:
        folder: Folder of the two files.
        dtype: Data type of the values.

    Attributes:
        shapes: (time, dim) of each finished utterance.
        missing: (id, reason) of each finished utterance without features.
        remarks: (id, remark) of each finished utterance with a remark.
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder, self.dtype = folder, np.dtype(dtype)
        self.shapes: list[tuple[int, int]] = []
        self.missing: list[tuple[str, str]] = []
        self.remarks: list[tuple[str, str]] = []

    @property
    def frames(self) -> int:
        """Number of frames so far."""
        return sum(time for time, _ in self.shapes)

    def begin(self, identity: dict[str, Any], *, restart: bool) -> None:
        """Continue a journal with the same ``identity`` unless ``restart`` is set; otherwise start a new one."""
        path = self.folder / "identity.json"
        text = json.dumps(identity, sort_keys=True)
        if restart or not path.is_file() or path.read_text(encoding="utf-8") != text:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            (self.folder / "values").touch()
            (self.folder / "lines").touch()
            write_atomic(path, text)
        lines = (self.folder / "lines").read_text(encoding="utf-8").splitlines(keepends=True)
        complete = [line for line in lines if line.endswith("\n")]
        for line in complete:
            self._note(*json.loads(line))
        with (self.folder / "lines").open("rb+") as file:
            file.truncate(len("".join(complete).encode()))
        with (self.folder / "values").open("rb+") as file:
            file.truncate(sum(time * dim for time, dim in self.shapes) * self.dtype.itemsize)

    def append(self, results: Sequence[tuple[str, FloatArray, str]]) -> None:
        """Write (id, array [time, dim], reason for an empty array or remark or "") of the next utterances."""
        arrays = [np.ascontiguousarray(array, self.dtype) for _, array, _ in results]
        with (self.folder / "values").open("ab") as file:
            for array in arrays:
                file.write(array.data)
        rows = [(name, *array.shape, message) for (name, _, message), array in zip(results, arrays, strict=True)]
        with (self.folder / "lines").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for row in rows:
            self._note(*row)

    def sequences(self) -> Iterator[FloatArray]:
        """The arrays that were appended, read from disk one by one."""
        with (self.folder / "values").open("rb") as file:
            for time, dim in self.shapes:
                yield np.fromfile(file, self.dtype, time * dim).reshape(time, dim)

    def _note(self, name: str, time: int, dim: int, message: str) -> None:
        self.shapes.append((time, dim))
        if message:
            (self.remarks if time else self.missing).append((name, message))


# --- decoding and encoding --------------------------------------------------------------------------------------------


def run(extractor: Extractor, clips: Sequence[Clip], journal: Journal, workers: int) -> None:
    """Decode and encode the clips that the journal lacks, with a progress bar."""
    from tqdm import tqdm

    first = len(journal.shapes)
    if first:
        click.echo(f"{extractor.recipe.name}: continuing after {first:,} of {len(clips):,} utterances", err=True)
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
    crashed = Unreadable("the decoder crashed")
    with Workers(workers) as processes:
        for _, result in processes.run(attempt, clips, crashed=lambda clip: crashed, ahead=4, in_order=True):
            yield result


def encode_batch(
    encode: Callable[[list[Any]], Sequence[FloatArray | Remarked | Unreadable]], batch: Sequence[tuple[Clip, Any]]
) -> list[tuple[str, FloatArray, str]]:
    """Encode decoded clips together, or one by one if that fails, so that one bad clip does not affect the others.

    Returns:
        For each clip its id, its array [time, dim], and the reason why it is empty or a remark or "".
    """
    decoded = [item for _, item in batch if not isinstance(item, Unreadable)]
    outcomes: list[Any]
    try:
        outcomes = list(encode(decoded)) if decoded else []
    except (ValueError, RuntimeError):
        outcomes = [_attempt(lambda item: encode([item])[0], item) for item in decoded]
    encoded = iter(outcomes)
    results: list[tuple[str, FloatArray, str]] = []
    for clip, item in batch:
        remark: str = ""
        outcome: Any = item if isinstance(item, Unreadable) else next(encoded)
        if isinstance(outcome, Remarked):
            outcome, remark = outcome.values, outcome.remark
        if not isinstance(outcome, Unreadable) and not np.size(outcome):
            outcome = Unreadable("there is nothing in it")
        if not isinstance(outcome, Unreadable) and not np.isfinite(outcome).all():
            outcome = Unreadable("its features are not finite")
        if isinstance(outcome, Unreadable):
            results.append((clip.id, EMPTY, str(outcome).replace(str(clip.path), "the file")))
        else:
            results.append((clip.id, outcome, remark))
    return results


def _attempt(function: Callable[[Any], Any], item: Any) -> Any:
    """``function(item)``, or :class:`Unreadable` with the last line of the error if it fails."""
    try:
        return function(item)
    except (Unreadable, OSError, ValueError, RuntimeError) as error:  # decoders' errors are RuntimeErrors
        return Unreadable((str(error).strip().splitlines() or [type(error).__name__])[-1])
