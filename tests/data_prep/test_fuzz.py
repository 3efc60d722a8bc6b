"""Damaged, forged and mistaken sources: an import succeeds or is refused in one sentence, and leaves nothing half done.

``python tests/data_prep/test_fuzz.py 20000`` runs more trials than the test does.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import shutil
import sys
import tempfile
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest

from data_prep.imports.arrays import import_features
from data_prep.imports.packs import import_pack
from mer_bench.errors import Misuse
from mer_bench.features import verify_features
from mer_bench.utterances import COLUMNS, write_table

IDS = [f"{split}_dia{d}_utt{u}" for split in ("train", "validation", "test") for d in (0, 1) for u in (0, 2)]
OPTIONS: dict[str, list[object]] = {
    "key": ["", "", "x", "values", "ids", "nonsense", "../x"],
    "id_format": ["", "", "{id}", "{split}_dia{dialogue}_utt{utterance}", "{", "{}", "{0}", "{id.__class__}", "{{}}"],
    "ignore_surplus": [False, True],
    "non_finite": ["refuse", "zero", "missing"],
    "frame_rate": [None, 50.0, -1.0, float("nan")],
    "name": ["mine", "mine", "a/b", "..", "", "utterances.csv", "x" * 200],
}


def table(folder: Path) -> Path:
    import pandas as pd

    dialogues = [name.rpartition("_")[0] for name in IDS]
    columns = {"id": IDS, "dialogue": dialogues, "speaker": "a", "split": [n.partition("_")[0] for n in IDS]}
    rows = pd.DataFrame({**dict.fromkeys(COLUMNS, ""), **columns, "text": "Hi.", "emotion": "joy"})
    write_table(folder, rows.assign(turn=[0, 1] * 6))
    return folder


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def dialogues(value: object) -> dict[int, list[object]]:
    return {key: [value, value] for key in (0, 1, 1039, 1040, 1153, 1154)}


def good_sources() -> dict[str, bytes]:
    """A good source of each form."""
    row = np.arange(6, dtype=np.float32).reshape(2, 3)
    vector = row[0]
    tuple_pack = (
        {key: [0, 2] for key in dialogues(0)},
        dialogues("a"),
        dialogues(4),
        dialogues(vector),
        dialogues(vector.tolist()),
        dialogues(vector),
        dialogues("Hi."),
        [0, 1, 1039, 1040],
        [1153, 1154],
        dialogues(0),
    )
    parts = {
        name: {"id": IDS[i : i + 4], "text": np.ones((4, 5, 3)), "audio": np.ones((4, 6, 2)), "raw_text": ["Hi."] * 4}
        for name, i in (("train", 0), ("Valid", 4), ("test", 8))
    }
    packed = {"ids": np.array(IDS), "values": np.ones((24, 3)), "offsets": np.arange(0, 25, 2)}
    return {
        "one array per id": npz(**dict.fromkeys(IDS, row)),
        "packed": npz(**packed),
        "matrix": npz(ids=np.array(IDS, "S"), x=np.ones((12, 3))),
        "npy": npy(row),
        **{f"tuple {protocol}": pickle.dumps(tuple_pack, protocol) for protocol in (0, 2, 5)},
        "splits": pickle.dumps(parts),
        "gzip": gzip.compress(pickle.dumps(tuple_pack)),
    }


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: rng.integers(len(content) + 1)]


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


def replaced(content: bytes, rng: np.random.Generator) -> bytes:
    start, length = rng.integers(len(content)), rng.integers(1, 40)
    return content[:start] + rng.bytes(length) + content[start + rng.choice([0, length]) :]


def spliced(content: bytes, rng: np.random.Generator) -> bytes:
    """A part of the content in another place, as the opcodes of a pickle or the members of a zip may come."""
    a, b, length = rng.integers(len(content)), rng.integers(len(content)), rng.integers(1, 60)
    return content[:a] + content[b : b + length] + content[a:]


def retyped(content: bytes, rng: np.random.Generator) -> bytes:
    """Other types, shapes and numbers in the headers of arrays and in the opcodes of pickles."""
    pairs = [
        (b"<f4", b"|V4"), (b"<f8", b"<c8"), (b"<f8", b"|O8"), (b"<f8", b"<M8"), (b"<f4", b"|S4"), (b"f4", b"f2"),
        (b"False", b"True "), (b"(2, 3)", b"(3, 2)"), (b"(2, 3)", b"(-2,3)"), (b"(12, 3)", b"(1<<,3)"),
        (b"(13,)", b"(99,)"), (b"utt0", b"utt2"), (b"utt2", b"\xff\xfe\x00\n"), (b"train", b"Train"),
        (b"train", b"tra\n "), (b"test", b"valid"), (b"values", b"valueS"), (b"offsets", b"ids.npy"),
        (b"K\x04", b"N"), (b"K\x00", b"K\xff"), (b"G?\xf0", b"G\x7f\xf8"), (b"numpy", b"torch"),
        (b"_reconstruct", b"scalar"), (b"dtype", b"array"), (b"}", b"]"), (b"]", b"}"), (b"X", b"C"),
    ]  # fmt: skip
    old, new = pairs[rng.integers(len(pairs))]
    return content.replace(old, new, int(rng.choice([1, 2, -1])))


def rezipped(content: bytes, rng: np.random.Generator) -> bytes:
    """The members of an npz damaged one by one, with checksums that fit."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as old:
            members = [(info.filename, old.read(info)) for info in old.infolist()]
    except zipfile.BadZipFile:
        return content
    buffer, chosen = io.BytesIO(), rng.integers(len(members)) if members else 0
    with zipfile.ZipFile(buffer, "w", int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as new:
        for i, (name, data) in enumerate(members):
            damage = [truncated, flipped, replaced, spliced, retyped][rng.integers(5)]
            new.writestr(name, damage(data, rng) if i == chosen and data else data)
    return buffer.getvalue()


def other_kind(content: bytes, rng: np.random.Generator) -> bytes:
    others = [
        b"", b"\x80", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x1f\x8b", b"\x93NUMPY", b"\x89HDF\r\n\x1a\n",
        b"<!doctype html><html>", b"version https://git-lfs.github.com/spec/v1\n", json.dumps({"a": [1]}).encode(),
        b"id,x\na,1\n", rng.bytes(50), bytes(500), gzip.compress(b"x"), content[::-1], content + content,
        pickle.dumps([[]]), pickle.dumps({"train": {}}), pickle.dumps({"train": {"text": np.ones((2, 3))}}),
        npy(np.ones(3)), npz(), npz(ids=np.array(IDS)), pickle.dumps(tuple({} for _ in range(9))),
        gzip.compress(content), content[:200] + bytes(1000),
    ]  # fmt: skip
    return others[rng.integers(len(others))]


DAMAGES: list[Callable[[bytes, np.random.Generator], bytes]] = [
    truncated, flipped, replaced, spliced, retyped, rezipped, other_kind,
]  # fmt: skip


def trial(corpus: Path, seed: int) -> str:
    """One damaged source and random options; return how it ended, and raise any error that is not allowed."""
    rng = np.random.default_rng(seed)
    sources = good_sources()
    form = list(sources)[rng.integers(len(sources))]
    content = sources[form]
    if rng.random() < 0.9:  # otherwise only the options are odd
        content = DAMAGES[rng.integers(len(DAMAGES))](content, rng)
    odd = {name: values[rng.integers(len(values))] for name, values in OPTIONS.items() if rng.random() < 0.15}
    chosen = {"name": "mine", "key": "x" if form == "matrix" else "", **odd}
    source = corpus.parent / "source"
    if rng.random() < 0.15 or form == "npy":
        source.mkdir()
        for name in IDS[: rng.integers(1, 4)]:
            (source / f"{name}.npy").write_bytes(content)
    else:
        source.write_bytes(content)
    before = {path.name: path.stat().st_mtime_ns for path in corpus.iterdir()}
    as_pack = not source.is_dir() and (content[:1] != b"P") ^ (rng.random() < 0.1)
    try:
        if as_pack:
            import_pack(corpus, source, name=str(chosen["name"]), force=True)
        else:
            import_features(corpus, source, modality="audio", force=True, **chosen)  # type: ignore[arg-type]
        outcome = "imported"
    except Misuse as error:
        outcome, message = "refused", str(error)
    finally:
        shutil.rmtree(source) if source.is_dir() else source.unlink()
    made = {path.name: path.stat().st_mtime_ns for path in corpus.iterdir()}
    if outcome == "refused":
        assert message.encode().count(b"\n") == 0, f"it cannot be printed in one line: {message!r}"
        assert made == before, "something was left behind"
    for name in set(made) - {"utterances.csv"}:
        verify_features(corpus / name)
        shutil.rmtree(corpus / name)
    return outcome


@pytest.mark.parametrize("block", range(4))
@pytest.mark.filterwarnings("ignore")  # numpy warns of what the trials then refuse
def test_a_damaged_source_is_imported_or_refused_and_nothing_else(tmp_path: Path, block: int) -> None:
    corpus = table(tmp_path / "data")
    outcomes = Counter(trial(corpus, seed) for seed in range(1000 * block, 1000 * block + 100))
    assert min(outcomes["imported"], outcomes["refused"]) > 5, "the trials are too hard or too easy"


@pytest.mark.filterwarnings("ignore")
def test_good_sources_are_imported(tmp_path: Path) -> None:
    corpus = table(tmp_path / "data")
    for form, content in good_sources().items():
        (tmp_path / "source").write_bytes(content)
        if content.startswith(b"PK"):
            key = "x" if form == "matrix" else ""
            import_features(corpus, tmp_path / "source", name="mine", modality="audio", key=key, force=True)
        elif form != "npy":
            assert len(import_pack(corpus, tmp_path / "source", name="mine", force=True)) >= 2


def main(trials: int) -> None:
    """Run ``trials`` trials and print how they ended; errors are shown with their seed."""
    import warnings

    warnings.simplefilter("ignore")
    outcomes: Counter[str] = Counter()
    click.echo = lambda *_, **__: None  # type: ignore[assignment]
    for seed in range(trials):
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcomes[trial(table(Path(folder) / "data"), seed)] += 1
            except Exception:
                outcomes["error"] += 1
                print(f"seed {seed}: {traceback.format_exc()}", file=sys.stderr)
    print(dict(outcomes))


if __name__ == "__main__":
    main(int(sys.argv[1]))
