"""All audio extractors by name, and the commands that run them: ``python -m data_prep audio NAME``."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import click

from data_prep.cli import Command, raw_option, run_options, table_option
from data_prep.corpora.clips import audio_clips, media_folder
from data_prep.extract import Extractor, extract
from data_prep.extractors.egemaps import LEVELS, egemaps
from data_prep.extractors.logmel import logmel
from data_prep.extractors.media import provenance
from data_prep.extractors.mfcc import mfcc, mfcc13
from data_prep.extractors.speech import POOLINGS, speech, whisper
from mer_bench.errors import unknown
from mer_bench.features import FeatureSpec

#: Each function takes the provenance of the media files and the extractor's own options as keyword arguments.
AUDIO: dict[str, Callable[..., Extractor]] = {
    "mfcc": mfcc,
    "mfcc13": mfcc13,
    "logmel": logmel,
    "egemaps": egemaps,
    "speech": speech,
    "whisper": whisper,
}

#: Types and help texts of these options on the command line; their defaults are those of the functions.
OPTIONS: dict[str, dict[str, Any]] = {
    "backend": {"type": click.Choice(["torchaudio", "librosa"])},
    "mels": {"type": click.IntRange(min=1), "help": "Mel bands, such as 64 or 80."},
    "level": {"type": click.Choice(list(LEVELS)), "help": "One vector per utterance, or 25 descriptors every 10 ms."},
    "model": {"help": "A Hugging Face name such as facebook/wav2vec2-base, or a folder that contains a model."},
    "layer": {"help": "last, the number of a transformer layer (0: its input), or (speech) mean of all layers."},
    "pooling": {
        "type": click.Choice(POOLINGS),
        "help": "The sequence of frames, or their mean: one vector per utterance.",
    },
    "average": {"type": click.IntRange(min=1), "help": "Consecutive frames, of 50 per second, averaged into one."},
    "download": {"is_flag": True, "help": "Allow the download of the model from the Hugging Face hub."},
}


def extract_audio(
    corpus: Path, raw: Path, name: str, *, workers: int = 0, strict: bool = False, force: bool = False, **options: Any
) -> FeatureSpec:
    """Store the features that the audio extractor ``name`` computes for a prepared corpus.

    Args:
        corpus: Folder of the utterance table.
        raw: Folder to which the column ``media`` is relative, see :func:`data_prep.corpora.clips.media_folder`.
        name: A key of :data:`AUDIO`.
        workers: Number of processes that decode, see :func:`data_prep.extract.extract`.
        strict: Whether to raise an error if some utterances have no readable audio.
        force: Whether to compute the set even if it is up to date.
        **options: The extractor's own options.

    Raises:
        Misuse: there is no such extractor, or its options are wrong.
    """
    if name not in AUDIO:
        raise unknown("audio extractor", name, AUDIO)
    clips = audio_clips(corpus, raw)
    extractor = AUDIO[name](provenance(clips, raw), **options)
    return extract(corpus, extractor, clips, workers=workers, strict=strict, force=force)


@click.group("audio")
def audio_command() -> None:
    """Add audio features to a prepared corpus; RAW is the folder that it was prepared from."""


def _command(name: str, function: Callable[..., Extractor]) -> click.Command:
    """The command of one extractor; its options are the keyword arguments of ``function``."""

    def run(table: Path, raw: Path, **options: Any) -> None:
        extract_audio(table, media_folder(table, raw), name, **options)

    options = [table_option, raw_option]
    for parameter in signature(function).parameters.values():
        if parameter.kind is Parameter.KEYWORD_ONLY:
            required = parameter.default is Parameter.empty
            default = {"required": True} if required else {"default": parameter.default, "show_default": True}
            options.append(click.option(f"--{parameter.name}", **default, **OPTIONS[parameter.name]))
    for option in reversed([*options, run_options]):
        run = option(run)
    return click.command(name, cls=Command, help=(function.__doc__ or "").split("\n\n")[0])(run)


for name, function in AUDIO.items():
    audio_command.add_command(_command(name, function))
