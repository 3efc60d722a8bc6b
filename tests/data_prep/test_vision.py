"""Vision: the correct frames of a video, the correct part of each, and the features of frozen extractors."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import recordings
from click.testing import Result
from recordings import draw_face, track, write_corpus

from data_prep.corpora.base import Clip, Unreadable
from data_prep.corpora.clips import audio_clips, vision_clips
from data_prep.extract import MISSING, REMARKS, Extractor
from data_prep.extractors import faces, vision
from data_prep.extractors.openface import COLUMNS
from data_prep.extractors.video import moments, probe, read
from data_prep.extractors.vision import NO_FACE, SOME_FACES, VISION, FrameSampling
from mer_bench.errors import Misuse
from mer_bench.features import open_features, verify_features

cv2 = pytest.importorskip("cv2")
pytest.importorskip("decord")

TAKES = ("01-01-01-01-01-01", "01-02-01-01-01-01", "01-03-01-01-01-01", "01-04-01-01-01-01")


def film(path: Path, frames: Sequence[np.ndarray], fps: float = 25.0) -> Path:
    """Encode RGB frames: MPEG-4 in an mp4, motion JPEG in an avi."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2] if len(frames) else (90, 160)
    code = {".mp4": "mp4v", ".avi": "MJPG"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), fps, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def numbered(count: int, width: int = 160, height: int = 90) -> list[np.ndarray]:
    """Frames that show their numbers as eight bright or dark stripes."""
    frame = np.zeros((height, width, 3), np.uint8)
    return [
        frame + np.repeat(200 * (i >> np.arange(8) & 1).astype(np.uint8), width // 8)[:, None] for i in range(count)
    ]


def numbers(pixels: np.ndarray) -> list[int]:
    stripes = pixels.reshape(len(pixels), pixels.shape[1], 8, -1).mean(axis=(1, 3))
    return ((stripes > 100) @ (1 << np.arange(8))).tolist()


def seen(path: Path, clip: Clip | None = None, **when: Any) -> list[int]:
    video = probe(path)
    return numbers(read(video, video.at(moments(video, clip or Clip("u", path), **when))))


def run(*arguments: Any) -> Result:
    return recordings.run("vision", *arguments)


# --- frames -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_frames_lie_evenly_over_the_clip(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name, numbered(60))
    assert seen(path, count=5) == [6, 18, 30, 42, 54]
    assert seen(path, count=1) == [30]
    assert seen(path, fps=2.5) == [5, 15, 25, 35, 45, 55]
    assert seen(path, fps=0.01) == [59]  # half of the step is beyond the end
    assert seen(film(tmp_path / f"short-{name}", numbered(3)), count=6) == [0, 0, 1, 1, 2, 2]
    square = Clip("u", film(tmp_path / f"square-{name}", numbered(150, 96, 96)))
    assert numbers(FrameSampling(count=150, side=96)(square).pixels) == list(range(150))  # decoded in several parts


def test_frames_lie_within_the_utterances_span(tmp_path: Path) -> None:
    path = film(tmp_path / "a.avi", numbered(75))
    assert seen(path, Clip("u", path, start=1.0, end=2.0), count=5) == [27, 32, 37, 42, 47]
    assert seen(path, Clip("u", path, start=2.0, end=99.0), count=5) == [52, 57, 62, 67, 72]
    assert seen(path, Clip("u", path, start=1.0, end=2.0), fps=5) == [27, 32, 37, 42, 47]


def test_a_half_is_that_half_at_every_size(tmp_path: Path) -> None:
    picture = np.zeros((90, 160, 3), np.uint8)
    picture[:, :80, 0] = picture[:, 80:, 2] = 200  # red left, blue right
    path = film(tmp_path / "a.avi", [picture] * 5)
    for half, channel in (("left", 0), ("right", 2)):
        for size in (None, (40, 45)):
            video = probe(path, half)
            pixels = read(video, np.array([0, 4]), size)
            assert (video.width, video.height) == (80, 90)
            assert pixels.shape == (2, *((45, 40) if size else (90, 80)), 3)
            inner = pixels[:, :, 4:-4].mean(axis=(0, 1, 2))
            assert inner[channel] > 180
            assert np.delete(inner, channel).max() < 20


#: thirty frames of :func:`numbered`, 64 x 16, MPEG-4 with a key frame every 15, in two forms that OpenCV cannot write:
#: an AVI with B-frames, whose packets have no presentation times, and an mp4 whose first ten frames were removed
#: without re-encoding, so that the file still contains them as hidden frames
B_FRAMES = (
    b"c-rk*Ur19?7(e$;Hq*H+b#!H<QV_#}))<z;bP_D=um3W$z-wJ%s}27mL7^={A1cV2W*QYDW-lRBoAi*2Vm$>GJqSWxupR=b?MX?azH{##o_l?%XU~"
    b"s)clY=E&i%ggedpenb80HRUb_vUiu%gJqm{LFOIs203GIRAF2C;pLdf#~p~+?>!LkLReEAkJvVuI)bt7=BFgQ9o+XG-ytS-OM;XPL6BFEu4dCEPG?"
    b"FRb;NclYw9iG2nhkLuk<$Mg{kQB?fG56t<$B%F@C{5uGhj1QIP*6}%P*6}%P*6}%P*7|t;QfI#2B8)q7=WK|Ws~<}MMvKW3X07Lyie<a??2em<;VM"
    b"^C6dZaCE@b&X^y->%M_-6zLkzXuxV^AR}TC+vKZhmV&U7ayQ9g-LVUi*7F?BfTICH{CQ_Yna&H$~R<V|$XtzaS+}MN_PEiJU;gRF2`F%yA@S7pF)>"
    b"*)sPGNtx;;-eMug#(4beSRkLw|*ge}{)yb313SmX*>(VN7qoW}T5{lB1|~3FmZPuXu3C95S5=Jygx|E}qdRR8MMQ9JxV`Y*Ms(-YK5L^(>Pk2YF#C"
    b"W84^3X?PC4&<(7W{#Q4*iEaIH+)B<`41e8ZpN2%-r}UDFMEQ0@tT$YsOMW3cdyj{#Zmd`p<#elSy>t7SV!0=&dWNA!{hV=J-$Xt$EDD3@9mJl6C28"
    b"34q({}OM$sik#HiGlOhvm7{nLM3K%_Rp`^NOHpQ?OkTb<mS{P|^_n_QVuUdqRss-U#$1y#0DqK_%fH<f2>PDX!|l}|dHHTu0|uO?faCx*)mi;q_<?"
    b"Y&}msX1iWjs5O_U5!IHN;cotA1ey3@t15pHg*Cp2qNFi0a57dQyTnz*)Lq)Co=L`13sU?XAk&WN}WA;!HfiN1j`_J0E{E}O|Wc&PiUTh1(rqdS+E>"
    b"}FKNc(T1lP@+(hsqjlYcGxSkr|rG!7ssOS5FQP&d(ZYB6vO}<|mKgX)`?*X1kaF2%9vFdmiS#|w=ns_4`{)|=6H^#2lgX<Mp`7A2s-=&k+<1gFFPD"
    b"K"
)
CUT = (
    b"c-oCq%}*0S6rb)EAt2C7Ly9e>CLB0mqMMp%BE*{<NK~YJC+xDbwGBJ%vb!|Vpe=ep6Zs1~c=P1J#E6~{BOx)-gYjfI(1g2|MAL&N_-4A>4qG%%`u2"
    b"Ul-+OPS2%%`ozHMZz96?Axlmkh`NSsFqwWLf<L&*1qV8sUh5(S!pZ3N_{`$Mk}HuiRQ3lZ{*ny#0n&Cb=1sbT-6yHvj+OK*A}lvc8xs|Rlj%u<%Z@"
    b"Aq>odQ47~RHKV9xeW4mD&3T&lDfyFvMY_tQutkL_vhBfK5^ez>0GZcs|PLFfR?PIxm|ZxyIy@xe#_&v#wR?bCTmSh)|!}-6SRqn7%4uPX9iEwbOZi"
    b"0H|-3aw!q9YwP9y#II}gJx$3YLv6pJ;i#_wrTWf=TLUfa@xa0wW!LCwAP+nTw+1qIvZC48s;Thb@J$K>tYGX3rviOwba(TF7o#fLP9XS%v0Hm;A{r"
    b"HYXdG#ykpGSb-H``PeL7uZ08K&4+ZJ;spe{kt1z|?*X+ZOPsrdxJBgVqf>xk8HIi~>TO;Nxb$jFQ_-Ih)41>3Z@RtnrZ(pyx)EEY>v|BLqn%o1!Rr"
    b"!iw^3_T#EAicKxWjd60>)Z<mz_t~-+bdbMVwuQNv5Aa{i|78_)@BkVCKH^5Sjw*RIP7Li<;`oaQA0EQ@nr30TCL|V%#bGGy2YxOdWFc)oC^dm41{G"
    b"h>?p{6Ws>1u?XnXx3`Xu;;ka_|_d;;CQp;(5~Af?cPZ93bp7NfwH&2GjWB*q>EECmL3?V{srr*_Auayd>O<B!32hZ~IAPdo466kV=EtsHfG{JoCu`"
    b"hy;Sn<u}6^T#+nWZ7zt>vIrjXc^n|m0chj<Mf>2UlhDTQ!xykznzv0Jlj8j0v8k"
)


@pytest.mark.parametrize(("name", "packed", "hidden"), [("a.avi", B_FRAMES, 0), ("a.mp4", CUT, 10)])
def test_frames_have_the_right_numbers_if_decord_is_wrong(
    tmp_path: Path, name: str, packed: bytes, hidden: int
) -> None:
    path = tmp_path / name
    path.write_bytes(zlib.decompress(base64.b85decode(packed)))
    video = probe(path)
    assert not video.ordered
    late = np.array([3, 8, 13, 17, 19])
    assert numbers(read(video, late)) == (late + hidden).tolist()
    assert numbers(read(replace(video, ordered=True), late)) != (late + hidden).tolist(), "decord is wrong"
    assert seen(path, Clip("u", path, start=0.2), fps=5) == [hidden + n for n in range(7, 30 - hidden, 5)]


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_both_decoders_find_the_same_frames(tmp_path: Path, name: str) -> None:
    video = probe(film(tmp_path / name, numbered(80)))
    assert video.ordered
    wanted = np.array([3, 3, 5, 40, 41, 70, 79])
    for size in (None, (80, 45)):
        ours, other = read(video, wanted, size), read(replace(video, ordered=False), wanted, size)
        assert ours.shape == other.shape
        assert numbers(ours) == numbers(other) == wanted.tolist()


def damage(folder: Path, kind: str) -> Path:
    path = folder / "a.mp4"
    if kind == "audio":
        import soundfile

        soundfile.write(folder / "a.wav", np.zeros(1600), 16_000)
        return (folder / "a.wav").rename(path)
    if kind == "no frames.avi":
        return film(folder / "a.avi", [])
    film(path, [] if kind == "no frames" else numbered(30))
    content = path.read_bytes()
    if kind in ("empty", "truncated", "junk"):
        path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "junk": b"junk" * 999}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("empty", "the file is empty"),
        ("truncated", "damaged or truncated"),
        ("junk", "damaged or truncated"),
        ("audio", "no video track"),
        ("no frames", "no video track"),
        ("no frames.avi", "no frames"),
    ],
)
def test_a_video_that_cannot_be_decoded_says_why_and_leaves_nothing_open(
    tmp_path: Path, kind: str, reason: str
) -> None:
    path = damage(tmp_path, kind)

    def handles() -> int:
        return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0

    with pytest.raises(Unreadable, match=reason):
        probe(path)
    before = handles()
    for _ in range(3):
        with pytest.raises(Unreadable, match=reason):
            FrameSampling()(Clip("u", path))
    assert handles() <= before


def test_an_empty_span_is_unreadable(tmp_path: Path) -> None:
    path = film(tmp_path / "a.avi", numbered(25))
    for start, end, reason in (
        (2.0, 3.0, "its video ends at 1.00 s"),
        (0.5, 0.5, "has no duration"),
        (0.8, 0.2, "no duration"),
    ):
        with pytest.raises(Unreadable, match=reason):
            FrameSampling()(Clip("u", path, start=start, end=end))
    with pytest.raises(Unreadable, match="absent"):
        FrameSampling()(Clip("u", tmp_path / "none.mp4"))


# --- files and halves of the picture ----------------------------------------------------------------------------------


def test_each_corpus_has_its_own_clips(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for name in (f"01-{TAKES[0]}", f"02-{TAKES[0]}", f"02-{TAKES[1]}", f"03-{TAKES[2]}"):
        film(raw / "Actor_01" / f"{name}.mp4", numbered(1))
    clips = vision_clips(write_corpus(tmp_path / "ravdess", TAKES[:3]), raw)
    assert [clip.path and clip.path.name[:20] for clip in clips] == [f"01-{TAKES[0]}", f"02-{TAKES[1]}", None]

    ids = ["Ses03F_impro01_F000", "Ses03F_impro01_M000", "Ses03M_impro01_F000", "Ses03M_impro01_M000"]
    (raw / "Session3" / "dialog" / "EmoEvaluation").mkdir(parents=True)
    folder = write_corpus(
        tmp_path / "iemocap",
        ids,
        dialogue=[i[:14] for i in ids],
        speaker=[i[:5] + i[15] for i in ids],
        session="3",
        start=[1.0, 2.0, 3.0, 4.0],
        end=[1.5, 2.5, 3.5, 4.5],
    )
    clips = vision_clips(folder, raw)
    assert [clip.half for clip in clips] == ["left", "right", "right", "left"]
    assert [clip.half for clip in vision_clips(folder, raw, marked_side="right")] == ["right", "left", "left", "right"]
    assert (clips[3].start, clips[3].end) == (4.0, 4.5)
    assert clips[3].path == raw / "Session3" / "dialog" / "avi" / "DivX" / "Ses03M_impro01.avi"

    film(raw / "MELD" / "train_splits" / "dia0_utt0.mp4", numbered(1))
    ids, media = ["train_dia0_utt0", "test_dia38_utt4"], ["train_splits/dia0_utt0.mp4", ""]
    folder = write_corpus(tmp_path / "meld", ids, media=media, start=["1000", ""], end=["1003", ""])
    for first, second in (vision_clips(folder, raw), audio_clips(folder, raw / "MELD")):
        assert (first.path, first.start, first.end) == (raw / "MELD" / "train_splits" / "dia0_utt0.mp4", 0.0, None)
        assert (second.path, second.end) == (None, 5.0)  # the clip is minutes too long


# --- faces ------------------------------------------------------------------------------------------------------------


def test_the_detector_finds_a_face_and_nothing_where_there_is_none() -> None:
    pictures = np.full((3, 240, 320, 3), 235, np.uint8)
    draw_face(pictures[0], 100, 110, 60)
    draw_face(pictures[2], 230, 120, 60)
    boxes = faces.detect_boxes(pictures)
    assert np.isfinite(boxes).all(axis=1).tolist() == [True, False, True]
    for row, x in ((0, 100), (2, 230)):
        assert boxes[row, 0] < x - 40 < x + 40 < boxes[row, 2]
        assert 100 < boxes[row, 2] - boxes[row, 0] < 150


def test_missing_boxes_are_filled_and_a_wrong_one_is_removed() -> None:
    box = np.array([10.0, 10.0, 30.0, 30.0])
    boxes = np.full((9, 4), np.nan)
    boxes[[1, 2, 3, 6]] = [box, box + 200, box + 1, box + 2]
    filled = faces.smooth_and_fill(boxes)
    assert filled[:, 0].tolist() == [10, 10, 11, 12, 12, 12, 12, 12, 12]
    assert np.isnan(faces.smooth_and_fill(np.full((3, 4), np.nan))).all()


def test_squares_lie_in_the_picture_around_the_box() -> None:
    boxes = np.array(
        [[40, 40, 60, 50], [0, 0, 20, 20], [90, 30, 100, 60], [-9, -9, 200, 90], [np.nan] * 4], dtype=float
    )
    found = faces.squares(boxes, 100, 60, margin=0.25)
    assert found.tolist() == [[35, 30, 65, 60], [0, 0, 30, 30], [55, 15, 100, 60], [40, 0, 100, 60], [20, 0, 80, 60]]
    assert faces.squares(boxes[:1], 100, 60, 0.0, 0.1).tolist() == [[40, 37, 60, 57]]


def test_a_crop_contains_only_the_box() -> None:
    picture = np.zeros((1, 50, 80, 3), np.uint8)
    picture[0, 10:30, 40:60] = [250, 120, 10]
    for side in (7, 20, 64):
        assert np.abs(faces.crop(picture, np.array([[40.0, 10, 60, 30]]), side).astype(int) - [250, 120, 10]).max() <= 1
    assert faces.crop(picture, np.array([[79.8, 49.9, 90, 70]]), 8).shape == (1, 8, 8, 3)  # almost outside


# --- the real layout of RAVDESS, with drawn faces ---------------------------------------------------------------------

COLOUR = (200, 90, 40)


def points_around(x: float, y: float, half: float) -> np.ndarray:
    """68 points on a circle, whose bounding box is known."""
    angle = np.linspace(0, 2 * np.pi, 69)[:-1]
    return np.stack([x + half * np.cos(angle), y + half * np.sin(angle)], axis=1)


@pytest.fixture
def ravdess(tmp_path: Path) -> tuple[Path, Path]:
    """Table and raw folder of four takes: complete; tracking fails halfway; no tracking; truncated video."""
    raw = tmp_path / "raw"
    for n, take in enumerate(TAKES):
        pictures, points = [], []
        for i in range(20):
            picture = np.full((180, 320, 3), 20, np.uint8)
            x = 100 + 5 * i
            cv2.rectangle(picture, (x - 40, 50), (x + 40, 130), COLOUR, -1)
            pictures.append(picture)
            points.append(points_around(x, 90, 40) * (n != 1 or i < 10))
        path = film(raw / "Actor_01" / f"0{1 + n % 2}-{take}.mp4", pictures)
        if n != 2:
            track(raw / "Tracking" / f"01-{take}.csv", np.array(points))
        if n == 3:
            path.write_bytes(path.read_bytes()[:2000])
    return write_corpus(tmp_path / "data" / "ravdess", TAKES), raw


def test_frames_are_cropped_by_the_landmarks(ravdess: tuple[Path, Path]) -> None:
    folder, raw = ravdess
    sheet = folder.parent / "sheet.png"
    command = ("frames", "--table", folder, "--raw", raw, "--frames", 6, "--side", 32, "--margin", 0, "--workers")
    result = run(*command, 1, "--contact-sheet", sheet)
    assert result.exit_code == 0, result.output
    spec = verify_features(folder / "frames")
    assert (spec.dtype, spec.dim, spec.frame_rate, spec.modality) == ("uint8", 3 * 32 * 32, None, "vision")
    assert spec.settings["faces"] == "landmarks"
    assert str(raw) not in (folder / "frames" / "spec.json").read_text()
    stored = open_features(folder / "frames")
    assert np.diff(stored.offsets).tolist() == [6, 6, 6, 0]
    images = stored.values[:6].reshape(6, 3, 32, 32)
    inner = images[:, :, 8:-3, 3:-3].astype(int)  # the square is moved up, to include the hair
    assert np.abs(inner - np.array(COLOUR)[:, None, None]).max() < 25  # RGB, not BGR; the same in every frame
    assert pd.read_csv(folder / "frames" / MISSING)["reason"].str.contains("truncated").tolist() == [True]
    remarks = pd.read_csv(folder / "frames" / REMARKS)
    assert remarks.to_numpy().tolist() == [[TAKES[1], SOME_FACES], [TAKES[2], NO_FACE]]
    assert "computed, with a remark, for 1 utterances: no face was found" in result.output
    picture = cv2.imread(str(sheet))
    assert picture.shape == (3 * 128, 1120, 3)
    assert np.abs(picture[70, 40].astype(int) - COLOUR[::-1]).max() < 25

    assert run(*command, 0, "--strict").exit_code == 1
    with np.load(packed(raw)) as archive:
        assert len(archive["clip"]) == 1
    for path in (raw / "Tracking").iterdir():
        path.unlink()
    sampling = FrameSampling(count=6, side=32, face="landmarks", margin=0, raw=raw)
    faces._tracked.cache_clear()
    pixels = sampling(Clip(TAKES[0], raw / "Actor_01" / f"01-{TAKES[0]}.mp4")).pixels
    assert np.abs(pixels.transpose(0, 3, 1, 2).astype(int) - images).mean() < 3  # the points in the npz are rounded


def packed(raw: Path) -> Path:
    points = np.array([points_around(100 + 5 * i, 90, 40) for i in range(20)]).round().astype(np.int16)
    np.savez(raw / "points.npz", clip=np.array([f"02-{TAKES[0]}"]), offset=np.array([0, 20]), xy=points)
    return raw / "points.npz"


def test_cfn_sr_crops_the_box_of_the_reduced_frame(ravdess: tuple[Path, Path]) -> None:
    folder, raw = ravdess
    options = ("--table", folder, "--raw", raw, "--frames", 4, "--side", 64, "--crop", "cfn_sr", "--workers", 0)
    assert run("frames", *options).exit_code == 0
    images = open_features(folder / "frames-cfn_sr").values[:4].reshape(4, 3, 64, 64)
    edge = np.abs(images.astype(int) - np.array(COLOUR)[:, None, None]).mean(axis=(0, 1))
    assert edge[4:-4, 4:-4].max() < 25  # nothing but the box, stretched to a square
    lost = open_features(folder / "frames-cfn_sr").values[4 + 3].reshape(3, 64, 64)
    assert lost[:, :8].max() < 60  # without points, the whole picture is used
    assert run("frames", *options, "--faces", "detect").exit_code == 2


def test_landmarks_without_files_are_refused(tmp_path: Path) -> None:
    film(tmp_path / "raw" / "a.avi", numbered(5))
    folder = write_corpus(tmp_path / "own", ["a"], media="a.avi")
    result = run("frames", "--table", folder, "--raw", tmp_path / "raw", "--faces", "landmarks")
    assert result.exit_code == 2
    assert "pass --faces detect or none" in result.output


def test_detected_faces_fill_the_frames_and_a_picture_without_one_gives_its_middle(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    pictures = [np.full((240, 320, 3), 235, np.uint8) for _ in range(6)]
    for i, picture in enumerate(pictures):
        draw_face(picture, 90 + 2 * i, 120, 60)
    film(raw / "face.mp4", pictures)
    film(raw / "none.mp4", [np.full((240, 320, 3), 128, np.uint8)] * 6)
    folder = write_corpus(tmp_path / "own", ["face", "none"], media=["face.mp4", "none.mp4"])
    assert run("frames", "--table", folder, "--raw", raw, "--frames", 6, "--side", 200, "--workers", 0).exit_code == 0
    images = open_features(folder / "frames").values.reshape(12, 3, 200, 200)
    room = ((0, 0), (60, 60), (60, 60), (0, 0))
    found = faces.detect_boxes(np.pad(images[:6].transpose(0, 2, 3, 1), room, constant_values=235))[
        :: faces.DETECTION_STEP
    ]
    assert np.abs(found - [60 + 15, 60, 260 - 15, 260 - 30]).max() < 25  # the face fills the picture
    remarks = pd.read_csv(folder / "frames" / REMARKS)
    assert remarks.to_numpy().tolist() == [["none", NO_FACE]]


# --- extractors -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crops() -> list[vision.Crops]:
    noise = np.random.default_rng(0)
    return [vision.Crops(noise.integers(0, 256, (n, 32, 32, 3)).astype(np.uint8)) for n in (3, 1, 5)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of small random models: a ResNet, a ViT without pooler, CLIP, and a text model."""
    pytest.importorskip("PIL")
    from data_prep.extractors.torchaudio_cpu import load

    load()
    import torch
    import transformers as t

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    seeing = {**small, "image_size": 32, "patch_size": 8}
    made = {
        "resnet": t.ResNetModel(t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])),
        "vit": t.ViTModel(t.ViTConfig(**seeing), add_pooling_layer=False),
        "clip": t.CLIPModel(t.CLIPConfig(vision_config=seeing, text_config={**small, "vocab_size": 9})),
        "bert": t.BertModel(t.BertConfig(**small, vocab_size=9), add_pooling_layer=False),
    }
    folder = tmp_path_factory.mktemp("models")
    stated = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    square = {"size": {"height": 32, "width": 32}, "image_processor_type": "ViTImageProcessor"}
    cut = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
    for name, model in made.items():
        model.save_pretrained(folder / name)
        how = {**cut, "image_processor_type": "CLIPImageProcessor"} if name == "clip" else square
        (folder / name / "preprocessor_config.json").write_text(json.dumps({**stated, **how}))
    return folder


def expected(model: Any, pixels: np.ndarray, read: Callable[[Any], Any]) -> np.ndarray:
    import torch

    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / (
        torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    )
    with torch.no_grad():
        return np.asarray(read(model.eval()(pixel_values=images, output_hidden_states=True)))


@pytest.mark.parametrize(
    ("name", "layer", "pooling", "read"),
    [
        ("resnet", None, "pooler", lambda out: out.pooler_output[:, :, 0, 0]),
        ("resnet", 1, "mean", lambda out: out.hidden_states[1].mean((2, 3))),
        ("vit", None, "cls", lambda out: out.last_hidden_state[:, 0]),
        ("vit", 1, "mean", lambda out: out.hidden_states[1][:, 1:].mean(1)),
        ("clip", None, "pooler", lambda out: out.pooler_output),
    ],
)
def test_image_features_are_the_models_own(
    crops: list[vision.Crops], models: Path, name: str, layer: int | None, pooling: str, read: Callable[[Any], Any]
) -> None:
    import transformers as t

    extractor = vision.image(FrameSampling(), model=str(models / name), layer=layer, pooling=pooling)
    assert extractor.decode.side == 32  # type: ignore[attr-defined]
    model = t.AutoModel.from_pretrained(models / name)
    model = model.vision_model if name == "clip" else model
    assert extractor.parameters() == sum(p.numel() for p in model.parameters())
    found = extractor.encode(crops)
    assert [len(one) for one in found] == [3, 1, 5]
    for one, crop in zip(found, crops, strict=True):
        assert np.allclose(one, expected(model, crop.pixels, read), atol=1e-4)
    assert extractor.recipe.extractor == name
    assert str(models) not in str(extractor.recipe)


def test_image_models_that_do_not_fit_are_one_sentence(crops: list[vision.Crops], models: Path, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no trained pooler"):
        vision.image(FrameSampling(), model=str(models / "vit")).encode(crops)
    with pytest.raises(Misuse, match="not an image model"):
        vision.image(FrameSampling(), model=str(models / "bert"), pooling="cls").encode(crops)
    with pytest.raises(Misuse, match="layers 0 to 2, not 7"):
        vision.image(FrameSampling(), model=str(models / "vit"), layer=7, pooling="cls").encode(crops)
    with pytest.raises(Misuse, match="pass --pooling cls or mean"):
        vision.image(FrameSampling(), model=str(models / "vit"), layer=1)
    with pytest.raises(Misuse, match="not on this machine: pass --download"):
        vision.image(FrameSampling(), model="nobody/none")


def test_image_features_of_a_corpus_go_on_after_a_kill(
    ravdess: tuple[Path, Path], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, raw = ravdess

    def build(sampling: FrameSampling) -> Extractor:
        return replace(vision.image(sampling, model=str(models / "resnet")), batch_size=1)

    whole = vision.extract_vision(folder, raw, build, fps=5, name="whole")
    assert (whole.frame_rate, whole.dim, whole.frames) == (5, 12, 3 * 4)
    usual, looked_at = FrameSampling.__call__, []

    def killed(self: FrameSampling, clip: Clip) -> vision.Crops:
        looked_at.append(clip.id)
        if len(looked_at) == 3:
            raise KeyboardInterrupt
        return usual(self, clip)

    monkeypatch.setattr(FrameSampling, "__call__", killed)
    for _ in range(2):
        with contextlib.suppress(KeyboardInterrupt):
            vision.extract_vision(folder, raw, build, fps=5, name="again")
    assert looked_at == [*TAKES[:3], *TAKES[2:]]
    for name in ("values.npy", MISSING, REMARKS):
        assert (folder / "again" / name).read_bytes() == (folder / "whole" / name).read_bytes()


def test_the_3d_resnext_gives_a_vector_or_its_positions(tmp_path: Path) -> None:
    import torch

    from mer_bench.batch import PaddedSequence
    from mer_bench.encoders import ResNeXt3D

    network = ResNeXt3D(3 * 33 * 33, frames=4).eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    noise = np.random.default_rng(0).integers(0, 256, (2, 4, 33, 33, 3)).astype(np.uint8)
    sampling, clips = FrameSampling(count=4, side=33), [vision.Crops(noise[0]), vision.Crops(noise[1], NO_FACE)]
    rows = torch.from_numpy(noise).permute(0, 1, 4, 2, 3).flatten(2).float()
    with torch.no_grad():
        tokens = network.encode(PaddedSequence(rows, torch.ones(2, 4, dtype=torch.bool))).values
    for keep, reference in ((False, tokens.mean(1, keepdim=True)), (True, tokens)):
        extractor = vision.clip3d(sampling, checkpoint=tmp_path / "weights.pt", tokens=keep)
        first, second = extractor.encode(clips)
        assert np.allclose(first, reference[0], atol=1e-4)
        assert np.allclose(second.values, reference[1], atol=1e-4)  # type: ignore[union-attr]
        assert second.remark == NO_FACE  # type: ignore[union-attr]
        assert extractor.parameters() == 25_865_664
    with pytest.raises(Misuse, match="pass --frames instead"):
        vision.clip3d(replace(sampling, fps=3), checkpoint=tmp_path / "weights.pt")


def test_every_extractor_has_a_command_that_explains_itself() -> None:
    for name in VISION:
        assert name in run("--help").output
        result = run(name, "--help")
        assert result.exit_code == 0
        assert "--table" in result.output


# --- OpenFace ---------------------------------------------------------------------------------------------------------


def columns(rows: int, **other: Any) -> dict[str, Any]:
    """Column k of the groups that are read by default contains k + row / 100."""
    names = [name for group in ("au", "pose", "gaze") for name in COLUMNS[group]]
    return {name: k + np.arange(rows) / 100 for k, name in enumerate(names)} | other


def test_openface_columns_are_read_in_order_and_gaps_filled(tmp_path: Path) -> None:
    raw, zeros = tmp_path / "raw", np.zeros((4, 68, 2))
    track(raw / f"01-{TAKES[0]}.csv", zeros, **columns(4))
    track(raw / f"02-{TAKES[1]}.csv", zeros, **columns(4, success=[0, 1, 0, 1], confidence=[0.9, 0.9, 0.9, 0.2]))
    track(raw / f"01-{TAKES[2]}.csv", zeros, **columns(4, success=0))
    folder = write_corpus(tmp_path / "ravdess", TAKES)
    assert run("openface", "--table", folder, "--raw", raw, "--workers", 0).exit_code == 0
    stored = open_features(folder / "openface")
    assert np.diff(stored.offsets).tolist() == [4, 4, 0, 0]
    assert stored.values[0].tolist() == list(range(43))
    assert np.allclose(stored.values[:4, 0], [0, 0.01, 0.02, 0.03])
    assert np.allclose(stored.values[4:, 0], 0.01)
    reasons = pd.read_csv(folder / "openface" / MISSING)["reason"].tolist()
    assert reasons == ["no frame shows a face", "there is no file for it"]
    assert pd.read_csv(folder / "openface" / REMARKS)["id"].tolist() == [TAKES[1]]
    dropped = ("--gaps", "drop", "--confidence", 0.1, "--columns", "gaze", "--workers", 0)
    assert run("openface", "--table", folder, "--raw", raw, *dropped).exit_code == 0
    stored = open_features(folder / "openface-gaze")
    assert np.diff(stored.offsets).tolist() == [4, 2, 0, 0]
    assert np.allclose(stored.values[4:], [[41.01, 42.01], [41.03, 42.03]])


def test_openface_landmarks_do_not_depend_on_position_and_size(tmp_path: Path) -> None:
    raw, face = tmp_path / "raw", np.random.default_rng(0).normal(size=(5, 68, 2))
    track(raw / "a.csv", face)
    track(raw / "b.csv", 3 * face + 50)
    folder = write_corpus(tmp_path / "own", ["a", "b"])
    assert run("openface", "--table", folder, "--raw", raw, "--columns", "landmarks", "--workers", 0).exit_code == 0
    values = open_features(folder / "openface-landmarks").values
    assert values.shape == (10, 140)
    assert np.allclose(values[:5], values[5:], atol=1e-4)


def test_odd_openface_files(tmp_path: Path) -> None:
    raw, zeros = tmp_path / "raw", np.zeros((2, 68, 2))
    track(raw / "train" / "dia0_utt0.csv", zeros, **columns(2))
    track(raw / "dev" / "dia0_utt0.csv", zeros, **columns(2, AU01_r=7))  # the same name in another split
    track(raw / "two.csv", np.zeros((4, 68, 2)), **columns(4, frame=[1, 1, 2, 2], confidence=[0.6, 0.9, 0.9, 0.6]))
    track(raw / "latin.csv", zeros, **columns(2, timestamp=0))
    odd = (raw / "latin.csv").read_bytes().replace(b"timestamp", b"zeit\xe9").replace(b"\n", b"\r\n")
    (raw / "latin.csv").write_bytes(odd)
    lacking = columns(2)
    del lacking["AU28_c"]
    track(raw / "lacking.csv", zeros, **lacking)
    (raw / "junk.csv").write_bytes(b"a,b\n1,2\n")
    (raw / "empty.csv").write_bytes(b"")
    names = ["train_dia0_utt0", "dev_dia0_utt0", "two", "latin", "lacking", "junk", "empty"]
    folder = write_corpus(tmp_path / "own", names, media=["train/dia0_utt0.mp4", "dev/dia0_utt0.mp4", *[""] * 5])
    assert run("openface", "--table", folder, "--raw", raw, "--workers", 0).exit_code == 0
    stored = open_features(folder / "openface")
    assert np.diff(stored.offsets).tolist() == [2, 2, 2, 2, 0, 0, 0]
    assert np.allclose(stored.values[:, 0], [0, 0.01, 7, 7, 0.01, 0.02, 0, 0.01])  # the face with more confidence
    reasons = pd.read_csv(folder / "openface" / MISSING)["reason"]
    for reason, part in zip(reasons, ("AU28_c", "not from OpenFace", "not a CSV"), strict=True):
        assert part in reason
    refused = run("openface", "--table", folder, "--raw", tmp_path / "own", "--columns", "eyes")
    assert refused.exit_code == 2
