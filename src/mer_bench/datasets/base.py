"""EmotionDataModule: a corpus as train, validation and test batches. A corpus adds its labels and its splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mer_bench.batch import Batch, Rows, gather, move
from mer_bench.datasets.sampler import GroupSampler
from mer_bench.errors import Misuse, unknown
from mer_bench.features import AT_ONCE, MODALITIES, FeatureSet, check_finite, open_features, pieces
from mer_bench.files import sha256
from mer_bench.utterances import FILE, read_table

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class EmotionDataModule(L.LightningDataModule):
    """Utterances of one corpus with frozen features, split by one fold of one protocol.

    A subclass sets the class attributes and implements :meth:`split`. ``dims`` and ``num_classes`` are known right
    after construction. Features stay memory-mapped, or on the GPU that trains if they fit (:meth:`hold`); they are
    standardised with the mean and standard deviation of the training rows' frames. Pixels (features of an integer type)
    stay what they are, 0 to 255.

    Args:
        root: Folder that holds ``<corpus>/utterances.csv`` and the feature sets beside it.
        features: Modality -> name of its feature set; any subset of the corpus's modalities.
        label_set: Which emotions, see ``label_sets``.
        protocol: Which splits, see ``protocols``.
        fold: From 1 to ``protocols[protocol]``.
        context: "utterance" batches single utterances, "dialogue" whole dialogues (of the utterances that the label
            set keeps).
        batch_size: Utterances, or dialogues; evaluation takes four times as many.
        seed: Of the order of training batches.

    Raises:
        Misuse: an unknown name, or features that do not fit the table.
    """

    corpus: ClassVar[str]  #: its name in DATASETS and on disk
    simulated: ClassVar[bool] = False
    modalities: ClassVar[tuple[str, ...]]
    #: label set -> the table's emotion -> class; classes are numbered in order of appearance
    label_sets: ClassVar[Mapping[str, Mapping[str, str]]]
    #: label sets whose labels stand in ``labels_<label set>.csv`` (id, emotion) beside the table
    sidecars: ClassVar[frozenset[str]] = frozenset()
    #: protocol -> number of folds
    protocols: ClassVar[Mapping[str, int]]
    #: column whose groups are resampled together in statistics: utterances of one group are not independent
    cluster: ClassVar[str] = "dialogue"
    #: modality -> feature set that ``make data`` makes
    default_features: ClassVar[Mapping[str, str]]
    how_to_get: ClassVar[str]

    def __init__(
        self,
        root: Path = Path("data"),
        features: Mapping[str, str] | None = None,
        *,
        label_set: str,
        protocol: str,
        fold: int = 1,
        context: Literal["utterance", "dialogue"] = "utterance",
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.check_names(label_set, protocol, fold)
        if context not in ("utterance", "dialogue"):
            raise unknown("context", context, ("utterance", "dialogue"))
        self.folder = Path(root) / self.corpus
        self.label_set, self.context, self.batch_size, self.seed = label_set, context, batch_size, seed
        self.prepare_corpus()
        self.table = read_table(self.folder)
        self.features = self._open(features or {})
        self.dims = {name: opened.spec.dim for name, opened in self.features.items()}
        mapping = self.label_sets[label_set]
        self.classes = tuple(dict.fromkeys(mapping.values()))
        self.num_classes = len(self.classes)
        self.labels = self._labels(label_set, mapping)
        self.rows = self._rows(protocol, fold)
        self.class_counts = torch.from_numpy(
            np.bincount(self.labels[self.rows["train"]], minlength=self.num_classes)
        ).float()
        self._speaker = self._speakers()
        self._statistics: dict[str, tuple[Tensor, Tensor]] = {}
        self._held: dict[str, Tensor] = {}

    @classmethod
    def check_names(cls, label_set: str, protocol: str, fold: int) -> None:
        """Raise Misuse for a label set, a protocol or a fold that the corpus does not have."""
        if label_set not in cls.label_sets:
            raise unknown(f"label set of {cls.corpus}", label_set, cls.label_sets)
        if protocol not in cls.protocols:
            raise unknown(f"protocol of {cls.corpus}", protocol, cls.protocols)
        if not 1 <= fold <= cls.protocols[protocol]:
            raise Misuse(f"{cls.corpus} {protocol} has folds 1 to {cls.protocols[protocol]}, not {fold}")

    def prepare_corpus(self) -> None:
        """Make sure that the corpus is there; a real one is prepared by the user, a simulated one is generated."""
        if not (self.folder / FILE).is_file():
            raise Misuse(f"{self.corpus} is not prepared below {self.folder}: {self.how_to_get}")

    def split(self, table: pd.DataFrame, protocol: str, fold: int) -> npt.NDArray[np.str_]:
        """The split of every table row: "train", "validation", "test" or "" (left out)."""
        raise NotImplementedError

    @property
    def attainable(self) -> Mapping[str, Any] | None:
        """Best possible scores, as records hold them; known of simulated corpora alone."""
        return None

    @property
    def has_validation(self) -> bool:
        """Whether the protocol selects an epoch; otherwise the last one is scored."""
        return len(self.rows["validation"]) > 0

    def setup(self, stage: str) -> None:
        """Check the features' values and take their statistics from the training rows, once; pixels need neither.

        A GPU that is about to train then gets the features.
        """
        if self._statistics:
            return
        for name, opened in self.features.items():
            if opened.spec.integer:
                continue
            check_finite(opened, self.folder / opened.spec.name)
            self._statistics[name] = training_statistics(opened, self.rows["train"])
        # in training alone: a process that only forks others must not initialise CUDA
        if stage == "fit" and self.trainer and (device := self.trainer.strategy.root_device).type == "cuda":
            self.hold(device, torch.cuda.mem_get_info(device)[0] // 2)

    def hold(self, device: torch.device, most: int) -> None:
        """Keep the standardised features on ``device``, where batches are gathered from then on.

        Nothing happens if they take more than ``most`` bytes. Pixels stay on disk: loading them costs little beside the
        networks that read them, which need the memory. Values are the same to the last bit.
        """
        chosen = {name: self.features[name].values for name in self._statistics}
        if 4 * sum(values.size for values in chosen.values()) > most:
            return
        for name, values in chosen.items():
            mean, scale = (move(statistic, device) for statistic in self._statistics[name])
            self._held[name] = torch.from_numpy(values).to(device, torch.float32, copy=True).sub_(mean).mul_(scale)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of similar lengths."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Every validation utterance once."""
        return self._loader("validation") if self.has_validation else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Every test utterance once."""
        return self._loader("test")

    def collate(self, groups: Sequence[Rows]) -> Batch:
        """One batch from groups of table rows: dialogues in turn order, or single utterances."""
        lengths = np.array([len(group) for group in groups])
        rows = np.concatenate(groups)
        real = np.arange(lengths.max()) < lengths[:, None]
        grid = np.full(real.shape, -1)
        grid[real] = np.arange(len(rows))
        dialogue, turn = map(np.ascontiguousarray, real.nonzero())
        features = {}
        for name, opened in self.features.items():
            values, standard = self._held.get(name), None
            if values is None:
                values, standard = torch.from_numpy(opened.values), self._statistics.get(name)
            features[name] = gather(values, opened.offsets, rows, standard)
        own = (self.labels[rows], self._speaker[rows], dialogue, turn, rows, grid)
        return Batch(features, *map(torch.from_numpy, own))

    def _loader(self, split: Split) -> DataLoader[Batch]:
        rows = self.rows[split]
        groups = self._dialogues(rows) if self.context == "dialogue" else list(rows[:, None])
        train = split == "train"
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = GroupSampler(
            self._sizes(groups),
            # at least one batch for each device, or Lightning refuses to evaluate
            self.batch_size if train else min(4 * self.batch_size, max(1, len(groups) // world)),
            shuffle_seed=self.seed if train else None,
            rank=rank,
            world=world,
        )
        return DataLoader(_Groups(groups, self), sampler=sampler, batch_size=None)

    def _dialogues(self, rows: Rows) -> list[Rows]:
        dialogue = self.table["dialogue"].to_numpy()[rows]
        return list(np.split(rows, np.flatnonzero(dialogue[1:] != dialogue[:-1]) + 1))

    def _sizes(self, groups: Sequence[Rows]) -> Rows:
        """How long each group's padding would be: turns of a dialogue, frames of an utterance."""
        if self.context == "dialogue" or not self.features:
            return np.array([len(group) for group in groups])
        rows = np.concatenate(groups)
        return np.max([np.diff(opened.offsets)[rows] for opened in self.features.values()], axis=0)

    def _open(self, features: Mapping[str, str]) -> dict[str, FeatureSet]:
        opened = {}
        table_hash = sha256(self.folder / FILE)
        for modality in sorted(features, key=lambda name: MODALITIES.index(name) if name in MODALITIES else -1):
            if modality not in self.modalities:
                raise unknown(f"modality of {self.corpus}", modality, self.modalities)
            folder = self.folder / features[modality]
            found = open_features(folder)
            if found.spec.modality != modality:
                raise Misuse(f"feature set {folder} is {found.spec.modality}, not {modality}")
            if found.spec.rows != len(self.table):
                raise Misuse(f"feature set {folder} has {found.spec.rows} rows, its table {len(self.table)}")
            if found.spec.table_sha256 != table_hash:
                raise Misuse(f"feature set {folder} was made for another {FILE}; extract it again")
            opened[modality] = found
        return opened

    def _labels(self, label_set: str, mapping: Mapping[str, str]) -> Rows:
        emotion = self.table["emotion"]
        if label_set in self.sidecars:
            path = self.folder / f"labels_{label_set}.csv"
            if not path.is_file():
                raise Misuse(f"label set {label_set!r} needs {path}: {self.how_to_get}")
            side = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("id")["emotion"]
            if not side.index.is_unique or not side.index.isin(self.table["id"]).all():
                raise Misuse(f"{path} repeats ids or holds ids that the table lacks; prepare the corpus again")
            emotion = self.table["id"].map(side).fillna("")
        index = {emotion: self.classes.index(name) for emotion, name in mapping.items()}
        return emotion.map(index).fillna(-1).to_numpy(np.int64, copy=True)

    def _rows(self, protocol: str, fold: int) -> dict[Split, Rows]:
        split = np.where(self.labels >= 0, self.split(self.table, protocol, fold), "")
        rows = {name: np.flatnonzero(split == name) for name in SPLITS}
        for name in ("train", "test"):
            if not len(rows[name]):
                raise Misuse(f"{self.corpus} {protocol} fold {fold}: no {name} utterance in {self.folder / FILE}")
        return rows

    def _speakers(self) -> Rows:
        """Speakers numbered within their dialogue by first appearance, so that no identity is learnt."""
        pairs = self.table[["dialogue", "speaker"]].drop_duplicates()
        pairs["number"] = pairs.groupby("dialogue", sort=False).cumcount()
        merged = self.table.merge(pairs, on=["dialogue", "speaker"], how="left")
        return merged["number"].to_numpy(np.int64, copy=True)


class _Groups(Dataset[Batch]):
    """Indexed by a whole list of group numbers, so that a batch is one vectorised gather."""

    def __init__(self, groups: Sequence[Rows], datamodule: EmotionDataModule) -> None:
        self.groups, self.datamodule = groups, datamodule

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, numbers: Sequence[int]) -> Batch:
        return self.datamodule.collate([self.groups[number] for number in numbers])


def training_statistics(features: FeatureSet, rows: Rows, at_once: int = AT_ONCE) -> tuple[Tensor, Tensor]:
    """Mean [dim] and inverse standard deviation [dim] over all frames of ``rows``; a constant column gets scale 1."""
    chosen = np.zeros(len(features.offsets) - 1, bool)
    chosen[rows] = True
    frames = np.repeat(chosen, np.diff(features.offsets))
    count = max(int(frames.sum()), 1)
    total = np.zeros((2, features.spec.dim))
    mean = total[0]
    for power in (1, 2):  # the second pass is centred: one pass in squares would cancel
        for piece in pieces(features.values, at_once):
            part = features.values[piece][frames[piece]].astype(np.float64)
            total[power - 1] += ((part - mean) ** power if power == 2 else part).sum(0)
        if power == 1:
            mean = total[0] / count
    deviation = np.sqrt(total[1] / count)
    scale = np.where(deviation > 1e-8 * np.maximum(1, np.abs(mean)), 1 / np.maximum(deviation, 1e-30), 1.0)
    return torch.from_numpy(mean).float(), torch.from_numpy(scale).float()
