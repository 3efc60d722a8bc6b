"""Records as the leaderboard needs them: each is read and checked once, and kept small beside the others.

Of a record in memory there is an :class:`Entry`: what places it in a table, and the rest packed. A record whose bytes
the cache has is not read again; the bytes themselves always are.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import msgspec
import numpy as np

from mer_bench.metrics import weighted_f1
from mer_bench.records import (
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
from mer_bench.schema import read_regular


@dataclass(frozen=True)
class Entry:
    """What is known of a record without unpacking it."""

    digest: bytes  #: sha256 of its file
    run: str  #: sha256 of its spec
    method: str
    splits: tuple[bool, str, str, str, tuple[str, ...]]  #: see :data:`mer_bench.report.tables.Splits`
    fold: int
    features: tuple[str, ...]  #: sha256 of its feature sets
    tested: bytes  #: see :class:`mer_bench.records.RunRecord`
    packed: msgspec.Raw  #: a :class:`Packed`
    path: str  #: of its file below the folder of the records
    submission: str = ""


@dataclass(frozen=True)
class Clusters:
    """Confusion matrices of clusters, one number after the other."""

    kind: str  #: of numpy
    shape: tuple[int, int, int]
    content: bytes


@dataclass(frozen=True)
class Packed:
    """A record without what no page of Markdown shows: predictions, curves, and all epochs but one."""

    record: RunRecord
    clusters: Clusters | None


def load_entries(folders: Sequence[Path], cache: Cache) -> tuple[list[Entry], list[str]]:
    """What :func:`mer_bench.records.load_records` finds below the folders, in the same order."""
    known: dict[str, dict[str, Entry]] = {}  # of each folder of records: name of a file -> its entry in the cache
    now: dict[str, dict[str, Entry]] = defaultdict(dict)  # likewise, as they are now

    def read(folder: Path, submission: str, path: Path) -> Entry:
        of = submission or str(folders.index(folder))
        name = f"records {of}/{path.parent.parent.name}/{path.parent.name}"
        if name not in known:
            known[name] = cache.get(name, dict[str, Entry]) or {}
        text = read_regular(path, READABLE)
        entry, digest = known[name].get(path.name), hashlib.sha256(text).digest()
        if entry is None or entry.digest != digest:
            entry = make_entry(read_record(path, text), digest)
        now[name][path.name] = entry
        return replace(entry, submission=submission) if submission else entry

    found, problems = gather(folders, read, _tests)
    for name, entries in now.items():
        if entries.keys() != known[name].keys() or any(entries[file] is not known[name][file] for file in entries):
            cache.put(name, entries)
    return list(found.values()), problems


def make_entry(record: RunRecord, digest: bytes) -> Entry:
    """The entry of a record whose file has this hash."""
    spec = record.spec
    packed = Packed(_shorten(record), _pack(record.clusters))
    return Entry(
        digest,
        spec.sha256,
        spec.method,
        (record.simulated, spec.dataset, spec.label_set, spec.protocol, record.classes),
        spec.fold,
        tuple(spec.features_sha256.values()),
        record.tested,
        msgspec.Raw(msgspec.msgpack.encode(packed)),
        spec.path(Path()).as_posix(),
    )


def unpack_all(entries: Iterable[Entry]) -> list[RunRecord]:
    """The records of entries that share their tables."""
    with without_garbage_collection():
        return [unpack(entry) for entry in entries]


def unpack(entry: Entry) -> RunRecord:
    """The record of an entry, which knows what is derived of what it lacks."""
    found = msgspec.msgpack.decode(entry.packed, type=Packed)
    record, packed = contributed(found.record, entry.submission), found.clusters
    clusters = None
    if packed is not None:
        clusters = np.frombuffer(packed.content, packed.kind).reshape(packed.shape)
    vars(record).update(tested=entry.tested, clusters=clusters)
    vars(record.spec).update(sha256=entry.run)
    return record


def _tests(entry: Entry) -> Tests:
    return Tests((*entry.splits[1:], entry.fold), entry.features, entry.tested)


def _pack(array: Counts | None) -> Clusters | None:
    if array is None:
        return None
    small = array.astype(np.min_scalar_type(int(array.max(initial=0))))
    return Clusters(small.dtype.str, cast(tuple[int, int, int], small.shape), small.tobytes())


def _shorten(record: RunRecord) -> RunRecord:
    """The record without what no page of Markdown shows; what that is made of gives the same numbers as before."""
    literature, calibration = record.literature, record.calibration
    if literature:  # the best test epoch alone counts
        literature = [literature[int(np.argmax(weighted_f1(np.array(literature, np.int64))))]]
    if calibration is not None:  # the sums over all clusters alone count
        calibration = replace(calibration, log_loss=[sum(calibration.log_loss)], brier=[sum(calibration.brier)])
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
        calibration=calibration,
        gradients=gradients,
    )


def by_table(entries: Sequence[Entry]) -> dict[tuple[bool, str, str, str, tuple[str, ...]], list[Entry]]:
    """The entries of each corpus, label set and protocol, which share their tables."""
    found: dict[tuple[bool, str, str, str, tuple[str, ...]], list[Entry]] = defaultdict(list)
    for entry in entries:
        found[entry.splits].append(entry)
    return found
