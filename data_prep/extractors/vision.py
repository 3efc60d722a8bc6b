"""Frozen vision extractors: pixels of the face, image models per frame, and a 3D network per clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from data_prep import cli
from data_prep.corpora.base import Clip, Unreadable, fingerprint
from data_prep.corpora.clips import vision_clips
from data_prep.corpora.ravdess import landmark_fingerprint, read_tracking
from data_prep.extract import Extractor, FloatArray, Recipe, Remarked, extract, minor_version
from data_prep.extractors import faces, hub, video
from data_prep.extractors.hub import FrozenModel
from data_prep.extractors.openface import openface_command
from data_prep.extractors.video import Pixels
from mer_bench.errors import Misuse, unknown
from mer_bench.features import FeatureSpec
from mer_bench.files import sha256

FACES = ("landmarks", "detect", "none")
CROPS = ("square", "cfn_sr")
POOLINGS = ("pooler", "cls", "mean")
DECODED_TOGETHER = 64  #: number of whole frames in memory before their faces are cropped
NO_FACE = "no face was found; the middle of the picture was used"
SOME_FACES = "some frames show no face; the position in the nearest frame with a face was used"


# --- frames and faces -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crops:
    """Square pictures from the frames of a clip, as input of an extractor."""

    pixels: Pixels  #: [frame, side, side, 3]
    remark: str = ""  #: message for the user, for example that no face was found

    @property
    def rows(self) -> Pixels:
        """The pixels as features: [frame, 3 * side * side], channel first."""
        return self.pixels.transpose(0, 3, 1, 2).reshape(len(self.pixels), -1)

    def with_remark(self, features: FloatArray) -> FloatArray | Remarked:
        """Features of the clip together with its remark, if it has one."""
        return Remarked(features, self.remark) if self.remark else features


@dataclass(frozen=True)
class FrameSampling:
    """Function from a clip to the frames and the part of each frame that an extractor uses; runs in worker processes.

    Args:
        count: Number of frames, from the middle of as many equal parts of the utterance; short clips repeat frames.
        fps: Number of frames per second, used instead of ``count``.
        side: Width and height of the resulting pictures in pixels.
        face: How the face is located: ``landmarks`` (those of RAVDESS), ``detect`` (the detector), or ``none`` for the
            middle of the picture.
        crop: ``square``: a square around the face, from frames that are decoded at the size this requires. ``cfn_sr``:
            as in CFN-SR, the whole frame is reduced to ``side`` first, and then the bounding box of the landmarks is
            enlarged to ``side``, which leaves a resolution of some tens of pixels.
        margin: Fraction of the box added on each side of the square; None for the value in :data:`faces.FRAMING`.
        raw: Folder of the landmark files.
        tracking: CSV of the landmarks of each clip by its id, instead of those below ``raw``.
        source: Fingerprint of the raw files.
    """

    count: int = 30
    fps: float | None = None
    side: int = 224
    face: str = "none"
    crop: str = "square"
    margin: float | None = None
    raw: Path | None = None
    tracking: Mapping[str, Path] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for what, name, choices in (("location of the face", self.face, FACES), ("crop", self.crop, CROPS)):
            if name not in choices:
                raise unknown(what, name, choices)
        if self.crop == "cfn_sr" and self.face != "landmarks":
            raise Misuse(f"the crop cfn_sr needs landmarks: it cannot be used with --faces {self.face}")

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that belong in a recipe."""
        settings: dict[str, Any] = {"fps": self.fps} if self.fps else {"frames": self.count}
        settings |= {"side": self.side, "faces": self.face, "crop": self.crop}
        if self.crop == "square":
            settings["margin"], settings["down"] = self._framing
        if self.face == "detect":
            settings["detector"] = faces.DETECTOR
            settings |= {"every": faces.DETECTION_STEP, "lines": faces.DETECTION_HEIGHT}
        return settings | video.decoders() | {"source": self.source}

    def __call__(self, clip: Clip) -> Crops:
        """Decode the frames of a clip and crop them.

        Raises:
            Unreadable: the clip has no video that can be decoded.
        """
        found = video.probe(clip.media, clip.half)
        numbers = found.at(video.moments(found, clip, count=self.count, fps=self.fps))
        points = self._landmarks(clip.id) if self.face == "landmarks" else None
        boxes = np.full((len(numbers), 4), np.nan)
        if points is not None and len(points):
            boxes = faces.landmark_boxes(points, numbers)
        if self.face == "detect":
            step = faces.DETECTION_STEP
            small = video.read(found, numbers[::step], found.scaled(faces.DETECTION_HEIGHT / found.height))
            boxes[::step] = faces.detect_boxes(small) * (found.width / small.shape[2])
        if self.crop == "cfn_sr":
            regions = np.where(np.isfinite(boxes), boxes, [0, 0, found.width, found.height])
            width, height = self.side, self.side
        else:
            regions = faces.squares(faces.smooth_and_fill(boxes), found.width, found.height, *self._framing)
            width, height = found.scaled(self.side / (regions[:, 2] - regions[:, 0]).min())
        regions = regions * np.array([width / found.width, height / found.height] * 2)
        parts = [slice(start, start + DECODED_TOGETHER) for start in range(0, len(numbers), DECODED_TOGETHER)]
        crops = [faces.crop(video.read(found, numbers[p], (width, height)), regions[p], self.side) for p in parts]
        return Crops(np.concatenate(crops), self._remark(boxes))

    def _landmarks(self, clip: str) -> npt.NDArray[Any] | None:
        """The landmarks [frame, 68, 2] of a clip; None without any."""
        if self.tracking is not None:
            return read_tracking(self.tracking[clip]) if clip in self.tracking else None
        return faces.landmarks(self.raw, clip) if self.raw else None

    @property
    def _framing(self) -> tuple[float, float]:
        margin, down = faces.FRAMING[self.face]
        return margin if self.margin is None else self.margin, down

    def _remark(self, boxes: faces.Boxes) -> str:
        examined = boxes[:: faces.DETECTION_STEP] if self.face == "detect" else boxes
        has_face = np.isfinite(examined).all(axis=1)
        if self.face == "none" or has_face.all():
            return ""
        return SOME_FACES if has_face.any() else NO_FACE


# --- extractors -------------------------------------------------------------------------------------------------------


def frames(sampling: FrameSampling) -> Extractor:
    """The pixels, for encoders that are trained with the fusion: uint8 [frame, 3 * side * side], channel first."""
    recipe = Recipe(
        name="frames" if sampling.crop == "square" else f"frames-{sampling.crop}",
        modality="vision",
        extractor="pixels",
        frame_rate=sampling.fps,
        dtype="uint8",
        settings=sampling.settings,
    )

    def encode(clips: list[Crops]) -> list[FloatArray | Remarked]:
        return [clip.with_remark(clip.rows) for clip in clips]

    return Extractor(recipe, sampling, encode, batch_size=16)


def image(
    sampling: FrameSampling, *, model: str, layer: int | None = None, pooling: str = "pooler", download: bool = False
) -> Extractor:
    """One vector per frame from an image model of transformers, such as a ResNet, a ViT or CLIP's vision tower.

    Instead of the resizing and centre crop of the model's processor, pictures are cropped to the input size of the
    model. They are normalised with the processor's mean and standard deviation.

    Args:
        sampling: Frames that the model reads; its ``side`` is replaced by the input size of the model.
        model: Name on the Hugging Face hub, or a folder.
        layer: Index of the layer whose hidden states are used (0: the embeddings); None for the last.
        pooling: ``pooler`` (the model's own), ``cls`` (first token), or ``mean`` over the positions of the picture. A
            convolutional model has no tokens; for it ``cls`` is the same as ``mean``.
        download: Whether the model may be downloaded.

    Raises:
        Misuse: the model is not on this machine, has no image processor, no such layer, or no trained pooler.
    """
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    if layer is not None and pooling == "pooler":
        raise Misuse("the model's own pooler reads only its last layer: with --layer pass --pooling cls or mean")
    frozen = FrozenModel(
        model, download, processor="AutoImageProcessor", unused=() if pooling == "pooler" else ("pooler.",)
    )
    sampling = replace(sampling, side=input_side(frozen))
    recipe = Recipe(
        name=frozen.short + ("" if layer is None else f"-layer{layer}"),
        modality="vision",
        extractor=frozen.name,
        revision=frozen.revision,
        layer=f"{pooling} of " + ("last hidden state" if layer is None else f"hidden state {layer}"),
        frame_rate=sampling.fps,
        settings=sampling.settings | {"library": f"transformers {minor_version('transformers')}"},
    )
    return Extractor(
        recipe,
        sampling,
        partial(encode_images, frozen=frozen, layer=layer, pooling=pooling),
        parameters=lambda: hub.count_parameters(vision_tower(frozen)),
        batch_size=8,
    )


def input_side(frozen: FrozenModel) -> int:
    """Width and height in pixels of the square input of the model, according to its image processor.

    Raises:
        Misuse: the input is not square.
    """
    processor = frozen.processor
    stated = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    size = dict(stated or processor.size or {})
    sides = {int(size[key]) for key in ("height", "width", "shortest_edge") if size.get(key)}
    if len(sides) != 1:
        raise Misuse(f"the image processor of {frozen.requested!r} states no square input: its size is {size}")
    return sides.pop()


def vision_tower(frozen: FrozenModel) -> Any:
    """The model, or the vision part of a model that also reads text.

    Raises:
        Misuse: the checkpoint has no trained pooler, or the input of the model is not a picture.
    """
    try:
        model = getattr(frozen.model, "vision_model", frozen.model)
    except Misuse as error:
        if "pooler." not in str(error):
            raise
        raise Misuse(f"{frozen.requested!r} has no trained pooler of its own: pass --pooling cls or mean") from error
    if getattr(model, "main_input_name", "") != "pixel_values":
        found = getattr(model, "main_input_name", "unknown")
        raise Misuse(f"{frozen.requested!r} is not an image model: its input is {found!r}")
    return model


def encode_images(
    clips: list[Crops], frozen: FrozenModel, *, layer: int | None, pooling: str, batch_size: int = 64
) -> list[FloatArray | Remarked]:
    """One vector per frame, as an array [frame, dim] per clip; batches contain frames of several clips."""
    import torch

    tower, processor = vision_tower(frozen), frozen.processor
    scale = float(processor.rescale_factor) if processor.do_rescale else 1.0
    normalise = bool(processor.do_normalize)
    mean = torch.tensor(processor.image_mean if normalise else [0.0]).view(-1, 1, 1).to(frozen.device)
    deviation = torch.tensor(processor.image_std if normalise else [1.0]).view(-1, 1, 1).to(frozen.device)
    pixels = torch.from_numpy(np.concatenate([clip.pixels for clip in clips]))
    vectors = []
    with torch.inference_mode():
        for batch in torch.split(pixels, batch_size):
            images = (batch.to(frozen.device).permute(0, 3, 1, 2) * scale - mean) / deviation
            found = tower(pixel_values=images, output_hidden_states=layer is not None)
            vectors.append(pool(found, layer, pooling, frozen.requested).float().cpu())
    lengths = [len(clip.pixels) for clip in clips]
    parts = torch.split(torch.cat(vectors), lengths)
    return [clip.with_remark(part.numpy()) for clip, part in zip(clips, parts, strict=True)]


def pool(found: Any, layer: int | None, pooling: str, name: str) -> Any:
    """One vector per frame [frame, dim] from the output ``found`` of an image model.

    Raises:
        Misuse: the model has no such layer, or no pooler.
    """
    if pooling == "pooler":
        pooled = getattr(found, "pooler_output", None)
        if pooled is None:
            raise Misuse(f"{name!r} has no pooler of its own: pass --pooling cls or mean")
        return pooled.flatten(1)
    if layer is not None and not 0 <= layer < len(found.hidden_states):
        raise Misuse(f"{name!r} has the layers 0 to {len(found.hidden_states) - 1}, not {layer}")
    states = found.last_hidden_state if layer is None else found.hidden_states[layer]
    if states.ndim == 4:  # [frame, channel, row, column]
        return states.flatten(2).mean(2)
    if pooling == "cls":
        return states[:, 0]
    patches = math.isqrt(states.shape[1]) ** 2  # class token and registers precede the square of patches
    return states[:, states.shape[1] - patches :].mean(1)


def clip3d(sampling: FrameSampling, *, checkpoint: Path, tokens: bool = False, stem_relu: bool = True) -> Extractor:
    """The frozen 3D ResNeXt-50 of CFN-SR: one vector [1, 2048] per clip, or all 98 positions as tokens [98, 2048].

    Args:
        sampling: Frames that the network reads; 30 frames of 224 x 224 pixels in the paper.
        checkpoint: File of weights, see :func:`mer_bench.encoders.weights.load_weights`.
        tokens: Whether to store all positions, ordered by time, instead of their mean.
        stem_relu: Whether a ReLU follows the first normalisation, see :class:`mer_bench.encoders.ResNeXt3D`.

    Raises:
        Misuse: ``sampling`` has a frame rate instead of a number of frames, or the weights do not fit.
    """
    import torch

    from mer_bench.batch import PaddedSequence
    from mer_bench.encoders import ResNeXt3D
    from mer_bench.encoders.weights import load_weights

    if sampling.fps:
        raise Misuse("the 3D ResNeXt needs a fixed number of frames: pass --frames instead of --fps")
    network = ResNeXt3D(3 * sampling.side**2, frames=sampling.count, stem_relu=stem_relu).eval()
    load_weights(network, checkpoint)
    device = hub.device()
    recipe = Recipe(
        name="resnext3d-tokens" if tokens else "resnext3d",
        modality="vision",
        extractor="3D ResNeXt-50",
        revision=sha256(checkpoint)[:16],
        layer="layer4" if tokens else "mean of layer4",
        settings=sampling.settings | {"stem_relu": stem_relu},
    )

    @torch.inference_mode()
    def encode(clips: list[Crops]) -> list[FloatArray | Remarked]:
        pixels = torch.from_numpy(np.stack([clip.rows for clip in clips])).to(device).float()
        sequence = PaddedSequence(pixels, torch.ones(pixels.shape[:2], dtype=torch.bool, device=device))
        found = network.to(device).encode(sequence).values
        vectors = found if tokens else found.mean(1, keepdim=True)
        return [clip.with_remark(vector.cpu().numpy()) for clip, vector in zip(clips, vectors, strict=True)]

    return Extractor(recipe, sampling, encode, parameters=lambda: hub.count_parameters(network), batch_size=4)


# --- commands ---------------------------------------------------------------------------------------------------------


def extract_vision(
    table: Path,
    raw: Path,
    build: Callable[[FrameSampling], Extractor] = frames,
    *,
    face: str | None = None,
    marked_side: str = "left",
    name: str | None = None,
    sheet: Path | None = None,
    workers: int = 0,
    strict: bool = False,
    force: bool = False,
    **sampling: Any,
) -> FeatureSpec:
    """Store the set that the extractor from ``build`` computes from the videos of a prepared corpus.

    Args:
        table: Folder of the utterance table.
        raw: Folder of the corpus as it is distributed.
        build: One of the functions above with its options bound.
        face: How the face is located, see :class:`FrameSampling`; by default landmarks if those of RAVDESS are below
            ``raw``, otherwise the detector.
        marked_side: Half of IEMOCAP's picture, see :func:`data_prep.corpora.clips.vision_clips`.
        name: Name of the set; by default that of the extractor.
        sheet: Path of a contact sheet with the crops of a dozen clips, if one is wanted.
        workers: Number of processes that decode, see :func:`data_prep.extract.extract`.
        strict: Whether to raise an error if some utterances have no readable video.
        force: Whether to compute the set even if it is up to date.
        **sampling: Further arguments of :class:`FrameSampling`.

    Raises:
        Misuse: there are no landmark files although ``face`` requires them, or no video could be read.
    """
    clips = vision_clips(table, raw, marked_side=marked_side)
    tracked = landmark_fingerprint(raw) if face in (None, "landmarks") and table.resolve().name == "ravdess" else ""
    if face == "landmarks" and not tracked:
        raise Misuse(f"there are no landmark files for {table} below {raw}: pass --faces detect or none")
    face = face or ("landmarks" if tracked else "detect")
    media = fingerprint({clip.path for clip in clips if clip.path}, raw)
    extractor = build(FrameSampling(face=face, raw=raw, source="+".join(filter(None, [media, tracked])), **sampling))
    if name:
        extractor = replace(extractor, recipe=replace(extractor.recipe, name=name))
    if sheet:  # before the whole corpus, which takes hours
        draw_sheet(sheet, extractor.decode, clips)
    return extract(table, extractor, clips, workers=workers, strict=strict, force=force)


def draw_sheet(path: Path, sampling: Callable[[Clip], Crops], clips: list[Clip], rows: int = 12) -> None:
    """Draw the crops of up to ``rows`` readable clips, taken evenly from the corpus."""
    found = {}
    existing = [clip for clip in clips if clip.path and clip.path.is_file()]
    for clip in existing[:: -(-len(existing) // rows) or 1]:
        with suppress(Unreadable):
            crops = sampling(clip)
            found[f"{clip.id}  {crops.remark}"] = crops.pixels
    if found:
        faces.contact_sheet(path, found)
        click.echo(f"crops of {len(found)} clips -> {path}")


SAMPLING_OPTIONS = (
    cli.table_option,
    cli.raw_option,
    click.option("--frames", "count", type=click.IntRange(1), default=30, show_default=True, help="Number of frames."),
    click.option("--fps", type=click.FloatRange(min=0, min_open=True), help="Frames per second, instead of --frames."),
    click.option(
        "--faces",
        "face",
        type=click.Choice(FACES),
        help="How the face is located [default: landmarks if the corpus has them, otherwise detect].",
    ),
    cli.choice_option("--crop", CROPS, help="cfn_sr: as in CFN-SR, from whole frames that are reduced first."),
    click.option("--margin", type=click.FloatRange(min=0), help="Fraction of the face's box added on each side."),
    cli.choice_option("--marked-side", ("left", "right"), help="IEMOCAP: side of the actor with markers."),
    cli.name_option("Name of the feature set [default: that of the extractor]."),
    click.option("--contact-sheet", "sheet", type=cli.NEW_FILE, help="Draw the crops of a dozen clips into this file."),
    cli.run_options,
)


def sampling_options(command: Any) -> Any:
    """Add the options of :class:`FrameSampling` and of :func:`extract_vision`."""
    for option in reversed(SAMPLING_OPTIONS):
        command = option(command)
    return command


side_option = click.option(
    "--side", type=click.IntRange(16), default=224, show_default=True, help="Width and height in pixels."
)


@click.command("frames", cls=cli.Command)
@sampling_options
@side_option
def frames_command(**options: Any) -> None:
    """Pixels of the face, uint8, for encoders that are trained with the fusion: set "frames"."""
    extract_vision(**options)


@click.command("image", cls=cli.Command)
@click.option("--model", required=True, help="A Hugging Face name, or a folder that contains a model.")
@click.option("--layer", type=click.IntRange(min=0), help="Layer whose hidden states are used [default: the last].")
@cli.choice_option("--pooling", POOLINGS, help="How the states of a frame become one vector.")
@cli.download_option
@sampling_options
def image_command(model: str, layer: int | None, pooling: str, download: bool, **options: Any) -> None:
    """One vector per frame from a ResNet, a ViT, CLIP's vision tower or any image model of transformers."""
    extract_vision(build=partial(image, model=model, layer=layer, pooling=pooling, download=download), **options)


@click.command("clip3d", cls=cli.Command)
@click.option("--checkpoint", type=cli.FILE, required=True, help="Weights.")
@click.option("--tokens", is_flag=True, help="Store the 2 x 7 x 7 positions instead of their mean.")
@click.option("--stem-relu/--no-stem-relu", default=True, show_default=True, help="First ReLU, absent in CFN-SR.")
@sampling_options
@side_option
def clip3d_command(checkpoint: Path, tokens: bool, stem_relu: bool, **options: Any) -> None:
    """One vector per clip from the 3D ResNeXt-50 of CFN-SR."""
    extract_vision(build=partial(clip3d, checkpoint=checkpoint, tokens=tokens, stem_relu=stem_relu), **options)


#: all vision extractors by their names on the command line
VISION: dict[str, click.Command] = {
    "frames": frames_command,
    "image": image_command,
    "clip3d": clip3d_command,
    "openface": openface_command,
}

vision_command = click.Group("vision", commands=VISION, help="Add vision features to a prepared corpus.")
