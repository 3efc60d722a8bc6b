"""Functionals against a plain formula, one utterance at a time, and the file that keeps them beside a feature set."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct

from mer_bench import functionals as module
from mer_bench.batch import PaddedSequence
from mer_bench.errors import Misuse
from mer_bench.features import FeatureSet, open_features, write_features
from mer_bench.functionals import COUNT, VERSION, functionals, functionals_width, open_functionals
from mer_bench.utterances import COLUMNS, write_table

Array = npt.NDArray[Any]
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
LENGTHS = (4, 0, 1, 9, 2, 6)


def naive(frames: Array) -> Array:
    """Mean, deviation, mean absolute change and four cosine coefficients of each column of [time, dim]."""
    time, dim = frames.shape
    if time == 0:
        return np.zeros(COUNT * dim)
    found = np.zeros((COUNT, dim))
    for column in range(dim):
        x = [float(value) for value in frames[:, column]]
        mean = sum(x) / time
        found[0, column] = mean
        found[1, column] = math.sqrt(sum((value - mean) ** 2 for value in x) / time)
        found[2, column] = sum(abs(x[t] - x[t - 1]) for t in range(1, time)) / max(time - 1, 1)
        for k in range(1, 5):
            waves = [math.sqrt(2) * math.cos(math.pi * k * (t + 0.5) / time) for t in range(time)]
            found[2 + k, column] = sum(w * (value - mean) for w, value in zip(waves, x, strict=True)) / time
    return found.ravel()


def padded(spans: Sequence[Array], dim: int, more: int = 0) -> PaddedSequence:
    lengths = torch.tensor([len(span) for span in spans])
    mask = torch.arange(max(int(lengths.max()), 1) + more) < lengths[:, None]
    values = torch.zeros(*mask.shape, dim, dtype=torch.double)
    for row, span in enumerate(spans):
        values[row, : len(span)] = torch.from_numpy(span)
    return PaddedSequence(values, mask)


def noise(lengths: Sequence[int], dim: int = 3, seed: int = 0) -> list[Array]:
    generator = np.random.default_rng(seed)
    return [(5 + generator.standard_normal((length, dim))).astype(np.float32) for length in lengths]


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6), dim=st.integers(1, 4), seed=st.integers(0, 99))
def test_functionals_are_the_plain_formula_of_one_utterance_at_a_time(lengths: list[int], dim: int, seed: int) -> None:
    spans = noise(lengths, dim, seed)
    found = functionals(padded(spans, dim), COUNT * dim).numpy()
    for row, span in enumerate(spans):
        np.testing.assert_allclose(found[row], naive(span), **CLOSE)
        assert not found[row].any() or len(span)
        assert not found[row, dim:].any() or len(span) > 1  # a single frame has neither spread nor course


def test_the_course_is_scipys_cosine_transform() -> None:
    (span,) = noise([12])
    course = functionals(padded([span], 3), 21)[0, 9:].view(4, 3).numpy()
    expected = dct(span.astype(float) - span.astype(float).mean(0), axis=0)[1:5] / (math.sqrt(2) * 12)
    np.testing.assert_allclose(course, expected, **CLOSE)


def test_functionals_depend_neither_on_padding_nor_on_neighbours() -> None:
    spans = noise(LENGTHS)
    found = functionals(padded(spans, 3), 21)
    torch.testing.assert_close(functionals(padded(spans, 3, more=7), 21), found, rtol=1e-12, atol=1e-12)
    for row, span in enumerate(spans):
        torch.testing.assert_close(functionals(padded([span], 3), 21)[0], found[row], rtol=1e-12, atol=1e-12)
    longest = padded(spans, 3)
    dirty = PaddedSequence(longest.values + 7 * ~longest.mask[..., None], longest.mask)  # what padding holds is ignored
    torch.testing.assert_close(functionals(dirty, 21), found, rtol=1e-12, atol=1e-12)


def test_the_width_of_the_mean_alone_is_that_of_the_frames() -> None:
    spans = noise(LENGTHS)
    assert torch.equal(functionals(padded(spans, 3), 3), functionals(padded(spans, 3), 21)[:, :3])


# Kept beside the feature set


def write(root: Path, spans: Sequence[Array], name: str = "noise", dtype: str = "float32") -> FeatureSet:
    ids = [f"take{row}" for row in range(len(spans))]
    rows = [dict.fromkeys(COLUMNS, "") | {"id": i, "dialogue": i, "turn": 0, "emotion": "happy"} for i in ids]
    root.mkdir(parents=True, exist_ok=True)
    write_table(root, pd.DataFrame(rows))
    write_features(root / name, spans, ids=ids, modality="audio", extractor="noise", dtype=dtype)
    return open_features(root / name)


@pytest.fixture
def features(tmp_path: Path) -> FeatureSet:
    """A set of six utterances, below ``tmp_path``."""
    return write(tmp_path, noise(LENGTHS))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the sets whose functionals were computed."""
    names: list[str] = []
    compute = module._compute

    def counted(features: FeatureSet, into: Array) -> None:
        names.append(features.spec.name)
        compute(features, into)

    monkeypatch.setattr(module, "_compute", counted)
    return names


def expected(spans: Sequence[Array]) -> Array:
    return np.stack([naive(span) for span in spans]).astype(np.float32)


@pytest.mark.parametrize("chunk", [1, 20, 1 << 20])
def test_each_row_of_the_file_is_its_utterance_however_many_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    spans = noise([*LENGTHS * 25, 300])  # more than are read at once
    monkeypatch.setattr(module, "CHUNK", chunk)
    found = open_functionals(tmp_path / "noise", write(tmp_path, spans))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(spans), rtol=1e-5, atol=1e-6)


def test_a_set_of_one_frame_per_utterance_has_its_values(tmp_path: Path) -> None:
    spans = noise([1, 0, 1])
    features = write(tmp_path, spans)
    assert functionals_width(features) == 3
    found = open_functionals(tmp_path / "noise", features)
    assert np.array_equal(found, [spans[0][0], [0, 0, 0], spans[2][0]])
    assert functionals_width(write(tmp_path, noise([1, 2]), "other")) == 21


def test_functionals_are_computed_once(tmp_path: Path, features: FeatureSet, computed: list[str]) -> None:
    first = open_functionals(tmp_path / "noise", features)
    again = open_functionals(tmp_path / "noise", open_features(tmp_path / "noise"))
    assert computed == ["noise"]
    assert isinstance(again, np.memmap)
    assert np.array_equal(first, again)
    assert sorted(path.name for path in (tmp_path / "noise").iterdir()) == [
        f"functionals-{VERSION}", "offsets.npy", "spec.json", "values.npy", "verified.json"
    ]  # fmt: skip


def test_writing_to_what_was_opened_never_reaches_later_readers(tmp_path: Path, features: FeatureSet) -> None:
    for _ in range(2):  # computed, then read
        opened = open_functionals(tmp_path / "noise", features)
        opened[:] = -1
    assert np.allclose(open_functionals(tmp_path / "noise", features), expected(noise(LENGTHS)), atol=1e-5)


def overwrite_value(kept: Path) -> None:
    with (kept / "values.npy").open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"abcd")


@pytest.mark.parametrize(
    "damage",
    [
        overwrite_value,
        lambda kept: (kept / "values.npy").write_bytes(b""),
        lambda kept: (kept / "values.npy").unlink(),
        lambda kept: (kept / "facts.json").unlink(),
        lambda kept: (kept / "facts.json").write_text("[" * 100_000),
        lambda kept: (kept / "facts.json").write_text("{}"),
        shutil.rmtree,
    ],
)
def test_a_file_that_was_changed_or_is_not_whole_is_made_again(
    tmp_path: Path, features: FeatureSet, computed: list[str], damage: Callable[[Path], object]
) -> None:
    open_functionals(tmp_path / "noise", features)
    damage(tmp_path / "noise" / f"functionals-{VERSION}")
    for _ in range(2):
        found = open_functionals(tmp_path / "noise", features)
        np.testing.assert_allclose(found, expected(noise(LENGTHS)), rtol=1e-5, atol=1e-6)
    assert computed == ["noise", "noise"]


@pytest.mark.parametrize("hashed", ["values_sha256", "offsets_sha256"])
def test_functionals_of_other_features_are_made_again(
    tmp_path: Path, features: FeatureSet, computed: list[str], hashed: str
) -> None:
    open_functionals(tmp_path / "noise", features)
    other = replace(features, spec=replace(features.spec, **{hashed: "0" * 64}), values=features.values + 1)
    found = open_functionals(tmp_path / "noise", other)
    assert computed == ["noise", "noise"]
    np.testing.assert_allclose(found, expected([span + 1 for span in noise(LENGTHS)]), rtol=1e-5, atol=1e-5)


def test_features_that_are_written_again_have_new_functionals(tmp_path: Path, features: FeatureSet) -> None:
    open_functionals(tmp_path / "noise", features)
    found = open_functionals(tmp_path / "noise", write(tmp_path, noise(LENGTHS, seed=1)))
    np.testing.assert_allclose(found, expected(noise(LENGTHS, seed=1)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), Misuse("the disk is full")])
def test_functionals_are_in_memory_where_the_folder_cannot_be_written_to(
    tmp_path: Path, features: FeatureSet, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(folder: Path) -> Iterator[Path]:
        raise error

    monkeypatch.setattr(module, "new_folder", refuse)
    found = open_functionals(tmp_path / "noise", features)
    assert not isinstance(found, np.memmap)
    np.testing.assert_allclose(found, expected(noise(LENGTHS)), rtol=1e-5, atol=1e-6)
    assert not (tmp_path / "noise" / f"functionals-{VERSION}").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="space is reserved on Linux alone")
def test_a_full_disk_is_found_before_anything_is_written(
    tmp_path: Path, features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def full(file: int, start: int, size: int) -> None:
        asked.append(size)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    found = open_functionals(tmp_path / "noise", features)
    assert asked == [128 + 4 * len(LENGTHS) * 21]
    np.testing.assert_allclose(found, expected(noise(LENGTHS)), rtol=1e-5, atol=1e-6)
    assert not list((tmp_path / "noise").glob("*functionals*"))


def test_an_error_while_computing_leaves_nothing_half_written(
    tmp_path: Path, features: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(features: FeatureSet, into: Array) -> None:
        into[0] = 1
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_functionals(tmp_path / "noise", features)
    assert not [path for path in (tmp_path / "noise").iterdir() if "functionals" in path.name]


def open_and_sum(folder: Path, barrier: Any, results: Any) -> None:
    barrier.wait()
    results.put(float(open_functionals(folder, open_features(folder)).sum()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_processes_may_compute_at_once(tmp_path: Path, features: FeatureSet) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(9), context.Queue()
    processes = [context.Process(target=open_and_sum, args=(tmp_path / "noise", barrier, results)) for _ in range(8)]
    for process in processes:
        process.start()
    barrier.wait()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == pytest.approx([expected(noise(LENGTHS)).sum()] * 8, rel=1e-5)
    kept = tmp_path / "noise" / f"functionals-{VERSION}"
    assert json.loads((kept / "facts.json").read_text())["stamp"] == module._stamp(kept)
    assert not list((tmp_path / "noise").glob(".functionals*"))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_functionals_of_other_types_are_those_of_the_stored_values(tmp_path: Path, dtype: str) -> None:
    features = write(tmp_path, noise(LENGTHS), dtype=dtype)
    spans = [
        np.asarray(features.values[a:b], float) for a, b in zip(features.offsets, features.offsets[1:], strict=False)
    ]
    np.testing.assert_allclose(open_functionals(tmp_path / "noise", features), expected(spans), rtol=1e-5, atol=1e-5)


def test_functionals_are_computed_on_the_device_of_the_frames() -> None:
    on_meta = PaddedSequence(torch.empty(2, 5, 3, device="meta"), torch.ones(2, 5, dtype=torch.bool, device="meta"))
    assert functionals(on_meta, 21).is_meta
    assert functionals(on_meta, 3).shape == (2, 3)
