"""Who may import whom, read from the sources: lazy imports and imports for typing count too."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TREES = {"mer_bench": ROOT / "src" / "mer_bench", "data_prep": ROOT / "data_prep"}


def sources() -> dict[str, Path]:
    found = {}
    for package, folder in TREES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


SOURCES = sources()


def imported(source: str, module: str, *, package: bool = False) -> set[str]:
    """Dotted names that a module imports; ``from a import b`` is ``a.b`` where that is a module of ours, else ``a``."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if package and node.level == 1 else package - node.level]
                base = ".".join([*parents, *([base] if base else [])])
            names |= {f"{base}.{a.name}" if f"{base}.{a.name}" in SOURCES else base for a in node.names}
    return names


@cache
def direct(module: str) -> frozenset[str]:
    path = SOURCES[module]
    return frozenset(imported(path.read_text(encoding="utf-8"), module, package=path.name == "__init__.py"))


@cache
def closure(module: str) -> frozenset[str]:
    """All that importing a module imports, by way of ours: with a.b comes the package a."""
    seen: set[str] = set()
    ahead = {module}
    while ahead:
        name = ahead.pop()
        seen.add(name)
        reached = set(direct(name)) if name in SOURCES else set()
        parts = name.split(".")
        reached |= {".".join(parts[:depth]) for depth in range(1, len(parts))} & set(SOURCES)
        ahead |= reached - seen
    return frozenset(seen - {module})


def tops(module: str) -> set[str]:
    return {name.partition(".")[0] for name in closure(module)}


def existing(*modules: str) -> list[str]:
    return [f"mer_bench.{module}" for module in modules if f"mer_bench.{module}" in SOURCES]


def inside(package: str) -> list[str]:
    return [module for module in SOURCES if module == package or module.startswith(f"{package}.")]


FOUNDATION = existing("metrics", "batch", "features", "table", "files", "errors", "records")
READERS = existing("ranking", "report", "statistics", "typography")
LIBRARY = inside("mer_bench")
FORBIDDEN_BELOW = ("mer_bench.fusion", "mer_bench.datasets", "mer_bench.run", "mer_bench.suite", "mer_bench.cli")


def test_the_reader_of_imports_sees_every_form() -> None:
    source = """
import torch.nn as nn
from mer_bench import metrics
from . import batch
from .fusion.layers import masked_mean
if TYPE_CHECKING:
    import lightning
def lazy():
    from pandas import DataFrame
"""
    assert imported(source, "mer_bench.run") == {
        "torch.nn", "mer_bench.metrics", "mer_bench.batch", "mer_bench.fusion.layers", "lightning", "pandas"
    }  # fmt: skip
    assert imported("from . import base", "mer_bench.fusion", package=True) == {"mer_bench.fusion.base"}
    assert imported("from ..batch import Batch", "mer_bench.fusion.base") == {"mer_bench.batch"}


def test_the_sources_are_found_and_run_stands_on_both_sides() -> None:
    assert {"mer_bench", "mer_bench.fusion.base", "mer_bench.datasets.base", "data_prep.torchaudio_cpu"} <= set(SOURCES)
    assert {"mer_bench.fusion.base", "mer_bench.datasets.base", "lightning", "torch", "pandas"} <= closure(
        "mer_bench.run"
    )
    assert len(FOUNDATION) == 7
    assert len(READERS) == 4
    assert "mer_bench.encoders.resnext3d" in inside("mer_bench.encoders")


@pytest.mark.parametrize("module", FOUNDATION)
def test_the_foundation_knows_neither_lightning_nor_what_stands_on_it(module: str) -> None:
    assert not tops(module) & {"lightning", "pytorch_lightning", "torchmetrics", "wandb"}
    assert not [name for name in closure(module) if name.startswith(FORBIDDEN_BELOW)]


@pytest.mark.parametrize("module", existing("metrics", "features", "table", "files", "errors", "records"))
def test_numbers_and_files_need_no_torch(module: str) -> None:
    assert "torch" not in tops(module)


def test_records_are_standard_library_only() -> None:
    assert direct("mer_bench.records") - {"mer_bench.errors", "mer_bench.files"} <= sys.stdlib_module_names | {
        "collections.abc"
    }
    assert tops("mer_bench.records") - {"mer_bench"} <= sys.stdlib_module_names


@pytest.mark.parametrize("module", inside("mer_bench.encoders"))
def test_encoders_know_torch_the_batch_and_errors_alone(module: str) -> None:
    ours = {name for name in closure(module) if name.startswith("mer_bench.")}
    assert ours - set(inside("mer_bench.encoders")) <= {"mer_bench.batch", "mer_bench.errors"}
    # numpy, since batches are gathered with it
    assert tops(module) - {"mer_bench"} - set(sys.stdlib_module_names) == {"torch", "numpy"}


@pytest.mark.parametrize("module", inside("mer_bench.fusion"))
def test_fusion_never_imports_datasets(module: str) -> None:
    assert not [name for name in closure(module) if name.startswith("mer_bench.datasets")]


@pytest.mark.parametrize("module", inside("mer_bench.datasets"))
def test_datasets_never_import_fusion(module: str) -> None:
    assert not [name for name in closure(module) if name.startswith("mer_bench.fusion")]


@pytest.mark.parametrize("module", READERS)
def test_a_leaderboard_renders_without_torch_lightning_or_pandas(module: str) -> None:
    assert not tops(module) & {"torch", "lightning", "torchmetrics", "pandas"}


@pytest.mark.parametrize("module", LIBRARY)
def test_the_library_never_imports_data_preparation(module: str) -> None:
    assert "data_prep" not in {name.partition(".")[0] for name in direct(module)}


@pytest.mark.parametrize("module", [module for module in SOURCES if module != "mer_bench.__main__"])
def test_nothing_imports_the_command_line(module: str) -> None:
    assert "mer_bench.cli" not in direct(module)


@pytest.mark.parametrize(
    "module", [module for module in LIBRARY if module not in existing("suite", "cli", "readme", "__main__")]
)
def test_nothing_below_the_command_line_imports_suite(module: str) -> None:
    assert "mer_bench.suite" not in direct(module)


@pytest.mark.parametrize("module", [module for module in SOURCES if module != "data_prep.torchaudio_cpu"])
def test_only_torchaudio_cpu_imports_torchaudio(module: str) -> None:
    assert "torchaudio" not in {name.partition(".")[0] for name in direct(module)}
    assert 'import_module("torchaudio' not in SOURCES[module].read_text(encoding="utf-8")


@pytest.mark.parametrize("module", inside("data_prep"))
def test_data_preparation_builds_on_features_and_table_not_on_training(module: str) -> None:
    assert not [name for name in closure(module) if name.startswith(FORBIDDEN_BELOW)]
    assert "lightning" not in tops(module)
