"""Import of features that others have computed: every form of npz and folder, names, values, and wrong sources."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from recordings import lengths, refused, run, works, write_corpus, zipped

from data_prep.imports import arrays
from data_prep.imports.arrays import import_sequences
from data_prep.imports.kinds import ADVICE, MAGIC, file_kind, unpacked_limit
from mer_bench.errors import Misuse
from mer_bench.exposure import Exposure
from mer_bench.features import open_features, read_spec, verify_features
from mer_bench.utterances import read_table

Array = np.ndarray
IDS = ["Ses01F_impro01_F000", "Ses01F_impro01_M000", "Ses01F_impro01_F001"]
TABLE = pd.DataFrame({"id": IDS})


def noise(sizes: list[int], dim: int = 3) -> list[Array]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal((size, dim)).astype(np.float32) for size in sizes]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "data" / "iemocap", IDS, dialogue="Ses01F_impro01")


def command(table: Path, source: Path, *more: str) -> tuple[Any, ...]:
    return "import", "--table", table, "--source", source, "--name", "mine", "--modality", "audio", *more


def declined(table: Path, source: Path, *more: str) -> str:
    """The line that a refused import prints; nothing is left behind."""
    before = sorted(path.name for path in table.iterdir())
    message = refused(*command(table, source, *more))
    assert sorted(path.name for path in table.iterdir()) == before
    return message


def imported(table: Path, source: Path, *more: str) -> dict[str, list[list[float]]]:
    """The frames of each utterance that has some."""
    works(*command(table, source, *more))
    features = open_features(table / "mine")
    spans = zip(read_table(table)["id"], features.offsets[:-1], features.offsets[1:], strict=True)
    return {name: features.values[a:b].tolist() for name, a, b in spans if b > a}


# --- forms of a source ------------------------------------------------------------------------------------------------


def check_import(source: Path, expected: dict[str, Array], **options: Any) -> None:
    for name, array in zip(IDS, import_sequences(source, TABLE, **options), strict=True):
        assert array.tolist() == expected.get(name, np.empty((0, 0))).tolist(), name


def test_one_array_for_each_id(tmp_path: Path) -> None:
    first, third = noise([4, 2])
    np.savez(tmp_path / "some.npz", **{IDS[0]: first, IDS[2]: third})
    check_import(tmp_path / "some.npz", {IDS[0]: first, IDS[2]: third})
    np.savez_compressed(tmp_path / "some.npz", **{IDS[0]: first, IDS[2]: third})
    check_import(tmp_path / "some.npz", {IDS[0]: first, IDS[2]: third})


@pytest.mark.parametrize("ids", [np.array(IDS), np.array(IDS, "S")], ids=["text", "bytes"])
@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.float64])
def test_packed_arrays_in_another_order(tmp_path: Path, ids: Array, dtype: Any) -> None:
    sequences, order = noise([4, 0, 2]), [2, 0, 1]
    values, offsets = np.concatenate([sequences[i] for i in order]), np.array([0, 2, 6, 6], dtype)
    np.savez(tmp_path / "packed.npz", ids=ids[order], values=values, offsets=offsets)
    check_import(tmp_path / "packed.npz", dict(zip(IDS, sequences, strict=True)))


def test_folder_of_arrays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = noise([4, 1])
    np.save(tmp_path / f"{IDS[0]}.npy", first)
    np.save(tmp_path / f"{IDS[1]}.npy", second[0])  # a vector is one frame
    (tmp_path / f"._{IDS[2]}.npy").write_bytes(b"what macOS writes beside a file")
    (tmp_path / "notes.txt").write_text("not an array")
    check_import(tmp_path, {IDS[0]: first, IDS[1]: second})
    assert "left out 1 files that are not npy (first: notes.txt)" in capsys.readouterr().out


def test_matrix_with_ids(tmp_path: Path) -> None:
    rows = noise([3])[0]
    np.savez(tmp_path / "rows.npz", ids=np.array(IDS)[[2, 0, 1]], mfcc=rows, unused=np.array([None]))
    check_import(tmp_path / "rows.npz", {IDS[2]: rows[:1], IDS[0]: rows[1:2], IDS[1]: rows[2:]}, key="mfcc")


@pytest.mark.parametrize("shape", [(0,), (1, 0), (0, 3), (4, 0), (0, 2, 3)])
@pytest.mark.parametrize("row", [0, 1, 2])
def test_empty_array_of_any_shape_is_a_missing_modality_and_shifts_no_row(
    table: Path, tmp_path: Path, shape: tuple[int, ...], row: int
) -> None:
    whole = noise([2, 2, 2])
    some = {name: np.zeros(shape, np.float32) if i == row else whole[i] for i, name in enumerate(IDS)}
    np.savez(tmp_path / "some.npz", **some)
    assert imported(table, tmp_path / "some.npz") == {n: whole[i].tolist() for i, n in enumerate(IDS) if i != row}
    verify_features(table / "mine")


def test_identity_of_an_import_depends_on_its_content_and_not_on_new_options(table: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", ids=np.array(IDS), mfcc=np.arange(6.0).reshape(3, 2))
    works(*command(table, tmp_path / "rows.npz", "--key", "mfcc", "--extractor", "praat"))
    spec = read_spec(table / "mine")
    assert (spec.extractor, spec.layer, spec.settings, spec.dtype) == ("praat", "mfcc", {}, "float32")
    assert "already done" in works(*command(table, tmp_path / "rows.npz", "--key", "mfcc", "--extractor", "praat"))


def test_exposure_is_stated_or_known_by_the_name_of_the_extractor(table: Path, tmp_path: Path) -> None:
    source = tmp_path / "a.npz"
    np.savez(source, **dict(zip(IDS, noise([1, 1, 1]), strict=True)))
    imported(table, source)
    plain = read_spec(table / "mine")
    assert plain.exposure is None
    words = ("--exposure", "labels", "--exposure-source", "fine-tuned on them")
    assert "already done" in works(*command(table, source, *words)), "it is stated without computing anything again"
    stated = verify_features(table / "mine")
    assert stated.exposure == Exposure("labels", "fine-tuned on them")
    assert stated.sha256 == plain.sha256
    works(*command(table, source))
    assert read_spec(table / "mine").exposure == stated.exposure, "an import without a statement takes none back"
    works(*command(table, source, "--extractor", "gemaps47"))
    found = read_spec(table / "mine").exposure
    assert found
    assert found.kind == "none"
    assert "say with --exposure what" in refused(*command(table, source, "--exposure-source", "I know"))


def test_folder_whose_values_have_changed_is_imported_again(table: Path, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    np.save(tmp_path / "f" / f"{IDS[0]}.npy", np.ones((2, 3)))
    assert "already done" not in works(*command(table, tmp_path / "f"))
    assert "already done" in works(*command(table, tmp_path / "f"))
    np.save(tmp_path / "f" / f"{IDS[0]}.npy", 2 * np.ones((2, 3)))
    later = (table / "mine" / "spec.json").stat().st_mtime + 2
    os.utime(tmp_path / "f" / f"{IDS[0]}.npy", (later, later))
    assert imported(table, tmp_path / "f") == {IDS[0]: [[2.0] * 3] * 2}


# --- names that do not fit --------------------------------------------------------------------------------------------


def write_members(path: Path, members: list[tuple[str, Array]]) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile warns of the same name twice
        for name, array in members:
            buffer = io.BytesIO()
            np.save(buffer, array)
            archive.writestr(name, buffer.getvalue())


ROW = np.ones((1, 2))


@pytest.mark.parametrize(
    ("members", "more"),
    [
        ([(f"{IDS[0]}.npy", ROW), (f"{IDS[0]}.npy", 2 * ROW)], ()),
        ([(f"{IDS[0]}.npy", ROW), (IDS[0], 2 * ROW)], ()),
        ([("ids.npy", np.array(IDS[:1])), ("ids.npy", np.array(IDS[1:2])), ("mfcc.npy", ROW)], ("--key", "mfcc")),
        ([("ids.npy", np.array([IDS[0]] * 2)), ("mfcc.npy", np.ones((2, 2)))], ("--key", "mfcc")),
        (
            [
                ("ids.npy", np.array([IDS[0]] * 2)),
                ("values.npy", np.ones((2, 2))),
                ("offsets.npy", np.array([0, 1, 2])),
            ],
            (),
        ),
    ],
    ids=["member twice", "with and without suffix", "ids twice", "id twice in a matrix", "id twice in packed arrays"],
)
def test_repeated_id_is_refused_in_every_form(
    table: Path, tmp_path: Path, members: list[tuple[str, Array]], more: tuple[str, ...]
) -> None:
    write_members(tmp_path / "some.npz", members)
    assert "holds 1 names more than once (first: '" in declined(table, tmp_path / "some.npz", *more)
    assert "more than once" in declined(table, tmp_path / "some.npz", *more, "--ignore-surplus")


def test_unknown_ids_are_counted_and_shown_beside_a_known_one(table: Path, tmp_path: Path) -> None:
    rows = {IDS[0]: ROW, IDS[1]: 2 * ROW, "03-01-05.wav": ROW}
    np.savez(tmp_path / "some.npz", **rows)
    message = declined(table, tmp_path / "some.npz")
    assert (
        "1 of them with ids that the table lacks (first: '03-01-05.wav'); the table's ids look like 'Ses01F" in message
    )
    assert "--ignore-surplus leaves some out" in message
    output = works(*command(table, tmp_path / "some.npz", "--ignore-surplus"))
    assert "left out 1 of 3 sequences, which the table lacks: '03-01-05.wav'" in output
    assert lengths(table / "mine") == [1, 1, 0]


def test_source_of_which_most_is_surplus_is_refused(table: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **{IDS[0]: ROW, "a": ROW, "b": ROW})
    for more in ((), ("--ignore-surplus",)):
        message = declined(table, tmp_path / "some.npz", *more)
        assert "holds 3 sequences, 2 of them with ids that the table lacks" in message
        assert message.endswith("; --ids or --id-format maps names")  # and not that most can be left out


def test_npy_in_a_subfolder_is_not_overlooked(table: Path, tmp_path: Path) -> None:
    (tmp_path / "f" / "train").mkdir(parents=True)
    np.save(tmp_path / "f" / f"{IDS[0]}.npy", ROW)
    np.save(tmp_path / "f" / "train" / f"{IDS[1]}.npy", ROW)
    assert f"(first: 'train/{IDS[1]}')" in declined(table, tmp_path / "f")


def test_ids_that_differ_in_case_are_two(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "data", ["a", "A"])
    (tmp_path / "f").mkdir()
    for value, name in enumerate(("a", "A")):
        np.save(tmp_path / "f" / f"{name}.npy", np.full((1, 1), value))
    assert imported(corpus, tmp_path / "f") == {"a": [[0.0]], "A": [[1.0]]}


def test_empty_source_is_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "empty.npz")
    for source in ("empty", "empty.npz"):
        assert "holds 0 sequences" in declined(table, tmp_path / source)
        assert "holds 0 sequences" in declined(table, tmp_path / source, "--id-format", "{id}")


# --- shapes and types -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offsets", "reason"),
    [
        ([1, 2, 4, 6], "its offsets begin with 1 instead of 0"),
        ([0, 4, 2, 6], "its offsets fall from 4 to 2 at utterance 1"),
        ([0, 2, 4, 5], "its offsets end with 5, but it has 6 frames"),
        ([0, 2, 4, 7], "its offsets end with 7, but it has 6 frames"),
        ([0, 2, 6], "it has 3 offsets for 3 utterances"),
        ([0, 2, 4, 5, 6], "it has 5 offsets for 3 utterances"),
        ([], "it has 0 offsets for 3 utterances"),
        ([0, 1.5, 4, 6], "its offsets are not whole numbers"),
        ([0, np.nan, 4, 6], "its offsets are not whole numbers"),
        ([0, np.inf, 4, 6], "its offsets are not whole numbers"),
        ([[0, 2], [4, 6]], "its offsets have the shape (2, 2)"),
        (["0", "2", "4", "6"], "and the type <U1, not whole numbers"),
        ([False, True, True, True], "and the type bool, not whole numbers"),
        ([0j, 2, 4, 6], "and the type complex128, not whole numbers"),
    ],
)
def test_offsets_must_rise_from_zero_to_the_frames(table: Path, tmp_path: Path, offsets: Any, reason: str) -> None:
    np.savez(tmp_path / "p.npz", ids=np.array(IDS), values=np.ones((6, 2)), offsets=np.array(offsets))
    assert reason in declined(table, tmp_path / "p.npz")


@pytest.mark.parametrize(
    ("content", "more", "reason"),
    [
        (
            {IDS[0]: np.ones((1, 2, 3))},
            (),
            "'Ses01F_impro01_F000': an array has the shape (1, 2, 3), expected [time, dim]",
        ),
        ({IDS[0]: np.array(1.0)}, (), "an array has the shape (), expected [time, dim]"),
        ({IDS[0]: np.array([[b"12"]], "V2")}, (), "an array has the type |V2, expected real numbers"),
        ({IDS[0]: np.zeros((1, 2), [("x", "f4")])}, (), "expected real numbers"),
        ({IDS[0]: np.array([["1", "2"]])}, (), "an array has the type <U1, expected real numbers"),
        ({IDS[0]: np.array([[1j]])}, (), "an array has the type complex128"),
        ({IDS[0]: np.array([["2020-01-01"]], "M8[D]")}, (), "an array has the type datetime64[D]"),
        ({IDS[0]: np.array([{"any": "object"}], object)}, (), "Object arrays cannot be loaded"),
        ({IDS[0]: np.ones((1, 2)), IDS[1]: np.ones((1, 3))}, (), "expected [time, 2]"),
        ({"ids": np.array(IDS), "values": np.ones(3), "offsets": np.arange(4)}, (), "'values' has the shape (3,)"),
        (
            {"ids": np.array([IDS]), "values": np.ones((3, 1)), "offsets": np.arange(4)},
            (),
            "its ids have the shape (1, 3)",
        ),
        ({"ids": np.array([1.0, 2, 3]), "values": np.ones((3, 1)), "offsets": np.arange(4)}, (), "the type float64"),
        ({"ids": np.array(IDS), "x": np.ones((3, 1))}, (), "holds ids and 'x': name the array of features with --key"),
        ({"ids": np.array(IDS), "x": np.ones((3, 1))}, ("--key", "y"), "has no array 'y'; it has 'ids', 'x'"),
        ({"ids": np.array(IDS), "x": np.ones((2, 1))}, ("--key", "x"), "'x' has 2 rows for 3 ids"),
        ({"ids": np.array(IDS), "x": np.ones(3)}, ("--key", "x"), "'x' has the shape (3,)"),
        ({IDS[0]: np.zeros((0, 2))}, (), "every utterance is empty"),
    ],
)
def test_wrong_arrays_are_one_sentence(
    table: Path, tmp_path: Path, content: dict[str, Array], more: tuple[str, ...], reason: str
) -> None:
    np.savez(tmp_path / "some.npz", **content)
    assert reason in declined(table, tmp_path / "some.npz", *more)


def test_member_with_a_wrong_checksum_is_refused(table: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **{IDS[0]: np.full((4, 4), 3.0)})
    content = (tmp_path / "some.npz").read_bytes()
    (tmp_path / "some.npz").write_bytes(content.replace(np.float64(3).tobytes(), np.float64(5).tobytes(), 1))
    assert "Bad CRC-32" in declined(table, tmp_path / "some.npz")


def test_bomb_is_refused_before_it_is_unpacked(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unpacked_limit(10) == 1 << 30
    assert unpacked_limit(1 << 30) == 100 << 30
    np.savez_compressed(tmp_path / "bomb.npz", **{IDS[0]: np.zeros((10_000, 100))})
    monkeypatch.setattr(arrays, "unpacked_limit", lambda packed: 100 * packed)
    monkeypatch.setattr(arrays, "read_member", lambda *_: pytest.fail("it was unpacked"))
    assert "bytes and would unpack to 8,000,128, which no features do" in declined(table, tmp_path / "bomb.npz")


@pytest.mark.parametrize("shape", [(999_999_999, 999_999_999), (1 << 45, 1), (40_000_000, 2)])
def test_array_that_states_an_impossible_size_is_refused(table: Path, tmp_path: Path, shape: tuple[int, ...]) -> None:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    (tmp_path / "big.npz").write_bytes(zipped({f"{IDS[0]}.npy": npy}))
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / f"{IDS[0]}.npy").write_bytes(npy)
    for source in ("big.npz", "f"):
        message = declined(table, tmp_path / source)
        assert "cannot read features from" in message
        assert shape[0] != 1 << 45 or "does not fit into this machine's memory" in message


def test_bytes_after_an_array_are_refused(table: Path, tmp_path: Path) -> None:
    (tmp_path / "some.npz").write_bytes(zipped({f"{IDS[0]}.npy": npy() + b"more"}))
    assert f"its member '{IDS[0]}.npy': it has bytes after its array" in declined(table, tmp_path / "some.npz")


# --- values that are not finite ---------------------------------------------------------------------------------------


def test_values_that_are_not_finite_are_refused_zeroed_or_missing(table: Path, tmp_path: Path) -> None:
    values = [np.array([[1, np.nan], [np.inf, 4]]), np.ones((1, 2)), np.array([[2.0, 3]])]
    np.savez(tmp_path / "some.npz", **dict(zip(IDS, values, strict=True)))
    message = declined(table, tmp_path / "some.npz")
    assert f"mine: {IDS[0]} holds NaN or infinite values, as do 1 of 3 utterances (2 values)" in message
    output = works(*command(table, tmp_path / "some.npz", "--non-finite", "zero"))
    assert "mine: 2 values of 1 utterances that are not finite became 0" in output
    assert open_features(table / "mine").values[:2].tolist() == [[1, 0], [0, 4]]
    assert read_spec(table / "mine").settings == {"non_finite": "zero"}
    output = works(*command(table, tmp_path / "some.npz", "--non-finite", "missing"))
    assert f"missing for 1 utterances: it holds NaN or infinite values ({IDS[0]})" in output
    assert lengths(table / "mine") == [0, 1, 1]


def test_numbers_too_large_for_single_precision_are_not_finite(table: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **{IDS[0]: np.array([[1e300, 1]]), IDS[1]: ROW, IDS[2]: ROW})
    assert "holds NaN or infinite values" in declined(table, tmp_path / "some.npz")
    assert imported(table, tmp_path / "some.npz", "--non-finite", "zero")[IDS[0]] == [[0, 1]]


def test_too_many_missing_utterances_stop_the_import(table: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **{IDS[0]: np.array([[np.nan]]), IDS[1]: np.array([[np.inf]]), IDS[2]: ROW[:, :1]})
    message = declined(table, tmp_path / "some.npz", "--non-finite", "missing")
    assert "2 of 3 utterances hold NaN or infinite values, too many to omit" in message


# --- names of the source ----------------------------------------------------------------------------------------------

MELD = ["train_dia0_utt0", "train_dia0_utt2", "train_dia1038_utt0", "validation_dia0_utt0", "test_dia0_utt0"]


@pytest.fixture
def friends(tmp_path: Path) -> Path:
    dialogues, splits = [name.rpartition("_")[0] for name in MELD], [name.partition("_")[0] for name in MELD]
    return write_corpus(tmp_path / "data" / "meld", MELD, dialogue=dialogues, split=splits)


def rows_of(names: list[str]) -> dict[str, Array]:
    return {name: np.full((1, 1), i, np.float32) for i, name in enumerate(names)}


EXPECTED = {name: [[float(i)]] for i, name in enumerate(MELD)}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{split}_dia{dialogue}_utt{utterance}", MELD),
        ("{split}_{dialogue}_{utterance}", ["train_0_0", "train_0_2", "train_1038_0", "dev_0_0", "test_0_0"]),
        (
            "{split}/dia{dialogue}_utt{utterance}",
            ["train/dia0_utt0", "train/dia0_utt2", "train/dia1038_utt0", "val/dia0_utt0", "test/dia0_utt0"],
        ),
        (
            "{split}/dia{dialogue}_utt{utterance}.mp4",
            [
                *(f"train_splits/{name}.mp4" for name in ("dia0_utt0", "dia0_utt2", "dia1038_utt0")),
                "dev_splits_complete/dia0_utt0.mp4",
                "output_repeated_splits_test/dia0_utt0.mp4",
            ],
        ),
        ("{split}-{dialogue}-{turn}", ["train-0-0", "train-0-1", "train-1038-0", "valid-0-0", "test-0-0"]),
    ],
)
def test_usual_names_of_meld_are_mapped_by_a_pattern(
    friends: Path, tmp_path: Path, pattern: str, names: list[str]
) -> None:
    np.savez(tmp_path / "some.npz", **rows_of(names))
    assert imported(friends, tmp_path / "some.npz", "--id-format", pattern) == EXPECTED
    assert read_spec(friends / "mine").settings == {"id_format": pattern}
    for name, row in rows_of(names).items():
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "f" / f"{name}.npy", row)
    assert imported(friends, tmp_path / "f", "--id-format", pattern) == EXPECTED


def test_pattern_without_the_split_serves_one_split(friends: Path, tmp_path: Path) -> None:
    pattern = "dia{dialogue}_utt{utterance}"
    np.savez(tmp_path / "some.npz", **rows_of(["dia0_utt0", "dia0_utt2", "dia1038_utt0"]))
    message = declined(friends, tmp_path / "some.npz", "--id-format", pattern)
    assert f"gives 'dia0_utt0' to 3 utterances ('{MELD[0]}', '{MELD[3]}', '{MELD[4]}'); a pattern with more" in message
    np.savez(tmp_path / "some.npz", **rows_of(["dia0_utt2", "dia1038_utt0"]))
    assert list(imported(friends, tmp_path / "some.npz", "--id-format", pattern)) == MELD[1:3]


def test_patterns_of_other_corpora(table: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **rows_of(["impro: Ses01F_impro01 F001"]))
    assert imported(table, tmp_path / "some.npz", "--id-format", "impro: {dialogue} {utterance}") == {IDS[2]: [[0.0]]}
    np.savez(tmp_path / "some.npz", **rows_of([f"03-{name}" for name in IDS]))
    assert list(imported(table, tmp_path / "some.npz", "--id-format", "03-{id}")) == IDS


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("{dialog}", "unknown field of --id-format 'dialog': did you mean 'dialogue'?"),
        ("{dialogue.__class__}", "unknown field of --id-format 'dialogue.__class__'"),
        ("{0}", "unknown field of --id-format '0'"),
        ("{}", "unknown field of --id-format ''"),
        ("{dialogue:>9}", "write {dialogue} without '>9'"),
        ("{dialogue!r}", "write {dialogue} without 'r'"),
        ("{dialogue", "is no pattern"),
        ("dia_utt", "has no field; there are {id}, {split}, {dialogue}"),
        ("x{id}", "gives names like 'xtrain_dia0_utt0', but those of the source look like 'train_dia0_utt0'"),
    ],
)
def test_wrong_patterns_are_one_sentence(friends: Path, tmp_path: Path, pattern: str, reason: str) -> None:
    np.savez(tmp_path / "some.npz", **rows_of(MELD))
    assert reason in declined(friends, tmp_path / "some.npz", "--id-format", pattern)


def test_two_names_of_one_utterance_are_refused(friends: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **rows_of(["dev_0_0", "val_0_0"]))
    message = declined(friends, tmp_path / "some.npz", "--id-format", "{split}_{dialogue}_{utterance}")
    assert f"holds '{MELD[3]}' more than once ('dev_0_0' and 'val_0_0')" in message


def test_names_are_mapped_by_a_file(friends: Path, tmp_path: Path) -> None:
    files = [f"clip{i}.wav" for i in range(5)]
    pd.DataFrame({"id": MELD, "note": "x", "file": files}).to_csv(tmp_path / "ids.csv", index=False)
    for names in (files, [f"clip{i}" for i in range(5)]):
        np.savez(tmp_path / "some.npz", **rows_of(names))
        assert imported(friends, tmp_path / "some.npz", "--ids", str(tmp_path / "ids.csv")) == EXPECTED
    assert list(read_spec(friends / "mine").settings) == ["ids"]
    np.savez(tmp_path / "some.npz", **rows_of(["clip0", "clip1", "clip9"]))
    message = declined(friends, tmp_path / "some.npz", "--ids", str(tmp_path / "ids.csv"))
    assert "holds 3 sequences, 1 of them with ids that the table lacks (first: 'clip9')" in message
    output = works(*command(friends, tmp_path / "some.npz", "--ids", str(tmp_path / "ids.csv"), "--ignore-surplus"))
    assert "--ids: 3 of its 5 rows name a file that the source lacks" in output
    assert lengths(friends / "mine") == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"file,name\na,b\n", "has no column 'id'; it needs file"),
        (b"file,id\na,b\na,c\n", "holds 1 names more than once (first: 'a')"),
        (b"file,id\na,b\nc,b\n", "holds 1 names more than once (first: 'b')"),
        (b"", "cannot read --ids"),
        (b'file,id\n"a,b\n', "cannot read --ids"),
        (b"\xff\xfe\x00", "cannot read --ids"),
        (b"file,id\na,elsewhere\n", "(first: 'elsewhere')"),
    ],
)
def test_wrong_files_of_ids_are_one_sentence(friends: Path, tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "ids.csv").write_bytes(content)
    np.savez(tmp_path / "some.npz", **rows_of(["a"]))
    assert reason in declined(friends, tmp_path / "some.npz", "--ids", str(tmp_path / "ids.csv"))
    both = ("--ids", str(tmp_path / "ids.csv"), "--id-format", "{id}")
    assert "exclude each other" in declined(friends, tmp_path / "some.npz", *both)


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a/b", "..", ".", "", ".hidden", "-x", "_x", "a b", "a\nb", "ä", "x" * 101, "/tmp/x"])
@pytest.mark.parametrize("subcommand", ["import", "pack", "vision openface", "vision frames"])
def test_name_that_is_no_name_is_refused_before_anything_is_made(
    table: Path, tmp_path: Path, name: str, subcommand: str
) -> None:
    np.savez(tmp_path / "some.npz", **{IDS[0]: ROW})
    source = ("--raw", tmp_path) if "vision" in subcommand else ("--source", tmp_path / "some.npz")
    more = ("--modality", "audio") if subcommand == "import" else ()
    before = sorted(tmp_path.rglob("*"))
    result = run(*subcommand.split(), "--table", table, *source, *more, f"--name={name}")
    assert result.exit_code == 2
    assert "must be a name of at most 100 letters" in " ".join(result.output.replace("│", " ").split())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a/b", "..", "../mine", ""])
def test_name_is_checked_in_python_too(table: Path, tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "some.npz", **{IDS[0]: ROW})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Misuse, match=r"the feature set .* must be a name of at most 100 letters"):
        arrays.import_features(table, tmp_path / "some.npz", name=name, modality="audio")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a", "9", "a.b_c+d-e", "x" * 100])
def test_good_names_are_accepted(table: Path, tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "some.npz", **{IDS[0]: ROW})
    works("import", "--table", table, "--source", tmp_path / "some.npz", "--modality", "text", "--name", name)
    assert (table / name / "spec.json").is_file()


def test_pack_whose_file_has_no_name_asks_for_one(table: Path, tmp_path: Path) -> None:
    (tmp_path / "特征.pkl").write_bytes(pickle.dumps([]))
    assert "the feature set '-vision' must be a name" in refused(
        "pack", "--table", table, "--source", tmp_path / "特征.pkl"
    )


def test_import_replaces_neither_the_table_nor_a_foreign_folder(table: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", **{IDS[0]: ROW})
    (table / "notes").mkdir()
    (table / "notes" / "mine.txt").write_text("kept")
    before = (table / "utterances.csv").read_bytes()
    for name in ("utterances.csv", "notes"):
        arguments = (
            "import",
            "--table",
            table,
            "--source",
            tmp_path / "some.npz",
            "--modality",
            "text",
            "--name",
            name,
        )
        assert f"{table / name} exists and is not a feature set; choose another name" in refused(*arguments)
    assert (table / "utterances.csv").read_bytes() == before
    assert (table / "notes" / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf"])
def test_impossible_frame_rate_is_refused(table: Path, tmp_path: Path, rate: str) -> None:
    np.savez(tmp_path / "some.npz", **{IDS[0]: ROW})
    assert "is no rate" in declined(table, tmp_path / "some.npz", "--frame-rate", rate)


def test_key_of_a_folder_is_refused(table: Path, tmp_path: Path) -> None:
    assert "--key names an array of an npz" in declined(table, tmp_path / "data", "--key", "x")


# --- other kinds of file ----------------------------------------------------------------------------------------------


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((3, 2)))
    return buffer.getvalue()


def dumped(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(value, buffer, **options)
    return buffer.getvalue()


def torch_file(**options: Any) -> bytes:
    torch = pytest.importorskip("torch")
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer, **options)
    return buffer.getvalue()


KINDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "npy": (npy, "one npy array without ids"),
    "zip": (lambda: zipped({"a.txt": b"a"}), "a zip"),
    "pickle 0": (lambda: pickle.dumps({"a": [1]}, 0), "a pickle"),
    "pickle 0 of an array": (lambda: pickle.dumps(np.ones(2), 0), "a pickle"),
    "pickle 0 of a list": (lambda: pickle.dumps([1, 2], 0), "a pickle"),
    "pickle 1 of a tuple": (lambda: pickle.dumps((1, {}), 1), "a pickle"),
    "pickle 2": (lambda: pickle.dumps({"a": [1]}, 2), "a pickle"),
    "pickle 5": (lambda: pickle.dumps({"a": [1]}, 5), "a pickle"),
    "joblib": (lambda: dumped({"a": np.ones(3)}), "a joblib file"),
    "joblib, compressed": (
        lambda: dumped({"a": np.ones(3)}, compress=3),
        "zlib, as joblib.dump(compress=...) writes it",
    ),
    "torch": (torch_file, "a torch file"),
    "old torch": (lambda: torch_file(_use_new_zipfile_serialization=False), "a torch file"),
    "gzip": (lambda: gzip.compress(b"a"), "gzip"),
    "zlib": (lambda: zlib.compress(b"a"), "zlib, as joblib.dump(compress=...) writes it"),
    "bzip2": (lambda: b"BZh91AY&SY", "bzip2"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
    "MATLAB": (lambda: b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "a MATLAB file"),
    "MATLAB 7.3": (lambda: b"MATLAB 7.3 MAT-file, Platform: GLNXA64", "HDF5"),
    "safetensors": (lambda: (80).to_bytes(8, "little") + b'{"a":{"dtype":"F32"', "safetensors"),
    "wav": (lambda: b"RIFF\x24\x00\x00\x00WAVEfmt ", "a wav"),
    "LFS": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
        "a Git LFS pointer instead of the file",
    ),
    "HTML": (lambda: b"\n<!DOCTYPE html><html><title>Sign in</title>", "an HTML page instead of the file"),
    "HTML with BOM": (lambda: b"\xef\xbb\xbf<html lang=en>", "an HTML page instead of the file"),
    "XML": (lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML"),
    "JSON": (lambda: json.dumps({"a": [1]}).encode(), "JSON"),
    "JSON list": (lambda: json.dumps([[1, 2], [3]]).encode(), "JSON"),
    "JSON, indented": (lambda: json.dumps([{"a": 1}], indent=1).encode(), "JSON"),
    "CSV": (lambda: b"id,a,b\nx,1,2\n", "text, such as CSV"),
    "CSV without header": (lambda: b"1.5,2\n3,4\n", "text, such as CSV"),
    "sentence": (lambda: b"hello", "text, such as CSV"),
    "noise": (lambda: b"\x00\x01\x02\x03" * 9, "of an unknown kind"),
}


@pytest.mark.parametrize("name", list(KINDS))
def test_refusal_names_the_kind_of_file_and_how_to_go_on(table: Path, tmp_path: Path, name: str) -> None:
    make, kind = KINDS[name]
    path = tmp_path / "source"
    path.write_bytes(make())
    assert file_kind(path) == kind
    assert declined(table, path) == f"error: cannot read features from {path}: it is {kind}: {ADVICE[kind]}"
    (tmp_path / "f").mkdir()
    path.rename(tmp_path / "f" / f"{IDS[0]}.npy")
    if kind != "one npy array without ids":
        assert f"{IDS[0]}.npy: it is {kind}: " in declined(table, tmp_path / "f")


def test_every_kind_has_its_advice() -> None:
    assert {kind for _, kind in MAGIC} <= set(ADVICE)


def test_truncated_npz_is_one_sentence(table: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", **{IDS[0]: np.ones((50, 2))})
    content = (tmp_path / "whole.npz").read_bytes()
    for left in (4, 30, 200, len(content) - 1):
        (tmp_path / "some.npz").write_bytes(content[:left])
        assert f"cannot read features from {tmp_path / 'some.npz'}" in declined(table, tmp_path / "some.npz")


def test_absent_source_is_one_sentence(table: Path, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no features at"):
        arrays.import_features(table, tmp_path / "some.npz", name="mine", modality="audio")
    with pytest.raises(Misuse, match="there is no file"):
        arrays.import_features(table, table, name="mine", modality="audio", id_file=tmp_path / "ids.csv")
    with pytest.raises(Misuse, match="unknown treatment of values"):
        arrays.import_features(table, table, name="mine", modality="audio", non_finite="drop")
