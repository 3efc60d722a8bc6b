"""Unimodal encoders that papers train together with their fusion, on the recording itself: pixels and MFCCs.

``ENCODERS[name](dim)`` constructs one for a feature set of width ``dim``. All of them have the methods ``tokens`` and
``pool``, like the shared :class:`~mer_bench.fusion.utterance.TokenEncoder`, and read clips of any length; a missing
clip becomes zeros. In training, batch normalisation makes a clip depend on the others of its batch, as in the papers;
in evaluation it does not.
"""

from __future__ import annotations

from mer_bench.encoders.mfcc_cnn import MFCCCNN
from mer_bench.encoders.resnext3d import ResNeXt3D

ENCODERS: dict[str, type[MFCCCNN] | type[ResNeXt3D]] = {"mfcc_cnn": MFCCCNN, "resnext3d": ResNeXt3D}

__all__ = ["ENCODERS", "MFCCCNN", "ResNeXt3D"]
