"""Who may import whom, read from the sources: lazy imports and imports for typing count too."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import mer_bench

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


def inside(*packages: str) -> list[str]:
    return [module for module in SOURCES if module.startswith(tuple(f"{p}." for p in packages)) or module in packages]


def ours(module: str) -> set[str]:
    """Modules of the project that a module imports itself; a package's ``__init__`` comes with any of them unasked."""
    return {name for name in direct(module) if name in SOURCES} - {"mer_bench", "data_prep"}


LIBRARY = inside("mer_bench")
HOUSES = ("encoders", "datasets", "fusion", "training", "report", "bundle")
#: the command line, which stands on everything, and the checks of methods, which stand on what a run computes
ROOT_ABOVE = ("mer_bench.cli", "mer_bench.__main__", "mer_bench.testing")
VOCABULARY = [module for module in LIBRARY if module.split(".")[1:2] not in [[h] for h in HOUSES]]
VOCABULARY = [module for module in VOCABULARY if module not in (*ROOT_ABOVE, "mer_bench")]

#: Who may import whom: folder -> the other folders and modules that its modules may name. All may name the vocabulary.
RULES = {
    "mer_bench.encoders": (),
    "mer_bench.datasets": (),
    "mer_bench.fusion": ("mer_bench.encoders",),
    # `mer_bench.training.bench` ends with the leaderboard
    "mer_bench.training": ("mer_bench.encoders", "mer_bench.datasets", "mer_bench.fusion", "mer_bench.report"),
    "mer_bench.report": (),
    "mer_bench.bundle": (
        "mer_bench.encoders", "mer_bench.datasets", "mer_bench.fusion", "mer_bench.training", "mer_bench.report",
    ),
    "data_prep.corpora": ("data_prep.cli",),
    "data_prep.extractors": ("data_prep.cli", "data_prep.extract", "data_prep.corpora", "mer_bench.encoders"),
    "data_prep.imports": ("data_prep.cli", "data_prep.extract", "data_prep.corpora"),
    "data_prep.prepare": (
        "data_prep.cli", "data_prep.extract", "data_prep.corpora", "data_prep.extractors", "data_prep.imports",
    ),
}  # fmt: skip
#: what single modules may name beyond their folder's rule
EXCEPTIONS = {
    "mer_bench.report.simulated": ("mer_bench.datasets",),
    "mer_bench.report.measure": ("mer_bench.datasets",),  # which measures corpora, for what the leaderboard prints
    "mer_bench.training.run": ("mer_bench.bundle.store",),  # which keeps what was trained
}


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
    assert imported(source, "mer_bench.features") == {
        "torch.nn", "mer_bench.metrics", "mer_bench.batch", "mer_bench.fusion.layers", "lightning", "pandas"
    }  # fmt: skip
    assert imported("from . import base", "mer_bench.fusion", package=True) == {"mer_bench.fusion.base"}
    assert imported("from ..batch import Batch", "mer_bench.fusion.base") == {"mer_bench.batch"}


def test_the_sources_are_found_and_a_run_stands_on_both_sides() -> None:
    assert {"mer_bench", "data_prep.extractors.torchaudio_cpu", *RULES, *EXCEPTIONS} <= set(SOURCES)
    assert {"mer_bench.fusion.base", "mer_bench.datasets.base", "lightning", "torch", "pandas"} <= closure(
        "mer_bench.training.run"
    )
    assert {"batch", "errors", "features", "files", "metrics", "records", "utterances"} <= {
        module.removeprefix("mer_bench.") for module in VOCABULARY
    }
    assert {module.rpartition(".")[0] for module in SOURCES} - {"", "mer_bench", "data_prep"} == set(RULES)


def test_no_module_imports_itself_by_a_circle() -> None:
    """Kahn's algorithm: what nothing else is waiting for is taken away, until only circles are left."""
    ahead = {module: ours(module) - {module} for module in SOURCES}
    while free := {module for module, needs in ahead.items() if not needs & set(ahead)}:
        ahead = {module: needs for module, needs in ahead.items() if module not in free}
    assert not ahead, f"these import each other in a circle: {sorted(ahead)}"


@pytest.mark.parametrize("folder", RULES)
def test_a_folder_imports_what_stands_below_it_alone(folder: str) -> None:
    for module in inside(folder):
        allowed = {*VOCABULARY, *inside(folder, *RULES[folder], *EXCEPTIONS.get(module, ()))}
        assert ours(module) <= allowed, module


def test_training_knows_of_the_report_in_one_place() -> None:
    knows = [m for m in inside("mer_bench.training") if any(n.startswith("mer_bench.report") for n in ours(m))]
    assert knows in ([], ["mer_bench.training.bench"])


@pytest.mark.parametrize("module", VOCABULARY)
def test_the_vocabulary_stands_on_itself_alone(module: str) -> None:
    assert ours(module) <= set(VOCABULARY)
    assert not tops(module) & {"lightning", "pytorch_lightning", "torchmetrics", "wandb"}


@pytest.mark.parametrize("module", [m for m in VOCABULARY if m not in ("mer_bench.batch", "mer_bench.functionals")])
def test_numbers_and_files_need_no_torch(module: str) -> None:
    assert "torch" not in tops(module)


def test_functionals_are_computed_where_features_are_gathered_and_in_no_method() -> None:
    knows = {module for module in SOURCES if "mer_bench.functionals" in direct(module)}
    gathering = {f"mer_bench.{name}" for name in ("datasets.base", "bundle.data", "bundle.store")}
    assert knows == gathering | {"mer_bench.testing"}
    assert ours("mer_bench.functionals") == {f"mer_bench.{name}" for name in ("batch", "errors", "features", "files")}


def test_records_need_little() -> None:
    assert tops("mer_bench.records") - {"mer_bench"} - set(sys.stdlib_module_names) == {"msgspec", "numpy"}


@pytest.mark.parametrize("module", ["options", "workers"])
def test_options_and_workers_are_standard_library_only(module: str) -> None:
    assert tops(f"mer_bench.training.{module}") - {"mer_bench"} <= sys.stdlib_module_names


@pytest.mark.parametrize("module", inside("mer_bench.encoders"))
def test_encoders_know_torch_the_batch_and_errors_alone(module: str) -> None:
    known = {name for name in closure(module) if name.startswith("mer_bench.")}
    assert known - set(inside("mer_bench.encoders")) <= {"mer_bench.batch", "mer_bench.errors"}
    # numpy, since batches are gathered with it
    assert tops(module) - {"mer_bench"} - set(sys.stdlib_module_names) == {"torch", "numpy"}


@pytest.mark.parametrize("module", inside("mer_bench.report"))
def test_a_leaderboard_renders_without_torch_lightning_or_pandas(module: str) -> None:
    if (
        module not in EXCEPTIONS and module != "mer_bench.report.readme"
    ):  # it fills in the tables of the simulated corpora
        # the utterances on which two methods differ, the tables as DataFrames, and predictions with their ids
        tabular = {f"mer_bench.report.{name}" for name in ("compare", "frames", "external")}
        texts = {"pandas"} if module not in tabular else set()
        assert not tops(module) & {"torch", "lightning", "torchmetrics", *texts}


def test_importing_the_package_imports_nothing_but_the_standard_library() -> None:
    assert direct("mer_bench") <= {"importlib", "typing"}
    code = "import sys; before = set(sys.modules); import mer_bench; print(*set(sys.modules) - before)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert {name.partition(".")[0] for name in found.split()} - {"mer_bench"} <= set(sys.stdlib_module_names)


def test_a_bench_and_the_command_line_start_without_torch_and_pandas() -> None:
    """What is imported by functions does not count here: a worker calls those."""
    code = "import sys, mer_bench.cli, mer_bench.training.bench; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    loaded = {name.partition(".")[0] for name in found.split()}
    assert "mer_bench" in loaded
    assert not loaded & {"torch", "lightning", "torchmetrics", "pandas", "scipy", "ray", "wandb"}


def test_what_the_package_exports_is_where_it_says_and_is_for_users_alone() -> None:
    """The package names these modules by text, which the reader of imports does not see: no module may go that way."""
    assert set(mer_bench.__all__) == {"__version__", *mer_bench._EXPORTS}
    for name, module in mer_bench._EXPORTS.items():
        assert module in SOURCES
        assert getattr(mer_bench, name) is getattr(import_module(module), name)
        assert name in dir(mer_bench)
    with pytest.raises(AttributeError, match="no attribute 'load_reslts'"):
        mer_bench.load_reslts  # noqa: B018
    for module, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "mer_bench":
                names = {alias.name for alias in node.names}
                assert all(name == "__version__" or f"mer_bench.{name}" in SOURCES for name in names), module


@pytest.mark.parametrize("module", [module for module in LIBRARY if module != "mer_bench.cli"])
def test_the_library_never_imports_data_preparation(module: str) -> None:
    assert "data_prep" not in {name.partition(".")[0] for name in direct(module)}


def test_the_command_line_imports_data_preparation_in_two_functions_alone() -> None:
    """``prepare`` and ``predict`` for new clips hand over to it; all else works where it is not on the path."""
    tree = ast.parse(SOURCES["mer_bench.cli"].read_text(encoding="utf-8"))
    of_it = {
        getattr(statement, "name", "the module itself")
        for statement in tree.body
        for node in ast.walk(statement)
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "data_prep" in ast.unparse(node)
    }
    assert of_it == {"prepare", "_prepare_clips"}


@pytest.mark.parametrize("module", [module for module in SOURCES if module not in ROOT_ABOVE])
def test_nothing_imports_the_command_line_or_the_checks_of_methods(module: str) -> None:
    assert not {"mer_bench.cli", "mer_bench.testing"} & direct(module)


@pytest.mark.parametrize("module", [module for module in SOURCES if module != "data_prep.extractors.torchaudio_cpu"])
def test_only_torchaudio_cpu_imports_torchaudio(module: str) -> None:
    assert "torchaudio" not in {name.partition(".")[0] for name in direct(module)}
    assert 'import_module("torchaudio' not in SOURCES[module].read_text(encoding="utf-8")


@pytest.mark.parametrize("module", inside("data_prep"))
def test_data_preparation_builds_on_the_vocabulary_and_not_on_training(module: str) -> None:
    assert "lightning" not in tops(module)
    allowed = {*inside("mer_bench.encoders"), "mer_bench.training", "mer_bench.training.workers"}
    assert not closure(module) & set(inside(*(f"mer_bench.{house}" for house in HOUSES))) - allowed
