"""The extended Geneva minimalistic acoustic parameter set, computed by openSMILE.

Eyben et al., "The Geneva Minimalistic Acoustic Parameter Set (GeMAPS) for Voice Research and Affective Computing",
IEEE Transactions on Affective Computing 7(2), 2016.
"""

from __future__ import annotations

from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from data_prep.corpora.base import Clip, Unreadable
from data_prep.extract import Extractor, FloatArray, Recipe, minor_version
from data_prep.extractors.media import RATE, decode_audio
from mer_bench.errors import Misuse, unknown

WINDOW = 0.06  #: seconds; the analysis window of the pitch, which is the longest one
LEVELS = {"functionals": "Functionals", "lld": "LowLevelDescriptors"}


def egemaps(source: dict[str, Any], *, level: str = "functionals") -> Extractor:
    """eGeMAPSv02: 88 functionals, one vector per utterance, or its 25 low-level descriptors every 10 ms.

    openSMILE runs in the worker processes, which decode the clips.

    Args:
        source: Provenance of the media, see :func:`data_prep.extractors.media.provenance`.
        level: ``functionals`` or ``lld``.

    Raises:
        Misuse: the package is not installed, or there is no such level.
    """
    if level not in LEVELS:
        raise unknown("level of eGeMAPS", level, LEVELS)
    if find_spec("opensmile") is None:
        raise Misuse("eGeMAPS needs the package opensmile: pip install 'mer-bench[opensmile]'")
    recipe = Recipe(
        name="egemaps" if level == "functionals" else "egemaps-lld",
        modality="audio",
        extractor="eGeMAPSv02",
        revision=f"opensmile {minor_version('opensmile')}",
        layer=LEVELS[level],
        frame_rate=None if level == "functionals" else 100.0,
        settings={"sample_rate": RATE, **source},
    )
    return Extractor(recipe, partial(decode_egemaps, level=level), list)


def decode_egemaps(clip: Clip, level: str) -> FloatArray:
    """The functionals [1, 88] or descriptors [time, 25] of a clip.

    Raises:
        Unreadable: the clip is shorter than the longest analysis window, 60 ms.
    """
    samples = decode_audio(clip)
    if len(samples) <= WINDOW * RATE:
        raise Unreadable("it is shorter than openSMILE's window of 60 ms")
    return np.ascontiguousarray(_smile(level).process_signal(samples, RATE).to_numpy(np.float32))


@cache
def _smile(level: str) -> Any:
    import opensmile

    return opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel[LEVELS[level]])
