"""The probabilities of a run's test utterances, in a file beside its record that is kept on demand and never in git."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.records import RunRecord, RunSpec


def probabilities_path(spec: RunSpec, results: Path) -> Path:
    """Where they stand: beside the record, with another ending."""
    return spec.path(results).with_suffix(".npy")


def write_probabilities(spec: RunSpec, results: Path, probabilities: npt.NDArray[np.floating]) -> str:
    """Write probabilities [test utterance, class] in half precision; returns the sha256 that the record has to state.

    Raises:
        Misuse: the file cannot be written.
    """
    buffer = io.BytesIO()
    np.save(buffer, probabilities.astype(np.float16), allow_pickle=False)
    write_atomic(probabilities_path(spec, results), buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def are_kept(record: RunRecord, results: Path) -> bool:
    """Whether the record states the hash of its probabilities, and their file is there."""
    return record.probabilities is not None and probabilities_path(record.spec, results).is_file()


def read_probabilities(record: RunRecord, results: Path) -> npt.NDArray[np.float16] | None:
    """Probabilities [test utterance, class] in the order of ``test_index``; None if they are not kept.

    Raises:
        Misuse: the file is not the one whose hash the record states, or does not hold such probabilities.
    """
    if not are_kept(record, results):
        return None
    path = probabilities_path(record.spec, results)
    again = "delete it, and a bench with --keep probabilities writes it again"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Misuse(f"cannot read {path}: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != record.probabilities:
        raise Misuse(f"{path} does not hold the probabilities of its record: its sha256 is another; {again}")
    try:
        found = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise Misuse(f"{path} is not a file of numpy: {error}; {again}") from error
    shape = (len(record.test_index), len(record.classes))
    if not (isinstance(found, np.ndarray) and found.dtype == np.float16 and found.shape == shape):
        raise Misuse(f"{path} does not hold one probability in half precision per test utterance and class; {again}")
    if not ((found >= 0) & (found <= 1)).all():  # NaN is neither
        raise Misuse(f"{path} holds numbers that are no probabilities; {again}")
    return found
