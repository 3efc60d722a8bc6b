"""Preparation of small corpora generated in the official formats; needs no corpus, weights or network."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from recordings import iemocap_files, lengths, meld_csv, refused, run, save_wav, tone, track, works, write_files

from data_prep.__main__ import main
from data_prep.corpora import iemocap, meld, ravdess
from data_prep.extractors import landmarks, text
from mer_bench.errors import Misuse
from mer_bench.features import open_features, verify_features
from mer_bench.utterances import read_table

pytest.importorskip("soundfile")
pytest.importorskip("librosa")

SOUND = tone(0.4, 16_000)
ACTOR_01 = [take for take in ravdess.all_takes() if take.endswith("-01")]


def test_unknown_pooling_names_the_choices(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="tokens, mean"):
        text.extract_text(tmp_path, pooling="max")


def test_ravdess_has_its_known_takes() -> None:
    takes = pd.Series(ravdess.all_takes())
    assert len(takes) == takes.nunique() == 1440
    assert takes.str[-2:].value_counts().eq(60).all()
    assert takes.str[3:5].value_counts().sort_index().tolist() == [96] + [192] * 7


@pytest.fixture
def actor(tmp_path: Path) -> Path:
    """Four takes of actor 01: wav and video; mp4 only; landmarks only; a wav that is no wav."""
    raw = tmp_path / "raw"
    a, b, c, d = ACTOR_01[:4]
    for folder in ("Actor_01", "copy/of/Actor_01"):  # some downloads contain everything twice
        save_wav(raw / folder / f"03-{a}.wav", SOUND)
    for name in (f"01-{a}.mp4", f"01-{b}.mp4", f"02-{b}.mp4", f"03-{d}.wav", f"02-{ACTOR_01[4]}.mp4"):
        (raw / "Actor_01" / name).write_bytes(b"no media")
    (raw / "Actor_01" / "03-02-01-01-01-01-01-01.wav").write_bytes(b"a song")
    xy = np.random.default_rng(0).integers(100, 600, (7, 68, 2)).astype(np.int16)
    np.savez(raw / "marks.npz", clip=np.array([f"02-{c}", f"02-{a}"]), offset=np.array([0, 3, 7]), xy=xy)
    return raw


def test_ravdess_table_has_one_row_per_take(actor: Path) -> None:
    table = ravdess.utterances(actor, partial=True).set_index("id")
    assert table.index.tolist() == ACTOR_01[:5]
    assert table["media"].tolist() == [
        f"Actor_01/03-{ACTOR_01[0]}.wav",
        f"Actor_01/01-{ACTOR_01[1]}.mp4",
        "",
        f"Actor_01/03-{ACTOR_01[3]}.wav",
        "",  # the audio track of a video-only file is silent
    ]
    first = table.iloc[0]
    assert (first["speaker"], first["session"], first["emotion"]) == ("01", "01", "neutral")
    assert first["text"] == "Kids are talking by the door"
    assert first["end"] == pytest.approx(0.4)
    assert table["end"].isna().tolist() == [False, True, True, True, True]


def test_ravdess_is_prepared_and_then_skipped(actor: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "data" / "ravdess"
    command = ("ravdess", "--raw", actor, "--out", tmp_path / "data", "--partial")
    first = works(*command)
    assert "WARNING" in first
    assert "actor 01 lacks 55 of 60" in first
    assert lengths(corpus / "mfcc") == [13, 0, 0, 0, 0]
    assert ACTOR_01[3] in first  # the broken wav is named
    assert lengths(corpus / "landmarks") == [4, 0, 3, 0, 0]
    spec = verify_features(corpus / "landmarks")
    assert (spec.modality, spec.dim) == ("vision", 140)
    assert verify_features(corpus / "mfcc").frame_rate == 31.25
    assert run(*command).output.count("already done") == 2

    save_wav(actor / "Actor_01" / f"03-{ACTOR_01[3]}.wav", SOUND)  # a repaired file: audio is computed again
    third = run(*command).output
    assert third.count("already done") == 0  # the clip's duration changes the table
    assert lengths(corpus / "mfcc") == [13, 0, 0, 13, 0]
    assert run(*command, "--force").output.count("already done") == 0


def test_damaged_feature_set_is_computed_again(actor: Path, tmp_path: Path) -> None:
    command = ("ravdess", "--raw", actor, "--out", tmp_path / "data", "--partial")
    run(*command)
    values = tmp_path / "data" / "ravdess" / "mfcc" / "values.npy"
    values.write_bytes(values.read_bytes()[:-100])
    assert run(*command).output.count("already done") == 1
    verify_features(values.parent)


def test_incomplete_or_unknown_ravdess_is_one_sentence(actor: Path, tmp_path: Path) -> None:
    assert "actor 01 lacks 55 of 60, nothing of actor 02, 03" in refused("ravdess", "--raw", actor, "--out", tmp_path)
    save_wav(actor / "03-01-01-02-01-01-01.wav", SOUND)  # neutral has no strong intensity
    assert "'01-01-02-01-01-01', which is not one of" in refused("ravdess", "--raw", actor, "--partial")
    (tmp_path / "empty").mkdir()
    assert "no RAVDESS speech file" in refused("ravdess", "--raw", tmp_path / "empty", "--partial")


def test_landmarks_from_csv_equal_those_from_npz(tmp_path: Path) -> None:
    take = ACTOR_01[0]
    xy = np.random.default_rng(0).integers(100, 600, (9, 68, 2)).astype(np.int16)
    xy[3] = 0  # no face found
    track(tmp_path / "csv" / f"01-{take}.csv", xy)
    (tmp_path / "npz").mkdir()
    np.savez(tmp_path / "npz" / "marks.npz", clip=np.array([f"02-{take}"]), offset=np.array([0, 9]), xy=xy)
    found = []
    for raw in (tmp_path / "csv", tmp_path / "npz"):
        (clip,) = landmarks.landmark_clips(ravdess.utterances(raw, partial=True), raw)
        found.append(landmarks.decode_landmarks(ravdess.read_landmark_archive(raw), clip))
    assert found[0].shape == (9, 140)
    np.testing.assert_array_equal(found[0], found[1])


def test_landmark_archive_that_was_cut_is_named(actor: Path, tmp_path: Path) -> None:
    path = actor / "marks.npz"
    path.write_bytes(path.read_bytes()[:-100])
    output = works("ravdess", "--raw", actor, "--out", tmp_path / "data", "--partial")
    assert f"{path} is skipped: File is not a zip file" in output
    assert "landmarks: skipped, there are none" in output


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"offset": [1, 3, 7]}, "its offsets begin with 1 instead of 0"),
        ({"offset": [0, 8, 7]}, "its offsets fall from 8 to 7"),
        ({"offset": [0, 3, 6]}, "its offsets end with 6, but it has 7 frames"),
        ({"offset": [0.0, 2.5, 7]}, "its offsets are not whole numbers"),
        ({"offset": []}, "it has 0 offsets for 2 utterances"),
        ({"offset": [0, 7]}, "it has 2 offsets for 2 utterances"),
        ({"clip": [f"02-{ACTOR_01[0]}"] * 2}, "it holds a clip more than once"),
        ({"xy": np.zeros((7, 2, 68))}, "expected [frames, 68, 2]"),
        ({"xy": np.full((7, 68, 2), "1")}, "expected [frames, 68, 2]"),
    ],
)
def test_wrong_landmark_archive_is_one_sentence(actor: Path, changes: dict[str, object], reason: str) -> None:
    with np.load(actor / "marks.npz") as archive:
        content = dict(archive)
    np.savez(actor / "marks.npz", **{**content, **{name: np.asarray(value) for name, value in changes.items()}})
    message = refused("ravdess", "--raw", actor, "--partial")
    assert f"cannot read landmarks from {actor / 'marks.npz'}: " in message
    assert reason in message


def test_landmarks_do_not_depend_on_position_and_size() -> None:
    xy = np.random.default_rng(0).uniform(100, 600, (20, 68, 2))
    plain = landmarks.normalise(xy)
    np.testing.assert_allclose(landmarks.normalise(xy * 2.5 + [40.0, -30.0]), plain, atol=1e-5)
    points = plain[:, :136].reshape(20, 68, 2)
    left, right = points[:, 36:42].mean(axis=1), points[:, 42:48].mean(axis=1)
    np.testing.assert_allclose((left + right) / 2, 0, atol=1e-5)
    assert np.median(np.linalg.norm(right - left, axis=1)) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(left[:, 1], right[:, 1], atol=1e-5)  # the eyes are level


def test_head_movement_is_in_the_last_columns_only() -> None:
    face = np.random.default_rng(0).uniform(-50, 50, (68, 2))
    face[36:42], face[42:48] = (-40, 0), (40, 0)
    angle, size = np.array([0.0, 0.2, -0.1]), np.array([1.0, 1.0, 1.5])
    position = np.array([[300.0, 200.0], [340.0, 200.0], [300.0, 120.0]])
    turn = np.moveaxis(np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), 2, 0)
    found = landmarks.normalise(np.einsum("tij,pj->tpi", turn, face) * size[:, None, None] + position[:, None])
    np.testing.assert_allclose(found[:, :136], np.outer(size, face.ravel() / 80), atol=1e-5)
    np.testing.assert_allclose(found[:, 136:138], (position - [300, 200]) / 80, atol=1e-5)
    np.testing.assert_allclose(found[:, 138:], np.stack([size, angle], 1), atol=1e-5)


def test_frames_without_a_face_repeat_the_last_good_one() -> None:
    xy = np.random.default_rng(0).uniform(100, 600, (5, 68, 2))
    holes = xy.copy()
    holes[0], holes[2], holes[3, 5, 1] = 0, 0, np.nan
    filled = landmarks.normalise(holes)
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[[0, 2, 3]], filled[[1, 1, 1]])
    assert len(landmarks.normalise(np.zeros((5, 68, 2)))) == 0
    assert len(landmarks.normalise(np.zeros((0, 68, 2)))) == 0


def test_bad_landmark_files(tmp_path: Path) -> None:
    (tmp_path / f"01-{ACTOR_01[0]}.csv").write_text("frame, x_0\n1, 3\n")
    assert "has no column y_0" in refused("ravdess", "--raw", tmp_path, "--out", tmp_path / "out", "--partial")
    np.savez(tmp_path / "m.npz", clip=np.array(["02-" + ACTOR_01[0]]), offset=np.array([0, 9]), xy=np.zeros((3, 68, 2)))
    assert "cannot read landmarks" in refused("ravdess", "--raw", tmp_path, "--partial")


SCRIPT = [  # start, utterance, emotion, transcript
    (6.0, "Ses01F_impro01_F000", "neu", "Excuse me."),
    (4.0, "Ses01F_impro01_M000", "fru", "Do you have your forms?"),
    (8.5, "Ses01F_impro01_FXX0", "xxx", None),
    (1.0, "Ses01M_script01_1b_M001", "ang", "You heard me."),
]


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_files(tmp_path / "download" / "IEMOCAP_full_release", iemocap_files(SCRIPT))
    (iemocap.find_root(tmp_path) / "Session1" / "dialog" / "EmoEvaluation" / "Categorical").mkdir()
    monkeypatch.setattr(iemocap, "COUNTS", {"neu": 1, "fru": 1, "xxx": 1, "ang": 1})
    monkeypatch.setattr(iemocap, "DIALOGUES", 2)
    monkeypatch.setattr(iemocap, "SESSIONS", 1)
    return tmp_path / "download"


def test_iemocap_table(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = iemocap.utterances(iemocap.find_root(release))
    assert table["id"].tolist() == [SCRIPT[i][1] for i in (1, 0, 2, 3)]
    assert table["turn"].tolist() == [0, 1, 2, 0]
    assert table["speaker"].tolist() == ["Ses01M", "Ses01F", "Ses01F", "Ses01M"]
    assert table["session"].unique().tolist() == ["1"]
    assert table["text"].tolist() == ["Do you have your forms?", "Excuse me.", "", "You heard me."]
    assert table["media"][1] == "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    assert "1 utterances have none, 2 lines belong to no utterance" in capsys.readouterr().out


@pytest.mark.parametrize("line_end", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_iemocap_in_any_line_ends_and_with_a_mark_at_the_beginning(release: Path, encoding: str, line_end: str) -> None:
    root = iemocap.find_root(release)
    expected = iemocap.utterances(root)
    for path in root.glob("Session*/dialog/*/Ses*.txt"):
        lines = [line for line in path.read_text().splitlines() if line.startswith(("[", "Ses"))]  # from the first on
        path.write_bytes((line_end.join(lines)).encode(encoding))
    pd.testing.assert_frame_equal(iemocap.utterances(root), expected)


FIRST = "[6.0000 - 7.0000]\tSes01F_impro01_F000\tneu\t"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[6.0000", "[six", "'[six - 7.0000]\\tSes01F_impro01_F000\\tneu\\t"),
        ("[6.0000", "[-6.0000", "is no label; expected [start - end], id and emotion"),
        ("7.0000]", "nan]", "is no label"),
        ("7.0000]", "5.0000]", "Ses01F_impro01_F000 ends at 5.0000 s, but begins at 6.0000 s"),
        ("7.0000]", "6.0000]", "Ses01F_impro01_F000 ends at 6.0000 s, but begins at 6.0000 s"),
        ("_F000\tneu", "_F000\tneutral", "is no label"),
        ("Ses01F_impro01_F000", "Ses02F_impro01_F000", "Ses02F_impro01_F000 is not of session 1"),
    ],
)
def test_wrong_line_of_iemocap_is_named(release: Path, old: str, new: str, reason: str) -> None:
    (path,) = release.rglob("EmoEvaluation/Ses01F_impro01.txt")
    text = path.read_text()
    assert FIRST in text
    path.write_text(text.replace(FIRST, FIRST.replace(old, new)))
    message = refused("iemocap", "--raw", release, "--partial")
    assert f"{path}, line 3: " in message
    assert reason in message


def test_wrong_transcript_of_iemocap_is_named(release: Path) -> None:
    (path,) = release.rglob("transcriptions/Ses01F_impro01.txt")
    text = path.read_text()
    path.write_text(text.replace("[006.0000-007.0000]", "[six-007.0000]"))
    assert f"{path}, line 2: 'Ses01F_impro01_F000 [six-007.0000]: Excuse me.' is no transcript" in refused(
        "iemocap", "--raw", release, "--partial"
    )
    path.write_text(text + "Ses01F_impro01_F000 [006.0000-007.0000]: Another.\n")
    assert "Ses01F_impro01_F000 has another transcript before" in refused("iemocap", "--raw", release, "--partial")


def test_iemocap_counts_are_those_of_the_release() -> None:
    assert sum(iemocap.COUNTS.values()) == 10_039
    assert sum(iemocap.COUNTS[code] for code in iemocap.COMMUNITY) == 7380


def test_iemocap_is_prepared(release: Path, tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = iemocap.find_root(release)
    save_wav(root / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav", SOUND)
    ids = np.array([row[1] for row in SCRIPT])
    np.savez(release / "audio.npz", ids=ids, gemaps47=np.arange(4 * 47, dtype=np.float32).reshape(4, 47))
    pack = {"dialogues": {"Ses01F_impro01": {"utt": [SCRIPT[2][1], SCRIPT[1][1]], "label": [0, 5]}}}
    (release / "iemocap6_dialogues.json").write_text(json.dumps(pack))
    monkeypatch.setattr(iemocap, "COMMUNITY_ROWS", 2)
    output = works("iemocap", "--raw", root, "--out", tmp_path, "--encoder", encoder)  # npz and json are beside RAW
    corpus = tmp_path / "iemocap"
    assert lengths(corpus / "mfcc") == [0, 13, 0, 0]
    assert lengths(corpus / "tiny") == [1, 1, 0, 1]
    gemaps = open_features(corpus / "gemaps")
    assert gemaps.spec.extractor == "gemaps47"
    np.testing.assert_array_equal(gemaps.values[:, 0], [47, 0, 94, 141])  # in table order
    with (corpus / "labels_six_community.csv").open() as file:
        assert list(csv.reader(file)) == [["id", "emotion"], [SCRIPT[1][1], "fru"], [SCRIPT[2][1], "hap"]]
    assert "1 xxx -> hap" in output


def test_bad_iemocap_is_one_sentence(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = tmp_path / "pack.json"
    command = ("iemocap", "--raw", release, "--out", tmp_path / "out", "--community", pack)
    for content, complaint in (
        ("[]", "not a file of six-class dialogues"),
        ('{"dialogues": {"d": {"utt": ["a"], "label": [9]}}}', "not a file of six-class dialogues"),
        ('{"dialogues": {"d": {"utt": ["a"], "label": [-1]}}}', "not a file of six-class dialogues"),
        ('{"dialogues": {"d": {"utt": ["a"], "label": [0]}}}', "that the table lacks (first: 'a')"),
        ('{"dialogues": {"d": {"utt": ["a", "a"], "label": [0, 1]}}}', "holds 1 utterances more than once"),
        ("[" * 100_000, "not a file of six-class dialogues"),
        ('{"dialogues": {}}', "holds 0 utterances"),
    ):
        pack.write_text(content)
        assert complaint in refused(*command)
    monkeypatch.setattr(iemocap, "SESSIONS", 5)
    assert "1 sessions instead of 5" in refused("iemocap", "--raw", release, "--out", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "no IEMOCAP release" in refused("iemocap", "--raw", tmp_path / "empty")


@pytest.fixture
def friends(tmp_path: Path) -> Path:
    rows = [
        ("Hi!", "Joey", "surprise", "positive", 0, 3, "00:20:57,256", "00:21:00,049"),
        ("I\x92m, None", "Ross", "surprise", "negative", 0, 1, "0:20:50,5", "0:20:52,000"),
        ("", "Ross", "neutral", "neutral", 12, 0, "?", "0:20:52,000"),
    ]
    for split in ("train", "dev", "test"):
        write_files(tmp_path / "MELD.Raw", {f"{split}_sent_emo.csv": meld_csv(rows).encode()})
    return tmp_path


def test_meld_table_and_sentiment(friends: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, sentiment = meld.utterances(friends, partial=True)
    ids = ["train_dia0_utt1", "train_dia0_utt3", "train_dia12_utt0", "validation_dia0_utt1"]
    assert table["id"].tolist()[:4] == ids
    assert table["turn"].tolist() == [0, 1, 0] * 3
    assert table["split"].unique().tolist() == ["train", "validation", "test"]
    assert table["text"][0] == "I’m, None"
    assert table["start"].tolist()[:2] == [1250.5, 1257.256]
    assert table["media"][3] == "dev_splits_complete/dia0_utt1.mp4"
    assert sentiment["emotion"].tolist()[:3] == ["negative", "positive", "neutral"]
    assert "encoding repaired in 3 fields; times: 3 unreadable" in capsys.readouterr().out


def test_meld_is_prepared(friends: Path, tmp_path: Path, encoder: Path) -> None:
    output = works("meld", "--raw", friends, "--out", tmp_path, "--partial", "--encoder", encoder)
    assert "train_dia125_utt3" in output  # the known defects are printed
    assert lengths(tmp_path / "meld" / "tiny")[:3] == [1, 1, 0]
    assert len(pd.read_csv(tmp_path / "meld" / "labels_sentiment.csv")) == len(read_table(tmp_path / "meld")) == 9


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("Iâ€™m", "I’m"),
        ("I\x92m \x93so\x94 sure\x85", "I’m “so” sure…"),
        ("donÂ\x92t", "don’t"),
        ("â€œyesâ€\x9d", "“yes”"),
        ("cafÃ©", "café"),
        ("Joey’s café – “naïve” …”", "Joey’s café – “naïve” …”"),
    ],
)
def test_encoding_is_repaired_once(broken: str, whole: str) -> None:
    assert meld.repair(broken) == whole
    assert meld.repair(whole) == whole


def test_meld_in_cp1252_is_read(friends: Path) -> None:
    path = friends / "MELD.Raw" / "train_sent_emo.csv"
    path.write_bytes(path.read_text(encoding="utf-8").replace("\x92", "’").encode("cp1252"))
    assert meld.read_split(friends, "train")["Utterance"][0] == "I’m, None"


@pytest.mark.parametrize(("encoding", "iconv"), [("gbk", "GBK"), ("mac_roman", "MACINTOSH"), ("utf-16", "UTF-16")])
def test_meld_in_another_encoding_is_refused_with_the_one_to_try(friends: Path, encoding: str, iconv: str) -> None:
    path = friends / "MELD.Raw" / "train_sent_emo.csv"
    text = path.read_text(encoding="utf-8").replace("I\x92m, None", "I’m “so” sure… no – yes")
    path.write_bytes(text.encode(encoding, "replace"))
    message = refused("meld", "--raw", friends, "--partial")
    assert f"its encoding is {encoding} and not UTF-8; convert it: iconv -f {iconv} -t UTF-8" in message
    path.write_bytes(text.encode("cp1252"))
    assert meld.read_split(friends, "train")["Utterance"][0] == "I’m “so” sure… no – yes"
    path.write_bytes(text.replace("I’m “so” sure…", "café").encode("latin-1", "replace"))
    assert meld.read_split(friends, "train")["Utterance"][0].startswith("café")


@pytest.mark.parametrize("number", ["x", "-1", "1.0", "", "1_0", "٣", "9" * 30, "nan"])
@pytest.mark.parametrize("column", ["Dialogue_ID", "Utterance_ID"])
def test_number_of_meld_that_is_none_is_named(friends: Path, column: str, number: str) -> None:
    path = friends / "MELD.Raw" / "dev_sent_emo.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows.loc[1, column] = number
    rows.to_csv(path, index=False)
    message = refused("meld", "--raw", friends, "--partial")
    assert f"{path} is not an official MELD file: its {column} {number!r} in row 2 is no number from 0 on" in message


WAV_FOLDERS = {
    "_wav": ("train_splits_wav", "dev_splits_wav", "test_splits_wav"),
    "release_wav": ("train_splits_wav", "dev_splits_complete_wav", "output_repeated_splits_test_wav"),
    "same": ("train_splits", "dev_splits_complete", "output_repeated_splits_test"),
}


@pytest.mark.parametrize("names", list(WAV_FOLDERS))
def test_meld_is_prepared_from_sounds(
    friends: Path, tmp_path: Path, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.prepare.common.extract_text", lambda *_, **__: None)
    folders = WAV_FOLDERS[names]
    for folder in folders:
        save_wav(friends / "sound" / folder / "dia0_utt1.wav", SOUND)
    save_wav(friends / "sound" / folders[1] / "dia12_utt0.wav", SOUND)
    output = works("meld", "--raw", friends, "--out", tmp_path / "data", "--partial")
    table = read_table(tmp_path / "data" / "meld")
    assert table["media"].tolist()[:3] == [f"{folders[0]}/dia{d}_utt{u}.wav" for d, u in ((0, 1), (0, 3), (12, 0))]
    assert table["media"].tolist()[-1] == f"{folders[2]}/dia12_utt0.wav"
    assert lengths(tmp_path / "data" / "meld" / "mfcc") == [13, 0, 0, 13, 0, 13, 13, 0, 0]
    assert "clips: 2 of 3 train clips are missing" in output


def test_films_of_meld_are_preferred_to_sounds(friends: Path, tmp_path: Path) -> None:
    for split in ("train", "dev"):
        save_wav(friends / "MELD.Raw" / f"{split}_splits_wav" / "dia0_utt1.wav", SOUND)
    write_files(friends / "MELD.Raw" / "train_splits", {"dia0_utt1.mp4": b"a film"})
    table, _ = meld.utterances(friends, partial=True)
    assert [media.partition("/")[0] for media in table["media"][::3]] == [
        "train_splits",
        "dev_splits_wav",
        "output_repeated_splits_test",
    ]


def test_bad_meld_is_one_sentence(friends: Path, tmp_path: Path) -> None:
    assert "3 train utterances instead of 9,989" in refused("meld", "--raw", friends, "--out", tmp_path)
    path = friends / "MELD.Raw" / "test_sent_emo.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("surprise", "suprise"), encoding="utf-8")
    assert "did you mean 'surprise'" in refused("meld", "--raw", friends, "--partial")
    path.write_text(text.replace("Emotion", "Feeling"), encoding="utf-8")
    assert "no column Emotion" in refused("meld", "--raw", friends, "--partial")
    path.unlink()
    assert "no MELD file test_sent_emo.csv" in refused("meld", "--raw", friends, "--partial")


def test_text_states_do_not_depend_on_the_batch(encoder: Path) -> None:
    texts = ["ab", "a much longer one , is it not ?", "c"]
    frozen = text.text_model(str(encoder))
    together = text.encode_texts(texts, frozen)
    alone = text.encode_texts(texts, frozen, batch_size=1)
    assert [len(frames) for frames in together] == [2, 23, 1]  # no special tokens
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    cut = text.encode_texts(texts, frozen, max_length=6)
    assert [len(frames) for frames in cut] == [2, 4, 1]
    means = text.encode_texts(texts, frozen, pooling="mean")
    assert [frames.shape for frames in means] == [(1, 8)] * 3


def test_text_set_records_its_encoder(encoder: Path, friends: Path, tmp_path: Path) -> None:
    run("meld", "--raw", friends, "--out", tmp_path, "--partial", "--encoder", encoder)
    spec = verify_features(tmp_path / "meld" / "tiny-tokens")
    assert (spec.extractor, spec.modality, spec.dim) == ("tiny", "text", 8)
    assert len(spec.revision) == 16
    assert spec.extractor_parameters > 0
    assert str(tmp_path) not in json.dumps(dict(spec.settings))
    again = ("text", "--table", tmp_path / "meld", "--encoder", encoder)
    assert "already done" in works(*again)
    assert "already done" not in works(*again, "--max-length", 9)


def test_own_features_are_imported(release: Path, tmp_path: Path, encoder: Path) -> None:
    run("iemocap", "--raw", release, "--out", tmp_path, "--encoder", encoder)
    table = tmp_path / "iemocap"
    source = tmp_path / "mine"
    source.mkdir()
    np.save(source / f"{SCRIPT[0][1]}.npy", np.ones((3, 5), np.float32))
    command = ("import", "--table", table, "--name", "mine", "--modality", "audio", "--source")
    works(*command, source)
    assert lengths(table / "mine") == [0, 3, 0, 0]
    assert "already done" in run(*command, source).output
    np.savez(tmp_path / "v.npz", ids=np.array(["stranger"]), x=np.ones((1, 5)), y=np.ones((2, 5)))
    assert "(first: 'stranger')" in refused(*command, tmp_path / "v.npz", "--key", "x")
    assert "'y' has 2 rows for 1 ids" in refused(*command, tmp_path / "v.npz", "--key", "y")
    assert "no array 'z'; it has 'ids', 'x', 'y'" in refused(*command, tmp_path / "v.npz", "--key", "z")
    (tmp_path / "no.npz").write_bytes(b"no archive")
    assert "cannot read features" in refused(*command, tmp_path / "no.npz", "--key", "x")


def test_help_names_every_command() -> None:
    output = run("--help").output
    assert all(name in output for name in ("ravdess", "iemocap", "meld", "text", "audio", "import"))
    assert isinstance(main, click.Group)
