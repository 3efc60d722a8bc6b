"""Settings of the whole suite: one thread, no network logger, no time limits inside hypothesis."""

import os
import sys

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"  # before torch and numpy are imported; sums then do not depend on the machine
os.environ["WANDB_MODE"] = "offline"

import hypothesis  # noqa: E402
import pytest  # noqa: E402

hypothesis.settings.register_profile("shared", deadline=None)  # a busy machine is not a defect
hypothesis.settings.load_profile("shared")


@pytest.fixture(autouse=True)
def _one_seeded_thread() -> None:
    torch = sys.modules.get("torch")  # tests without torch do not pay for its import
    if torch is not None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
