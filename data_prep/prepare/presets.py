"""The presets of ``--features``: which frozen models, layers and poolings, by corpus.

Each is a list of commands, as they may be given to ``--features`` one by one. Layers and poolings are fixed here, so
that results on a preset can be compared wherever they were made.
"""

from __future__ import annotations

import shlex
from pathlib import Path

#: folder of a model below ``--models``, and the name of the model on the Hugging Face hub
MODELS = {
    "wavlm-large": "microsoft/wavlm-large",
    "clip-vit-large-patch14": "openai/clip-vit-large-patch14",
    "roberta-large": "FacebookAI/roberta-large",
    "all-mpnet-base-v2": "sentence-transformers/all-mpnet-base-v2",
}

_VOICE = "audio speech --model {wavlm-large} --layer 12 --average 4"
_FACE = "vision image --model {clip-vit-large-patch14} --pooling pooler --fps 5"
_TEXT = ("text --encoder {roberta-large} --pooling tokens", "text --encoder {roberta-large} --pooling mean")

#: preset -> corpus -> commands, beside the sets that preparation makes anyway: MFCC, landmarks, GeMAPS, prosody, MiniLM
PRESETS: dict[str, dict[str, tuple[str, ...]]] = {
    "light": {  # minutes on a processor
        "ravdess": (),
        "iemocap": (),
        "meld": ("text --encoder {all-mpnet-base-v2} --pooling mean",),
    },
    "standard": {  # a GPU is advised
        "ravdess": (_VOICE, _FACE),
        "iemocap": (_VOICE, _FACE, *_TEXT),
        "meld": (_VOICE, _FACE, *_TEXT),
    },
}


def commands(preset: str, corpus: str, models: Path | None = None) -> list[str]:
    """The commands of a preset; a model that is not in the folder ``models`` may be downloaded."""
    return [_with_model(line, models) for line in PRESETS[preset][corpus]]


def _with_model(line: str, models: Path | None) -> str:
    name = next(name for name in MODELS if f"{{{name}}}" in line)
    folder = models / name if models else None
    if folder and folder.is_dir():
        return line.replace(f"{{{name}}}", shlex.quote(str(folder)))
    return line.replace(f"{{{name}}}", MODELS[name]) + " --download"
