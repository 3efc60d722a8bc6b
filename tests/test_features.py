from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mer_bench import features
from mer_bench.errors import Misuse
from mer_bench.features import FeatureSpec, open_features, read_spec, sketch, verify_features, write_features
from mer_bench.files import sha256
from mer_bench.utterances import FILE, write_table

Array = npt.NDArray[np.floating[Any]]
NAMES = ("values.npy", "offsets.npy", "spec.json")


def corpus(folder: Path, rows: int) -> list[str]:
    """Write a table of ``rows`` utterances, one per dialogue, and return its ids."""
    ids = [f"take{row}" for row in range(rows)]
    folder.mkdir(parents=True, exist_ok=True)
    columns = {"id": ids, "dialogue": ids, "turn": 0, "speaker": "a", "session": "1", "start": 0.0, "end": 1.0}
    write_table(folder, pd.DataFrame({**columns, "text": "", "emotion": "happy", "split": "", "media": ""}))
    return ids


def write(folder: Path, sequences: list[Array] | Iterator[Array], ids: list[str], **options: Any) -> FeatureSpec:
    return write_features(folder, sequences, **{"ids": ids, "modality": "audio", "extractor": "noise", **options})


def noise(lengths: list[int], dim: int = 3, seed: int = 0) -> list[Array]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal((length, dim)).astype(np.float32) for length in lengths]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of three utterances, the middle one without frames."""
    ids = corpus(tmp_path, 3)
    write(tmp_path / "noise", noise([4, 0, 2]), ids)
    return tmp_path / "noise"


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A new empty folder for each of hypothesis's examples."""
    root, count = tmp_path_factory.mktemp("features"), itertools.count()
    return lambda: root / str(next(count))


# --- writing and opening ----------------------------------------------------------------------------------------------


def test_a_set_stays_where_its_successor_cannot_take_its_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rename = read_spec(folder), Path.replace

    def refuse(path: Path, target: Path) -> Path:
        if Path(target) == folder and ".old." not in path.name:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(Misuse, match="No space left"):
        write(folder, noise([1, 1, 1]), ["take0", "take1", "take2"])
    assert verify_features(folder) == before
    assert not list(folder.parent.glob(".noise*"))


@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=8).filter(any),
    dim=st.integers(1, 9),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
    seed=st.integers(0, 99),
)
def test_round_trip(fresh: Callable[[], Path], lengths: list[int], dim: int, dtype: str, seed: int) -> None:
    folder = fresh()
    ids = corpus(folder, len(lengths))
    sequences = [sequence.astype(dtype) for sequence in noise(lengths, dim, seed)]
    spec = write(folder / "noise", iter(sequences), ids, dtype=dtype)
    found = open_features(folder / "noise")
    assert found.spec == spec == verify_features(folder / "noise")
    assert (spec.name, spec.dim, spec.rows, spec.frames) == ("noise", dim, len(lengths), sum(lengths))
    assert found.values.dtype == dtype
    stored = json.loads((folder / "noise/spec.json").read_text())
    assert [stored[key] for key in ("dim", "rows", "frames", "modality")] == [dim, len(lengths), sum(lengths), "audio"]
    for row, sequence in enumerate(sequences):
        assert np.array_equal(found.values[found.offsets[row] : found.offsets[row + 1]], sequence)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        ids = corpus(tmp_path / name, 3)
        sequences = noise([2, 0, 40])
        if name == "two":  # another memory layout is the same input
            sequences = [np.asfortranarray(sequence) for sequence in sequences]
        write(tmp_path / name / "noise", sequences, ids, settings={"b": 1, "a": [1, 2]})
    for name in NAMES:
        assert (tmp_path / "one/noise" / name).read_bytes() == (tmp_path / "two/noise" / name).read_bytes()


def test_the_header_grows_with_the_frames(tmp_path: Path) -> None:
    ids = corpus(tmp_path, 1)
    write(tmp_path / "noise", [np.ones((123_457, 1), np.float32)], ids)
    assert open_features(tmp_path / "noise").values.shape == (123_457, 1)


def test_writing_again_replaces_the_set_whole(folder: Path) -> None:
    write(folder, noise([1, 1, 1], dim=7), ["take0", "take1", "take2"])
    assert verify_features(folder).dim == 7
    assert sorted(path.name for path in folder.parent.iterdir()) == ["noise", FILE]


def test_identity_is_content_and_extractor(tmp_path: Path) -> None:
    ids = corpus(tmp_path, 2)
    plain = write(tmp_path / "noise", noise([2, 3]), ids).sha256
    assert write(tmp_path / "noise", noise([2, 3]), ids).sha256 == plain
    others = [
        write(tmp_path / "noise", noise([2, 3]), ids, **options).sha256
        for options in ({"settings": {"hop": 160}}, {"settings": {"hop": 320}}, {"revision": "2"}, {"layer": "9"})
    ]
    others.append(write(tmp_path / "noise", noise([2, 3], seed=1), ids).sha256)
    others.append(write(tmp_path / "noise", noise([3, 2]), ids).sha256)
    assert len({plain, *others}) == 7


def test_identity_outlives_the_rounding_of_another_processor(tmp_path: Path) -> None:
    ids = corpus(tmp_path, 50)
    sequences = noise([20] * 50, dim=30)
    here = write(tmp_path / "noise", sequences, ids)
    there = write(tmp_path / "noise", [np.nextafter(sequence, np.float32(9)) for sequence in sequences], ids)
    assert here.values_sha256 != there.values_sha256
    assert here.sha256 == there.sha256
    assert verify_features(tmp_path / "noise") == there


def test_verify_finds_a_wrong_sketch(folder: Path) -> None:
    path = folder / "spec.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "sketch": [number + 1 for number in content["sketch"]]}))
    with pytest.raises(Misuse, match=r"the sketch in spec\.json is not that of values\.npy"):
        verify_features(folder)


def test_sketch_sees_a_frame_a_column_and_an_order() -> None:
    values = np.concatenate(noise([1000], dim=20))
    usual = sketch(values)
    zeroed, column, swapped = values.copy(), values.copy(), values.copy()
    zeroed[500] = 0
    column[:, 7] += 1
    swapped[[3, 900]] = swapped[[900, 3]]
    assert usual not in (sketch(zeroed), sketch(column), sketch(swapped))
    assert sketch(values.astype(np.float64)) == usual


def test_sketch_is_the_same_in_chunks_and_on_every_machine() -> None:
    values = (np.arange(600, dtype=np.uint8) % 251).reshape(60, 10)  # integers, so that no machine rounds
    known = [124, -73, 34, 146, -28, 158, -217, -13, 234, -27, 21, -56, 1, 110, -15, -166]
    assert sketch(values) == known  # the identities of committed records depend on it
    assert sketch(values, size=70) == known
    assert sketch(np.zeros((3, 2), np.float32)) == [0] * 16


@pytest.mark.parametrize(
    ("bad", "dtype"),
    [(np.nan, "float32"), (np.inf, "float32"), (-np.inf, "float32"), (1e6, "float16")],  # 1e6 is not finite in float16
)
def test_a_value_that_is_not_finite_names_its_utterance(tmp_path: Path, bad: float, dtype: str) -> None:
    ids = corpus(tmp_path, 3)
    sequences = noise([2, 2, 2])
    sequences[1][1, 2] = bad
    with pytest.raises(Misuse, match="noise: take1 holds NaN or infinite values"):
        write(tmp_path / "noise", sequences, ids, dtype=dtype)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_pixels_are_stored_as_bytes(tmp_path: Path) -> None:
    ids = corpus(tmp_path, 3)
    pixels = np.arange(256, dtype=np.uint8).repeat(3)[: 5 * 12].reshape(5, 12)
    given = [pixels[:2], pixels[:0], pixels[2:].astype(np.float32)]  # integers of another type are accepted
    spec = write(tmp_path / "frames", given, ids, dtype="uint8", modality="vision")
    assert spec.integer
    assert not write(tmp_path / "floats", given, ids).integer
    assert verify_features(tmp_path / "frames") == spec
    found = open_features(tmp_path / "frames")
    assert isinstance(found.values, np.memmap)
    assert found.values.dtype == np.uint8
    assert np.array_equal(found.values, pixels)
    assert (tmp_path / "frames" / "values.npy").stat().st_size == 128 + pixels.size


@pytest.mark.parametrize("bad", [256, -1, 0.5, np.nan, np.inf])
def test_values_that_are_not_bytes_are_refused_and_not_wrapped(tmp_path: Path, bad: float) -> None:
    ids = corpus(tmp_path, 2)
    frames = np.full((2, 12), 7.0)
    frames[1, 3] = bad
    with pytest.raises(Misuse, match="frames: take1 holds values that do not fit the type uint8"):
        write(tmp_path / "frames", [np.zeros((1, 12)), frames], ids, dtype="uint8", modality="vision")
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("lengths", "sentence"),
    [([2], "1 sequences for the 2"), ([2, 2, 2], "more sequences than the 2"), ([0, 0], "every utterance is empty")],
)
def test_wrong_counts(tmp_path: Path, lengths: list[int], sentence: str) -> None:
    ids = corpus(tmp_path, 2)
    with pytest.raises(Misuse, match=sentence):
        write(tmp_path / "noise", noise(lengths), ids)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_widths_must_agree(tmp_path: Path) -> None:
    ids = corpus(tmp_path, 2)
    with pytest.raises(Misuse, match=r"take1 has shape \(2, 4\), expected \[time, 3\]"):
        write(tmp_path / "noise", [*noise([2]), *noise([2], dim=4)], ids)
    with pytest.raises(Misuse, match=r"take0 has shape \(5,\), expected \[time, dim\]"):
        write(tmp_path / "noise", [np.ones(5, np.float32)] * 2, ids)


@pytest.mark.parametrize("shape", [(0,), (1, 0), (0, 3), (4, 0)])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_an_empty_array_of_any_shape_is_a_missing_modality_and_shifts_no_row(
    tmp_path: Path, shape: tuple[int, ...], row: int
) -> None:
    ids = corpus(tmp_path, 3)
    whole = noise([2, 2, 2])
    lacking = [np.zeros(shape, np.float32) if each == row else whole[each] for each in range(3)]
    spec = write(tmp_path / "given", lacking, ids)
    assert (spec.frames, spec.dim) == (4, 3)
    opened = open_features(tmp_path / "given")
    spans = itertools.pairwise(opened.offsets.tolist())
    assert [opened.values[a:b].tolist() for a, b in spans] == [
        [] if each == row else whole[each].tolist() for each in range(3)
    ]
    verify_features(tmp_path / "given")


def test_a_modality_has_any_name_that_can_stand_anywhere(tmp_path: Path) -> None:
    ids = corpus(tmp_path, 1)
    assert write(tmp_path / "noise", noise([1]), ids, modality="eeg").modality == "eeg"
    for name in ("", "a b", "../x", "a\nb"):
        with pytest.raises(Misuse, match=r"the modality .* must be a name"):
            write(tmp_path / "noise", noise([1]), ids, modality=name)


def test_an_interruption_leaves_the_old_set_and_no_temporary_files(folder: Path) -> None:
    before = {name: (folder / name).read_bytes() for name in NAMES}

    def interrupted() -> Iterator[Array]:
        yield from noise([3])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(folder, interrupted(), ["take0", "take1", "take2"])
    assert {name: (folder / name).read_bytes() for name in NAMES} == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["noise", FILE]


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["values.npy", "offsets.npy", FILE])
def test_verify_finds_a_flipped_bit(folder: Path, name: str) -> None:
    path = folder.parent / FILE if name == FILE else folder / name
    content = bytearray(path.read_bytes())
    position = content.index(b"happy") if name == FILE else len(content) - 8  # the lowest byte of the last number
    content[position] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(Misuse):
        verify_features(folder)
    if name == "values.npy":
        with pytest.raises(Misuse, match=r"values\.npy has changed since the set was written"):
            open_features(folder)


def test_offsets_that_still_rise_but_are_others_are_refused(folder: Path) -> None:
    np.save(folder / "offsets.npy", np.array([0, 3, 4, 6]))
    for check in (verify_features, open_features):
        with pytest.raises(Misuse, match=r"offsets\.npy has changed"):
            check(folder)


def test_the_content_is_checked_once_and_again_when_a_file_was_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, read = folder / "values.npy", []
    monkeypatch.setattr(features, "sha256", lambda path: read.append(path.name) or sha256(path))
    for _ in range(2):  # the second time another process, which has the file beside the set alone
        open_features(folder)
        assert read == ["values.npy", "offsets.npy"]
        monkeypatch.setattr(features, "_verified", {})
    stat, swapped = values.stat(), np.load(values)[::-1].copy()
    np.save(values.with_name("other.npy"), swapped)
    values.with_name("other.npy").replace(values)
    os.utime(values, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as old and as large as before
    assert values.stat().st_size == stat.st_size
    with pytest.raises(Misuse, match=r"values\.npy has changed since the set was written; extract it again"):
        open_features(folder)


def test_a_set_that_cannot_be_written_to_is_checked_in_every_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, text: str) -> None:
        raise Misuse(f"cannot write {path}: Read-only file system")

    monkeypatch.setattr(features, "write_atomic", refuse)
    assert open_features(folder).spec == read_spec(folder)
    assert not (folder / "verified.json").exists()


@pytest.mark.parametrize("text", ["", "[", "3", "[" * 20_000, '{"values.npy": [1, 2, 3]}'])
def test_what_is_remembered_is_believed_only_if_it_fits(folder: Path, text: str) -> None:
    (folder / "verified.json").write_text(text)
    np.save(folder / "values.npy", np.load(folder / "values.npy")[::-1].copy())
    with pytest.raises(Misuse, match=r"values\.npy has changed"):
        open_features(folder)


def test_a_folder_that_was_renamed_is_one_sentence(folder: Path) -> None:
    moved = folder.rename(folder.with_name("other"))
    with pytest.raises(Misuse, match=r"spec\.json names the set 'noise', not 'other'; give the folder that name again"):
        open_features(moved)


@pytest.mark.parametrize("name", ["..", ".hidden", "a b", "a\nb", "é", "x" * 101])
def test_a_set_has_a_name_that_can_stand_anywhere(folder: Path, name: str) -> None:
    with pytest.raises(Misuse, match=r"the feature set .* must be a name of at most 100 letters"):
        write(folder.parent / name, [], [])
    assert sorted(path.name for path in folder.parent.iterdir()) == ["noise", FILE]


@pytest.mark.parametrize("left", [0, 1, 60, -1])
@pytest.mark.parametrize("name", ["values.npy", "offsets.npy"])
def test_truncated_files_are_refused_at_opening(folder: Path, name: str, left: int) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:left])
    with pytest.raises(Misuse, match="damaged or truncated"):
        open_features(folder)


@pytest.mark.parametrize("offsets", [[0, 5, 4, 6], [1, 2, 4, 6], [0, 2, 4, 5], [0, 2, 6]])
def test_offsets_must_rise_from_zero_to_the_frames(folder: Path, offsets: list[int]) -> None:
    np.save(folder / "offsets.npy", np.array(offsets))
    with pytest.raises(Misuse, match=r"offsets\.npy does not rise|does not have the shape"):
        open_features(folder)


def test_another_shape_or_type_is_refused(folder: Path) -> None:
    for array in (np.zeros((5, 3), np.float32), np.zeros((6, 3)), np.zeros((6, 2), np.float32)):
        np.save(folder / "values.npy", array)
        with pytest.raises(Misuse, match="does not have the shape that its spec"):
            open_features(folder)


@pytest.mark.parametrize("name", ["values.npy", "offsets.npy"])
def test_pickles_are_refused_in_one_sentence(folder: Path, name: str) -> None:
    np.save(folder / name, np.array([{"any": "object"}] * 6, object), allow_pickle=True)
    with pytest.raises(Misuse, match="damaged or truncated") as caught:
        open_features(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": "noise"}'])
def test_a_damaged_spec_is_refused(folder: Path, content: str) -> None:
    (folder / "spec.json").write_text(content)
    with pytest.raises(Misuse, match=r"spec\.json.*; extract the set again") as caught:
        read_spec(folder)
    assert "\n" not in str(caught.value)


def test_an_absent_set_names_the_available_ones(folder: Path) -> None:
    with pytest.raises(Misuse, match=r"no feature set 'nosie' in .* \(available: noise\)"):
        read_spec(folder.with_name("nosie"))
