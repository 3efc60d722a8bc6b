"""The utterance table ``utterances.csv``: one row per utterance, whose row number identifies it everywhere."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.workspace import prepare_command

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("id", "dialogue", "turn", "speaker", "session", "start", "end", "text", "emotion", "split", "media")
FILE = "utterances.csv"
DESCRIPTION = "corpus.toml"  #: beside the table of a corpus that no class describes


def read_table(folder: Path) -> pd.DataFrame:
    """Read and check ``folder/utterances.csv``.

    Every column holds strings, except ``turn`` (integers) and ``start`` and ``end`` (seconds, NaN where unknown).
    An utterance with the text "None" or "NA" is not read as a missing value.

    Raises:
        Misuse: The file is absent or unreadable, or :func:`check_table` finds an error in it.
    """
    import pandas as pd  # only here: what looks at the names alone starts sooner without it

    path = folder / FILE
    if not path.is_file():
        raise Misuse(f"there is no utterance table at {path}: prepare the corpus first ({prepare_command()})")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        if tuple(table.columns) != COLUMNS:
            raise Misuse(f"{path} has the columns {', '.join(table.columns)}; expected {', '.join(COLUMNS)}")
        table["turn"] = table["turn"].astype(int)
        for column in ("start", "end"):
            table[column] = pd.to_numeric(table[column]).astype(float)
            if np.isinf(table[column]).any():
                raise ValueError(f"the column {column} holds a number that is not finite")
    except (OSError, ValueError, OverflowError, TypeError) as error:
        raise Misuse(f"{path} is not a readable utterance table: {' '.join(str(error).split())}") from error
    check_table(table, str(path))
    return table


def read_labels(path: Path, ids: pd.Series[str]) -> pd.Series[str]:
    """Read the labels (columns id and emotion) of a label set that the table does not hold, indexed by id.

    Raises:
        Misuse: the file is not such a table, repeats an id, or holds one that is not among ``ids``.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
        labels = table.set_index("id")["emotion"]
    except (OSError, ValueError, KeyError) as error:
        text = " ".join(str(error).split())
        raise Misuse(f"{path} is not a table of labels with the columns id and emotion: {text}") from error
    if not labels.index.is_unique or not labels.index.isin(ids).all():
        raise Misuse(f"{path} repeats ids or holds ids that the table lacks; prepare the corpus again")
    return labels


def write_table(folder: Path, table: pd.DataFrame) -> Path:
    """Check ``table``, write it atomically as ``folder/utterances.csv`` and return the path.

    Equal tables give equal bytes. A file that already has this content is not written again, so that its time stamp
    does not change.
    """
    table = table.loc[:, list(COLUMNS)]
    path = folder / FILE
    check_table(table, str(path))
    buffer = io.StringIO()
    table.to_csv(buffer, index=False, lineterminator="\n", float_format="%.4f")
    text = buffer.getvalue()
    if not (path.is_file() and path.read_bytes() == text.encode()):
        write_atomic(path, text)
    return path


def check_table(table: pd.DataFrame, where: str) -> None:
    """Raise Misuse unless ids are unique and every dialogue's rows are adjacent with turns 0, 1, 2, ..."""
    if table.empty:
        raise Misuse(f"{where} holds no utterances")
    repeated = table.loc[table["id"].duplicated(), "id"]
    if len(repeated):
        raise Misuse(f"{where} holds the id {repeated.iloc[0]!r} more than once")
    starts = table["dialogue"] != table["dialogue"].shift()
    scattered = table.loc[starts, "dialogue"]
    if scattered.duplicated().any():
        raise Misuse(f"{where}: the rows of dialogue {scattered[scattered.duplicated()].iloc[0]!r} are not adjacent")
    expected = table.groupby("dialogue", sort=False).cumcount()
    wrong = table.loc[expected != table["turn"], "id"]
    if len(wrong):
        raise Misuse(f"{where}: the turn of {wrong.iloc[0]!r} does not continue its dialogue's 0, 1, 2, ...")
