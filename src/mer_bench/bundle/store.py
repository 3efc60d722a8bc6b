"""A bundle: the folder of a trained model, written whole or not at all.

``weights.safetensors`` holds tensors and nothing that is executed: ``model.<name>`` for each weight of the method,
``mean.<kind>.<modality>`` and ``scale.<kind>.<modality>`` for the standardisation of its frames and functionals.
``bundle.json`` holds the :class:`~mer_bench.bundle.facts.BundleFacts`, ``README.md`` the model card.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from mer_bench.bundle.card import card
from mer_bench.bundle.facts import CARD, FILE, WEIGHTS, BundleFacts, as_text, facts_of, read_facts
from mer_bench.datasets.base import READS, Statistics
from mer_bench.errors import Misuse
from mer_bench.features import FeatureSpec
from mer_bench.files import new_folder, sha256, writing
from mer_bench.functionals import COUNT
from mer_bench.records import RunRecord

MODEL, MEAN, SCALE = "model.", "mean.", "scale."


def copied(weights: Mapping[str, Tensor], statistics: Statistics) -> dict[str, Tensor]:
    """The tensors of a bundle by their names in its file, as copies that later steps do not change."""
    named = {f"{MODEL}{name}": tensor for name, tensor in weights.items()}
    for kind, found in statistics.items():
        for modality, (mean, scale) in found.items():
            named |= {f"{MEAN}{kind}.{modality}": mean, f"{SCALE}{kind}.{modality}": scale}
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in named.items()}


def write_bundle(
    folder: Path, record: RunRecord, features: Mapping[str, FeatureSpec], licence: str, tensors: Mapping[str, Tensor]
) -> None:
    """Write the model that a run has trained; an older one in ``folder`` is replaced as a whole.

    Args:
        folder: The folder to write.
        record: What came of the run.
        features: Modality -> the feature set that the model was trained on.
        licence: Of the corpus.
        tensors: Of :func:`copied`.

    Raises:
        Misuse: it cannot be written.
    """
    with new_folder(folder) as temporary, writing(folder):
        (temporary / WEIGHTS).write_bytes(safetensors.torch.save(dict(tensors)))
        facts = facts_of(record, features, licence, sha256(temporary / WEIGHTS))
        (temporary / FILE).write_text(as_text(facts), encoding="utf-8")
        (temporary / CARD).write_text(card(facts), encoding="utf-8")
        read_facts(temporary)


def read_bundle(folder: Path) -> tuple[BundleFacts, dict[str, Tensor], Statistics]:
    """Description, weights by the names that the method gives them, and statistics of the bundle in ``folder``.

    Raises:
        Misuse: a file is absent, is not what it should be, or the weights were changed after they were written.
    """
    facts, path = read_facts(folder), folder / WEIGHTS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Misuse(f"cannot read the weights of the model, {path}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != facts.weights_sha256:
        raise Misuse(f"{path} was changed after it was written: its sha256 is not the one in {FILE}; copy it again")
    try:
        tensors = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise Misuse(f"{path} is not a file of tensors: {' '.join(str(error).split())}") from error
    weights = {name.removeprefix(MODEL): each for name, each in tensors.items() if name.startswith(MODEL)}
    statistics: dict[str, dict[str, tuple[Tensor, Tensor]]] = {kind: {} for kind in READS}
    for kind, modality in itertools.product(READS, facts.features):
        mean, scale = (tensors.get(f"{part}{kind}.{modality}") for part in (MEAN, SCALE))
        if mean is None or scale is None:
            continue
        dim = facts.features[modality].dim
        if mean.shape != scale.shape or tuple(mean.shape) not in {(dim,), (COUNT * dim if kind != "frames" else dim,)}:
            raise Misuse(
                f"{path} has statistics of {modality} that do not fit its width, {dim}; export the model again"
            )
        statistics[kind][modality] = (mean.float(), scale.float())
    if len(tensors) != len(weights) + 2 * sum(map(len, statistics.values())):
        raise Misuse(f"{path} holds tensors that are no part of a model; export the model again")
    return facts, weights, statistics


def check_target(folder: Path) -> None:
    """Raise Misuse unless ``folder`` can be made: it does not exist yet, or is empty."""
    with writing(folder):
        if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise Misuse(f"{folder} exists; name a folder that does not, or an empty one, so that nothing is lost")


def copy_bundle(source: Path, folder: Path) -> None:
    """Copy a bundle, after it has been read as a whole, to ``folder``."""
    read_bundle(source)
    with new_folder(folder) as temporary, writing(folder):
        for name in (FILE, WEIGHTS, CARD):
            shutil.copyfile(source / name, temporary / name)
