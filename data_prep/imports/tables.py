"""An utterance table from any CSV: ``python -m data_prep import-table``."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import click
import pandas as pd

from data_prep.cli import FILE, Command
from data_prep.corpora.base import decode_bytes, split_of
from mer_bench.errors import Misuse, unknown
from mer_bench.schema import check_name
from mer_bench.utterances import COLUMNS, DESCRIPTION, write_table

#: columns that a source may give; the others follow from these
TAKEN = tuple(name for name in COLUMNS if name != "turn")


def table_from_csv(source: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """An utterance table from a CSV; the utterances of a dialogue keep their order and are put together.

    Args:
        source: A CSV with a header, comma separated.
        columns: Column of the utterance table -> column of the source. Those that are not named are looked for under
            their own names. Without a dialogue each utterance is one; all other columns may be absent.

    Raises:
        Misuse: the file cannot be read, lacks a column that is named, or has an empty or repeated id.
    """
    try:
        found = pd.read_csv(io.StringIO(decode_bytes(source.read_bytes())), dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise Misuse(f"{source} is not a readable CSV: {' '.join(str(error).split())}") from error
    table = pd.DataFrame(index=found.index)
    for name in TAKEN:
        column = columns.get(name, name)
        if name in columns and column not in found.columns:
            raise unknown(f"column of {source}", column, found.columns)
        table[name] = found[column].str.strip() if column in found.columns else ""
    if not len(table) or (table["id"] == "").any():
        raise Misuse(f"{source} has no utterance, or one without an id; name the column of ids: --column id=NAME")
    if (table["dialogue"] == "").all():
        table["dialogue"] = table["id"]
    for name in ("start", "end"):
        seconds = pd.to_numeric(table[name].replace("", "nan"), errors="coerce")
        if (seconds.isna() & (table[name] != "")).any():
            raise Misuse(f"{source}: the column of {name} holds something that is no number of seconds")
        table[name] = seconds
    for value in sorted(set(table["split"]) - {""}):
        if not split_of(value):
            raise Misuse(f"{source}: the split {value!r} is none of train, validation and test")
    table["split"] = table["split"].map(split_of)
    first = table.groupby("dialogue", sort=False).ngroup()
    table = table.iloc[first.argsort(kind="stable")].reset_index(drop=True)
    table["turn"] = table.groupby("dialogue", sort=False).cumcount()
    return table


@click.command("import-table", cls=Command)
@click.option("--source", type=FILE, required=True, help="A CSV with one line per utterance.")
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder of the new corpus, such as data/my_corpus.",
)
@click.option(
    "--column",
    "pairs",
    multiple=True,
    metavar="NAME=COLUMN",
    help=f"Column of the source for {', '.join(TAKEN)}; repeatable.",
)
def main(source: Path, folder: Path, pairs: tuple[str, ...]) -> None:
    """Make the utterance table of a corpus of your own from a CSV."""
    columns = {}
    for pair in pairs:
        name, equals, column = pair.partition("=")
        if not equals or not column:
            raise Misuse(f"--column takes NAME=COLUMN, not {pair!r}")
        if name not in TAKEN:
            raise unknown("column of the utterance table", name, TAKEN)
        columns[name] = column
    check_name(folder.resolve().name, "corpus")
    table = table_from_csv(source, columns)
    path = write_table(folder, table)
    emotions = ", ".join(f"{name or 'none'} {count:,}" for name, count in table["emotion"].value_counts().items())
    click.echo(f"{path}: {len(table):,} utterances in {table['dialogue'].nunique():,} dialogues; {emotions}")
    if not (folder / DESCRIPTION).is_file():
        click.echo(f"next: describe the corpus in {folder / DESCRIPTION}, see docs/your_corpus.md")
