"""Corpora as LightningDataModules; ``DATASETS[name](root, features, label_set=..., protocol=...)`` opens one."""

from mer_bench.datasets.base import EmotionDataModule
from mer_bench.datasets.iemocap import IEMOCAP
from mer_bench.datasets.meld import MELD
from mer_bench.datasets.ravdess import RAVDESS
from mer_bench.datasets.simulated import DIAGNOSTICS, SimulatedIEMOCAP, SimulatedMELD, SimulatedRAVDESS

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
