"""Audio extractors on synthetic sound, in all containers, intact and damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from recordings import contain, lengths, refused, run, save_speech_model, save_whisper, tone, works, write_corpus

from data_prep.corpora.base import Clip, Unreadable
from data_prep.corpora.clips import media_folder
from data_prep.extract import MISSING
from data_prep.extractors import egemaps, media, mfcc, speech
from data_prep.extractors.audio import AUDIO, extract_audio
from data_prep.extractors.hub import FrozenModel
from data_prep.extractors.logmel import logmel_function
from mer_bench.errors import Misuse
from mer_bench.features import open_features, verify_features

av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")
librosa = pytest.importorskip("librosa")

BLACK = np.zeros((25, 32, 32, 3), np.uint8)


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "rate", "channels", "exact"),
    [
        ("a.wav", "", 16_000, 1, True),
        ("a.wav", "", 48_000, 2, True),
        ("a.flac", "", 44_100, 2, True),
        ("a.avi", "pcm_s16le", 22_050, 2, True),
        ("a.avi", "pcm_s16le", 8_000, 1, True),
        ("a.avi", "libmp3lame", 44_100, 2, False),
        ("a.mp4", "aac", 48_000, 2, False),
        ("a.m4a", "aac", 44_100, 1, False),
        ("a.mkv", "pcm_s16le", 48_000, 2, True),
    ],
)
def test_sound_of_any_container_rate_and_channels_becomes_16_khz_mono(
    tmp_path: Path, name: str, codec: str, rate: int, channels: int, exact: bool
) -> None:
    path, wave = tmp_path / name, tone(1.0, rate)
    if codec:
        contain(path, np.stack([wave] * channels), rate, codec, pictures=BLACK if name.endswith("mp4") else ())
    else:
        soundfile.write(path, np.stack([wave] * channels, axis=1), rate)
    samples = media.load_audio(path)
    assert samples.dtype == np.float32
    assert 16_000 <= len(samples) <= (16_000 if exact else 17_200)  # lossy codecs pad to whole frames
    middle = samples[4000:12_000]
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 440 / 2  # bins of 2 Hz
    assert np.std(middle) == pytest.approx(0.3 / np.sqrt(2), rel=0.06)  # the channels' mean, not their sum
    if exact:
        np.testing.assert_allclose(middle, tone(1.0, 16_000)[4000:12_000], atol=2e-3)


def test_channels_are_averaged(tmp_path: Path) -> None:
    wave = tone(0.5, 16_000)
    one_sided = np.stack([wave, np.zeros_like(wave)])
    soundfile.write(tmp_path / "a.wav", one_sided.T, 16_000)
    contain(tmp_path / "a.avi", one_sided, 16_000, "pcm_s16le")
    for path in (tmp_path / "a.wav", tmp_path / "a.avi"):
        np.testing.assert_allclose(media.load_audio(path), wave / 2, atol=1e-4)


@pytest.mark.parametrize("name", ["a.wav", "a.avi"])
def test_a_span_is_cut_out_of_the_file(tmp_path: Path, name: str) -> None:
    ramp = np.linspace(-0.5, 0.5, 32_000, dtype=np.float32)
    path = tmp_path / name
    if name == "a.wav":
        soundfile.write(path, ramp, 16_000)
    else:
        contain(path, ramp[None], 16_000, "pcm_s16le")
    np.testing.assert_allclose(media.load_audio(path, start=0.25, end=1.5), ramp[4000:24_000], atol=1e-4)
    np.testing.assert_allclose(media.load_audio(path, start=1.5), ramp[24_000:], atol=1e-4)
    np.testing.assert_allclose(media.load_audio(path, end=9.0), ramp, atol=1e-4)
    np.testing.assert_allclose(media.decode_audio(Clip("a", path, start=1.0, end=1.5)), ramp[16_000:24_000], atol=1e-4)
    with pytest.raises(Unreadable, match="no samples in the utterance's span"):
        media.load_audio(path, start=5.0, end=6.0)


def damaged(folder: Path, kind: str) -> Path:
    """One of the files that real corpora contain."""
    wave = np.stack([tone(1.0, 16_000)] * 2)
    if kind.startswith("half"):  # with the index at its end, in the middle of a packet, and between two packets
        path, codec = folder / f"a.{kind[-3:]}", "pcm_s16le" if kind.endswith("mov") else "aac"
        contain(path, wave, 16_000, codec, pictures=BLACK if kind.endswith("mp4") else ())
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path
    if kind == "no audio track":
        return contain(folder / "a.mp4", np.empty((0, 0)), 16_000, "", pictures=BLACK)
    contents = {"zero bytes": b"", "no wav": b"<html>404</html>" * 50, "no mp4": b"<html>404</html>" * 50}
    if kind in contents:
        path = folder / ("a.wav" if kind == "no wav" else "a.mp4")
        path.write_bytes(contents[kind])
        return path
    path = folder / "a.wav"
    if kind == "not finite":
        soundfile.write(path, np.full(100, np.nan), 16_000, subtype="FLOAT")
    else:
        soundfile.write(path, *{"header alone": (np.zeros((0, 2)), 16_000), "1 Hz": (np.zeros(16_000), 1)}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("zero bytes", "the file is empty"),
        ("header alone", "the file holds no samples"),
        ("no wav", "it is not a readable wav file: "),
        ("no mp4", "it cannot be decoded: Invalid data"),
        ("half an mp4", "it cannot be decoded: Invalid data"),
        ("half an m4a", "it cannot be decoded: Invalid data"),
        ("half a mov", r"it is truncated after 0\.[45] of 1\.0 seconds|it cannot be decoded"),
        ("no audio track", "it has no audio track"),
        ("not finite", "the samples are not finite"),
        ("1 Hz", "it states a sample rate of 1 Hz"),
    ],
)
def test_a_bad_file_has_a_clear_reason(tmp_path: Path, kind: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason) as caught:
        media.load_audio(damaged(tmp_path, kind))
    assert str(tmp_path) not in str(caught.value)


def wav_with(path: Path, stated: int | None = None, *, left: float = 1.0) -> Path:
    """A second of sound, of which only a part is left, with another length in the header."""
    soundfile.write(path, tone(1.0, 16_000), 16_000)
    content = path.read_bytes()
    if stated is not None:
        content = content[:40] + stated.to_bytes(4, "little") + content[44:]
    path.write_bytes(content[: 44 + round(left * 32_000)])
    return path


@pytest.mark.parametrize("left", [0.99995, 0.9, 0.5, 0.001])
def test_a_wav_that_was_cut_is_a_defect(tmp_path: Path, left: float) -> None:
    present = round(left * 32_000)
    with pytest.raises(Unreadable, match=f"states 32,000 bytes of sound, and it has {present:,}$"):
        media.load_audio(wav_with(tmp_path / "a.wav", left=left))
    with pytest.raises(Unreadable, match="it is truncated"):  # wherever the span is that is asked for
        media.load_audio(tmp_path / "a.wav", end=0.001)


@pytest.mark.parametrize("stated", [0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF - 36])
def test_a_wav_from_a_pipe_states_no_length(tmp_path: Path, stated: int) -> None:
    assert len(media.load_audio(wav_with(tmp_path / "a.wav", stated))) == 16_000


def test_a_wav_with_other_chunks_and_a_comment_at_its_end_is_whole(tmp_path: Path) -> None:
    content = wav_with(tmp_path / "a.wav").read_bytes()
    extra = b"LIST\x05\x00\x00\x00abcde\x00"  # of odd length, hence padded
    (tmp_path / "a.wav").write_bytes(content[:36] + extra + content[36:] + extra)
    assert len(media.load_audio(tmp_path / "a.wav")) == 16_000
    (tmp_path / "a.wav").write_bytes(content[:36] + extra + content[36:-2])
    with pytest.raises(Unreadable, match="it is truncated"):
        media.load_audio(tmp_path / "a.wav")


def test_a_flac_that_was_cut_is_a_defect(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    content = (tmp_path / "a.flac").read_bytes()
    for left in (0.9, 0.5, 0.1):
        (tmp_path / "a.flac").write_bytes(content[: round(left * len(content))])
        with pytest.raises(Unreadable, match=r"it is not a readable flac file|it is truncated"):
            media.load_audio(tmp_path / "a.flac")


@pytest.mark.parametrize("name", ["a.wav", "a.avi"])
def test_a_file_that_is_too_long_is_not_read_completely(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "MAX_SECONDS", 1.0)
    path = tmp_path / name
    if name == "a.wav":
        soundfile.write(path, tone(90.0, 8000), 8000)
    else:
        contain(path, tone(90.0, 8000)[None], 8000, "pcm_s16le")
    with pytest.raises(Unreadable, match="minutes, which is too long for an utterance"):
        media.load_audio(path)
    assert len(media.load_audio(path, start=3.0, end=4.0)) == 16_000


# --- signal processing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-3, 0.0], ids=["loud", "quiet", "silent"])
@pytest.mark.parametrize(("rate", "coefficients"), [(16_000, 40), (44_100, 13)])
def test_both_mfcc_backends_agree(scale: float, rate: int, coefficients: int) -> None:
    rng = np.random.default_rng(0)
    envelope = np.concatenate([np.zeros(4000), np.ones(8000), np.full(5000, 1e-5)])  # below the lower bound of 80 dB
    samples = (scale * envelope * rng.normal(size=len(envelope))).astype(np.float32)
    mine, reference = (mfcc.mfcc_function(b, rate, coefficients)(samples) for b in ("torchaudio", "librosa"))
    assert mine.shape == (1 + len(samples) // 512, coefficients)
    assert mine.dtype == reference.dtype == np.float32
    np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-4)


def test_mfcc_equals_librosas_default() -> None:
    samples = np.random.default_rng(1).normal(size=16_000).astype(np.float32)
    expected = librosa.feature.mfcc(y=samples, sr=16_000, n_mfcc=40).T
    np.testing.assert_allclose(mfcc.mfcc_function("torchaudio")(samples), expected, rtol=0, atol=2e-3)


def test_unknown_names_list_the_choices(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="did you mean 'librosa'"):
        mfcc.mfcc({}, backend="librossa")
    with pytest.raises(Misuse, match="did you mean 'logmel'"):
        extract_audio(tmp_path, tmp_path, "log-mel")
    with pytest.raises(Misuse, match="did you mean 'functionals'"):
        egemaps.egemaps({}, level="functional")


def test_the_recipe_of_the_recorded_results() -> None:
    recipe = asdict(AUDIO["mfcc"]({"source": "c11d040fe127fc0d"}).recipe)
    settings = recipe.pop("settings")
    assert settings == {
        "hop_length": 512,
        "n_fft": 2048,
        "n_mels": 128,
        "n_mfcc": 40,
        "precision": "float64",
        "sample_rate": 16000,
        "source": "c11d040fe127fc0d",
    }
    assert recipe == {
        "name": "mfcc",
        "modality": "audio",
        "extractor": "mfcc",
        "revision": "torchaudio 2.11",
        "layer": "",
        "frame_rate": 31.25,
        "dtype": "float32",
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # librosa.load's other backend
def test_cfn_srs_mfcc_are_those_of_librosa_load(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).normal(size=4 * 48_000), 48_000)
    samples, _ = librosa.load(path, sr=44_100, offset=0.5, duration=2.45)
    expected = librosa.feature.mfcc(y=samples.astype(np.float64), sr=44_100, n_mfcc=13, dtype=np.float64).T
    for backend in ("torchaudio", "librosa"):
        extractor = AUDIO["mfcc13"]({}, backend=backend)
        (found,) = extractor.encode([extractor.decode(Clip("a", path))])
        assert found.shape == (212, 13)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert extractor.recipe.settings["offset"] == 0.5
    (inner,) = extractor.encode([extractor.decode(Clip("a", path, start=0.25, end=9.0))])
    np.testing.assert_allclose(inner[:100], found[:100], atol=300)  # a quarter of a second later, so other numbers
    assert not np.allclose(inner, found, atol=1)


def test_zeros_follow_an_utterance_that_is_shorter_than_cfn_srs_span(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.0, 44_100), 44_100)
    samples = mfcc.decode_cfn_sr(Clip("a", path))
    assert samples.shape == (108_045,)
    np.testing.assert_allclose(samples[:22_050], tone(1.0, 44_100)[22_050:], atol=1e-4)
    assert not samples[22_050:].any()
    (found,) = AUDIO["mfcc13"]({}).encode([samples])
    assert found.shape == (212, 13)
    soundfile.write(path, tone(0.4, 44_100), 44_100)
    with pytest.raises(Unreadable, match="no samples in the utterance's span"):
        mfcc.decode_cfn_sr(Clip("a", path))
    with pytest.raises(Unreadable, match=r"ends before 0\.5 s"):
        mfcc.decode_cfn_sr(Clip("a", path, start=1.0, end=1.2))


@pytest.mark.parametrize("mels", [64, 80])
def test_log_mel_spectrum_equals_librosas(mels: int) -> None:
    samples = np.concatenate([tone(0.5, 16_000), np.zeros(1600, np.float32)])
    spectrum = partial(librosa.feature.melspectrogram, pad_mode="constant", dtype=np.float64)
    y = samples.astype(np.float64)
    expected = spectrum(y=y, sr=16_000, n_fft=512, win_length=400, hop_length=160, n_mels=mels)
    found = logmel_function(mels)(samples)
    assert found.shape == (1 + len(samples) // 160, mels)
    np.testing.assert_allclose(found, np.log(np.maximum(expected.T, 1e-10)), rtol=0, atol=1e-4)
    assert found[-1].max() == pytest.approx(np.log(1e-10))  # silence


@pytest.mark.parametrize(("level", "frames", "dim"), [("functionals", 1, 88), ("lld", 96, 25)])
def test_egemaps(tmp_path: Path, level: str, frames: int, dim: int) -> None:
    pytest.importorskip("opensmile")
    extractor = AUDIO["egemaps"]({"source": "s"}, level=level)
    for name, wave in (("low", tone(1.0, 16_000, 120)), ("high", tone(1.0, 16_000, 240)), ("none", np.zeros(16_000))):
        soundfile.write(tmp_path / f"{name}.wav", wave, 16_000)
    low, high, none = (extractor.decode(Clip(n, tmp_path / f"{n}.wav")) for n in ("low", "high", "none"))
    assert low.shape == high.shape == none.shape == (frames, dim)
    assert np.isfinite([low, high, none]).all()
    if level == "functionals":  # the first is the mean pitch in semitones above 27.5 Hz
        assert high[0, 0] - low[0, 0] == pytest.approx(12, abs=0.1)
    assert extractor.recipe.revision.startswith("opensmile ")
    soundfile.write(tmp_path / "short.wav", tone(0.05, 16_000), 16_000)
    with pytest.raises(Unreadable, match="60 ms"):
        extractor.decode(Clip("short", tmp_path / "short.wav"))


def test_egemaps_without_opensmile_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egemaps, "find_spec", lambda name: None)
    with pytest.raises(Misuse, match=r"pip install 'mer-bench\[opensmile\]'"):
        AUDIO["egemaps"]({})


# --- speech models ----------------------------------------------------------------------------------------------------


#: normalisation of the convolutions: "group" as in the base sizes, "layer" as in the large ones
KINDS = list(product(("Wav2Vec2", "Hubert", "WavLM"), ("group", "layer")))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(kind))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_speech_model(tmp_path_factory.mktemp("models"), *request.param)


def frozen(folder: Path) -> FrozenModel:
    return FrozenModel(str(folder), processor="AutoFeatureExtractor", unused=("masked_spec_embed",))


def sounds() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(a * rng.normal(size=n)).astype(np.float32) for n, a in ((8000, 1), (20_017, 0.1), (400, 1), (12_345, 3))]


def test_speech_features_do_not_depend_on_the_batch(model: Path) -> None:
    encode = partial(speech.encode_speech, frozen=frozen(model), layer=3)
    together = encode(sounds())
    assert [frames.shape for frames in together] == [(24, 16), (62, 16), (1, 16), (38, 16)]
    for mine, alone in zip(together, [encode([clip])[0] for clip in sounds()], strict=True):
        np.testing.assert_allclose(mine, alone, atol=2e-5)
    assert np.std(np.concatenate(together)) > 0.1  # so that the tolerance is meaningful


def test_layers_are_those_of_the_model(model: Path) -> None:
    import torch

    clip, loaded = sounds()[1], frozen(model)
    values = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
    with torch.inference_mode():
        out = loaded.model(torch.from_numpy(values)[None], output_hidden_states=True)
    states = [state[0].numpy() for state in out.hidden_states]
    states[3] = out.last_hidden_state[0].numpy()
    for layer, expected in ((3, states[3]), (0, states[0]), (1, states[1]), (None, np.mean(states[1:], axis=0))):
        (found,) = speech.encode_speech([clip], frozen=loaded, layer=layer)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        (pooled,) = speech.encode_speech([clip], frozen=loaded, layer=layer, pooling="mean")
        np.testing.assert_allclose(pooled, found.mean(axis=0, keepdims=True), atol=1e-6)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_speech_model(tmp_path_factory.mktemp("models"), "Wav2Vec2", "layer")


def test_a_long_utterance_is_encoded_in_equal_parts(small: Path) -> None:
    loaded = frozen(small)
    clip = np.random.default_rng(0).normal(size=5 * 8000 + 3).astype(np.float32)
    found, other = speech.encode_speech([clip, clip[:8000]], frozen=loaded, layer=3, max_seconds=1.0)
    values = (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
    parts = [speech.hidden_states(loaded, [part], 3)[0] for part in np.array_split(values, 3)]  # 2.5 s in parts of 1 s
    np.testing.assert_allclose(found, np.concatenate(parts), atol=2e-5)
    assert len(other) == 24


def test_a_clip_shorter_than_a_frame_is_missing(small: Path) -> None:
    short, sound = speech.encode_speech(
        [np.zeros(399, np.float32), np.zeros(400, np.float32)], frozen=frozen(small), layer=3
    )
    assert str(short) == "it is shorter than the 25 ms that the model needs"
    assert sound.shape == (1, 16)
    assert np.isfinite(sound).all()


def test_batches_have_at_most_the_given_size() -> None:
    lengths = [5, 40, 7, 6, 100, 8]
    groups = speech.batches(lengths, 24)
    assert groups == [[4], [1], [5, 2, 3], [0]]
    assert speech.batches(lengths, 0) == [[4], [1], [5], [2], [3], [0]]


def test_unsupported_speech_models_and_layers_are_one_sentence(small: Path, tmp_path: Path) -> None:
    make = AUDIO["speech"]
    assert [speech.layer_number(layer, 3) for layer in ("last", "0", "3", "mean")] == [3, 0, 3, None]
    for layer in ("4", "-1", "first"):
        with pytest.raises(Misuse, match="valid are last, mean, and 0 to 3"):
            make({}, model=str(small), layer=layer)
    with pytest.raises(Misuse, match="frames, mean"):
        make({}, model=str(small), pooling="max")
    for key, value, message in (
        ("config", {"model_type": "bert"}, "is a bert model; supported speech models are wav2vec2"),
        ("preprocessor_config", {"sampling_rate": 8000}, "takes sound at 8000 Hz"),
    ):
        other = tmp_path / key
        other.mkdir()
        for file in small.iterdir():
            content = file.read_bytes()
            if file.stem == key:
                content = json.dumps({**json.loads(content), **value}).encode()
            (other / file.name).write_bytes(content)
        with pytest.raises(Misuse, match=message):
            make({}, model=str(other))


# --- Whisper ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("models") / "tiny-whisper-encoder")


def encode_with_whisper(folder: Path, clips: list[np.ndarray], **options: Any) -> list[np.ndarray]:
    return list(AUDIO["whisper"]({}, model=str(folder), **options).encode(clips))  # type: ignore[arg-type]


def whisper_states(folder: Path, clip: np.ndarray) -> list[np.ndarray]:
    """Input and output of every layer for a clip of at most 2 s, as transformers itself computes them."""
    import torch
    import transformers

    model = transformers.WhisperModel.from_pretrained(folder).eval()
    spectrum = transformers.WhisperFeatureExtractor.from_pretrained(folder)(
        clip, sampling_rate=16_000, return_tensors="pt"
    )
    with torch.inference_mode():
        out = model.encoder(spectrum["input_features"], output_hidden_states=True)
    return [state[0].numpy() for state in (*out.hidden_states[:-1], out.last_hidden_state)]


def test_whisper_keeps_the_frames_of_the_clip_alone(tiny_whisper: Path) -> None:
    clips = sounds()
    together = encode_with_whisper(tiny_whisper, clips, average=1)
    assert [len(frames) for frames in together] == [25, 63, 2, 39]  # 50 per second, the last one begun
    for clip, frames in zip(clips, together, strict=True):
        (alone,) = encode_with_whisper(tiny_whisper, [clip], average=1)
        np.testing.assert_allclose(frames, alone, atol=2e-5)
        padded = np.concatenate([clip, np.zeros(6000, np.float32)])  # what the model does itself
        (longer,) = encode_with_whisper(tiny_whisper, [padded], average=1)
        np.testing.assert_allclose(longer[: len(frames)], frames, atol=2e-5)
    assert np.std(together[1], axis=0).mean() > 0.1  # so that the tolerance is meaningful


@pytest.mark.parametrize("layer", ["0", "1", "2", "last"])
def test_whispers_layers_are_those_of_the_model(tiny_whisper: Path, layer: str) -> None:
    clip = sounds()[1]
    (found,) = encode_with_whisper(tiny_whisper, [clip], layer=layer, average=1)
    expected = whisper_states(tiny_whisper, clip)
    np.testing.assert_allclose(found, expected[-1 if layer == "last" else int(layer)][:63], atol=2e-5)


def test_whispers_layer_before_the_last_normalisation_can_be_had(tiny_whisper: Path) -> None:
    import torch

    clip = sounds()[1]
    (found,) = encode_with_whisper(tiny_whisper, [clip], layer="3", average=1)
    loaded = FrozenModel(str(tiny_whisper), processor="AutoFeatureExtractor").model.encoder
    with torch.inference_mode():
        normalised = loaded.layer_norm(torch.from_numpy(found)).numpy()
    np.testing.assert_allclose(normalised, whisper_states(tiny_whisper, clip)[-1][:63], atol=2e-5)


def test_four_of_whispers_frames_are_averaged_into_one(tiny_whisper: Path) -> None:
    clip = sounds()[1]
    (frames,) = encode_with_whisper(tiny_whisper, [clip], average=1)
    extractor = AUDIO["whisper"]({}, model=str(tiny_whisper))
    (found,) = extractor.encode([clip])
    assert extractor.recipe.frame_rate == 12.5
    assert len(found) == 16  # 63 frames: fifteen means of four, and one of the three that are left
    np.testing.assert_allclose(found[:15], frames[:60].reshape(15, 4, 16).mean(axis=1), atol=2e-5)
    np.testing.assert_allclose(found[15], frames[60:].mean(axis=0), atol=2e-5)


def test_whisper_encodes_a_long_clip_in_consecutive_windows(tiny_whisper: Path) -> None:
    clip = np.random.default_rng(0).normal(size=80_321).astype(np.float32)  # windows of 2 s
    found, other = encode_with_whisper(tiny_whisper, [clip, clip[:8000]], average=1)
    parts = encode_with_whisper(tiny_whisper, [clip[:32_000], clip[32_000:64_000], clip[64_000:]], average=1)
    assert [len(part) for part in parts] == [100, 100, 52]
    np.testing.assert_allclose(found, np.concatenate(parts), atol=2e-5)
    assert len(other) == 25


def test_whisper_is_identified_by_its_weights_and_not_by_its_folder(tiny_whisper: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_whisper, tmp_path / "tiny-whisper")  # without the suffix
    recipes = [
        AUDIO["whisper"]({}, model=str(folder), layer="1").recipe
        for folder in (tiny_whisper, tmp_path / "tiny-whisper")
    ]
    assert recipes[0] == recipes[1]
    assert (recipes[0].name, recipes[0].extractor, recipes[0].layer) == (
        "tiny-whisper-l1",
        "tiny-whisper",
        "hidden state 1",
    )
    assert AUDIO["whisper"]({}, model=str(tiny_whisper), average=2).recipe.name == "tiny-whisper-by2"
    weights = tmp_path / "tiny-whisper" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert AUDIO["whisper"]({}, model=str(tmp_path / "tiny-whisper"), layer="1").recipe.revision != recipes[0].revision


def test_whisper_needs_no_decoder(tiny_whisper: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(tiny_whisper, tmp_path / "copy")
    state = load_file(copy / "model.safetensors")
    save_file({k: v for k, v in state.items() if "decoder" not in k}, copy / "model.safetensors", {"format": "pt"})
    (found,), (expected,) = (encode_with_whisper(folder, [sounds()[0]]) for folder in (copy, tiny_whisper))
    np.testing.assert_array_equal(found, expected)


def test_the_parameters_of_whisper_are_those_that_are_used(tiny_whisper: Path) -> None:
    counts = [
        AUDIO["whisper"]({}, model=str(tiny_whisper), layer=layer).parameters() for layer in ("0", "1", "3", "last")
    ]
    one = counts[1] - counts[0]
    assert counts[2] - counts[1] == 2 * one > 0
    assert counts[3] - counts[2] == 2 * 16  # the last normalisation


def test_other_models_and_layers_are_refused_by_whisper_and_by_speech(tiny_whisper: Path, small: Path) -> None:
    for layer in ("4", "mean"):
        with pytest.raises(Misuse, match=f"no layer '{layer}': valid are last, and 0 to 3"):
            AUDIO["whisper"]({}, model=str(tiny_whisper), layer=layer)
    with pytest.raises(Misuse, match="is a wav2vec2 model, not Whisper"):
        AUDIO["whisper"]({}, model=str(small))
    with pytest.raises(Misuse, match=r"is a whisper model; .*\(for Whisper: 'audio whisper'\)"):
        AUDIO["speech"]({}, model=str(tiny_whisper))


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, Path]:
    """A prepared corpus of every kind of file, and its RAW folder."""
    raw = tmp_path / "raw"
    raw.mkdir()
    soundfile.write(raw / "sound.wav", tone(1.2, 48_000), 48_000)
    contain(raw / "video.mp4", np.stack([tone(1.0, 48_000)] * 2), 48_000, "aac", pictures=BLACK)
    contain(raw / "silent.m4a", np.zeros((1, 44_100), np.float32), 44_100, "aac")
    contain(raw / "mute.mp4", np.empty((0, 0)), 0, "", pictures=BLACK)
    (raw / "broken.wav").write_bytes(b"RIFF")
    files = {path.stem: path for path in sorted(raw.iterdir())} | {"absent": raw / "absent.wav"}
    media_column = [path.name for path in files.values()]
    return write_corpus(tmp_path / "data", list(files), media=media_column), raw


REASONS = {"absent": "the file is absent", "broken": "it is not a readable wav file: ", "mute": "it has no audio track"}


@pytest.mark.parametrize("name", list(AUDIO))
def test_every_extractor_reads_every_kind_of_file(
    name: str, corpus: tuple[Path, Path], small: Path, tiny_whisper: Path
) -> None:
    if name == "egemaps":
        pytest.importorskip("opensmile")
    table, raw = corpus
    models = {"speech": small, "whisper": tiny_whisper}
    options = ("--model", models[name]) if name in models else ()
    command = ("audio", name, "--table", table, "--raw", raw, *options, "--workers", 0)
    works(*command)
    (folder,) = (path for path in table.iterdir() if path.is_dir())
    spec = verify_features(folder)
    ids = pd.read_csv(table / "utterances.csv")["id"]
    found = dict(zip(ids, lengths(folder), strict=True))
    assert {i for i, frames in found.items() if not frames} == set(REASONS)
    if spec.frame_rate and name != "mfcc13":
        assert found["sound"] == pytest.approx(1.2 * spec.frame_rate, abs=5)
    missing = pd.read_csv(folder / MISSING).set_index("id")["reason"]
    assert set(missing.index) == set(REASONS)
    assert all(missing[i].startswith(reason) for i, reason in REASONS.items())
    stored = (folder / "spec.json").read_text(encoding="utf-8")
    assert str(raw.parent) not in stored
    assert not any(str(model.parent) in stored for model in models.values())
    assert spec.settings["decoder"].startswith("PyAV ")
    assert spec.exposure or name in models, "say in mer_bench/exposure.py what a new extractor was trained on"
    assert "already done" in run(*command).output
    strict = run(*command, "--strict")
    assert strict.exit_code == 1
    assert "lacks utterances: see" in strict.output


def test_speech_sets_record_model_and_layer(corpus: tuple[Path, Path], small: Path) -> None:
    table, raw = corpus
    base = ("audio", "speech", "--table", table, "--raw", raw, "--model", small, "--workers", 0)
    for options, name, layer, rate in (
        ((), "tiny-wav2vec2-frames", "hidden state 3", 50.0),
        (("--pooling", "mean"), "tiny-wav2vec2", "hidden state 3", None),
        (("--layer", "1", "--pooling", "mean"), "tiny-wav2vec2-l1", "hidden state 1", None),
        (("--layer", "mean"), "tiny-wav2vec2-mean-frames", "mean of all layers", 50.0),
        (("--layer", "1", "--average", "4"), "tiny-wav2vec2-l1-frames-by4", "hidden state 1", 12.5),
    ):
        works(*base, *options)
        spec = verify_features(table / name)
        assert (spec.extractor, spec.layer, spec.frame_rate, spec.dim) == ("Tiny-Wav2Vec2", layer, rate, 16)
        assert len(spec.revision) == 16
        assert spec.extractor_parameters == frozen(small).parameters() > 0
        assert spec.settings["library"].startswith("transformers ")
        assert spec.settings.get("average", 1) == 50 / (spec.frame_rate or 50)
    assert "choose one of them" in refused(*base, "--pooling", "mean", "--average", "4")
    assert "'nobody/none' is not on this machine" in refused(*base[:-3], "nobody/none")


def test_a_worker_process_decodes_the_same(corpus: tuple[Path, Path]) -> None:
    table, raw = corpus
    values = []
    for workers in (0, 1):
        extract_audio(table, raw, "mfcc", workers=workers, force=True)
        values.append(np.array(open_features(table / "mfcc").values))
    np.testing.assert_array_equal(*values)


def test_media_are_found_below_what_make_data_was_given(tmp_path: Path) -> None:
    sessions = tmp_path / "raw" / "IEMOCAP_full_release"
    (sessions / "Session1" / "dialog" / "EmoEvaluation").mkdir(parents=True)
    (tmp_path / "raw" / "MELD.Raw" / "train_splits").mkdir(parents=True)
    raw = tmp_path / "raw"
    assert media_folder(tmp_path / "iemocap", raw) == media_folder(tmp_path / "iemocap", sessions) == sessions
    assert media_folder(tmp_path / "meld", raw) == raw / "MELD.Raw"
    assert media_folder(tmp_path / "ravdess", raw) == raw
    with pytest.raises(Misuse, match="no IEMOCAP release"):
        media_folder(tmp_path / "iemocap", raw / "MELD.Raw")


def test_help_shows_each_extractor_with_its_options() -> None:
    assert all(name in run("audio", "--help").output for name in AUDIO)
    text = run("audio", "speech", "--help").output
    assert all(option in text for option in ("--model", "--layer", "--pooling", "--download", "--workers", "--strict"))
    assert "--backend" not in text
    assert "Missing option '--model'" in run("audio", "speech", "--table", ".", "--raw", ".").output
