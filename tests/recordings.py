"""What tests generate: sound, films and tracking files in the formats of the corpora, and a small text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest


def tone(seconds: float, rate: int, hertz: float = 440.0, amplitude: float = 0.3) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def contain(
    path: Path, channels: np.ndarray, rate: int, codec: str, *, pictures: Sequence[np.ndarray] = (), fps: int = 25
) -> Path:
    """Write samples [channels, samples], none with no channel, and RGB pictures, if any, into a container.

    The sound is encoded by ``codec``, the pictures as MPEG-4.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "faststart"} if path.suffix in (".m4a", ".mov") else {}  # the index first
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
    """A face that the cascade finds: hair, skin, sockets with eyes and brows, nose, mouth."""
    import cv2

    def blot(dx: float, dy: float, across: float, down: float, grey: int) -> None:
        centre = (int(x + dx * half), int(y + dy * half))
        axes = (max(1, int(across * half)), max(1, int(down * half)))
        cv2.ellipse(picture, centre, axes, 0, 0, 360, (grey,) * 3, -1, cv2.LINE_AA)

    blot(0, -0.1, 1.0, 1.35, 60)
    blot(0, 0.1, 0.85, 1.15, 190)
    for side in (-1, 1):
        blot(side * 0.38, -0.12, 0.22, 0.13, 90)
        blot(side * 0.38, -0.12, 0.1, 0.08, 30)
        blot(side * 0.38, -0.32, 0.25, 0.05, 60)
    blot(0, 0.15, 0.1, 0.3, 215)
    blot(0, 0.42, 0.16, 0.05, 120)
    blot(0, 0.72, 0.32, 0.09, 90)


def track(path: Path, points: np.ndarray, **columns: Any) -> None:
    """A FacialTracking CSV: headers with a space, as OpenFace writes them."""
    frame = pd.DataFrame({"frame": np.arange(1, len(points) + 1), "confidence": 0.98, "success": 1, **columns})
    named = {f" {axis}_{k}": points[:, k, i] for i, axis in enumerate("xy") for k in range(68)}
    frame = frame.rename(columns=lambda name: f" {name}").rename(columns={" frame": "frame"})
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat([frame, pd.DataFrame(named)], axis=1).to_csv(path, index=False)


def save_encoder(folder: Path) -> Path:
    """A random BERT of 8 dimensions with a vocabulary of letters."""
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
