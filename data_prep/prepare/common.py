"""What the commands of all corpora share: their options, unpacking, and the feature sets that several corpora have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from data_prep import cli
from data_prep.corpora.archives import TIMES, unpack_all
from data_prep.corpora.base import find_npz
from data_prep.extractors.audio import extract_audio
from data_prep.extractors.text import extract_text
from data_prep.imports.arrays import import_features
from data_prep.prepare.extractor_calls import ExtractorCall, features_option, models_option, run_extractors


def corpus_command(
    prepare: Callable[..., Path],
    name: str,
    *options: Any,
    archives: re.Pattern[str],
    size: int,
    partial_help: str,
    help: str,
) -> click.Command:
    """The command that unpacks a corpus, prepares it, and runs the extractors that ``--features`` names.

    Args:
        prepare: Function of the unpacked folder, the output folder and the options; returns the corpus's folder.
        name: Name of the command.
        options: Options that only this corpus has.
        archives: Regular expression for the names of the archives to unpack.
        size: Bytes of the release, which limit what unpacking may write.
        partial_help: Help of the option ``--partial``.
        help: Help of the command.
    """

    def run(
        raw: Path,
        out: Path,
        unpack: Path | None,
        max_unpacked: int | None,
        models: Path | None,
        calls: Sequence[ExtractorCall],
        **rest: Any,
    ) -> None:
        raw = unpack_all(raw, archives, unpack, limit=max_unpacked or TIMES * size)
        run_extractors(calls, prepare(raw, out, **rest), raw)

    partial_option = click.option("--partial", is_flag=True, help=partial_help)
    first = cli.raw_option, cli.out_option, cli.unpack_option, cli.max_unpacked_option
    last = cli.backend_option, models_option, features_option
    for option in reversed([*first, *options, partial_option, *last, cli.force_option]):
        run = option(run)
    return click.command(name, cls=cli.Command, help=help)(run)


def extract_mfcc_if_found(corpus: Path, folder: Path, media: Iterable[str], files: str, **options: Any) -> None:
    """Store the set ``mfcc`` if one of the ``media`` exists in ``folder``; otherwise print that there are none."""
    if any((folder / name).is_file() for name in media if name):
        extract_audio(corpus, folder, "mfcc", **options)
    else:
        click.echo(f"mfcc: skipped, there are no {files} below {folder}")


def import_if_found(
    corpus: Path, raw: Path, name: str, key: str, *, source: Path | None = None, force: bool = False
) -> bool:
    """Import the matrix ``key`` of an npz, by default of one below or beside ``raw``; if there is none, print that.

    Returns:
        Whether the set is there.
    """
    arrays = {"ids", key}
    source = source or find_npz([*sorted(raw.rglob("*.npz")), *sorted(raw.resolve().parent.glob("*.npz"))], arrays)
    if source:
        import_features(corpus, source, name=name, modality="audio", extractor=key, key=key, force=force)
    else:
        click.echo(f"{name}: skipped, there is no npz with ids and {key} below or beside {raw}")
    return bool(source)


def extract_text_sets(corpus: Path, **options: Any) -> None:
    """Store the mean and the sequence of the text encoder's states; options as for :func:`extract_text`."""
    for pooling in ("mean", "tokens"):
        extract_text(corpus, pooling=pooling, **options)
