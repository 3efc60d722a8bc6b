"""The feature packs that papers share: pickles told apart by their structure, mapped by name onto the table's ids.

Three families are read. Tuples of dictionaries over dialogues, from DialogueRNN (Majumder et al., AAAI 2019) over MMGCN
and M3Net to GraphSmile, for IEMOCAP and MELD. Tuples of RoBERTa vectors from COSMIC (Ghosal et al., Findings of EMNLP
2020), for the same. Dictionaries over splits of padded arrays from MulT (Tsai et al., ACL 2019) and MMSA (Mao et al.,
ACL 2022), word-aligned or not, for any corpus whose ids they name.

Nothing is guessed. What cannot be placed by an id, a dialogue's number or what is said in it is left out and counted,
and a pack that disagrees with the table throughout is refused.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.cli import Command, force_option, table_option
from data_prep.corpora import iemocap
from data_prep.extract import EMPTY, FloatArray, Recipe, report_unread, store
from data_prep.imports.unpickle import read_pickle
from mer_bench.errors import Misuse
from mer_bench.features import MODALITIES, FeatureSpec
from mer_bench.files import sha256
from mer_bench.utterances import read_table

#: what each place of a tuple holds; text2 to text4 are RoBERTa's layers below its last
LAYOUTS = {
    "DialogueRNN or MMGCN, IEMOCAP": "ids speakers labels text audio vision sentences train test",
    "DialogueRNN, MELD": "ids speakers labels text audio sentences train test sentiments",
    "MMGCN, MELD": "ids speakers labels text audio vision sentences train test other",
    "M3Net, IEMOCAP": "ids speakers labels text text2 text3 text4 audio vision sentences train test",
    "M3Net, MELD": "ids speakers labels text text2 text3 text4 audio vision sentences train test other",
    "GraphSmile, IEMOCAP": "ids speakers labels sentiments text text2 text3 text4 audio vision sentences train test",
    "GraphSmile, MELD": "ids speakers labels sentiments text text2 text3 text4 audio vision sentences train test other",
    "COSMIC, IEMOCAP": "speakers labels text text2 text3 text4 sentences train test valid",
    "COSMIC, MELD": "speakers labels sentiments text text2 text3 text4 sentences train test valid",
}
#: what a place may look like, by the words of :func:`kind`; the places not named here hold vectors
KINDS = {
    "ids": ("words", "numbers"),
    "speakers": ("words", "numbers", "vectors"),
    "labels": ("numbers",),
    "sentiments": ("numbers",),
    "sentences": ("words",),
    "train": ("a list",),
    "test": ("a list",),
    "valid": ("a list",),
}
SPLITS = {"train": "train", "valid": "validation", "dev": "validation", "test": "test"}  #: a pack's name for it: ours
MELD_LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
MELD_FIRST = {"test": 1153, "validation": 1039, "train": 0}  #: number of a split's dialogue 0 in a pack, from the last
AGREE = 0.9  #: share of a pack that must be found in the table, and must say there what the table says


@dataclass(frozen=True)
class Pack:
    """What a pack holds, utterance by utterance in its own order; every list is as long as ``ids``."""

    origin: str
    ids: list[str]  #: of the table; "" for an utterance that has no place in it
    features: dict[str, list[FloatArray]]  #: by place (text, text2, audio ...), each [time, dim]
    split: list[str]
    labels: list[str] = field(default_factory=list)  #: by the table's names; [] where the pack's mean something else
    sentences: list[str] = field(default_factory=list)  #: [] where it has none


# --- tuples over dialogues --------------------------------------------------------------------------------------------


def kind(value: Any) -> str:
    """What one place of a tuple holds: words, numbers or vectors for each dialogue, a list, or its type's name."""
    if not isinstance(value, Mapping):
        return "a list" if isinstance(value, list | tuple | set | frozenset | np.ndarray) else type(value).__name__
    filled = (items for items in value.values() if isinstance(items, list | tuple | np.ndarray) and len(items))
    first = next((items[0] for items in filled), None)
    if isinstance(first, str):
        return "words"
    if isinstance(first, int | float | np.number):
        return "numbers"
    return "vectors" if isinstance(first, list | tuple | np.ndarray) else "a dictionary"


def layout(content: Sequence[Any]) -> str:
    """The name in ``LAYOUTS`` of a tuple; "" if it has none of these structures."""
    kinds = [kind(value) for value in content]
    for name, places in LAYOUTS.items():
        names = places.split()
        if len(names) == len(kinds) and all(
            place == "other" or found in KINDS.get(place, ("vectors",))
            for place, found in zip(names, kinds, strict=True)
        ):
            return name
    return ""


def letters(sentence: str) -> str:
    """A sentence without case, spaces and everything that encodings garble."""
    return re.sub("[^a-z0-9]", "", str(sentence).lower())


def iemocap_places(rows: pd.DataFrame, fields: Mapping[str, Any], dialogue: Any) -> list[str]:
    """The table's id of each utterance of one dialogue: the pack's own, else by who says what.

    COSMIC's packs have no ids, leave utterances out and are not in the order of time. A sentence that one speaker says
    as often in the pack as in the table is placed in turn; if the table has it more often, only among the utterances
    with one of the six emotions; and otherwise not at all. On the community's 7,433 utterances this places all.
    """
    if "ids" in fields:
        known = set(rows["id"])
        return [str(i) if str(i) in known else "" for i in fields["ids"][dialogue]]
    turns: dict[tuple[str, str], list[int]] = defaultdict(list)
    for turn, said in enumerate(zip(fields["speakers"][dialogue], fields["sentences"][dialogue], strict=True)):
        turns[str(said[0]), letters(said[1])].append(turn)
    same: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for utterance, speaker, text, emotion in zip(*(rows[c] for c in ("id", "speaker", "text", "emotion")), strict=True):
        same[speaker[-1], letters(text)].append((utterance, emotion))
    found = [""] * len(fields["labels"][dialogue])
    for said, places in turns.items():
        candidates = [utterance for utterance, _ in same[said]]
        if len(candidates) != len(places):
            candidates = [utterance for utterance, emotion in same[said] if emotion in iemocap.COMMUNITY]
        if len(candidates) == len(places):
            for place, utterance in zip(places, candidates, strict=True):
                found[place] = utterance
    return found


def meld_places(rows: pd.DataFrame, fields: Mapping[str, Any], dialogue: Any) -> list[str]:
    """The table's id of each utterance of one dialogue: by number if all the pack's numbers exist, else by turn.

    Some packs number the utterances as the CSVs do, with gaps, others from 0 on. A dialogue of another length than the
    table's has no places.
    """
    size = len(fields["labels"][dialogue])
    if "ids" in fields:
        numbered = [f"{rows['dialogue'].iloc[0]}_utt{number}" for number in fields["ids"][dialogue]]
        if len(numbered) == size and set(numbered) <= set(rows["id"]):
            return numbered
    return list(rows["id"]) if len(rows) == size else [""] * size


def meld_dialogue(number: int) -> str:
    """Our name of dialogue ``number`` of a pack, which counts through train, validation and test."""
    split = next(split for split, first in MELD_FIRST.items() if number >= first)
    return f"{split}_dia{number - MELD_FIRST[split]}"


def vectors(value: Any) -> list[FloatArray]:
    """One array [1, dim] for each utterance of a dialogue."""
    return [np.asarray(row, np.float32).reshape(1, -1) for row in value]


def read_dialogues(content: Sequence[Any], name: str, table: pd.DataFrame) -> Pack:
    """The pack in a tuple whose layout is ``name``."""
    fields: dict[str, Any] = dict(zip(LAYOUTS[name].split(), content, strict=True))
    features = [place for place in fields if place.rstrip("234") in MODALITIES]
    split_of = {key: SPLITS[split] for split in SPLITS if split in fields for key in fields[split]}
    by_dialogue = dict(iter(table.groupby("dialogue", sort=False)))
    numbered = all(str(key).isdigit() for key in fields["labels"])
    places, names = (meld_places, MELD_LABELS) if numbered else (iemocap_places, iemocap.COMMUNITY)
    pack = Pack(name, [], {place: [] for place in features}, [], [], [])
    odd: list[tuple[str, str]] = []
    for key, labels in fields["labels"].items():
        if not len(labels):
            continue
        dialogue, size = meld_dialogue(int(key)) if numbered else str(key), len(labels)
        lengths = {place: len(fields[place].get(key, ())) for place in [*features, "sentences"]}
        ids = [""] * size
        if any(length != size for length in lengths.values()):
            sizes = ", ".join(f"{length} {place}" for place, length in lengths.items())
            odd.append((dialogue, f"its parts differ in length ({size} labels, {sizes})"))
        elif dialogue in by_dialogue:
            ids = places(by_dialogue[dialogue], fields, key)
        for place in features:
            rows = vectors(fields[place].get(key, ()))
            pack.features[place].extend(rows if len(rows) == size else [EMPTY] * size)
        pack.ids.extend(ids)
        pack.split.extend([split_of.get(key, "")] * size)
        pack.labels.extend(names[int(i)] if 0 <= int(i) < len(names) else f"label {i}" for i in labels)
        pack.sentences.extend((list(map(str, fields["sentences"].get(key, ()))) + [""] * size)[:size])
    report_unread("pack", odd)
    return pack


# --- dictionaries over splits -----------------------------------------------------------------------------------------


def depth(value: Any) -> int:
    """Number of axes of an array, or of a list of arrays; 0 for anything else."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.ndim
    first = value[0] if isinstance(value, list | tuple | np.ndarray) and len(value) else None
    return 1 + first.ndim if isinstance(first, np.ndarray) else 0


def is_split_dictionary(content: Any) -> bool:
    """Whether it is ``{"train": {"text": [utterance, time, dim], ...}, "test": ...}``."""
    if not isinstance(content, Mapping):
        return False
    parts = [part for split, part in content.items() if split in SPLITS]
    return bool(parts) and all(
        isinstance(part, Mapping) and any(depth(part.get(name)) in (2, 3) for name in MODALITIES) for part in parts
    )


def id_forms(identity: Any, split: str) -> list[str]:
    """How the table may write a pack's id: as it stands, dialogue and clip joined, or the split's name before them."""
    raw = np.ravel(np.asarray(identity)).tolist()
    parts = [part.decode("latin-1") if isinstance(part, bytes) else str(part) for part in raw]
    whole = "_".join(part for text in parts for part in text.split("$_$"))
    return ["".join(parts), whole, f"{split}_{whole}"]


def unpadded(frames: Mapping[str, FloatArray], stated: Mapping[str, int], aligned: bool) -> dict[str, FloatArray]:
    """The frames [time, dim] of one utterance without its padding, by modality.

    Padding is what lies after the length that the pack states, or else what is all zero before the first and after the
    last other frame. In an aligned pack the modalities keep the span that any of them fills.
    """
    spans: dict[str, tuple[int, int]] = {}
    for name, values in frames.items():
        filled = np.flatnonzero((values != 0).any(axis=1))
        first_last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
        spans[name] = (0, stated[name]) if name in stated else first_last
    full = [(a, b) for a, b in spans.values() if b > a]
    if aligned and full:
        whole = min(a for a, _ in full), max(b for _, b in full)
        spans = {name: whole if b > a else (0, 0) for name, (a, b) in spans.items()}
    return {name: values[slice(*spans[name])] for name, values in frames.items()}


def read_splits(content: Mapping[str, Any], table: pd.DataFrame, source: Path) -> Pack:
    """The pack in a dictionary over splits.

    Raises:
        Misuse: a split has no ids, or as many of something else as it has ids.
    """
    known, emotions = set(table["id"]), {str(emotion).lower(): str(emotion) for emotion in table["emotion"]}
    parts = {split: part for split, part in content.items() if split in SPLITS}
    places = [name for name in MODALITIES if all(depth(part.get(name)) in (2, 3) for part in parts.values())]
    widths = {len(part[name][0]) for part in parts.values() for name in places if len(part[name])}
    lengths = {name: f"{name}_lengths" for name in places}
    aligned = (
        len(places) > 1 and len(widths) == 1 and not any(n in part for n in lengths.values() for part in parts.values())
    )
    pack = Pack("MMSA or MulT, " + ("aligned" if aligned else "not aligned"), [], {name: [] for name in places}, [])
    labels: list[str] = []
    for split, part in parts.items():
        if "id" not in part:
            raise Misuse(
                f"{source} has no utterance ids ('id') in {split!r}, like MulT's IEMOCAP pack of 2,717, 798 and 938 "
                "clips; which utterances they are is published nowhere, so nothing can be mapped onto the table"
            )
        size, masks = len(part["id"]), part.get("text_bert", ())
        for name in [*places, *(name for name in lengths.values() if name in part)]:
            if len(part[name]) != size:
                raise Misuse(f"{source}: {split!r} has {size:,} ids but {len(part[name]):,} of {name}")
        for i, identity in enumerate(part["id"]):
            frames = {name: np.asarray(part[name][i], np.float32) for name in places}
            stated = {name: int(part[lengths[name]][i]) for name in places if lengths[name] in part}
            if len(masks) == size and np.ndim(masks[i]) == 2:  # token numbers, attention mask, segments
                like = {
                    name for name in places if len(frames[name]) == len(masks[i][1]) and (aligned or name == "text")
                }
                stated |= dict.fromkeys(like, int(np.sum(masks[i][1])))
            stated |= {name: 1 for name in places if frames[name].ndim == 1}
            rows = {name: np.atleast_2d(values) for name, values in frames.items()}
            for name, values in unpadded(rows, stated, aligned).items():
                pack.features[name].append(values if len(values) else EMPTY)
            pack.ids.append(next((form for form in id_forms(identity, SPLITS[split]) if form in known), ""))
        pack.split.extend([SPLITS[split]] * size)
        pack.sentences.extend(map(str, part.get("raw_text", ())))
        labels.extend(emotions.get(str(label).lower(), "") for label in part.get("annotations", ()))
    if len(labels) == len(pack.ids) and all(labels):
        pack.labels.extend(labels)
    if len(pack.sentences) != len(pack.ids):
        pack.sentences.clear()
    return pack


# --- any pack ---------------------------------------------------------------------------------------------------------


def recognise(source: Path, table: pd.DataFrame) -> Pack:
    """Read the pack in ``source`` and find its utterances in the table.

    Raises:
        Misuse: it is unsafe, unreadable, or has none of the known structures.
    """
    content = read_pickle(source)
    name = layout(content) if isinstance(content, list | tuple) else ""
    try:
        if name:
            return read_dialogues(content, name, table)
        if is_split_dictionary(content):
            return read_splits(content, table, source)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise Misuse(f"{source} looks like a pack ({name or 'MMSA or MulT'}) but is not whole: {error!r}") from error
    expected = [f"{len(places.split())} ({name}: {places.replace(' ', ', ')})" for name, places in LAYOUTS.items()]
    raise Misuse(
        f"{source} is no known pack: it holds {outline(content)}; expected a tuple of {', or of '.join(expected)}; "
        "or a dictionary over train, valid and test of text, audio, vision and id"
    )


def outline(content: Any) -> str:
    """A few words on what an unknown pickle holds."""
    if isinstance(content, Mapping):
        keys = list(map(str, content))
        inner = next((part for part in content.values() if isinstance(part, Mapping)), None)
        deeper = f", the first of them a dictionary of {', '.join(list(map(str, inner))[:8])}" if inner else ""
        return f"a dictionary of {', '.join(keys[:8]) or 'nothing'}{', ...' if len(keys) > 8 else ''}{deeper}"
    if isinstance(content, list | tuple):
        return f"a {type(content).__name__} of {len(content)} ({', '.join(kind(value) for value in content[:14])})"
    return f"an array of shape {content.shape}" if isinstance(content, np.ndarray) else f"a {type(content).__name__}"


def compare(pack: Pack, table: pd.DataFrame, source: Path) -> dict[str, Any]:
    """Say how the pack and the table agree; return what spec.json keeps of it.

    Raises:
        Misuse: too few of its utterances are in the table, or say there what the table says.
    """
    row = {utterance: i for i, utterance in enumerate(table["id"])}
    placed = [(i, row[utterance]) for i, utterance in enumerate(pack.ids) if utterance]
    repeated = [utterance for utterance, count in Counter(filter(None, pack.ids)).items() if count > 1]
    if repeated:
        raise Misuse(f"{source} holds {len(repeated):,} utterances more than once (first: {repeated[0]!r})")
    if not placed or len(placed) < AGREE * len(pack.ids):
        raise Misuse(
            f"{source} ({pack.origin}) has {len(pack.ids):,} utterances, of which {len(placed):,} are found in the "
            f"table, whose ids look like {table['id'].iloc[0]!r}: it is of another corpus, or the table is not whole"
        )
    for what, mine, theirs in (
        ("sentences", [letters(text) for text in pack.sentences], [letters(text) for text in table["text"]]),
        ("labels", pack.labels, list(table["emotion"])),
    ):
        if not mine:
            continue
        differ = Counter((theirs[j], mine[i]) for i, j in placed if mine[i] != theirs[j])
        if differ.total() > (1 - AGREE) * len(placed) and (what == "sentences" or not pack.sentences):
            raise Misuse(
                f"{source} ({pack.origin}): {differ.total():,} of {len(placed):,} {what} are not the table's in their "
                "place, so the order of its utterances is not known; nothing was imported"
            )
        changes = ", ".join(f"{n:,} {a} -> {b}" for (a, b), n in differ.most_common(5)) if what == "labels" else ""
        more = f" ({changes}{', ...' if len(differ) > 5 else ''})" if changes else ""
        click.echo(f"{what}: {differ.total():,} of {len(placed):,} differ from the table's{more}; the table's are kept")
    column = "split" if (table["split"] != "").any() else "session"
    split: dict[str, dict[str, int]] = {}
    for i, j in placed:
        part = split.setdefault(pack.split[i] or "none", {})
        part[str(table[column].iloc[j])] = part.get(str(table[column].iloc[j]), 0) + 1
    shown = "; ".join(
        f"{name}: {', '.join(f'{n:,} of {column} {other}' for other, n in sorted(part.items()))}"
        for name, part in split.items()
    )
    click.echo(f"{pack.origin}: {len(placed):,} of {len(pack.ids):,} utterances placed; its split is {shown}")
    return {"utterances": len(pack.ids), "placed": len(placed), "split": split}


def finite(frames: FloatArray) -> tuple[FloatArray, int]:
    """Zeros for what is not finite, as in the -inf of COVAREP, and how many values that were."""
    bad: npt.NDArray[np.bool_] = ~np.isfinite(frames)
    return (np.where(bad, np.float32(0), frames), int(bad.sum())) if bad.any() else (frames, 0)


def import_pack(corpus: Path, source: Path, *, name: str = "", force: bool = False) -> list[FeatureSpec]:
    """Store every kind of features that a pack holds, as the sets ``<name>-text``, ``<name>-audio`` ...

    Of an IEMOCAP pack the six-class labels are kept too, where ``labels_six_community.csv`` does not exist.

    Args:
        corpus: Folder of the utterance table.
        source: The pickle.
        name: What the sets' names begin with; the file's name by default.
        force: Import even if it is done.

    Raises:
        Misuse: the pack is unsafe, not recognised, or does not fit the table.
    """
    table = read_table(corpus)
    ids = list(table["id"])
    name = name or re.sub(r"[^a-z0-9]+", "-", source.stem.lower()).strip("-")
    pack = recognise(source, table)
    kept = compare(pack, table, source)
    specs = []
    for place, rows in pack.features.items():
        repaired = [finite(frames) for frames in rows]
        zeroed = sum(count for _, count in repaired)
        if zeroed:
            click.echo(f"{name}-{place}: {zeroed:,} values that are not finite became 0")
        frames_of = {utterance: frames for utterance, (frames, _) in zip(pack.ids, repaired, strict=True) if utterance}
        if not any(map(len, frames_of.values())):
            click.echo(f"{name}-{place}: skipped, the pack holds nothing there")
            continue
        recipe = Recipe(
            name=f"{name}-{place}",
            modality=place.rstrip("234"),
            extractor=f"{pack.origin} pack",
            revision=sha256(source),
            layer=place,
            settings={**kept, "zeroed": zeroed},
        )
        specs.append(store(corpus, recipe, partial(in_order, frames_of, ids), ids=ids, force=force))
    six = {i: label for i, label in zip(pack.ids, pack.labels, strict=False) if i and label in iemocap.COMMUNITY}
    if len(six) == iemocap.COMMUNITY_ROWS and not (corpus / iemocap.COMMUNITY_FILE).exists():
        iemocap.write_labels(corpus, table, six)
    return specs


def in_order(frames_of: Mapping[str, FloatArray], ids: Sequence[str]) -> Iterable[FloatArray]:
    """The frames of each id, or none."""
    return (frames_of.get(utterance, EMPTY) for utterance in ids)


@click.command("pack", cls=Command)
@table_option
@click.option(
    "--source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The pickle: of DialogueRNN, MMGCN, M3Net, GraphSmile, COSMIC, MulT or MMSA.",
)
@click.option("--name", default="", help="What the new sets' names begin with [default: the file's name].")
@force_option
def main(table: Path, source: Path, name: str, force: bool) -> None:
    """A paper's feature pickle: one set for each modality in it."""
    import_pack(table, source, name=name, force=force)


if __name__ == "__main__":
    main()
