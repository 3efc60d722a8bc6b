"""From a release to a batch: generated videos and sounds in the official layout of each corpus, through ``make data``.

The tone of each utterance is higher than that of the one before, and its picture depends on its position, its time and
its speaker, so that a wrong row, span or half of the picture would change the features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from recordings import contain, draw_face, iemocap_files, meld_csv, run, save_wav, tone, track, write_files

from data_prep.corpora import meld
from data_prep.extract import MISSING, REMARKS
from data_prep.extractors.vision import NO_FACE
from mer_bench.batch import Batch
from mer_bench.datasets import DATASETS
from mer_bench.features import open_features, verify_features

pytest.importorskip("av")
pytest.importorskip("cv2")
pytest.importorskip("decord")
pytest.importorskip("soundfile")

SILENT = np.zeros((2, 24_000), np.float32)
Picture = np.ndarray


def prepare(corpus: str, raw: Path, out: Path, features: str, *more: Any) -> Result:
    return run(corpus, "--raw", raw, "--out", out, "--partial", "--features", features, *more)


def first_batch(corpus: str, data: Path, split: str, features: dict[str, str], **which: Any) -> Batch:
    module = DATASETS[corpus](data, features, **which)
    module.setup("fit")
    loader = {"train": module.train_dataloader, "validation": module.val_dataloader, "test": module.test_dataloader}
    return next(iter(loader[split]()))


def lengths(folder: Path) -> dict[str, int]:
    """Number of frames of each utterance in a feature set, whose hashes are checked."""
    verify_features(folder)
    ids = pd.read_csv(folder.parent / "utterances.csv")["id"]
    return dict(zip(ids, np.diff(open_features(folder).offsets).tolist(), strict=True))


def sequences(folder: Path) -> list[np.ndarray]:
    opened = open_features(folder)
    return np.split(np.asarray(opened.values), opened.offsets[1:-1])


def reasons(folder: Path, file: str = MISSING) -> dict[str, str]:
    return dict(pd.read_csv(folder / file).itertuples(index=False))


def loudest(folder: Path) -> list[int]:
    """The loudest mel band of each utterance with sound."""
    return [int(spectrum.mean(axis=0).argmax()) for spectrum in sequences(folder) if len(spectrum)]


def hertz(n: int) -> float:
    """Frequency of the tone of utterance ``n``."""
    return 300.0 * 1.5**n


def wall(colour: tuple[int, int, int], width: int = 160, height: int = 120) -> Picture:
    return np.full((height, width, 3), colour, np.uint8)


def portrait(colour: tuple[int, int, int], x: float = 80) -> Picture:
    """A drawn face in front of a wall of the given colour."""
    picture = wall(colour)
    draw_face(picture, x, 62, 36)
    return picture


@pytest.fixture
def glove(tmp_path: Path) -> Path:
    """Vectors of a single word: the number of tokens of a text is the number of its occurrences."""
    path = tmp_path / "words.txt"
    path.write_text("word 1 2 3\n", encoding="utf-8")
    return path


#: parts in folds6, fold 1: test, train, train, validation, train, train
WHOLE, FILM, BROKEN, QUIET, MUTE, DEAF = (f"01-0{e}-01-01-01-0{a}" for e, a in zip("134567", "123458", strict=True))


@pytest.fixture
def zenodo(tmp_path: Path) -> Path:
    """Six takes of six actors, four of them with a defect, in the folders of the unpacked zips."""
    raw = tmp_path / "raw"
    for n, take in enumerate((WHOLE, FILM, BROKEN, QUIET, MUTE, DEAF)):
        actor = f"Actor_{take[-2:]}"
        film = raw / f"Video_Speech_{actor}" / actor / f"01-{take}.mp4"
        wav = raw / "Audio_Speech_Actors_01-24" / actor / f"03-{take}.wav"
        sound = np.stack([tone(0.5, 48_000, hertz(n))] * 2)
        if take != DEAF:
            pictures = [portrait((230, 230, 230), 60 + 4 * i) for i in range(10)]
            contain(film, SILENT if take == QUIET else sound, 48_000, "aac", pictures=pictures, fps=20)
            contain(film.with_name(f"02-{take}.mp4"), SILENT[:0], 48_000, "", pictures=[wall((0, 0, 0))] * 10, fps=20)
        if take in (WHOLE, BROKEN, DEAF):
            save_wav(wav, sound[0, : 0 if take == BROKEN else None], 48_000)
        if take == BROKEN:
            film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
        if take == MUTE:
            contain(film, SILENT[:0], 48_000, "", pictures=[wall((60, 60, 60))] * 10, fps=20)
        if take in (WHOLE, FILM):
            angle = np.linspace(0, 2 * np.pi, 69)[:-1]
            circle = 36 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + [60, 62]
            path = raw / "FacialTracking_Actors_01-24" / f"01-{take}.csv"
            track(path, circle + np.arange(10)[:, None, None] * [4, 0], **{"note": "caf?"})
            path.write_bytes(path.read_bytes().replace(b"?", b"\xe9"))
    return raw


def test_ravdess_from_films_and_sounds_to_a_batch(zenodo: Path, tmp_path: Path) -> None:
    data, corpus = tmp_path / "data", tmp_path / "data" / "ravdess"
    features = (
        "audio logmel --mels 40 --strict --workers 0; vision frames --frames 4 --side 32 --workers 0;"
        "vision frames --frames 2 --side 32 --faces detect --name found --workers 0"
    )
    result = prepare("ravdess", zenodo, data, features)
    assert result.exit_code == 1, result.output  # because of --strict; the other sets are computed nevertheless
    assert "error: logmel40 is stored, but lacks utterances" in result.output
    assert "6 of RAVDESS's 1,440 speech takes" in result.output
    assert "nothing of actor 06, 07, 09" in result.output

    heard = lengths(corpus / "logmel40")
    assert {take for take, frames in heard.items() if not frames} == {BROKEN, MUTE}
    assert heard[WHOLE] == heard[DEAF] == 51
    assert reasons(corpus / "logmel40") == {
        BROKEN: "the file holds no samples",  # the wav, which the table prefers, is empty
        MUTE: "it has no audio track",
    }
    bands = loudest(corpus / "logmel40")
    assert bands[0] < bands[1] < bands[3]
    assert bands[2] == 0, "silence"
    assert lengths(corpus / "mfcc").keys() == heard.keys()
    assert [lengths(corpus / "landmarks")[take] for take in (WHOLE, FILM, QUIET)] == [10, 10, 0]

    seen = {take for take, frames in lengths(corpus / "frames").items() if frames}
    assert seen == {WHOLE, FILM, QUIET, MUTE}
    assert "truncated" in reasons(corpus / "frames")[BROKEN]
    assert reasons(corpus / "frames")[DEAF] == "there is no file for it"
    assert reasons(corpus / "frames", REMARKS) == {QUIET: NO_FACE, MUTE: NO_FACE}  # no landmarks
    assert reasons(corpus / "found", REMARKS) == {MUTE: NO_FACE}
    images = sequences(corpus / "frames")[0].reshape(4, 3, 32, 32).astype(float)
    assert np.abs(images - images.mean(axis=0)).mean() < 12, "the box follows the face"

    chosen = {"audio": "logmel40", "vision": "frames"}
    which = {"label_set": "eight", "protocol": "folds6"}
    train = first_batch("ravdess", data, "train", chosen, **which)
    assert sorted(train.label.tolist()) == [2, 3, 5, 6]  # happy, sad, fearful, disgust
    assert train.frames["vision"].values.shape == (4, 4, 3 * 32 * 32)
    assert train.frames["vision"].values.max() > 200, "pixels stay what they are"
    assert abs(train.frames["audio"].values[train.frames["audio"].mask].mean()) < 1e-3, "standardised"
    (test,) = first_batch("ravdess", data, "test", chosen, **which).index
    (validation,) = first_batch("ravdess", data, "validation", chosen, **which).index
    assert (test, validation) == (0, 3)

    again = prepare("ravdess", zenodo, data, features)
    assert again.exit_code == 1
    assert again.output.count("already done") == 5


SPLITS = ("train", "validation", "test")
DIALOGUES = ("Ses01F_impro01", "Ses01M_impro01", "Ses05F_impro01")  #: one per split
LEFT, RIGHT = (230, 150, 150), (150, 150, 230)  #: the walls behind the two speakers
COMES_LATE = 90  #: added to the green channel in the second half of a dialogue


@pytest.fixture
def usc(tmp_path: Path) -> Path:
    """Three dialogues of two utterances, hers and his; a film without frames, a missing wav, a Latin-1 transcript."""
    release = tmp_path / "raw" / "IEMOCAP_full_release"
    turns = [(d, start, s, e) for d in DIALOGUES for start, s, e in ((0.1, "F", "hap"), (1.1, "M", "sad"))]
    texts = ["café", *("word " * (n + 1) for n in range(1, 6))]
    rows = [(start, f"{d}_{s}000", e, text) for (d, start, s, e), text in zip(turns, texts, strict=True)]
    write_files(release, iemocap_files(rows, seconds=0.8))
    for n, (_, name, _, _) in enumerate(rows):
        if n != 3:
            folder = release / f"Session{name[4]}" / "sentences" / "wav" / name.rpartition("_")[0]
            save_wav(folder / f"{name}.wav", tone(0.8, 16_000, hertz(n)))
    for dialogue in DIALOGUES:
        both = [np.hstack([portrait(LEFT), portrait(RIGHT)]) for _ in range(20)]
        for picture in both[10:]:
            picture[..., 1] += np.minimum(COMES_LATE, 255 - picture[..., 1])
        film = release / f"Session{dialogue[4]}" / "dialog" / "avi" / "DivX" / f"{dialogue}.avi"
        pictures = () if dialogue == "Ses01M_impro01" else both
        contain(film, SILENT, 48_000, "libmp3lame", pictures=pictures, fps=10)
    return tmp_path / "raw"


def test_iemocap_from_films_and_sounds_to_a_batch(usc: Path, tmp_path: Path, glove: Path, encoder: Path) -> None:
    data, corpus = tmp_path / "data", tmp_path / "data" / "iemocap"
    features = (
        "audio logmel --mels 40 --workers 0; vision frames --frames 2 --side 32 --faces detect --workers 0;"
        f"text --glove {glove}"
    )
    result = prepare("iemocap", usc, data, features, "--encoder", encoder)
    assert result.exit_code == 0, result.output
    assert "6 of IEMOCAP's 10,039 utterances" in result.output
    ids = list(lengths(corpus / "logmel40"))
    assert [i for i, frames in lengths(corpus / "logmel40").items() if not frames] == [ids[3]]
    assert reasons(corpus / "logmel40") == {ids[3]: "the file is absent"}
    assert loudest(corpus / "logmel40") == sorted(set(loudest(corpus / "logmel40")))
    assert list(lengths(corpus / "words-tokens").values()) == [0, 2, 3, 4, 5, 6]

    frames = sequences(corpus / "frames")
    assert [len(pictures) for pictures in frames] == [2, 2, 0, 0, 2, 2]
    assert "no video track" in reasons(corpus / "frames")[ids[2]]
    assert REMARKS not in {path.name for path in (corpus / "frames").iterdir()}, "a face was found in each"
    for first in (0, 4):  # in Ses..F_ the woman wears the markers and is on the left; the man speaks second
        hers, his = (frames[first + n].reshape(2, 3, -1).mean(axis=(0, 2)) for n in (0, 1))
        assert hers[0] > hers[2] + 15
        assert his[2] > his[0] + 15
        assert his[1] > hers[1] + 40

    chosen = {"text": "words-tokens", "audio": "logmel40", "vision": "frames"}
    which: dict[str, Any] = {"label_set": "six", "protocol": "session5", "context": "dialogue"}
    for i, batch in enumerate(first_batch("iemocap", data, split, chosen, **which) for split in SPLITS):
        assert (batch.index.tolist(), batch.label.tolist()) == ([2 * i, 2 * i + 1], [0, 1])
        assert set(batch.frames) == set(chosen)
    assert prepare("iemocap", usc, data, features, "--encoder", encoder).output.count("already done") == 6


@pytest.fixture
def umich(tmp_path: Path) -> Path:
    """Two utterances per split in the official folders; one clip truncated, one missing, a CSV in cp1252."""
    raw, n = tmp_path / "MELD.Raw", 0
    for split, folder, _ in meld.SPLITS.values():
        rows = []
        for number, (emotion, sentiment) in enumerate((("joy", "positive"), ("anger", "negative"))):
            words = "I’m word" if n == 0 else "word " * (n + 1)
            rows.append((words, "Joey", emotion, sentiment, 0, number, "00:20:57,256", "00:21:00,049"))
            clip = raw / folder / f"dia0_utt{number}.mp4"
            sound = np.stack([tone(0.5, 48_000, hertz(n))] * 2)
            if n != 5:
                contain(clip, sound, 48_000, "aac", pictures=[wall((40 * n, 0, 200 - 40 * n))] * 10, fps=20)
            if n == 2:
                clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
            n += 1
        content = meld_csv(rows).encode("cp1252" if split == "train" else "utf-8")
        write_files(raw, {f"{split}_sent_emo.csv": content})
    return tmp_path


def test_meld_from_films_and_sounds_to_a_batch(umich: Path, tmp_path: Path, glove: Path, encoder: Path) -> None:
    pytest.importorskip("opensmile")
    data, corpus = tmp_path / "data", tmp_path / "data" / "meld"
    features = (
        "audio egemaps --workers 0; audio logmel --mels 40 --workers 0;"
        f"vision frames --frames 2 --side 16 --faces none --workers 0; text --glove {glove}"
    )
    result = prepare("meld", umich, data, features, "--encoder", encoder)
    assert result.exit_code == 0, result.output
    assert "2 train utterances instead of 9,989" in result.output
    assert "encoding repaired in 1 fields" in result.output
    assert "clips: 1 of 2 test clips are missing" in result.output
    cut, absent = "validation_dia0_utt0", "test_dia0_utt1"
    for name, frames in (("egemaps", 1), ("logmel40", None), ("mfcc", None), ("frames", 2)):
        found = lengths(corpus / name)
        assert [i for i, count in found.items() if not count] == [cut, absent]
        assert frames is None or set(found.values()) == {0, frames}
        assert reasons(corpus / name)[absent] == "the file is absent"
        assert reasons(corpus / name)[cut]
    assert loudest(corpus / "logmel40") == sorted(set(loudest(corpus / "logmel40")))
    pitch = [vector[0, 0] for vector in sequences(corpus / "egemaps") if len(vector)][:2]
    assert pitch[1] - pitch[0] == pytest.approx(12 * np.log2(1.5), abs=0.2), "semitones"
    red = [pictures.reshape(2, 3, -1)[:, 0].mean() for pictures in sequences(corpus / "frames") if len(pictures)]
    np.testing.assert_allclose(red, [0, 40, 120, 160], atol=12)
    assert list(lengths(corpus / "words-tokens").values()) == [1, 2, 3, 4, 5, 6]

    chosen = {"text": "words-tokens", "audio": "egemaps", "vision": "frames"}
    which: dict[str, Any] = {"label_set": "seven", "protocol": "official", "context": "dialogue"}
    for i, batch in enumerate(first_batch("meld", data, split, chosen, **which) for split in SPLITS):
        assert (batch.index.tolist(), batch.label.tolist()) == ([2 * i, 2 * i + 1], [4, 6])
        assert batch.frames["vision"].mask.sum(1).tolist() == [[2, 2], [0, 2], [2, 0]][i]
    sentiment = first_batch("meld", data, "train", chosen, **which | {"label_set": "sentiment"})
    assert sentiment.label.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("features", "complaint"),
    [
        ("audio logmle", "'audio logmle': No such command 'logmle'"),
        ("sound logmel", "'sound logmel': No such command 'sound'"),
        ("audio", "'audio': No such command ''"),
        ("audio logmel; vision frames --side 3", "'vision frames --side 3': Invalid value for '--side': 3 is not in"),
        ("audio speech", "'audio speech': Missing option '--model'"),
        ("text --glove 'words.txt", "No closing quotation"),
    ],
)
def test_wrong_features_are_refused_before_any_work(tmp_path: Path, features: str, complaint: str) -> None:
    result = prepare("meld", tmp_path, tmp_path / "data", features)
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.split()).replace("│ ", "")
    assert not (tmp_path / "data").exists()
