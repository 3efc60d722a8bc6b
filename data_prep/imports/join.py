"""Joining of the columns of feature sets, such as two descriptions of the voice, to one set of one modality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np

from data_prep.cli import Command, force_option, name_option, table_option
from data_prep.extract import EMPTY, FloatArray, Recipe, store
from mer_bench.errors import Misuse
from mer_bench.exposure import JOINED, exposure, gravest
from mer_bench.features import FeatureSpec, check_fits, open_features
from mer_bench.files import sha256
from mer_bench.utterances import FILE, read_table


def join_features(corpus: Path, names: Sequence[str], *, name: str = "", force: bool = False) -> FeatureSpec:
    """Store the columns of several feature sets side by side; the new set says where each of them comes from.

    An utterance that one of the sets lacks becomes a missing modality, and is counted.

    Args:
        corpus: Folder of the utterance table.
        names: The sets, in the order of their columns.
        name: Name of the new set; by default those of the sets.
        force: Whether to write the set even if it is up to date.

    Raises:
        Misuse: a set is absent or holds pixels, or they differ in modality, frame rate or the frames of an utterance.
    """
    if len(set(names)) < max(2, len(names)):
        raise Misuse(f"name two or more different feature sets to join, not {', '.join(names) or 'none'}")
    ids = list(read_table(corpus)["id"])
    sets = [open_features(corpus / each) for each in names]
    specs = [each.spec for each in sets]
    for opened, spec in zip(sets, specs, strict=True):
        check_fits(opened, corpus / spec.name, len(ids), sha256(corpus / FILE))
        if spec.integer:
            raise Misuse(f"{spec.name} holds pixels, which are not joined")
        for what in ("modality", "frame_rate"):
            if getattr(spec, what) != getattr(specs[0], what):
                raise Misuse(
                    f"{specs[0].name} and {spec.name} differ in {what} ({getattr(specs[0], what)} and "
                    f"{getattr(spec, what)}): only sets with the same frames are joined"
                )
    counts = np.stack([np.diff(each.offsets) for each in sets])  # [set, row]
    present = np.all(counts > 0, axis=0)
    differ = np.flatnonzero(present & (counts != counts[0]).any(0))
    if len(differ):
        found = " and ".join(map(str, counts[:, differ[0]]))
        raise Misuse(f"{', '.join(names)} have {found} frames of {ids[differ[0]]}: only equal numbers are joined")
    lacking = int(((counts > 0).any(0) & ~present).sum())
    if lacking:
        click.echo(f"{lacking:,} utterances are in some of the sets only, and become missing")

    def sequences() -> Iterator[FloatArray]:
        for row, complete in enumerate(present):
            parts = [each.values[each.offsets[row] : each.offsets[row + 1]] for each in sets]
            yield np.concatenate(parts, axis=1, dtype=np.float32) if complete else EMPTY

    recipe = Recipe(
        name=name or "-".join(names),
        modality=specs[0].modality,
        extractor=JOINED.join(spec.extractor for spec in specs),
        revision=JOINED.join(spec.revision for spec in specs),
        layer=JOINED.join(filter(None, (spec.layer for spec in specs))),
        frame_rate=specs[0].frame_rate,
        settings={"joined": [f"{spec.name} {spec.sha256[:16]}" for spec in specs]},
    )
    seen = {spec.extractor: exposure(spec.extractor, corpus.resolve().name, spec.exposure) for spec in specs}
    return store(
        corpus,
        recipe,
        sequences,
        ids=ids,
        parameters=lambda: sum(spec.extractor_parameters for spec in specs),
        exposure=gravest(seen),
        force=force,
    )


@click.command("join", cls=Command)
@table_option
@click.option("--sets", required=True, help="Names of the feature sets in the order of their columns, by spaces.")
@name_option("Name of the new set [default: the names of the sets].")
@force_option
def main(table: Path, sets: str, name: str | None, force: bool) -> None:
    """Join the columns of feature sets of one modality to one set."""
    join_features(table, sets.split(), name=name or "", force=force)
