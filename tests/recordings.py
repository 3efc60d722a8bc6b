"""What the tests of data preparation share: generated recordings and corpora, the command line, and stored features."""

from __future__ import annotations

import csv
import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from data_prep.__main__ import main
from data_prep.corpora import meld
from mer_bench.features import open_features
from mer_bench.utterances import COLUMNS, write_table

Files = dict[str, bytes]  #: content of files by their path in a folder or archive


# --- commands and their results ---------------------------------------------------------------------------------------


def run(*arguments: Any, answer: str = "") -> Result:
    """Run ``python -m data_prep`` with these arguments; ``answer`` is typed by the user."""
    return CliRunner().invoke(main, list(map(str, arguments)), input=answer, catch_exceptions=False)


def works(*arguments: Any) -> str:
    """The output of a command that succeeds."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: Any, answer: str = "") -> str:
    """The one line that a wrong command prints; its exit code is 2."""
    result = run(*arguments, answer=answer)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.output.splitlines() if "error: " in line]
    assert "Traceback" not in result.output
    return line


def lengths(folder: Path) -> list[int]:
    """Number of frames of each utterance in a feature set."""
    return np.diff(open_features(folder).offsets).tolist()


def write_corpus(folder: Path, ids: Sequence[str], **columns: Any) -> Path:
    """Write an utterance table with these ids; columns that are not given are empty, and dialogues have one turn."""
    table = pd.DataFrame({**dict.fromkeys(COLUMNS, ""), "id": ids, "dialogue": ids, "speaker": "a", **columns})
    write_table(folder, table.assign(turn=table.groupby("dialogue").cumcount()))
    return folder


# --- files of the corpora ---------------------------------------------------------------------------------------------


def zipped(files: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write_files(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def iemocap_files(rows: Sequence[tuple[float, str, str, str | None]], seconds: float = 1.0) -> Files:
    """Label and transcript files of utterances (start, id, emotion, transcript), with other lines and macOS's files."""
    files: Files = {}
    for dialogue in dict.fromkeys(row[1].rpartition("_")[0] for row in rows):
        labels, script = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n", "M: mumbles\n"
        for start, name, emotion, text in (row for row in rows if row[1].startswith(f"{dialogue}_")):
            labels += f"[{start:.4f} - {start + seconds:.4f}]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]\n"
            labels += "C-E2:\tNeutral;\t()\n\n"
            script += f"{name} [{start:08.4f}-{start + seconds:08.4f}]: {text}\n" if text is not None else ""
        folder = f"Session{dialogue[4]}/dialog"
        files[f"{folder}/EmoEvaluation/{dialogue}.txt"] = labels.encode()
        files[f"{folder}/EmoEvaluation/._{dialogue}.txt"] = b"\x00\x05\x16\x07"
        files[f"{folder}/transcriptions/{dialogue}.txt"] = script.encode("latin-1")
    return files


def meld_csv(rows: Sequence[tuple[Any, ...]]) -> str:
    """An official CSV of rows (text, speaker, emotion, sentiment, dialogue, utterance, start, end)."""
    text = io.StringIO()
    csv.writer(text).writerows([["Sr No.", *meld.COLUMNS], *([1, *row] for row in rows)])
    return text.getvalue()


# --- sound and pictures -----------------------------------------------------------------------------------------------


def tone(seconds: float, rate: int, hertz: float = 440.0, amplitude: float = 0.3) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def contain(
    path: Path, channels: np.ndarray, rate: int, codec: str, *, pictures: Sequence[np.ndarray] = (), fps: int = 25
) -> Path:
    """Write samples [channels, samples] and RGB pictures, or only one of the two, into a container.

    The sound is encoded by ``codec``, the pictures as MPEG-4.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    options = (
        {"movflags": "faststart"} if path.suffix in (".m4a", ".mov") else {}
    )  # so that the index precedes the content
    with av.open(str(path), "w", options=options) as container:
        if len(pictures):
            film = container.add_stream("mpeg4", rate=fps)
            film.height, film.width = pictures[0].shape[:2]
            film.pix_fmt = "yuv420p"
            film.bit_rate = 1_000_000
        if len(channels):
            sound = container.add_stream(codec, rate=rate)
            sound.layout = "stereo" if len(channels) == 2 else "mono"
        if len(pictures):
            for picture in pictures:
                container.mux(film.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(film.encode())
        if len(channels):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), "fltp", sound.layout.name)
            frame.sample_rate = rate
            size = sound.codec_context.frame_size or 1024
            fit = av.AudioResampler(sound.format.name, sound.layout.name, rate, frame_size=size)
            for part in [*fit.resample(frame), *fit.resample(None)]:
                container.mux(sound.encode(part))
            container.mux(sound.encode())
    return path


def draw_face(picture: np.ndarray, x: float, y: float, half: float) -> None:
    """Draw a face that the cascade detects: hair, skin, eyes, eyebrows, nose and mouth."""
    import cv2

    def ellipse(dx: float, dy: float, across: float, down: float, grey: int) -> None:
        centre = (int(x + dx * half), int(y + dy * half))
        axes = (max(1, int(across * half)), max(1, int(down * half)))
        cv2.ellipse(picture, centre, axes, 0, 0, 360, (grey,) * 3, -1, cv2.LINE_AA)

    ellipse(0, -0.1, 1.0, 1.35, 60)
    ellipse(0, 0.1, 0.85, 1.15, 190)
    for side in (-1, 1):
        ellipse(side * 0.38, -0.12, 0.22, 0.13, 90)
        ellipse(side * 0.38, -0.12, 0.1, 0.08, 30)
        ellipse(side * 0.38, -0.32, 0.25, 0.05, 60)
    ellipse(0, 0.15, 0.1, 0.3, 215)
    ellipse(0, 0.42, 0.16, 0.05, 120)
    ellipse(0, 0.72, 0.32, 0.09, 90)


def tracking_csv(points: np.ndarray, **columns: Any) -> bytes:
    """A FacialTracking CSV of points [frame, 68, 2]: headers with a space, as OpenFace writes them."""
    frame = pd.DataFrame({"frame": np.arange(1, len(points) + 1), "confidence": 0.98, "success": 1, **columns})
    named = {f" {axis}_{k}": points[:, k, i] for i, axis in enumerate("xy") for k in range(68)}
    frame = frame.rename(columns=lambda name: f" {name}").rename(columns={" frame": "frame"})
    return pd.concat([frame, pd.DataFrame(named)], axis=1).to_csv(index=False).encode()


def track(path: Path, points: np.ndarray, **columns: Any) -> None:
    write_files(path.parent, {path.name: tracking_csv(points, **columns)})


def save_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> None:
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)


def save_encoder(folder: Path) -> Path:
    """Save a random BERT of 8 dimensions whose vocabulary consists of letters."""
    pytest.importorskip("transformers")
    from data_prep.extractors.torchaudio_cpu import load

    load()
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz.,'?!"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def save_speech_model(folder: Path, family: str, norm: str, *, layers: int = 3) -> Path:
    """Save a random speech model of a few narrow layers with the original convolutions."""
    transformers = pytest.importorskip("transformers")
    from data_prep.extractors.torchaudio_cpu import load

    load()  # which transformers imports
    import torch

    small = {
        "hidden_size": 16,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "conv_dim": (8, 8, 8, 8, 8, 8, 8),
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    }
    large = norm == "layer"
    config = getattr(transformers, f"{family}Config")(
        **small, feat_extract_norm=norm, do_stable_layer_norm=large, conv_bias=large
    )
    torch.manual_seed(0)
    network = getattr(transformers, f"{family}Model")(config)
    with torch.no_grad():  # with the initial biases of zero, errors in the treatment of padding would not show
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    network.save_pretrained(folder / f"Tiny-{family}")
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=large).save_pretrained(folder / f"Tiny-{family}")
    return folder / f"Tiny-{family}"


def save_whisper(folder: Path) -> Path:
    """Save a random Whisper of three narrow layers that reads windows of 2 s."""
    transformers = pytest.importorskip("transformers")
    from data_prep.extractors.torchaudio_cpu import load

    load()
    import torch

    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=8,
        vocab_size=8,
        max_source_positions=100,
        max_target_positions=8,
        num_mel_bins=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        init_std=0.3,
    )
    torch.manual_seed(0)
    transformers.WhisperModel(config).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=2).save_pretrained(folder)
    return folder
