"""Fetch a corpus that may be fetched: its licence first, then files that resume, are checked, and are unpacked.

Zenodo publishes the name, size and md5 of each file of a record, so that nothing of these is written down here. MELD's
makers publish no checksum; its sha256 is noted at the first download and checked at each later one.
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

from data_prep.cli import Command
from data_prep.corpora import meld, ravdess
from data_prep.corpora.archives import unpack_all
from mer_bench.errors import Misuse
from mer_bench.files import write_atomic

ZENODO = "https://zenodo.org/api/records/{}"
RAVDESS_RECORDS = (1188976, 3255102)  #: sound and film; facial landmarks
MELD_URLS = (
    *(
        f"https://raw.githubusercontent.com/declare-lab/MELD/master/data/MELD/{s}_sent_emo.csv"
        for s in ("train", "dev", "test")
    ),
    "https://huggingface.co/datasets/declare-lab/MELD/resolve/main/MELD.Raw.tar.gz",
)
LICENCES = {
    "ravdess": "RAVDESS is licensed CC BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/): no "
    "commercial use, credit to Livingstone and Russo (2018), and the same licence for what is made from it.",
    "meld": "MELD's annotations come under the GPL-3.0 (https://github.com/declare-lab/MELD); its clips are from "
    "the television series Friends and remain its owners': for research only, credit to Poria et al. (2019).",
}
IEMOCAP = (
    "IEMOCAP cannot be downloaded: ask USC SAIL for it with the form at "
    "https://sail.usc.edu/iemocap/iemocap_release.htm, then run make data DATASET=iemocap RAW=<IEMOCAP_full_release>"
)
NOTES = "checksums.json"  #: sha256 of what has no published checksum
ATTEMPTS = 5  #: that bring nothing before a download gives up
TIMEOUT = 60  #: seconds without a byte


@dataclass(frozen=True)
class Remote:
    """A file to fetch, and what is published about it."""

    name: str
    url: str
    size: int | None = None
    checksum: str = ""  #: ``md5:...``; "" where none is published


def zenodo_files(record: int) -> list[Remote]:
    """The files of a Zenodo record, as its API states them.

    Raises:
        Misuse: Zenodo cannot be reached, or answers otherwise than it is known to.
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
        raise Misuse(f"{url} does not list its files as Zenodo does ({type(error).__name__}: {error})") from error
    strange = [file.name for file in found if not re.fullmatch(r"\w[\w. -]*", file.name)]
    if strange:
        raise Misuse(f"{url} names a file {strange[0]!r}, which is no plain file name")
    return found


def unreachable(url: str, error: Exception) -> Misuse:
    """The sentence for a network that fails."""
    reason = type(error).__name__
    return Misuse(f"cannot reach {url} ({reason}): check the network, then run this again; what has arrived is kept")


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def checksum(path: Path, algorithm: str) -> str:
    """Hash of a file as ``algorithm:digits``."""
    import pooch

    return f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"


def receive(url: str, part: Path, size: int | None = None) -> bool:
    """Ask a server once for what ``part`` lacks; whether the file is whole after that.

    A server that knows no ranges, or whose file has changed since, sends all of it: the file then starts over.

    Raises:
        Misuse: the server refuses.
        requests.RequestException: the network fails; what has arrived stays.
    """
    import requests
    from tqdm import tqdm

    have, tag = size_of(part), part.with_name(f"{part.name}.etag")
    headers = {"Accept-Encoding": "identity"}  # or else the length is that of compressed bytes
    if have:
        headers["Range"] = f"bytes={have}-"
        if tag.is_file():
            headers["If-Range"] = tag.read_text(encoding="utf-8")
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if answer.status_code == 416:  # there is nothing behind what we have
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
        if etag.startswith('"'):  # a weak one promises no equal bytes
            write_atomic(tag, etag)
        else:
            tag.unlink(missing_ok=True)
        length = answer.headers.get("Content-Length")
        with (
            tqdm(total=size or (start + int(length) if length else None), initial=start, desc=part.stem, unit="B",
                 unit_scale=True, mininterval=1.0) as bar,
            part.open("ab" if start else "wb") as file,
        ):  # fmt: skip
            for chunk in answer.iter_content(1 << 16):
                file.write(chunk)
                bar.update(len(chunk))
        return length is None or size_of(part) >= start + int(length)


def fetch(remote: Remote, folder: Path, *, noted: str = "", pause: Callable[[float], None] = time.sleep) -> Path:
    """Download one file into ``folder``, going on where an earlier attempt broke off; a complete file is kept.

    The bytes arrive in ``<name>.part``, which gets its name once its size and checksum are right.

    Args:
        remote: The file.
        folder: Created if need be.
        noted: The checksum that the first download had, where none is published.
        pause: Waits between attempts, so many seconds.

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
        raise Misuse(f"{path} is not what was downloaded first ({noted} in {NOTES}): delete it, then run this again")
    folder.mkdir(parents=True, exist_ok=True)
    failures = 0
    whole = remote.size is not None and size_of(part) == remote.size
    while not whole:
        before, failure = size_of(part), None
        try:
            whole = receive(remote.url, part, remote.size)
        except requests.RequestException as error:
            failure = error
        if not whole:
            failures = 0 if size_of(part) > before else failures + 1
            if failures == ATTEMPTS:
                raise unreachable(remote.url, failure or EOFError()) from failure
            reason = type(failure).__name__ if failure else "no more bytes"
            click.echo(f"{remote.name}: broke off ({reason}), asking again", err=True)
            pause(2.0**failures)
    found = checksum(part, algorithm) if stated else ""
    complaint = ""
    if remote.size not in (None, size_of(part)):
        complaint = f"has {size_of(part):,} bytes instead of {remote.size:,}"
    elif found != stated:
        complaint = f"has the checksum {found} instead of {stated}"
    part.with_name(f"{part.name}.etag").unlink(missing_ok=True)
    if complaint:
        part.unlink()
        raise Misuse(f"{remote.name} from {remote.url} {complaint}; it was deleted: run this again")
    part.replace(path)
    click.echo(f"{remote.name}: {size_of(path):,} bytes" + (f", {stated} is right" if stated else ""))
    return path


def room_for(files: Sequence[Remote], folder: Path) -> None:
    """Raise Misuse if the disk cannot take what is still to come, packed and unpacked."""
    missing = sum((file.size or 0) for file in files if not (folder / file.name).is_file())
    above = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(above).free
    if 2 * missing > free:
        raise Misuse(f"{2 * missing / 1e9:.1f} GB are needed below {folder}, and the disk has {free / 1e9:.1f} GB left")


def download(dataset: str, folder: Path, *, only: Sequence[str] = (), unpack: bool = True) -> list[Path]:
    """Fetch the files of ``dataset`` into ``folder``, check them and unpack them.

    Args:
        dataset: ``ravdess`` (its speech; 13 GB with video) or ``meld`` (11 GB).
        folder: The RAW of a later ``make data``.
        only: Patterns of file names; all by default.
        unpack: Whether archives are unpacked.

    Raises:
        Misuse: a file cannot be had whole, or no file's name is like ``only``.
    """
    if dataset == "ravdess":
        listed = [file for record in RAVDESS_RECORDS for file in zenodo_files(record)]
        files, archives = [file for file in listed if ravdess.ARCHIVES.fullmatch(file.name)], ravdess.ARCHIVES
    else:
        files, archives = [Remote(url.rpartition("/")[2], url) for url in MELD_URLS], meld.ARCHIVES
    chosen = [file for file in files if not only or any(fnmatch(file.name, pattern) for pattern in only)]
    if not chosen:
        raise Misuse(f"no file is like {', '.join(only)}; there are {', '.join(file.name for file in files) or 'none'}")
    room_for(chosen, folder)
    notes = folder / NOTES
    noted: dict[str, Any] = json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else {}
    paths = []
    for file in chosen:
        paths.append(fetch(file, folder, noted=str(noted.get(file.name, ""))))
        if not file.checksum and file.name not in noted:
            noted[file.name] = checksum(paths[-1], "sha256")
            write_atomic(notes, json.dumps(noted, indent=1, sort_keys=True) + "\n")
    if unpack:
        unpack_all(folder, archives)
    return paths


@click.command("download", cls=Command)
@click.argument("dataset", type=click.Choice(["ravdess", "meld", "iemocap"]))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder [default: downloads/DATASET].")
@click.option("--only", multiple=True, metavar="PATTERN", help="Only files like this, e.g. 'Audio*' (repeatable).")
@click.option("--no-unpack", is_flag=True, help="Leave archives packed; preparing the corpus unpacks them.")
@click.option("--yes", is_flag=True, help="Accept the licence without being asked.")
def main(dataset: str, out: Path | None, only: tuple[str, ...], no_unpack: bool, yes: bool) -> None:
    """Fetch RAVDESS or MELD; says how to ask for IEMOCAP."""
    if dataset == "iemocap":
        raise Misuse(IEMOCAP)
    click.echo(LICENCES[dataset])
    try:
        accepted = yes or click.confirm("Do you accept that?")
    except click.Abort:  # nobody is there to answer
        accepted = False
    if not accepted:
        raise Misuse("nothing was downloaded, because the licence was not accepted (--yes accepts it)")
    folder = out or Path("downloads") / dataset
    download(dataset, folder, only=only, unpack=not no_unpack)
    click.echo(f"next: make data DATASET={dataset} RAW={folder}")


if __name__ == "__main__":
    main()
