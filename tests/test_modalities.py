"""Order and names of modalities."""

from __future__ import annotations

from mer_bench.modalities import modality_of, modality_order


def test_the_usual_modalities_come_first_and_a_number_tells_sets_of_one_apart() -> None:
    names = ["gaze", "vision", "audio2", "eeg", "audio", "text", "audio10"]
    assert sorted(names, key=modality_order) == ["text", "audio", "audio10", "audio2", "vision", "eeg", "gaze"]
    assert [modality_of(name) for name in ("audio", "audio2", "w2v", "7")] == ["audio", "audio", "w2v", "7"]
