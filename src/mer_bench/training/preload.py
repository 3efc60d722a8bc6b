"""What all workers of a bench share: the process that forks them imports it once, before any of them.

Importing it starts no thread and initialises no GPU, since a fork may keep neither.
"""

from __future__ import annotations

import gc

import mer_bench.training.run
import mer_bench.training.validate  # noqa: F401

gc.collect()
gc.freeze()  # workers do not look through these objects again, so that their pages stay shared
