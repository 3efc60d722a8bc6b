"""docs/datasets.md: a card for each real corpus and for each of its feature sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from data_prep.corpora.meld import DEFECTS
from data_prep.prepare.presets import MODELS
from mer_bench.datasets import DATASETS
from mer_bench.exposure import KINDS
from mer_bench.report.formatting import markdown, percent
from mer_bench.report.measured import NEARLY, WORDS, all_measured
from website.corpora import CARDS, SETS
from website.counts import counts

INTRODUCTION = f"""\
# Datasets and features

A card for each corpus: what it is, how one obtains it, its label sets, its splits with counts, known problems, and its
feature sets as they were prepared here. This page is generated: texts and protocols from the code, counts
from the prepared corpora. No content of a corpus comes with mer_bench.

[Preparing the corpora](preparing.md) says how to prepare a corpus, [Protocol](protocol.md) how scores are computed, and
[Simulated corpora](simulated.md) describes those that are generated. A trained model that is kept in a folder has a
model card of its own: see [Your trained model](your_model.md).

**Exposure** says what the extractor of a feature set was trained on, as far as is known. It is one
of these: {"; ".join(KINDS.values())}. Features whose extractor saw labels have tables of their own.
"""


def page() -> str:
    """The whole page."""
    sections = [_section(name) for name in CARDS]
    return "\n".join([INTRODUCTION, *sections, _sets()])


def _section(name: str) -> str:
    card, corpus, found = CARDS[name], DATASETS[name], counts()[name]
    facts = [
        ("Size", _size(found)),
        ("Modalities of the release", ", ".join(corpus.modalities)),
        ("Licence", corpus.licence),
        ("Obtain it", card.obtain),
        ("Paper", card.cite),
        ("Structure of the prepared files", f"[Croissant metadata](croissant/{name}.json), without content"),
    ]
    lines = [f"## {card.title}\n", f"{card.text}\n", markdown([("About", card.title), *facts], "<<")]
    lines += [f"### Label sets of {card.title}\n", *_label_sets(found)]
    lines += [f"### Splits of {card.title}\n", *_splits(name, found)]
    lines += [f"### Known problems of {card.title}\n", "\n".join(f"- {each}" for each in _problems(name)) + "\n"]
    lines += [f"### Feature sets of {card.title}\n", _features(found["features"])]
    return "\n".join(lines)


def _size(found: dict[str, Any]) -> str:
    dialogues = f" in {found['dialogues']:,} dialogues" if found["dialogues"] < found["utterances"] else ""
    return f"{found['utterances']:,} utterances{dialogues} of {found['speakers']:,} speakers"


def _label_sets(found: dict[str, Any]) -> Iterator[str]:
    rows = [("Label set", "Utterances", "Classes")]
    for number, (label_set, its) in enumerate(found["label_sets"].items()):
        classes = ", ".join(f"{each} {count:,}" for each, count in its["classes"].items())
        rows.append((f"`{label_set}`{' (default)' * (not number)}", f"{sum(its['classes'].values()):,}", classes))
    yield markdown(rows, "<><")


def _splits(name: str, found: dict[str, Any]) -> Iterator[str]:
    protocols = DATASETS[name].protocols
    for number, (protocol, facts) in enumerate(protocols.items()):
        folds = "one fold" if facts.folds == 1 else f"{facts.folds} folds"
        text = facts.text[:1].upper() + facts.text[1:]
        yield f"- `{protocol}`{' (default)' * (not number)}, {folds}, {facts.clusters} resampled: {text.rstrip('.')}."
    yield ""
    yield "Utterances of each fold; – means that the protocol has no validation.\n"
    rows: list[tuple[str, ...]] = [("Label set", "Protocol", "Fold", "Train", "Validation", "Test")]
    for label_set, its in found["label_sets"].items():
        for protocol, sizes in its["folds"].items():
            for fold, numbers in _grouped(sizes):
                rows.append(
                    (f"`{label_set}`", f"`{protocol}`", fold, *(f"{each:,}" if each else "–" for each in numbers))
                )
    yield markdown(rows, "<<<>>>")


def _grouped(sizes: Sequence[Sequence[int]]) -> Iterator[tuple[str, Sequence[int]]]:
    """Folds and their sizes; all in one line where they are equal."""
    if len(sizes) > 1 and len({tuple(each) for each in sizes}) == 1:
        yield f"each of {len(sizes)}", sizes[0]
    else:
        yield from ((str(fold), each) for fold, each in enumerate(sizes, 1))


def _problems(name: str) -> Iterator[str]:
    yield from CARDS[name].problems
    if name == "meld":
        yield f"Defects of single clips: {'; '.join(f'`{clip}`: {what}' for clip, what in DEFECTS.items())}."
    headline = next(iter(DATASETS[name].label_sets))
    for (dataset, label_set, protocol), found in all_measured().items():
        if (dataset, label_set) != (name, headline):
            continue
        for scene, texts in found.texts.items():
            scripts = "" if scene == "all" else f" of {scene} dialogues"
            yield (
                f"`{label_set}`, `{protocol}`: of {texts.texts:,} test sentences{scripts} with at least {WORDS} words, "
                f"{percent(texts.identical / texts.texts)} stand word for word in training, and "
                f"{percent(texts.nearly / texts.texts)} share at least {percent(NEARLY)} of the words with one there."
            )


def _features(found: dict[str, Any]) -> str:
    rows = [("Set", "Modality", "Extractor", "Layer", "Frames", "Columns", "Missing", "Exposure")]
    for name, its in found.items():
        kind, source = its["exposure"]
        rate = f"{its['frame_rate']:g} per second" if its["frame_rate"] else f"{its['per_utterance']:g} per utterance"
        weights = f", {its['extractor_parameters']:,} frozen parameters" if its["extractor_parameters"] else ""
        extractor = f"{its['extractor']} ({its['revision']}){weights}"
        layer = "–" if its["layer"] in ("", its["extractor"]) else its["layer"]
        rows.append(
            (
                f"[`{name}`](#{name})", its["modality"], extractor, layer, rate, f"{its['dim']}",
                f"{its['missing']:,}", f"{KINDS[kind]}: {source}",
            )
        )  # fmt: skip
    return markdown(rows, "<<<<<>><")


def _sets() -> str:
    lines = [
        "## The feature sets\n",
        "What a set holds, which command makes it, and the licence of its extractor. The licence of the corpus holds "
        "for its features as well.\n",
    ]
    for name, card in SETS.items():
        where = ", ".join(CARDS[corpus].title for corpus in CARDS if name in counts()[corpus]["features"])
        lines.append(
            f"### {name}\n\n{card.content}\n\n- Of: {where}\n- Made by: {card.made_by}\n- Licence: {card.licence}\n"
        )
    models = ", ".join(f"`{address}`" for address in MODELS.values())
    lines.append(
        f"The presets `light` and `standard` extract sets with {models}. What `standard` makes was not run here, and "
        "no record uses it. [Data preparation](../data_prep/README.md) lists every extractor with its options.\n"
    )
    return "\n".join(lines)
