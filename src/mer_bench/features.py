"""The feature store: frozen unimodal features of a corpus, packed, hashed and memory-mapped.

A feature set is a folder ``<root>/<dataset>/<name>/`` with ``values.npy`` [frames, dim], ``offsets.npy`` [rows + 1]
and ``spec.json``. The features of row i of the utterance table are ``values[offsets[i]:offsets[i + 1]]``; without
frames, the utterance lacks the modality. Nothing is pickled; equal input gives equal bytes.

Values of an integer type are pixels: each frame is one RGB image [3 * side * side], channel first, for encoders that
are trained with the fusion (:mod:`mer_bench.encoders`). Pixels are never standardised.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from mer_bench.errors import Misuse
from mer_bench.exposure import Exposure
from mer_bench.files import new_folder, sha256, write_atomic
from mer_bench.schema import AboveZero, Count, Hash, Name, Positive, Text, check_name, decode, read_json
from mer_bench.utterances import FILE as TABLE_FILE


@dataclass(frozen=True)
class FeatureSpec:
    """What a feature set is and where it came from: the content of ``spec.json``."""

    name: Name  #: name of the folder
    modality: Name  #: ``text``, ``audio``, ``vision``, or another one
    extractor: Text  #: name of the frozen extractor, identified together with ``revision``, ``layer`` and ``settings``
    revision: Text  #: version or hash of the extractor's weights
    layer: Text  #: layer or pooling that the features were taken from
    frame_rate: AboveZero | None  #: frames per second; None for tokens and for one vector per utterance
    dim: Positive
    dtype: Literal["float16", "float32", "float64", "uint8"]  #: storage type; ``uint8`` for pixels
    rows: Positive
    frames: Positive
    table_sha256: Hash
    values_sha256: Hash
    offsets_sha256: Hash
    sketch: list[int]  #: fingerprint of the values, see :func:`sketch`
    extractor_parameters: Count  #: number of frozen parameters; 0 for signal processing and pixels
    settings: Mapping[Text, Any]  #: options that JSON can hold; no paths, so that they are the same on every machine
    exposure: Exposure | None = (
        None  #: what the extractor saw of this corpus; None = not stated. No part of the identity
    )

    @property
    def integer(self) -> bool:
        """Whether the values are integers, that is, pixels."""
        return np.issubdtype(self.dtype, np.integer)

    @property
    def sha256(self) -> str:
        """Identity of the set: a hash of extractor, table, offsets and the values up to rounding.

        Processors of different makes round differently. The same features computed on both have different bytes and
        the same identity, so that their runs stand in one table.
        """
        facts = asdict(self)
        del facts["values_sha256"], facts["exposure"]
        return hashlib.sha256(_json(facts).encode()).hexdigest()


@dataclass(frozen=True)
class FeatureSet:
    """An open feature set; ``values`` [frames, dim] is memory-mapped, ``offsets`` is [rows + 1]."""

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
    exposure: Exposure | None = None,
) -> FeatureSpec:
    """Write one array [time, dim] per row of ``folder/../utterances.csv`` as the feature set ``folder``.

    An old feature set is replaced as a whole. The arrays in ``sequences`` are in the order of the table and are read
    one by one; an empty array, of any shape, is a missing modality. ``ids`` are the ids of the table in its order, for
    error messages. The other arguments are fields of :class:`FeatureSpec`.

    Raises:
        Misuse: A value is not finite or does not fit the type, widths differ, or there are more or fewer sequences
            than ids.
    """
    check_name(modality, "modality")
    check_name(folder.name, "feature set")
    table = folder.parent / TABLE_FILE
    lengths: list[int] = []
    dim: int | None = None
    with new_folder(folder) as temporary:
        with (temporary / "values.npy").open("wb") as file:
            for row, sequence in enumerate(sequences):
                if row >= len(ids):
                    raise Misuse(f"{folder.name}: more sequences than the {len(ids)} utterances of {table}")
                if sequence.size:
                    if sequence.ndim != 2 or dim not in (None, sequence.shape[1]):
                        wanted = f"[time, {dim or 'dim'}]"
                        raise Misuse(f"{folder.name}: {ids[row]} has shape {sequence.shape}, expected {wanted}")
                    with np.errstate(over="ignore", invalid="ignore"):  # values that do not fit are rejected below
                        stored = np.ascontiguousarray(sequence, dtype=dtype)
                    if np.issubdtype(dtype, np.integer):
                        if sequence.dtype != stored.dtype and not np.array_equal(sequence, stored):
                            raise Misuse(f"{folder.name}: {ids[row]} holds values that do not fit the type {dtype}")
                    elif not np.isfinite(stored).all():
                        raise Misuse(f"{folder.name}: {ids[row]} holds NaN or infinite values")
                    if dim is None:
                        dim = sequence.shape[1]
                        _write_header(file, dtype, 0, dim)
                    file.write(stored.data)
                lengths.append(len(sequence) if sequence.size else 0)
            if len(lengths) != len(ids):
                raise Misuse(f"{folder.name}: {len(lengths)} sequences for the {len(ids)} utterances of {table}")
            if dim is None:
                raise Misuse(f"{folder.name}: every utterance is empty; there is nothing to store")
            size = file.tell()
            file.seek(0)  # numpy pads the header, so that the number of frames can be written later
            _write_header(file, dtype, sum(lengths), dim)
            assert size == file.tell() + sum(lengths) * dim * np.dtype(dtype).itemsize, "the header does not fit"
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        np.save(temporary / "offsets.npy", offsets)
        facts = dict(
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
            exposure=exposure and asdict(exposure),
        )
        spec = decode(facts, FeatureSpec, f"feature set {folder.name}")
        write_spec(temporary, spec)
    return spec


def write_spec(folder: Path, spec: FeatureSpec) -> None:
    """Write ``folder/spec.json``."""
    write_atomic(folder / "spec.json", _json(asdict(spec)) + "\n")


def read_spec(folder: Path) -> FeatureSpec:
    """Read ``folder/spec.json``.

    Raises:
        Misuse: The file is absent or is not a feature specification.
    """
    path = folder / "spec.json"
    if not path.is_file():
        others = sorted(p.parent.name for p in folder.parent.glob("*/spec.json"))
        raise Misuse(f"no feature set {folder.name!r} in {folder.parent} (available: {', '.join(others) or 'none'})")
    try:
        spec = decode(read_json(path, "a feature specification"), FeatureSpec, str(path))
    except Misuse as error:
        raise Misuse(f"{error}; extract the set again") from error
    if spec.name != folder.name:
        raise Misuse(f"{path} names the set {spec.name!r}, not {folder.name!r}; give the folder that name again")
    return spec


def open_features(folder: Path) -> FeatureSet:
    """Memory-map a feature set whose content is what ``spec.json`` says.

    The content is checked once, which reads all of it. Sizes and times of the files are then remembered in
    ``verified.json`` beside them, and the content is checked again if one of them differs.

    Raises:
        Misuse: A file is absent, truncated, or was changed.
    """
    found, stamp, key = _map(folder), _stamp(folder), folder.resolve()
    if _verified.get(key) != stamp:
        if not _is_remembered(folder / STAMP, stamp):
            _check_content(found, folder)
            with suppress(Misuse):  # a folder that cannot be written to is checked again by the next process
                write_atomic(folder / STAMP, json.dumps(stamp, indent=1) + "\n")
        _verified[key] = stamp
    return found


def check_fits(found: FeatureSet, folder: Path, rows: int, table_sha256: str) -> None:
    """Raise Misuse unless the feature set in ``folder`` was made for a table of ``rows`` rows with this hash."""
    if found.spec.rows != rows:
        raise Misuse(f"feature set {folder} has {found.spec.rows} rows, its table {rows}")
    if found.spec.table_sha256 != table_sha256:
        raise Misuse(f"feature set {folder} was made for another {TABLE_FILE}; extract it again")


#: Settings of a feature set that describe its media files, and not its extractor.
MEDIA = frozenset({"source", "decoder"})
#: Settings of a set that was imported: how its file names utterances, and what is not finite in it.
IMPORT = frozenset({"ids", "id_format", "non_finite"})


def difference(stated: FeatureSpec, wanted: FeatureSpec, trusted: bool = False) -> str:
    """In what two feature sets differ beyond their content; empty if in nothing.

    Those which the user trusts need the same modality, width and kind of values alone.
    """
    facts: list[tuple[str, Any, Any]] = [
        ("modality", stated.modality, wanted.modality),
        ("width", stated.dim, wanted.dim),
        ("kind of values", _kind(stated), _kind(wanted)),
    ]
    if not trusted:
        origin = ("extractor", "revision", "layer")
        facts[1:1] = [(name, getattr(stated, name), getattr(wanted, name)) for name in origin]
        options = sorted((stated.settings.keys() | wanted.settings.keys()) - MEDIA)
        facts += [(f"setting {name}", stated.settings.get(name), wanted.settings.get(name)) for name in options]
    return next((f"its {name} is {one!r}, not {other!r}" for name, one, other in facts if one != other), "")


def difference_of_corpora(stated: FeatureSpec, wanted: FeatureSpec) -> str:
    """In what the feature sets of two corpora differ beyond their content; empty if in nothing.

    The revision of an imported set is the hash of its file, which each corpus has for itself: of such sets the names of
    extractor and layer have to agree.
    """
    imported = all(spec.extractor_parameters == 0 and spec.settings.keys() <= IMPORT for spec in (stated, wanted))
    same = (stated.extractor, stated.layer) == (wanted.extractor, wanted.layer)
    return difference(stated, wanted, trusted=imported and same)


def _kind(spec: FeatureSpec) -> str:
    return "pixels" if spec.integer else "numbers"


STAMP = "verified.json"
_verified: dict[Path, dict[str, list[int]]] = {}  #: folder -> stamp of a set that this process has checked


def _stamp(folder: Path) -> dict[str, list[int]]:
    """Size and times of last change, in nanoseconds, of each file of a feature set."""
    facts = {name: (folder / name).stat() for name in ("spec.json", "values.npy", "offsets.npy")}
    return {name: [each.st_size, each.st_mtime_ns, each.st_ctime_ns] for name, each in facts.items()}


def _is_remembered(path: Path, stamp: Mapping[str, list[int]]) -> bool:
    try:
        return bool(json.loads(path.read_bytes()) == stamp)
    except (OSError, ValueError, RecursionError):
        return False


def _map(folder: Path) -> FeatureSet:
    """Memory-map a feature set and check its shapes."""
    spec = read_spec(folder)
    try:
        # copy-on-write, because torch warns about arrays that are not writable
        values = np.load(folder / "values.npy", mmap_mode="c", allow_pickle=False)
        offsets = np.load(folder / "offsets.npy", allow_pickle=False)
    except Exception as error:  # numpy evaluates a header as Python and lets its tokenizer's errors through
        raise Misuse(f"feature set {folder} is damaged or truncated ({error}); extract it again") from error
    if values.shape != (spec.frames, spec.dim) or values.dtype != spec.dtype or offsets.shape != (spec.rows + 1,):
        raise Misuse(f"feature set {folder} does not have the shape that its spec.json states; extract it again")
    if offsets.dtype != np.int64 or offsets[0] != 0 or offsets[-1] != spec.frames or (np.diff(offsets) < 0).any():
        raise Misuse(f"feature set {folder}: offsets.npy does not rise from 0 to {spec.frames}; extract it again")
    return FeatureSet(spec, values, offsets)


def verify_features(folder: Path) -> FeatureSpec:
    """Recompute the hashes and the sketch of a feature set, and check that all values are finite.

    Raises:
        Misuse: A hash or the sketch differs from ``spec.json``, or a value is not finite.
    """
    found, table = _map(folder), folder.parent / TABLE_FILE
    if not table.is_file() or sha256(table) != found.spec.table_sha256:
        raise Misuse(f"feature set {folder}: {TABLE_FILE} has changed since the set was written; extract it again")
    _check_content(found, folder)
    return found.spec


def _check_content(found: FeatureSet, folder: Path) -> None:
    """Raise Misuse unless hashes and sketch of an open feature set are those that it states, and its values finite."""
    spec = found.spec
    check_finite(found, folder)
    for name, expected in (("values.npy", spec.values_sha256), ("offsets.npy", spec.offsets_sha256)):
        if sha256(folder / name) != expected:
            raise Misuse(f"feature set {folder}: {name} has changed since the set was written; extract it again")
    if sketch(found.values) != spec.sketch:
        raise Misuse(f"feature set {folder}: the sketch in spec.json is not that of values.npy; extract it again")


CHUNK = 1 << 20  #: number of values that one step of a pass over a feature set reads


def chunks(values: npt.NDArray[Any], size: int = CHUNK) -> Iterator[slice]:
    """Slices over the frames of ``values`` [frames, dim], with about ``size`` values each."""
    step = max(1, size // values.shape[1])
    return (slice(start, start + step) for start in range(0, len(values), step))


def sketch(values: npt.NDArray[Any], size: int = CHUNK) -> list[int]:
    """Fingerprint of ``values`` [frames, dim]: sixteen integers that do not depend on the rounding of the last bits.

    Each integer is the sum of all values with random signs, with columns divided by their root mean square, in
    hundredths of the standard deviation of such a sum. If one of 100,000 frames changes, some integers change. Rounding
    in single precision changes an integer in about one of several hundred feature sets, which then has a new identity.
    ``size`` is the number of values to read at once.
    """
    frames, dim = values.shape
    # the raw bits of PCG64 are the same in every release of numpy
    frame_signs, column_signs = (
        (np.asarray(bits.random_raw(count))[:, None] >> np.arange(16, dtype=np.uint64) & 1) * 2.0 - 1
        for bits, count in ((np.random.PCG64(0), frames), (np.random.PCG64(1), dim))
    )
    sums, squares = np.zeros((16, dim)), np.zeros(dim)
    for chunk in chunks(values, size):
        part = values[chunk].astype(np.float64)
        sums += frame_signs[chunk].T @ part
        squares += np.square(part).sum(0)
    scale = np.sqrt(np.where(squares > 0, squares, 1) * dim)
    return np.rint(100 * (sums / scale * column_signs.T).sum(1)).astype(int).tolist()


def check_finite(features: FeatureSet, folder: Path) -> None:
    """Raise Misuse with the number of the first row that holds a NaN or infinite value."""
    for chunk in () if features.spec.integer else chunks(features.values):
        finite = np.isfinite(features.values[chunk]).all(axis=1)
        if not finite.all():
            frame = chunk.start + int(np.argmin(finite))
            row = int(np.searchsorted(features.offsets, frame, side="right")) - 1
            raise Misuse(f"feature set {folder} holds NaN or infinite values at row {row} of its table")


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False)


def _write_header(file: BinaryIO, dtype: str, frames: int, dim: int) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (frames, dim)}
    )
