"""What a run costs: floating-point operations and peak memory."""

from __future__ import annotations

import ctypes
import gc
import platform
import re
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from mer_bench.batch import Batch
from mer_bench.datasets.base import EmotionDataModule
from mer_bench.fusion.base import FusionModule


def flops_per_utterance(method: FusionModule, datamodule: EmotionDataModule) -> int:
    """Floating-point operations of a forward pass on the first test batch, per utterance, as torch counts them."""
    datamodule.setup("test")  # after ddp_spawn and ddp_fork only the children have done so
    return count_flops(method, next(iter(datamodule.test_dataloader())).to(method.device))


def count_flops(method: FusionModule, batch: Batch) -> int:
    """Floating-point operations of a forward pass per utterance of ``batch``, the same on every device."""
    method.eval()
    # With gradients enabled, since torch's counter fails without them on a view of a parameter that enters a module; no
    # tensor is saved for them, since none is computed. The counter does not see into compiled code.
    nothing_saved = torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing)
    eager = torch.compiler.set_stance("force_eager")
    with eager, torch.enable_grad(), nothing_saved, FlopCounterMode(display=False) as counter:
        method(batch)
    return int(counter.get_total_flops() // len(batch))


def reset_peak_memory() -> bool:
    """Start :func:`peak_memory_mib` anew, since a worker trains one run after another; returns whether it could."""
    if torch.cuda.is_available():
        # Where CUDA is not initialised there is no peak yet, and to initialise it would break processes forked later.
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats()
        return True
    gc.collect()  # what earlier runs left behind, memory and mapped files, is not part of the peak
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM; on Linux only
        peak_memory_mib()
    except (OSError, KeyError):
        return False
    return True


def peak_memory_mib() -> float:
    """Peak of the GPU's allocated memory where there is a GPU, else of this process's memory without files.

    Pages of mapped files, as those of features, are not the method's: the system takes them back where it needs memory.
    The peak with them less those of now is exact where they have stopped growing, and less than the peak otherwise.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kilobytes = {name: int(value.split()[0]) for name, value in re.findall(r"^(VmHWM|Rss\w+):\s*(.*)$", status, re.M)}
    return (kilobytes["VmHWM"] - kilobytes["RssFile"] - kilobytes["RssShmem"]) / 2**10
