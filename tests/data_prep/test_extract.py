"""The extraction engine: keeps the order, survives bad clips, crashes and kills, and computes nothing twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_prep import extract as engine
from data_prep.extract import (
    MISSING,
    Clip,
    Extractor,
    Incomplete,
    Journal,
    Recipe,
    Unreadable,
    decode_all,
    extract,
    minor_version,
)
from mer_bench.errors import Misuse
from mer_bench.features import open_features, verify_features
from mer_bench.training import workers
from mer_bench.utterances import write_table

RECIPE = Recipe("counts", "audio", "counting")


def decode(clip: Clip) -> Any:
    """Behave as the text of the clip says; otherwise return arrays that contain the number of the clip."""
    match clip.text:
        case "bad":
            raise ValueError(f"{clip.path} is not what it says")
        case "absent":
            return clip.media
        case "crash":
            os._exit(1)
        case "slow":
            time.sleep(0.3)
    return np.full((len(clip.id), 2), float(clip.id.removeprefix("u")))


def encode(items: list[Any]) -> Sequence[Any]:
    return items


def corpus(folder: Path, texts: Sequence[str]) -> tuple[Path, list[Clip]]:
    names = [f"u{i}" for i in range(len(texts))]
    columns = {name: "" for name in ("session", "start", "end", "emotion", "split", "media", "text")}
    table = pd.DataFrame({"id": names, "dialogue": names, "turn": 0, "speaker": "a", **columns})
    write_table(folder, table)
    return folder, [Clip(name, folder / f"{name}.wav", text) for name, text in zip(names, texts, strict=True)]


def lengths(folder: Path) -> list[int]:
    return np.diff(open_features(folder / "counts").offsets).tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_order_is_the_tables_and_bad_clips_are_missing(tmp_path: Path, workers: int) -> None:
    folder, clips = corpus(tmp_path, ["slow", "", "bad", "absent", *[""] * 8])
    extract(folder, Extractor(RECIPE, decode, encode, batch_size=5), clips, workers=workers)
    assert lengths(folder) == [2, 2, 0, 0, *[2] * 6, 3, 3]
    values = open_features(folder / "counts").values
    assert values[:, 0].tolist() == np.repeat([0, 1, 4, 5, 6, 7, 8, 9, 10, 11], [2] * 8 + [3] * 2).tolist()
    missing = pd.read_csv(folder / "counts" / MISSING)
    assert missing["id"].tolist() == ["u2", "u3"]
    assert missing["reason"].tolist() == ["the file is not what it says", "the file is absent"]
    verify_features(folder / "counts")


def test_a_decoder_that_takes_its_process_down_costs_one_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    pools, usual = [], workers.ProcessPoolExecutor
    monkeypatch.setattr(workers, "ProcessPoolExecutor", lambda *a, **b: pools.append(usual(*a, **b)) or pools[-1])
    clips = [Clip(f"u{i}", text="crash" if i in (1, 5) else "") for i in range(9)]
    found = list(decode_all(decode, clips, workers=2))
    assert [str(x) if isinstance(x, Unreadable) else x[0, 0] for x in found] == [
        "the decoder crashed" if i in (1, 5) else i for i in range(9)
    ]
    assert len(pools) == 4, "the first, one after the first crash, and one after each clip that crashes alone"


def test_decoding_runs_only_a_little_ahead() -> None:
    started: list[str] = []

    def note(clip: Clip) -> None:
        started.append(clip.id)

    stream = decode_all(note, (Clip(f"u{i}") for i in range(10**9)), workers=0)
    next(stream)
    assert started == ["u0"]


def test_a_killed_extraction_continues_where_it_stopped(tmp_path: Path) -> None:
    folder, clips = corpus(tmp_path, ["", "bad", *[""] * 6])
    done: list[int] = []

    def until_killed(items: list[Any]) -> Sequence[Any]:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(len(items))
        return items

    with pytest.raises(KeyboardInterrupt):
        extract(folder, Extractor(RECIPE, decode, until_killed, batch_size=2), clips)
    assert not (folder / "counts").exists()
    half = folder / ".counts.partial"
    with (half / "lines").open("a") as file:
        file.write('["u4", 2')  # as after a kill during a write
    with (half / "values").open("ab") as file:
        file.write(b"\x00" * 13)
    seen: list[str] = []

    def noting(clip: Clip) -> Any:
        seen.append(clip.id)
        return decode(clip)

    extract(folder, Extractor(RECIPE, noting, encode), clips)
    assert seen == ["u4", "u5", "u6", "u7"]
    assert not half.exists()
    whole, _ = corpus(tmp_path / "whole", ["", "bad", *[""] * 6])
    extract(whole, Extractor(RECIPE, decode, encode), clips)
    for name in ("values.npy", "offsets.npy", "spec.json", MISSING):
        assert (folder / "counts" / name).read_bytes() == (whole / "counts" / name).read_bytes()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_process_that_is_killed_outright_leaves_its_work_and_nothing_else(tmp_path: Path) -> None:
    folder, clips = corpus(tmp_path / "data", ["", *["slow"] * 40])
    script = f"""
from pathlib import Path
from data_prep.extract import Clip, Extractor, extract
from tests.data_prep.test_extract import RECIPE, decode, encode
if __name__ == "__main__":
    clips = [Clip(f"u{{i}}", text="slow" if i else "") for i in range({len(clips)})]
    extract(Path({str(folder)!r}), Extractor(RECIPE, decode, encode, batch_size=1), clips, workers=2)
"""
    (tmp_path / "script.py").write_text(script)
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root / "src")])
    with subprocess.Popen([sys.executable, tmp_path / "script.py"], env={**os.environ, "PYTHONPATH": paths}) as process:
        lines = folder / ".counts.partial" / "lines"
        while process.poll() is None and not (lines.is_file() and lines.read_text().count("\n") >= 2):
            time.sleep(0.05)
        children = descendants(process.pid)
        process.kill()
    assert len(children) >= 2
    for _ in range(200):
        alive = [pid for pid in children if Path(f"/proc/{pid}").exists()]
        if not alive:
            break
        time.sleep(0.05)
    assert not alive
    assert sorted(path.name for path in folder.iterdir()) == [".counts.partial", "utterances.csv"]


def descendants(pid: int) -> list[int]:
    """The processes that a process started."""
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()]


def test_unfinished_work_of_another_recipe_is_discarded(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "half", "float32")
    journal.begin({"layer": 1}, restart=False)
    journal.append([("u0", np.ones((3, 2)), "")])
    for identity, restart, kept in (({"layer": 1}, False, 3), ({"layer": 2}, False, 0), ({"layer": 2}, True, 0)):
        again = Journal(tmp_path / "half", "float32")
        again.begin(identity, restart=restart)
        assert again.frames == kept


def test_a_finished_set_is_computed_again_only_if_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, clips = corpus(tmp_path, ["", "bad"])
    spec = extract(folder, Extractor(RECIPE, decode, encode), clips)
    assert extract(folder, Extractor(RECIPE, decode, encode), clips) == spec
    assert "already done" in capsys.readouterr().out
    extract(folder, Extractor(RECIPE, decode, encode), clips, force=True)
    assert "already done" not in capsys.readouterr().out


def test_strict_raises_each_time_but_stores_the_set(tmp_path: Path) -> None:
    folder, clips = corpus(tmp_path, ["", "bad"])
    for _ in range(2):
        with pytest.raises(Incomplete, match=MISSING):
            extract(folder, Extractor(RECIPE, decode, encode), clips, strict=True)
        assert lengths(folder) == [2, 0]
    folder, clips = corpus(tmp_path / "sound", ["", ""])
    extract(folder, Extractor(RECIPE, decode, encode), clips, strict=True)


def test_one_clip_that_cannot_be_encoded_does_not_affect_others(tmp_path: Path) -> None:
    def picky(items: list[Any]) -> Sequence[Any]:
        if any(item[0, 0] == 1 for item in items):
            raise RuntimeError("a kernel is longer than the clip")
        return [item * np.nan if item[0, 0] == 2 else item[:0] if item[0, 0] == 3 else item for item in items]

    folder, clips = corpus(tmp_path, [""] * 5)
    extract(folder, Extractor(RECIPE, decode, picky), clips)
    assert lengths(folder) == [2, 0, 0, 0, 2]
    assert pd.read_csv(folder / "counts" / MISSING)["reason"].tolist() == [
        "a kernel is longer than the clip",
        "its features are not finite",
        "there is nothing in it",
    ]


def test_a_corpus_without_readable_clips_is_one_sentence(tmp_path: Path) -> None:
    folder, clips = corpus(tmp_path, ["absent", "absent"])
    with pytest.raises(Misuse, match="none of 2 utterances could be read: the file is absent"):
        extract(folder, Extractor(RECIPE, decode, encode), clips)
    assert sorted(p.name for p in folder.iterdir()) == ["utterances.csv"]


@pytest.mark.parametrize("patch", ["2.11.0", "2.11.1", "2.11.1+cpu", "2.11"])
def test_patch_releases_of_a_library_give_one_set(patch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "version", {"torchaudio": patch}.__getitem__)
    assert minor_version("torchaudio") == "2.11"
