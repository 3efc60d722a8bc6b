"""Feature packs of papers: a pickle that would run code is refused; known packs are matched with the right ids."""

from __future__ import annotations

import collections
import gzip
import os
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import recordings
from recordings import lengths, works, write_corpus

from data_prep.corpora import iemocap
from data_prep.imports import packs as import_pack
from data_prep.imports import unpickle
from data_prep.imports.unpickle import read_pickle
from mer_bench.errors import Misuse
from mer_bench.features import open_features, verify_features
from mer_bench.utterances import write_table

# --- the reader -------------------------------------------------------------------------------------------------------


class Payload:
    """An object whose pickle calls ``function`` when it is loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def marker(folder: Path) -> Path:
    return folder / "it_ran"


def in_an_object_array(value: Any) -> np.ndarray:
    array = np.empty(2, dtype=object)
    array[:] = [np.ones(2), value]
    return array


def payloads(folder: Path) -> dict[str, tuple[Any, str]]:
    mark = str(marker(folder))
    code = f"open({mark!r}, 'w').close()"
    system = Payload(os.system, f"touch {mark}")
    evaluate = Payload(eval, code)
    from numpy.testing._private.utils import runstring

    return {
        "os.system": (system, f"{os.system.__module__}.system"),
        "eval": (evaluate, "builtins.eval"),
        "exec": (Payload(exec, code), "builtins.exec"),
        "getattr": (Payload(getattr, np.ndarray, "tofile"), "builtins.getattr"),
        "Popen": (Payload(subprocess.Popen, ["touch", mark]), "subprocess.Popen"),
        "numpy.load": (Payload(np.load, mark, None, True), "numpy.load"),
        "numpy.testing": (Payload(runstring, code, {}), "numpy.testing._private.utils.runstring"),
        "nested": ({"videoText": [np.ones(3), ({"a": evaluate},)]}, "builtins.eval"),
        "as a key": ({(1, Payload(eval, "()")): 1}, "builtins.eval"),
        "in an object array": (in_an_object_array(system), f"{os.system.__module__}.system"),
        "as a default factory": (collections.defaultdict(os.getcwd), f"{os.getcwd.__module__}.getcwd"),
        "pandas": (pd.DataFrame({"a": [1]}), "pandas"),
        "a class": (Path, "pathlib"),
    }


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", list(payloads(Path("/"))))
def test_malicious_pickle_runs_nothing_and_names_what_it_called(name: str, protocol: int, tmp_path: Path) -> None:
    value, culprit = payloads(tmp_path)[name]
    path = tmp_path / "pack.pkl"
    content = pickle.dumps(value, protocol)
    path.write_bytes(content)
    with pytest.raises(Misuse, match=r"is refused: its pickle calls for .*nothing of it was run") as caught:
        read_pickle(path)
    assert culprit in str(caught.value) or protocol < 4  # older protocols write the module names of Python 2
    assert culprit.rpartition(".")[2] in str(caught.value) or (name, protocol) == ("pandas", 0)
    assert not marker(tmp_path).exists()
    if name in ("os.system", "eval", "exec", "nested", "in an object array"):  # check that the payloads work
        pickle.loads(content)
        assert marker(tmp_path).exists()


def test_dotted_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pack.pkl"
    for module, name in (("numpy", "ndarray.__class__"), ("builtins", "dict.__class__"), ("numpy", "core.os.system")):
        names = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name))
        path.write_bytes(b"\x80\x04" + names + b"\x93.")  # STACK_GLOBAL
        with pytest.raises(Misuse, match=f"calls for {module}.{name}"):
            read_pickle(path)


VALUES: dict[str, Any] = {
    "rows": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "turned": np.arange(12).reshape(2, 3, 2).transpose(2, 0, 1),
    "half": np.ones(3, np.float16),
    "truth": np.array([True, False]),
    "swapped": np.arange(3, dtype=">i4"),
    "none": np.empty((0, 3)),
    "single": np.array(3.0),
    "text": np.array(["ab", "c"]),
    "bytes": np.array([b"ab", b""]),
    "scalars": [np.float32(3), np.int64(4), np.bool_(True)],
    "containers": (
        collections.OrderedDict(a=1),
        collections.defaultdict(list, {1: [2]}),
        {1},
        frozenset({2}),
        b"\xff",
        b"",
    ),
    "numbers": [1, 2.5, 2j, None, True, 10**30, "naïve"],
}


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
        assert found.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")
    else:
        assert found == expected
        assert type(found) is type(expected)


@pytest.mark.parametrize("numpy_1", [False, True])
@pytest.mark.parametrize("protocol", range(6))
def test_data_come_back_as_they_were(protocol: int, numpy_1: bool, tmp_path: Path) -> None:
    for name, value in VALUES.items():
        content = pickle.dumps(value, protocol)
        if numpy_1:
            if protocol < 4:  # newer protocols store the length of a name
                content = content.replace(b"numpy._core", b"numpy.core")
            else:
                content = content.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
                content = content.replace(b"\x8c\x13numpy._core.numeric", b"\x8c\x12numpy.core.numeric")
                if content[2:3] == b"\x95":  # the header of a frame
                    content = content.replace(content[2:11], b"", 1)
            assert b"_core" not in content
        path = tmp_path / f"{name}.pkl"
        path.write_bytes(content)
        found = read_pickle(path)
        if isinstance(value, list | tuple):
            for a, b in zip(found, value, strict=True):
                assert_same(a, b)
        else:
            assert_same(found, value)


def test_object_arrays_of_arrays_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pack.pkl"
    ragged = in_an_object_array(np.ones((3, 2)))
    path.write_bytes(pickle.dumps(ragged))
    for found, expected in zip(read_pickle(path), ragged, strict=True):
        np.testing.assert_array_equal(found, expected)


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes what Python 2 with numpy 1 writes: byte strings for text and for an array's values, old module names."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_text(self, value: str | bytes) -> None:
        raw = value.encode("utf-8") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text


def python_2(value: Any, path: Path) -> None:
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(value)
    path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))


def test_python_2_pickles_are_read(tmp_path: Path) -> None:
    path = tmp_path / "pack.pkl"
    value = {"Ses01": [np.arange(300.0).reshape(2, 150), "Excuse me.", np.float64(2.5)], "label": [np.int64(4)]}
    python_2(value, path)
    assert b"numpy.core.multiarray" in path.read_bytes()
    with pytest.raises(UnicodeDecodeError):
        pickle.loads(path.read_bytes())
    found = read_pickle(path)
    np.testing.assert_array_equal(found["Ses01"][0], value["Ses01"][0])
    assert (found["Ses01"][1:], found["label"]) == (["Excuse me.", 2.5], [4])


def forged(shape: Any, dtype: Any, data: Any, state: Any = None) -> bytes:
    """The pickle of an array with inconsistent parts."""

    class Forged:
        def __reduce__(self) -> Any:
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, shape, dtype, False, data)

    return pickle.dumps(Forged())


class Flags:
    """A dtype of objects that is declared as plain memory: numpy would use the bytes as pointers."""

    def __reduce__(self) -> Any:
        return np.dtype, ("O8", False, True), (3, "|", None, None, None, 8, 8, 0)


@pytest.mark.parametrize(
    "content",
    [
        forged((3,), np.dtype("f8"), b"short"),
        forged((2**62, 4), np.dtype("f8"), b""),
        forged((-1,), np.dtype("f8"), b"12345678"),
        forged((1,), Flags(), b"AAAAAAAA"),
        forged((1,), np.dtype("O"), b"A"),
        forged((1,), np.dtype([("x", "f8")]), b"12345678"),
        forged((1,), np.dtype("M8[s]"), b"12345678"),
        forged((1,), 5, b"12345678"),
        pickle.dumps(Payload(np._core.multiarray.scalar, Flags(), b"AAAAAAAA")),
        pickle.dumps(Payload(np._core.numeric._frombuffer, b"AAAAAAAA", Flags(), (1,), "C")),
        pickle.dumps([1, 2, 3])[:-3],
        b"PK\x03\x04 a zip, such as torch.save writes",
        b"",
    ],
)
def test_broken_or_forged_pickle_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pack.pkl"
    path.write_bytes(content)
    with pytest.raises(Misuse, match="is not a readable pickle") as caught:
        read_pickle(path)
    assert "\n" not in str(caught.value)


ALLOWED = {  # every name that a pickle may have; whoever adds one must explain why it cannot do harm
    "numpy.dtype",
    "numpy.ndarray",
    "_codecs.encode",
    "collections.OrderedDict",
    "collections.defaultdict",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in ["bytes", "dict", "list", "tuple", "set", "frozenset", "int", "float", "complex", "bool", "str"]
    ),
}


def test_allowed_names_are_these_and_no_others() -> None:
    assert {".".join(name) for name in (*unpickle.CALLED, *unpickle.TYPES)} == ALLOWED
    types = {type_ for type_ in unpickle.TYPES.values() if type_ is not None}
    assert types == {
        collections.OrderedDict,
        collections.defaultdict,
        *(dict, list, tuple, set, frozenset, int, float, complex, bool, str),
    }
    assert all(function.__module__ == unpickle.__name__ for function in unpickle.CALLED.values())


@pytest.mark.parametrize("name", ["_reconstruct", "scalar"])
def test_state_set_on_an_allowed_function_is_not_seen_by_the_next_pickle(name: str, tmp_path: Path) -> None:
    path = tmp_path / "pack.pkl"
    state = b"}\x8c\x04evil\x8c\x01xs"  # {"evil": "x"}
    named = b"\x80\x04\x8c\x16numpy._core.multiarray\x8c" + bytes([len(name)]) + name.encode() + b"\x93"
    path.write_bytes(named + state + b"b.")  # BUILD: function.__dict__.update(state)
    assert read_pickle(path).evil == "x"
    path.write_bytes(named + b".")
    assert not hasattr(read_pickle(path), "evil")
    assert not any(hasattr(function, "evil") for function in unpickle.CALLED.values())


@pytest.mark.parametrize("dtype", ["V8", "|V2", [("x", "f4")], "M8[s]", "m8[s]"])
def test_types_without_numbers_are_refused(dtype: Any, tmp_path: Path) -> None:
    path = tmp_path / "pack.pkl"
    for value in (np.zeros(2, dtype), np.zeros(2, dtype)[0]):
        path.write_bytes(pickle.dumps(value, 4))
        with pytest.raises(Misuse, match=r"only numbers, strings and lists are supported|named fields"):
            read_pickle(path)


def test_gzip_is_read_and_a_bomb_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pack.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps({"a": np.arange(3)})))
    assert read_pickle(path)["a"].tolist() == [0, 1, 2]
    path.write_bytes(gzip.compress(pickle.dumps(Payload(os.getcwd))))
    with pytest.raises(Misuse, match="is refused: its pickle calls for"):
        read_pickle(path)
    path.write_bytes(gzip.compress(pickle.dumps([1]))[:-6])
    with pytest.raises(Misuse, match="is not a readable pickle: EOFError"):
        read_pickle(path)
    monkeypatch.setattr(unpickle, "unpacked_limit", lambda packed: 100 * packed)
    path.write_bytes(gzip.compress(pickle.dumps(bytes(1_000_000))))
    with pytest.raises(Misuse, match=r"unpacks to more than 1..,.00 bytes, which no features do"):
        read_pickle(path)


def test_pickle_in_text_mode_is_read_with_the_line_ends_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "pack.pkl"
    value = {"Ses01": ["Excuse me.", 1, 2.5, None, True], "x": np.arange(6.0).reshape(2, 3), 3: ("a", [])}
    path.write_bytes(pickle.dumps(value, 0).replace(b"\n", b"\r\n"))
    found = read_pickle(path)
    assert list(found) == list(value)
    assert found["Ses01"] == value["Ses01"]
    assert found["x"].tolist() == value["x"].tolist()
    for protocol in range(1, 6):  # in which a text of this kind stays as it is
        path.write_bytes(pickle.dumps(["a\r\nb"], protocol))
        assert read_pickle(path) == ["a\r\nb"]


def test_refusal_says_how_to_convert(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    joblib = pytest.importorskip("joblib")
    path = tmp_path / "pack.pkl"
    path.write_bytes(pickle.dumps({"a": torch.ones(2)}))
    with pytest.raises(
        Misuse, match=r"calls for torch.*nothing of it was run; load it with torch.load\(FILE, weights_"
    ):
        read_pickle(path)
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(Misuse, match=r"is not a readable pickle: it is a torch file: load it with torch.load"):
        read_pickle(path)
    joblib.dump({"a": np.ones(2)}, path)
    with pytest.raises(Misuse, match=r"calls for joblib.*; load it with joblib.load and store"):
        read_pickle(path)
    joblib.dump({"a": np.ones(2)}, path, compress=3)
    with pytest.raises(Misuse, match=r"it is zlib, as joblib.dump\(compress=...\) writes it: load it with joblib.load"):
        read_pickle(path)
    path.write_bytes(pickle.dumps(pd.Series([1.0])))
    with pytest.raises(Misuse, match=r"calls for pandas.*; load it with pandas.read_pickle"):
        read_pickle(path)
    np.savez(path.with_suffix(".npz"), a=np.ones(2))
    with pytest.raises(Misuse, match="it is an npz: mer-bench prepare import reads it"):
        read_pickle(path.with_suffix(".npz"))
    path.write_text("<!doctype html><html>Sign in</html>")
    with pytest.raises(Misuse, match="it is an HTML page instead of the file: download the file itself"):
        read_pickle(path)


# --- corpora and packs ------------------------------------------------------------------------------------------------

CODES = iemocap.COMMUNITY
SPEECH = [  # dialogue, speaker's letter, number, sentence, emotion; in the order of time
    ("Ses01F_impro01", "M", "000", "Do you have your forms?", "fru"),
    ("Ses01F_impro01", "F", "000", "Excuse me.", "neu"),
    ("Ses01F_impro01", "F", "001", "Yeah.", "xxx"),
    ("Ses01F_impro01", "M", "001", "Yeah.", "ang"),
    ("Ses01F_impro01", "F", "002", "Yeah.", "exc"),
    ("Ses05M_script01_1b", "M", "001", "You heard me!", "ang"),
    ("Ses05M_script01_1b", "F", "001", "Naïve, I know...", "sad"),
    ("Ses05M_script01_1b", "F", "002", "Fine.", "hap"),
    ("Ses05M_script01_1b", "F", "003", "Fine.", "oth"),
]
IDS = [f"{dialogue}_{letter}{number}" for dialogue, letter, number, _, _ in SPEECH]
#: rows in the order of a pack: the first two overlap in time, and it contains only the six emotions
IN_PACK = [1, 0, 3, 4, 5, 6, 7]


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """A prepared IEMOCAP of nine utterances."""
    dialogues, letters, _, texts, emotions = zip(*SPEECH, strict=True)
    speakers = [dialogue[:5] + letter for dialogue, letter in zip(dialogues, letters, strict=True)]
    columns = {"speaker": speakers, "session": [d[4] for d in dialogues], "text": texts, "emotion": emotions}
    return write_corpus(tmp_path / "data" / "iemocap", IDS, dialogue=dialogues, **columns)


def vector(row: int, dim: int, shift: float = 0) -> np.ndarray:
    return np.full(dim, row + shift, np.float32)


def iemocap_pack(*, layers: int = 1, ids: bool = True, sentiments: bool = False) -> list[Any]:
    """A pack of seven utterances; the vectors of row i contain i, plus a tenth for each further layer."""
    rows: dict[str, list[int]] = {}
    for i in IN_PACK:
        rows.setdefault(SPEECH[i][0], []).append(i)

    def each(function: Any) -> dict[str, list[Any]]:
        return {dialogue: [function(i) for i in which] for dialogue, which in rows.items()}

    text = [each(lambda i, k=k: vector(i, 4, k / 10)) for k in range(layers)]
    media = [each(lambda i: vector(i, 5)), {d: np.stack([vector(i, 6) for i in w]) for d, w in rows.items()}]
    speakers, labels = each(lambda i: SPEECH[i][1]), each(lambda i: CODES.index(SPEECH[i][4]))
    sentences = each(lambda i: SPEECH[i][3].replace("ï", "Ã¯"))
    if not ids:
        return [speakers, labels, *text, sentences, ["Ses01F_impro01"], ["Ses05M_script01_1b"], []]
    extra = [each(lambda i: 0)] if sentiments else []
    first = [each(lambda i: IDS[i]), speakers, labels, *extra, *text]
    return [*first, *media, sentences, {"Ses01F_impro01"}, {"Ses05M_script01_1b"}]


MELD = [  # split, dialogue, utterance, sentence, emotion
    ("train", 0, 0, "Hi!", "joy"),
    ("train", 0, 2, "I’m here, None", "neutral"),
    ("train", 1038, 0, "No.", "anger"),
    ("validation", 0, 0, "Oh my God!", "surprise"),
    ("validation", 113, 0, "Ew.", "disgust"),
    ("test", 0, 0, "Sorry.", "sadness"),
    ("test", 279, 1, "Help!", "fear"),
]
MELD_KEYS = [0, 0, 1038, 1039, 1152, 1153, 1432]


@pytest.fixture
def friends(tmp_path: Path) -> Path:
    """A prepared MELD of seven utterances, from the first and last dialogue of each split."""
    dialogues = [f"{split}_dia{dialogue}" for split, dialogue, *_ in MELD]
    splits, _, _, texts, emotions = zip(*MELD, strict=True)
    columns = {"dialogue": dialogues, "text": texts, "emotion": emotions, "split": splits}
    return write_corpus(tmp_path / "data" / "meld", list(EXPECTED_MELD), **columns)


def meld_pack(*, layers: int = 1, layout: str = "MMGCN", by_number: bool = True) -> tuple[Any, ...]:
    def each(function: Any) -> dict[int, list[Any]]:
        found: dict[int, list[Any]] = {}
        for i, key in enumerate(MELD_KEYS):
            found.setdefault(key, []).append(function(i))
        return found

    text = [each(lambda i, k=k: vector(i, 4, k / 10)) for k in range(layers)]
    audio, vision = each(lambda i: vector(i, 5).tolist()), each(lambda i: vector(i, 6))
    ids = each(lambda i: MELD[i][2]) if by_number else {key: list(range(MELD_KEYS.count(key))) for key in MELD_KEYS}
    speakers = each(lambda i: [0, 1, 0])
    labels = each(lambda i: import_pack.MELD_LABELS.index(MELD[i][4]))
    sentiments, sentences = each(lambda i: i % 3), each(lambda i: MELD[i][3].replace("’", "\x92"))
    train, test = [0, 1038, 1039, 1152], [1153, 1432]
    return {
        "DialogueRNN": (ids, speakers, labels, *text, audio, sentences, train, test, sentiments),
        "MMGCN": (ids, speakers, labels, *text, audio, vision, sentences, train, test, sentiments),
        "GraphSmile": (ids, speakers, labels, sentiments, *text, audio, vision, sentences, train, test, {}),
        "COSMIC": (speakers, labels, sentiments, *text, sentences, [0, 1038], test, [1039, 1152]),
    }[layout]


def write(folder: Path, content: Any, name: str = "Pack_Features.pkl") -> Path:
    path = folder / name
    path.write_bytes(pickle.dumps(content))
    return path


def command(table: Path, source: Path) -> tuple[Any, ...]:
    return "pack", "--table", table, "--source", source


def imported(table: Path, source: Path, *more: str) -> str:
    return works(*command(table, source), *more)


def refused(table: Path, source: Path) -> str:
    message = recordings.refused(*command(table, source))
    assert not list(table.glob("*/spec.json"))
    return message


def by_id(table: Path, name: str) -> dict[str, float]:
    """The first value of each utterance in the set, which in these packs is the number of its row."""
    features = open_features(table / name)
    ids = pd.read_csv(table / "utterances.csv")["id"]
    found = zip(ids, features.offsets[:-1], features.offsets[1:], strict=True)
    return {utterance: round(float(features.values[a, 0]), 3) for utterance, a, b in found if b > a}


EXPECTED = {IDS[i]: float(i) for i in IN_PACK}
EXPECTED_MELD = {f"{split}_dia{d}_utt{n}": float(i) for i, (split, d, n, _, _) in enumerate(MELD)}


def shifted(expected: dict[str, float], by: float) -> dict[str, float]:
    return {utterance: round(value + by, 3) for utterance, value in expected.items()}


@pytest.mark.parametrize("old", [False, True], ids=["python 3", "python 2"])
def test_mmgcn_pack_of_iemocap(sessions: Path, tmp_path: Path, old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iemocap, "COMMUNITY_ROWS", len(IN_PACK))
    source = write(tmp_path, tuple(iemocap_pack()))
    if old:
        python_2(tuple(iemocap_pack()), source)
    output = imported(sessions, source)
    assert "7 of 7 utterances found in the table" in output
    assert "train: 4 of session 1; test: 3 of session 5" in output
    assert "labels: 0 of 7 differ" in output
    assert "2 of them without audio" in output
    for modality, dim in (("text", 4), ("audio", 5), ("vision", 6)):
        assert by_id(sessions, f"pack-features-{modality}") == EXPECTED
        spec = verify_features(sessions / f"pack-features-{modality}")
        assert (spec.modality, spec.dim) == (modality, dim)
    assert spec.extractor == "DialogueRNN or MMGCN, IEMOCAP pack"
    assert len(spec.revision) == 64
    assert spec.settings["split"] == {"train": {"1": 4}, "test": {"5": 3}}
    labels = pd.read_csv(sessions / "labels_six_community.csv", index_col="id")["emotion"]
    assert labels.to_dict() == {IDS[i]: SPEECH[i][4] for i in IN_PACK}
    assert imported(sessions, source).count("already done") == 3


@pytest.mark.parametrize("sentiments", [False, True], ids=["M3Net", "GraphSmile"])
def test_four_layers_of_text_become_four_sets(sessions: Path, tmp_path: Path, sentiments: bool) -> None:
    source = write(tmp_path, iemocap_pack(layers=4, sentiments=sentiments))
    assert ("GraphSmile" if sentiments else "M3Net") in imported(sessions, source, "--name", "p")
    for i, name in enumerate(("p-text", "p-text2", "p-text3", "p-text4")):
        assert by_id(sessions, name) == shifted(EXPECTED, i / 10)
        assert open_features(sessions / name).spec.modality == "text"
    assert by_id(sessions, "p-audio") == by_id(sessions, "p-vision") == EXPECTED


def test_cosmic_pack_without_ids_is_matched_by_speaker_and_sentence(sessions: Path, tmp_path: Path) -> None:
    source = write(tmp_path, iemocap_pack(layers=4, ids=False))
    output = imported(sessions, source, "--name", "cosmic")
    assert "COSMIC, IEMOCAP: 7 of 7 utterances found in the table" in output
    assert by_id(sessions, "cosmic-text") == EXPECTED  # "Yeah." and "Fine." once too often in the table
    assert by_id(sessions, "cosmic-text4") == shifted(EXPECTED, 0.3)


def test_ambiguous_sentence_is_omitted(sessions: Path, tmp_path: Path) -> None:
    table = pd.read_csv(sessions / "utterances.csv", keep_default_na=False)
    table.loc[table["id"] == "Ses05M_script01_1b_F003", "emotion"] = "hap"  # "Fine.", happy, twice
    write_table(sessions, table)
    pack = iemocap_pack(layers=4, ids=False)
    rows = pack[0]["Ses01F_impro01"]
    for field in pack[:-3]:
        field["Ses01F_impro02"] = field["Ses01F_impro01"] * 3  # enough others, so that one of twenty may be omitted
    assert rows == ["F", "M", "M", "F"]
    extra = table[table["dialogue"] == "Ses01F_impro01"]
    copies = [extra.assign(id=extra["id"].str.replace("01_", f"02_{k}"), dialogue="Ses01F_impro02") for k in range(3)]
    whole = pd.concat([table, *copies], ignore_index=True)
    whole["turn"] = whole.groupby("dialogue").cumcount()
    write_table(sessions, whole)
    output = imported(sessions, write(tmp_path, pack), "--name", "c")
    assert "18 of 19 utterances found in the table" in output
    assert "Ses05M_script01_1b_F002" not in by_id(sessions, "c-text")


@pytest.mark.parametrize("by_number", [True, False], ids=["numbers of the CSV", "numbers from 0"])
@pytest.mark.parametrize(
    ("layout", "layers", "sets"),
    [
        ("DialogueRNN", 1, ["text", "audio"]),
        ("MMGCN", 1, ["text", "audio", "vision"]),
        ("MMGCN", 4, ["text", "text2", "text3", "text4", "audio", "vision"]),
        ("GraphSmile", 4, ["text", "text2", "text3", "text4", "audio", "vision"]),
        ("COSMIC", 4, ["text", "text2", "text3", "text4"]),
    ],
)
def test_meld_packs(layout: str, layers: int, sets: list[str], by_number: bool, friends: Path, tmp_path: Path) -> None:
    source = write(tmp_path, meld_pack(layers=layers, layout=layout, by_number=by_number))
    output = imported(friends, source, "--name", "p")
    assert ("M3Net" if (layout, layers) == ("MMGCN", 4) else layout) in output
    assert sorted(p.parent.name for p in friends.glob("*/spec.json")) == sorted(f"p-{name}" for name in sets)
    for name in sets:
        assert by_id(friends, f"p-{name}") == shifted(
            EXPECTED_MELD, int(name[4:] or 1) / 10 - 0.1 if "text" in name else 0
        )
    trained = "3 of split train" if layout == "COSMIC" else "3 of split train, 2 of split validation"
    assert f"train: {trained};" in output
    assert "test: 2 of split test" in output


def test_different_labels_are_counted_and_those_of_the_table_used(friends: Path, tmp_path: Path) -> None:
    pack = meld_pack()
    pack[2][1432][0] = 9
    pack[2][0][0] = 0
    output = imported(friends, write(tmp_path, pack))
    assert (
        "labels: 2 of 7 differ from the table's (1 joy -> neutral, 1 fear -> label 9); the table's are kept" in output
    )


def test_dialogue_of_another_length_is_omitted(friends: Path, tmp_path: Path) -> None:
    table = pd.read_csv(friends / "utterances.csv", keep_default_na=False)
    more = [
        {**table.iloc[0].to_dict(), "id": f"test_dia{d}_utt0", "dialogue": f"test_dia{d}", "split": "test"}
        for d in range(1, 31)
    ]
    rows = pd.DataFrame([*table.to_dict("records"), *more])
    write_corpus(friends, rows["id"], **{name: rows[name] for name in ("dialogue", "text", "emotion", "split")})
    pack = meld_pack(by_number=False)
    for d in range(1, 31):
        for field in pack[:7]:
            field[1153 + d] = field[0][:1]
    pack[4][1432] = []  # no audio for the last
    for field in pack[:7]:
        field[60] = field[1038]  # MELD has no such dialogue
    output = imported(friends, write(tmp_path, pack), "--name", "p")
    assert "36 of 38 utterances found in the table" in output
    assert "its parts differ in length (1 labels, 1 text, 0 audio, 1 vision, 1 sentences) (test_dia279)" in output
    assert set(EXPECTED_MELD) - set(by_id(friends, "p-audio")) == {"test_dia279_utt1"}


def test_pack_in_another_order_or_of_another_corpus_is_refused(friends: Path, sessions: Path, tmp_path: Path) -> None:
    pack = meld_pack()
    turned = {key: pack[6][other] for key, other in zip(pack[6], [0, *reversed(list(pack[6])[1:])], strict=True)}
    message = refused(friends, write(tmp_path, (*pack[:6], turned, *pack[7:])))
    assert "4 of 7 sentences differ from those of the table" in message
    silent = {key: [""] * len(rows) for key, rows in pack[6].items()}
    assert "sentences differ from those of the table" in refused(
        friends, write(tmp_path, (*pack[:6], silent, *pack[7:]))
    )
    assert "of which 0 are found in the table, whose ids look like 'Ses01F" in refused(sessions, write(tmp_path, pack))
    assert "of which 0 are found" in refused(friends, write(tmp_path, iemocap_pack()))
    twice = iemocap_pack()
    twice[0]["Ses01F_impro01"][1] = IDS[1]
    assert f"more than once (first: '{IDS[1]}')" in refused(sessions, write(tmp_path, twice))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([1, 2, {"a": [1.0]}], "a list of 3 (int, int, numbers)"),
        ({"train": {"x": 1}, "test": {}}, "a dictionary of train, test, the first of them a dictionary of x"),
        (np.ones((2, 3)), "an array of shape (2, 3)"),
        (iemocap_pack()[:-1], "a list of 8 (words, words, numbers, vectors, vectors, vectors, words, a list)"),
        (list(reversed(iemocap_pack())), "a list of 9 (a list, a list, words, vectors"),
        ("text", "a str"),
        ({}, "a dictionary of nothing"),
    ],
)
def test_unknown_pack_says_what_was_found_and_what_expected(
    content: Any, found: str, sessions: Path, tmp_path: Path
) -> None:
    message = refused(sessions, write(tmp_path, content))
    assert f"is not a known pack: it holds {found}" in message
    assert "expected a tuple of 9 (DialogueRNN or MMGCN, IEMOCAP: ids, speakers, labels, text, audio" in message
    assert "or a dictionary over train, valid and test" in message


def test_incomplete_pack_is_one_sentence(sessions: Path, tmp_path: Path) -> None:
    pack = iemocap_pack()
    del pack[0]["Ses01F_impro01"]
    assert "but is incomplete: KeyError('Ses01F_impro01')" in refused(sessions, write(tmp_path, pack))
    assert "is refused: its pickle calls for" in refused(sessions, write(tmp_path, [Payload(os.getcwd)]))


MELD_CLASSES = {0: "neutral", 1: "surprise", 2: "fear", 3: "sadness", 4: "joy", 5: "disgust", 6: "anger"}
IEMOCAP_CLASSES = {0: "hap", 1: "sad", 2: "neu", 3: "ang", 4: "exc", 5: "fru"}


def test_integers_of_packs_mean_these_classes(friends: Path, sessions: Path, tmp_path: Path) -> None:
    assert dict(enumerate(import_pack.MELD_LABELS)) == MELD_CLASSES
    assert dict(enumerate(iemocap.COMMUNITY)) == IEMOCAP_CLASSES
    pack = meld_pack()
    number = {name: i for i, name in MELD_CLASSES.items()}
    assert pack[2] == {
        0: [number["joy"], number["neutral"]],
        1038: [number["anger"]],
        1039: [number["surprise"]],
        1152: [number["disgust"]],
        1153: [number["sadness"]],
        1432: [number["fear"]],
    }
    assert "labels: 0 of 7 differ" in imported(friends, write(tmp_path, pack))


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "train_dia0"),
        (1038, "train_dia1038"),
        (1039, "validation_dia0"),
        (1152, "validation_dia113"),
        (1153, "test_dia0"),
        (1432, "test_dia279"),
    ],
)
def test_dialogues_of_meld_packs_are_numbered_through_the_splits(number: int, name: str) -> None:
    assert import_pack.meld_dialogue(number) == name


def test_absent_labels_are_counted(friends: Path, tmp_path: Path) -> None:
    pack = meld_pack()
    pack[2][0][0], pack[2][1432][0] = None, float("nan")
    output = imported(friends, write(tmp_path, pack), "--name", "p")
    assert "labels: 0 of 7 differ from the table's, and 2 are absent; the table's are kept" in output
    assert by_id(friends, "p-text") == EXPECTED_MELD


def as_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        return {as_bytes(key): as_bytes(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return type(value)(map(as_bytes, value))
    return value.encode("latin-1") if isinstance(value, str) else value


def test_text_in_bytes_is_decoded_keys_included(sessions: Path, friends: Path, tmp_path: Path) -> None:
    imported(sessions, write(tmp_path, as_bytes(iemocap_pack())), "--name", "p")
    assert by_id(sessions, "p-text") == by_id(sessions, "p-vision") == EXPECTED
    pack = mmsa_pack(aligned=False)
    raw = {name.encode(): {key.encode(): value for key, value in part.items()} for name, part in pack.items()}
    for part in raw.values():
        part[b"id"] = np.char.encode(part[b"id"])
        part[b"raw_text"] = np.array([text.encode("latin-1", "ignore") for text in part[b"raw_text"]], object)
    imported(friends, write(tmp_path, raw), "--name", "m")
    assert by_id(friends, "m-text") == shifted(EXPECTED_MELD, 1)
    both = {**pack, b"train": pack["train"]}
    assert "a key occurs as text and as bytes" in refused(write_again(friends), write(tmp_path, both))


def write_again(table: Path) -> Path:
    """The same corpus without feature sets."""
    for spec in table.glob("*/spec.json"):
        spec.unlink()
    return table


def test_dialogue_that_one_part_lacks_is_counted_before_it_is_dropped(friends: Path, tmp_path: Path) -> None:
    for lacking in (2, 3, 6):  # labels, text, sentences
        for empty in (False, True):
            pack = meld_pack()
            if empty:
                pack[lacking][1038] = []
            else:
                del pack[lacking][1038]
            message = refused(friends, write(tmp_path, pack))
            assert "has 7 utterances, of which 6 are found in the table" in message


def test_dialogue_in_two_splits_is_shown(friends: Path, tmp_path: Path) -> None:
    pack = meld_pack()
    pack[8].append(0)
    assert "train and test: 2 of split train; train: 1 of split train" in imported(friends, write(tmp_path, pack))


def test_nothing_is_stored_if_one_modality_is_wrong(friends: Path, tmp_path: Path) -> None:
    pack = meld_pack()
    pack[5][1432] = [np.ones(3, np.float32)]  # vision, the last
    assert "its vision features have several widths (3, 6)" in refused(friends, write(tmp_path, pack))
    pack[5][1432] = [np.array(["1", "2"])]
    assert "an array has the type <U1, expected real numbers" in refused(friends, write(tmp_path, pack))
    pack[5][1432] = [np.array([1j, 2])]
    assert "an array has the type complex128" in refused(friends, write(tmp_path, pack))


# --- dictionaries over splits -----------------------------------------------------------------------------------------

TIME = 6


def padded(rows: list[int], dim: int, *, lengths: list[int], before: bool = False) -> np.ndarray:
    """[utterance, TIME, dim]: each utterance's row number plus one, then (or before that) zeros."""
    values = np.zeros((len(rows), TIME, dim), np.float32)
    for i, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        values[i, TIME - length if before else 0 :][:length] = row + 1
    return values


def mmsa_pack(*, aligned: bool, stated: bool = True) -> dict[str, dict[str, Any]]:
    pack: dict[str, dict[str, Any]] = {}
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        rows = [i for i, row in enumerate(MELD) if row[0] == split]
        long = [2 + i % 3 for i in range(len(rows))]
        audio = padded(rows, 5, lengths=long if aligned else [5] * len(rows), before=not stated)
        pack[name] = {
            "raw_text": np.array([MELD[i][3] for i in rows]),
            "id": np.array([f"dia{MELD[i][1]}$_$utt{MELD[i][2]}" for i in rows]),
            "text": padded(rows, 4, lengths=long, before=not stated),
            "audio": audio if aligned else np.concatenate([audio, audio[:, :1] * 0], axis=1),
            "vision": padded(
                rows, 3, lengths=[min(3, n) for n in long] if aligned else [1] * len(rows), before=not stated
            ),
            "annotations": ["Positive" for _ in rows],
            "regression_labels": np.ones(len(rows)),
        }
        if stated:
            mask = np.arange(TIME) < np.array(long)[:, None]
            pack[name]["text_bert"] = np.stack([mask, mask, mask], axis=1).astype(np.float32)
        if stated and not aligned:
            pack[name] |= {"audio_lengths": [4] * len(rows), "vision_lengths": [2] * len(rows)}
    return pack


LONG = [2, 3, 4, 2, 3, 2, 3]  # of the seven utterances' texts


@pytest.mark.parametrize("stated", [True, False], ids=["lengths stated", "lengths from zeros"])
def test_unaligned_mmsa_pack_loses_its_padding(friends: Path, tmp_path: Path, stated: bool) -> None:
    output = imported(friends, write(tmp_path, mmsa_pack(aligned=False, stated=stated)), "--name", "m")
    assert "MMSA or MulT, not aligned: 7 of 7 utterances found in the table" in output
    assert "valid" in output
    assert "labels" not in output  # "Positive" is no emotion of the table
    assert by_id(friends, "m-text") == shifted(EXPECTED_MELD, 1)
    assert lengths(friends / "m-text") == LONG
    assert lengths(friends / "m-audio") == [4 if stated else 5] * 7
    assert lengths(friends / "m-vision") == [2 if stated else 1] * 7


@pytest.mark.parametrize("stated", [True, False], ids=["mask", "zeros"])
def test_aligned_pack_stays_aligned(friends: Path, tmp_path: Path, stated: bool) -> None:
    output = imported(friends, write(tmp_path, mmsa_pack(aligned=True, stated=stated)), "--name", "m")
    assert "MMSA or MulT, aligned: 7 of 7" in output
    for name in ("m-text", "m-audio", "m-vision"):
        assert lengths(friends / name) == LONG


def test_infinite_values_of_covarep_become_zero(friends: Path, tmp_path: Path) -> None:
    pack = mmsa_pack(aligned=False)
    pack["train"]["audio"][1, 0, 2:4] = -np.inf
    pack["test"]["audio"][0, 0, 0] = np.nan
    output = imported(friends, write(tmp_path, pack), "--name", "m")
    assert "m-audio: 3 values that are not finite became 0" in output
    spec = verify_features(friends / "m-audio")
    assert spec.settings["zeroed"] == 3
    assert open_features(friends / "m-audio").values[4].tolist() == [2, 2, 0, 0, 2]


def test_ids_of_mmsa_are_mapped_by_name_alone(sessions: Path, tmp_path: Path) -> None:
    values = padded(list(range(len(IDS))), 4, lengths=[3] * len(IDS))
    parts = [identity.rsplit("_", 1) for identity in IDS]
    for ids in (IDS, ["$_$".join(part) for part in parts], [[identity.encode()] for identity in IDS], np.array(parts)):
        order = np.random.default_rng(0).permutation(len(IDS))
        pack = {"test": {"text": values[order], "id": [ids[i] for i in order], "labels": np.zeros(len(IDS))}}
        imported(sessions, write(tmp_path, pack), "--name", "m", "--force")
        assert by_id(sessions, "m-text") == {identity: i + 1.0 for i, identity in enumerate(IDS)}


def test_split_dictionary_without_ids_is_refused(sessions: Path, tmp_path: Path) -> None:
    pack = mmsa_pack(aligned=False)
    for part in pack.values():
        del part["id"]
    assert "has no utterance ids ('id') in 'train', like MulT's IEMOCAP pack" in refused(
        sessions, write(tmp_path, pack)
    )
    pack = mmsa_pack(aligned=False)
    pack["test"]["audio"] = pack["test"]["audio"][:1]
    assert "'test' has 2 ids but 1 of audio" in refused(sessions, write(tmp_path, pack))
    pack = mmsa_pack(aligned=False)
    assert "of which 0 are found in the table" in refused(sessions, write(tmp_path, pack))


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["Train", "TRAIN", "training", " train "], "train"),
        (["val", "Valid", "dev", "DEV", "validation", "Development"], "validation"),
        (["Test", "testing"], "test"),
    ],
)
def test_usual_names_of_a_split_are_known(friends: Path, tmp_path: Path, names: list[str], split: str) -> None:
    usual = {"train": "train", "validation": "valid", "test": "test"}[split]
    for name in names:
        pack = {name if key == usual else key: part for key, part in mmsa_pack(aligned=False).items()}
        output = imported(friends, write(tmp_path, pack), "--name", "m", "--force")
        assert "7 of 7 utterances found in the table" in output
        assert f"{split}: " in output
        assert by_id(friends, "m-text") == shifted(EXPECTED_MELD, 1)


def test_part_that_is_no_split_or_one_twice_is_refused(friends: Path, tmp_path: Path) -> None:
    pack = mmsa_pack(aligned=False)
    odd = {"fold1" if key == "train" else key: part for key, part in pack.items()}
    assert "cannot be imported without loss: 'fold1' is not train, validation or test" in refused(
        friends, write(tmp_path, odd)
    )
    twice = {**pack, "dev": pack["valid"]}
    assert "cannot be imported without loss: valid and dev are one split" in refused(friends, write(tmp_path, twice))
    imported(friends, write(tmp_path, {**pack, "vocabulary": {"hi": 1}}), "--name", "m")


def test_modality_that_is_left_out_is_named(friends: Path, tmp_path: Path) -> None:
    pack = mmsa_pack(aligned=False)
    for part in pack.values():
        part["visual"] = part.pop("vision")
    del pack["test"]["audio"]
    output = imported(friends, write(tmp_path, pack), "--name", "m")
    assert "left out audio, visual: a modality is called text, audio or vision and is in every split" in output


def test_id_twice_in_a_split_dictionary_is_refused(friends: Path, tmp_path: Path) -> None:
    pack = mmsa_pack(aligned=False)
    pack["train"]["id"][1] = pack["train"]["id"][0]
    assert "holds 1 utterances more than once (first: 'train_dia0_utt0')" in refused(friends, write(tmp_path, pack))


def test_absent_annotations_are_counted(friends: Path, tmp_path: Path) -> None:
    pack = mmsa_pack(aligned=False)
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        pack[name]["annotations"] = [row[4].title() for row in MELD if row[0] == split]
    pack["train"]["annotations"][0] = None
    assert "labels: 0 of 7 differ from the table's, and 1 are absent" in imported(friends, write(tmp_path, pack))


@pytest.mark.parametrize("length", [-1, 1.5, float("nan"), float("inf"), "2", None, [1]])
def test_impossible_length_is_refused(friends: Path, tmp_path: Path, length: Any) -> None:
    pack = mmsa_pack(aligned=False)
    pack["train"]["audio_lengths"][0] = length
    assert "looks like a pack (MMSA or MulT) but is incomplete: " in refused(friends, write(tmp_path, pack))
