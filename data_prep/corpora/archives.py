"""Unpacking of the zips and tarballs in which the corpora are distributed: safe, only once, and resumable.

What unpacking may write is limited, because a few megabytes of an archive can unpack to a full disk. The limit is a
multiple of the release's known size. Bytes are counted as they are written, whatever the archive states.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from stat import S_ISLNK
from typing import IO

import click

from mer_bench.errors import Misuse
from mer_bench.files import write_atomic

FOLDER = "unpacked"
BLOCK = 4096  #: bytes that even an empty file takes
TIMES = 4  #: a corpus may take this many times the size of its release, which includes the archives in archives
UNITS = {
    "": 1,
    **{f"{p}B": 1000**i for i, p in enumerate("kMGT", 1)},
    **{f"{p}iB": 1024**i for i, p in enumerate("KMGT", 1)},
}
Member = tuple[str, int, Callable[[], IO[bytes] | None]]  #: name, size in bytes, function that opens it


class TooLarge(Exception):
    """An archive would unpack to more than is allowed."""


@dataclass
class Allowance:
    """The bytes that unpacking may write.

    Args:
        total: Bytes that all files together may have; a quarter of them is the limit of one file.
        written: Bytes so far.
    """

    total: int
    written: int = 0

    def check(self, of_file: int, more: int = 0) -> None:
        """Check the size of one file, and that of all files with ``more`` bytes.

        Raises:
            TooLarge: it is more than is allowed.
        """
        for size, limit, what in (
            (of_file, self.total // TIMES, "one file"),
            (self.written + more, self.total, "its content"),
        ):
            if size > limit:
                raise TooLarge(f"{what} would take more than {limit:,} bytes")


def parse_size(text: str) -> int:
    """``200GiB`` or ``5 GB`` in bytes.

    Raises:
        Misuse: the text is no size.
    """
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) *([A-Za-z]*)", text.strip(), re.ASCII)
    units = {name.lower(): factor for name, factor in UNITS.items()}
    if not match or match[2].lower() not in units or not float(match[1]):
        raise Misuse(f"{text!r} is no size; give bytes or a number with {', '.join(filter(None, UNITS))}, as in 200GiB")
    return round(float(match[1]) * units[match[2].lower()])


def unpack_all(raw: Path, names: re.Pattern[str], folder: Path | None = None, *, limit: int) -> Path:
    """Unpack every archive below ``raw`` whose file name matches ``names``; return the folder to read the corpus from.

    Archives inside these archives are unpacked as well and then removed. A file that already exists below ``raw``, in a
    folder of the same name and with the same size, is not written again.

    Args:
        raw: Folder of the corpus as it was obtained.
        names: Regular expression for whole file names.
        folder: Folder to unpack into, by default ``raw/unpacked``. If it is not below ``raw``, it is returned.
        limit: Bytes that may be written in all; one file may have a quarter of them.

    Raises:
        Misuse: an archive is damaged, unsafe or too large, or the disk is full.
    """
    allowance = Allowance(limit)
    target = folder or raw / FOLDER
    seen: set[Path] = set()
    while found := sorted(
        {path for root in (raw, target) for path in root.rglob("*") if path not in seen and is_archive(path, names)},
        key=lambda path: (target in path.parents, path),
    ):
        present = {key for path in raw.rglob("*") if path.is_file() for key in file_keys(path, path.stat().st_size)}
        for archive in found:
            inner = target in archive.parents
            unpack(archive, archive.parent if inner else target, allowance, present)
            seen.add(archive)
            if inner:
                archive.unlink()
    return raw if not seen or raw.resolve() in target.resolve().parents else target


def file_keys(path: Path, size: int) -> tuple[tuple[str, str, int], tuple[str, str, int]]:
    """Two keys that identify a file of an archive: (folder, name, size) and ("", name, size)."""
    return (path.parent.name, path.name, size), ("", path.name, size)


def is_archive(path: Path, names: re.Pattern[str]) -> bool:
    """Whether ``path`` is a file whose name matches ``names``, and not metadata that macOS wrote for it."""
    return bool(names.fullmatch(path.name)) and path.is_file() and not is_macos_metadata(PurePosixPath(path.name))


def is_macos_metadata(name: PurePosixPath) -> bool:
    """Whether it is a file ``._name`` or ``.DS_Store``, or in a folder ``__MACOSX``."""
    return name.name.startswith("._") or name.name == ".DS_Store" or "__MACOSX" in name.parts


def unpack(archive: Path, folder: Path, allowance: Allowance, present: Collection[tuple[str, str, int]] = ()) -> None:
    """Unpack one archive into ``folder``, unless a marker file says that this has been done.

    Each file gets its name only when it is complete, so an existing file of the right size need not be written again.

    Args:
        archive: A zip, or a tarball compressed with gzip.
        folder: Folder to unpack into; created if it does not exist.
        allowance: What may be written; it is reduced.
        present: Keys of files that already exist elsewhere, see :func:`file_keys`.

    Raises:
        Misuse: the archive is damaged or too large, or one of its members is a link, a device or has a path outside
            ``folder``.
    """
    marker = folder / f".{archive.name}.done"
    size = f"{archive.stat().st_size}\n"
    if marker.is_file() and marker.read_text(encoding="utf-8") == size:
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
                complete = target.is_file() and target.stat().st_size == length
                if not complete and file_keys(path, length)[0] not in present:
                    allowance.check(length, length)  # what the archive states, before the work
                    write_member(target, length, read, allowance)
                    written += 1
                bar.update(max(0, file.tell() - bar.n))
    except TooLarge as error:
        raise Misuse(
            f"{archive} is refused: {error} (at {name!r}), far more than the release has; if you trust it, allow more "
            "with --max-unpacked, such as 200GiB"
        ) from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Misuse(f"{archive} is damaged or incomplete ({reason}): download it again") from error
    except OSError as error:
        if not error.errno:  # an error of gzip and not of the file system
            raise Misuse(f"{archive} is damaged or incomplete ({error}): download it again") from error
        raise Misuse(
            f"cannot unpack {archive} into {folder}: {error.strerror} (--unpack names another folder)"
        ) from error
    write_atomic(marker, size)
    click.echo(f"{archive.name}: {written:,} files unpacked into {folder}")


def members(archive: Path, file: IO[bytes]) -> Iterator[Member]:
    """The files of an archive in their order, without folders and metadata of macOS.

    Raises:
        Misuse: a member is neither a file nor a folder.
    """
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(file) as content:
            for info in content.infolist():
                if info.is_dir() or is_macos_metadata(PurePosixPath(info.filename)):
                    continue
                if S_ISLNK(info.external_attr >> 16):
                    raise Misuse(f"{archive} is refused: its member {info.filename!r} is a link")
                yield info.filename, info.file_size, partial(content.open, info)
        return
    # tarfile takes a truncated gzip stream for the end of the archive; reading gzip itself to the end raises an error
    with gzip.open(file) as plain:
        with tarfile.open(fileobj=plain, mode="r|") as stream:
            for member in stream:
                if member.isdir() or is_macos_metadata(PurePosixPath(member.name)):
                    continue
                if not member.isreg():
                    file_type = "link" if member.issym() or member.islnk() else "device"
                    raise Misuse(f"{archive} is refused: its member {member.name!r} is a {file_type}")
                # only the content is read, no owners, modes or links, so no extraction filter is needed
                yield member.name, member.size, partial(stream.extractfile, member)
        while plain.read(1 << 20):
            pass


def safe_path(name: str, archive: Path) -> Path:
    """The relative path of the archive member ``name``.

    Raises:
        Misuse: the path is absolute, contains ``..``, or contains a backslash, a colon or a null character.
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or re.search(r"[\\:\x00]", name):
        raise Misuse(f"{archive} is refused: its member {name!r} would be written outside the folder")
    return Path(*path.parts)


def write_member(target: Path, length: int, read: Callable[[], IO[bytes] | None], allowance: Allowance) -> None:
    """Write one member to a temporary file beside ``target`` and rename that to ``target`` when it is complete.

    Raises:
        TooLarge: the bytes that the member really has are more than is allowed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    source = read()
    if source is None:
        raise EOFError(f"{target.name} has no content")
    allowance.written += BLOCK
    try:
        with closing(source), temporary.open("wb") as file:
            while part := source.read(1 << 20):
                allowance.written += len(part)
                allowance.check(file.tell() + len(part))
                file.write(part)
        if temporary.stat().st_size != length:
            raise EOFError(f"{target.name} has {temporary.stat().st_size} of {length} bytes")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
