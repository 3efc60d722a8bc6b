"""The feature store: frozen unimodal features of a corpus, packed, hashed and memory-mapped.

A feature set is a folder ``<root>/<dataset>/<name>/`` with ``values.npy`` [frames, dim], ``offsets.npy`` [rows + 1]
and ``spec.json``. Row i of the utterance table owns ``values[offsets[i]:offsets[i + 1]]``; an empty span means that the
modality is missing there. Nothing is pickled; equal input gives equal bytes.

Values of an integer type are pixels: a row is one RGB frame [3 * side * side], channel first, for encoders that train
with the fusion (:mod:`mer_bench.encoders`). They are read as they are, never standardised.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from mer_bench.errors import Misuse, unknown
from mer_bench.files import new_folder, sha256
from mer_bench.utterances import FILE as TABLE_FILE

MODALITIES = ("text", "audio", "vision")
FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class FeatureSpec:
    """What a feature set is and where it came from: the content of ``spec.json``."""

    name: str
    modality: str
    extractor: str
    revision: str
    layer: str
    frame_rate: float | None  #: frames a second; None for tokens and for one vector an utterance
    dim: int
    dtype: str
    rows: int
    frames: int
    table_sha256: str
    values_sha256: str
    offsets_sha256: str
    sketch: Sequence[int]  #: of the values, see :func:`sketch`
    extractor_parameters: int  #: of the frozen extractor; 0 for signal processing and for pixels
    settings: Mapping[str, Any]

    @property
    def integer(self) -> bool:
        """Whether the values are integers: pixels and not features."""
        return np.issubdtype(self.dtype, np.integer)

    @property
    def sha256(self) -> str:
        """Identity of the set: extractor, table, spans, and the values but for their rounding.

        A processor of another make rounds otherwise, so that the bytes of the same features differ from one to the
        other: runs on both belong into one table, and none is missing because the other has it.
        """
        facts = asdict(self)
        del facts["values_sha256"]
        return hashlib.sha256(_json(facts).encode()).hexdigest()


@dataclass(frozen=True)
class FeatureSet:
    """An open feature set; ``values`` [frames, dim] stays on disk until it is read."""

    spec: FeatureSpec
    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.int64]


def write_features(
    folder: Path,
    sequences: Iterable[npt.NDArray[Any]],
    *,
    ids: Sequence[str],
    modality: str,
    extractor: str,
    revision: str = "",
    layer: str = "",
    frame_rate: float | None = None,
    extractor_parameters: int = 0,
    settings: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> FeatureSpec:
    """Stream one array [time, dim] for each row of ``folder/../utterances.csv`` into a feature set at ``folder``.

    Args:
        folder: The new set, a folder beside its utterance table; replaced whole if it exists.
        sequences: In table order; an array with no frames marks a missing modality. Only one is held in memory.
        ids: The table's ids in order, to name the culprit in errors.
        modality: ``text``, ``audio`` or ``vision``.
        extractor: Name of the frozen extractor; with ``revision``, ``layer`` and ``settings`` its full identity.
        revision: Version or hash of its weights.
        layer: Which layer or pooling was kept.
        frame_rate: Frames a second, or None.
        extractor_parameters: Frozen parameters behind one value.
        settings: JSON-able options; no paths, so that the identity is the same on every machine.
        dtype: Storage type; ``uint8`` for pixels.

    Raises:
        Misuse: a value is not finite or does not fit the type, widths differ, or the number of sequences is not the
            number of ids.
    """
    if modality not in MODALITIES:
        raise unknown("modality", modality, MODALITIES)
    table = folder.parent / TABLE_FILE
    lengths: list[int] = []
    dim = 0
    with new_folder(folder) as temporary:
        with (temporary / "values.npy").open("wb") as file:
            for row, sequence in enumerate(sequences):
                if row >= len(ids):
                    raise Misuse(f"{folder.name}: more sequences than the {len(ids)} utterances of {table}")
                if len(sequence):
                    if sequence.ndim != 2 or sequence.shape[1] != (dim or sequence.shape[1]):
                        wanted = f"[time, {dim}]" if dim else "[time, dim]"
                        raise Misuse(f"{folder.name}: {ids[row]} has shape {sequence.shape}, expected {wanted}")
                    given = sequence
                    with np.errstate(over="ignore", invalid="ignore"):  # what does not fit the type is refused below
                        sequence = np.ascontiguousarray(given, dtype=dtype)
                    if np.issubdtype(dtype, np.integer):
                        if given.dtype != sequence.dtype and not np.array_equal(given, sequence):
                            raise Misuse(f"{folder.name}: {ids[row]} holds values that do not fit the type {dtype}")
                    elif not np.isfinite(sequence).all():
                        raise Misuse(f"{folder.name}: {ids[row]} holds NaN or infinite values")
                    if not dim:
                        dim = sequence.shape[1]
                        _header(file, dtype, 0, dim)
                    file.write(sequence.data)
                lengths.append(len(sequence))
            if len(lengths) != len(ids):
                raise Misuse(f"{folder.name}: {len(lengths)} sequences for the {len(ids)} utterances of {table}")
            if not dim:
                raise Misuse(f"{folder.name}: every utterance is empty; there is nothing to store")
            file.seek(0)  # numpy leaves room in the header so that the row count can grow in place
            _header(file, dtype, sum(lengths), dim)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        np.save(temporary / "offsets.npy", offsets)
        spec = FeatureSpec(
            name=folder.name,
            modality=modality,
            extractor=extractor,
            revision=revision,
            layer=layer,
            frame_rate=frame_rate,
            dim=dim,
            dtype=dtype,
            rows=len(lengths),
            frames=int(offsets[-1]),
            table_sha256=sha256(table),
            values_sha256=sha256(temporary / "values.npy"),
            offsets_sha256=sha256(temporary / "offsets.npy"),
            sketch=sketch(np.load(temporary / "values.npy", mmap_mode="r", allow_pickle=False)),
            extractor_parameters=extractor_parameters,
            settings=dict(settings or {}),
        )
        (temporary / "spec.json").write_text(_json(asdict(spec)) + "\n", encoding="utf-8")
    return spec


def read_spec(folder: Path) -> FeatureSpec:
    """Read ``folder/spec.json`` alone.

    Raises:
        Misuse: it is absent or not a spec.
    """
    path = folder / "spec.json"
    if not path.is_file():
        others = sorted(p.parent.name for p in folder.parent.glob("*/spec.json"))
        raise Misuse(f"no feature set {folder.name!r} in {folder.parent} (there: {', '.join(others) or 'none'})")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if set(content) != {field.name for field in fields(FeatureSpec)}:
            raise ValueError(f"its keys are {', '.join(sorted(content))}; prepare the corpus again")
        return FeatureSpec(**content)
    except (OSError, ValueError, TypeError) as error:
        raise Misuse(f"{path} is not a feature specification: {error}") from error


def open_features(folder: Path) -> FeatureSet:
    """Memory-map a feature set after a check of headers and sizes (not of hashes: see :func:`verify_features`).

    Raises:
        Misuse: a file is absent, truncated, or does not have the shape that the spec states.
    """
    spec = read_spec(folder)
    try:
        # copy-on-write: nothing writes, but torch takes only writable arrays without a warning
        values = np.load(folder / "values.npy", mmap_mode="c", allow_pickle=False)
        offsets = np.load(folder / "offsets.npy", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise Misuse(f"feature set {folder} is damaged or truncated ({error}); extract it again") from error
    if values.shape != (spec.frames, spec.dim) or values.dtype != spec.dtype or offsets.shape != (spec.rows + 1,):
        raise Misuse(f"feature set {folder} does not have the shape that its spec.json states; extract it again")
    if offsets[0] != 0 or offsets[-1] != spec.frames or (np.diff(offsets) < 0).any():
        raise Misuse(f"feature set {folder}: offsets.npy does not rise from 0 to {spec.frames}; extract it again")
    return FeatureSet(spec, values, offsets)


def verify_features(folder: Path) -> FeatureSpec:
    """Recompute every hash of a feature set and its sketch, and check that all values are finite.

    Raises:
        Misuse: a hash or the sketch differs from what was written, or a value is not finite.
    """
    found = open_features(folder)
    stated = {
        "values.npy": (found.spec.values_sha256, folder / "values.npy"),
        "offsets.npy": (found.spec.offsets_sha256, folder / "offsets.npy"),
        TABLE_FILE: (found.spec.table_sha256, folder.parent / TABLE_FILE),
    }
    for name, (expected, path) in stated.items():
        if not path.is_file() or sha256(path) != expected:
            raise Misuse(f"feature set {folder}: {name} has changed since the set was written; extract it again")
    check_finite(found, folder)
    if sketch(found.values) != found.spec.sketch:
        raise Misuse(f"feature set {folder}: the sketch in spec.json is not that of values.npy; extract it again")
    return found.spec


AT_ONCE = 1 << 20  #: values of a feature set that a pass over it has in memory


def pieces(values: npt.NDArray[Any], at_once: int = AT_ONCE) -> Iterator[slice]:
    """Slices of the frames of ``values`` [frames, dim], of ``at_once`` values each."""
    step = max(1, at_once // values.shape[1])
    return (slice(start, start + step) for start in range(0, len(values), step))


def sketch(values: npt.NDArray[Any], at_once: int = AT_ONCE) -> list[int]:
    """Sixteen numbers that tell sets of values apart, and are the same where only the last bits differ.

    Each is the sum of all values [frames, dim] with signs of its own, columns relative to their root mean square, in
    hundredths of the deviation that such sums have. One frame that changes among 100,000 moves some of them. Rounding
    in single precision moves one in a set of several hundred, which then counts as another.
    """
    frames, dim = values.shape
    # the raw stream of PCG64 is the same in every release of numpy
    of_frame, of_column = (
        (np.asarray(bits.random_raw(count))[:, None] >> np.arange(16, dtype=np.uint64) & 1) * 2.0 - 1
        for bits, count in ((np.random.PCG64(0), frames), (np.random.PCG64(1), dim))
    )
    sums, squares = np.zeros((16, dim)), np.zeros(dim)
    for piece in pieces(values, at_once):
        part = values[piece].astype(np.float64)
        sums += of_frame[piece].T @ part
        squares += np.square(part).sum(0)
    scale = np.sqrt(np.where(squares > 0, squares, 1) * dim)
    hundredths: list[int] = np.rint(100 * (sums / scale * of_column.T).sum(1)).astype(int).tolist()
    return hundredths


def check_finite(features: FeatureSet, folder: Path) -> None:
    """Raise Misuse naming the first row with a NaN or infinite value; integers are always finite."""
    for piece in () if features.spec.integer else pieces(features.values):
        finite = np.isfinite(features.values[piece]).all(axis=1)
        if not finite.all():
            frame = piece.start + int(np.argmin(finite))
            row = int(np.searchsorted(features.offsets, frame, side="right")) - 1
            raise Misuse(f"feature set {folder} holds NaN or infinite values at row {row} of its table")


def import_sequences(source: Path, ids: Sequence[str]) -> list[FloatArray]:
    """Read sequences that a user already has: a folder of ``<id>.npy``, or one npz.

    An npz holds either one array for each id, or ``ids`` [rows], ``values`` [frames, dim] and ``offsets`` [rows + 1].
    A vector [dim] is one frame. Ids that the source lacks become missing modalities.

    Raises:
        Misuse: the source holds ids that the table does not, or none that it does, or is unreadable.
    """
    try:
        if source.is_dir():
            arrays = {path.stem: np.load(path, allow_pickle=False) for path in sorted(source.glob("*.npy"))}
        else:
            with source.open("rb") as file:
                archive = np.load(file, allow_pickle=False)
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise ValueError("it holds one array and no ids; an npz or a folder of npy is needed")
                arrays = {name: archive[name] for name in archive.files}
        if {"ids", "values", "offsets"} <= set(arrays):
            bounds, values, names = pairwise(arrays["offsets"].tolist()), arrays["values"], arrays["ids"].tolist()
            if len(set(names)) != len(names):
                raise ValueError("it holds an id more than once")
            arrays = {str(i): values[a:b] for i, (a, b) in zip(names, bounds, strict=True)}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise Misuse(f"cannot read features from {source}: {error}") from error
    strangers = sorted(set(arrays) - set(ids))
    if strangers or not arrays:
        raise Misuse(
            f"{source} holds {len(arrays)} sequences, {len(strangers)} of them with ids that the table lacks"
            + (f" (first: {strangers[0]!r})" if strangers else "")
            + f"; the table's ids look like {ids[0]!r}"
        )
    return [np.atleast_2d(arrays[i]) if i in arrays else np.empty((0, 0), np.float32) for i in ids]


def _json(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, sort_keys=True, indent=1, ensure_ascii=False)


def _header(file: BinaryIO, dtype: str, frames: int, dim: int) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (frames, dim)}
    )
