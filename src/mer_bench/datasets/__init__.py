"""Corpora as LightningDataModules; ``DATASETS[name](root, features, label_set=..., protocol=...)`` opens one."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from mer_bench.datasets.base import EmotionDataModule
from mer_bench.datasets.iemocap import IEMOCAP
from mer_bench.datasets.meld import MELD
from mer_bench.datasets.ravdess import RAVDESS
from mer_bench.datasets.simulated import DIAGNOSTICS, SimulatedIEMOCAP, SimulatedMELD, SimulatedRAVDESS
from mer_bench.datasets.table_corpus import read_corpus
from mer_bench.errors import Misuse, unknown
from mer_bench.schema import check_name
from mer_bench.utterances import DESCRIPTION

__all__ = ["DATASETS", "EmotionDataModule", "find_dataset", "own_datasets"]

_CORPORA: tuple[type[EmotionDataModule], ...] = (
    RAVDESS,
    IEMOCAP,
    MELD,
    SimulatedRAVDESS,
    SimulatedIEMOCAP,
    SimulatedMELD,
    *DIAGNOSTICS,
)
DATASETS: dict[str, type[EmotionDataModule]] = {module.corpus: module for module in _CORPORA}


def find_dataset(name: str, root: Path, where: str = "") -> type[EmotionDataModule]:
    """The corpus of a name: a built-in one, one that ``root/<name>/corpus.toml`` describes, or an installed one.

    Installed packages register datamodules as entry points of the group ``mer_bench.datasets``.

    Args:
        name: Name of the corpus.
        root: Folder of the prepared corpora.
        where: What names it, for the message: " in suite my.toml".

    Raises:
        Misuse: there is no such corpus, or its description cannot be read.
    """
    if name in DATASETS:
        return DATASETS[name]
    if (root / check_name(name, "dataset") / DESCRIPTION).is_file():
        return read_corpus(root / name)
    points = entry_points(group="mer_bench.datasets")
    values = sorted({point.value for point in points if point.name == name})
    if not values:
        raise unknown(f"dataset{where}", name, [*DATASETS, *own_datasets(root), *sorted(points.names)])
    if len(values) > 1:
        raise Misuse(f"the dataset {name!r} is registered by {' and by '.join(values)}; uninstall all packages but one")
    try:
        found = points[name].load()
    except Exception as error:
        raise Misuse(
            f"the dataset {name!r}, {values[0]}, cannot be imported: {' '.join(str(error).split())}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, EmotionDataModule) and found.corpus == name):
        raise Misuse(f"the dataset {name!r}, {values[0]}, is no EmotionDataModule whose corpus has that name")
    return found


def own_datasets(root: Path) -> list[str]:
    """Names of the corpora below ``root`` that a file describes."""
    return sorted(path.parent.name for path in root.glob(f"*/{DESCRIPTION}") if path.parent.name not in DATASETS)
