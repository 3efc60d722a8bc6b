"""The extractor that computed a feature set, built again from what the set's specification says of it.

A trained model states the specification of every feature set that it reads. New clips need the same extractor: one that
differs in its weights, its settings or a library on which its values depend is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from data_prep.corpora.base import Clip, Unreadable
from data_prep.corpora.new_clips import NewClip
from data_prep.extract import Extractor, Recipe, Remarked
from data_prep.extractors import vision
from data_prep.extractors.egemaps import LEVELS, egemaps
from data_prep.extractors.hub import PACKAGED
from data_prep.extractors.landmarks import landmark_extractor
from data_prep.extractors.logmel import logmel
from data_prep.extractors.media import decoder, load_audio
from data_prep.extractors.mfcc import BACKENDS, mfcc, mfcc13
from data_prep.extractors.openface import openface_extractor
from data_prep.extractors.speech import speech, whisper
from data_prep.extractors.text import SUFFIX, glove_extractor, text_extractor
from mer_bench.errors import Misuse
from mer_bench.features import FeatureSpec

T = TypeVar("T")

SILENCE = 1e-4  #: a sound whose samples are all smaller is silent: -80 dB of full scale
#: settings that describe files and not the extractor
OF_FILES = ("source",)


@dataclass(frozen=True)
class Source:
    """The new clips, and where the frozen models are that their features need.

    Args:
        clips: All clips.
        models: For the modalities of a model that no package carries: a name on the Hugging Face hub, a folder, a
            checkpoint or a file of word vectors. A specification states no place.
        download: Whether a model may be downloaded from the hub.
        trust: Modalities whose extractor is taken although it differs.
    """

    clips: Sequence[NewClip]
    models: Mapping[str, str] = field(default_factory=dict)
    download: bool = False
    trust: Collection[str] = ()

    @property
    def media(self) -> list[Clip]:
        """The media files."""
        return [Clip(clip.id, clip.path) for clip in self.clips]

    @property
    def texts(self) -> list[Clip]:
        """What is said in the clips."""
        return [Clip(clip.id, text=clip.text) for clip in self.clips]

    @property
    def landmarks(self) -> list[Clip]:
        """The CSVs of landmarks."""
        return [Clip(clip.id, clip.landmarks) for clip in self.clips]

    @property
    def tracking(self) -> dict[str, Path]:
        """The CSVs of landmarks by the ids of the clips."""
        return {clip.id: clip.landmarks for clip in self.clips if clip.landmarks}


@dataclass(frozen=True)
class Rebuilt:
    """An extractor, and for each new clip what it reads."""

    extractor: Extractor
    clips: Sequence[Clip]


def rebuild(modality: str, spec: FeatureSpec, source: Source) -> Rebuilt:
    """The extractor that computed the set ``spec``, for new clips.

    Args:
        modality: What the trained model calls the modality, such as ``audio`` or ``audio2``.
        spec: The specification of the set.
        source: The clips and models.

    Raises:
        Misuse: the set comes from no extractor of this package, or the extractor needs something that is not given or
            differs from what this installation has.
    """
    leave = f"or leave the modality out (--without {modality})"
    try:
        found = _find(modality, spec, source)
    except ModuleNotFoundError as error:
        raise Misuse(
            f"{modality}: extracting {spec.extractor!r} needs the package {error.name}: pip install 'mer-bench[prep]', "
            f"{leave}"
        ) from error
    except Misuse as error:
        raise Misuse(f"{modality}: {error}, {leave}") from error
    if found is None:
        raise Misuse(
            f"{modality}: the model reads the features {spec.name!r} of {spec.extractor!r}, which were imported and "
            f"cannot be extracted here: prepare a table with them and pass it (--table FOLDER), {leave}"
        )
    differs = difference(spec, found.extractor.recipe)
    if differs and modality not in source.trust:
        what, wanted, here = differs
        raise Misuse(
            f"{modality}: the model reads {spec.extractor!r} with {what} {wanted}, and this installation has {here}; "
            f"use what the model was trained with, say --trust {modality} if they mean the same, {leave}"
        )
    return found


def difference(spec: FeatureSpec, recipe: Recipe) -> tuple[str, str, str] | None:
    """The first part of an extractor's identity in which a recipe differs: its name and the two values, as JSON.

    The files differ of course. How they were decoded counts if both sets read containers; a model that was trained on
    wav files reads the sound of a video as well.
    """
    theirs, ours = _identity(spec), _identity(recipe)
    if not ("decoder" in theirs and "decoder" in ours):
        theirs.pop("decoder", None)
        ours.pop("decoder", None)
    for what in {**theirs, **ours}:
        pair = (_json(theirs.get(what)), _json(ours.get(what)))
        if pair[0] != pair[1]:
            return what, *pair
    return None


def _identity(facts: FeatureSpec | Recipe) -> dict[str, Any]:
    names = ("extractor", "revision", "modality", "layer", "frame_rate", "dtype")
    settings = {name: value for name, value in facts.settings.items() if name not in OF_FILES}
    return {name: getattr(facts, name) for name in names} | settings


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _find(modality: str, spec: FeatureSpec, source: Source) -> Rebuilt | None:
    """The extractor that a specification is of, by its name; None if it is of none."""
    if spec.modality == "audio":
        sound = _audio(modality, spec, source)
        return Rebuilt(replace(sound, decode=partial(decode_sound, sound.decode)), source.media) if sound else None
    if spec.modality == "text":
        return Rebuilt(_text(modality, spec, source), source.texts) if spec.settings.get("pooling") in SUFFIX else None
    if spec.modality != "vision":
        return None
    if spec.extractor in ("facial landmarks", "OpenFace"):
        return Rebuilt(_tracking(spec, source), source.landmarks)
    pictures = _pictures(modality, spec, source) if "faces" in spec.settings else None
    return Rebuilt(pictures, source.media) if pictures else None


def _audio(modality: str, spec: FeatureSpec, source: Source) -> Extractor | None:
    files = {**decoder(clip.path for clip in source.clips if clip.path), "source": ""}
    backend = spec.revision.partition(" ")[0]
    if spec.extractor == "mfcc" and backend in BACKENDS:
        function = {40: mfcc, 13: mfcc13}.get(_setting(spec, "n_mfcc", int))
        return function(files, backend=backend) if function else None
    if spec.extractor == "logmel":
        return logmel(files, mels=_setting(spec, "n_mels", int))
    if spec.extractor == "eGeMAPSv02":
        level = next((level for level, title in LEVELS.items() if title == spec.layer), spec.layer)
        return egemaps(files, level=level)
    if "window" in spec.settings:
        layer = "last" if spec.layer == "last hidden state" else spec.layer.removeprefix("hidden state ")
        model, average = _model(modality, spec, source), _setting(spec, "average", int)
        return whisper(files, model=model, layer=layer, average=average, download=source.download)
    if "longest" not in spec.settings:
        return None
    layer = "mean" if spec.layer == "mean of all layers" else spec.layer.removeprefix("hidden state ")
    model, pooling = _model(modality, spec, source), _setting(spec, "pooling", str)
    average = _setting(spec, "average", int) if "average" in spec.settings else 1
    return speech(files, model=model, layer=layer, pooling=pooling, average=average, download=source.download)


def _text(modality: str, spec: FeatureSpec, source: Source) -> Extractor:
    pooling = _setting(spec, "pooling", str)
    if "word vectors" in spec.layer:
        texts = [clip.text for clip in source.clips]
        return glove_extractor(_file(_model(modality, spec, source)), texts, pooling=pooling)
    return text_extractor(
        _model(modality, spec, source),
        pooling=pooling,
        max_length=_setting(spec, "max_length", int),
        download=source.download,
    )


def _tracking(spec: FeatureSpec, source: Source) -> Extractor:
    """One of the two extractors that read the CSVs of OpenFace."""
    if not source.tracking:
        raise Misuse(
            "the model reads facial landmarks or action units, which OpenFace computes: run it on the clips and give "
            "its CSVs (--landmarks FILE.csv)"
        )
    extractor = landmark_extractor("")
    if spec.extractor == "OpenFace":
        columns, gaps = tuple(_setting(spec, "columns", list)), _setting(spec, "gaps", str)
        extractor = openface_extractor(
            "", columns=columns, min_confidence=_setting(spec, "confidence", float, int), gaps=gaps
        )
    return replace(extractor, decode=partial(decode_tracking, extractor.decode, extractor.recipe.frame_rate))


def _pictures(modality: str, spec: FeatureSpec, source: Source) -> Extractor | None:
    """One of the extractors of frames; the landmarks by which a face is cropped must be given."""
    face, crop = _setting(spec, "faces", str), _setting(spec, "crop", str)
    if face == "landmarks" and not source.tracking:
        raise Misuse(
            "the model reads faces that are cropped by their landmarks: give OpenFace's CSVs (--landmarks FILE.csv)"
        )
    sampling = vision.FrameSampling(
        count=30 if "fps" in spec.settings else _setting(spec, "frames", int),
        fps=_setting(spec, "fps", float, int) if "fps" in spec.settings else None,
        side=_setting(spec, "side", int),
        face=face,
        crop=crop,
        margin=_setting(spec, "margin", float, int) if crop == "square" else None,
        tracking=source.tracking,
    )
    stated = re.fullmatch(r"(\w+) of (?:last hidden state|hidden state (\d+))", spec.layer)
    if spec.extractor == "pixels":
        extractor = vision.frames(sampling)
    elif spec.extractor == "3D ResNeXt-50":
        checkpoint, stem_relu = _file(_model(modality, spec, source)), _setting(spec, "stem_relu", bool)
        extractor = vision.clip3d(sampling, checkpoint=checkpoint, tokens=spec.layer == "layer4", stem_relu=stem_relu)
    elif stated:
        layer, model = int(stated[2]) if stated[2] else None, _model(modality, spec, source)
        extractor = vision.image(sampling, model=model, layer=layer, pooling=stated[1], download=source.download)
    else:
        return None
    if face != "landmarks":
        return extractor
    return replace(extractor, decode=partial(decode_tracked, extractor.decode, frozenset(source.tracking)))


def _model(modality: str, spec: FeatureSpec, source: Source) -> str:
    """Where the frozen model is: what the user says, or the package that carries it; never what the file says."""
    if modality in source.models:
        return source.models[modality]
    if spec.extractor in PACKAGED:
        return spec.extractor
    raise Misuse(
        f"the model reads states of {spec.extractor!r}: say where that is, with its name on the Hugging Face hub, its "
        f"folder or its file (--model {modality}=NAME)"
    )


def _file(name: str) -> Path:
    if not Path(name).is_file():
        raise Misuse(f"there is no file {name}")
    return Path(name)


def _setting(spec: FeatureSpec, name: str, *kinds: type[T]) -> T:
    """One setting of a specification, which a file states.

    Raises:
        Misuse: it is absent or of another type.
    """
    value = spec.settings.get(name)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise Misuse(f"its specification states no usable setting {name!r} of {spec.extractor!r}")
    return value


# --- what new clips may lack ------------------------------------------------------------------------------------------


def decode_sound(decode: Callable[[Clip], Any], clip: Clip) -> Any:
    """What ``decode`` makes of a clip with sound.

    Raises:
        Unreadable: every sample is silent, as in the video-only files of RAVDESS; no model learnt from such a sound.
    """
    if not (np.abs(load_audio(clip.media)) > SILENCE).any():
        raise Unreadable("its sound is silent")
    return decode(clip)


def decode_tracking(decode: Callable[[Clip], Any], frame_rate: float | None, clip: Clip) -> Any:
    """What ``decode`` makes of a CSV of landmarks; a remark if its frames do not have the rate of the training's.

    Raises:
        Unreadable: there is no CSV for the clip.
    """
    if clip.path is None:
        raise Unreadable("there are no landmarks of it")
    found = decode(clip)
    rate = tracking_rate(clip.path) if frame_rate else None
    if frame_rate and rate and abs(rate / frame_rate - 1) > 0.05:
        remark = f"its landmarks have {rate:.4g} frames per second, those of the training {frame_rate:.4g}"
        return Remarked(found.values if isinstance(found, Remarked) else found, remark)
    return found


def tracking_rate(path: Path) -> float | None:
    """Frames per second of a CSV of OpenFace by its column ``timestamp``; None if it has none."""
    table = pd.read_csv(path, usecols=lambda name: name.strip() == "timestamp", encoding_errors="replace")
    if table.empty:
        return None
    times = pd.to_numeric(table.iloc[:, 0], errors="coerce").to_numpy(np.float64)
    steps = np.diff(times)
    return float(1 / np.median(steps)) if len(steps) and np.median(steps) > 0 else None


def decode_tracked(decode: Callable[[Clip], Any], tracked: frozenset[str], clip: Clip) -> Any:
    """What ``decode`` makes of a clip whose face is cropped by its landmarks.

    Raises:
        Unreadable: there are no landmarks of the clip.
    """
    if clip.id not in tracked:
        raise Unreadable("there are no landmarks of it, by which its face is cropped")
    return decode(clip)
