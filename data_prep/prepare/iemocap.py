"""IEMOCAP: the utterance table, six-class labels, text states, GeMAPS, prosody and MFCC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from data_prep.cli import FILE, download_option, encoder_option
from data_prep.corpora.iemocap import ARCHIVES, SIZE, find_root, report_media, utterances, write_community
from data_prep.corpora.iemocap_raters import write_ratings
from data_prep.imports.join import join_features
from data_prep.prepare.common import corpus_command, extract_mfcc_if_found, extract_text_sets, import_if_found
from mer_bench.utterances import write_table


def find_community(raw: Path) -> Path | None:
    """``iemocap6_dialogues.json`` below or beside ``raw``, if it exists."""
    name = "iemocap6_dialogues.json"
    return next(iter([*sorted(raw.rglob(name)), *raw.resolve().parent.glob(name)]), None)


def prepare(
    raw: Path,
    out: Path,
    *,
    gemaps: Path | None = None,
    community: Path | None = None,
    raters: bool = False,
    backend: str = "torchaudio",
    partial: bool = False,
    force: bool = False,
    **text: Any,
) -> Path:
    """Write the table, labels and feature sets that the unpacked files below ``raw`` allow; return the corpus's folder.

    ``gemaps`` is an npz with 47 GeMAPS functionals per utterance, and ``community`` a file of six-class labels; by
    default those that are found below or beside ``raw``, like prosody. ``raters`` writes what each evaluator said.
    ``text`` are options of :func:`data_prep.extractors.text.extract_text`.
    """
    root, corpus = find_root(raw), out / "iemocap"
    table = utterances(root, partial=partial)
    click.echo(f"{len(table):,} utterances of {table['dialogue'].nunique()} dialogues -> {write_table(corpus, table)}")
    community = community or find_community(raw)
    if community:
        write_community(corpus, table, community)
    else:
        click.echo("community labels: skipped, there is no iemocap6_dialogues.json (--community PATH)")
    if raters:
        write_ratings(corpus, root, dict(zip(table["id"], table["emotion"], strict=True)))
    voices = {
        "gemaps": import_if_found(corpus, raw, "gemaps", "gemaps47", source=gemaps, force=force),
        "prosody": import_if_found(corpus, raw, "prosody", "prosody10", force=force),
    }
    if all(voices.values()):
        join_features(corpus, list(voices), force=force)
    report_media(table, root)
    wavs = "files Session*/sentences/wav"
    extract_mfcc_if_found(corpus, root, table["media"], wavs, backend=backend, force=force)
    extract_text_sets(corpus, force=force, **text)
    return corpus


main = corpus_command(
    prepare,
    "iemocap",
    click.option("--gemaps", type=FILE, help="npz with ids and gemaps47 [default: found below or beside RAW]."),
    click.option("--community", type=FILE, help="iemocap6_dialogues.json [default: found below or beside RAW]."),
    click.option("--raters", is_flag=True, help="Write what each evaluator said of each utterance to raters.csv."),
    encoder_option,
    download_option,
    archives=ARCHIVES,
    size=SIZE,
    partial_help="Accept a subset of the 10,039 utterances.",
    help="IEMOCAP: utterance table, community labels, text states, GeMAPS, prosody, MFCC.",
)
