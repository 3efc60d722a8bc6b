"""Speed of audio extractors, compared with the decoder: ``python -m pytest benchmarks/speed/test_audio.py``.

Each row processes the same eight clips of three seconds. The number in parentheses is the ratio to the fastest row of
the same file type, which is the decoder alone. Time is CPU time, so that other processes have little influence.
``--benchmark-json FILE`` also writes the clips per second and their ratio to the decoder's.
"""

from __future__ import annotations

from time import process_time
from typing import Any

import numpy as np
import pytest

from data_prep.extract import Clip
from data_prep.extractors import torchaudio_cpu
from data_prep.extractors.audio import AUDIO

pytest.importorskip("pytest_benchmark")
av = pytest.importorskip("av")
soundfile = pytest.importorskip("soundfile")

pytestmark = pytest.mark.benchmark(timer=process_time)
CLIPS, SECONDS, RATE = 8, 3.0, 48_000
BARE: dict[str, float] = {}  #: file type -> clips per second of the decoder without an extractor


@pytest.fixture(scope="module", params=["wav", "mp4"])
def clips(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    found = []
    for i in range(CLIPS):
        path = folder / f"{i}.{request.param}"
        noise = 0.1 * rng.normal(size=(2, int(SECONDS * RATE))).astype(np.float32)
        if request.param == "wav":
            soundfile.write(path, noise.T, RATE)
        else:
            with av.open(str(path), "w") as container:
                stream = container.add_stream("aac", rate=RATE)
                stream.layout = "stereo"
                frame = av.AudioFrame.from_ndarray(noise, "fltp", "stereo")
                frame.sample_rate = RATE
                for part in av.AudioResampler("fltp", "stereo", RATE, frame_size=1024).resample(frame):
                    container.mux(stream.encode(part))
                container.mux(stream.encode())
        found.append(Clip(str(i), path))
    return found


def decode_alone(clips: list[Clip]) -> None:
    for clip in clips:
        if clip.media.suffix == ".wav":
            soundfile.read(clip.media)
        else:
            with av.open(str(clip.media)) as container:
                for frame in container.decode(container.streams.audio[0]):
                    frame.to_ndarray()


def test_the_decoder_alone(benchmark: Any, clips: list[Clip]) -> None:
    kind = clips[0].media.suffix[1:]
    benchmark.group = kind
    benchmark(decode_alone, clips)
    BARE[kind] = benchmark.extra_info["clips/s"] = CLIPS / benchmark.stats.stats.median


@pytest.mark.parametrize("name", list(AUDIO))
def test_an_extractor(benchmark: Any, clips: list[Clip], name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    kind = clips[0].media.suffix[1:]
    benchmark.group = kind
    if name == "egemaps":
        pytest.importorskip("opensmile")
    extractor = AUDIO[name]({}, **({"model": base_model(tmp_path_factory)} if name == "speech" else {}))

    def both() -> None:
        extractor.encode([extractor.decode(clip) for clip in clips])

    benchmark.pedantic(both, rounds=1 if name == "speech" else 5, warmup_rounds=0 if name == "speech" else 1)
    speed = CLIPS / benchmark.stats.stats.median
    benchmark.extra_info |= {"clips/s": speed, "of the decoder's": speed / BARE[kind] if kind in BARE else None}


def base_model(folders: pytest.TempPathFactory) -> str:
    """Save a wav2vec 2.0 of the base size (12 layers of width 768) with random weights and return its folder."""
    transformers = pytest.importorskip("transformers")
    torchaudio_cpu.load()  # transformers imports torchaudio
    folder = folders.getbasetemp() / "wav2vec2-random"
    if not folder.exists():
        transformers.Wav2Vec2Model(transformers.Wav2Vec2Config()).save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return str(folder)
