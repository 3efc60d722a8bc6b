"""Probabilities in a file beside a record: it may be absent, but another content than the record's is refused."""

from __future__ import annotations

import hashlib
import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_records import RECORD, SPEC, files

from mer_bench.errors import Misuse
from mer_bench.probabilities import are_kept, probabilities_path, read_probabilities, write_probabilities
from mer_bench.records import RunRecord, load_records, read_record, write_record

P = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [1.0, 0.0, 0.0]], np.float32)


def kept(results: Path, content: bytes | None = None) -> RunRecord:
    """A record that states the hash of its probabilities, or of another content of their file."""
    digest = write_probabilities(SPEC, results, P)
    if content is not None:
        probabilities_path(SPEC, results).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
    record = replace(RECORD, probabilities=digest)
    write_record(record, results)
    return record


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_they_stand_beside_the_record_in_half_precision_and_are_no_record(tmp_path: Path) -> None:
    record = kept(tmp_path)
    path = probabilities_path(SPEC, tmp_path)
    assert path.parent == SPEC.path(tmp_path).parent
    assert len(files(tmp_path)) == 2
    assert load_records(tmp_path) == ([record], [])
    assert read_record(SPEC.path(tmp_path)) == record
    found = read_probabilities(record, tmp_path)
    assert found is not None
    assert found.dtype == np.float16
    assert np.array_equal(found, P.astype(np.float16))
    assert np.load(path, allow_pickle=False).shape == (3, 3)


def test_without_a_hash_or_without_a_file_there_are_none(tmp_path: Path) -> None:
    record = kept(tmp_path)
    assert are_kept(record, tmp_path)
    assert read_probabilities(replace(record, probabilities=None), tmp_path) is None
    probabilities_path(SPEC, tmp_path).unlink()
    assert read_probabilities(record, tmp_path) is None
    assert not are_kept(record, tmp_path)


def test_a_file_with_another_hash_is_named_and_refused(tmp_path: Path) -> None:
    record = kept(tmp_path)
    path = probabilities_path(SPEC, tmp_path)
    path.write_bytes(saved(P.astype(np.float16)[::-1]))
    with pytest.raises(Misuse, match="its sha256 is another; delete it, and a bench with --keep probab") as caught:
        read_probabilities(record, tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a file of numpy"),
        (pickle.dumps([1, 2]), "is not a file of numpy"),
        (saved(np.array([[None]])), "is not a file of numpy"),
        (saved(P), "does not hold one probability in half precision per test utterance and class"),
        (saved(P[:2].astype(np.float16)), "does not hold one probability in half precision"),
        (saved(P.astype(np.float16) * 2), "holds numbers that are no probabilities"),
        (saved(P.astype(np.float16) * np.float16(np.nan)), "holds numbers that are no probabilities"),
    ],
)
def test_a_file_that_the_record_states_but_that_holds_something_else_is_one_sentence(
    tmp_path: Path, content: bytes, said: str
) -> None:
    with pytest.raises(Misuse, match=said) as caught:
        read_probabilities(kept(tmp_path, content), tmp_path)
    assert "\n" not in str(caught.value)
