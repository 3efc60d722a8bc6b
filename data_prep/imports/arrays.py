"""Import of existing features as a feature set, checked against the utterance table."""

from __future__ import annotations

import re
import string
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.cli import FILE, Command, choice_option, force_option, name_option, table_option
from data_prep.corpora import meld
from data_prep.corpora.base import SPLIT_NAMES, check_offsets, fingerprint, report_reasons
from data_prep.extract import EMPTY, FloatArray, Recipe, store
from data_prep.imports.kinds import NPZ, file_kind, unpacked_limit, what_it_is
from mer_bench.errors import Misuse, unknown
from mer_bench.exposure import KINDS, Exposure, Kind
from mer_bench.features import FeatureSpec
from mer_bench.files import sha256
from mer_bench.modalities import MODALITIES
from mer_bench.utterances import read_table

Named = tuple[str, FloatArray]  #: the name of an utterance in a source, and its frames [time, dim]
FIELDS = ("id", "split", "dialogue", "utterance", "turn", "speaker", "session")  #: of the option --id-format
NON_FINITE = ("refuse", "zero", "missing")
MIN_PLACED = 0.5  #: fraction of a source's sequences that must belong to the table, and may not become missing


# --- reading ----------------------------------------------------------------------------------------------------------


@contextmanager
def reading(source: Path) -> Iterator[None]:
    """Raise Misuse instead of any error that a damaged or forged file causes in the block."""
    try:
        yield
    except Misuse:
        raise
    except MemoryError:
        raise Misuse(
            f"cannot read features from {source}: it does not fit into this machine's memory, or is damaged"
        ) from None
    except Exception as error:  # numpy and zipfile raise errors of many types for damaged files
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise Misuse(f"cannot read features from {source}: {reason}") from error


def read_folder(source: Path) -> list[Named]:
    """The arrays of all npy files below a folder, named by their paths without ``.npy``; prints what was left out."""
    files = [path for path in sorted(source.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    paths = [path for path in files if path.suffix == ".npy"]
    if len(paths) < len(files):
        first = next(path for path in files if path.suffix != ".npy")
        click.echo(f"{source}: left out {len(files) - len(paths):,} files that are not npy (first: {first.name})")
    found = []
    for path in paths:
        with reading(path), path.open("rb") as file:
            if file_kind(path) != "one npy array without ids":
                raise Misuse(f"cannot read features from {path}: {what_it_is(path)}")
            array = np.lib.format.read_array(file, allow_pickle=False)
            found.append((path.relative_to(source).with_suffix("").as_posix(), as_frames(array)))
    return found


def read_npz(source: Path, only: Sequence[str] = ()) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an npz, or ``only`` some of them, by name.

    Raises:
        Misuse: the file is of another kind or damaged, holds a name twice, unpacks to too much, or lacks an array.
    """
    with reading(source):
        if file_kind(source) != NPZ:
            raise Misuse(f"cannot read features from {source}: {what_it_is(source)}")
        with zipfile.ZipFile(source) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            names = [info.filename.removesuffix(".npy") for info in members]
            refuse_repeated(source, names)
            absent = [name for name in only if name not in names]
            if absent:
                raise Misuse(f"{source} has no array {absent[0]!r}; it has {some(names)}")
            wanted = {name: info for name, info in zip(names, members, strict=True) if not only or name in only}
            size, packed = sum(info.file_size for info in wanted.values()), source.stat().st_size
            if size > unpacked_limit(packed):
                raise Misuse(
                    f"{source} has {packed:,} bytes and would unpack to {size:,}, which no features do; if they are "
                    "meant, write them with numpy.savez, which does not compress"
                )
            return {name: read_member(archive, info) for name, info in wanted.items()}


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """One array of an npz, with its checksum checked."""
    with archive.open(info) as file:
        try:
            array: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):  # also makes zipfile compare the checksum
                raise ValueError("it has bytes after its array")
        except (ValueError, EOFError) as error:
            raise ValueError(f"its member {info.filename!r}: {error}") from error
    return array


def some(names: Sequence[str], shown: int = 8) -> str:
    """The first of the names."""
    return ", ".join(map(repr, names[:shown])) + (", ..." if len(names) > shown else "") if names else "nothing"


def refuse_repeated(source: Path, names: Sequence[str]) -> None:
    """Raise Misuse if a name occurs more than once."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise Misuse(f"{source} holds {len(repeated):,} names more than once (first: {repeated[0]!r})")


def as_frames(array: npt.NDArray[Any]) -> FloatArray:
    """An array [time, dim] or a vector [dim], which is one frame; an empty array of any shape has no frames.

    Raises:
        ValueError: it does not hold real numbers, or has another number of axes.
    """
    if array.dtype.kind not in "biuf":
        raise ValueError(f"an array has the type {array.dtype}, expected real numbers")
    if not array.size:
        return EMPTY
    if array.ndim not in (1, 2):
        raise ValueError(f"an array has the shape {array.shape}, expected [time, dim]")
    return np.atleast_2d(array)


def as_ids(ids: npt.NDArray[Any]) -> list[str]:
    """A list of ids as text.

    Raises:
        ValueError: the array is no list of text or whole numbers.
    """
    if ids.ndim != 1 or ids.dtype.kind not in "SUiu" or not ids.itemsize:
        raise ValueError(f"its ids have the shape {ids.shape} and the type {ids.dtype}, expected one text for each row")
    return [i.decode("utf-8", "replace") if isinstance(i, bytes) else str(i) for i in ids.tolist()]


def read_sequences(source: Path, key: str = "") -> list[Named]:
    """All sequences of a source, in one of four forms.

    A folder of npy files named by utterance. An npz with one array per utterance. An npz with ``ids`` [rows],
    ``values`` [frames, dim] and ``offsets`` [rows + 1]. With ``key``, an npz with ``ids`` [rows] and the array ``key``
    [rows, dim]. Names are unique.

    Raises:
        Misuse: the source is unreadable, in another form, or holds a name more than once.
    """
    if source.is_dir():
        if key:
            raise Misuse(f"--key names an array of an npz, but {source} is a folder")
        return read_folder(source)
    with reading(source):
        arrays = read_npz(source, ("ids", key) if key else ())
        if not key and "ids" not in arrays:
            found = []
            for name, array in arrays.items():
                try:
                    found.append((name, as_frames(array)))
                except ValueError as error:
                    raise ValueError(f"{name!r}: {error}") from error
            return found
        if not key and not {"values", "offsets"} <= set(arrays):
            others = [name for name in arrays if name != "ids"]
            raise Misuse(f"{source} holds ids and {some(others)}: name the array of features with --key")
        ids, values = as_ids(arrays["ids"]), arrays[key or "values"]
        refuse_repeated(source, ids)
        if values.ndim != 2 or values.dtype.kind not in "biuf":
            raise ValueError(
                f"{key or 'values'!r} has the shape {values.shape} and the type {values.dtype}, expected a matrix"
            )
        if key and len(values) != len(ids):
            raise ValueError(f"{key!r} has {len(values):,} rows for {len(ids):,} ids")
        bounds = range(len(ids) + 1) if key else check_offsets(arrays["offsets"], len(ids), len(values))
        return [(name, as_frames(values[bounds[i] : bounds[i + 1]])) for i, name in enumerate(ids)]


# --- names of utterances ----------------------------------------------------------------------------------------------


def read_id_file(path: Path) -> dict[str, str]:
    """The ids of the table by the names of a source, from a CSV with the columns ``file`` and ``id``.

    Raises:
        Misuse: the file is no such CSV, or holds a name or an id more than once.
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except Exception as error:  # pandas raises errors of many types for files that are no CSV
        reason = " ".join(str(error).split())[:300]
        raise Misuse(f"cannot read --ids {path}: {reason}") from error
    absent = [column for column in ("file", "id") if column not in rows]
    if absent:
        raise Misuse(
            f"--ids {path} has no column {absent[0]!r}; it needs file (name in the source) and id (in the table)"
        )
    for column in ("file", "id"):
        refuse_repeated(path, list(rows[column]))
    return dict(zip(rows["file"], rows["id"], strict=True))


def by_file(names: Sequence[str], id_of: Mapping[str, str]) -> dict[str, str]:
    """The id of each name of a source that the CSV lists, with or without the suffix of a file such as ``.wav``."""
    stems = {file: re.sub(r"\.\w{1,5}$", "", file) for file in id_of}
    files = Counter(stems.values())
    by_stem = {stem: id_of[file] for file, stem in stems.items() if files[stem] == 1}
    found = {name: id_of.get(name, by_stem.get(name, "")) for name in names}
    unused = set(id_of.values()) - set(found.values())
    if unused:
        click.echo(f"--ids: {len(unused):,} of its {len(id_of):,} rows name a file that the source lacks")
    return found


def by_format(names: Sequence[str], pattern: str, table: pd.DataFrame) -> dict[str, str]:
    """The id of each name of a source that ``pattern`` gives for a row of the table.

    A field in braces stands for a value of the row: ``id``; ``split``, which may have any usual name, such as ``dev``,
    or that of MELD's folder; ``dialogue``, in MELD its number; ``utterance``, which is what the id has after the
    dialogue, in MELD its number; ``turn``; ``speaker``; ``session``.

    Raises:
        Misuse: the pattern has other fields or none, or gives one of the names to several rows.
    """
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise Misuse(f"--id-format {pattern!r} is no pattern: {error}") from error
    fields = [field for _, field, *_ in parts if field is not None]
    for _, field, spec, conversion in parts:
        if field is not None and field not in FIELDS:
            raise unknown("field of --id-format", field, FIELDS)
        if spec or conversion:
            raise Misuse(f"--id-format {pattern!r}: write {{{field}}} without {spec or conversion!r}")
    if not fields:
        raise Misuse(f"--id-format {pattern!r} has no field; there are {', '.join(f'{{{f}}}' for f in FIELDS)}")
    rows_of: dict[str, list[str]] = {}
    for row in table.to_dict("records"):
        split, dialogue, identity = row["split"], row["dialogue"], row["id"]
        values = {field: str(row[field]) for field in FIELDS if field != "utterance"}
        values["utterance"] = identity.removeprefix(dialogue).lstrip("_").removeprefix("utt")
        values["dialogue"] = dialogue.removeprefix(f"{split}_").removeprefix("dia")
        folders = [folder for folder, _ in meld.clip_folders(split)] if split in meld.SPLITS else []
        for name in {*SPLIT_NAMES.get(split, (split,)), *folders} if "split" in fields else (split,):
            rows_of.setdefault(pattern.format(**values | {"split": name}), []).append(identity)
    several = [name for name in names if len(rows_of.get(name, ())) > 1]
    if several:
        raise Misuse(
            f"--id-format {pattern!r} gives {several[0]!r} to {len(rows_of[several[0]]):,} utterances "
            f"({some(rows_of[several[0]], 3)}); a pattern with more fields, such as {{split}}, tells them apart"
        )
    if not any(name in rows_of for name in names):
        raise Misuse(
            f"--id-format {pattern!r} gives names like {next(iter(rows_of))!r}, but those of the source look like "
            f"{names[0]!r}"
        )
    return {name: rows_of[name][0] for name in names if name in rows_of}


def placed(
    source: Path, sequences: Sequence[Named], id_of: Mapping[str, str] | None, ids: Sequence[str], *, ignore: bool
) -> dict[str, FloatArray]:
    """The sequences by the ids of the table.

    Args:
        source: What is read, for messages.
        sequences: Names of the source and frames.
        id_of: Id of each name; None if the names are the ids.
        ids: The ids of the table.
        ignore: Whether to leave out and count sequences that do not belong to the table.

    Raises:
        Misuse: two sequences belong to one id, or some or (with ``ignore``) most belong to none.
    """
    known = set(ids)
    found: dict[str, FloatArray] = {}
    name_of: dict[str, str] = {}
    surplus = []
    for name, frames in sequences:
        identity = name if id_of is None else id_of.get(name, "")
        if identity not in known:
            surplus.append(identity or name)
        elif identity in found:
            raise Misuse(f"{source} holds {identity!r} more than once ({name_of[identity]!r} and {name!r})")
        else:
            found[identity], name_of[identity] = frames, name
    few = len(found) < MIN_PLACED * len(sequences)
    if not sequences or few or (surplus and not ignore):
        remedies = ["--ids or --id-format maps names", *([] if few or ignore else ["--ignore-surplus leaves some out"])]
        raise Misuse(
            f"{source} holds {len(sequences):,} sequences, {len(surplus):,} of them with ids that the table lacks"
            + (f" (first: {surplus[0]!r})" if surplus else "")
            + f"; the table's ids look like {ids[0]!r}"
            + (f"; {', '.join(remedies)}" if surplus else "")
        )
    if surplus:
        click.echo(
            f"left out {len(surplus):,} of {len(sequences):,} sequences, which the table lacks: {some(surplus, 5)}"
        )
    return found


# --- values -----------------------------------------------------------------------------------------------------------


def zero_not_finite(frames: FloatArray) -> tuple[FloatArray, int]:
    """Replace values that are not finite, such as COVAREP's -inf, with 0; also return their number."""
    bad: npt.NDArray[np.bool_] = ~np.isfinite(frames)
    return (np.where(bad, np.float32(0), frames), int(bad.sum())) if bad.any() else (frames, 0)


def treat_not_finite(name: str, found: Mapping[str, FloatArray], rule: str) -> dict[str, FloatArray]:
    """The sequences as single-precision numbers, with those that are not finite treated by a rule in ``NON_FINITE``.

    Raises:
        Misuse: there are such values and the rule is ``refuse``, or most sequences would be missing.
    """
    result: dict[str, FloatArray] = {}
    count: dict[str, int] = {}
    for identity, frames in found.items():
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found here
            result[identity], bad = zero_not_finite(np.asarray(frames, np.float32))
        if bad:
            count[identity] = bad
    if not count:
        return result
    total, first = sum(count.values()), next(iter(count))
    if rule == "refuse":
        raise Misuse(
            f"{name}: {first} holds NaN or infinite values, as do {len(count):,} of {len(found):,} utterances "
            f"({total:,} values); --non-finite zero replaces the values, --non-finite missing omits the utterances"
        )
    if rule == "zero":
        click.echo(f"{name}: {total:,} values of {len(count):,} utterances that are not finite became 0")
        return result
    if len(count) > MIN_PLACED * len(found):
        raise Misuse(
            f"{name}: {len(count):,} of {len(found):,} utterances hold NaN or infinite values, too many to omit"
        )
    report_reasons(name, [(identity, "it holds NaN or infinite values") for identity in count])
    return {identity: EMPTY if identity in count else frames for identity, frames in result.items()}


# --- the command ------------------------------------------------------------------------------------------------------


def import_sequences(
    source: Path,
    table: pd.DataFrame,
    *,
    key: str = "",
    id_file: Path | None = None,
    id_format: str = "",
    ignore_surplus: bool = False,
    non_finite: str = "refuse",
    name: str = "features",
) -> list[FloatArray]:
    """Read one sequence [time, dim] per row of the table; a row that the source lacks gets one without frames.

    Arguments as for :func:`import_features`; ``name`` is used in messages.

    Raises:
        Misuse: the source is unreadable or does not fit the table.
    """
    ids = list(table["id"])
    sequences = read_sequences(source, key)
    names = [named for named, _ in sequences]
    id_of = by_file(names, read_id_file(id_file)) if id_file else None
    if id_format and names:
        id_of = by_format(names, id_format, table)
    found = placed(source, sequences, id_of, ids, ignore=ignore_surplus)
    finite = treat_not_finite(name, found, non_finite)
    return [finite.get(identity, EMPTY) for identity in ids]


def import_features(
    corpus: Path,
    source: Path,
    *,
    name: str,
    modality: str,
    extractor: str = "",
    key: str = "",
    frame_rate: float | None = None,
    id_file: Path | None = None,
    id_format: str = "",
    ignore_surplus: bool = False,
    non_finite: str = "refuse",
    exposure: Exposure | None = None,
    force: bool = False,
) -> FeatureSpec:
    """Store the features in ``source`` as the feature set ``name``.

    Args:
        corpus: Folder of the utterance table.
        source: A folder of ``<id>.npy`` or an npz, in the forms of :func:`read_sequences`.
        name: Name of the new set.
        modality: ``text``, ``audio`` or ``vision``.
        extractor: Name of the extractor that computed the features; by default the name of the set.
        key: Name of the matrix [rows, dim] in an npz that also has ids.
        frame_rate: Frames per second, if the rate is constant.
        id_file: CSV of the names in the source and the ids of the table, see :func:`read_id_file`.
        id_format: Pattern of the names in the source, see :func:`by_format`.
        ignore_surplus: Whether to leave out sequences that the table lacks.
        non_finite: What becomes of values that are not finite: ``refuse``, ``zero`` or ``missing``.
        exposure: What the extractor saw of the corpus; by default what is known of an extractor of that name.
        force: Whether to import the set even if it is up to date.

    Raises:
        Misuse: the source does not exist, cannot be read or does not fit the table.
    """
    if not source.exists():
        raise Misuse(f"no features at {source}")
    if id_file and not id_file.is_file():
        raise Misuse(f"there is no file {id_file} (--ids)")
    if id_file and id_format:
        raise Misuse("--ids and --id-format exclude each other: both say which utterance a name means")
    if frame_rate is not None and not 0 < frame_rate < float("inf"):
        raise Misuse(f"--frame-rate {frame_rate} is no rate; give frames per second, such as 50")
    if non_finite not in NON_FINITE:
        raise unknown("treatment of values that are not finite", non_finite, NON_FINITE)
    table = read_table(corpus)
    options = {"ids": sha256(id_file)[:16] if id_file else "", "id_format": id_format}
    options["non_finite"] = "" if non_finite == "refuse" else non_finite
    recipe = Recipe(
        name=name,
        modality=modality,
        extractor=extractor or name,
        revision=fingerprint(source.rglob("*.npy"), source) if source.is_dir() else sha256(source)[:16],
        layer=key,
        frame_rate=frame_rate,
        settings={option: value for option, value in options.items() if value},
    )
    if source.is_dir():  # whose revision consists of names and sizes, which new values need not change
        stored = corpus / name / "spec.json"
        force = force or (
            stored.is_file() and any(p.stat().st_mtime > stored.stat().st_mtime for p in source.rglob("*.npy"))
        )
    return store(
        corpus,
        recipe,
        lambda: import_sequences(
            source,
            table,
            key=key,
            id_file=id_file,
            id_format=id_format,
            ignore_surplus=ignore_surplus,
            non_finite=non_finite,
            name=name,
        ),
        ids=list(table["id"]),
        exposure=exposure,
        force=force,
    )


@click.command("import", cls=Command)
@table_option
@name_option("Name of the new feature set.", required=True)
@click.option(
    "--modality", required=True, help=f"Modality of the features: {', '.join(MODALITIES)}, or another one, such as eeg."
)
@click.option(
    "--source",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="A folder of <id>.npy, or an npz with one array per id; or with ids, values, offsets; or with ids and --key.",
)
@click.option("--key", default="", help="Array [rows, dim] of an npz that also has ids [rows].")
@click.option("--extractor", default="", help="Name of the extractor that computed them.")
@click.option("--frame-rate", type=float, help="Frames per second, if the rate is constant.")
@click.option(
    "--ids", "id_file", type=FILE, help="CSV with the columns file (name in the source) and id (in the table)."
)
@click.option(
    "--id-format",
    default="",
    help="Pattern of the names in the source, such as '{split}/dia{dialogue}_utt{utterance}' for MELD.",
)
@click.option("--ignore-surplus", is_flag=True, help="Leave out and count sequences that the table lacks.")
@choice_option("--non-finite", NON_FINITE, help="What becomes of NaN and infinite values.")
@click.option(
    "--exposure",
    "kind",
    type=click.Choice(list(KINDS)),
    help="What the extractor was trained on: labels of this corpus, the corpus without labels, none of it, or unknown "
    "[default: what is known of an extractor of that name].",
)
@click.option("--exposure-source", "evidence", default="", help="How that is known, in one short sentence.")
@force_option
def main(table: Path, source: Path, kind: Kind | None, evidence: str, **options: Any) -> None:
    """Import existing features from a folder of npy files or an npz."""
    if evidence and not kind:
        raise Misuse("--exposure-source says how something is known: say with --exposure what")
    import_features(table, source, exposure=Exposure(kind, evidence) if kind else None, **options)
