"""``mer-bench predict`` for clips of one's own: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lab import spec_for
from recordings import save_wav, tone, track
from suites import Answer, Call, execute_and_write

from data_prep.corpora.ravdess import read_tracking
from data_prep.extractors.audio import extract_audio
from data_prep.extractors.landmarks import landmark_extractor, normalise
from mer_bench.bundle.facts import CHECKSUM, FILE, _checksum
from mer_bench.bundle.model import load_model
from mer_bench.bundle.predict import predict_table
from mer_bench.features import write_features
from mer_bench.records import bundle_path
from mer_bench.training.options import RunSettings
from mer_bench.utterances import COLUMNS, DESCRIPTION, write_table

pytest.importorskip("soundfile")
pytest.importorskip("tqdm")

CORPUS = """
modalities = ["audio", "vision", "gaze"]
features = { audio = "mfcc", vision = "landmarks", gaze = "looks" }
licence = "none"

[label_sets]
two = ["happy", "sad"]

[protocols.fixed]
split = "split"
"""
COUNT = 24  #: utterances, in dialogues of four


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus whose happy utterances are high and whose faces turn, extracted as any corpus is."""
    root = tmp_path_factory.mktemp("clips")
    folder, raw, rows = root / "lab", root / "raw", np.arange(COUNT)
    table = pd.DataFrame({**dict.fromkeys(COLUMNS, ""), "id": [f"u{row}" for row in rows], "turn": rows % 4,
                          "dialogue": [f"d{row // 4}" for row in rows], "speaker": [f"s{row % 2}" for row in rows],
                          "start": np.nan, "end": np.nan, "media": [f"u{row}.wav" for row in rows],
                          "emotion": np.array(["happy", "sad"])[rows % 2],
                          "split": np.repeat(["train", "validation", "test"], COUNT // 3)})  # fmt: skip
    write_table(folder, table)
    (folder / DESCRIPTION).write_text(CORPUS)
    noise = np.random.default_rng(0)
    points = 100 + 50 * noise.random((68, 2))
    for row in rows:
        save_wav(raw / f"u{row}.wav", tone(0.5, 16_000, (900, 200)[row % 2] + row))
        track(raw / f"u{row}.csv", points + noise.random((8, 68, 2)) * (4, 1)[row % 2])
    extract_audio(folder, raw, "mfcc")
    recipe, ids = landmark_extractor("0").recipe, list(table["id"])
    faces = [normalise(read_tracking(raw / f"{name}.csv")) for name in ids]
    facts = {name: getattr(recipe, name) for name in ("modality", "extractor", "revision", "frame_rate", "settings")}
    write_features(folder / "landmarks", faces, ids=ids, **facts)
    looks = [noise.random((1, 2)).astype(np.float32) for _ in ids]
    write_features(folder / "looks", looks, ids=ids, modality="gaze", extractor="eye tracker")
    return root


def kept(lab: Path, method: str, **features: str) -> Path:
    settings = RunSettings(lab, lab / "results", "none", save_model=True)
    spec = spec_for(lab, method, features=features, training={"epochs": 2, "learning_rate": 1e-2, "batch_size": 4})
    return bundle_path(execute_and_write(spec, settings))


@pytest.fixture(scope="module")
def model(lab: Path) -> Path:
    """A model of sound and faces."""
    return kept(lab, "early_concat", audio="mfcc", vision="landmarks")


@pytest.fixture(scope="module")
def with_gaze(lab: Path) -> Path:
    """A model that also reads features which were imported."""
    return kept(lab, "early_concat", audio="mfcc", gaze="looks")


@pytest.fixture(scope="module")
def of_dialogues(lab: Path) -> Path:
    return kept(lab, "bc_lstm", audio="mfcc", vision="landmarks")


def assert_refused(answer: Answer, part: str) -> None:
    """Assert that the command ended with one sentence, which may follow the progress of an extraction."""
    assert (answer.code, answer.out) == (2, ""), answer.err
    *before, last = answer.err.splitlines()
    assert last.startswith("error: ")
    assert part in last
    assert not any("error" in line or "Traceback" in line for line in before)


def expected(model: Path, lab: Path, *ids: str, **options: Any) -> pd.DataFrame:
    """What the model predicts from the corpus's own features."""
    return predict_table(load_model(model), lab / "lab", **options).set_index("id").loc[list(ids)]


def test_clips_are_predicted_as_the_same_utterances_of_a_corpus(
    call: Call, model: Path, lab: Path, tmp_path: Path
) -> None:
    raw, target = lab / "raw", tmp_path / "p.csv"
    landmarks = ["--landmarks", raw / "u21.csv", "--landmarks", raw / "u20.csv"]
    answer = call("predict", model, raw / "u20.wav", raw / "u21.wav", *landmarks, "--to", target)
    assert answer.code == 0, answer.err
    wanted, found = expected(model, lab, "u20", "u21"), pd.read_csv(target).set_index("id")
    assert list(found.index) == ["u20.wav", "u21.wav"]
    assert list(found["prediction"]) == list(wanted["prediction"])
    np.testing.assert_allclose(found["p_happy"], wanted["p_happy"], atol=1e-6)
    first, best = answer.out.splitlines()[0], wanted["prediction"].iloc[0]
    assert first.startswith(f"u20.wav: {best} {wanted.loc['u20', f'p_{best}']:.2f}, then ")
    assert "missing" not in answer.out


def test_what_a_clip_lacks_is_said_in_its_line(call: Call, model: Path, lab: Path, tmp_path: Path) -> None:
    raw, target = lab / "raw", tmp_path / "p.json"
    answer = call(
        "predict", model, raw / "u20.wav", raw / "u21.wav", "--landmarks", raw / "u21.csv", "--to", target, "--explain"
    )
    assert answer.code == 0, answer.err
    first, second, *_ = answer.out.splitlines()
    assert first.endswith("; vision missing: there are no landmarks of it")
    assert "; from audio " in first
    assert "missing" not in second
    rows = json.loads(target.read_text())
    assert [row["missing"] for row in rows] == ["vision", ""]
    alone = expected(model, lab, "u20", without=["vision"])
    assert rows[0]["p_happy"] == pytest.approx(alone["p_happy"].iloc[0], abs=1e-6)


def test_a_modality_that_cannot_be_extracted_is_refused_unless_it_is_left_out(
    call: Call, with_gaze: Path, model: Path, lab: Path
) -> None:
    clip = lab / "raw" / "u20.wav"
    assert_refused(call("predict", with_gaze, clip), "gaze: the model reads the features 'looks' of 'eye tracker'")
    answer = call("predict", with_gaze, clip, "--without", "gaze")
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[0].endswith("; gaze missing: left out")
    assert_refused(call("predict", model, clip), "(--landmarks FILE.csv), or leave the modality out (--without")
    assert call("predict", model, clip, "--without", "vision").code == 0


def test_clips_that_hold_nothing_are_left_out_and_the_others_predicted(
    call: Call, model: Path, lab: Path, tmp_path: Path
) -> None:
    save_wav(tmp_path / "in" / "a.wav", tone(0.5, 16_000))
    save_wav(tmp_path / "in" / "b.wav", np.zeros(8000, np.float32))
    target = tmp_path / "p.csv"
    answer = call("predict", model, tmp_path / "in", "--without", "vision", "--to", target)
    assert answer.code == 1
    assert answer.out.startswith("a.wav: ")
    assert list(pd.read_csv(target)["id"]) == ["a.wav"]
    sentence = "error: b.wav holds nothing that the model reads: vision: left out, audio: its sound is silent"
    assert answer.err.splitlines()[-1] == sentence
    only = call("predict", model, tmp_path / "in" / "b.wav", "--without", "vision")
    assert_refused(only, "nothing that the model reads is in the clip b.wav")


def test_a_dialogue_is_listed_with_its_turns_and_speakers(
    call: Call, of_dialogues: Path, lab: Path, tmp_path: Path
) -> None:
    lines = [f"u{row}.wav,u{row}.csv,x,s{row % 2},{row},u{row}" for row in (21, 20, 23, 22)]
    listed = lab / "raw" / "clips.csv"
    listed.write_text("\n".join(["path,landmarks,dialogue,speaker,turn,id", *lines]) + "\n")
    answer = call("predict", of_dialogues, "--clips", listed, "--to", tmp_path / "p.csv")
    assert answer.code == 0, answer.err
    assert "warning" not in answer.err
    ids = ["u20", "u21", "u22", "u23"]
    found = pd.read_csv(tmp_path / "p.csv").set_index("id")
    assert list(found.index) == ids
    np.testing.assert_allclose(found["p_happy"], expected(of_dialogues, lab, *ids)["p_happy"], atol=1e-6)
    alone = call("predict", of_dialogues, lab / "raw" / "u20.wav", lab / "raw" / "u21.wav", "--without", "vision")
    assert "each clip is taken for a dialogue of its own" in alone.err
    listed.write_text("path,dialogue\nu20.wav,x\nu21.wav,x\n")
    assert (
        "no speaker is given of 2 clips" in call("predict", of_dialogues, "--clips", listed, "--without", "vision").err
    )


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["{raw}/u99.wav"], "there is no file"),
        (["{raw}/u1.wav", "--table", "{lab}"], "give it alone, or clips without it"),
        (["--table", "{lab}", "--text", "hello"], "give it alone, or clips without it"),
        (["{raw}/u1.wav", "--split", "test"], "clips belong to no split"),
        (["{raw}/u1.wav", "--clips", "{raw}/list.csv"], "--clips lists all clips"),
        (["--clips", "{raw}/u99.csv"], "is not a readable CSV of clips"),
        (["{raw}/u1.wav", "--without", "vison"], "did you mean 'vision'?"),
        (["{raw}/u1.wav", "--trust", "vison"], "did you mean 'vision'?"),
        (["{raw}/u1.wav", "--model", "speech"], "--model takes NAME=VALUE"),
        (["{raw}/u1.wav", "--without", "vision", "--without", "audio"], "no modality of the model is left"),
        (["{raw}/u1.wav", "{raw}/u2.wav", "--text", "hello"], "--text belongs to one clip"),
        (["{raw}/u1.csv", "--without", "vision"], "nothing that the model reads is in the clip u1.csv: "),
    ],
)
def test_wrong_options_are_one_sentence(call: Call, model: Path, lab: Path, options: list[str], part: str) -> None:
    given = [option.format(raw=lab / "raw", lab=lab / "lab") for option in options]
    assert_refused(call("predict", model, *given), part)


def test_an_extractor_that_differs_is_refused_and_taken_if_it_is_trusted(
    call: Call, model: Path, lab: Path, tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path, dirs_exist_ok=True)
    content = json.loads((model / FILE).read_text())
    content["features"]["audio"]["revision"] = "torchaudio 1.0"
    content[CHECKSUM] = _checksum({name: value for name, value in content.items() if name != CHECKSUM})
    (tmp_path / FILE).write_text(json.dumps(content))
    command = ("predict", tmp_path, lab / "raw" / "u20.wav", "--without", "vision")
    assert_refused(call(*command), "audio: the model reads 'mfcc' with revision \"torchaudio 1.")
    assert call(*command, "--trust", "audio").code == 0


def test_a_library_that_is_not_installed_is_one_sentence(
    call: Call, model: Path, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    answer = call("predict", model, lab / "raw" / "u20.wav", "--without", "vision")
    assert_refused(answer, "predicting new clips needs the package tqdm: pip install 'mer-bench[prep]'")
