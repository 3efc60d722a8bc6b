"""The one place that imports torchaudio, so that it also works beside a torch built without CUDA.

torchaudio's wheel links the CUDA runtime, and its import fails where torch has none. Only its native operators (the RNN
transducer loss, forced alignment) need that library: spectrograms, resampling and filters are Python on top of torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

from mer_bench.errors import Misuse


def load() -> ModuleType:
    """Import torchaudio, without its native library where a CPU-only torch cannot load it.

    Raises:
        Misuse: torchaudio is not installed, or fails beside a torch that has CUDA.
    """
    try:
        return importlib.import_module("torchaudio")
    except ModuleNotFoundError as error:
        raise Misuse("torchaudio is not installed: pip install 'mer-bench[prep]', or pass --backend librosa") from error
    except OSError as error:
        import torch

        if torch.version.cuda is not None:
            raise Misuse(f"torchaudio does not fit this torch {torch.__version__}: {error}") from error
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        del sys.modules[name]  # half-initialised by the failed import
    sys.modules["torchaudio._extension"] = _extension()
    return importlib.import_module("torchaudio")


@contextmanager
def float64() -> Iterator[None]:
    """Transforms that are made inside hold their windows, filters and matrices in float64.

    They build them in torch's default type, and compute in the wider of that and the signal's.
    """
    import torch

    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def _extension() -> ModuleType:
    """A stand-in for the module that loads the native library, saying that there is none."""

    def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., Any]:
        def unavailable(*_: Any, **__: Any) -> Any:
            raise RuntimeError(f"{function.__name__} needs torchaudio's native library, which a CPU-only torch lacks")

        return unavailable

    stub: Any = module_from_spec(ModuleSpec("torchaudio._extension", loader=None))
    stub._IS_TORCHAUDIO_EXT_AVAILABLE = False
    stub.fail_if_no_align = fail_if_no_align
    module: ModuleType = stub
    return module
