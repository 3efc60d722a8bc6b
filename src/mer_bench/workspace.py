"""Where things are: in a clone of the repository, or in any other folder, in which files are simply ``./results``.

The working folder is a clone if it has ``Makefile``, ``benchmarks/`` and ``src/mer_bench/``. Suites, published records
and data preparation are read from the clone then; elsewhere from beside the package, where ``setup.py`` puts them into
the wheel (``mer_bench/bundled``) and an editable install has its repository. Standard library only.
"""

from __future__ import annotations

import io
import lzma
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mer_bench.errors import Misuse, unknown

PACKAGE = Path(__file__).parent
BUNDLED = PACKAGE / "bundled"  #: what the wheel has beside the package
RECORDS = "records.zip.xz"  #: the published records in the wheel


def in_clone() -> bool:
    """Whether the working folder is a clone of the repository."""
    return all(Path(name).exists() for name in ("Makefile", "benchmarks", "src/mer_bench"))


def repository() -> Path:
    """The folder that holds ``benchmarks`` and ``data_prep``: the clone, else what came with the package."""
    if in_clone():
        return Path()
    return BUNDLED if BUNDLED.is_dir() else PACKAGE.parents[1]


def command_here(make: str, otherwise: str) -> str:
    """The command that a message names: ``make`` in a clone, where there is a Makefile, and ``otherwise`` elsewhere."""
    return make if in_clone() else otherwise


def prepare_command(corpus: str = "CORPUS", raw: str | Path = "FOLDER") -> str:
    """The command that prepares a corpus from the folder ``raw``."""
    return command_here(f"make data DATASET={corpus} RAW={raw}", f"mer-bench prepare {corpus} --raw {raw}")


def default_results() -> Path:
    """Folder of the records, if none is named."""
    return Path("benchmarks/results" if in_clone() else "results")


def default_leaderboard(results: Path) -> Path:
    """Where the page of a folder of records stands: beside the records, unless the folder is the usual one."""
    return Path("leaderboard.md") if results == default_results() else results / "leaderboard.md"


def default_tables(leaderboard: Path) -> Path:
    """Where the pages of a leaderboard's tables stand: beside it, or in a clone for its own ``benchmarks/tables``."""
    if in_clone() and leaderboard.resolve() == Path("leaderboard.md").resolve():
        return Path("benchmarks/tables")
    name = "tables" if leaderboard.name == "leaderboard.md" else f"{leaderboard.stem}-tables"
    return leaderboard.parent / name


def documentation() -> Path | None:
    """Folder of the documentation, which a clone has."""
    return Path("docs") if in_clone() else None


def default_plots() -> Path:
    """Folder of the pictures, if none is named."""
    return Path("benchmarks/plots" if in_clone() else "plots")


def default_report() -> Path:
    """The HTML page, if none is named."""
    return Path("build/report.html" if in_clone() else "report.html")


def suites_folder() -> Path:
    """Folder of the suites that have names."""
    return repository() / "benchmarks"


def find_suite(given: Path) -> Path:
    """The file of a suite that is given by its path, or by its name without ``.toml``.

    Raises:
        Misuse: there is none; the message has the nearest valid name.
    """
    if given.is_file():
        return given
    named = given.parent == Path() and given.suffix != ".toml"
    folder = suites_folder() if named else given.parent
    path = folder / f"{given.name}.toml"
    if named and path.is_file():
        return path
    names = sorted(other.stem for other in folder.glob("*.toml"))
    if named or names:
        raise unknown("suite" if named else f"suite in {folder}", given.name if named else given.stem, names)
    names = sorted(other.stem for other in suites_folder().glob("*.toml"))
    raise Misuse(f"{unknown(f'suite in {folder}', given.stem, ())}; by name alone there are {', '.join(names)}")


def suite_argument(file: Path) -> str:
    """How a command names a suite: by its name alone where that is enough outside a clone, else by its path."""
    named = not in_clone() and file.parent == suites_folder()
    return file.stem if named else file.as_posix()


@contextmanager
def published_results() -> Iterator[Path]:
    """The folder of the published records, beside that of accepted submissions: in the repository, or temporary."""
    folder = suites_folder() / "results"
    if folder.is_dir():
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="mer_bench_records_") as temporary:
        with zipfile.ZipFile(io.BytesIO(lzma.decompress((BUNDLED / RECORDS).read_bytes()))) as archive:
            archive.extractall(Path(temporary) / "benchmarks")  # which keeps every path below the folder
        yield Path(temporary) / "benchmarks" / "results"


def published_folder() -> Path:
    """Where commands on a page find the published records: in the repository, else where ``records`` writes them."""
    folder = suites_folder() / "results"
    return folder if folder.is_dir() else Path("published")


def copy_published(folder: Path) -> None:
    """Write the published records into a new ``folder``, all or none of them.

    Raises:
        Misuse: the folder exists, or cannot be written.
    """
    if folder.exists():
        raise Misuse(f"{folder} exists; name a new folder, so that no record of yours is replaced")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with published_results() as source, tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            shutil.copytree(source, Path(temporary) / "results", ignore=shutil.ignore_patterns(".*"))
            (Path(temporary) / "results").rename(folder)
    except OSError as error:
        raise Misuse(f"{folder} cannot be written: {error.strerror or error}") from error
