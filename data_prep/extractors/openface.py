"""Action units, head pose, gaze and landmarks from the CSVs that OpenFace writes, one CSV per utterance.

Baltrusaitis et al., "OpenFace 2.0: Facial Behavior Analysis Toolkit", FG 2018. OpenFace must be run
beforehand (``FeatureExtraction -f clip.mp4``). The CSVs for RAVDESS are published with it (the FacialTracking files).
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
from data_prep.corpora.base import Clip, Unreadable, decode_bytes, fingerprint, shallowest_first
from data_prep.extract import Extractor, FloatArray, Recipe, Remarked, extract
from data_prep.extractors.landmarks import forward_fill, normalise
from mer_bench.errors import unknown
from mer_bench.utterances import read_table

_INTENSITIES = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)

GAPS = ("hold", "drop")
#: columns of each group, in the order of OpenFace 2
COLUMNS: dict[str, tuple[str, ...]] = {
    "au": (
        *(f"AU{unit:02}_r" for unit in _INTENSITIES),  # intensity, 0 to 5
        *(f"AU{unit:02}_c" for unit in sorted((*_INTENSITIES, 28))),  # presence, 0 or 1
    ),
    "pose": tuple(
        f"pose_{part}{axis}" for part in "TR" for axis in "xyz"
    ),  # translation in millimetres, rotation in radians
    "gaze": tuple(f"gaze_angle_{axis}" for axis in "xy"),  # radians
    "landmarks": tuple(f"{axis}_{point}" for axis in "xy" for point in range(68)),  # pixels
}


def read_csv(path: Path) -> pd.DataFrame:
    """A CSV of OpenFace with one row per frame: of several faces, the one with the highest confidence.

    Raises:
        Unreadable: the file is not a CSV, or does not state which frames show a face.
    """
    try:
        table = pd.read_csv(io.StringIO(decode_bytes(path.read_bytes())), skipinitialspace=True, low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise Unreadable("the file is not a CSV") from error
    except ValueError as error:
        raise Unreadable(str(error)) from error
    table.columns = table.columns.str.strip()
    if "success" not in table and "confidence" not in table:
        raise Unreadable("the file is not from OpenFace: it has neither a column success nor confidence")
    table = table.apply(pd.to_numeric, errors="coerce")
    if "frame" in table and "confidence" in table and table["frame"].duplicated().any():
        table = table.sort_values(["frame", "confidence"]).drop_duplicates("frame", keep="last")
    return table.reset_index(drop=True)


def decode(clip: Clip, *, columns: tuple[str, ...], min_confidence: float, gaps: str) -> Remarked | FloatArray:
    """The selected groups of columns of a clip's CSV: [frame, dim].

    Args:
        clip: Clip whose ``path`` is the CSV.
        columns: Groups in :data:`COLUMNS`; landmarks are normalised by
            :func:`data_prep.extractors.landmarks.normalise`.
        min_confidence: Confidence below which a frame counts as a frame without a face.
        gaps: How frames without a face are treated: ``hold`` replaces them with the last frame that shows one, or the
            first if there is none before; ``drop`` removes them.

    Raises:
        Unreadable: a column is absent, or no frame shows a face.
    """
    table = read_csv(clip.media)
    names = [name for group in columns for name in COLUMNS[group]]
    absent = [name for name in names if name not in table]
    if absent:
        raise Unreadable(f"the file lacks {len(absent)} of the required columns (first: {absent[0]})")
    valid = np.isfinite(table[names].to_numpy(np.float64)).all(axis=1)
    if "success" in table:
        valid &= table["success"].to_numpy() == 1
    if "confidence" in table:
        valid &= table["confidence"].to_numpy() >= min_confidence
    if not valid.any():
        raise Unreadable("no frame shows a face")
    parts = []
    for group in columns:
        values = table[list(COLUMNS[group])].to_numpy(np.float64)
        if group == "landmarks":
            points = np.where(valid[:, None], values, np.nan).reshape(-1, 2, 68).transpose(0, 2, 1)
            values = normalise(points).astype(np.float64)
            if not len(values):
                raise Unreadable("no frame shows a face")
        parts.append(values)
    features = np.concatenate(parts, axis=1).astype(np.float32)
    if valid.all():
        return features
    if gaps == "drop":
        return Remarked(features[valid], "frames without a face were removed")
    return Remarked(features[forward_fill(valid)], "frames without a face repeat the last frame with one")


def csv_clips(corpus: Path, raw: Path) -> list[Clip]:
    """One clip per utterance, whose media file is its CSV anywhere below ``raw``.

    The CSV has the name of the utterance (for RAVDESS with 01- or 02- before it), or the name of its media file and is
    in a folder with the same name as the folder of that file.
    """
    found: dict[str, Path] = {}
    for path in shallowest_first(raw, "*.csv"):
        found.setdefault(path.stem, path)
        found.setdefault(f"{path.parent.name}/{path.stem}", path)
    clips = []
    for row in read_table(corpus).itertuples():
        media = Path(str(row.media))
        names = (row.id, f"01-{row.id}", f"02-{row.id}", f"{media.parent.name}/{media.stem}")
        clips.append(Clip(str(row.id), next((found[str(name)] for name in names if name in found), None)))
    return clips


def openface_extractor(
    source: str,
    *,
    columns: tuple[str, ...] = ("au", "pose", "gaze"),
    min_confidence: float = 0.5,
    gaps: str = "hold",
    name: str | None = None,
) -> Extractor:
    """The extractor of the set ``openface``, one row per frame with 43 columns by default.

    Args:
        source: Fingerprint of the CSVs.
        columns: Groups of columns, see :func:`decode`.
        min_confidence: Confidence below which a frame counts as a frame without a face.
        gaps: How frames without a face are treated: ``hold`` or ``drop``, see :func:`decode`.
        name: Name of the set.

    Raises:
        Misuse: a group of columns or a value of ``gaps`` is unknown.
    """
    for group in columns:
        if group not in COLUMNS:
            raise unknown("group of OpenFace columns", group, COLUMNS)
    if gaps not in GAPS:
        raise unknown("treatment of gaps", gaps, GAPS)
    recipe = Recipe(
        name=name or ("openface" if columns == ("au", "pose", "gaze") else "-".join(("openface", *columns))),
        modality="vision",
        extractor="OpenFace",
        settings={
            "columns": list(columns),
            "confidence": min_confidence,
            "gaps": gaps,
            "rate": "the video's",
            "source": source,
        },
    )
    return Extractor(recipe, partial(decode, columns=columns, min_confidence=min_confidence, gaps=gaps), list)


def openface(corpus: Path, raw: Path, **options: Any) -> tuple[Extractor, list[Clip]]:
    """The extractor of the set ``openface``, and the clips of a corpus.

    Args:
        corpus: Folder of the utterance table.
        raw: Folder that contains the CSVs, see :func:`csv_clips`.
        **options: Options of :func:`openface_extractor`.

    Raises:
        Misuse: an option is wrong.
    """
    clips = csv_clips(corpus, raw)
    return openface_extractor(fingerprint({clip.path for clip in clips if clip.path}, raw), **options), clips


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
@click.option(
    "--confidence",
    "min_confidence",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Confidence below which a frame counts as a frame without a face.",
)
@cli.choice_option("--gaps", GAPS, help="Frames without a face: repeat the last frame with one, or remove them.")
@cli.name_option("Name of the feature set [default: openface and its groups].")
@cli.run_options
def openface_command(table: Path, raw: Path, workers: int, strict: bool, force: bool, **options: Any) -> None:
    """Action units, head pose, gaze or landmarks from OpenFace's CSVs below RAW, one CSV per utterance."""
    extract(table, *openface(table, raw, **options), workers=workers, strict=strict, force=force)
