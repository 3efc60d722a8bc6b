"""Predict the utterances of a table with a trained model, and say what each modality contributes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mer_bench.batch import Rows
from mer_bench.bundle.data import UnlabelledData, absent, present, read_utterances, to_numpy
from mer_bench.bundle.model import Bundle, Floats
from mer_bench.datasets import DATASETS, EmotionDataModule
from mer_bench.datasets.table_corpus import read_corpus
from mer_bench.errors import Misuse, unknown
from mer_bench.features import FeatureSet, FeatureSpec, check_fits, difference, open_features
from mer_bench.files import sha256, write_atomic
from mer_bench.modalities import shapley_weights
from mer_bench.utterances import DESCRIPTION, FILE

ALL = "all"  #: the name of no split: every utterance
PROBABILITY = "p_"  #: how the columns of probabilities begin, as ``mer-bench score`` reads them
SHARE, WITH = "share_", "with_"  #: how the columns of explanations begin
LARGEST = 6  #: number of modalities whose subsets are predicted, which are 2^6


def predict_table(
    bundle: Bundle,
    folder: Path,
    split: str | None = None,
    explain: bool = False,
    *,
    without: Collection[str] = (),
    trust: Collection[str] = (),
) -> pd.DataFrame:
    """Predict the utterances in ``folder/utterances.csv``, from the feature sets beside it; labels are not read.

    Args:
        bundle: The model.
        folder: The table, and feature sets that have the names of those that the model was trained on.
        split: Only the utterances of this split: train, validation or test of the model's own fold where ``folder`` is
            its corpus, otherwise a value of the column ``split``. None or "all" = all.
        explain: Whether to predict with every subset of the modalities too, and to divide the probability of the
            predicted class among them.
        without: Modalities that are taken as missing in every utterance.
        trust: Modalities whose set is taken although another extractor, or none that is known, has made it.

    Returns:
        One row per utterance, in table order: ``id``, ``prediction``, ``p_<class>`` for each class, and ``missing``,
        the modalities that the utterance lacks, "audio+vision". With ``explain`` also ``share_<modality>``, the Shapley
        value of the modality for the probability of the predicted class (they sum to that probability less the class's
        share of the training utterances), and for each subset of the modalities ``with_<subset>``, what is predicted
        from these alone, and ``with_<subset>_p``, the probability that they give to the class that is predicted from
        all.

    Raises:
        Misuse: the table or a feature set is absent or not what the model needs, or there is no such split.
    """
    if explain and not 1 <= len(bundle.features) <= LARGEST:
        raise Misuse(f"--explain needs a model of 1 to {LARGEST} modalities; this one has {len(bundle.features)}")
    data = open_table(bundle, folder, split, without=without, trust=trust)
    rows = data.rows["test"]

    def probabilities(chosen: Collection[str]) -> Floats:
        pairs = [bundle.step(batch.only(chosen)) for batch in bundle.batches(data)]
        return to_numpy(pairs, len(data.table), len(bundle.classes))[rows]

    found = probabilities(bundle.features)
    here = {modality: has[rows] for modality, has in present(data.features).items()}
    classes = np.array(bundle.classes)
    frame = pd.DataFrame({"id": data.table["id"].to_numpy()[rows], "prediction": classes[found.argmax(1)]})
    for number, name in enumerate(bundle.classes):
        frame[f"{PROBABILITY}{name}"] = found[:, number]
    lacking = zip(*(np.where(has, "", modality) for modality, has in here.items()), strict=True)
    frame["missing"] = ["+".join(filter(None, names)) for names in lacking] if here else ""
    if explain:
        names = list(bundle.features)
        subsets = [chosen for size in range(1, len(names)) for chosen in combinations(names, size)]
        by_subset = {chosen: probabilities(chosen) for chosen in subsets} | {tuple(names): found}
        frame = pd.concat([frame, _explained(bundle, by_subset, here)], axis=1)
    return frame


def open_table(
    bundle: Bundle,
    folder: Path,
    split: str | None = None,
    *,
    without: Collection[str] = (),
    trust: Collection[str] = (),
) -> UnlabelledData:
    """The utterances of a table for ``Trainer.predict(bundle.module, datamodule=...)``; see :func:`predict_table`.

    Each batch gives the table rows and the probabilities of its utterances.
    """
    for modality in (*without, *trust):
        if modality not in bundle.features:
            raise unknown("modality of the model", modality, bundle.features)
    table = read_utterances(folder, bundle.context)
    table_sha256 = sha256(folder / FILE)
    sets = {
        modality: absent(spec, len(table))
        if modality in without
        else _open(folder / spec.name, spec, len(table), table_sha256, modality in trust)
        for modality, spec in bundle.features.items()
    }
    return UnlabelledData(
        table,
        sets,
        bundle.statistics,
        reads=bundle.module.reads,
        context=bundle.context,
        rows=_rows(bundle, folder, table, split or ALL),
        batch_size=bundle.facts.spec.training.batch_size,
    )


def _open(path: Path, wanted: FeatureSpec, rows: int, table_sha256: str, trusted: bool) -> FeatureSet:
    """The feature set of a table that has the name of the one that the model was trained on, made in the same way."""
    opened = open_features(path)
    stated = opened.spec
    check_fits(opened, path, rows, table_sha256)
    if different := difference(stated, wanted, trusted):
        advice = "" if trusted else f", or say --trust {wanted.modality} if they mean the same"
        raise Misuse(
            f"feature set {path} is not of the kind that the model was trained on: {different}; extract it with "
            f"{wanted.extractor} {wanted.revision}".rstrip()
            + advice * (stated.dim == wanted.dim)
        )
    if not len(opened.values):  # gathering needs one frame to point to
        return absent(wanted, rows)
    return opened


def _rows(bundle: Bundle, folder: Path, table: pd.DataFrame, split: str) -> Rows:
    """The rows of a split, ascending."""
    if split == ALL:
        return np.arange(len(table))
    spec, corpus = bundle.facts.spec, _corpus(bundle, folder, table)
    if corpus is None:
        valid = sorted(set(table["split"]) - {""})
        if split not in valid:
            raise unknown(f"split in the column split of {folder / FILE}", split, [ALL, *valid])
        return np.flatnonzero(table["split"] == split)
    root = folder.absolute().parent
    opened = corpus(root, label_set=spec.label_set, protocol=spec.protocol, fold=spec.fold)
    rows: dict[str, Rows] = {name: each for name, each in opened.rows.items()}
    if split not in rows:
        raise unknown("split", split, [ALL, *rows])
    return rows[split]


def _corpus(bundle: Bundle, folder: Path, table: pd.DataFrame) -> type[EmotionDataModule] | None:
    """The corpus that the model was trained on, if ``folder`` is it: its splits are rules, and need its labels."""
    name = bundle.facts.spec.dataset
    if folder.absolute().name != name or (table["emotion"] == "").all():
        return None
    if name in DATASETS:
        return DATASETS[name]
    return read_corpus(folder) if (folder / DESCRIPTION).is_file() else None


def _explained(
    bundle: Bundle, by_subset: Mapping[tuple[str, ...], Floats], here: Mapping[str, npt.NDArray[np.bool_]]
) -> pd.DataFrame:
    """The columns of an explanation.

    Without any modality nothing is known but how frequent the class was in training. So it is for an utterance of its
    own that has none of a subset's modalities; in a dialogue, others may have them.
    """
    names, full = list(bundle.features), by_subset[tuple(bundle.features)]
    predicted = full.argmax(1)
    at = np.arange(len(full)), predicted
    counts = bundle.module.class_counts.cpu().double().numpy()
    prior = (counts / counts.sum())[predicted]
    value = {(): prior} | {chosen: each[at] for chosen, each in by_subset.items()}
    if bundle.context == "utterance":
        for chosen in by_subset:
            value[chosen] = np.where(np.any([here[name] for name in chosen], axis=0), value[chosen], prior)
    columns: dict[str, Any] = {}
    weights = shapley_weights(names)
    for number, name in enumerate(names):
        columns[f"{SHARE}{name}"] = sum(weight[number] * value[chosen] for chosen, weight in weights.items())
    classes = np.array(bundle.classes)
    for chosen, each in by_subset.items():
        columns[f"{WITH}{'+'.join(chosen)}"] = classes[each.argmax(1)]
        columns[f"{WITH}{'+'.join(chosen)}_p"] = each[at]
    return pd.DataFrame(columns)


def check_output(path: Path) -> None:
    """Raise Misuse unless predictions can be written to ``path``: a new file .csv or .json in a folder that exists."""
    if path.suffix not in (".csv", ".json"):
        raise Misuse(f"--to {path}: predictions are written as .csv or .json; name a file that ends so")
    if path.exists():
        raise Misuse(f"--to {path} exists; name another file, or delete it")
    if not path.parent.is_dir():
        raise Misuse(f"--to {path}: there is no folder {path.parent}")


def write_predictions(frame: pd.DataFrame, path: Path) -> None:
    """Write what :func:`predict_table` gave as CSV, or as JSON: a list with one object per utterance.

    Raises:
        Misuse: the name of the file has another ending, the file exists, or it cannot be written.
    """
    check_output(path)
    if path.suffix == ".csv":
        write_atomic(path, frame.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    else:
        write_atomic(path, json.dumps(frame.to_dict("records"), indent=1, ensure_ascii=False) + "\n")


def remarks(bundle: Bundle, frame: pd.DataFrame) -> list[str]:
    """What has to be said of some predictions: which modalities are missing where, and where too many are."""
    lacking = {name: frame["missing"].map(lambda all_, n=name: n in all_.split("+")) for name in bundle.features}
    said = [f"{name} is missing in {_named(frame, rows)}" for name, rows in lacking.items() if rows.any()]
    left = len(lacking) - sum((rows.astype(int) for rows in lacking.values()), pd.Series(0, frame.index))
    least, method = int(bundle.module.least), bundle.facts.spec.method
    none, few = left == 0, (left > 0) & (left < least)
    if lacking and none.any():
        said.append(f"there is no modality at all in {_named(frame, none)}: what is predicted there says nothing")
    if few.any():
        said.append(f"there are fewer than the {least} modalities that {method} is made for in {_named(frame, few)}")
    return said


def _named(frame: pd.DataFrame, rows: pd.Series[bool]) -> str:
    """How many utterances, with the ids of the first."""
    ids = frame.loc[rows, "id"]
    if len(ids) == len(frame):
        return "every utterance"
    first = ", ".join(ids[:3]) + ", ..." * (len(ids) > 3)
    return f"{len(ids):,} of {len(frame):,} utterances ({first})"


def sentence(bundle: Bundle, row: Mapping[Any, Any]) -> str:
    """One prediction in one line: the two most probable classes, what is missing, what the modalities contribute."""
    ranked = sorted(bundle.classes, key=lambda name: -row[f"{PROBABILITY}{name}"])[:2]
    text = f"{row['id']}: " + ", then ".join(f"{name} {row[f'{PROBABILITY}{name}']:.2f}" for name in ranked)
    if row["missing"]:
        text += f"; {row['missing'].replace('+', ' and ')} missing"
    shares = [name for name in bundle.features if f"{SHARE}{name}" in row]
    if shares:
        text += "; from " + ", ".join(f"{name} {row[f'{SHARE}{name}']:+.2f}" for name in shares)
        parts = [name.removeprefix(WITH) for name in row if str(name).startswith(WITH) and not str(name).endswith("_p")]
        text += "".join(f"; {part} alone: {row[f'{WITH}{part}']}" for part in parts if "+" not in part)
    return text


def summary(frame: pd.DataFrame) -> str:
    """How many utterances of each class were predicted."""
    counts = Counter(frame["prediction"]).most_common()
    return f"{len(frame):,} utterances: " + ", ".join(f"{count:,} {name}" for name, count in counts)
