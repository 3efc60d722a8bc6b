"""Unimodal encoders that papers train together with their fusion, on what the utterance itself holds: pixels and MFCCs.

``ENCODERS[name](dim)`` builds one for a feature set of that width. All of them have ``tokens`` and ``pool``, as the
shared :class:`~mer_bench.fusion.layers.TokenEncoder` has, and read a clip of any length; a missing one becomes zeros.
While they train, batch normalisation makes a clip depend on its batch-mates, as in the papers; in evaluation never.
"""

from __future__ import annotations

from mer_bench.encoders.mfcc_cnn import MFCCCNN
from mer_bench.encoders.resnext3d import ResNeXt3D

ENCODERS: dict[str, type[MFCCCNN] | type[ResNeXt3D]] = {"mfcc_cnn": MFCCCNN, "resnext3d": ResNeXt3D}

__all__ = ["ENCODERS", "MFCCCNN", "ResNeXt3D"]
