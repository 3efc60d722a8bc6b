"""Download of RAVDESS and MELD: shows the licence, then downloads, checks and unpacks the files; it can be resumed.

Zenodo publishes the name, size and md5 of each file of a record, so they need not be stated here. The authors of MELD
publish no checksums; therefore the sha256 of each file is stored after the first download and checked later.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click

from data_prep.cli import Command, max_unpacked_option
from data_prep.corpora import meld, ravdess
from data_prep.corpora.archives import TIMES, unpack_all
from mer_bench.errors import Misuse
from mer_bench.files import write_atomic
from mer_bench.workspace import prepare_command

ZENODO = "https://zenodo.org/api/records/{}"
RAVDESS_RECORDS = (1188976, 3255102)  #: audio and video; facial landmarks
MELD_URLS = (
    *(
        f"https://raw.githubusercontent.com/declare-lab/MELD/master/data/MELD/{s}_sent_emo.csv"
        for s in ("train", "dev", "test")
    ),
    "https://huggingface.co/datasets/declare-lab/MELD/resolve/main/MELD.Raw.tar.gz",
)
LICENCES = {
    "ravdess": "RAVDESS is licensed CC BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/): no "
    "commercial use, credit to Livingstone and Russo (2018), and the same licence for everything derived from it.",
    "meld": "MELD's annotations are licensed GPL-3.0 (https://github.com/declare-lab/MELD); its clips are from the "
    "television series Friends and belong to its owners: for research only, credit to Poria et al. (2019).",
}
IEMOCAP = (
    "IEMOCAP cannot be downloaded: request it from USC SAIL with the form at "
    "https://sail.usc.edu/iemocap/iemocap_release.htm, then run {}"
)
CHECKSUMS = "checksums.json"  #: the sha256 of each file without a published checksum
ATTEMPTS = 5  #: consecutive attempts without any new bytes after which a download fails
TIMEOUT = 60  #: seconds without any new bytes after which an attempt fails


@dataclass(frozen=True)
class Remote:
    """A file to download, and its published size and checksum."""

    name: str
    url: str
    size: int | None = None
    checksum: str = ""  #: ``md5:...``; "" if none is published


def zenodo_files(record: int) -> list[Remote]:
    """The files of a Zenodo record according to its API.

    Raises:
        Misuse: Zenodo cannot be reached, or its answer has an unknown format.
    """
    import requests

    url = ZENODO.format(record)
    try:
        answer = requests.get(url, timeout=TIMEOUT)
    except requests.RequestException as error:
        raise unreachable(url, error) from error
    if answer.status_code != 200:
        raise Misuse(f"{url} answers {answer.status_code} {answer.reason}")
    try:
        found = [Remote(f["key"], f["links"]["self"], int(f["size"]), f["checksum"]) for f in answer.json()["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise Misuse(
            f"{url} has an unknown format instead of Zenodo's list of files ({type(error).__name__}: {error})"
        ) from error
    unsafe = [file.name for file in found if not re.fullmatch(r"\w[\w. -]*", file.name)]
    if unsafe:
        raise Misuse(f"{url} names a file {unsafe[0]!r}, which is not a plain file name")
    return found


def unreachable(url: str, error: Exception) -> Misuse:
    """The error for a network failure."""
    reason = type(error).__name__
    return Misuse(
        f"cannot reach {url} ({reason}): check the network, then run this again; it continues where it stopped"
    )


def size_of(path: Path) -> int:
    """Size of a file in bytes; 0 if it does not exist."""
    return path.stat().st_size if path.is_file() else 0


def checksum(path: Path, algorithm: str) -> str:
    """Hash of a file as ``algorithm:digits``, such as ``md5:d41d8cd98f``."""
    import pooch

    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def receive(url: str, part: Path, size: int | None = None) -> bool:
    """Request the missing end of the file ``part`` once, and append it; return whether the file is then complete.

    A server that does not support ranges, or whose file has changed in the meantime, sends the whole file, which then
    replaces ``part``.

    Raises:
        Misuse: the server answers with an error.
        requests.RequestException: the network fails; the received bytes are kept.
    """
    import requests
    from tqdm import tqdm

    have, tag = size_of(part), part.with_name(f"{part.name}.etag")
    headers = {"Accept-Encoding": "identity"}  # otherwise the stated length may be that of compressed bytes
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag.is_file():
            headers["If-Range"] = tag.read_text(encoding="utf-8")
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if answer.status_code == 416:  # the file has no bytes after those in ``part``
            if span and span[2] == str(have):
                return True
            part.unlink(missing_ok=True)
            return False
        if answer.status_code not in (200, 206):
            raise Misuse(f"{url} answers {answer.status_code} {answer.reason}")
        start = int(span[1] or 0) if span and answer.status_code == 206 else 0
        if start not in (0, have):
            part.unlink(missing_ok=True)
            return False
        etag = answer.headers.get("ETag", "")
        if etag.startswith('"'):  # a weak tag does not guarantee equal bytes
            write_atomic(tag, etag)
        else:
            tag.unlink(missing_ok=True)
        length = answer.headers.get("Content-Length")
        total = size or (start + int(length) if length else None)
        progress = tqdm(total=total, initial=start, desc=part.stem, unit="B", unit_scale=True, mininterval=1.0)
        with progress as bar, part.open("ab" if start else "wb") as file:
            for chunk in answer.iter_content(1 << 16):
                file.write(chunk)
                bar.update(len(chunk))
        return length is None or size_of(part) >= start + int(length)


def fetch(remote: Remote, folder: Path, *, noted: str = "", pause: Callable[[float], None] = time.sleep) -> Path:
    """Download one file into ``folder``, continuing an earlier attempt; a complete file is not downloaded again.

    The bytes are written to ``<name>.part``, which is renamed when its size and checksum are correct.

    Args:
        remote: The file to download.
        folder: Folder to write it to; created if it does not exist.
        noted: Checksum of the first download, if none is published.
        pause: Function that waits the given number of seconds between attempts.

    Raises:
        Misuse: the network or the server fails, or the file is not the published one.
    """
    import requests

    path, part = folder / remote.name, folder / f"{remote.name}.part"
    stated = remote.checksum or noted
    algorithm = stated.partition(":")[0]
    if path.is_file() and remote.size in (None, size_of(path)) and (not stated or checksum(path, algorithm) == stated):
        click.echo(f"{remote.name}: complete")
        return path
    if path.is_file() and noted and not remote.checksum:
        raise Misuse(
            f"{path} is not what was downloaded first ({noted} in {CHECKSUMS}): delete it, then run this again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    complete = remote.size is not None and size_of(part) == remote.size
    while not complete:
        before, failure = size_of(part), None
        try:
            complete = receive(remote.url, part, remote.size)
        except requests.RequestException as error:
            failure = error
        if not complete:
            failures = 0 if size_of(part) > before else failures + 1
            if failures == ATTEMPTS:
                raise unreachable(remote.url, failure or EOFError()) from failure
            reason = type(failure).__name__ if failure else "no more bytes"
            click.echo(f"{remote.name}: interrupted ({reason}), trying again", err=True)
            pause(2.0**failures)
    found = checksum(part, algorithm) if stated else ""
    problem = ""
    if remote.size not in (None, size_of(part)):
        problem = f"has {size_of(part):,} bytes instead of {remote.size:,}"
    elif found != stated:
        problem = f"has the checksum {found} instead of {stated}"
    part.with_name(f"{part.name}.etag").unlink(missing_ok=True)
    if problem:
        part.unlink()
        raise Misuse(f"{remote.name} from {remote.url} {problem}; it was deleted: run this again")
    part.replace(path)
    click.echo(f"{remote.name}: {size_of(path):,} bytes" + (f", {stated} is correct" if stated else ""))
    return path


def check_disk_space(files: Sequence[Remote], folder: Path) -> None:
    """Raise Misuse if the disk has no space for the files that are missing in ``folder``, packed and unpacked."""
    missing = sum((file.size or 0) for file in files if not (folder / file.name).is_file())
    existing = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if 2 * missing > free:
        raise Misuse(f"{2 * missing / 1e9:.1f} GB are needed below {folder}, and the disk has {free / 1e9:.1f} GB left")


def download(
    dataset: str, folder: Path, *, only: Sequence[str] = (), unpack: bool = True, max_unpacked: int | None = None
) -> list[Path]:
    """Download the files of ``dataset`` into ``folder``, check them and unpack them.

    Args:
        dataset: ``ravdess`` (speech only; 13 GB with video) or ``meld`` (11 GB).
        folder: Folder to download into, from which the corpus is then prepared.
        only: Glob patterns of file names; all files by default.
        unpack: Whether to unpack the archives.
        max_unpacked: Bytes that unpacking may write; by default a multiple of the size of the release.

    Raises:
        Misuse: a file cannot be downloaded completely, or no file name matches ``only``.
    """
    if dataset == "ravdess":
        listed = [file for record in RAVDESS_RECORDS for file in zenodo_files(record)]
        files, archives = [file for file in listed if ravdess.ARCHIVES.fullmatch(file.name)], ravdess.ARCHIVES
    else:
        files, archives = [Remote(url.rpartition("/")[2], url) for url in MELD_URLS], meld.ARCHIVES
    chosen = [file for file in files if not only or any(fnmatch(file.name, pattern) for pattern in only)]
    if not chosen:
        raise Misuse(f"no file matches {', '.join(only)}; there are {', '.join(file.name for file in files) or 'none'}")
    check_disk_space(chosen, folder)
    notes = folder / CHECKSUMS
    noted: dict[str, Any] = json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else {}
    paths = []
    for file in chosen:
        paths.append(fetch(file, folder, noted=str(noted.get(file.name, ""))))
        if not file.checksum and file.name not in noted:
            noted[file.name] = checksum(paths[-1], "sha256")
            write_atomic(notes, json.dumps(noted, indent=1, sort_keys=True) + "\n")
    if unpack:
        size = ravdess.SIZE if dataset == "ravdess" else meld.SIZE
        unpack_all(folder, archives, limit=max_unpacked or TIMES * size)
    return paths


@click.command("download", cls=Command)
@click.argument("dataset", type=click.Choice(["ravdess", "meld", "iemocap"]))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to download into [default: downloads/DATASET].",
)
@click.option("--only", multiple=True, metavar="PATTERN", help="Only files that match, e.g. 'Audio*' (repeatable).")
@click.option("--no-unpack", is_flag=True, help="Do not unpack; preparing the corpus unpacks the archives.")
@max_unpacked_option
@click.option("--yes", is_flag=True, help="Accept the licence without a prompt.")
def main(
    dataset: str, out: Path | None, only: tuple[str, ...], no_unpack: bool, max_unpacked: int | None, yes: bool
) -> None:
    """Download RAVDESS or MELD; for IEMOCAP, print how to request it."""
    if dataset == "iemocap":
        raise Misuse(IEMOCAP.format(prepare_command("iemocap", "<IEMOCAP_full_release>")))
    click.echo(LICENCES[dataset])
    try:
        accepted = yes or click.confirm("Do you accept these terms?")
    except click.Abort:  # there is no terminal to answer from
        accepted = False
    if not accepted:
        raise Misuse("nothing was downloaded, because the licence was not accepted (--yes accepts it)")
    folder = out or Path("downloads") / dataset
    download(dataset, folder, only=only, unpack=not no_unpack, max_unpacked=max_unpacked)
    click.echo(f"next: {prepare_command(dataset, folder)}")
