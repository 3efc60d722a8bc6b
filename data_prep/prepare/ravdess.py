"""RAVDESS: the utterance table, MFCC and facial landmarks."""

from __future__ import annotations

from pathlib import Path

import click

from data_prep.corpora.ravdess import ARCHIVES, SIZE, utterances
from data_prep.extractors.landmarks import extract_landmarks
from data_prep.prepare.common import corpus_command, extract_mfcc_if_found
from mer_bench.utterances import write_table


def prepare(raw: Path, out: Path, *, partial: bool = False, backend: str = "torchaudio", force: bool = False) -> Path:
    """Write the table and the feature sets that the unpacked files below ``raw`` allow; return the corpus's folder."""
    table = utterances(raw, partial=partial)
    corpus = out / "ravdess"
    click.echo(f"{len(table):,} takes of {table['speaker'].nunique()} actors -> {write_table(corpus, table)}")
    extract_mfcc_if_found(corpus, raw, table["media"], "audio files", backend=backend, force=force)
    if not extract_landmarks(corpus, raw, force=force):
        click.echo("landmarks: skipped, there are none (see data_prep/README.md: Zenodo record 3255102)")
    return corpus


main = corpus_command(
    prepare,
    "ravdess",
    archives=ARCHIVES,
    size=SIZE,
    partial_help="Accept a subset of the 1,440 takes.",
    help="RAVDESS: utterance table, MFCC, facial landmarks.",
)
