"""Every audio extractor by name, and the commands that run them: ``python -m data_prep audio NAME``."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import click

from data_prep.cli import Command, force_option, raw_option, strict_option, table_option, workers_option
from data_prep.corpora.clips import audio_clips, media_folder
from data_prep.extract import Extractor, extract
from data_prep.extractors.egemaps import LEVELS, egemaps
from data_prep.extractors.logmel import logmel
from data_prep.extractors.media import provenance
from data_prep.extractors.mfcc import mfcc, mfcc13
from data_prep.extractors.speech import POOLINGS, speech
from mer_bench.errors import unknown
from mer_bench.features import FeatureSpec

#: Each takes the media's provenance and options of its own.
AUDIO: dict[str, Callable[..., Extractor]] = {
    "mfcc": mfcc,
    "mfcc13": mfcc13,
    "logmel": logmel,
    "egemaps": egemaps,
    "speech": speech,
}

#: What the command line says of those options; their defaults stand in the signatures.
OPTIONS: dict[str, dict[str, Any]] = {
    "backend": {"type": click.Choice(["torchaudio", "librosa"])},
    "mels": {"type": click.IntRange(min=1), "help": "Mel bands, such as 64 or 80."},
    "level": {"type": click.Choice(list(LEVELS)), "help": "One vector an utterance, or 25 descriptors every 10 ms."},
    "model": {"help": "A Hugging Face name such as facebook/wav2vec2-base, or a folder that holds a model."},
    "layer": {"help": "last, the number of a transformer layer (0: its input), or mean of all."},
    "pooling": {"type": click.Choice(POOLINGS), "help": "The sequence, or one vector an utterance."},
    "download": {"is_flag": True, "help": "Let the model come from the Hugging Face hub."},
}


def extract_audio(
    corpus: Path, raw: Path, name: str, *, workers: int = 0, strict: bool = False, force: bool = False, **options: Any
) -> FeatureSpec:
    """Store what the audio extractor ``name`` makes of a prepared corpus.

    Args:
        corpus: Folder of the utterance table.
        raw: What the ``media`` column is relative to, see :func:`data_prep.corpora.clips.media_folder`.
        name: A key of :data:`AUDIO`.
        workers: See :func:`data_prep.extract.extract`; likewise the next two.
        strict: Complain about utterances without audio.
        force: Extract even if it is done.
        options: The extractor's own.

    Raises:
        Misuse: there is no such extractor, or its options are wrong.
    """
    if name not in AUDIO:
        raise unknown("audio extractor", name, AUDIO)
    clips = audio_clips(corpus, raw)
    extractor = AUDIO[name](provenance(clips, raw), **options)
    return extract(corpus, extractor, clips, workers=workers, strict=strict, force=force)


def extract_mfcc(corpus: Path, raw: Path, **options: Any) -> FeatureSpec:
    """Store the set ``mfcc``, which every corpus with audio gets; options as for :func:`extract_audio`."""
    return extract_audio(corpus, raw, "mfcc", **options)


@click.group("audio")
def audio_command() -> None:
    """Add audio features to a prepared corpus; RAW is what make data was given."""


def _command(name: str, function: Callable[..., Extractor]) -> click.Command:
    """The command of one extractor; its options are the function's keyword arguments."""

    def run(table: Path, raw: Path, **options: Any) -> None:
        extract_audio(table, media_folder(table, raw), name, **options)

    options = [table_option, raw_option]
    for parameter in signature(function).parameters.values():
        if parameter.kind is Parameter.KEYWORD_ONLY:
            required = parameter.default is Parameter.empty
            default = {"required": True} if required else {"default": parameter.default, "show_default": True}
            options.append(click.option(f"--{parameter.name}", **default, **OPTIONS[parameter.name]))
    for option in reversed([*options, workers_option, strict_option, force_option]):
        run = option(run)
    return click.command(name, cls=Command, help=(function.__doc__ or "").split("\n\n")[0])(run)


for name, function in AUDIO.items():
    audio_command.add_command(_command(name, function))
