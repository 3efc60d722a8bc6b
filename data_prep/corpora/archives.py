"""Zips and tarballs as the corpora are distributed in, unpacked safely, once, and from where a kill left off."""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path, PurePosixPath
from stat import S_ISLNK
from typing import IO

import click

from mer_bench.errors import Misuse
from mer_bench.files import write_atomic

FOLDER = "unpacked"
Member = tuple[str, int, Callable[[], IO[bytes] | None]]  #: name, bytes, how to read it


def unpack_all(raw: Path, names: re.Pattern[str], folder: Path | None = None) -> Path:
    """Unpack every archive in ``raw`` whose file name ``names`` matches; return the folder to read the corpus from.

    Archives inside of these are unpacked too, and then removed. A file that lies below ``raw`` already, in a folder of
    the same name and with the same size, is not written again.

    Args:
        raw: The corpus as it was obtained.
        names: Matched against whole file names.
        folder: Where to unpack; below ``raw`` by default. If it lies elsewhere, the corpus is read from there.

    Raises:
        Misuse: an archive is damaged or unsafe, or there is no room for it.
    """
    target = folder or raw / FOLDER
    seen: set[Path] = set()
    while todo := sorted(
        {path for root in (raw, target) for path in root.rglob("*") if path not in seen and wanted(path, names)},
        key=lambda path: (target in path.parents, path),
    ):
        present = {key for path in raw.rglob("*") if path.is_file() for key in keys(path, path.stat().st_size)}
        for archive in todo:
            inner = target in archive.parents
            unpack(archive, archive.parent if inner else target, present)
            seen.add(archive)
            if inner:
                archive.unlink()
    return raw if not seen or raw.resolve() in target.resolve().parents else target


def keys(path: Path, size: int) -> tuple[tuple[str, str, int], tuple[str, str, int]]:
    """What a member of an archive is recognised by where it lies already: with its folder's name, and without."""
    return (path.parent.name, path.name, size), ("", path.name, size)


def wanted(path: Path, names: re.Pattern[str]) -> bool:
    """Whether ``path`` is one of the archives, and not what macOS leaves beside it."""
    return bool(names.fullmatch(path.name)) and path.is_file() and not is_clutter(PurePosixPath(path.name))


def is_clutter(name: PurePosixPath) -> bool:
    """Whether it is macOS's ``._name``, ``.DS_Store`` or ``__MACOSX``."""
    return name.name.startswith("._") or name.name == ".DS_Store" or "__MACOSX" in name.parts


def unpack(archive: Path, folder: Path, present: Collection[tuple[str, str, int]] = ()) -> None:
    """Unpack one archive below ``folder``, unless its mark there says that it is done.

    Each file appears under its name when it is complete, so that what is there with the right size is right.

    Args:
        archive: A zip, or a tarball compressed with gzip.
        folder: Created if need be.
        present: Files that count as unpacked, by :func:`keys`.

    Raises:
        Misuse: the archive is damaged; or a member of it is a link or a device, or would land outside of ``folder``.
    """
    mark = folder / f".{archive.name}.done"
    size = f"{archive.stat().st_size}\n"
    if mark.is_file() and mark.read_text(encoding="utf-8") == size:
        return
    from tqdm import tqdm

    written = 0
    try:
        with (
            archive.open("rb") as file,
            tqdm(total=archive.stat().st_size, desc=archive.name, unit="B", unit_scale=True, mininterval=1.0) as bar,
        ):
            for name, length, read in members(archive, file):
                path = safe_path(name, archive)
                target = folder / path
                done = target.is_file() and target.stat().st_size == length
                if not done and keys(path, length)[0] not in present:
                    write_member(target, length, read)
                    written += 1
                bar.update(max(0, file.tell() - bar.n))
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Misuse(f"{archive} is damaged or not whole ({reason}): download it again") from error
    except OSError as error:
        if not error.errno:  # gzip's own errors have no number
            raise Misuse(f"{archive} is damaged or not whole ({error}): download it again") from error
        raise Misuse(
            f"cannot unpack {archive} into {folder}: {error.strerror} (--unpack names another folder)"
        ) from error
    write_atomic(mark, size)
    click.echo(f"{archive.name}: {written:,} files unpacked into {folder}")


def members(archive: Path, file: IO[bytes]) -> Iterator[Member]:
    """The files of an archive in their order; folders and macOS's clutter are passed over.

    Raises:
        Misuse: a member is neither a file nor a folder.
    """
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(file) as content:
            for info in content.infolist():
                if info.is_dir() or is_clutter(PurePosixPath(info.filename)):
                    continue
                if S_ISLNK(info.external_attr >> 16):
                    raise Misuse(f"{archive} is refused: its member {info.filename!r} is a link")
                yield info.filename, info.file_size, partial(content.open, info)
        return
    # tarfile takes a gzip stream that breaks off for the end of the archive; gzip itself, read to its end, does not
    with gzip.open(file) as plain:
        with tarfile.open(fileobj=plain, mode="r|") as stream:
            for member in stream:
                if member.isdir() or is_clutter(PurePosixPath(member.name)):
                    continue
                if not member.isreg():
                    kind = "link" if member.issym() or member.islnk() else "device"
                    raise Misuse(f"{archive} is refused: its member {member.name!r} is a {kind}")
                # only contents are taken from here on: no owners, modes or links, so no extraction filter is needed
                yield member.name, member.size, partial(stream.extractfile, member)
        while plain.read(1 << 20):
            pass


def safe_path(name: str, archive: Path) -> Path:
    """The relative path of a member.

    Raises:
        Misuse: it is absolute, climbs out of its folder, or is written in Windows' way.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or re.search(r"[\\:\x00]", name):
        raise Misuse(f"{archive} is refused: its member {name!r} would be written outside of the folder")
    return Path(*path.parts)


def write_member(target: Path, length: int, read: Callable[[], IO[bytes] | None]) -> None:
    """Write one member beside ``target`` and rename it into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    source = read()
    if source is None:
        raise EOFError(f"{target.name} has no content")
    try:
        with closing(source), temporary.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        if temporary.stat().st_size != length:
            raise EOFError(f"{target.name} has {temporary.stat().st_size} of {length} bytes")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
