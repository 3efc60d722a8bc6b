"""New clips: the features of the corpus for the same files, what clips lack, and everything that is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
from recordings import contain, draw_face, save_speech_model, save_wav, save_whisper, tone, track, write_corpus

from data_prep.corpora.new_clips import NewClip, clips_from_csv, clips_from_paths, unique_ids, utterance_table
from data_prep.extract import extract
from data_prep.extractors import mfcc, vision
from data_prep.extractors.audio import extract_audio
from data_prep.extractors.landmarks import extract_landmarks
from data_prep.extractors.openface import COLUMNS, openface
from data_prep.extractors.text import extract_text
from data_prep.prepare.new_clips import LEFT_OUT, prepare_clips
from data_prep.prepare.rebuild import Source, rebuild
from mer_bench.errors import Misuse
from mer_bench.features import FeatureSpec, open_features, read_spec, verify_features
from mer_bench.utterances import read_table

pytest.importorskip("av")
pytest.importorskip("soundfile")
pytest.importorskip("decord")
cv2 = pytest.importorskip("cv2")

TAKES = ("01-03-01-01-01-01", "01-05-01-01-01-02")
TEXTS = ("kids are talking", "by the door, kids")


def points(frames: int) -> np.ndarray:
    """68 points around a face that moves to the right, [frames, 68, 2]."""
    angle = np.linspace(0, 2 * np.pi, 69)[:-1]
    circle = np.stack([80 + 25 * np.cos(angle), 60 + 25 * np.sin(angle)], axis=1)
    return circle + np.arange(frames)[:, None, None]


@pytest.fixture(scope="session")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two takes of RAVDESS, each a video with sound and its CSV of OpenFace."""
    folder = tmp_path_factory.mktemp("takes")
    names = [name for group in ("au", "pose", "gaze") for name in COLUMNS[group]]
    for n, take in enumerate(TAKES):
        pictures = [np.full((120, 160, 3), 20, np.uint8) for _ in range(25)]
        for i, picture in enumerate(pictures):
            draw_face(picture, 80 + i, 60, 25)
        wave = tone(1.0, 16_000, 300 + 200 * n)
        contain(folder / f"01-{take}.mp4", wave[None], 16_000, "aac", pictures=pictures)
        columns = {name: k + np.arange(25) / 100 for k, name in enumerate(names)}
        track(folder / f"01-{take}.csv", points(25) + n, timestamp=np.arange(25) * 1001 / 30_000, **columns)
    return folder


@pytest.fixture(scope="session")
def corpus(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared corpus of these takes."""
    media = [f"01-{take}.mp4" for take in TAKES]
    return write_corpus(tmp_path_factory.mktemp("data") / "ravdess", TAKES, media=media, text=TEXTS)


@pytest.fixture
def clips(raw: Path) -> list[NewClip]:
    """The same takes as clips of one's own."""
    found = clips_from_paths([raw], landmarks=sorted(raw.glob("*.csv")))
    return [replace(clip, text=text) for clip, text in zip(found, TEXTS, strict=True)]


@pytest.fixture(scope="session")
def models(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the frozen models of a test are."""
    folder = tmp_path_factory.mktemp("models")
    speech = save_speech_model(folder, "Wav2Vec2", "group")
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(folder / "vit")
    stated = {"image_mean": [0.5] * 3, "image_std": [0.2] * 3, "size": {"height": 32, "width": 32}}
    (folder / "vit" / "preprocessor_config.json").write_text(
        json.dumps({**stated, "image_processor_type": "ViTImageProcessor"})
    )
    words = folder / "words.txt"
    words.write_text("kids 1 0\ndoor 0 1\ntalking 1 1\n")
    return {
        "speech": str(speech),
        "whisper": str(save_whisper(folder / "whisper")),
        "image": str(folder / "vit"),
        "text": str(encoder),
        "words": str(words),
    }


def prepare(clips: Sequence[NewClip], into: Path, specs: Mapping[str, FeatureSpec], **options: Any) -> Any:
    return prepare_clips(clips, specs, into, **options)


def stated(modality: str = "audio", dim: int = 40, **changes: Any) -> FeatureSpec:
    """A specification as a model states it: by default that of the MFCC of this installation."""
    recipe = mfcc.mfcc({"source": "0"}).recipe
    facts = {**asdict(recipe), "modality": modality, **changes}
    hashes = dict.fromkeys(("table_sha256", "values_sha256", "offsets_sha256"), "0" * 64)
    return FeatureSpec(**facts, dim=dim, rows=9, frames=9, sketch=[0] * 16, extractor_parameters=0, **hashes)


def changed(spec: FeatureSpec, **settings: Any) -> FeatureSpec:
    return replace(spec, settings={**spec.settings, **settings})


# --- the same features ------------------------------------------------------------------------------------------------

opensmile = pytest.mark.skipif(find_spec("opensmile") is None, reason="opensmile is not installed")
few = {"count": 3, "side": 32}

#: name -> (key of the frozen model, function that stores the set of a corpus)
SETS: dict[str, tuple[str, Callable[[Path, Path, str], FeatureSpec]]] = {
    "mfcc": ("", lambda corpus, raw, model: extract_audio(corpus, raw, "mfcc")),
    "mfcc13": ("", lambda corpus, raw, model: extract_audio(corpus, raw, "mfcc13")),
    "logmel": ("", lambda corpus, raw, model: extract_audio(corpus, raw, "logmel", mels=20)),
    "egemaps": ("", lambda corpus, raw, model: extract_audio(corpus, raw, "egemaps")),
    "egemaps-lld": ("", lambda corpus, raw, model: extract_audio(corpus, raw, "egemaps", level="lld")),
    "speech": ("speech", lambda corpus, raw, model: extract_audio(corpus, raw, "speech", model=model, layer="1")),
    "speech, mean": (
        "speech",
        lambda corpus, raw, model: extract_audio(corpus, raw, "speech", model=model, layer="mean", pooling="mean"),
    ),
    "whisper": ("whisper", lambda corpus, raw, model: extract_audio(corpus, raw, "whisper", model=model, layer="2")),
    "whisper, last": (
        "whisper",
        lambda corpus, raw, model: extract_audio(corpus, raw, "whisper", model=model, average=1),
    ),
    "tokens": ("text", lambda corpus, raw, model: extract_text(corpus, encoder=model, max_length=5)),
    "text, mean": ("text", lambda corpus, raw, model: extract_text(corpus, encoder=model, pooling="mean")),
    "words": ("words", lambda corpus, raw, model: extract_text(corpus, glove=Path(model))),
    "pixels by landmarks": ("", lambda corpus, raw, model: vision.extract_vision(corpus, raw, **few)),
    "pixels by detector": (
        "",
        lambda corpus, raw, model: vision.extract_vision(corpus, raw, face="detect", margin=0.3, fps=4.0, side=16),
    ),
    "pixels as in CFN-SR": ("", lambda corpus, raw, model: vision.extract_vision(corpus, raw, crop="cfn_sr", **few)),
    "image": (
        "image",
        lambda corpus, raw, model: vision.extract_vision(
            corpus, raw, partial(vision.image, model=model, layer=1, pooling="cls"), face="none", count=3
        ),
    ),
    "image, pooler": (
        "image",
        lambda corpus, raw, model: vision.extract_vision(corpus, raw, partial(vision.image, model=model), count=2),
    ),
    "openface": ("", lambda corpus, raw, model: extract(corpus, *openface(corpus, raw, gaps="drop"))),
    "landmarks": (
        "",
        lambda corpus, raw, model: extract_landmarks(corpus, raw) and read_spec(corpus / "landmarks"),  # type: ignore[return-value]
    ),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=opensmile) if "egemaps" in n else n for n in SETS])
def test_a_clip_gets_the_features_that_the_same_file_has_in_a_corpus(
    name: str, raw: Path, corpus: Path, clips: list[NewClip], models: dict[str, str], tmp_path: Path
) -> None:
    key, store = SETS[name]
    spec = store(corpus, raw, models.get(key, ""))
    given = {spec.modality: models[key]} if key else {}
    found = prepare(clips, tmp_path, {spec.modality: spec}, models=given)
    assert found.ids == tuple(f"01-{take}.mp4" for take in TAKES)
    assert not any(found.missing.values())
    assert not found.refused
    theirs, ours = open_features(corpus / spec.name), open_features(tmp_path / spec.name)
    np.testing.assert_array_equal(ours.offsets, theirs.offsets)
    np.testing.assert_array_equal(ours.values, theirs.values)
    assert len(ours.values) > 1
    verify_features(tmp_path / spec.name)
    decode = rebuild(spec.modality, spec, Source(clips, given)).extractor.decode
    assert pickle.loads(pickle.dumps(decode)).func is decode.func if isinstance(decode, partial) else decode  # type: ignore[attr-defined]
    assert list(read_table(tmp_path)["text"]) == list(TEXTS)
    assert not list(tmp_path.glob(".*"))  # nothing is left of the extraction
    clips = [replace(clip, landmarks=None) for clip in clips]
    if spec.extractor in ("OpenFace", "facial landmarks") or spec.settings.get("faces") == "landmarks":
        with pytest.raises(Misuse, match=r"^vision: .* \(--landmarks FILE.csv\), or leave .* \(--without vision\)$"):
            prepare(clips, tmp_path, {"vision": spec})


# --- what clips lack --------------------------------------------------------------------------------------------------


def test_what_a_clip_lacks_is_missing_with_a_reason(
    raw: Path, corpus: Path, models: dict[str, str], tmp_path: Path
) -> None:
    specs = {
        "text": extract_text(corpus, glove=Path(models["words"])),
        "audio": stated(),
        "vision": vision.extract_vision(corpus, raw, face="none", **few),
    }
    save_wav(tmp_path / "a.wav", tone(0.5, 16_000))
    save_wav(tmp_path / "silent.wav", np.zeros(8000, np.float32))
    contain(tmp_path / "film.mp4", np.empty((0, 0)), 16_000, "", pictures=np.zeros((5, 120, 160, 3), np.uint8))
    (tmp_path / "broken.mp4").write_bytes(b"<html>404</html>" * 50)
    names = ("a.wav", "broken.mp4", "film.mp4", "silent.wav")
    clips = [NewClip(n, tmp_path / n, text="the door" if n == "silent.wav" else "") for n in names]
    clips.append(NewClip("said", text="kids"))
    found = prepare(clips, tmp_path / "out", specs, models={"text": models["words"]})
    assert found.ids == ("a.wav", "film.mp4", "silent.wav", "said")
    no_text, no_file = "there is no transcript of it", "there is no file for it"
    assert found.missing == {
        "a.wav": {"text": no_text, "vision": "the file has no video track"},
        "film.mp4": {"text": no_text, "audio": "it has no audio track"},
        "silent.wav": {"audio": "its sound is silent", "vision": "the file has no video track"},
        "said": {"audio": no_file, "vision": no_file},
    }
    (name, sentence), *others = found.refused.items()
    assert (name, others) == ("broken.mp4", [])
    assert sentence.startswith(f"text: {no_text}, audio: it cannot be decoded: Invalid data")
    assert list(read_table(tmp_path / "out")["id"]) == list(found.ids)
    assert recordings.lengths(tmp_path / "out" / "mfcc") == [16, 0, 0, 0]
    assert recordings.lengths(tmp_path / "out" / "words-tokens") == [0, 0, 1, 1]


def test_clips_with_nothing_that_the_model_reads_are_refused(tmp_path: Path) -> None:
    save_wav(tmp_path / "a.wav", np.zeros(8000, np.float32))
    clip = NewClip("a.wav", tmp_path / "a.wav")
    with pytest.raises(Misuse, match=r"reads is in the clip a\.wav: audio: its sound is silent$"):
        prepare([clip], tmp_path / "out", {"audio": stated()})
    with pytest.raises(Misuse, match=r"reads is in none of the 2 clips, such as a\.wav: audio: its sound is silent$"):
        prepare([clip, replace(clip, id="b")], tmp_path / "out", {"audio": stated()})
    assert not (tmp_path / "out" / "utterances.csv").exists()


def test_a_modality_is_left_out_if_the_user_says_so(tmp_path: Path) -> None:
    save_wav(tmp_path / "a.wav", tone(0.5, 16_000))
    clip = NewClip("a.wav", tmp_path / "a.wav")
    specs = {"audio": stated(), "gaze": stated("gaze", name="gaze", extractor="eye tracker")}
    with pytest.raises(Misuse, match=r"^gaze: .* 'gaze' of 'eye tracker', which were imported .* \(--without gaze\)$"):
        prepare([clip], tmp_path / "out", specs)
    found = prepare([clip], tmp_path / "out", specs, without=["gaze"])
    assert found.missing == {"a.wav": {"gaze": LEFT_OUT}}
    assert not (tmp_path / "out" / "gaze").exists()
    with pytest.raises(Misuse, match="no modality of the model is left without audio, gaze"):
        prepare([clip], tmp_path / "out", specs, without=["gaze", "audio"])
    with pytest.raises(Misuse, match="unknown modality of the model 'gase': did you mean 'gaze'"):
        prepare([clip], tmp_path / "out", specs, without=["gase"])
    with pytest.raises(Misuse, match="unknown modality of the model 'text'"):
        prepare([clip], tmp_path / "out", specs, models={"text": "anything"})


def test_landmarks_at_another_rate_are_remarked(raw: Path, corpus: Path, tmp_path: Path) -> None:
    extract_landmarks(corpus, raw)
    spec = read_spec(corpus / "landmarks")
    track(tmp_path / "slow.csv", points(9), timestamp=np.arange(9) / 15)
    track(tmp_path / "unknown.csv", points(9))
    clips = [NewClip(name, landmarks=tmp_path / name) for name in ("slow.csv", "unknown.csv")]
    found = prepare(clips, tmp_path / "out", {"vision": spec})
    sentence = "its landmarks have 15 frames per second, those of the training 29.97"
    assert found.remarks == {"slow.csv": {"vision": sentence}, "unknown.csv": {}}


# --- another extractor ------------------------------------------------------------------------------------------------


def refusal(tmp_path: Path, spec: FeatureSpec, modality: str = "audio", name: str = "a.wav", **options: Any) -> str:
    """The sentence that refuses a model which reads ``spec``."""
    save_wav(tmp_path / "a.wav", tone(0.5, 16_000))
    clip = NewClip(name, tmp_path / name, text="kids")
    with pytest.raises(Misuse) as caught:
        prepare([clip], tmp_path / "out", {modality: spec}, **options)
    assert not (tmp_path / "out").exists()
    message = str(caught.value)
    assert message.startswith(f"{modality}: ")
    assert message.endswith(f", or leave the modality out (--without {modality})")
    return message


def test_an_extractor_that_differs_is_refused_by_name(tmp_path: Path) -> None:
    spec = stated()
    older = refusal(tmp_path, replace(spec, revision="torchaudio 1.0"))
    assert 'reads \'mfcc\' with revision "torchaudio 1.0", and this installation has "torchaudio 2.' in older
    assert "with hop_length 256, and this installation has 512" in refusal(tmp_path, changed(spec, hop_length=256))
    assert 'with colour "red", and this installation has null' in refusal(tmp_path, changed(spec, colour="red"))
    assert "with frame_rate 10.0, and" in refusal(tmp_path, replace(spec, frame_rate=10.0))
    assert "usable setting 'n_mfcc' of 'mfcc'" in refusal(tmp_path, changed(spec, n_mfcc="../x"))
    assert "which were imported" in refusal(tmp_path, changed(spec, n_mfcc=20))
    assert 'with layer "3", and' in refusal(tmp_path, replace(spec, layer="3"), "audio2")


def test_the_decoder_counts_if_both_read_containers(raw: Path, clips: list[NewClip], tmp_path: Path) -> None:
    spec = changed(stated(), decoder="PyAV 1")
    with pytest.raises(Misuse, match='reads \'mfcc\' with decoder "PyAV 1", and this installation has "PyAV '):
        prepare(clips, tmp_path / "out", {"audio": spec})
    save_wav(tmp_path / "a.wav", tone(0.5, 16_000))
    assert prepare([NewClip("a.wav", tmp_path / "a.wav")], tmp_path / "out", {"audio": spec}).ids == ("a.wav",)
    assert len(prepare(clips, tmp_path / "mp4", {"audio": stated()}).ids) == 2  # trained on wav files


def test_frozen_models_are_the_ones_that_the_user_names(
    corpus: Path, models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = extract_text(corpus, encoder=models["text"])
    monkeypatch.chdir(Path(models["text"]).parent)  # where a folder has the name that the specification states
    assert "'tiny': say where that is, with its name on the Hugging Face hub" in refusal(tmp_path, spec, "text")
    other = recordings.save_encoder(tmp_path / "other")
    named = refusal(tmp_path, spec, "text", models={"text": str(other)})
    assert 'reads \'tiny\' with extractor "tiny", and this installation has "other"' in named
    retrained = replace(spec, revision="0" * 16)
    assert 'with revision "0000000000000000"' in refusal(tmp_path, retrained, "text", models={"text": models["text"]})
    assert "the model 'nobody/nothing' is not on this machine: pass --download" in refusal(
        tmp_path, spec, "text", models={"text": "nobody/nothing"}
    )
    words = replace(spec, layer="word vectors")
    assert "there is no file nothing.txt" in refusal(tmp_path, words, "text", models={"text": "nothing.txt"})


def test_a_package_that_is_not_installed_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = stated()

    def absent(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr("data_prep.extract.version", absent)
    assert "needs the package torchaudio: pip install 'mer-bench[prep]'" in refusal(tmp_path, spec)


def test_features_of_another_width_are_refused(tmp_path: Path) -> None:
    save_wav(tmp_path / "a.wav", tone(0.5, 16_000))
    with pytest.raises(Misuse, match="mfcc: the features have 40 columns, and the model reads 7"):
        prepare([NewClip("a.wav", tmp_path / "a.wav")], tmp_path / "out", {"audio": stated(dim=7)})


# --- lists of clips ---------------------------------------------------------------------------------------------------


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in names]


def test_a_folder_gives_its_clips_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "b.WAV", "a.mp4", "notes.txt", ".hidden.wav", "deeper/c.wav")
    assert [clip.id for clip in clips_from_paths([tmp_path])] == ["a.mp4", "b.WAV"]
    with pytest.raises(Misuse, match="holds no clip: no file in it is a sound or a video"):
        clips_from_paths([tmp_path, touch(tmp_path / "none", "notes.txt")[0].parent])


def test_ids_are_the_files_names_made_plain_and_unique() -> None:
    names = ["a.wav", "a.wav", "my clip (1).mp4", "../up.wav", "ünder.wav", "笑.wav", "a.wav-2"]
    assert unique_ids(names) == ["a.wav", "a.wav-2", "my-clip-1-.mp4", "up.wav", "nder.wav", "wav", "a.wav-2-2"]
    assert unique_ids(["笑"]) == ["clip"]
    assert unique_ids(["a"], taken=["a"]) == ["a-2"]
    assert len(unique_ids(["x" * 500])[0]) <= 100


def test_text_and_landmarks_belong_to_their_clips(tmp_path: Path) -> None:
    one, two, csv, other = touch(tmp_path, "one.mp4", "two.mp4", "two.csv", "other.csv")
    assert clips_from_paths([one], text="hello", landmarks=[other])[0] == NewClip("one.mp4", one, "hello", other)
    assert [clip.landmarks for clip in clips_from_paths([one, two], landmarks=[csv])] == [None, csv]
    assert clips_from_paths([], text="hello") == [NewClip("text", None, "hello")]
    assert clips_from_paths([], landmarks=[csv]) == [NewClip("two.csv", landmarks=csv)]
    for arguments, sentence in (
        (([one, two], "hello"), "--text belongs to one clip, and 2 are given: .* --clips FILE.csv"),
        (([one, two], None, [other]), r"other\.csv fit none of the clips"),
        (([one, one], None, touch(tmp_path, "one.csv")), r"one\.csv fit 2 of the clips"),
        (([two], None, [csv, *touch(tmp_path, "b/two.csv")]), r"gives .*two\.mp4 two files"),
        (([tmp_path / "absent.wav"],), r"there is no file .*absent\.wav"),
        (([one], None, [tmp_path / "absent.csv"]), r"there is no file .*absent\.csv"),
        (([],), "there is no clip: name media files"),
    ):
        paths, text, landmarks = (*arguments, None, ())[:3] if len(arguments) < 3 else arguments  # type: ignore[misc]
        with pytest.raises(Misuse, match=sentence):
            clips_from_paths(paths, text=text, landmarks=landmarks or ())  # type: ignore[arg-type]


def listed(folder: Path, *lines: str) -> list[NewClip]:
    (folder / "clips.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return clips_from_csv(folder / "clips.csv")


def test_a_csv_states_texts_speakers_and_dialogues(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "sub/b.wav", "c.csv")
    clips = listed(
        tmp_path,
        "path,text,speaker,dialogue,turn,landmarks,id",
        'a.wav,"Hello, you",Ann,first,7,c.csv,',
        "sub/b.wav,None,Bob,second,0,,mine",
        ",Bye,Bob,first,2,,",
    )
    assert clips == [
        NewClip("row-3", None, "Bye", None, "first", "Bob"),
        NewClip("a.wav", tmp_path / "a.wav", "Hello, you", tmp_path / "c.csv", "first", "Ann"),
        NewClip("mine", tmp_path / "sub" / "b.wav", "None", None, "second", "Bob"),
    ]
    table = utterance_table(clips)
    assert list(table["dialogue"]) == ["first", "first", "second"]
    assert list(table["turn"]) == [0, 1, 0]
    assert list(table["speaker"]) == ["Bob", "Ann", "Bob"]


def test_a_csv_without_dialogues_keeps_its_order_and_each_clip_is_one(tmp_path: Path) -> None:
    touch(tmp_path, "b.wav", "a.wav")
    clips = listed(tmp_path, "path", "b.wav", "a.wav", "b.wav")
    assert [clip.id for clip in clips] == ["b.wav", "a.wav", "b.wav-2"]
    table = utterance_table(clips)
    assert list(table["dialogue"]) == ["b.wav", "a.wav", "b.wav-2"]
    assert set(table["turn"]) == {0}


def test_the_rows_of_a_dialogue_need_not_be_adjacent(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    clips = listed(tmp_path, "path,dialogue,id", "a.wav,x,1", "a.wav,y,2", "a.wav,x,3")
    assert [clip.id for clip in clips] == ["1", "3", "2"]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["file", "a.wav"], "unknown column in .*clips.csv 'file': .*valid are path, id, text"),
        (["text", "a"], "has no column path"),
        (["path"], "lists no clips"),
        (["path", "b.wav"], r"clips.csv, row 1: there is no file .*b\.wav"),
        (["path,landmarks", "a.wav,b.csv"], r"clips.csv, row 1: there is no file .*b\.csv"),
        (["path,text", "a.wav,Hello, you"], "more fields than its header; put texts with commas into quotation marks"),
        (["path,id", "a.wav,../b"], "the clip in .*clips.csv '../b' must be a name"),
        (["path,id", "a.wav,b", "a.wav,b"], "holds the id 'b' more than once"),
        (["path,turn", "a.wav,1"], "states turns without the dialogues that they belong to"),
        (["path,dialogue", "a.wav,x", "a.wav,"], "row 2: names no dialogue, as other rows do"),
        (["path,dialogue,turn", "a.wav,x,", "a.wav,x,1"], "row 1: states no turn, as other rows do"),
        (["path,dialogue,turn", "a.wav,x,-1"], "row 1: the turn '-1' is not a whole number"),
        (["path,dialogue,turn", "a.wav,x,1", "a.wav,y,1", "a.wav,x,01"], "turn 01 of dialogue 'x' more than once"),
        ([""], "is not a readable CSV of clips"),
    ],
)
def test_a_csv_that_is_wrong_is_one_sentence(tmp_path: Path, lines: list[str], sentence: str) -> None:
    touch(tmp_path, "a.wav")
    with pytest.raises(Misuse, match=sentence):
        listed(tmp_path, *lines)


def test_a_csv_that_is_absent_or_of_another_encoding_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="is not a readable CSV of clips"):
        clips_from_csv(tmp_path / "absent.csv")
    (tmp_path / "utf16.csv").write_text("path\na.wav\n", encoding="utf-16")
    with pytest.raises(Misuse, match="its encoding is utf-16 and not UTF-8"):
        clips_from_csv(tmp_path / "utf16.csv")
