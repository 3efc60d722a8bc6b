"""The measure ``transfer``: the trained model on the test utterances of another corpus, without retraining.

Both corpora need the label set of the run with the same classes, and feature sets of the same names and kinds. What is
tested is what any fold of the other corpus's first protocol tests, so that it does not depend on the fold of the run.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mer_bench.datasets import find_dataset
from mer_bench.datasets.base import EmotionDataModule
from mer_bench.errors import Misuse
from mer_bench.features import difference_of_corpora
from mer_bench.fusion.base import FusionModule
from mer_bench.records import SIMULATED, RunSpec, measurable, transfers


def open_others(
    spec: RunSpec, datamodule: EmotionDataModule, root: Path, measures: Collection[str]
) -> dict[str, EmotionDataModule]:
    """The corpora that ``measures`` of a run name, each with its utterances and features.

    Raises:
        Misuse: one of them is not prepared, or the model of the run could not be tested on it.
    """
    names = sorted(transfers(measurable(spec, measures)))
    return {name: _open_other(spec, datamodule, root, name) for name in names}


def _open_other(spec: RunSpec, trained: EmotionDataModule, root: Path, name: str) -> EmotionDataModule:
    where = f"transfer from {spec.dataset} to {name}"
    corpus = find_dataset(name, root, f" of the measure {where}")
    if name.startswith(SIMULATED) != trained.simulated:
        raise Misuse(f"{where}: a simulated corpus says nothing about a real one")
    other = corpus(
        root,
        spec.features,
        label_set=spec.label_set,
        protocol=next(iter(corpus.protocols)),
        context=trained.context,
        batch_size=trained.batch_size,
    )
    if other.classes != trained.classes:
        theirs, ours = (", ".join(each.classes) for each in (other, trained))
        raise Misuse(f"{where}: label set {spec.label_set!r} has the classes {theirs} there, and {ours} here")
    for modality, opened in other.features.items():
        different = difference_of_corpora(opened.spec, trained.features[modality].spec)
        if not different and other.dims[modality] != trained.dims[modality]:
            different = "one of them has one frame per utterance"
        if different:
            raise Misuse(
                f"{where}: feature set {opened.spec.name!r} of {name} is not of the kind of that of {spec.dataset}: "
                f"{different}; extract both in the same way"
            )
    return other


def predict_other(
    method: FusionModule, trained: EmotionDataModule, other: EmotionDataModule
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The tested table rows of another corpus, ascending, and the class that a method predicts for each.

    Args:
        method: The method with the weights that the test used, on the device to use.
        trained: The corpus that it was trained on, set up.
        other: The one to test it on, as :func:`open_others` opens it.
    """
    other.test_as(trained)
    index, predicted = [], []
    method.eval()
    with torch.no_grad():
        for batch in other.test_dataloader():
            index.append(batch.index.numpy())
            predicted.append(method(batch.to(method.device)).argmax(1).cpu().numpy())
    rows = np.concatenate(index)
    order = np.argsort(rows)
    return rows[order], np.concatenate(predicted)[order]
