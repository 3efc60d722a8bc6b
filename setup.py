"""Puts what the repository has beside the package into the wheel: suites, data preparation and published records.

They go below ``mer_bench/bundled`` and not to the top of site-packages, where ``data_prep`` and ``benchmarks`` would be
names that any other package could use as well. An editable install reads them from the repository instead. The rest of
the configuration is in pyproject.toml.
"""

from __future__ import annotations

import io
import lzma
import shutil
import zipfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PACKED = ("results/**/*.json", "contributed/*/**/*.json", "contributed/*/submission.toml")


class BuildWithBundle(build_py):
    """The usual build, and ``mer_bench/bundled``."""

    def run(self) -> None:
        """Build the package, then copy and pack into it."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "mer_bench" / "bundled"
        shutil.rmtree(target, ignore_errors=True)  # setuptools keeps what an earlier build has left
        shutil.copytree("data_prep", target / "data_prep", ignore=shutil.ignore_patterns("__pycache__"))
        (target / "benchmarks").mkdir()
        for suite in Path("benchmarks").glob("*.toml"):
            shutil.copy(suite, target / "benchmarks")
        if Path("benchmarks/tuned").is_dir():
            shutil.copytree("benchmarks/tuned", target / "benchmarks" / "tuned")
        (target / "records.zip.xz").write_bytes(pack(Path("benchmarks")))


def pack(benchmarks: Path) -> bytes:
    """The published records and the accepted submissions as one archive.

    It is stored, then compressed as a whole, a third of what zip makes of the records one by one. Equal records
    give equal bytes. The lowest level takes two seconds, the usual one a minute for 1 MB less.
    """
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w") as archive:
        for path in sorted(path for kind in PACKED for path in benchmarks.glob(kind)):
            archive.writestr(zipfile.ZipInfo(path.relative_to(benchmarks).as_posix()), path.read_bytes())
    return lzma.compress(stored.getvalue(), preset=1)


setup(cmdclass={"build_py": BuildWithBundle})
