"""Functionals: what the shared encoders read of an utterance, one vector of fixed width from frames of any number.

They are a fixed function of frozen features, so they are computed once for a feature set and kept beside it, in a file
that may be deleted at any time. :data:`VERSION` is in its name; a change of what is computed increases it together with
``SHARED_VERSION``.
"""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mer_bench.batch import PaddedSequence, Source
from mer_bench.errors import Misuse
from mer_bench.features import CHUNK, FeatureSet
from mer_bench.files import new_folder

VERSION = 1
COURSE = 4  #: cosine coefficients of each column
COUNT = 3 + COURSE  #: functionals of each column: mean, deviation, change and course


def functionals_width(features: FeatureSet) -> int:
    """Number of functionals of an utterance: seven per column, or its value where no utterance has several frames."""
    several = np.diff(features.offsets).max() > 1
    return (COUNT if several else 1) * features.spec.dim


def functionals(frames: PaddedSequence, width: int) -> Tensor:
    r"""Functionals of utterances, computed in double precision.

    For each column :math:`x_1, ..., x_T` of an utterance's frames these are, in this order, its mean, its standard
    deviation, its mean absolute change :math:`|x_t - x_{t-1}|`, and the first four cosine coefficients of
    :math:`x - \bar x` over time, :math:`\frac{\sqrt 2}{T} \sum_t (x_t - \bar x) \cos(\pi k (t - \frac12) / T)`, which
    describe its course (onset, apex, offset) for sequences of any length. A single frame has neither spread nor course:
    all but its mean is zero.

    All are proportional to the unit of the column, so that frames need not be standardised before.

    Args:
        frames: [utterance, time, dim], not standardised.
        width: ``dim`` for the mean alone, or seven times as much.

    Shapes:
        [utterance, time, dim] -> [utterance, width]; zero for an utterance without frames.
    """
    values, mask = frames.values.double(), frames.mask
    if width == values.shape[-1]:
        return _mean(values, mask)
    mean = _mean(values, mask)
    centred = values - mean[:, None]
    deviation = _mean(centred.square(), mask).sqrt()
    change = _mean(values.diff(dim=1).abs(), mask[:, 1:])
    length = mask.sum(1, keepdim=True).clamp(min=1).double()
    time = (torch.arange(mask.shape[1], device=mask.device) + 0.5) / length
    order = torch.arange(1, COURSE + 1, dtype=torch.double, device=mask.device)[:, None]
    basis = math.sqrt(2) * (math.pi * order * time[:, None]).cos() * (mask / length)[:, None]
    course = (basis @ centred).flatten(1)
    return torch.cat([mean, deviation, change, course], 1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def open_functionals(folder: Path, features: FeatureSet) -> npt.NDArray[np.float32]:
    """The functionals [row, width] of an open feature set, memory-mapped; computed if they are not there.

    They are computed again if the file or what it was made of has changed, and kept in memory where the folder cannot
    be written to.
    """
    kept, source = folder / f"functionals-{VERSION}", [features.spec.values_sha256, features.spec.offsets_sha256]
    with suppress(OSError, ValueError, RecursionError):
        if json.loads((kept / "facts.json").read_bytes()) == {"source": source, "stamp": _stamp(kept)}:
            return np.load(kept / "values.npy", mmap_mode="c", allow_pickle=False)
    computed = np.zeros((0, 0), np.float32)
    try:
        with new_folder(kept) as temporary:
            computed = np.lib.format.open_memmap(temporary / "values.npy", "w+", np.float32, _shape(features))
            if sys.platform == "linux":  # where a full disk would kill a process that writes into mapped memory
                with (temporary / "values.npy").open("rb+") as file:
                    os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END))
            _compute(features, computed)
            computed.flush()
            (temporary / "facts.json").write_text(json.dumps({"source": source, "stamp": _stamp(temporary)}))
    except (OSError, Misuse):
        computed = compute_functionals(features, functionals_width(features))
    return computed


def compute_functionals(features: FeatureSet, width: int) -> npt.NDArray[np.float32]:
    """The functionals [row, width] of an open feature set, in memory."""
    computed = np.zeros((len(features.offsets) - 1, width), np.float32)
    _compute(features, computed)
    return computed


def _compute(features: FeatureSet, into: npt.NDArray[np.float32]) -> None:
    """Fill ``into`` [row, width], a few utterances of similar length at once."""
    source, lengths = Source(torch.from_numpy(features.values)), np.diff(features.offsets)
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = lengths[order[start : start + 64]].max()  # at least as long as every utterance before it
        rows = order[start : start + max(1, min(64, CHUNK // max(1, int(longest) * features.spec.dim)))]
        into[rows] = functionals(source.gather(features.offsets, rows), into.shape[1]).numpy()
        start += len(rows)


def _shape(features: FeatureSet) -> tuple[int, int]:
    return features.spec.rows, functionals_width(features)


def _stamp(folder: Path) -> list[int]:
    facts = (folder / "values.npy").stat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]
