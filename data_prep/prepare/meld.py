"""MELD: the utterance table, sentiment labels, text states, prosody and MFCC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from data_prep.cli import download_option, encoder_option
from data_prep.corpora.meld import ARCHIVES, DEFECTS, SENTIMENTS, SIZE, find_media, report_clips, utterances
from data_prep.prepare.common import corpus_command, extract_mfcc_if_found, extract_text_sets, import_if_found
from mer_bench.files import write_atomic
from mer_bench.utterances import write_table


def prepare(
    raw: Path, out: Path, *, backend: str = "torchaudio", partial: bool = False, force: bool = False, **text: Any
) -> Path:
    """Write the table, labels and feature sets that the files below ``raw`` allow; return the corpus's folder.

    ``text`` are options of :func:`data_prep.extractors.text.extract_text`.
    """
    corpus = out / "meld"
    table, sentiment = utterances(raw, partial=partial)
    path = write_table(corpus, table)
    click.echo(f"{len(table):,} utterances of {table['dialogue'].nunique():,} dialogues -> {path}")
    labels = corpus / "labels_sentiment.csv"
    write_atomic(labels, sentiment.to_csv(index=False, lineterminator="\n"))
    counts = sentiment["emotion"].value_counts()
    click.echo(f"sentiment: {', '.join(f'{counts.get(name, 0):,} {name}' for name in SENTIMENTS)} -> {labels}")
    click.echo("known defects: " + "; ".join(f"{clip}: {defect}" for clip, defect in DEFECTS.items()))
    media = find_media(raw)
    if any((media / clip).is_file() for clip in table["media"]):
        report_clips(table, media)
    clips = "clips (train_splits/*.mp4 or train_splits_wav/*.wav ...)"
    extract_mfcc_if_found(corpus, media, table["media"], clips, backend=backend, force=force)
    import_if_found(corpus, raw, "prosody", "prosody10", force=force)
    extract_text_sets(corpus, force=force, **text)
    return corpus


main = corpus_command(
    prepare,
    "meld",
    encoder_option,
    download_option,
    archives=ARCHIVES,
    size=SIZE,
    partial_help="Accept files whose counts are not the official ones.",
    help="MELD: utterance table, sentiment labels, text states, prosody, MFCC.",
)
