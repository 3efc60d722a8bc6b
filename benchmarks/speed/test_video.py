"""Speed of video extractors, compared with the decoder: ``python -m pytest benchmarks/speed/test_video.py``.

Each row processes the same two clips of three seconds, 1280 x 720. The first two rows only decode, with decord, the
thirty frames that every extractor reads: at their full size and at 224 lines, which is the fastest. The number in
parentheses is the ratio to the fastest row. Time is CPU time, so that other processes have little influence.
``--benchmark-json FILE`` also writes the clips per second and their ratio to the decoder's.
"""

from __future__ import annotations

from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_prep.extract import Clip
from data_prep.extractors import vision
from data_prep.extractors.vision import FrameSampling

pytest.importorskip("pytest_benchmark")
cv2 = pytest.importorskip("cv2")
decord = pytest.importorskip("decord")

pytestmark = pytest.mark.benchmark(timer=process_time)
CLIPS, FRAMES, SEEN = 2, 90, 30
BARE: dict[str, float] = {}  #: clips per second of the decoder without an extractor


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Write videos of an ellipse that moves before noise, with 68 tracked points, in the layout of RAVDESS."""
    folder, draw = tmp_path_factory.mktemp("raw"), np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 69)[:-1]
    found = []
    for n in range(CLIPS):
        take = f"01-0{n + 1}-01-01-01-01"
        wall = cv2.GaussianBlur(draw.integers(0, 256, (720, 1280, 3)).astype(np.uint8), (0, 0), 3)
        writer = cv2.VideoWriter(str(folder / f"01-{take}.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 30, (1280, 720))
        points = {}
        for i in range(FRAMES):
            x = 500 + 3 * i
            writer.write(cv2.ellipse(wall.copy(), (x, 360), (160, 220), 0, 0, 360, (90, 120, 190), -1))
            points[i] = np.concatenate([x + 160 * np.cos(angle), 380 + 160 * np.sin(angle)])
        writer.release()
        columns = [f"{axis}_{k}" for axis in "xy" for k in range(68)]
        pd.DataFrame.from_dict(points, orient="index", columns=columns).to_csv(folder / f"01-{take}.csv")
        found.append(Clip(take, folder / f"01-{take}.mp4"))
    return found


@pytest.mark.parametrize(("width", "height"), [(1280, 720), (398, 224)])
def test_the_decoder_alone(benchmark: Any, clips: list[Clip], width: int, height: int) -> None:
    wanted = ((np.arange(SEEN) + 0.5) * FRAMES / SEEN).astype(int).tolist()

    def decode() -> None:
        for clip in clips:
            decord.VideoReader(str(clip.media), num_threads=1, width=width, height=height).get_batch(wanted).asnumpy()

    benchmark.pedantic(decode, rounds=3, warmup_rounds=1)
    BARE["video"] = benchmark.extra_info["clips/s"] = CLIPS / benchmark.stats.stats.median


@pytest.mark.parametrize(
    ("face", "crop"), [("none", "square"), ("landmarks", "square"), ("landmarks", "cfn_sr"), ("detect", "square")]
)
def test_frames(benchmark: Any, clips: list[Clip], face: str, crop: str) -> None:
    compare(benchmark, clips, vision.frames(sampling(clips, face, crop)), rounds=1 if face == "detect" else 3)


def test_a_resnet50(benchmark: Any, clips: list[Clip], tmp_path: Path) -> None:
    from data_prep.extractors.torchaudio_cpu import load

    load()
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

    ResNetModel(ResNetConfig()).save_pretrained(tmp_path)
    ConvNextImageProcessor(size={"shortest_edge": 224}).save_pretrained(tmp_path)
    compare(benchmark, clips, vision.image(sampling(clips, "landmarks"), model=str(tmp_path)), rounds=1)


def sampling(clips: list[Clip], face: str, crop: str = "square") -> FrameSampling:
    return FrameSampling(count=SEEN, face=face, crop=crop, raw=clips[0].media.parent)


def compare(benchmark: Any, clips: list[Clip], extractor: Any, rounds: int) -> None:
    def extract() -> None:
        extractor.encode([extractor.decode(clip) for clip in clips])

    benchmark.pedantic(extract, rounds=rounds, warmup_rounds=int(rounds > 1))
    speed = CLIPS / benchmark.stats.stats.median
    benchmark.extra_info |= {"clips/s": speed, "of the decoder's": speed / BARE["video"] if BARE else None}
