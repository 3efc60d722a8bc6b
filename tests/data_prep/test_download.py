"""Downloads from a local server: they are resumed and checked, and every failure gives one sentence."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recordings
from click.testing import Result
from recordings import tarred, zipped

from data_prep.corpora import download
from mer_bench.errors import Misuse

CONTENT = np.random.default_rng(0).bytes(700_000)


def md5(content: bytes) -> str:
    return f"md5:{hashlib.md5(content).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves ``files``, records the requests, and ends each answer after the next number of bytes in ``cuts``."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.ranges = True
        self.shift = 0  # added to the start of a range
        self.asked: list[tuple[str, str]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"

    def handle_error(self, *_: object) -> None:
        """Ignore clients that close the connection."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        asked = self.headers.get("Range", "")
        self.server.asked.append((name, asked))
        if name not in self.server.files:
            self.send_error(404)
            return
        content = self.server.files[name]
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        span = re.fullmatch(r"bytes=(\d+)-", asked)
        start = int(span[1]) if span and self.server.ranges and self.headers.get("If-Range", tag) == tag else 0
        if start:
            start += self.server.shift
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        sent = content[start:]
        self.wfile.write(sent[: self.server.cuts.pop(0)] if self.server.cuts else sent)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    found.files["a.bin"] = CONTENT
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.fixture
def remote(server: Server) -> download.Remote:
    return download.Remote("a.bin", server.url("a.bin"), len(CONTENT), md5(CONTENT))


def fetch(remote: download.Remote, folder: Path, **more: str) -> Path:
    return download.fetch(remote, folder, pause=lambda _: None, **more)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_is_downloaded_only_once(server: Server, remote: download.Remote, tmp_path: Path) -> None:
    path = fetch(remote, tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["a.bin"]
    asked = len(server.asked)
    assert fetch(remote, path.parent) == path
    assert len(server.asked) == asked


def test_download_continues_after_an_interruption(server: Server, remote: download.Remote, tmp_path: Path) -> None:
    server.cuts = [300_000, 200_000]
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    starts = [int(asked.strip("bytes=-") or 0) for _, asked in server.asked]
    assert len(starts) == 3
    assert starts[0] == 0
    assert 200_000 < starts[1] <= 300_000
    assert starts[1] + 100_000 < starts[2] <= starts[1] + 200_000


def test_next_run_continues_after_a_kill(server: Server, remote: download.Remote, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:400_000])
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert server.asked == [("a.bin", "bytes=400000-")]
    (tmp_path / "a.bin").rename(tmp_path / "a.bin.part")  # as after a kill before the file was renamed
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_whole_part_of_unknown_size_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert fetch(download.Remote("a.bin", server.url("a.bin")), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("a.bin", f"bytes={len(CONTENT)}-")]


def test_server_without_ranges_starts_over(server: Server, remote: download.Remote, tmp_path: Path) -> None:
    server.ranges = False
    server.cuts = [300_000]
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_answer_to_another_range_is_not_appended(server: Server, remote: download.Remote, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:400_000])
    server.shift = -10
    assert fetch(remote, tmp_path).read_bytes() == CONTENT


def test_file_that_changed_in_the_meantime_is_not_mixed(server: Server, tmp_path: Path) -> None:
    remote = download.Remote("a.bin", server.url("a.bin"))
    server.cuts = [300_000] + [0] * 20
    with pytest.raises(Misuse, match="cannot reach"):
        fetch(remote, tmp_path)
    assert names(tmp_path) == ["a.bin.part", "a.bin.part.etag"]
    server.cuts = []
    server.files["a.bin"] = changed = CONTENT[::-1]
    assert fetch(remote, tmp_path).read_bytes() == changed
    assert names(tmp_path) == ["a.bin"]


def test_part_longer_than_the_file_is_discarded(server: Server, remote: download.Remote, tmp_path: Path) -> None:
    (tmp_path / "a.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(remote, tmp_path).read_bytes() == CONTENT


def test_server_that_always_fails_is_an_error(server: Server, remote: download.Remote, tmp_path: Path) -> None:
    server.cuts = [0] * 50
    with pytest.raises(Misuse, match=r"cannot reach http.* check the network, then run this again"):
        fetch(remote, tmp_path)
    assert len(server.asked) == download.ATTEMPTS


def test_wrong_size_or_checksum_is_deleted(server: Server, remote: download.Remote, tmp_path: Path) -> None:
    server.files["a.bin"] = bytes(len(CONTENT))
    with pytest.raises(Misuse, match=rf"has the checksum md5:\w+ instead of {md5(CONTENT)}; it was deleted"):
        fetch(remote, tmp_path)
    server.files["a.bin"] = CONTENT[:-1]
    with pytest.raises(Misuse, match="has 699,999 bytes instead of 700,000; it was deleted"):
        fetch(remote, tmp_path)
    assert names(tmp_path) == []
    (tmp_path / "a.bin").write_bytes(bytes(len(CONTENT)))  # damaged on the disk
    server.files["a.bin"] = CONTENT
    assert fetch(remote, tmp_path).read_bytes() == CONTENT


def test_absent_file_and_absent_network_are_one_sentence(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"/no.bin answers 404 Not Found"):
        fetch(download.Remote("no.bin", server.url("no.bin")), tmp_path)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.bin"
    with pytest.raises(Misuse, match="check the network, then run this again; it continues where it stopped"):
        fetch(download.Remote("a.bin", url), tmp_path)


def run(*arguments: Any, answer: str = "") -> Result:
    return recordings.run("download", *arguments, answer=answer)


def refused(*arguments: Any, answer: str = "") -> str:
    return recordings.refused("download", *arguments, answer=answer)


@pytest.fixture
def zenodo(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Zenodo's answers for the two records of RAVDESS, including songs, with tiny zips."""
    wav, mark = "Actor_01/03-01-01-01-01-01-01.wav", "01-01-01-01-01-01-01.csv"
    records = {
        1188976: {
            "Audio_Speech_Actors_01-24.zip": zipped({wav: b"sound"}),
            "Audio_Song_Actors_01-24.zip": zipped({"Actor_01/03-02-01-01-01-01-01.wav": b"a song"}),
            "Video_Speech_Actor_01.zip": zipped({"Actor_01/01-01-01-01-01-01-01.mp4": b"film"}),
        },
        3255102: {"FacialTracking_Actors_01-24.zip": zipped({mark: b"x_0"})},
    }
    for record, files in records.items():
        server.files |= files
        listed = [
            {"key": name, "size": len(content), "checksum": md5(content), "links": {"self": server.url(name)}}
            for name, content in files.items()
        ]
        server.files[f"api/{record}"] = json.dumps({"id": record, "files": listed}).encode()
    monkeypatch.setattr(download, "ZENODO", server.url("api/{}"))
    return server


def test_ravdess_is_fetched_checked_and_unpacked(zenodo: Server, tmp_path: Path) -> None:
    out = tmp_path / "ravdess"
    result = run("ravdess", "--out", out, "--yes")
    assert result.exit_code == 0, result.output
    assert result.output.index("CC BY-NC-SA 4.0") < result.output.index("Audio_Speech")
    assert f"next: make data DATASET=ravdess RAW={out}" in result.output
    assert (out / "unpacked" / "Actor_01" / "03-01-01-01-01-01-01.wav").read_bytes() == b"sound"
    assert (out / "unpacked" / "Actor_01" / "01-01-01-01-01-01-01.mp4").read_bytes() == b"film"
    assert (out / "unpacked" / "01-01-01-01-01-01-01.csv").is_file()
    assert not list(out.glob("*Song*"))
    asked = len(zenodo.asked)
    again = run("ravdess", "--out", out, "--yes")
    assert again.output.count("complete") == 3
    assert "unpacked into" not in again.output
    assert [name for name, _ in zenodo.asked[asked:]] == ["api/1188976", "api/3255102"]


def test_files_of_ravdess_can_be_selected(zenodo: Server, tmp_path: Path) -> None:
    assert (
        run("ravdess", "--out", tmp_path, "--yes", "--no-unpack", "--only", "Audio*", "--only", "Facial*").exit_code
        == 0
    )
    assert names(tmp_path) == ["Audio_Speech_Actors_01-24.zip", "FacialTracking_Actors_01-24.zip"]
    message = refused("ravdess", "--out", tmp_path, "--yes", "--only", "Songs*")
    assert "no file matches Songs*; there are Audio_Speech_Actors_01-24.zip, Video_Speech" in message


def test_wrong_published_checksum_stops_the_command(zenodo: Server, tmp_path: Path) -> None:
    zenodo.files["Audio_Speech_Actors_01-24.zip"] = zenodo.files["Audio_Speech_Actors_01-24.zip"][::-1]
    assert "has the checksum md5:" in refused("ravdess", "--out", tmp_path, "--yes")
    assert not (tmp_path / "unpacked").exists()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (b"<html>", "has an unknown format instead of Zenodo's list of files"),
        (
            b'{"files": [{"key": "a.zip"}]}',
            "has an unknown format instead of Zenodo's list of files (KeyError: 'links')",
        ),
        (
            b'{"files": [{"key": "../a.zip", "size": 1, "checksum": "md5:0", "links": {"self": "http://127.0.0.1/"}}]}',
            "names a file '../a.zip', which is not a plain file name",
        ),
    ],
)
def test_unexpected_answer_of_zenodo_is_one_sentence(
    answer: bytes, complaint: str, zenodo: Server, tmp_path: Path
) -> None:
    zenodo.files["api/1188976"] = answer
    assert complaint in refused("ravdess", "--out", tmp_path, "--yes")
    del zenodo.files["api/1188976"]
    assert "answers 404 Not Found" in refused("ravdess", "--out", tmp_path, "--yes")


def test_full_disk_is_reported_before_the_download(
    zenodo: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
    assert "the disk has 0.0 GB left" in refused("ravdess", "--out", tmp_path / "a" / "b", "--yes")
    assert names(tmp_path) == []


@pytest.mark.parametrize("answer", ["", "n\n"])
def test_nothing_is_fetched_before_the_licence_is_accepted(answer: str, zenodo: Server, tmp_path: Path) -> None:
    assert "the licence was not accepted" in refused("ravdess", "--out", tmp_path, answer=answer)
    assert zenodo.asked == []
    assert run("ravdess", "--out", tmp_path, "--only", "Audio*", answer="y\n").exit_code == 0


@pytest.fixture
def umich(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    archive = tarred({"MELD.Raw/train_splits/dia0_utt0.mp4": b"clip"})
    server.files |= {"MELD.Raw.tar.gz": archive, "train_sent_emo.csv": b"Utterance\n"}
    monkeypatch.setattr(download, "MELD_URLS", (server.url("train_sent_emo.csv"), server.url("MELD.Raw.tar.gz")))
    return server


def test_checksums_of_meld_are_noted_and_checked(umich: Server, tmp_path: Path) -> None:
    command = ("meld", "--out", tmp_path, "--yes")
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert "GPL-3.0" in result.output
    assert (tmp_path / "unpacked" / "MELD.Raw" / "train_splits" / "dia0_utt0.mp4").read_bytes() == b"clip"
    notes = json.loads((tmp_path / "checksums.json").read_text())
    digest = hashlib.sha256(umich.files["MELD.Raw.tar.gz"]).hexdigest()
    assert notes["MELD.Raw.tar.gz"] == f"sha256:{digest}"
    assert len(notes) == 2
    assert run(*command).output.count("complete") == 2
    (tmp_path / "train_sent_emo.csv").write_bytes(b"damaged")
    assert "train_sent_emo.csv is not what was downloaded first" in refused(*command)
    (tmp_path / "train_sent_emo.csv").unlink()
    umich.files["train_sent_emo.csv"] = b"published anew\n"
    assert f"instead of {notes['train_sent_emo.csv']}" in refused(*command)


def test_iemocap_prints_how_to_request_it() -> None:
    message = refused("iemocap")
    assert "IEMOCAP cannot be downloaded: request it from USC SAIL" in message
    assert "https://sail.usc.edu/iemocap/" in message
