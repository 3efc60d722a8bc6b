"""Frozen vision extractors: pixels around the face, image models frame by frame, a 3D network clip by clip."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from data_prep import cli
from data_prep.corpora.clips import vision_clips
from data_prep.corpora.ravdess import landmark_source
from data_prep.extract import Clip, Extractor, FloatArray, Recipe, Remarked, Unreadable, extract, fingerprint, release
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
PIECE = 64  #: frames that are decoded together before their faces are cut out
NO_FACE = "no face was found; the middle of the picture was taken"
SOME_FACES = "not every frame that was looked at shows a face; where there is none the nearest place was taken"


# --- what of a clip is seen -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Crops:
    """What a clip shows to an extractor."""

    pixels: Pixels  #: [frame, side, side, 3]
    remark: str = ""

    @property
    def rows(self) -> Pixels:
        """The pixels as features: [frame, 3 * side * side], channel first."""
        return self.pixels.transpose(0, 3, 1, 2).reshape(len(self.pixels), -1)

    def told(self, features: FloatArray) -> FloatArray | Remarked:
        """The clip's features together with what is to be said of its pixels."""
        return Remarked(features, self.remark) if self.remark else features


@dataclass(frozen=True)
class Look:
    """Which frames of a clip an extractor sees, and which part of them; called with a clip, in worker processes.

    Args:
        count: Frames, in the middle of as many equal parts of the utterance; a clip of fewer frames repeats some.
        fps: Frames a second instead.
        side: Of the pictures, in pixels.
        face: Where to look: ``landmarks`` (RAVDESS's), ``detect``, or ``none`` for the middle of the picture.
        crop: ``square``: a square around the face, from frames decoded no larger than it needs. ``cfn_sr``: CFN-SR's
            recipe, the whole frame shrunk to the side first and the bare box of the landmarks stretched back to it,
            which leaves a face of some tens of pixels.
        margin: Share of the box that the square adds on each side; None for :data:`faces.FRAMING`'s.
        raw: Folder of the landmark files.
        source: What identifies the raw files.
    """

    count: int = 30
    fps: float | None = None
    side: int = 224
    face: str = "none"
    crop: str = "square"
    margin: float | None = None
    raw: Path | None = None
    source: str = ""

    def __post_init__(self) -> None:
        for kind, name, choices in (("place of the face", self.face, FACES), ("crop", self.crop, CROPS)):
            if name not in choices:
                raise unknown(kind, name, choices)
        if self.crop == "cfn_sr" and self.face != "landmarks":
            raise Misuse(f"the crop cfn_sr cuts boxes of landmarks: it cannot go with --faces {self.face}")

    @property
    def settings(self) -> dict[str, Any]:
        """What of this belongs in a recipe."""
        how: dict[str, Any] = {"fps": self.fps} if self.fps else {"frames": self.count}
        how |= {"side": self.side, "faces": self.face, "crop": self.crop}
        if self.crop == "square":
            how["margin"], how["down"] = self._framing
        if self.face == "detect":
            how |= {"detector": faces.DETECTOR, "every": faces.EVERY, "lines": faces.LINES}
        return how | video.decoders() | {"source": self.source}

    def __call__(self, clip: Clip) -> Crops:
        """Decode a clip and cut its frames.

        Raises:
            Unreadable: there is no video of it.
        """
        found = video.probe(clip.media, clip.half)
        numbers = found.at(video.moments(found, clip, count=self.count, fps=self.fps))
        points = faces.landmarks(self.raw, clip.id) if self.face == "landmarks" and self.raw else None
        boxes = np.full((len(numbers), 4), np.nan)
        if points is not None and len(points):
            boxes = faces.landmark_boxes(points, numbers)
        if self.face == "detect":
            small = video.read(found, numbers[:: faces.EVERY], found.scaled(faces.LINES / found.height))
            boxes[:: faces.EVERY] = faces.detect_boxes(small) * (found.width / small.shape[2])
        if self.crop == "cfn_sr":
            places = np.where(np.isfinite(boxes), boxes, [0, 0, found.width, found.height])
            width, height = self.side, self.side
        else:
            places = faces.squares(faces.steady(boxes), found.width, found.height, *self._framing)
            width, height = found.scaled(self.side / (places[:, 2] - places[:, 0]).min())
        places = places * np.array([width / found.width, height / found.height] * 2)
        pieces = [slice(start, start + PIECE) for start in range(0, len(numbers), PIECE)]
        cut = [faces.cut(video.read(found, numbers[p], (width, height)), places[p], self.side) for p in pieces]
        return Crops(np.concatenate(cut), self._remark(boxes))

    @property
    def _framing(self) -> tuple[float, float]:
        margin, down = faces.FRAMING[self.face]
        return margin if self.margin is None else self.margin, down

    def _remark(self, boxes: faces.Boxes) -> str:
        looked_at = boxes[:: faces.EVERY] if self.face == "detect" else boxes
        known = np.isfinite(looked_at).all(axis=1)
        if self.face == "none" or known.all():
            return ""
        return SOME_FACES if known.any() else NO_FACE


# --- extractors -------------------------------------------------------------------------------------------------------


def frames(look: Look) -> Extractor:
    """The pixels themselves, for encoders that train with the fusion: uint8 [frame, 3 * side * side], channel first."""
    recipe = Recipe(
        name="frames" if look.crop == "square" else f"frames-{look.crop}",
        modality="vision",
        extractor="pixels",
        frame_rate=look.fps,
        dtype="uint8",
        settings=look.settings,
    )

    def encode(clips: list[Crops]) -> list[FloatArray | Remarked]:
        return [clip.told(clip.rows) for clip in clips]

    return Extractor(recipe, look, encode, batch_size=16)


def image(
    look: Look, *, model: str, layer: int | None = None, pooling: str = "pooler", download: bool = False
) -> Extractor:
    """One vector a frame from an image model of transformers, such as a ResNet, a ViT or CLIP's vision tower.

    Pictures are cut at the side that the model takes, in place of the resizing and centre crop that its processor would
    do, and normalised with the processor's mean and deviation.

    Args:
        look: What the model sees; its ``side`` is replaced by the model's.
        model: Name on the Hugging Face hub, or a folder.
        layer: Hidden states of this layer (0: the embeddings); None for the last.
        pooling: ``pooler`` (the model's own), ``cls`` (first token), or ``mean`` over the positions of the picture. A
            convolutional model has no tokens: there ``cls`` is the mean.
        download: Whether the hub may be asked.

    Raises:
        Misuse: the model is not on this machine, has no image processor, no such layer, or no trained pooler.
    """
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    if layer is not None and pooling == "pooler":
        raise Misuse("the model's own pooler reads its last layer alone: with --layer pass --pooling cls or mean")
    frozen = FrozenModel(
        model, download, processor="AutoImageProcessor", unused=() if pooling == "pooler" else ("pooler.",)
    )
    look = replace(look, side=input_side(frozen))
    recipe = Recipe(
        name=frozen.short + ("" if layer is None else f"-layer{layer}"),
        modality="vision",
        extractor=frozen.name,
        revision=frozen.revision,
        layer=f"{pooling} of " + ("last hidden state" if layer is None else f"hidden state {layer}"),
        frame_rate=look.fps,
        settings=look.settings | {"library": f"transformers {release('transformers')}"},
    )
    return Extractor(
        recipe,
        look,
        partial(encode_images, frozen=frozen, layer=layer, pooling=pooling),
        parameters=lambda: sum(p.numel() for p in vision_tower(frozen).parameters()),
        batch_size=8,
    )


def input_side(frozen: FrozenModel) -> int:
    """Side of the square pictures that the model takes, in pixels, as its image processor says.

    Raises:
        Misuse: it takes other shapes.
    """
    processor = frozen.processor
    stated = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    size = dict(stated or processor.size or {})
    sides = {int(size[key]) for key in ("height", "width", "shortest_edge") if size.get(key)}
    if len(sides) != 1:
        raise Misuse(f"the image processor of {frozen.asked!r} states no square input: its size is {size}")
    return sides.pop()


def vision_tower(frozen: FrozenModel) -> Any:
    """The model, or of one that also reads text the part that sees.

    Raises:
        Misuse: the checkpoint has no trained pooler, or the model takes no pictures.
    """
    try:
        model = getattr(frozen.model, "vision_model", frozen.model)
    except Misuse as error:
        if "pooler." not in str(error):
            raise
        raise Misuse(f"{frozen.asked!r} has no trained pooler of its own: pass --pooling cls or mean") from error
    if getattr(model, "main_input_name", "") != "pixel_values":
        raise Misuse(
            f"{frozen.asked!r} is no image model: its input is {getattr(model, 'main_input_name', 'unknown')!r}"
        )
    return model


def encode_images(
    clips: list[Crops], frozen: FrozenModel, *, layer: int | None, pooling: str, batch_size: int = 64
) -> list[FloatArray | Remarked]:
    """One vector a frame: [frame, dim] for each clip. Frames of several clips share a batch."""
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
            vectors.append(pool(found, layer, pooling, frozen.asked).float().cpu())
    lengths = [len(clip.pixels) for clip in clips]
    parts = torch.split(torch.cat(vectors), lengths)
    return [clip.told(part.numpy()) for clip, part in zip(clips, parts, strict=True)]


def pool(found: Any, layer: int | None, pooling: str, name: str) -> Any:
    """One vector [frame, dim] of what an image model returned.

    Raises:
        Misuse: it has no such layer, or no pooler.
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
    patches = math.isqrt(states.shape[1]) ** 2  # the class token and other registers stand before the square of patches
    return states[:, states.shape[1] - patches :].mean(1)


def clip3d(look: Look, *, checkpoint: Path, tokens: bool = False, stem_relu: bool = True) -> Extractor:
    """The 3D ResNeXt-50 of CFN-SR, frozen: one vector [1, 2048] a clip, or [98, 2048] with its positions as tokens.

    Args:
        look: What the network sees; 30 frames of side 224 in the paper.
        checkpoint: Its weights: see :func:`mer_bench.encoders.weights.load_weights`.
        tokens: Keep the positions of each slice in time, slice by slice, instead of their mean.
        stem_relu: See :class:`mer_bench.encoders.ResNeXt3D`.
    """
    import torch

    from mer_bench.batch import PaddedSequence
    from mer_bench.encoders import ResNeXt3D
    from mer_bench.encoders.weights import load_weights

    if look.fps:
        raise Misuse("the 3D ResNeXt sees a clip as a number of frames: pass --frames instead of --fps")
    network = ResNeXt3D(3 * look.side**2, frames=look.count, stem_relu=stem_relu).eval()
    load_weights(network, checkpoint)
    device = hub.device()
    recipe = Recipe(
        name="resnext3d-tokens" if tokens else "resnext3d",
        modality="vision",
        extractor="3D ResNeXt-50",
        revision=sha256(checkpoint)[:16],
        layer="layer4" if tokens else "mean of layer4",
        settings=look.settings | {"stem_relu": stem_relu},
    )

    @torch.inference_mode()
    def encode(clips: list[Crops]) -> list[FloatArray | Remarked]:
        pixels = torch.from_numpy(np.stack([clip.rows for clip in clips])).to(device).float()
        sequence = PaddedSequence(pixels, torch.ones(pixels.shape[:2], dtype=torch.bool, device=device))
        found = network.to(device).tokens(sequence)
        vectors = found.values if tokens else network.pool(sequence, found)[:, None]
        return [clip.told(vector.cpu().numpy()) for clip, vector in zip(clips, vectors, strict=True)]

    return Extractor(
        recipe, look, encode, parameters=lambda: sum(p.numel() for p in network.parameters()), batch_size=4
    )


# --- command ----------------------------------------------------------------------------------------------------------


def extract_vision(
    table: Path,
    raw: Path,
    build: Callable[[Look], Extractor] = frames,
    *,
    face: str | None = None,
    marked_side: str = "left",
    name: str | None = None,
    sheet: Path | None = None,
    workers: int = 0,
    strict: bool = False,
    force: bool = False,
    **look: Any,
) -> FeatureSpec:
    """Store the set that ``build`` makes of what a look at each utterance's video shows.

    Args:
        table: Folder of the utterance table.
        raw: The corpus as its makers distribute it.
        build: One of the functions above, its options bound.
        face: See :class:`Look`; by default landmarks where RAVDESS's lie below ``raw``, else the detector.
        marked_side: See :func:`data_prep.corpora.clips.vision_clips`.
        name: Of the set; by default the extractor's.
        sheet: Picture of what was cut out of a dozen clips, if one is wanted.
        workers: See :func:`data_prep.extract.extract`; likewise the others.
        strict: Complain about utterances without video.
        force: Extract even if it is done.
        **look: Further arguments of :class:`Look`.
    """
    clips = vision_clips(table, raw, marked_side=marked_side)
    tracked = landmark_source(raw) if face in (None, "landmarks") and table.resolve().name == "ravdess" else ""
    if face == "landmarks" and not tracked:
        raise Misuse(f"there are no landmark files for {table} below {raw}: pass --faces detect or none")
    face = face or ("landmarks" if tracked else "detect")
    media = fingerprint({clip.path for clip in clips if clip.path}, raw)
    extractor = build(Look(face=face, raw=raw, source="+".join(filter(None, [media, tracked])), **look))
    if name:
        extractor = replace(extractor, recipe=replace(extractor.recipe, name=name))
    if sheet:  # before the hours that the whole corpus takes
        draw_sheet(sheet, extractor.decode, clips)
    return extract(table, extractor, clips, workers=workers, strict=strict, force=force)


def draw_sheet(path: Path, look: Callable[[Clip], Crops], clips: list[Clip], rows: int = 12) -> None:
    """Draw what is cut out of up to ``rows`` readable clips from all over the corpus."""
    found = {}
    there = [clip for clip in clips if clip.path and clip.path.is_file()]
    for clip in there[:: -(-len(there) // rows) or 1]:
        with suppress(Unreadable):
            crops = look(clip)
            found[f"{clip.id}  {crops.remark}"] = crops.pixels
    if found:
        faces.contact_sheet(path, found)
        click.echo(f"{len(found)} clips as they are seen -> {path}")


def look_options(command: Any) -> Any:
    """The options of every extractor that looks at pixels."""
    for option in reversed(
        (
            cli.table_option,
            cli.raw_option,
            click.option("--frames", "count", type=click.IntRange(min=1), default=30, show_default=True,
                         help="Frames, evenly over the utterance."),
            click.option("--fps", type=click.FloatRange(min=0, min_open=True), help="Frames a second instead."),
            click.option("--faces", "face", type=click.Choice(FACES),
                         help="Where the face is [default: landmarks if the corpus has them, else detect]."),
            click.option("--crop", type=click.Choice(CROPS), default="square", show_default=True,
                         help="cfn_sr: as CFN-SR does, from whole frames that were shrunk first."),
            click.option("--margin", type=click.FloatRange(min=0), help="Share of the face's box added on each side."),
            click.option("--marked-side", type=click.Choice(["left", "right"]), default="left", show_default=True,
                         help="Half of IEMOCAP's picture that shows the actor with markers."),
            click.option("--name", help="Of the feature set [default: the extractor's]."),
            click.option("--contact-sheet", "sheet", type=click.Path(dir_okay=False, path_type=Path),
                         help="Draw what is cut out of a dozen clips into this picture."),
            cli.workers_option,
            cli.strict_option,
            cli.force_option,
        )
    ):  # fmt: skip
        command = option(command)
    return command


side_option = click.option("--side", type=click.IntRange(min=16), default=224, show_default=True, help="In pixels.")


@click.command("frames", cls=cli.Command)
@look_options
@side_option
def frames_command(**options: Any) -> None:
    """Pixels of the face, uint8, for encoders that train with the fusion: set "frames"."""
    extract_vision(**options)


@click.command("image", cls=cli.Command)
@click.option("--model", required=True, help="A Hugging Face name, or a folder that holds a model.")
@click.option("--layer", type=click.IntRange(min=0), help="Hidden states of this layer [default: the last].")
@click.option("--pooling", type=click.Choice(POOLINGS), default="pooler", show_default=True)
@cli.download_option
@look_options
def image_command(model: str, layer: int | None, pooling: str, download: bool, **options: Any) -> None:
    """One vector a frame from a ResNet, a ViT, CLIP's vision tower or any image model of transformers."""
    extract_vision(build=partial(image, model=model, layer=layer, pooling=pooling, download=download), **options)


@click.command("clip3d", cls=cli.Command)
@click.option(
    "--checkpoint", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="Its weights."
)
@click.option("--tokens", is_flag=True, help="Keep the 2 x 7 x 7 positions instead of their mean.")
@click.option("--stem-relu/--no-stem-relu", default=True, show_default=True, help="CFN-SR's network lost it.")
@look_options
@side_option
def clip3d_command(checkpoint: Path, tokens: bool, stem_relu: bool, **options: Any) -> None:
    """One vector a clip from the 3D ResNeXt-50 of CFN-SR."""
    extract_vision(build=partial(clip3d, checkpoint=checkpoint, tokens=tokens, stem_relu=stem_relu), **options)


#: every vision extractor by its name on the command line
VISION: dict[str, click.Command] = {
    "frames": frames_command,
    "image": image_command,
    "clip3d": clip3d_command,
    "openface": openface_command,
}

vision_command = click.Group("vision", commands=VISION, help="Vision features of a prepared corpus, by one extractor.")
