"""What a bundle says of its model: the content of ``bundle.json``, checked like a record when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mer_bench.errors import Misuse
from mer_bench.features import FeatureSpec
from mer_bench.metrics import SCORES
from mer_bench.modalities import modality_of
from mer_bench.records import Protocol, RunRecord, RunSpec
from mer_bench.report.statistics import resample
from mer_bench.schema import Count, Hash, Label, Name, Positive, Share, Text, decode, read_json

FORMAT = 2  #: of bundles; raise it when older ones can no longer be read
CHECKSUM = "sha256"  #: key of the file: hash of all else in it
FILE, WEIGHTS, CARD = "bundle.json", "weights.safetensors", "README.md"


@dataclass(frozen=True)
class Score:
    """A score on the test fold, with its 95 % interval by bootstrap over clusters."""

    value: Share
    low: Share
    high: Share


@dataclass(frozen=True)
class BundleFacts:
    """The content of ``bundle.json``."""

    format: Positive  #: :data:`FORMAT`
    package: Text  #: version of mer_bench that trained the model
    spec: RunSpec  #: the run that trained it
    source: Hash  #: of the file that defines the method
    classes: tuple[Label, ...]  #: in the order of the model's outputs
    context: Literal["utterance", "dialogue"]
    provenance: Literal["baseline", "reimplemented", "reconstruction", "own"]
    simulated: bool
    features: Mapping[Name, FeatureSpec]  #: by modality: the sets that the model was trained on
    protocol: Protocol
    rows: Mapping[Literal["train", "validation", "test"], Count]  #: number of utterances
    scores: Mapping[Name, Score]  #: on the test fold
    clusters: Count  #: of the test fold
    licence: Text  #: of the corpus
    weights_sha256: Hash  #: of ``weights.safetensors``


def facts_of(record: RunRecord, features: Mapping[str, FeatureSpec], licence: str, weights_sha256: str) -> BundleFacts:
    """The facts of the model that a run has trained.

    Args:
        record: What came of the run.
        features: Modality -> the feature set that it was trained on.
        licence: Of the corpus.
        weights_sha256: Hash of the file of the weights.
    """
    assert record.test_by_cluster is not None
    assert record.code is not None
    assert record.protocol is not None
    counts = np.array(record.test_by_cluster, np.int64)[None]
    found = {name: resample(counts, name) for name in SCORES}
    return BundleFacts(
        format=FORMAT,
        package=record.versions["mer-bench"],
        spec=record.spec,
        source=record.code.source,
        classes=record.classes,
        context=record.context,
        provenance=record.provenance,
        simulated=record.simulated,
        features=features,
        protocol=record.protocol,
        rows=record.rows,
        scores={name: Score(each.score, *each.interval) for name, each in found.items()},
        clusters=counts.shape[1],
        licence=" ".join(licence.split()),
        weights_sha256=weights_sha256,
    )


def as_text(facts: BundleFacts) -> str:
    """The content of the file, with a checksum."""
    content = asdict(facts)
    content[CHECKSUM] = _checksum(content)
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_facts(folder: Path) -> BundleFacts:
    """Read and check ``folder/bundle.json``.

    Raises:
        Misuse: it is not the description of a model, is of another format, or contradicts itself.
    """
    path = folder / FILE
    if not folder.is_dir():
        raise Misuse(f"there is no folder {folder}: name the folder of a trained model, see --save-model")
    content = read_json(path, "the description of a trained model")
    stated = content.get("format") if isinstance(content, dict) else None
    if isinstance(stated, int) and stated != FORMAT:  # its keys may be other ones
        raise Misuse(
            f"{path} has format {stated}, and this version of mer_bench reads format {FORMAT}: "
            + ("install a newer version" if stated > FORMAT else "export the model again")
        )
    checksum = content.pop(CHECKSUM, None) if isinstance(content, dict) else None
    facts = decode(content, BundleFacts, str(path))
    if checksum != _checksum(content):
        raise Misuse(f"{path} was changed after it was written: its sha256 is not that of its content; copy it again")
    modalities = set(facts.features)
    names = {modality: each.name for modality, each in facts.features.items()}
    for holds, sentence in (
        (len(set(facts.classes)) == len(facts.classes) > 0, "a class occurs twice, or there is none"),
        (names == facts.spec.features, "its features are not those of its spec"),
        (all(facts.features[m].modality == modality_of(m) for m in modalities), "a feature set is of another modality"),
    ):
        if not holds:
            raise Misuse(f"{path} contradicts itself: {sentence}; export the model again")
    return facts
