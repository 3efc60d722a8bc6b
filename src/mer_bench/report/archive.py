"""Records as pages need them: each is read and checked once, and kept small beside the others.

Of each record an :class:`Entry` stays in memory, which places it in a table. The rest is in the cache until the table
is made. A record whose bytes the cache has is not read again; the bytes themselves always are.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from mer_bench.errors import Misuse
from mer_bench.metrics import weighted_f1
from mer_bench.records import (
    MONITOR,
    READABLE,
    Counts,
    RunRecord,
    Tests,
    contributed,
    gather,
    read_record,
    without_garbage_collection,
)
from mer_bench.report.cache import Cache
from mer_bench.report.tables import Splits, splits_of
from mer_bench.schema import read_regular


@dataclass(frozen=True)
class Entry:
    """What places a record in a table."""

    digest: bytes  #: sha256 of its file
    run: str  #: sha256 of its spec
    method: str
    splits: Splits
    fold: int
    features: tuple[str, ...]  #: sha256 of its feature sets
    tested: bytes  #: see :class:`mer_bench.records.RunRecord`
    path: str  #: of its file below the folder of the records


@dataclass(frozen=True)
class Found:
    """An entry, and where it was found."""

    entry: Entry
    file: Path
    group: str  #: name in the cache of what is kept of the records of its corpus
    submission: str  #: see :class:`mer_bench.records.ContributedRecord`


@dataclass(frozen=True)
class Clusters:
    """Confusion matrices of clusters, one number after the other."""

    kind: str  #: of numpy
    shape: tuple[int, int, int]
    content: bytes


@dataclass(frozen=True)
class Packed:
    """A record without what no page of a table shows: predictions, curves, and all epochs but one."""

    record: RunRecord
    clusters: Clusters | None


@dataclass(frozen=True)
class Details:
    """What the HTML page and its pictures show beside that, by field of the record."""

    versions: Mapping[str, str]
    curve: list[dict[str, float]]  #: with the validation scores alone


@dataclass(frozen=True)
class Kept:
    """What the cache has of a record."""

    entry: Entry
    packed: msgspec.Raw  #: a :class:`Packed`
    details: msgspec.Raw  #: a :class:`Details`


@dataclass(frozen=True)
class Known:
    """The same without what is packed, which is passed over when it is read."""

    entry: Entry


def load_entries(folders: Sequence[Path], cache: Cache) -> tuple[list[Found], list[str]]:
    """What :func:`mer_bench.records.load_records` finds below the folders, in the same order."""
    group = ""  # whose records are read now
    known: dict[str, Known] = {}  # of each file of the group, as the cache has it
    changed: dict[str, Kept] = {}  # what the cache does not have
    met: set[str] = set()

    def keep() -> None:
        """Bring what the cache has of the group up to date."""
        if changed or met != known.keys():
            now = {**(cache.get(group, dict[str, Kept]) or {}), **changed}
            cache.put(group, {file: now[file] for file in sorted(met & now.keys())})

    def read(folder: Path, submission: str, path: Path) -> Found:
        nonlocal group, known, changed, met
        *_, corpus, method, file = path.parts
        name, key = f"records {submission or folders.index(folder)}/{corpus}", f"{method}/{file}"
        if name != group:
            keep()
            group, known, changed, met = name, cache.get(name, dict[str, Known]) or {}, {}, set()
        text = read_regular(path, READABLE)
        digest = hashlib.sha256(text).digest()
        if key in known and known[key].entry.digest == digest:
            entry = known[key].entry
        else:
            changed[key] = make_kept(read_record(path, text))
            entry = changed[key].entry
        met.add(key)
        return Found(entry, path, group, submission)

    found, problems = gather(folders, read, _tests)
    keep()
    return list(found.values()), problems


def make_kept(record: RunRecord) -> Kept:
    """What the cache has of a record."""
    spec = record.spec
    entry = Entry(
        record.digest,
        spec.sha256,
        spec.method,
        splits_of(record),
        spec.fold,
        tuple(spec.features_sha256.values()),
        record.tested,
        "/".join(spec.place),
    )
    curve = [{MONITOR: epoch[MONITOR]} if MONITOR in epoch else {} for epoch in record.curve]
    packed = Packed(_shorten(record), _pack(record.clusters))
    details = Details(record.versions, curve)
    return Kept(entry, *(msgspec.Raw(msgspec.msgpack.encode(part)) for part in (packed, details)))


def load_brief(folders: Sequence[Path], cache: Cache) -> tuple[list[RunRecord], list[str]]:
    """What :func:`mer_bench.records.load_records` returns, without what no page shows."""
    found, problems = load_entries(folders, cache)
    return unpack_all(found, cache, with_details=True), problems


def unpack_all(found: Iterable[Found], cache: Cache, *, with_details: bool = False) -> list[RunRecord]:
    """The records of entries; what the cache cannot keep is read again.

    Args:
        found: Entries, those of a corpus one after the other.
        cache: The cache from which the entries are.
        with_details: Whether the records are for more than the leaderboard and the pages of its tables.

    Raises:
        Misuse: a file has changed since its entry was made.
    """
    records = []
    with without_garbage_collection():
        for group, beside in groupby(found, lambda each: each.group):
            known = cache.get(group, dict[str, Kept]) or {}
            for each in beside:
                kept = known.get("/".join(each.file.parts[-2:]))
                if kept is None or kept.entry.digest != each.entry.digest:
                    kept = make_kept(read_record(each.file))
                if kept.entry.digest != each.entry.digest:
                    raise Misuse(f"{each.file} changed while the page was made; run the command again")
                records.append(unpack(kept, each.submission, with_details=with_details))
    return records


def unpack(kept: Kept, submission: str = "", *, with_details: bool = False) -> RunRecord:
    """The record that is kept, which knows what is derived of what it lacks."""
    found = msgspec.msgpack.decode(kept.packed, type=Packed)
    record, packed = contributed(found.record, submission), found.clusters
    clusters = None
    if packed is not None:
        clusters = np.frombuffer(packed.content, packed.kind).reshape(packed.shape)
    vars(record).update(digest=kept.entry.digest, tested=kept.entry.tested, clusters=clusters)
    vars(record.spec).update(sha256=kept.entry.run)
    if with_details:
        vars(record).update(vars(msgspec.msgpack.decode(kept.details, type=Details)))
    return record


def _tests(found: Found) -> Tests:
    entry = found.entry
    return Tests((*entry.splits[1:], entry.fold), entry.features, entry.tested)


def _pack(array: Counts | None) -> Clusters | None:
    if array is None:
        return None
    small = array.astype(np.min_scalar_type(int(array.max(initial=0))))
    return Clusters(small.dtype.str, cast(tuple[int, int, int], small.shape), small.tobytes())


def _shorten(record: RunRecord) -> RunRecord:
    """The record without what no page of a table shows; what that is made of gives the same numbers as before."""
    literature = record.literature
    if literature:  # the best test epoch alone counts
        literature = [literature[int(np.argmax(weighted_f1(np.array(literature, np.int64))))]]
    gradients = record.gradients
    if gradients and record.curve:  # their means over epochs alone count
        gradients = {name: [float(np.mean(norms))] for name, norms in gradients.items()}
    return replace(
        record,
        validation_confusion=None,
        test_index=[],
        test_predictions=[],
        curve=[{} for _ in record.curve[:1]],
        test_by_cluster=None,
        versions={},
        code=None,
        literature=literature,
        gradients=gradients,
    )


def by_table(found: Sequence[Found]) -> dict[Splits, list[Found]]:
    """The entries of each corpus, label set and protocol, which share their tables."""
    groups: dict[Splits, list[Found]] = defaultdict(list)
    for each in found:
        groups[each.entry.splits].append(each)
    return groups
