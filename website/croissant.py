"""docs/croissant/*.json: the structure of each prepared corpus as Croissant 1.0 metadata, without any content of it.

The fields are those of the utterance table and of the feature specifications in the code. The files do not come with
mer_bench: everybody prepares them from the corpus, so that their addresses are paths within the prepared folder. The
checksums are those of the tables that the committed records were made with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from mer_bench.datasets import DATASETS
from mer_bench.features import FeatureSpec
from mer_bench.utterances import COLUMNS
from mer_bench.utterances import FILE as TABLE
from website.corpora import CARDS, Card
from website.counts import counts
from website.docstrings import comments

#: the context that the specification of Croissant 1.0 gives
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
#: column of the utterance table -> type, meaning
MEANING = {
    "id": ("sc:Text", "Name of the utterance, unique in the table."),
    "dialogue": ("sc:Text", "Name of the dialogue; the rows of a dialogue are adjacent."),
    "turn": ("sc:Integer", "Number of the utterance within its dialogue, from 0."),
    "speaker": ("sc:Text", "Name of the speaker."),
    "session": ("sc:Text", "Session of the recording; empty where the corpus has none."),
    "start": ("sc:Float", "Start in seconds; empty where it is not known."),
    "end": ("sc:Float", "End in seconds; empty where it is not known."),
    "text": ("sc:Text", "Transcript; empty where there is none."),
    "emotion": ("sc:Text", "Label as the corpus names it; label sets map these to classes."),
    "split": ("sc:Text", "The corpus's own split (train, validation or test); empty where it has none."),
    "media": ("sc:Text", "Path of the sound or video in the release, relative to its folder."),
}
#: types of a feature specification that JSON-LD has a word for
TYPES = {str: "sc:Text", int: "sc:Integer", float: "sc:Float"}


def page(dataset: str) -> str:
    """The metadata of a corpus as JSON."""
    return json.dumps(metadata(dataset), indent=1, ensure_ascii=False) + "\n"


def metadata(dataset: str) -> dict[str, Any]:
    """The metadata of a corpus."""
    card: Card = CARDS[dataset]
    hashes: Mapping[str, str] = counts()[dataset]["sha256"]
    tables = [_file(name, digest) for name, digest in hashes.items()]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": dataset,
        "description": f"{card.text} As mer_bench prepares it: a table of utterances, and a folder for each feature "
        "set. Neither media nor features nor transcripts come with this description.",
        "license": card.licence_url or DATASETS[dataset].licence,
        "url": card.url,
        "creator": {"@type": "sc:Organization", "name": card.creator},
        "citeAs": card.cite,
        "datePublished": card.year,
        "version": "1.0.0",
        "distribution": [
            *tables,
            {
                "@type": "cr:FileSet",
                "@id": "feature-specifications",
                "name": "feature-specifications",
                "description": "One folder for each feature set: spec.json, values.npy [frames, dim] and offsets.npy "
                "[rows + 1]; the features of row i of the table are values[offsets[i]:offsets[i + 1]].",
                "encodingFormat": "application/json",
                "includes": "*/spec.json",
            },
        ],
        "recordSet": [_utterances(), *map(_labels, [name for name in hashes if name != TABLE]), _features()],
    }


def _file(name: str, digest: str) -> dict[str, Any]:
    facts = {"encodingFormat": "text/csv", "contentUrl": name, "sha256": digest}
    return {"@type": "cr:FileObject", "@id": name, "name": name, **facts}


def _column(table: str, file: str, name: str, kind: str, meaning: str) -> dict[str, Any]:
    source = {"fileObject": {"@id": file}, "extract": {"column": name}}
    head = {"@type": "cr:Field", "@id": f"{table}/{name}", "name": name, "description": meaning}
    return {**head, "dataType": kind, "source": source}


def _utterances() -> dict[str, Any]:
    found = [_column("utterances", TABLE, name, *MEANING[name]) for name in COLUMNS]
    head = {"@type": "cr:RecordSet", "@id": "utterances", "name": "utterances", "key": {"@id": "utterances/id"}}
    return {**head, "description": "One row per utterance.", "field": found}


def _labels(file: str) -> dict[str, Any]:
    name = file.removesuffix(".csv")
    utterance = _column(name, file, "id", "sc:Text", "Name of the utterance.")
    utterance["references"] = {"field": {"@id": "utterances/id"}}
    label = _column(name, file, "emotion", "sc:Text", "Label of another label set than that of the utterance table.")
    text = f"Labels of the label set {name.removeprefix('labels_')}."
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "description": text, "field": [utterance, label]}


def _features() -> dict[str, Any]:
    hints, said = get_type_hints(FeatureSpec), comments(FeatureSpec)
    found = []
    for item in fields(FeatureSpec):
        kind = TYPES.get(hints[item.name]) or ("sc:Float" if item.name == "frame_rate" else None)
        if kind and item.default is MISSING:
            meaning = {"description": said[item.name]} if said[item.name] else {}
            source = {"fileSet": {"@id": "feature-specifications"}, "extract": {"jsonPath": f"$.{item.name}"}}
            head = {"@type": "cr:Field", "@id": f"feature_sets/{item.name}", "name": item.name}
            found.append({**head, **meaning, "dataType": kind, "source": source})
    text = "What each feature set is and where it came from: its spec.json."
    return {"@type": "cr:RecordSet", "@id": "feature_sets", "name": "feature_sets", "description": text, "field": found}
