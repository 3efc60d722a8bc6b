"""Submissions: folders with records, or predictions made elsewhere, that their authors offer for the leaderboard.

``submission.toml`` says who submits what under which licence and how settings were chosen; the records and external
records stand beside it as below any folder of results. An accepted submission is a folder in
``benchmarks/contributed``. Nothing here trains: what can be checked is that the records are whole, agree with each
other, and were made on the data of the published ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from mer_bench.errors import CONTROL, Misuse
from mer_bench.external import FOLDER, ExternalRecord, read_external
from mer_bench.files import read_toml, write_atomic
from mer_bench.methods import method_facts
from mer_bench.records import FAILED, RunRecord, read_record
from mer_bench.schema import Label, Url, decode
from mer_bench.trials import FOLDER as TRIALS

FILE = "submission.toml"
LARGEST = 1 << 20  #: bytes of a file; published records have at most 57 kB
LARGEST_IN_ALL = 50 << 20

AnyRecord = RunRecord | ExternalRecord

Said = Annotated[str, Meta(min_length=1, max_length=300, pattern=rf"\A[^{CONTROL}]+\Z")]
Told = Annotated[str, Meta(min_length=20, max_length=4000)]


@dataclass(frozen=True)
class Submission:
    """What ``submission.toml`` says."""

    name: Label  #: of the submission
    contact: Said  #: a person or group, with an address that answers
    licence: Literal["CC0-1.0", "CC-BY-4.0"]  #: of the submitted numbers
    selected_on: Literal["validation"]  #: what every choice was made on, the epoch and the settings too
    statement: Told  #: how the settings were chosen
    url: Url | None = None  #: of the method's code


TEMPLATE = """\
# Who submits what. Fill in every line, then run: mer-bench submit --check FOLDER
name = ""                    # a short name of the submission, such as the method's
contact = ""                 # a person or group, with an e-mail address
licence = "CC-BY-4.0"        # of the submitted numbers: CC0-1.0 or CC-BY-4.0
selected_on = "validation"   # every choice, settings and epochs too, was made on validation and never on test scores
# How the settings were chosen, in one or more sentences: what was tried, on which corpus, by which score.
statement = ""
# url = "https://..."        # the code of the method; needed if it is not part of mer_bench
"""


@dataclass(frozen=True)
class Report:
    """What was found in a submission."""

    problems: tuple[str, ...]  #: one sentence each; none = it is ready
    remarks: tuple[str, ...]  #: what those who accept it should know
    summary: str


def new_submission(folder: Path) -> Path:
    """Write a ``submission.toml`` to fill in; raises Misuse if there is one."""
    path = folder / FILE
    if path.exists():
        raise Misuse(f"{path} exists")
    write_atomic(path, TEMPLATE)
    return path


def read_submission(folder: Path) -> Submission:
    """Read ``submission.toml``; raises Misuse that names a key that is wrong, unknown or lacking."""
    path = folder / FILE
    return decode(read_toml(path, "the description of a submission"), Submission, str(path))


def check_submission(folder: Path, published: Sequence[RunRecord]) -> Report:
    """Check everything that can be checked of a submission without training.

    Args:
        folder: The submission.
        published: The records of the maintainers, on whose data the submitted ones must have been made.

    Raises:
        Misuse: there is no such folder.
    """
    if not folder.is_dir():
        raise Misuse(f"{folder} is no folder; mer-bench submit --new {folder} makes one to fill in")
    problems, remarks = list(unexpected(folder)), list[str]()
    description = None
    try:
        description = read_submission(folder)
    except Misuse as error:
        problems.append(str(error))
    records: list[RunRecord] = []
    external: list[ExternalRecord] = []
    runs, predictions = _regular(folder, "*/*/*.json"), _regular(folder, f"*/{FOLDER}/*/*.json")
    if not runs and not predictions:
        problems.append(f"{folder} holds no records: copy those of your results folder into it, with their folders")
    for path in runs:
        try:
            records.append(read_record(path))
        except Misuse as error:
            problems.append(str(error))
    for path in predictions:
        try:
            external.append(read_external(path))
        except Misuse as error:
            problems.append(str(error))
    elsewhere = bool(external) or any(record.provenance == "own" for record in records)
    if description and elsewhere and description.url is None:
        problems.append(
            f"{folder / FILE} needs the url of the code, because the submission has a method, or predictions, that are "
            "not of mer_bench"
        )
    problems += _outdated(records)
    problems += _without_selection(external)
    every: list[AnyRecord] = [*records, *external]
    for found in (_data(folder, every, published), _features(records, published)):
        for wrong, sentence in found:
            (problems if wrong else remarks).append(sentence)
    remarks += [*_code(records), *_coverage(every, published)]
    names = sorted({record.spec.method for record in records} | {record.spec.name for record in external})
    corpora = sorted({record.spec.dataset for record in every})
    summary = (
        f"{folder}: {len(records):,} records and {len(external):,} records of predictions made elsewhere, of "
        f"{', '.join(names) or 'no method'} on {', '.join(corpora) or 'no corpus'}"
    )
    return Report(tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(remarks)), summary)


def unexpected(folder: Path, allowed: Sequence[str] = (FILE,), *, trials: bool = False) -> Iterator[str]:
    """One sentence for the files below a folder of records that are none, and for those that are too large.

    Args:
        folder: The folder.
        allowed: Names of files that may stand in it beside its records.
        trials: Whether records of trials may stand in it, as they do beside the published records.
    """
    strange, total = [], 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_dir() and not path.is_symlink():
            continue
        below = len(parts) == 4 and (parts[1] == FOLDER or (trials and parts[0] == TRIALS))
        record = path.suffix == ".json" and (len(parts) == 3 or below)
        expected = (record and not path.name.startswith(".") and not path.name.endswith(FAILED)) or (
            len(parts) == 1 and parts[0] in allowed
        )
        if path.is_symlink() or not expected:
            strange.append("/".join(parts))
            continue
        size = path.stat().st_size
        total += size
        if size > LARGEST:
            yield f"{path} has {size:,} bytes, and a record at most {LARGEST:,}"
    if strange:
        listed = ", ".join(strange[:8]) + f" and {len(strange) - 8} more" * (len(strange) > 8)
        yield f"{folder} holds what is neither a record nor {' nor '.join(allowed) or 'a folder of records'}: {listed}"
    if total > LARGEST_IN_ALL:
        yield f"{folder} has {total:,} bytes, and a submission at most {LARGEST_IN_ALL:,}"


def _regular(folder: Path, pattern: str) -> list[Path]:
    """The records that match, without links and without what is too large to be read."""
    found = (path for path in sorted(folder.glob(pattern)) if path.is_file() and not path.is_symlink())
    return [path for path in found if not path.name.endswith(FAILED) and path.stat().st_size <= LARGEST]


def _outdated(records: Iterable[RunRecord]) -> Iterator[str]:
    facts = method_facts()
    for method, version in sorted({(record.spec.method, record.spec.version) for record in records}):
        if method in facts and facts[method].version != version:
            yield (
                f"the records of {method} were made by version {version} of its code, and today's is "
                f"{facts[method].version}: run them again"
            )


def _without_selection(external: Iterable[ExternalRecord]) -> Iterator[str]:
    for name in sorted({record.spec.name for record in external if record.statement.selected_on is None}):
        yield f"the predictions of {name} lack their statement: score them again with --selected-on validation"


def _data(folder: Path, every: Sequence[AnyRecord], published: Sequence[RunRecord]) -> Iterator[tuple[bool, str]]:
    """Whether test utterances and labels are those of the published records; True = a problem, False = a remark."""
    known: dict[tuple[object, ...], set[bytes]] = defaultdict(set)
    for record in published:
        known[_fold(record)].add(_tested(record))
    for each in every:
        spec = each.spec
        where = " ".join((spec.dataset, spec.label_set, spec.protocol))
        if _fold(each) not in known:
            yield False, f"no published record has these classes on {where}, so its test utterances cannot be compared"
        elif _tested(each) not in known[_fold(each)]:
            yield (
                True,
                f"{each.spec.path(folder)} tests other utterances of fold {spec.fold}, or knows other labels of them, "
                f"than the published records on {where}: prepare the corpus as data_prep/README.md says",
            )


def _fold(record: AnyRecord) -> tuple[object, ...]:
    spec = record.spec
    return spec.dataset, spec.label_set, spec.protocol, record.classes, spec.fold


def _tested(record: AnyRecord) -> bytes:
    """Test utterances and how many there are of each class."""
    support = np.array(record.test_confusion, np.int64).sum(1)
    return np.array([*record.test_index, -1, *support], np.int64).tobytes()


def _features(records: Sequence[RunRecord], published: Sequence[RunRecord]) -> Iterator[tuple[bool, str]]:
    """Whether feature sets have the hashes that the published records have of them, likewise."""
    known: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for record in published:
        for key, digest in _sets(record):
            known[key].add(digest)
    for key, digest in sorted({found for record in records for found in _sets(record)}):
        dataset, modality, name = key
        if key not in known:
            yield (
                False,
                f"no published record reads {modality} {name} of {dataset}, so its hash {digest[:12]} cannot be "
                "compared, and its rows make a table of their own",
            )
        elif digest not in known[key]:
            theirs = ", ".join(sorted(one[:12] for one in known[key]))
            yield (
                True,
                f"{modality} {name} of {dataset} has the hash {digest[:12]} in the submission and {theirs} in the "
                "published records: prepare the features as data_prep/README.md says, or give the set another name",
            )


def _sets(record: RunRecord) -> Iterator[tuple[tuple[str, str, str], str]]:
    for modality, name in record.spec.features.items():
        yield (record.spec.dataset, modality, name), record.spec.features_sha256[modality]


def _code(records: Sequence[RunRecord]) -> Iterator[str]:
    """What is to be known of the code that made the records."""
    if dirty := sum(record.code is not None and record.code.dirty for record in records):
        yield f"{dirty:,} of the records were made by code with changes that were not committed"
    if silent := sum(record.code is None for record in records):
        yield f"{silent:,} of the records do not say which code made them"


def _coverage(every: Sequence[AnyRecord], published: Sequence[RunRecord]) -> Iterator[str]:
    """What there is already, and which folds and seeds are not there."""
    there = {record.spec.sha256 for record in published}
    if again := sum(isinstance(each, RunRecord) and each.spec.sha256 in there for each in every):
        yield f"{again:,} of the runs are published already, and the published ones are shown"
    if any(each.simulated for each in every):
        yield "some of the records are of simulated corpora, which are no evidence about real ones"
    usual: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    folds: dict[tuple[str, str, str], int] = defaultdict(int)
    for each in (*every, *published):
        folds[_splits(each)] = max(folds[_splits(each)], each.spec.fold, each.protocol.folds if each.protocol else 1)
    for record in published:
        usual[_splits(record)].add(record.spec.seed)
    rows: dict[tuple[tuple[str, str, str], str], dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for each in every:
        rows[_splits(each), _row(each)][each.spec.seed].add(each.spec.fold)
    for (splits, name), seeds in sorted(rows.items()):
        partial = {seed: len(found) for seed, found in sorted(seeds.items()) if len(found) < folds[splits]}
        where = " ".join(splits)
        if partial:
            lacking = ", ".join(f"{count} of {folds[splits]} folds with seed {seed}" for seed, count in partial.items())
            yield f"{name} has {lacking} of {where}; a seed without all folds does not count"
        complete, most = len(seeds) - len(partial), len(usual[splits])
        if complete < most:
            yield f"{name} has {complete} complete seeds of {where}, and published rows up to {most}"


def _splits(record: AnyRecord) -> tuple[str, str, str]:
    return record.spec.dataset, record.spec.label_set, record.spec.protocol


def _row(record: AnyRecord) -> str:
    """What names the row of a record in sentences."""
    if isinstance(record, ExternalRecord):
        return record.spec.name
    named = dict(sorted(record.spec.options.items())) | ({"share": record.spec.share} if record.spec.share < 1 else {})
    options = ", ".join(f"{name}={value}" for name, value in named.items())
    return f"{record.spec.method}{f' ({options})' * bool(options)} on {'+'.join(sorted(record.spec.features))}"
