"""New clips for a trained model: an utterance table without labels, and the feature sets that the model reads."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.corpora.new_clips import NewClip, utterance_table
from data_prep.extract import Journal, run
from data_prep.prepare.rebuild import Rebuilt, Source, rebuild
from mer_bench.errors import Misuse, unknown
from mer_bench.features import FeatureSpec, write_features
from mer_bench.utterances import write_table

LEFT_OUT = "left out"  #: the reason why a clip lacks a modality that the user left out


@dataclass(frozen=True)
class Prepared:
    """What became of new clips.

    Args:
        ids: The clips that were written, in the order of the table.
        missing: For each of them: modality -> why it is missing.
        remarks: For each of them: modality -> what the user should know of its features.
        refused: Clips without any modality of the model: id -> one sentence.
    """

    ids: tuple[str, ...]
    missing: Mapping[str, Mapping[str, str]]
    remarks: Mapping[str, Mapping[str, str]]
    refused: Mapping[str, str]


def prepare_clips(
    clips: Sequence[NewClip],
    specs: Mapping[str, FeatureSpec],
    into: Path,
    *,
    without: Collection[str] = (),
    models: Mapping[str, str] | None = None,
    download: bool = False,
    trust: Collection[str] = (),
    workers: int = 0,
) -> Prepared:
    """Write ``utterances.csv`` and the feature sets ``specs`` of new clips into the folder ``into``.

    A set has the name that its specification states. A modality that no clip has gets no folder.

    Args:
        clips: The clips; those of a dialogue are adjacent and in order.
        specs: Modality -> specification of the set that the model reads.
        into: A folder, which is made if need be.
        without: Modalities to leave out: they are missing in every clip.
        models: Modality -> where its frozen model is, see :class:`data_prep.prepare.rebuild.Source`.
        download: Whether frozen models may be downloaded.
        trust: Modalities whose extractor is taken although it is not quite the one of the model.
        workers: Number of processes that decode, see :func:`data_prep.extract.extract`.

    Raises:
        Misuse: a modality cannot be extracted here as the model needs it, or no clip has any.
    """
    for name in (*without, *(models or {}), *trust):
        if name not in specs:
            raise unknown("modality of the model", name, specs)
    source = Source(clips, models or {}, download, trust)
    chosen = {name: rebuild(name, spec, source) for name, spec in specs.items() if name not in without}
    if not chosen:
        raise Misuse(f"no modality of the model is left without {', '.join(specs)}")
    missing = {clip.id: dict.fromkeys(without, LEFT_OUT) for clip in clips}
    remarks: dict[str, dict[str, str]] = {clip.id: {} for clip in clips}
    journals = {name: _extract(specs[name], found, into, workers) for name, found in chosen.items()}
    for name, journal in journals.items():
        for notes, lines in ((missing, journal.missing), (remarks, journal.remarks)):
            for clip, reason in lines:
                notes[clip][name] = reason
    refused = {clip.id: _reasons(missing[clip.id]) for clip in clips if len(missing[clip.id]) == len(specs)}
    kept = [clip for clip in clips if clip.id not in refused]
    if not kept:
        first, reasons = next(iter(refused.items()))
        of = "the clip" if len(clips) == 1 else f"none of the {len(clips)} clips, such as"
        raise Misuse(f"nothing that the model reads is in {of} {first}: {reasons}")
    write_table(into, utterance_table(kept))
    for name, journal in journals.items():
        if any(name not in missing[clip.id] for clip in kept):
            _write(specs[name], chosen[name], journal, into, {clip.id for clip in kept})
        shutil.rmtree(journal.folder)
    ids = tuple(clip.id for clip in kept)
    return Prepared(ids, {i: missing[i] for i in ids}, {i: remarks[i] for i in ids}, refused)


def _extract(spec: FeatureSpec, found: Rebuilt, into: Path, workers: int) -> Journal:
    """The features of all clips, on disk.

    Raises:
        Misuse: they are wider or narrower than the specification states.
    """
    journal = Journal(into / f".{spec.name}.partial", found.extractor.recipe.dtype)
    journal.begin({}, restart=True)
    run(found.extractor, found.clips, journal, workers)
    widths = {dim for time, dim in journal.shapes if time} - {spec.dim}
    if widths:
        raise Misuse(f"{spec.name}: the features have {widths.pop()} columns, and the model reads {spec.dim}")
    return journal


def _write(spec: FeatureSpec, found: Rebuilt, journal: Journal, into: Path, kept: set[str]) -> None:
    ids = [clip.id for clip in found.clips]
    sequences = (values for name, values in zip(ids, journal.sequences(), strict=True) if name in kept)
    facts = {**asdict(found.extractor.recipe), "extractor_parameters": spec.extractor_parameters}
    del facts["name"]
    write_features(into / spec.name, sequences, ids=[name for name in ids if name in kept], **facts)


def _reasons(missing: Mapping[str, str]) -> str:
    return ", ".join(f"{name}: {reason}" for name, reason in missing.items())
