"""The corpora as they are distributed: safe unpacking of archives, official folders, and reports of defects."""

from __future__ import annotations

import io
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from recordings import (
    Files,
    iemocap_files,
    lengths,
    meld_csv,
    refused,
    run,
    tarred,
    tracking_csv,
    works,
    write_files,
    zipped,
)

from data_prep.corpora import archives, iemocap, meld, ravdess
from mer_bench.errors import Misuse
from mer_bench.features import open_features
from mer_bench.utterances import read_table

soundfile = pytest.importorskip("soundfile")

TAKES = [take for take in ravdess.all_takes() if take.endswith(("-01", "-02"))][::20][:4]


def wav(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.random.default_rng(seed).normal(size=4800), 16_000, format="WAV")
    return buffer.getvalue()


def tracking(seed: int = 0, note: bytes = b"") -> bytes:
    points = np.random.default_rng(seed).integers(100, 600, (4, 68, 2))
    return tracking_csv(points, **{"note?": "?"}).replace(b"?", note)


def tree(folder: Path) -> dict[str, int]:
    """Every file below a folder except the markers, with the time of its last change."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.endswith(".done"))
    return {p.relative_to(folder).as_posix(): p.stat().st_mtime_ns for p in files}


ANY = re.compile(r".*\.(zip|tar\.gz)")


def unpack_all(raw: Path, names: re.Pattern[str], folder: Path | None = None, limit: int = 10**7) -> Path:
    return archives.unpack_all(raw, names, folder, limit=limit)


def unpack(archive: Path, folder: Path, limit: int = 10**7) -> None:
    archives.unpack(archive, folder, archives.Allowance(limit))


def hostile_zip(name: str, mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("good.txt", b"good")
        info = zipfile.ZipInfo("placeholder")
        info.filename, info.external_attr = name, mode << 16
        archive.writestr(info, b"/etc/passwd")
    return buffer.getvalue()


def hostile_tar(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt", "..\\evil.txt", "C:/evil.txt"])
@pytest.mark.parametrize("hostile", [hostile_zip, hostile_tar])
def test_no_member_escapes_its_folder(name: str, hostile: Callable[[str], bytes], tmp_path: Path) -> None:
    archive = tmp_path / "deep" / ("a.zip" if hostile is hostile_zip else "a.tar.gz")
    archive.parent.mkdir()
    archive.write_bytes(hostile(name))
    with pytest.raises(Misuse, match=r"would be written outside the folder"):
        unpack(archive, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("*evil*"))
    assert not list(tmp_path.rglob("*.done"))


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.zip", hostile_zip("link", stat.S_IFLNK | 0o777), "link"),
        ("a.tar.gz", hostile_tar("link", tarfile.SYMTYPE), "link"),
        ("a.tar.gz", hostile_tar("link", tarfile.LNKTYPE), "link"),
        ("a.tar.gz", hostile_tar("pipe", tarfile.FIFOTYPE), "device"),
        ("a.tar.gz", hostile_tar("disk", tarfile.BLKTYPE), "device"),
    ],
    ids=["zip", "symbolic", "hard", "pipe", "block"],  # the bytes of an archive contain the time
)
def test_links_and_devices_are_refused(name: str, content: bytes, kind: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Misuse, match=f"is refused: its member '{'link' if kind == 'link' else '....'}' is a {kind}"):
        unpack(tmp_path / name, tmp_path / "out")
    assert not [p for p in (tmp_path / "out").rglob("*") if p.is_symlink() or p.is_fifo()]


FILES = {f"Actor_01/{i}.wav": bytes([i]) * (1000 + i) for i in range(5)}
CLUTTER = {"__MACOSX/Actor_01/._0.wav": b"x", "Actor_01/._0.wav": b"x", "Actor_01/.DS_Store": b"x"}


@pytest.fixture(params=["zip", "tar.gz"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name, content = f"a.{request.param}", (zipped if request.param == "zip" else tarred)(FILES | CLUTTER)
    return write_files(tmp_path / "raw", {name: content}) / name


def content_of(folder: Path) -> Files:
    return {name: (folder / name).read_bytes() for name in tree(folder)}


def test_archive_is_unpacked_once_without_clutter(archive: Path) -> None:
    raw = archive.parent
    assert unpack_all(raw, ANY) == raw
    assert content_of(raw / "unpacked") == FILES
    before = tree(raw)
    unpack_all(raw, ANY)
    assert tree(raw) == before


def test_kill_leaves_complete_files_and_the_next_run_continues(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, written = archive.parent, []
    write = archives.write_member

    def killed(target: Path, *rest: object) -> None:
        if len(written) == 3:
            target.with_name(f".{target.name}.part").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(target.name)
        write(target, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(archives, "write_member", killed)
    with pytest.raises(KeyboardInterrupt):
        unpack_all(raw, ANY)
    before = tree(raw / "unpacked")
    monkeypatch.setattr(archives, "write_member", lambda *a: (written.append(a[0].name), write(*a)))
    unpack_all(raw, ANY)
    assert written == [f"{i}.wav" for i in range(5)]  # each once
    assert content_of(raw / "unpacked") == FILES
    after = tree(raw / "unpacked")
    assert {name: after[name] for name in before if not name.endswith(".part")}.items() <= before.items()


def test_file_of_another_size_is_written_again(archive: Path) -> None:
    raw = archive.parent
    write_files(raw / "unpacked", {"Actor_01/3.wav": b"cut"})
    unpack_all(raw, ANY)
    assert content_of(raw / "unpacked") == FILES


def test_manually_unpacked_archive_is_not_unpacked_again(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = archive.parent
    write_files(raw / "by hand", FILES)
    unpack_all(raw, ANY)
    assert tree(raw / "unpacked") == {}
    assert "0 files unpacked" in capsys.readouterr().out


def test_archive_that_was_replaced_is_unpacked_again(archive: Path) -> None:
    raw = archive.parent
    unpack_all(raw, ANY)
    more = FILES | {"Actor_01/9.wav": b"more"}
    archive.write_bytes((zipped if archive.suffix == ".zip" else tarred)(more))
    unpack_all(raw, ANY)
    assert content_of(raw / "unpacked") == more


def test_truncated_archive_is_one_sentence(archive: Path) -> None:
    content = archive.read_bytes()
    for cut in (len(content) - 5, len(content) // 2, 10, 0):
        archive.write_bytes(content[:cut])
        with pytest.raises(Misuse, match=r"is damaged or incomplete \(.+\): download it again"):
            unpack_all(archive.parent, ANY)
    assert not list(archive.parent.rglob("*.done"))


def test_damaged_member_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.wav", b"A" * 1000)
    path.write_bytes(path.read_bytes().replace(b"A" * 1000, b"A" * 999 + b"B"))
    with pytest.raises(Misuse, match="Bad CRC-32"):
        unpack(path, tmp_path / "out")
    assert tree(tmp_path / "out") == {}


def test_archives_are_unpacked_elsewhere_on_request(archive: Path, tmp_path: Path) -> None:
    raw, out = archive.parent, tmp_path / "elsewhere"
    before = tree(raw)
    assert unpack_all(raw, ANY, out) == out
    assert content_of(out) == FILES
    assert tree(raw) == before
    (out / "blocked").write_bytes(b"")
    with pytest.raises(Misuse, match="cannot unpack"):
        unpack(archive, out / "blocked")


SPARE = archives.BLOCK  #: what each file counts beside its bytes


def test_content_may_take_all_that_is_allowed_and_no_byte_more(archive: Path) -> None:
    raw, needed = archive.parent, sum(map(len, FILES.values())) + len(FILES) * SPARE
    with pytest.raises(Misuse, match=rf"is refused: its content would take more than {needed - 1:,} bytes \(at 'Actor"):
        unpack_all(raw, ANY, limit=needed - 1)
    assert not list(raw.rglob("*.done"))
    assert not list(raw.rglob("*.part"))
    unpack_all(raw, ANY, limit=needed)
    assert content_of(raw / "unpacked") == FILES


def test_all_archives_share_what_is_allowed(tmp_path: Path) -> None:
    some, others = ({f"{folder}/{i}.wav": bytes(2000) for i in range(10)} for folder in ("some", "others"))
    inner = tarred(others)
    raw = write_files(tmp_path / "raw", {"a.zip": zipped(some), "b.zip": zipped({"b.tar.gz": inner})})
    needed = 20 * 2000 + len(inner) + 21 * SPARE
    with pytest.raises(Misuse, match=r"b\.tar\.gz is refused: its content would take"):
        unpack_all(raw, ANY, tmp_path / "u", limit=needed - 1)
    unpack_all(raw, ANY, tmp_path / "v", limit=needed)
    assert content_of(tmp_path / "v") == {**some, **others}


@pytest.mark.parametrize("packed", [zipped, tarred])
def test_one_file_may_take_a_quarter(tmp_path: Path, packed: Callable[[Files], bytes]) -> None:
    path = tmp_path / ("a.zip" if packed is zipped else "a.tar.gz")
    path.write_bytes(packed({"a.wav": bytes(1000)}))
    with pytest.raises(Misuse, match=r"one file would take more than 999 bytes \(at 'a\.wav'\).*--max-unpacked"):
        unpack(path, tmp_path / "out", limit=3999)
    assert tree(tmp_path / "out") == {}


def test_bytes_are_counted_that_the_archive_does_not_state(tmp_path: Path) -> None:
    written = archives.Allowance(4 * 10_000)
    with pytest.raises(archives.TooLarge, match="one file would take more than 10,000 bytes"):
        archives.write_member(tmp_path / "a", 10, lambda: io.BytesIO(bytes(5 << 20)), written)
    assert written.written <= (1 << 20) + SPARE, "it stops at the first part that is too much"
    assert tree(tmp_path) == {}


def test_empty_files_count_too(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({f"{i}.wav": b"" for i in range(100)}))
    with pytest.raises(Misuse, match="is refused: its content would take more than 40,000 bytes"):
        unpack(tmp_path / "a.zip", tmp_path / "out", limit=40_000)


def test_sparse_file_in_a_tarball_counts_what_it_would_take(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.wav")
    info.size, info.pax_headers = (
        512,
        {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.size": str(10**12),
            "GNU.sparse.numblocks": "1",
            "GNU.sparse.map": "0,512",
        },
    )
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", format=tarfile.PAX_FORMAT) as content:
        content.addfile(info, io.BytesIO(bytes(512)))
    with pytest.raises(Misuse, match="is refused: one file would take more than"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("200GiB", 200 << 30), ("5 GB", 5 * 10**9), ("1.5kB", 1500), ("2kib", 2048), (" 1TiB ", 1 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    assert archives.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "GiB", "5 G", "1e9", "nan", "1GiB2", "٣", "1" * 30])
@pytest.mark.parametrize("command", ["ravdess", "meld", "iemocap", "download meld"])
def test_wrong_size_is_refused(command: str, text: str, tmp_path: Path) -> None:
    more = () if "download" in command else ("--raw", tmp_path)
    result = run(*command.split(), *more, f"--max-unpacked={text}")
    assert result.exit_code == 2
    assert f"{text!r} is no size; give bytes or a number with kB, MB" in " ".join(
        result.output.replace("│", " ").split()
    )


def test_limit_of_a_corpus_is_a_multiple_of_its_release_and_an_option(
    zenodo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []
    monkeypatch.setattr(
        "data_prep.prepare.common.unpack_all",
        lambda raw, *rest, limit: (limits.append(limit), archives.unpack_all(raw, *rest, limit=limit))[1],
    )
    command = ("ravdess", "--raw", zenodo, "--out", tmp_path / "data", "--partial", "--unpack", tmp_path / "u")
    assert "with --max-unpacked, such as 200GiB" in refused(*command, "--max-unpacked", "20kB")
    works(*command)
    for name in ("meld", "iemocap"):
        run(name, "--raw", tmp_path / "data")
    assert limits == [20_000, 52 * 10**9, 44 * 10**9, 80 * 10**9]


@pytest.fixture
def zenodo(tmp_path: Path) -> Path:
    """Four takes of two actors in Zenodo's archives, two without video, one without landmarks."""
    raw = tmp_path / "zenodo"
    sound = {f"Actor_{take[-2:]}/03-{take}.wav": wav(i) for i, take in enumerate(TAKES)}
    sound |= {f"__MACOSX/Actor_01/._03-{TAKES[0]}.wav": b"x"}
    marks = {f"01-{take}.csv": tracking(i, b"\xe9\xff") for i, take in enumerate(TAKES[:3])}
    film = {f"Actor_01/0{m}-{take}.mp4": b"no film" for m in (1, 2) for take in TAKES if take.endswith("-01")}
    archives_of = {
        "Audio_Speech_Actors_01-24.zip": sound,
        "FacialTracking_Actors_01-24.zip": marks | {"01-02" + TAKES[0][2:] + ".csv": tracking()},
        "Video_Speech_Actor_01.zip": film,
        "Video_Song_Actor_01.zip": {"Actor_01/01-02-01-01-01-01-01.mp4": b"a song"},
    }
    return write_files(raw, {name: zipped(files) for name, files in archives_of.items()})


def test_ravdess_is_prepared_from_its_zips(zenodo: Path, tmp_path: Path) -> None:
    command = ("ravdess", "--raw", zenodo, "--out", tmp_path / "data", "--partial")
    output = works(*command)
    corpus = tmp_path / "data" / "ravdess"
    table = read_table(corpus)
    assert table["id"].tolist() == TAKES
    assert table["media"].tolist() == [f"unpacked/Actor_{take[-2:]}/03-{take}.wav" for take in TAKES]
    assert lengths(corpus / "mfcc") == [10] * 4
    assert lengths(corpus / "landmarks") == [4, 4, 4, 0]
    assert "nothing of actor 03, 04" in output
    silent = [take for take in TAKES if take.endswith("-02")]
    assert f"video: missing for {len(silent)} utterances: no file ({', '.join(silent)})" in output
    assert f"landmarks: missing for 1 utterances: no file ({TAKES[3]})" in output
    assert "audio: missing" not in output
    assert not list(zenodo.rglob("*-02-*-01-01-01-01.mp4")), "the song stays packed"
    before = tree(zenodo)
    again = works(*command)
    assert again.count("already done") == 2
    assert "unpacked into" not in again
    assert tree(zenodo) == before


def test_every_layout_of_ravdess_gives_the_same_features(zenodo: Path, tmp_path: Path) -> None:
    works("ravdess", "--raw", zenodo, "--out", tmp_path / "a", "--partial")
    loose = tmp_path / "loose"
    loose.mkdir()
    for path in (zenodo / "unpacked").rglob("*-*.*"):
        if path.is_file():
            path.replace(loose / path.name)
    works("ravdess", "--raw", loose, "--out", tmp_path / "b", "--partial")
    for name in ("mfcc", "landmarks"):
        a, b = (open_features(tmp_path / side / "ravdess" / name) for side in "ab")
        assert a.spec.values_sha256 == b.spec.values_sha256


def test_ravdess_zips_are_unpacked_elsewhere_on_request(zenodo: Path, tmp_path: Path) -> None:
    before = tree(zenodo)
    works("ravdess", "--raw", zenodo, "--unpack", tmp_path / "u", "--out", tmp_path / "data", "--partial")
    assert tree(zenodo) == before
    assert read_table(tmp_path / "data" / "ravdess")["media"][0] == f"Actor_01/03-{TAKES[0]}.wav"


def test_copies_and_different_versions_of_a_take_are_reported(zenodo: Path, tmp_path: Path) -> None:
    command = ("ravdess", "--raw", zenodo, "--out", tmp_path / "data", "--partial")
    works(*command)
    name = f"03-{TAKES[0]}.wav"
    (zenodo / name).write_bytes((zenodo / "unpacked" / "Actor_01" / name).read_bytes())
    assert "1 files are copies of others" in works(*command)
    (zenodo / name).write_bytes(wav()[:-100])
    output = works(*command)
    assert f"1 files exist in versions of different size: {name}; the one nearest to" in output
    assert read_table(tmp_path / "data" / "ravdess")["media"][0] == name


def test_truncated_ravdess_zip_is_one_sentence(zenodo: Path) -> None:
    path = zenodo / "Audio_Speech_Actors_01-24.zip"
    path.write_bytes(path.read_bytes()[:-50])
    assert "Audio_Speech_Actors_01-24.zip is damaged or incomplete" in refused("ravdess", "--raw", zenodo, "--partial")


FOLDERS = {"train": "train_splits", "dev": "dev_splits_complete", "test": "output_repeated_splits_test"}


def split_csv(split: str, repeat: bool = False) -> bytes:
    defect = {"train": (125, 3), "dev": (110, 7), "test": (38, 4)}[split]
    numbers = [(0, 0), (0, 1), defect, *([(0, 1)] if repeat else [])]
    return meld_csv([("Hi!", "Joey", "joy", "positive", *n, "0:00:01,0", "0:00:02,0") for n in numbers]).encode()


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """MELD.Raw.tar.gz with a tarball per split, clips that are not videos, and other files."""
    outer: Files = {}
    for split, folder in FOLDERS.items():
        clips = {f"{folder}/dia0_utt{i}.mp4": f"{split} {i}".encode() for i in range(2)}
        if split == "train":
            clips[f"{folder}/dia125_utt3.mp4"] = b""
        if split == "test":
            clips |= {f"{folder}/dia38_utt4.mp4": b"long", f"{folder}/dia99_utt0.mp4": b"a stranger"}
            clips |= {f"{folder}/final_videos_testdia0_utt0.mp4": b"x", f"{folder}/._dia0_utt0.mp4": b"x"}
        outer[f"MELD.Raw/{split}.tar.gz"] = tarred(clips | {f"._{folder}": b"x"})
        outer[f"MELD.Raw/{split}_sent_emo.csv"] = split_csv(split)
    return write_files(tmp_path / "meld", {"MELD.Raw.tar.gz": tarred(outer)})


@pytest.fixture
def no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the text encoder, which has its own tests."""
    monkeypatch.setattr("data_prep.prepare.common.extract_text", lambda *_, **__: None)


@pytest.mark.usefixtures("no_text")
def test_meld_is_prepared_from_its_tarballs_within_a_tarball(official: Path, tmp_path: Path) -> None:
    command = ("meld", "--raw", official, "--out", tmp_path / "data", "--partial")
    output = run(*command).output
    assert "none of 9 utterances could be read" in output, output  # the clips are not videos
    folder = official / "unpacked" / "MELD.Raw"
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == sorted(FOLDERS.values())
    assert not list(folder.glob("*.tar.gz"))
    assert not [p for p in folder.rglob("._*")]
    assert (folder / "train_splits" / "dia0_utt1.mp4").read_bytes() == b"train 1"
    assert (folder / "output_repeated_splits_test" / "dia0_utt1.mp4").read_bytes() == b"test 1"
    assert "clips: 1 of 3 validation clips are missing, 1 of them known defects: validation_dia110_utt7" in output
    assert "clips: missing for 1 utterances: the file is empty (train_dia125_utt3)" in output
    assert "clips: 1 files of output_repeated_splits_test belong to no row (first: dia99_utt0.mp4)" in output
    assert "3 train utterances instead of 9,989" in output
    assert "train_dia125_utt3: the clip cannot be read" in output
    assert read_table(tmp_path / "data" / "meld")["media"][0] == "train_splits/dia0_utt0.mp4"
    before = tree(official)
    assert "files unpacked" not in run(*command).output
    assert tree(official) == before


@pytest.mark.usefixtures("no_text")
def test_meld_continues_after_a_kill(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack_one = archives.unpack

    def killed(archive: Path, *rest: object) -> None:
        if archive.name == "test.tar.gz":
            raise KeyboardInterrupt
        unpack_one(archive, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(archives, "unpack", killed)
    with pytest.raises(KeyboardInterrupt):
        unpack_all(official, meld.ARCHIVES)
    monkeypatch.setattr(archives, "unpack", unpack_one)
    kept = tree(official / "unpacked" / "MELD.Raw" / "dev_splits_complete")
    assert kept
    unpack_all(official, meld.ARCHIVES)
    assert tree(official / "unpacked" / "MELD.Raw" / "dev_splits_complete") == kept
    assert (official / "unpacked" / "MELD.Raw" / "output_repeated_splits_test" / "dia0_utt0.mp4").is_file()


def test_utterance_twice_in_meld_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, {f"{split}_sent_emo.csv": split_csv(split, repeat=split == "dev") for split in FOLDERS})
    message = refused("meld", "--raw", tmp_path, "--partial")
    assert "dev_sent_emo.csv holds 1 utterances more than once (first: dia0_utt1)" in message


def iemocap_release() -> Files:
    root, dialogues = "IEMOCAP_full_release", ("Ses01F_impro01", "Ses01M_impro02")
    rows = [(i, f"{d}_F00{i}", "neu", "Caf\xe9." if i == 0 else None) for d in dialogues for i in range(2)]
    files = {f"{root}/{name}": content for name, content in iemocap_files(rows).items()}
    files |= {f"{root}/Session1/sentences/wav/{d}/{d}_F000.wav": wav() for d in dialogues}
    return files | {f"{root}/Session1/dialog/avi/DivX/{dialogues[0]}.avi": b"a film"}


@pytest.mark.usefixtures("no_text")
@pytest.mark.parametrize("name", ["IEMOCAP_full_release.tar.gz", "IEMOCAP_full_release_withoutVideos.zip"])
def test_iemocap_is_prepared_from_its_archive(name: str, tmp_path: Path) -> None:
    raw = write_files(tmp_path / "raw", {name: (zipped if name.endswith("zip") else tarred)(iemocap_release())})
    output = works("iemocap", "--raw", raw, "--out", tmp_path / "data", "--partial")
    assert "holds 4 of IEMOCAP's 10,039 utterances" in output
    assert "audio: missing for 2 utterances: the release's file is absent (Ses01F_impro01_F001, Ses01M" in output
    assert "video: missing for 1 utterances: the release's file is absent (Ses01M_impro02)" in output
    assert lengths(tmp_path / "data" / "iemocap" / "mfcc") == [10, 0, 10, 0]
    assert read_table(tmp_path / "data" / "iemocap")["text"][0] == "Caf\N{REPLACEMENT CHARACTER}."


def test_utterance_twice_in_iemocap_is_named(tmp_path: Path) -> None:
    write_files(tmp_path, iemocap_release())
    folder = tmp_path / "IEMOCAP_full_release/Session1/dialog/EmoEvaluation"
    (folder / "Ses01F_impro01 (copy).txt").write_bytes((folder / "Ses01F_impro01.txt").read_bytes())
    message = refused("iemocap", "--raw", tmp_path, "--partial")
    assert "hold 2 utterances more than once (first: Ses01F_impro01_F000)" in message


def test_archive_names_are_the_official_ones() -> None:
    official = {
        ravdess.ARCHIVES: [
            "Video_Speech_Actor_01.zip",
            "Audio_Speech_Actors_01-24.zip",
            "FacialTracking_Actors_01-24.zip",
        ],
        meld.ARCHIVES: ["MELD.Raw.tar.gz", "train.tar.gz", "dev.tar.gz", "test.tar.gz"],
        iemocap.ARCHIVES: ["IEMOCAP_full_release.tar.gz", "IEMOCAP_full_release_withoutVideos.tar.gz"],
    }
    for pattern, names in official.items():
        assert all(pattern.fullmatch(name) for name in names)
        assert not any(pattern.fullmatch(name) for name in ("Video_Song_Actor_01.zip", "Audio_Song_Actors_01-24.zip"))
