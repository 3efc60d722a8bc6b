"""Action units, head pose, gaze and landmarks from the CSVs that OpenFace writes, one for each utterance.

Baltrusaitis et al., "OpenFace 2.0: Facial Behavior Analysis Toolkit", FG 2018. OpenFace itself is run beforehand
(``FeatureExtraction -f clip.mp4``); RAVDESS's makers distribute theirs (the FacialTracking files).
"""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

from data_prep import cli
from data_prep.extract import Clip, Extractor, FloatArray, Recipe, Remarked, Unreadable, extract, fingerprint
from data_prep.extractors.landmarks import held, normalise
from mer_bench.errors import unknown
from mer_bench.features import FeatureSpec
from mer_bench.utterances import read_table

_INTENSITIES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)

#: group: its columns, in OpenFace 2's order
COLUMNS: dict[str, tuple[str, ...]] = {
    "au": (
        *(f"AU{unit:02}_r" for unit in _INTENSITIES),  # intensity, 0 to 5
        *(f"AU{unit:02}_c" for unit in sorted((*_INTENSITIES, 28))),  # presence, 0 or 1
    ),
    "pose": tuple(f"pose_{kind}{axis}" for kind in "TR" for axis in "xyz"),  # millimetres; radians
    "gaze": tuple(f"gaze_angle_{axis}" for axis in "xy"),  # radians
    "landmarks": tuple(f"{axis}_{point}" for axis in "xy" for point in range(68)),  # pixels
}


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV of OpenFace with its headers stripped, one row a frame: of several faces, the one it is surest of.

    Raises:
        Unreadable: it holds no table, or does not say in which frames there is a face.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # the columns that are read are numbers
    try:
        table = pd.read_csv(io.StringIO(text), skipinitialspace=True, low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise Unreadable("the file is no CSV") from error
    table.columns = table.columns.str.strip()
    if "success" not in table and "confidence" not in table:
        raise Unreadable("the file is none of OpenFace's: it has neither a column success nor confidence")
    table = table.apply(pd.to_numeric, errors="coerce")
    if "frame" in table and "confidence" in table and table["frame"].duplicated().any():
        table = table.sort_values(["frame", "confidence"]).drop_duplicates("frame", keep="last")
    return table.reset_index(drop=True)


def decode(clip: Clip, *, columns: tuple[str, ...], least: float, gaps: str) -> Remarked | FloatArray:
    """The chosen groups of columns of a clip's CSV: [frame, dim].

    Args:
        clip: Its ``path`` is the CSV.
        columns: Names in :data:`COLUMNS`; landmarks come normalised (:func:`data_prep.extractors.landmarks.normalise`).
        least: Confidence below which a frame counts as without a face.
        gaps: What becomes of frames without a face: ``hold`` repeats the last one with a face before them, or the first
            after; ``drop`` leaves them out.

    Raises:
        Unreadable: a column is absent, or no frame shows a face.
    """
    table = read_csv(clip.media)
    names = [name for group in columns for name in COLUMNS[group]]
    absent = [name for name in names if name not in table]
    if absent:
        raise Unreadable(f"the file lacks {len(absent)} of the columns that are wanted, the first being {absent[0]}")
    good = np.isfinite(table[names].to_numpy(np.float64)).all(axis=1)
    if "success" in table:
        good &= table["success"].to_numpy() == 1
    if "confidence" in table:
        good &= table["confidence"].to_numpy() >= least
    if not good.any():
        raise Unreadable("no frame shows a face")
    parts = []
    for group in columns:
        values = table[list(COLUMNS[group])].to_numpy(np.float64)
        if group == "landmarks":
            points = np.where(good[:, None], values, np.nan).reshape(-1, 2, 68).transpose(0, 2, 1)
            values = normalise(points).astype(np.float64)
            if not len(values):
                raise Unreadable("no frame shows a face")
        parts.append(values)
    features = np.concatenate(parts, axis=1).astype(np.float32)
    if good.all():
        return features
    if gaps == "drop":
        return Remarked(features[good], "frames without a face were left out")
    return Remarked(features[held(good)], "frames without a face repeat the last with one")


def csv_clips(corpus: Path, raw: Path) -> list[Clip]:
    """Each utterance's CSV, anywhere below ``raw``.

    It is named after the utterance (RAVDESS's begin with 01- or 02-), or after its media file and stands in a folder of
    the same name as that file's.
    """
    found: dict[str, Path] = {}
    for path in sorted(raw.rglob("*.csv"), key=lambda p: (len(p.parts), p)):
        found.setdefault(path.stem, path)
        found.setdefault(f"{path.parent.name}/{path.stem}", path)
    clips = []
    for row in read_table(corpus).itertuples():
        media = Path(str(row.media))
        names = (row.id, f"01-{row.id}", f"02-{row.id}", f"{media.parent.name}/{media.stem}")
        clips.append(Clip(str(row.id), next((found[str(name)] for name in names if name in found), None)))
    return clips


def extract_openface(
    corpus: Path,
    raw: Path,
    *,
    columns: tuple[str, ...] = ("au", "pose", "gaze"),
    least: float = 0.5,
    gaps: str = "hold",
    name: str | None = None,
    workers: int = 0,
    strict: bool = False,
    force: bool = False,
) -> FeatureSpec:
    """Store the set ``openface``: one row a frame of the video, 43 columns by default.

    Args:
        corpus: Folder of the utterance table.
        raw: Folder that holds the CSVs, see :func:`csv_clips`.
        columns: See :func:`decode`; likewise ``least`` and ``gaps``.
        least: Confidence below which a frame counts as without a face.
        gaps: ``hold`` or ``drop``.
        name: Of the set.
        workers: See :func:`data_prep.extract.extract`; likewise the others.
        strict: Complain about utterances without a face.
        force: Extract even if it is done.

    Raises:
        Misuse: a group of columns or a way with gaps is unknown, or no CSV could be read.
    """
    for group in columns:
        if group not in COLUMNS:
            raise unknown("group of OpenFace columns", group, COLUMNS)
    if gaps not in ("hold", "drop"):
        raise unknown("way with gaps", gaps, ("hold", "drop"))
    clips = csv_clips(corpus, raw)
    recipe = Recipe(
        name=name or ("openface" if columns == ("au", "pose", "gaze") else "-".join(("openface", *columns))),
        modality="vision",
        extractor="OpenFace",
        settings={
            "columns": list(columns),
            "confidence": least,
            "gaps": gaps,
            "rate": "the video's",
            "source": fingerprint({clip.path for clip in clips if clip.path}, raw),
        },
    )
    extractor = Extractor(recipe, partial(decode, columns=columns, least=least, gaps=gaps), list)
    return extract(corpus, extractor, clips, workers=workers, strict=strict, force=force)


@click.command("openface", cls=cli.Command)
@cli.table_option
@cli.raw_option
@click.option(
    "--columns",
    type=click.Choice(tuple(COLUMNS)),
    multiple=True,
    default=("au", "pose", "gaze"),
    show_default=True,
    help="Groups of columns; may be given more than once.",
)
@click.option("--confidence", "least", type=click.FloatRange(0, 1), default=0.5, show_default=True)
@click.option("--gaps", type=click.Choice(["hold", "drop"]), default="hold", show_default=True)
@click.option("--name", help="Of the feature set.")
@cli.workers_option
@cli.strict_option
@cli.force_option
def openface_command(table: Path, raw: Path, **options: Any) -> None:
    """Action units, head pose, gaze or landmarks from OpenFace's CSVs below RAW, one for each utterance."""
    extract_openface(table, raw, **options)
