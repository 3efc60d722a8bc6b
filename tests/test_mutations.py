"""Files that were changed at random: each is refused in one sentence, or says what it said before.

``python tests/test_mutations.py 2000`` tries as many changes of each kind.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import everything
from test_features import corpus, noise, write
from test_records import SPEC, WHOLE
from test_suites import SUITE

from mer_bench.errors import Misuse
from mer_bench.external import ExternalRecord, ExternalSpec, Statement, load_external, write_external
from mer_bench.features import open_features
from mer_bench.records import Protocol, RunRecord, decode, load_records, read_spec, write_record
from mer_bench.suites import read_suite_file
from mer_bench.utterances import FILE, read_table

TRIALS = 100  #: of each kind

ODD: list[Any] = [
    None, True, False, 0, 1, -1, 2, 2**31, 2**63, 10**30, 0.5, -0.0, 1e300, "", "x", "..", "../../x", "a/b", "a\nb",
    "\x1b[31m", "<script>", "| a |", "\u202e", "\ud800", "x" * 2000, [], [0], [[0]], [[1, 0], [0, 1]], {}, {"a": 1},
    {"..": 1}, [None],
]  # fmt: skip
ODD_TOML = [
    "-1", "0", "nan", "inf", "1e999", "9" * 6_000, "true", '""', '"../x"', "[]", "[[]]", "{}", "{ a = 1 }",
    "1979-05-27", '"\\u001b"', "[" * 5_000, '"a\\nb"', "[0, 0]", "[4294967296]", "1\n1 = 1",
]  # fmt: skip


def places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything within JSON content but its root."""
    keys = content if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    found = [(*path, key) for key in keys]
    return [*found, *(deeper for key, one in zip(keys, found, strict=True) for deeper in places(content[key], one))]


def change_json(text: str, draw: random.Random) -> str:
    """JSON text with one thing in it replaced, removed, added or moved."""
    content = json.loads(text)
    *path, key = draw.choice(places(content))
    parent = content
    for step in path:
        parent = parent[step]
    kind = draw.choice(["replace", "remove", "add", "nudge", "swap"])
    if kind == "replace":
        parent[key] = draw.choice(ODD)
    elif kind == "remove":
        del parent[key]
    elif kind == "add" and isinstance(parent, dict):
        parent[draw.choice(["odd", "..", "", "a\nb", *parent])] = draw.choice(ODD)
    elif kind == "add":
        parent.append(draw.choice([*parent, *ODD]))
    elif kind == "nudge" and type(parent[key]) in (int, float):
        parent[key] += draw.choice([-1, 1, 1000, 0.5])
    elif isinstance(parent, list):
        draw.shuffle(parent)
    else:
        other = draw.choice(list(parent))
        parent[key], parent[other] = parent[other], parent[key]
    return json.dumps(content)


def change_bytes(data: bytes, draw: random.Random) -> bytes:
    """Bytes that were cut, flipped, doubled, or replaced by something else."""
    at = draw.randrange(len(data))
    return draw.choice(
        [
            data[:at],
            data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :],
            data[:at] + data,
            data[:at] + draw.randbytes(8) + data[at:],
            b"\xef\xbb\xbf" + data,
            data.decode("latin-1").encode("utf-16"),
            b"[" * 20_000,
            b"9" * 6_000,
            b"",
        ]
    )


def change(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    if path.suffix == ".json" and draw.random() < 0.8:
        data = change_json(data.decode(), draw).encode("utf-8", "surrogatepass")
    else:
        data = change_bytes(data, draw)
    path.unlink()
    path.write_bytes(data)


def read(function: Callable[[], Any]) -> Any:
    """What reading gives; None if it is refused in one sentence."""
    try:
        return function()
    except Misuse as error:
        message = str(error)
    assert message
    assert "\n" not in message
    return None


def try_record(folder: Path, draw: random.Random) -> bool:
    """One changed record beside others: it is left out aloud, or is what it was; True if it was left out."""
    run: RunRecord = WHOLE
    others = [replace(run, spec=replace(run.spec, seed=seed)) for seed in (1, 2, 3)]
    path, *_ = [write_record(one, folder) for one in (run, *others)]
    change(path, draw)
    records, problems = load_records(folder)
    assert all("\n" not in problem for problem in problems)
    if problems:
        assert len(problems) == 1
        assert str(path) in problems[0]
        assert records == others
    else:
        assert records == [run, *others]
    assert everything(records, [])
    return bool(problems)


def try_record_without_checksum(folder: Path, draw: random.Random) -> bool:
    """A changed record that states no checksum breaks no page, whatever it says."""
    write_record(replace(WHOLE, spec=replace(SPEC, seed=1)), folder)
    path = write_record(WHOLE, folder)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"]
    path.write_text(json.dumps(content), encoding="utf-8")
    change(path, draw)
    records, problems = load_records(folder)
    page = everything(records, [])
    assert "<script>" not in page
    assert "\x1b" not in page
    return bool(problems)


def try_external(folder: Path, draw: random.Random) -> bool:
    """Changed predictions made elsewhere, under the checksum of what they say now, break no page."""
    spec, protocol = WHOLE.spec, Protocol(WHOLE.spec.fold, "Some folds.")
    name = ExternalSpec("Net", spec.dataset, spec.label_set, spec.protocol, spec.fold, 0)
    clusters = WHOLE.test_by_cluster or [WHOLE.test_confusion]
    statement = Statement("audio", 5, "https://example.org", "validation")
    tested = WHOLE.test_index, WHOLE.test_predictions, clusters
    whole = ExternalRecord(name, statement, WHOLE.classes, protocol, *tested, {"Brier score": 0.5}, "0.1.0")
    (path,) = write_external([whole], folder)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"]
    content = json.loads(change_json(json.dumps(content), draw))
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    digest = sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    text = json.dumps({**content, "sha256": digest}) if isinstance(content, dict) else canonical
    path.write_text(text, encoding="utf-8")
    records, problems = load_external(folder)
    assert all("\n" not in problem for problem in problems)
    page = everything([WHOLE], [], external=records) if records else ""
    assert "<script>" not in page
    assert "\x1b" not in page
    return bool(problems)


def try_spec(folder: Path, draw: random.Random) -> bool:
    """A changed description of a run is refused, or describes a run whose path is within its folder."""
    path = folder / "spec.json"
    path.write_text(json.dumps(asdict(SPEC)), encoding="utf-8")
    change(path, draw)
    spec = read(lambda: read_spec(path))
    if spec is not None:
        assert decode(json.loads(json.dumps(asdict(spec))), type(spec), "again") == spec
        assert len(spec.path(Path()).parts) == 3
        assert ".." not in spec.path(Path()).parts
    return spec is None


def try_suite(folder: Path, draw: random.Random) -> bool:
    """A changed suite is refused, or is a suite."""
    path = folder / "suite.toml"
    lines = SUITE.splitlines()
    if draw.random() < 0.7:
        number = draw.choice([n for n, line in enumerate(lines) if "=" in line])
        name = lines[number].partition("=")[0]
        lines[number] = f"{draw.choice([name, 'odd ', 'training.epochs '])}={draw.choice(ODD_TOML)}"
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        path.write_bytes(change_bytes(SUITE.encode(), draw))
    suite = read(lambda: read_suite_file(path))
    if suite is not None:
        assert suite.rows
        assert all(np.isfinite(row.training.learning_rate) for row in suite.rows)
    return suite is None


def try_features(folder: Path, draw: random.Random) -> bool:
    """A changed feature set is refused, or is another set by its identity, or is what it was."""
    ids = corpus(folder, 3)
    write(folder / "noise", noise([4, 0, 2]), ids)
    before = open_features(folder / "noise")
    values = before.values.copy()
    change(folder / "noise" / draw.choice(["values.npy", "offsets.npy", "spec.json", "spec.json"]), draw)
    after = read(lambda: open_features(folder / "noise"))
    if after is not None and after.spec.sha256 == before.spec.sha256:
        assert np.array_equal(after.values, values)
        assert np.array_equal(after.offsets, before.offsets)
    return after is None


def try_table(folder: Path, draw: random.Random) -> bool:
    """A changed utterance table is refused, or is a table."""
    corpus(folder, 3)
    path = folder / FILE
    lines = path.read_text(encoding="utf-8").splitlines()
    if draw.random() < 0.7:
        number = draw.randrange(len(lines))
        cells = lines[number].split(",")
        odd = ["", "x", "-1", "1.5", "nan", "inf", "1e999", "9" * 400, '"', "a\nb", "take0", "\x00", "\x1b[31m", "é"]
        cells[draw.randrange(len(cells))] = draw.choice(odd)
        lines[number] = ",".join(cells)
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        change(path, draw)
    table = read(lambda: read_table(folder))
    if table is not None:
        assert table["id"].is_unique
        assert not np.isinf(table[["start", "end"]]).any().any()
    return table is None


KINDS = (try_table, try_record, try_record_without_checksum, try_external, try_spec, try_suite, try_features)


@pytest.mark.parametrize("attempt", KINDS)
def test_a_changed_file_is_refused_or_is_what_it_was(tmp_path: Path, attempt: Callable[..., bool]) -> None:
    refused = sum(repeat(attempt, tmp_path, seed) for seed in range(TRIALS))
    assert TRIALS / 3 < refused < TRIALS  # both happen


def repeat(attempt: Callable[..., bool], folder: Path, seed: int) -> bool:
    """One trial in an empty folder."""
    inside = folder / "trial"
    inside.mkdir()
    try:
        return attempt(inside, random.Random(seed))
    except Exception as error:
        error.add_note(f"{attempt.__name__}, seed {seed}")
        raise
    finally:
        shutil.rmtree(inside)


if __name__ == "__main__":
    for attempt in KINDS:
        count, failures = int(sys.argv[1]), 0
        refused = 0
        with tempfile.TemporaryDirectory() as name:
            for seed in range(count):
                try:
                    refused += repeat(attempt, Path(name), seed)
                except Exception as error:
                    failures += 1
                    print(attempt.__name__, seed, repr(error)[:300])
        print(f"{attempt.__name__}: {count} changes, {refused} refused, {failures} failures")
