"""What a run costs: operations and peak memory."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from mer_bench.batch import Batch
from mer_bench.datasets.base import EmotionDataModule
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.utterance import every_column


def flops_per_utterance(method: FusionModule, datamodule: EmotionDataModule) -> int:
    """Floating-point operations of a forward pass on the first test batch, per utterance, as torch counts them."""
    datamodule.setup("test")  # after ddp_spawn and ddp_fork only the children have done so
    return count_flops(method, next(iter(datamodule.test_dataloader())).to(method.device))


def count_flops(method: FusionModule, batch: Batch) -> int:
    """Floating-point operations of a forward pass per utterance of ``batch``, the same on every device."""
    method.eval()
    # with gradients: without, torch's counter stumbles over a view of a parameter that enters a module; nothing is kept
    # for them, since none is taken; and the counter does not see into compiled code
    forget = torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing)
    eager = torch.compiler.set_stance("force_eager")
    with eager, torch.enable_grad(), forget, every_column(method), FlopCounterMode(display=False) as counter:
        method(batch)
    return int(counter.get_total_flops() // len(batch))


def _forget_peak_memory() -> bool:
    """Start :func:`_peak_memory_mib` anew: a worker has trained others before. Returns whether that was possible."""
    if torch.cuda.is_available():
        # where it is not, there is no peak to forget; and processes that are forked later could not use it
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats()
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM; Linux alone has them
        _peak_memory_mib()
    except (OSError, ValueError):
        return False
    return True


def _peak_memory_mib() -> float:
    """Of the device's memory on a GPU, else the most that this process has had resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (kilobytes,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(kilobytes) / 2**10
