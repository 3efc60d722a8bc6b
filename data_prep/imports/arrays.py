"""Import of existing features as a feature set, checked against the utterance table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from data_prep.cli import Command, force_option, table_option
from data_prep.corpora.base import fingerprint
from data_prep.extract import EMPTY, FloatArray, Recipe, store
from mer_bench.errors import Misuse
from mer_bench.features import MODALITIES, FeatureSpec, import_sequences
from mer_bench.files import sha256
from mer_bench.utterances import read_table


def read_vectors(source: Path, key: str, ids: list[str]) -> list[FloatArray]:
    """One vector per utterance: row i of the array ``key`` [rows, dim] of an npz belongs to the utterance ``ids[i]``.

    Raises:
        Misuse: the npz lacks one of the arrays, their lengths differ, or it contains ids that the table lacks.
    """
    try:
        with np.load(source, allow_pickle=False) as archive:
            absent = [name for name in ("ids", key) if name not in archive.files]
            if absent:
                raise Misuse(f"{source} has no array {absent[0]!r}; it has {', '.join(archive.files)}")
            names, values = [str(i) for i in archive["ids"]], archive[key]
    except (OSError, ValueError, EOFError) as error:
        raise Misuse(f"cannot read features from {source}: {error}") from error
    if values.ndim != 2 or len(values) != len(names):
        raise Misuse(f"{source}: {key} has the shape {values.shape}, expected one vector for each of {len(names)} ids")
    unknown_ids = sorted(set(names) - set(ids))
    if unknown_ids:
        raise Misuse(f"{source} holds {len(unknown_ids):,} ids that the table lacks (first: {unknown_ids[0]!r})")
    row = {name: i for i, name in enumerate(names)}
    return [values[row[i]][None] if i in row else EMPTY for i in ids]


def import_features(
    corpus: Path,
    source: Path,
    *,
    name: str,
    modality: str,
    extractor: str = "",
    key: str = "",
    frame_rate: float | None = None,
    force: bool = False,
) -> FeatureSpec:
    """Store the features in ``source`` as the feature set ``name``.

    Args:
        corpus: Folder of the utterance table.
        source: A folder of ``<id>.npy`` or an npz, in the forms of :func:`mer_bench.features.import_sequences`; with
            ``key``, an npz of ``ids`` and one matrix.
        name: Name of the new set.
        modality: ``text``, ``audio`` or ``vision``.
        extractor: Name of the extractor that computed the features; by default the name of the set.
        key: Name of the matrix [rows, dim] in the npz.
        frame_rate: Frames per second, if the rate is constant.
        force: Whether to import the set even if it is up to date.

    Raises:
        Misuse: the source does not exist, cannot be read or does not fit the table.
    """
    if not source.exists():
        raise Misuse(f"no features at {source}")
    ids = list(read_table(corpus)["id"])
    recipe = Recipe(
        name=name,
        modality=modality,
        extractor=extractor or name,
        revision=fingerprint(source.glob("*.npy"), source) if source.is_dir() else sha256(source)[:16],
        layer=key,
        frame_rate=frame_rate,
    )
    return store(
        corpus,
        recipe,
        lambda: read_vectors(source, key, ids) if key else import_sequences(source, ids),
        ids=ids,
        force=force,
    )


@click.command("import", cls=Command)
@table_option
@click.option("--name", required=True, help="Name of the new feature set.")
@click.option("--modality", type=click.Choice(MODALITIES), required=True, help="Modality of the features.")
@click.option(
    "--source",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="A folder of <id>.npy, or an npz with one array per id; or with ids, values, offsets; or with ids and --key.",
)
@click.option("--key", default="", help="Array [rows, dim] of an npz that also has ids [rows].")
@click.option("--extractor", default="", help="Name of the extractor that computed them.")
@click.option("--frame-rate", type=float, help="Frames per second, if the rate is constant.")
@force_option
def main(table: Path, source: Path, **options: Any) -> None:
    """Import existing features from a folder of npy files or an npz."""
    import_features(table, source, **options)
