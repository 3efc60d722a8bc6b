"""The only module that imports torchaudio, so that it also works with a torch that was built without CUDA.

The wheel of torchaudio links the CUDA runtime, and its import fails if torch has none. Only its native operators (the
RNN transducer loss, forced alignment) need that library. Spectrograms, resampling and filters are Python code that uses
torch.
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
    """Import torchaudio, without its native library if a CPU-only torch cannot load that.

    Raises:
        Misuse: torchaudio is not installed, or its import fails although torch has CUDA.
    """
    try:
        return importlib.import_module("torchaudio")
    except ModuleNotFoundError as error:
        raise Misuse("torchaudio is not installed: pip install 'mer-bench[prep]', or pass --backend librosa") from error
    except OSError as error:
        import torch

        if torch.version.cuda is not None:
            raise Misuse(f"torchaudio does not work with torch {torch.__version__}: {error}") from error
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
        del sys.modules[name]  # partly initialised by the failed import
    sys.modules["torchaudio._extension"] = _extension()
    return importlib.import_module("torchaudio")


@contextmanager
def float64() -> Iterator[None]:
    """Context in which transforms are created with windows, filters and matrices in float64.

    A transform creates these in torch's default type, and computes in the wider of that type and the signal's type.
    """
    import torch

    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(previous)


def _extension() -> ModuleType:
    """A replacement for the module that loads the native library; it states that there is none."""

    def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., Any]:
        def unavailable(*_: Any, **__: Any) -> Any:
            raise RuntimeError(f"{function.__name__} needs torchaudio's native library, which a CPU-only torch lacks")

        return unavailable

    stub: Any = module_from_spec(ModuleSpec("torchaudio._extension", loader=None))
    stub._IS_TORCHAUDIO_EXT_AVAILABLE = False
    stub.fail_if_no_align = fail_if_no_align
    module: ModuleType = stub
    return module
