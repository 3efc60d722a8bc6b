"""EmotionDataModule: a corpus as training, validation and test batches; subclasses add labels and splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mer_bench.batch import Batch, PaddedSequence, Rows, Source, Width, to_device
from mer_bench.corpora import CorpusFacts
from mer_bench.datasets.sampler import GroupDataset, GroupSampler
from mer_bench.datasets.shares import nested_share
from mer_bench.errors import Misuse, unknown
from mer_bench.features import CHUNK, FeatureSet, check_fits, chunks, open_features
from mer_bench.files import sha256
from mer_bench.functionals import functionals, functionals_width, open_functionals
from mer_bench.modalities import modality_of, modality_order
from mer_bench.raters import Ratings, read_raters
from mer_bench.records import Protocol
from mer_bench.schema import check_name
from mer_bench.utterances import FILE, read_labels, read_table

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
READS = frozenset({"functionals", "frames"})  #: what a method can read of an utterance
#: "frames" or "functionals" -> modality -> mean and inverse standard deviation [width] over the training rows
Statistics = Mapping[str, Mapping[str, tuple[Tensor, Tensor]]]
LIMIT = 6.0  #: deviations at which functionals are cut


class EmotionDataModule(L.LightningDataModule):
    """Utterances of one corpus with frozen features, split by one fold of one protocol.

    A subclass sets the class attributes and may override :meth:`split`. Construction sets ``dims`` and ``num_classes``.
    Batches hold what :attr:`reads` names. Frames are standardised with the mean and standard deviation over the frames
    of the training rows, functionals (:mod:`mer_bench.functionals`) with those over the training rows, and cut at six
    deviations. Both are memory-mapped, or cached on the GPU that trains if they fit (:meth:`cache_on_device`). Pixels
    (features of an integer type) keep their values, 0 to 255, and have no functionals.

    Args:
        root: Folder that holds ``<corpus>/utterances.csv`` and the feature sets beside it.
        features: Modality -> name of its feature set; any subset of the corpus's modalities.
        label_set: Name of the emotions to classify, a key of ``label_sets``.
        protocol: Name of the train, validation and test splits, a key of ``protocols``.
        fold: Number of the fold, from 1 to ``protocols[protocol].folds``.
        context: "utterance" batches single utterances, "dialogue" whole dialogues (without the utterances that the
            label set leaves out).
        batch_size: Utterances or dialogues per training batch; evaluation batches are four times as large.
        share: Share of the clusters of training utterances that is used, see :mod:`mer_bench.datasets.shares`.
        seed: Seed of the order of training batches.

    Raises:
        Misuse: A name is unknown, or features do not fit the table.
    """

    corpus: ClassVar[str]  #: name in DATASETS and of the folder
    title: ClassVar[str] = ""  #: name for readers
    words: ClassVar[Mapping[str, str]] = {}  #: name of a label set or protocol -> what it is, for headings
    simulated: ClassVar[bool] = False
    modalities: ClassVar[tuple[str, ...]]
    #: label set -> emotion in the table -> class; classes are numbered in order of appearance
    label_sets: ClassVar[Mapping[str, Mapping[str, str]]]
    #: label sets whose labels are in a file ``labels_<label set>.csv`` (id, emotion) beside the table
    sidecars: ClassVar[frozenset[str]] = frozenset()
    protocols: ClassVar[Mapping[str, Protocol]]
    #: column of the table whose groups statistics resample as a whole, since their utterances are not independent
    cluster: ClassVar[str] = "dialogue"
    #: modality -> feature set that preparing the corpus extracts
    default_features: ClassVar[Mapping[str, str]] = {}
    how_to_get: ClassVar[str] = ""  #: instruction for error messages, without the command that prepares the corpus
    licence: ClassVar[str] = ""  #: what the corpus may be used for, in one line
    raw: ClassVar[str] = ""  #: what that command is given, for messages; empty where there is nothing to prepare

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
        share: float = 1.0,
    ) -> None:
        super().__init__()
        self.check_names(label_set, protocol, fold)
        if context not in ("utterance", "dialogue"):
            raise unknown("context", context, ("utterance", "dialogue"))
        self.folder = Path(root) / self.corpus
        self.label_set, self.protocol = label_set, protocol
        self.context, self.batch_size, self.seed = context, batch_size, seed
        self.prepare_corpus()
        self.table = read_table(self.folder)
        self.features = self._open(features or {})
        self.dims = {name: Width(o.spec.dim, functionals_width(o)) for name, o in self.features.items()}
        self.reads: frozenset[str] = READS  #: what batches hold; a run sets it to what its method reads
        mapping = self.label_sets[label_set]
        self.classes = tuple(dict.fromkeys(mapping.values()))
        self.class_of = {emotion: self.classes.index(name) for emotion, name in mapping.items()}
        self.num_classes = len(self.classes)
        self.labels = self._labels(label_set)
        self.rows = self._rows(protocol, fold)
        cluster = pd.factorize(self.table[self.cluster])[0]
        self.rows["train"] = nested_share(self.rows["train"], cluster, self.labels, share)
        training_labels = torch.from_numpy(self.labels[self.rows["train"]])
        self.class_counts = torch.bincount(training_labels, minlength=self.num_classes).float()
        self._speaker = self._speakers()
        self._frames: dict[str, Source] = {}
        self._functionals: dict[str, Source] = {}

    @classmethod
    def facts(cls) -> CorpusFacts:
        """What suites need to know of the corpus."""
        return CorpusFacts(
            name=cls.corpus,
            simulated=cls.simulated,
            modalities=list(cls.modalities),
            label_sets=list(cls.label_sets),
            protocols={name: protocol.folds for name, protocol in cls.protocols.items()},
            default_features=dict(cls.default_features),
            how_to_get=cls.how_to_get,
            raw=cls.raw,
            title=cls.title,
            words=dict(cls.words),
        )

    @classmethod
    def check_names(cls, label_set: str, protocol: str, fold: int) -> None:
        """Raise Misuse if the corpus does not have the label set, the protocol or the fold."""
        cls.facts().check_names(label_set, protocol, fold)

    @classmethod
    def check_modality(cls, name: str, where: str = "") -> None:
        """Raise Misuse, which names ``where`` or else the corpus, if the corpus does not have the modality."""
        cls.facts().check_modality(name, where)

    @classmethod
    def how_to_prepare(cls) -> str:
        """Where the corpus is from, and the command that prepares it."""
        return cls.facts().how_to_prepare()

    def prepare_corpus(self) -> None:
        """Raise Misuse if the corpus is not prepared; a simulated corpus generates itself instead."""
        if not (self.folder / FILE).is_file():
            raise Misuse(f"{self.corpus} is not prepared below {self.folder}: {self.how_to_prepare()}")

    def split(self, table: pd.DataFrame, protocol: str, fold: int) -> npt.NDArray[np.str_]:
        """Return the split of every table row ("train", "validation", "test" or "" for none): the column ``split``."""
        return table["split"].to_numpy(dtype=np.str_)

    def groups(self, table: pd.DataFrame) -> Mapping[str, Sequence[str]]:
        """Groups that are scored by themselves: kind -> group of each row of the table, the finest kind first."""
        return {}

    @cached_property
    def ratings(self) -> Ratings:
        """What several raters said of each utterance; raises Misuse where there is no such file."""
        return read_raters(self.folder, list(self.table["id"]))

    @property
    def attainable(self) -> Mapping[str, Any] | None:
        """Best possible scores in the form of the records; only known for simulated corpora."""
        return None

    def ideal(self, index: Rows) -> npt.NDArray[np.float64] | None:
        """Chance of an ideal observer to be right on these table rows; only known for simulated corpora."""
        return None

    @property
    def has_validation(self) -> bool:
        """Whether the protocol has validation rows to select the best epoch; otherwise the last epoch is tested."""
        return len(self.rows["validation"]) > 0

    def close_test(self) -> None:
        """Give up the test rows and their labels, for a run that scores validation alone; there is no way back."""
        rows = self.rows["test"]
        self.labels[rows] = -1
        self.table.loc[rows, "emotion"] = ""
        self.rows["test"] = rows[:0]

    @property
    def statistics(self) -> Statistics:
        """For "frames" and "functionals", as far as they are read: modality -> mean and inverse standard deviation."""
        self.setup("test")
        found = {"frames": self._frames, "functionals": self._functionals}
        return {
            kind: {name: source.statistics for name, source in sources.items() if source.statistics is not None}
            for kind, sources in found.items()
        }

    def setup(self, stage: str) -> None:
        """Open what the method reads and compute its statistics over the training rows, except for pixels.

        If a GPU is going to train, the features are then cached on it.
        """
        train = np.zeros(len(self.table), bool)
        train[self.rows["train"]] = True
        for name, opened in self.features.items():
            lengths = np.diff(opened.offsets)
            if "frames" in self.reads and name not in self._frames:
                chosen = np.repeat(train, lengths)
                statistics = None if opened.spec.integer else column_statistics(opened.values, chosen)
                self._frames[name] = Source(torch.from_numpy(opened.values), statistics)
            if "functionals" in self.reads and not opened.spec.integer and name not in self._functionals:
                values = open_functionals(self.folder / opened.spec.name, opened)
                statistics = column_statistics(values, train & (lengths > 0))
                self._functionals[name] = Source(torch.from_numpy(values), statistics, limit=LIMIT)
        # only in the stage "fit", because a process that forks others must not initialise CUDA
        if stage == "fit" and self.trainer and (device := self.trainer.strategy.root_device).type == "cuda":
            self.cache_on_device(device, torch.cuda.mem_get_info(device)[0] // 2)

    def test_as(self, trained: EmotionDataModule) -> None:
        """Test what any fold of the protocol tests, standardised with the statistics of the corpus of ``trained``."""
        folds = range(1, self.protocols[self.protocol].folds + 1)
        tested = np.unique(np.concatenate([self._rows(self.protocol, fold)["test"] for fold in folds]))
        self.rows = {"train": tested[:0], "validation": tested[:0], "test": tested}
        self.reads, statistics = trained.reads, trained.statistics
        for name, opened in self.features.items():
            if "frames" in self.reads:
                values = torch.from_numpy(opened.values)
                self._frames[name] = Source(values, statistics["frames"].get(name))
            if name in statistics["functionals"]:
                values = torch.from_numpy(open_functionals(self.folder / opened.spec.name, opened))
                self._functionals[name] = Source(values, statistics["functionals"][name], limit=LIMIT)

    def functionals_of(self, name: str, frames: PaddedSequence) -> Tensor:
        """Standardised functionals [utterance, width] of a modality's frames [utterance, time, dim] as in a batch.

        They are those of the batch up to rounding. The datamodule must read frames and functionals.
        """
        statistics = self._frames[name].statistics
        assert statistics is not None, "pixels have no functionals"
        mean, scale = (to_device(each, frames.values.device) for each in statistics)
        raw = PaddedSequence(frames.values / scale + mean, frames.mask)
        found = self._functionals[name].standardise(functionals(raw, self.dims[name].functionals).float())
        return found * frames.mask.any(1, keepdim=True)

    def cache_on_device(self, device: torch.device, limit: int) -> None:
        """Copy what is read to ``device``, if it takes at most ``limit`` bytes, and gather batches there.

        Pixels stay on disk: the networks that read them need the memory and take much longer than loading.
        """
        held = (self._frames, self._functionals)
        small = {name for name, opened in self.features.items() if not opened.spec.integer}
        if 4 * sum(each[name].values.numel() for each in held for name in small & set(each)) <= limit:
            for each in held:
                each.update({name: each[name].to(device) for name in small & set(each)})

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return shuffled batches of similar lengths."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Return batches of every validation utterance, or an empty list if the protocol has none."""
        return self._loader("validation") if self.has_validation else []

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return batches of every test utterance; raises RuntimeError after :meth:`close_test`."""
        if not len(self.rows["test"]):
            raise RuntimeError("the test set is closed: a trial scores validation alone")
        return self._loader("test")

    def collate(self, groups: Sequence[Rows]) -> Batch:
        """Make a batch of groups of table rows: dialogues in the order of their turns, or single utterances."""
        lengths = np.array([len(group) for group in groups])
        rows = np.concatenate(groups)
        if (self.labels[rows] < 0).any():
            raise RuntimeError("a batch names utterances without a label, such as those of a closed test set")
        real = np.arange(lengths.max()) < lengths[:, None]
        grid = np.full(real.shape, -1)
        grid[real] = np.arange(len(rows))
        dialogue, turn = map(np.ascontiguousarray, real.nonzero())
        present = {name: np.diff(opened.offsets)[rows] > 0 for name, opened in self.features.items()}
        vectors = self._functionals if "functionals" in self.reads else {}
        sequences = self._frames if "frames" in self.reads else {}
        functionals = {name: source.gather_vectors(present[name], rows) for name, source in vectors.items()}
        frames = {name: source.gather(self.features[name].offsets, rows) for name, source in sequences.items()}
        there = {name: torch.from_numpy(each) for name, each in present.items()}
        arrays = (self.labels[rows], self._speaker[rows], dialogue, turn, rows, grid)
        return Batch(there, functionals, frames, *map(torch.from_numpy, arrays))

    def _loader(self, split: Split) -> DataLoader[Batch]:
        rows, train = self.rows[split], split == "train"
        group = self.table["dialogue"].to_numpy()[rows] if self.context == "dialogue" else rows
        groups = np.split(rows, np.flatnonzero(group[1:] != group[:-1]) + 1)
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = GroupSampler(
            self._sizes(groups),
            # at least one batch per device, because Lightning does not evaluate without
            self.batch_size if train else min(4 * self.batch_size, max(1, len(groups) // world)),
            shuffle_seed=self.seed if train else None,
            rank=rank,
            world=world,
        )
        return DataLoader(GroupDataset(groups, self.collate), sampler=sampler, batch_size=None)

    def _sizes(self, groups: Sequence[Rows]) -> Rows:
        """Return turns per dialogue, or frames of the longest modality per utterance where the method reads frames."""
        if self.context == "dialogue" or not self.features or "frames" not in self.reads:
            return np.array([len(group) for group in groups])
        rows = np.concatenate(groups)
        return np.max([np.diff(opened.offsets)[rows] for opened in self.features.values()], axis=0)

    def _open(self, features: Mapping[str, str]) -> dict[str, FeatureSet]:
        opened: dict[str, FeatureSet] = {}
        table_hash = sha256(self.folder / FILE)
        for modality in sorted(features, key=modality_order):
            self.check_modality(modality)
            folder = self.folder / check_name(features[modality], "feature set")
            found = open_features(folder)
            if found.spec.modality != modality_of(modality):
                raise Misuse(f"feature set {folder} is {found.spec.modality}, not {modality_of(modality)}")
            check_fits(found, folder, len(self.table), table_hash)
            opened[modality] = found
        return opened

    def _labels(self, label_set: str) -> Rows:
        emotion = self.table["emotion"]
        if label_set in self.sidecars:
            path = self.folder / f"labels_{label_set}.csv"
            if not path.is_file():
                raise Misuse(f"label set {label_set!r} needs {path}: {self.how_to_prepare()}")
            emotion = self.table["id"].map(read_labels(path, self.table["id"])).fillna("")
        return emotion.map(self.class_of).fillna(-1).to_numpy(np.int64, copy=True)

    def _rows(self, protocol: str, fold: int) -> dict[Split, Rows]:
        try:
            split = np.where(self.labels >= 0, self.split(self.table, protocol, fold), "")
        except (ValueError, OverflowError) as error:
            where = self.folder / FILE
            wrong = "a session or speaker that is no number, or a take that says no known sentence"
            raise Misuse(f"{where}: {protocol} splits by {wrong}: {error}") from error
        rows = {name: np.flatnonzero(split == name) for name in SPLITS}
        for name in ("train", "test"):
            if not len(rows[name]):
                raise Misuse(f"{self.corpus} {protocol} fold {fold}: no {name} utterance in {self.folder / FILE}")
        return rows

    def _speakers(self) -> Rows:
        """Number the speakers within each dialogue by first appearance, so that no method learns identities."""
        pair = self.table.groupby(["dialogue", "speaker"], sort=False).ngroup()  # the turns of a dialogue are adjacent
        return (pair - pair.groupby(self.table["dialogue"]).transform("min")).to_numpy(np.int64, copy=True)


def column_statistics(
    values: npt.NDArray[Any], chosen: npt.NDArray[np.bool_], chunk_size: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """Mean [dim] and inverse standard deviation [dim] of the rows of ``values`` [row, dim] that ``chosen`` [row] names.

    The latter is 1 in constant columns. ``chunk_size`` is the number of values to read at once.
    """

    def average(function: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        parts = (values[chunk][chosen[chunk]] for chunk in chunks(values, chunk_size))
        sums = (function(part.astype(np.float64)).sum(0) for part in parts)
        return sum(sums, np.zeros(values.shape[1])) / max(int(chosen.sum()), 1)

    mean = average(lambda part: part)
    # a second pass subtracts the mean: squares in one pass would lose digits by cancellation
    deviation = np.sqrt(average(lambda part: (part - mean) ** 2))
    scale = np.where(deviation > 1e-8 * np.maximum(1, np.abs(mean)), 1 / np.maximum(deviation, 1e-30), 1.0)
    return torch.from_numpy(mean).float(), torch.from_numpy(scale).float()
