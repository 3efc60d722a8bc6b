"""The utterances on which each protocol trains, selects and tests, in one sentence each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """The utterances on which a protocol trains, selects and tests."""

    folds: int  #: number of test folds of the real corpus
    text: str
    clusters: str = "dialogues"  #: clusters of test utterances that the bootstrap resamples


PROTOCOLS = {
    "folds6": Protocol(
        6, "six speaker-independent folds of four actors; test on fold k, validation on fold k + 1 (cyclic), "
           "training on the other four.", "actors"),
    "fixed": Protocol(
        6, "six speaker-independent folds of four actors; test on fold k, training on the other five for a budget "
           "declared beforehand; the last epoch is scored, nothing is selected.", "actors"),
    "literature": Protocol(
        5, "five contiguous folds of four actors, as CFN-SR's code has them: actors 21-24 are never tested and there "
           "is no validation. Only to compare with papers; optimistic.", "actors"),
    "session5": Protocol(
        1, "training on sessions 1-4 less a fixed list of dialogues for validation; test on session 5."),
    "loso": Protocol(
        5, "leave one session out: each session is the test set once; validation is a fixed list of the training "
           "sessions' dialogues."),
    "official": Protocol(
        1, "the corpus's own train, validation and test split; speakers occur in several of them."),
    "independent": Protocol(
        1, "training, validation and test dialogues drawn independently from one model; no speaker occurs in two "
           "dialogues."),
}  # fmt: skip
