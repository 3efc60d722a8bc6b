"""Word vectors from a local text file in the format of GloVe or in the text format of word2vec.

Pennington et al., "GloVe: Global Vectors for Word Representation", EMNLP 2014.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import click
import numpy as np

from data_prep.corpora.base import Unreadable
from data_prep.extract import EMPTY, FloatArray, plain_name
from mer_bench.errors import Misuse
from mer_bench.files import sha256

RULE = "words, contractions split as in the Penn Treebank, single marks; as written, else in lower case"
TOKEN = re.compile(r"\w+(?=n't\b)|n't\b|'(?:s|m|re|ve|ll|d)\b|\w+|[^\w\s]", re.IGNORECASE)


def tokens(text: str) -> list[str]:
    """Split a text into words and punctuation marks, as in GloVe's own corpora: ``Don't go.`` gives ``Do n't go .``.

    A sequence of word characters is one token, and so is every other character that is not white space. ``n't``,
    ``'s``, ``'m``, ``'re``, ``'ve``, ``'ll`` and ``'d`` are separate tokens.
    """
    return TOKEN.findall(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


class WordVectors:
    """The vectors of the words in some texts, read from a file of word vectors without loading the whole file.

    The vector of a token is that of its exact spelling, or else of its lower case. A token with neither is omitted.

    Args:
        file: Lines ``word v1 ... vd`` in UTF-8; a first line ``words d``, as word2vec writes it, is skipped.
        texts: All texts that will be encoded.
    """

    def __init__(self, file: Path, texts: Iterable[str]) -> None:
        self.file = file
        self.name, self.short = file.stem, plain_name(file.stem)
        self.counts = Counter(token for text in texts for token in tokens(text))

    @property
    def revision(self) -> str:
        """Sixteen hexadecimal digits of the file's sha256."""
        return sha256(self.file)[:16]

    def parameters(self) -> int:
        """Number of values in the whole file."""
        return self._read[1]

    def vector(self, token: str) -> FloatArray | None:
        """The vector [dim] of a token, or None if it has none."""
        found = self._read[0]
        return found.get(token, found.get(token.lower()))

    @cached_property
    def _read(self) -> tuple[dict[str, FloatArray], int]:
        """(vectors by word, number of values in the file); prints how many tokens have no vector."""
        found, size = read_vectors(self.file, {*self.counts, *(token.lower() for token in self.counts)})
        lacking = Counter({t: n for t, n in self.counts.items() if t not in found and t.lower() not in found})
        if lacking:
            share = 100 * lacking.total() / self.counts.total()
            often = ", ".join(f"{token} {count:,}" for token, count in lacking.most_common(8))
            click.echo(
                f"{self.name}: no vector for {lacking.total():,} of {self.counts.total():,} tokens ({share:.1f} %), "
                f"{len(lacking):,} different ones, omitted: {often}{', ...' if len(lacking) > 8 else ''}",
                err=True,
            )
        return found, size


def read_vectors(file: Path, words: set[str]) -> tuple[dict[str, FloatArray], int]:
    """The vectors [dim] of those ``words`` that ``file`` contains, and the number of values in the whole file.

    Raises:
        Misuse: a line, which the message names by its number, is not a word followed by as many values as the others.
    """
    wanted = {word.encode(): word for word in words}
    found: dict[str, FloatArray] = {}
    dim = lines = 0
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                line = line.rstrip()
                fields = line.count(b" ")
                if not line or (number == 1 and fields == 1):
                    continue  # an empty line, or the header of word2vec
                dim, lines = dim or fields, lines + 1
                if fields < max(dim, 1):
                    raise ValueError(f"line {number:,} holds {fields:,} numbers instead of {max(dim, 1):,}")
                # a few words of the large GloVe files contain spaces: the values are the last dim fields
                word, *values = line.split(b" ", 1) if fields == dim else line.rsplit(b" ", dim)
                known = wanted.get(word)
                if lines > 1 and (known is None or known in found):
                    continue
                vector = _numbers(b" ".join(values))
                if len(vector) != dim or not np.isfinite(vector).all():
                    raise ValueError(f"line {number:,} ({word.decode(errors='replace')}) lacks {dim:,} finite numbers")
                if known is not None:
                    found[known] = vector
    except (OSError, ValueError) as error:
        raise Misuse(f"{file} is not a file of word vectors ('word v1 ... vd'): {error}") from error
    if not found:
        raise Misuse(f"{file} has vectors of {dim} numbers for {lines:,} words, but for none that the transcripts use")
    return found, lines * dim


def _numbers(text: bytes) -> FloatArray:
    """The numbers in ``text``; empty if it contains anything else."""
    try:
        return np.array(text.split(), np.float64).astype(np.float32)
    except ValueError:
        return EMPTY


def encode_words(texts: Sequence[str], vectors: WordVectors, *, pooling: str) -> list[FloatArray | Unreadable]:
    """The vectors [tokens, dim] of those tokens of each text that have one, or their mean [1, dim]."""
    out: list[FloatArray | Unreadable] = []
    for text in texts:
        known = [vector for token in tokens(text) if (vector := vectors.vector(token)) is not None]
        if not known:
            out.append(Unreadable("none of its words has a vector"))
            continue
        frames = np.stack(known)
        out.append(frames.mean(axis=0, keepdims=True) if pooling == "mean" else frames)
    return out
