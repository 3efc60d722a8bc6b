"""Import of the feature packs that papers publish: pickles that are recognised by their structure.

Three families are supported. Tuples of dictionaries over dialogues, used by DialogueRNN (Majumder et al., AAAI 2019),
MMGCN, M3Net and GraphSmile for IEMOCAP and MELD. Tuples of RoBERTa vectors, used by COSMIC (Ghosal et al., Findings of
EMNLP 2020) for the same corpora. Dictionaries over splits of padded arrays, word-aligned or not, used by MulT (Tsai et
al., ACL 2019) and MMSA (Mao et al., ACL 2022), for any corpus whose ids they contain.

Utterances are matched with the table by their id, by the number of their dialogue, or by their sentences. An utterance
that cannot be matched is omitted and counted. A pack that largely contradicts the table is refused.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd

from data_prep.cli import FILE, Command, force_option, name_option, table_option
from data_prep.corpora import iemocap
from data_prep.corpora.base import report_reasons, split_of
from data_prep.extract import EMPTY, FloatArray, Recipe, store
from data_prep.imports.arrays import zero_not_finite
from data_prep.imports.unpickle import read_pickle
from mer_bench.errors import Misuse
from mer_bench.features import FeatureSpec
from mer_bench.files import sha256
from mer_bench.modalities import MODALITIES
from mer_bench.schema import check_name
from mer_bench.utterances import read_table

#: fields of each known tuple; text2 to text4 are the layers of RoBERTa below its last
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
#: possible contents of a field, in the words of :func:`content_type`; fields that are not listed contain vectors
CONTENT_TYPES = {
    "ids": ("words", "numbers"),
    "speakers": ("words", "numbers", "vectors"),
    "labels": ("numbers",),
    "sentiments": ("numbers",),
    "sentences": ("words",),
    "train": ("a list",),
    "test": ("a list",),
    "valid": ("a list",),
}
LISTS = ("train", "valid", "test")  #: fields that list the dialogues of a split
MELD_LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
#: number that a pack gives to dialogue 0 of each split, in descending order
MELD_FIRST = {"test": 1153, "validation": 1039, "train": 0}
MIN_AGREEMENT = 0.9  #: fraction of a pack that must be found in the table and agree with it


@dataclass(frozen=True)
class Pack:
    """Content of a pack, one item per utterance in the order of the pack; all lists have the same length."""

    origin: str
    ids: list[str]  #: ids of the table; "" for an utterance that the table lacks
    features: dict[str, list[FloatArray]]  #: by field (text, text2, audio ...), each [time, dim]
    split: list[str]
    labels: list[str] = field(default_factory=list)  #: names as in the table; [] if the pack has other labels
    sentences: list[str] = field(default_factory=list)  #: [] if the pack has none


# --- tuples over dialogues --------------------------------------------------------------------------------------------


def as_text(value: Any, depth: int = 6, seen: dict[int, Any] | None = None) -> Any:
    """``value`` with all byte strings in its containers decoded: Python 2 wrote them for text, keys included.

    Raises:
        ValueError: two keys of a dictionary are then equal.
    """
    seen = {} if seen is None else seen
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if not depth or not isinstance(value, Mapping | list | tuple | set | frozenset | np.ndarray):
        return value
    if id(value) not in seen:  # a pickle can hold one object in many places
        seen[id(value)] = value
        found: Any
        if isinstance(value, np.ndarray):
            found = np.char.decode(value, "latin-1") if value.dtype.kind == "S" and value.dtype.itemsize else value
            if value.dtype.hasobject:
                items = np.empty(value.size, object)
                for i, item in enumerate(value.flat):  # one by one, because numpy would join items that are arrays
                    items[i] = as_text(item, depth - 1, seen)
                found = items.reshape(value.shape)
        elif isinstance(value, Mapping):
            pairs = [(as_text(key, depth - 1, seen), as_text(item, depth - 1, seen)) for key, item in value.items()]
            found = dict(pairs)
            if len(found) != len(pairs):
                raise ValueError("a key occurs as text and as bytes")
        elif isinstance(value, list | tuple) and value and isinstance(value[0], int | float):
            found = value  # a vector
        else:
            found = [as_text(item, depth - 1, seen) for item in value]
        seen[id(value)] = found
    return seen[id(value)]


def content_type(value: Any) -> str:
    """Content of one field of a tuple: words, numbers or vectors per dialogue, a list, or the name of its type."""
    if not isinstance(value, Mapping):
        return "a list" if isinstance(value, list | tuple | set | frozenset | np.ndarray) else type(value).__name__
    filled = (item for items in value.values() if isinstance(items, list | tuple | np.ndarray) for item in items)
    first = next((item for item in filled if item is not None), None)
    if isinstance(first, str):
        return "words"
    if isinstance(first, int | float | np.number):
        return "numbers"
    return "vectors" if isinstance(first, list | tuple | np.ndarray) else "a dictionary"


def layout(content: Sequence[Any]) -> str:
    """The name in ``LAYOUTS`` of a tuple; "" if it has none of these structures."""
    types = [content_type(value) for value in content]
    for name, fields in LAYOUTS.items():
        names = fields.split()
        if len(names) == len(types) and all(
            field_name == "other" or found in CONTENT_TYPES.get(field_name, ("vectors",))
            for field_name, found in zip(names, types, strict=True)
        ):
            return name
    return ""


def letters_and_digits(sentence: str) -> str:
    """The ASCII letters and digits of a sentence in lower case, which do not depend on its encoding."""
    return re.sub("[^a-z0-9]", "", str(sentence).lower())


def iemocap_ids(rows: pd.DataFrame, fields: Mapping[str, Any], dialogue: Any) -> list[str]:
    """The table's id of each utterance of one dialogue: the id in the pack, or else by speaker and sentence.

    COSMIC's packs have no ids, lack utterances and are not in chronological order. If a speaker says a sentence equally
    often in the pack and in the table, its occurrences are matched in order. If the table contains it more often, only
    utterances with one of the six emotions are considered. Otherwise the sentence is not matched. This matches all
    7,433 utterances of the usual packs.
    """
    if "ids" in fields:
        known = set(rows["id"])
        return [str(i) if str(i) in known else "" for i in fields["ids"][dialogue]]
    positions_in_pack: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, (speaker, text) in enumerate(zip(fields["speakers"][dialogue], fields["sentences"][dialogue], strict=True)):
        positions_in_pack[str(speaker), letters_and_digits(text)].append(i)
    in_table: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for utterance, speaker, text, emotion in zip(*(rows[c] for c in ("id", "speaker", "text", "emotion")), strict=True):
        in_table[speaker[-1], letters_and_digits(text)].append((utterance, emotion))
    found = [""] * len(fields["labels"][dialogue])
    for key, positions in positions_in_pack.items():
        candidates = [utterance for utterance, _ in in_table[key]]
        if len(candidates) != len(positions):
            candidates = [utterance for utterance, emotion in in_table[key] if emotion in iemocap.COMMUNITY]
        if len(candidates) == len(positions):
            for position, utterance in zip(positions, candidates, strict=True):
                found[position] = utterance
    return found


def meld_ids(rows: pd.DataFrame, fields: Mapping[str, Any], dialogue: Any) -> list[str]:
    """The table's id of each utterance of one dialogue: by number if the table has all numbers, or else by order.

    Some packs number the utterances as the CSVs do, with gaps, others consecutively from 0. If the lengths of the
    dialogue in the pack and in the table differ, no utterance is matched.
    """
    size = len(fields["labels"][dialogue])
    if "ids" in fields:
        numbered = [f"{rows['dialogue'].iloc[0]}_utt{number}" for number in fields["ids"][dialogue]]
        if len(numbered) == size and set(numbered) <= set(rows["id"]):
            return numbered
    return list(rows["id"]) if len(rows) == size else [""] * size


def meld_dialogue(number: int) -> str:
    """The table's name of dialogue ``number`` of a pack, which numbers train, validation and test consecutively."""
    split = next(split for split, first in MELD_FIRST.items() if number >= first)
    return f"{split}_dia{number - MELD_FIRST[split]}"


def numbers(value: Any) -> FloatArray:
    """Real numbers in single precision; those that do not fit become infinite.

    Raises:
        ValueError: there is anything else in ``value``, such as text.
    """
    found = np.asarray(value)
    if found.dtype.kind not in "biufO":
        raise ValueError(f"an array has the type {found.dtype}, expected real numbers")
    with np.errstate(over="ignore"):
        return found.astype(np.float32)


def vectors(value: Any) -> list[FloatArray]:
    """One array [1, dim] per utterance of a dialogue."""
    return [numbers(row).reshape(1, -1) for row in value]


def label_name(label: Any, names: Sequence[str]) -> str:
    """The name of class number ``label``; "" for None and NaN, which stand for a missing label."""
    if label is None or label != label:
        return ""
    return names[int(label)] if label in range(len(names)) else f"label {label}"


def read_dialogues(content: Sequence[Any], name: str, table: pd.DataFrame) -> Pack:
    """Read a tuple with the layout ``name``."""
    fields: dict[str, Any] = dict(zip(LAYOUTS[name].split(), content, strict=True))
    features = [field_name for field_name in fields if field_name.rstrip("234") in MODALITIES]
    splits: dict[Any, list[str]] = defaultdict(list)
    for listed in LISTS:
        for key in dict.fromkeys(fields.get(listed, ())):
            splits[key].append(split_of(listed))
    by_dialogue = dict(iter(table.groupby("dialogue", sort=False)))
    parts = ["labels", *features, "sentences"]
    # a dialogue that any part contains is counted, even if another part lacks it
    keys = dict.fromkeys(key for part in parts for key in fields[part])
    numbered = all(str(key).isdecimal() for key in keys)
    match, names = (meld_ids, MELD_LABELS) if numbered else (iemocap_ids, iemocap.COMMUNITY)
    pack = Pack(name, [], {field_name: [] for field_name in features}, [], [], [])
    inconsistent: list[tuple[str, str]] = []
    for key in keys:
        dialogue = meld_dialogue(int(key)) if numbered else str(key)
        lengths = {part: len(fields[part].get(key, ())) for part in parts}
        size = max(lengths.values())
        ids = [""] * size
        whole = set(lengths.values()) == {size}
        if not whole:
            sizes = ", ".join(f"{length} {part}" for part, length in lengths.items())
            inconsistent.append((dialogue, f"its parts differ in length ({sizes})"))
        elif size and dialogue in by_dialogue:
            ids = match(by_dialogue[dialogue], fields, key)
            if len(ids) != size:
                raise ValueError(f"{dialogue} has {len(ids)} ids for {size} utterances")
        for part in features:
            pack.features[part].extend(vectors(fields[part][key]) if whole else [EMPTY] * size)
        pack.ids.extend(ids)
        pack.split.extend([" and ".join(splits.get(key, ()))] * size)
        pack.labels.extend([label_name(i, names) for i in fields["labels"][key]] if whole else [""] * size)
        pack.sentences.extend(map(str, fields["sentences"][key]) if whole else [""] * size)
    report_reasons("pack", inconsistent, what="no features from it for", unit="dialogues")
    return pack


# --- dictionaries over splits -----------------------------------------------------------------------------------------


def axis_count(value: Any) -> int:
    """Number of axes of an array, or of a list of arrays; 0 for anything else."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.ndim
    first = value[0] if isinstance(value, list | tuple | np.ndarray) and len(value) else None
    return 1 + first.ndim if isinstance(first, np.ndarray) else 0


def has_modality(part: Any) -> bool:
    """Whether ``part`` is a dictionary with the features of at least one modality."""
    return isinstance(part, Mapping) and any(axis_count(part.get(name)) in (2, 3) for name in MODALITIES)


def is_split_dictionary(content: Any) -> bool:
    """Whether ``content`` has the form ``{"train": {"text": [utterance, time, dim], ...}, "test": ...}``."""
    if not isinstance(content, Mapping):
        return False
    parts = [part for name, part in content.items() if split_of(name)]
    return bool(parts) and all(map(has_modality, parts))


def id_forms(identity: Any, split: str) -> list[str]:
    """Forms that a pack's id may have in the table: unchanged, dialogue and clip joined, or with the split's name."""
    raw = np.ravel(np.asarray(identity)).tolist()
    parts = [part.decode("latin-1") if isinstance(part, bytes) else str(part) for part in raw]
    joined = "_".join(part for text in parts for part in text.split("$_$"))
    return ["".join(parts), joined, f"{split}_{joined}"]


def whole_length(length: Any) -> int:
    """A length that a pack states, which may be more than the frames that are left of a longer utterance.

    Raises:
        ValueError: it is no whole number from 0 on.
    """
    if not length >= 0 or int(length) != length:
        raise ValueError(f"an utterance has the length {length}")
    return int(length)


def unpadded(frames: Mapping[str, FloatArray], stated: Mapping[str, int], aligned: bool) -> dict[str, FloatArray]:
    """The frames [time, dim] of one utterance without its padding, by modality.

    Frames after the length that the pack states are padding. If it states none, frames of zeros before the first and
    after the last other frame are padding. In an aligned pack, all modalities keep the span that any of them fills.
    """
    spans: dict[str, tuple[int, int]] = {}
    for name, values in frames.items():
        filled = np.flatnonzero((values != 0).any(axis=1))
        first_last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
        spans[name] = (0, stated[name]) if name in stated else first_last
    full = [(a, b) for a, b in spans.values() if b > a]
    if aligned and full:
        union = min(a for a, _ in full), max(b for _, b in full)
        spans = {name: union if b > a else (0, 0) for name, (a, b) in spans.items()}
    return {name: values[slice(*spans[name])] for name, values in frames.items()}


def read_splits(content: Mapping[str, Any], table: pd.DataFrame, source: Path) -> Pack:
    """Read a dictionary over splits.

    Raises:
        Misuse: a split has no ids, or a number of ids that differs from the length of its arrays; or one part is no
            split, or there are two of one split.
    """
    known, emotions = set(table["id"]), {str(emotion).lower(): str(emotion) for emotion in table["emotion"]}
    parts = {name: part for name, part in content.items() if split_of(name)}
    for name, part in content.items():
        same = [str(other) for other in parts if split_of(other) == split_of(name)]
        if has_modality(part) and len(same) != 1:
            reason = f"{' and '.join(same)} are one split" if same else f"{name!r} is not train, validation or test"
            raise Misuse(f"{source} cannot be imported without loss: {reason}; rename or join its parts")
    arrays = dict.fromkeys(key for part in parts.values() for key, value in part.items() if axis_count(value) == 3)
    modalities = [name for name in MODALITIES if all(axis_count(part.get(name)) in (2, 3) for part in parts.values())]
    widths = {len(part[name][0]) for part in parts.values() for name in modalities if len(part[name])}
    lengths = {name: f"{name}_lengths" for name in modalities}
    has_lengths = any(name in part for name in lengths.values() for part in parts.values())
    aligned = len(modalities) > 1 and len(widths) == 1 and not has_lengths
    unused = [str(key) for key in arrays if key not in modalities and key != "text_bert"]
    if unused:
        click.echo(f"left out {', '.join(unused)}: a modality is called text, audio or vision and is in every split")
    pack = Pack("MMSA or MulT, " + ("aligned" if aligned else "not aligned"), [], {name: [] for name in modalities}, [])
    labels: list[str] = []
    for split, part in parts.items():
        if "id" not in part:
            raise Misuse(
                f"{source} has no utterance ids ('id') in {split!r}, like MulT's IEMOCAP pack of 2,717, 798 and 938 "
                "clips; since it is not published which utterances they are, they cannot be found in the table"
            )
        size, masks = len(part["id"]), part.get("text_bert", ())
        for name in [*modalities, *(name for name in lengths.values() if name in part)]:
            if len(part[name]) != size:
                raise Misuse(f"{source}: {split!r} has {size:,} ids but {len(part[name]):,} of {name}")
        for i, identity in enumerate(part["id"]):
            frames = {name: numbers(part[name][i]) for name in modalities}
            stated = {name: whole_length(part[lengths[name]][i]) for name in modalities if lengths[name] in part}
            if len(masks) == size and np.ndim(masks[i]) == 2:  # token numbers, attention mask, segments
                mask = masks[i][1]
                masked = [n for n in modalities if len(frames[n]) == len(mask) and (aligned or n == "text")]
                stated |= dict.fromkeys(masked, int(np.sum(mask)))
            stated |= {name: 1 for name in modalities if frames[name].ndim == 1}
            rows = {name: np.atleast_2d(values) for name, values in frames.items()}
            for name, values in unpadded(rows, stated, aligned).items():
                pack.features[name].append(values if values.size else EMPTY)
            pack.ids.append(next((form for form in id_forms(identity, split_of(split)) if form in known), ""))
        pack.split.extend([split_of(split)] * size)
        pack.sentences.extend(map(str, part.get("raw_text", ())))
        labels.extend("" if label is None else str(label).lower() for label in part.get("annotations", ()))
    if len(labels) == len(pack.ids) and any(labels) and all(label in emotions for label in filter(None, labels)):
        pack.labels.extend(emotions.get(label, "") for label in labels)
    if len(pack.sentences) != len(pack.ids):
        pack.sentences.clear()
    return pack


# --- any pack ---------------------------------------------------------------------------------------------------------


def read_pack(source: Path, table: pd.DataFrame) -> Pack:
    """Read the pack in ``source`` and find its utterances in the table.

    Raises:
        Misuse: the pickle is unsafe, unreadable, or has none of the known structures.
    """
    content, name = read_pickle(source), ""
    try:
        content = as_text(content)
        name = layout(content) if isinstance(content, list | tuple) else ""
        if name:
            return read_dialogues(content, name, table)
        if is_split_dictionary(content):
            return read_splits(content, table, source)
    except (Misuse, MemoryError):
        raise
    except Exception as error:  # a pickle can hold anything in any place
        raise Misuse(
            f"{source} looks like a pack ({name or 'MMSA or MulT'}) but is incomplete: {repr(error)[:300]}"
        ) from error
    expected = [f"{len(fields.split())} ({name}: {fields.replace(' ', ', ')})" for name, fields in LAYOUTS.items()]
    raise Misuse(
        f"{source} is not a known pack: it holds {describe(content)}; expected a tuple of {', or of '.join(expected)}; "
        "or a dictionary over train, valid and test of text, audio, vision and id"
    )


def keys_of(content: Mapping[Any, Any], shown: int = 8) -> str:
    """The first keys of a dictionary, in one line."""
    keys = [" ".join(str(key).split())[:40] for key, _ in zip(content, range(shown), strict=False)]
    return (", ".join(keys) or "nothing") + (", ..." if len(content) > shown else "")


def describe(content: Any) -> str:
    """A short description of the content of an unknown pickle."""
    if isinstance(content, Mapping):
        inner = next((part for part in content.values() if isinstance(part, Mapping)), None)
        deeper = f", the first of them a dictionary of {keys_of(inner)}" if inner else ""
        return f"a dictionary of {keys_of(content)}{deeper}"
    if isinstance(content, list | tuple):
        return (
            f"a {type(content).__name__} of {len(content)} ({', '.join(content_type(value) for value in content[:14])})"
        )
    return f"an array of shape {content.shape}" if isinstance(content, np.ndarray) else f"a {type(content).__name__}"


def compare(pack: Pack, table: pd.DataFrame, source: Path) -> dict[str, Any]:
    """Print how far the pack and the table agree; return the counts that are stored in spec.json.

    Raises:
        Misuse: too few utterances of the pack are in the table, or too few of them agree with it.
    """
    row_of = {utterance: row for row, utterance in enumerate(table["id"])}
    matched = [(i, row_of[utterance]) for i, utterance in enumerate(pack.ids) if utterance]
    repeated = [utterance for utterance, count in Counter(filter(None, pack.ids)).items() if count > 1]
    if repeated:
        raise Misuse(f"{source} holds {len(repeated):,} utterances more than once (first: {repeated[0]!r})")
    if not matched or len(matched) < MIN_AGREEMENT * len(pack.ids):
        raise Misuse(
            f"{source} ({pack.origin}) has {len(pack.ids):,} utterances, of which {len(matched):,} are found in "
            f"the table, whose ids look like {table['id'].iloc[0]!r}: the corpus is another one or the table incomplete"
        )
    for what, in_pack, in_table in (
        ("sentences", list(map(letters_and_digits, pack.sentences)), list(map(letters_and_digits, table["text"]))),
        ("labels", pack.labels, list(table["emotion"])),
    ):
        if not in_pack:
            continue
        lacking = sum(not in_pack[i] for i, _ in matched) if what == "labels" else 0
        differ = Counter(
            (in_table[row], in_pack[i])
            for i, row in matched
            if in_pack[i] != in_table[row] and (in_pack[i] or what == "sentences")
        )
        if differ.total() > (1 - MIN_AGREEMENT) * len(matched) and (what == "sentences" or not pack.sentences):
            raise Misuse(
                f"{source} ({pack.origin}): {differ.total():,} of {len(matched):,} {what} differ from those of the "
                "table, so the order of its utterances is unknown; nothing was imported"
            )
        changes = ", ".join(f"{n:,} {a} -> {b}" for (a, b), n in differ.most_common(5)) if what == "labels" else ""
        more = f" ({changes}{', ...' if len(differ) > 5 else ''})" if changes else ""
        none = f", and {lacking:,} are absent" if lacking else ""
        click.echo(
            f"{what}: {differ.total():,} of {len(matched):,} differ from the table's{more}{none}; the table's are kept"
        )
    column = "split" if (table["split"] != "").any() else "session"
    split: dict[str, dict[str, int]] = {}
    for i, row in matched:
        part, value = split.setdefault(pack.split[i] or "none", {}), str(table[column].iloc[row])
        part[value] = part.get(value, 0) + 1
    shown = "; ".join(
        f"{name}: {', '.join(f'{n:,} of {column} {other}' for other, n in sorted(part.items()))}"
        for name, part in split.items()
    )
    click.echo(
        f"{pack.origin}: {len(matched):,} of {len(pack.ids):,} utterances found in the table; its split is {shown}"
    )
    return {"utterances": len(pack.ids), "placed": len(matched), "split": split}


def import_pack(corpus: Path, source: Path, *, name: str = "", force: bool = False) -> list[FeatureSpec]:
    """Store all features in a pack as the sets ``<name>-text``, ``<name>-audio`` ...

    The six-class labels of an IEMOCAP pack are stored as well if ``labels_six_community.csv`` does not exist.

    Args:
        corpus: Folder of the utterance table.
        source: The pickle.
        name: Prefix of the names of the sets; by default the name of the file.
        force: Whether to import sets that are up to date.

    Raises:
        Misuse: the pack is unsafe, has an unknown structure, or does not fit the table.
    """
    name = name or re.sub(r"[^a-z0-9]+", "-", source.stem.lower()).strip("-")
    check_name(f"{name}-vision", "feature set")  # the longest
    table = read_table(corpus)
    ids = list(table["id"])
    pack = read_pack(source, table)
    counts = compare(pack, table, source)
    for field_name, rows in pack.features.items():  # before the first is stored
        widths = sorted({frames.shape[1] for frames in rows if frames.size})
        if len(widths) > 1:
            raise Misuse(f"{source}: its {field_name} features have several widths ({', '.join(map(str, widths[:5]))})")
    specs = []
    for field_name, rows in pack.features.items():
        finite = [zero_not_finite(frames) for frames in rows]
        zeroed = sum(count for _, count in finite)
        if zeroed:
            click.echo(f"{name}-{field_name}: {zeroed:,} values that are not finite became 0")
        frames_of = {utterance: frames for utterance, (frames, _) in zip(pack.ids, finite, strict=True) if utterance}
        if not any(map(len, frames_of.values())):
            click.echo(f"{name}-{field_name}: skipped, the pack has no such features")
            continue
        recipe = Recipe(
            name=f"{name}-{field_name}",
            modality=field_name.rstrip("234"),
            extractor=f"{pack.origin} pack",
            revision=sha256(source),
            layer=field_name,
            settings={**counts, "zeroed": zeroed},
        )
        sequences = [frames_of.get(utterance, EMPTY) for utterance in ids]
        specs.append(store(corpus, recipe, partial(iter, sequences), ids=ids, force=force))
    six = {i: label for i, label in zip(pack.ids, pack.labels, strict=False) if i and label in iemocap.COMMUNITY}
    if len(six) == iemocap.COMMUNITY_ROWS and not (corpus / iemocap.COMMUNITY_FILE).exists():
        iemocap.write_labels(corpus, table, six)
    return specs


@click.command("pack", cls=Command)
@table_option
@click.option("--source", type=FILE, required=True, help="Pickle in one of the known structures (see README.md).")
@name_option("Prefix of the names of the new sets [default: the name of the file].")
@force_option
def main(table: Path, source: Path, name: str | None, force: bool) -> None:
    """Import the feature pickle of a paper: one set for each modality in it."""
    import_pack(table, source, name=name or "", force=force)
