"""Load a trained model from its folder and predict with it; neither a corpus nor a pickle is needed."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from mer_bench.batch import Batch, Width
from mer_bench.bundle.data import UnlabelledData, packed, to_numpy
from mer_bench.bundle.facts import BundleFacts
from mer_bench.bundle.store import read_bundle
from mer_bench.datasets.base import Statistics
from mer_bench.errors import Misuse, unknown
from mer_bench.features import FeatureSpec
from mer_bench.files import sha256
from mer_bench.fusion import METHODS
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.find import find_method, said
from mer_bench.utterances import COLUMNS

Floats = npt.NDArray[np.float64]

#: An option of cfn_sr that names files of initial weights; the weights of the bundle take their place.
FILES = "weights"


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model with all that prediction needs."""

    facts: BundleFacts
    module: FusionModule  #: on the CPU, in evaluation mode; it may be moved to another device
    statistics: Statistics

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes in the order of the probabilities."""
        return self.facts.classes

    @property
    def features(self) -> Mapping[str, FeatureSpec]:
        """Modality -> the feature set that the model was trained on: its extractor, revision, settings, width ..."""
        return {modality: self.facts.features[modality] for modality in self.module.dims}

    @property
    def context(self) -> Literal["utterance", "dialogue"]:
        """Whether the model reads single utterances or whole dialogues."""
        return self.facts.context

    def predict(
        self,
        features: Mapping[str, Sequence[npt.NDArray[Any] | None]],
        *,
        dialogue: Sequence[str] | None = None,
        speaker: Sequence[str] | None = None,
    ) -> Floats:
        """Probabilities [utterance, class] of utterances whose features were extracted as the model's were.

        Args:
            features: Modality -> one array [time, dim] per utterance, not standardised; None or an empty array where
                the utterance lacks the modality. A modality that is not given is missing everywhere.
            dialogue: For a model of dialogues, the dialogue of each utterance; the turns of one are adjacent, in order.
            speaker: For such a model, the speaker of each utterance.

        Raises:
            Misuse: an unknown modality, different numbers of utterances, or arrays that are not what the model reads.
        """
        for modality in features:
            if modality not in self.features:
                raise unknown("modality of the model", modality, self.features)
        counts = {len(each) for each in (*features.values(), dialogue, speaker) if each is not None}
        if len(counts) != 1 or not (count := counts.pop()):
            raise Misuse("give the same number of utterances, at least one, for each modality, dialogue and speaker")
        if self.context == "dialogue" and (dialogue is None or speaker is None):
            raise Misuse("this model reads whole dialogues: give the dialogue and the speaker of each utterance")
        table = pd.DataFrame("", index=range(count), columns=list(COLUMNS))
        table["dialogue"] = range(count) if dialogue is None else list(dialogue)
        table["speaker"] = "" if speaker is None else list(speaker)
        if (
            self.context == "dialogue"
            and table["dialogue"].ne(table["dialogue"].shift()).sum() > table["dialogue"].nunique()
        ):
            raise Misuse("the utterances of a dialogue must be adjacent, in their order")
        sets = {name: packed(spec, list(features.get(name, [None] * count))) for name, spec in self.features.items()}
        data = UnlabelledData(
            table,
            sets,
            self.statistics,
            reads=self.module.reads,
            context=self.context,
            batch_size=self.facts.spec.training.batch_size,
        )
        return to_numpy([self.step(batch) for batch in self.batches(data)], count, len(self.classes))

    def batches(self, data: UnlabelledData) -> Iterator[Batch]:
        """The batches of some utterances, on the device of the model."""
        return (batch.to(self.module.device) for batch in data.predict_dataloader())

    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Table rows [utterance] and probabilities [utterance, class] of a batch."""
        self.module.eval()
        with torch.inference_mode():
            return self.module.predict_step(batch)


def load_model(
    folder: Path | str, *, method: type[FusionModule] | str | None = None, allow_changed: bool = False
) -> Bundle:
    """Load the trained model in ``folder``.

    What a bundle says never decides which code is imported: a method that is not part of mer_bench has to be given.

    Args:
        folder: The folder, see ``--save-model`` and ``mer-bench export``.
        method: The class of the method, or its name as ``module:Class``, if it is not built in.
        allow_changed: Load the model also if the file that defines such a method was edited since the training.

    Raises:
        Misuse: something of the folder is absent, of another format, or was changed; or the method is another one than
            that which was trained.
    """
    folder = Path(folder)
    facts, weights, statistics = read_bundle(folder)
    found = _method(facts, folder, method, allow_changed)
    described = statistics["functionals"]
    dims = {
        name: Width(spec.dim, len(described[name][0]) if name in described else spec.dim)
        for name, spec in facts.features.items()
    }
    stated = {name: value for name, value in facts.spec.options.items() if name != FILES}
    options = {**found.options_for(facts.classes), **stated}
    own = facts.spec.method not in METHODS
    try:
        with torch.random.fork_rng(devices=[]):  # the initial weights are replaced: random numbers of the user's stay
            module = found(dims, len(facts.classes), **options)
    except Misuse as error:
        raise Misuse(f"{folder} does not fit its method: {error}") from error
    except Exception as error:
        raise Misuse(f"{folder} does not fit its method: {said(error) if own else error}") from error
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = sorted(name for name in wanted | given if wanted.get(name) != given.get(name))
    if wrong:
        name = wrong[0]
        raise Misuse(
            f"the weights in {folder} are not those of {facts.spec.method} with its options: {name} has the shape "
            f"{given.get(name, 'of nothing')} and should have {wanted.get(name, 'none')}; export the model again"
        )
    for kind, modality in itertools.product(module.reads, module.dims):
        if modality not in statistics[kind] and not facts.features[modality].integer:
            raise Misuse(f"{folder} lacks the statistics of the {kind} of {modality}; export the model again")
    module.load_state_dict(weights)
    module.eval()
    return Bundle(facts, module, statistics)


def _method(
    facts: BundleFacts, folder: Path, given: type[FusionModule] | str | None, allow_changed: bool
) -> type[FusionModule]:
    """The class of the method; a built-in one by the name in the bundle, any other as the user gives it."""
    spec = facts.spec
    if spec.method in METHODS:
        found = METHODS[spec.method]
        if given is not None and given not in (spec.method, found):
            raise Misuse(f"the model in {folder} was trained with {spec.method}, not with {_name(given)}")
    elif given is None:
        raise Misuse(
            f"the model in {folder} was trained with {spec.method}, which is no part of mer_bench: if you trust that "
            f"code, name it: --method {spec.method}, or load_model(folder, method=...)"
        )
    else:
        found = find_method(given) if isinstance(given, str) else given
        if not (isinstance(found, type) and issubclass(found, FusionModule)):
            raise Misuse("method must be a class that extends FusionModule, or its name as module:Class")
        if sha256(Path(inspect.getfile(found))) != facts.source and not allow_changed:
            raise Misuse(
                f"the code of {_name(given)} is not the one that the model in {folder} was trained with: get that "
                "version of its file, or load it all the same with --allow-changed (allow_changed=True)"
            )
    if found.version != spec.version:
        raise Misuse(
            f"the model in {folder} was trained with version {spec.version} of {spec.method}, and the code has version "
            f"{found.version}: install mer_bench {facts.package}, or train the model again"
        )
    if found.context != facts.context:
        raise Misuse(f"the model in {folder} reads {facts.context}s, and {_name(given)} {found.context}s")
    return found


def _name(method: type[FusionModule] | str | None) -> str:
    return method if isinstance(method, str) else "another method" if method is None else method.__qualname__
