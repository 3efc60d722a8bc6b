"""3D ResNeXt-50: 50 layers of grouped 3D convolutions over a clip's frames (Hara et al. 2018, arXiv 1711.09577)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.errors import Misuse


class Bottleneck(nn.Module):
    """1x1x1, grouped 3x3x3, 1x1x1 convolutions around a shortcut; a projection where the shape changes (type B).

    Shapes:
        [clip, dim, time, height, width] -> [clip, 2 * inner, ceil(. / stride) of each].
    """

    def __init__(self, dim: int, inner: int, *, stride: int, groups: int = 32) -> None:
        super().__init__()
        out = 2 * inner
        self.conv1, self.bn1 = nn.Conv3d(dim, inner, 1, bias=False), nn.BatchNorm3d(inner)
        self.conv2 = nn.Conv3d(inner, inner, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm3d(inner)
        self.conv3, self.bn3 = nn.Conv3d(inner, out, 1, bias=False), nn.BatchNorm3d(out)
        self.downsample = (
            nn.Sequential(nn.Conv3d(dim, out, 1, stride=stride, bias=False), nn.BatchNorm3d(out))
            if stride > 1 or dim != out
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the output of the convolutions to the input."""
        change = F.relu(self.bn1(self.conv1(x)), inplace=True)
        change = F.relu(self.bn2(self.conv2(change)), inplace=True)
        return F.relu(self.bn3(self.conv3(change)) + self.downsample(x), inplace=True)


class ResNeXt3D(nn.Module):
    """25,865,664 parameters. Layers have the names of the 3D-ResNets-PyTorch state dict; there is no classifier.

    It reads clips of pixels from 0 to 255 and normalises them with ImageNet's mean and deviation. In training each clip
    is flipped at random and cropped to 80 to 100 % of its area, equally in all frames, with torch's global generator.
    (The authors of MSAF and CFN-SR flip and crop every frame separately, so that a face jumps from frame to frame.)

    Args:
        dim: 3 * side * side, the number of values of one RGB frame, channel first.
        frames: Number of evenly spaced frames that it reads from a clip; a shorter clip repeats some.
        stem_relu: Whether a ReLU follows the first normalisation. The original has it; MSAF's and CFN-SR's networks do
            not, although their initial unimodal checkpoints were trained with it.
        augment: Whether to flip and crop in training.

    Raises:
        Misuse: ``dim`` is not that of square RGB frames, or the frames are too small.

    Shapes:
        sequence [clip, time, dim] -> tokens [clip, slices * positions, 2048] -> vector [clip, 2048]; 30 frames of
        side 224 give 2 slices in time of 7 x 7 positions.
    """

    modality = "vision"
    head = "fc"  #: name of the classifier in the original state dict, which is not loaded
    width = pooled = 2048

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int, *, frames: int = 30, stem_relu: bool = True, augment: bool = True) -> None:
        super().__init__()
        self.side = math.isqrt(dim // 3)
        if 3 * self.side**2 != dim:
            raise Misuse(
                f"{dim} values per frame are not square RGB pixels (3 * side * side, e.g. 150528 for 224 x 224)"
            )
        if self.side < 33 or frames < 1:
            raise Misuse(f"the 3D ResNeXt needs at least 1 frame of at least side 33, not {frames} of side {self.side}")
        self.frames, self.stem_relu, self.augment = frames, stem_relu, augment
        self.slices = math.ceil(frames / 16)
        self.positions = math.ceil(self.side / 32) ** 2
        self.conv1 = nn.Conv3d(3, 64, 7, stride=(1, 2, 2), padding=3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        self.layer1 = _layer(64, 128, blocks=3, stride=1)
        self.layer2 = _layer(256, 256, blocks=4, stride=2)
        self.layer3 = _layer(512, 512, blocks=6, stride=2)
        self.layer4 = _layer(1024, 1024, blocks=3, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        for name, values in (("mean", (0.485, 0.456, 0.406)), ("deviation", (0.229, 0.224, 0.225))):
            self.register_buffer(name, 255 * torch.tensor(values)[:, None, None, None], persistent=False)

    def forward(self, video: Tensor) -> Tensor:
        """Normalised frames [clip, 3, frames, side, side] -> [clip, 2048, slices, ceil(side / 32), ceil(side / 32)]."""
        x = self.bn1(self.conv1(video))
        x = max_pool(F.relu(x, inplace=True) if self.stem_relu else x)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def tokens(self, batch: Batch) -> PaddedSequence:
        """Encode the clips of a batch, see :meth:`encode`."""
        return self.encode(batch.frames[self.modality])

    def encode(self, sequence: PaddedSequence) -> PaddedSequence:
        """Encode the clips that are present: one token per position and slice, slice by slice."""
        present = sequence.mask.any(1)
        values = sequence.values.new_zeros(len(present), self.slices * self.positions, self.width)
        if present.any():
            values[present] = self(self._video(sequence)).flatten(2).mT.to(values.dtype)
        return PaddedSequence(values, present[:, None].expand(values.shape[:2]))

    def pool(self, batch: Batch, tokens: PaddedSequence) -> Tensor:
        """The mean over slices and positions."""
        return tokens.values.mean(1)

    def _video(self, sequence: PaddedSequence) -> Tensor:
        """Normalised, evenly spaced frames of the clips that are present: [clip, 3, frames, side, side]."""
        length = sequence.mask.sum(1)
        clip = length.nonzero()
        middle = 2 * torch.arange(self.frames, device=length.device) + 1  # middle of each span, in units of half spans
        pixels = sequence.values[clip, middle * length[clip] // (2 * self.frames)]
        video = pixels.view(*pixels.shape[:2], 3, self.side, self.side).transpose(1, 2)
        video = (video - self.mean) / self.deviation
        return flip_and_crop(video) if self.training and self.augment else video


def max_pool(x: Tensor) -> Tensor:
    """MaxPool3d with kernel 3, stride 2, padding 1, in space and then in time.

    On a GPU torch's own layer has no deterministic backward pass, which all runs require.
    """
    images = F.max_pool2d(x.flatten(1, 2), 3, 2, 1)
    x = F.pad(images.view(*x.shape[:3], *images.shape[2:]), (0, 0, 0, 0, 1, 1), value=-math.inf)
    return torch.maximum(torch.maximum(x[:, :, :-2:2], x[:, :, 1:-1:2]), x[:, :, 2::2])


def flip_and_crop(video: Tensor) -> Tensor:
    """Flip half of the clips and enlarge a random square of 80 to 100 % of the area, equally in all frames of a clip.

    Shapes:
        [clip, channel, frame, side, side] -> the same.
    """
    draw = torch.rand(len(video), 4)
    share = (0.8 + 0.2 * draw[:, 0]).sqrt()
    view = torch.zeros(len(video), 2, 3)
    view[:, 0, 0] = torch.where(draw[:, 3] < 0.5, -share, share)
    view[:, 1, 1] = share
    view[:, :, 2] = (1 - share)[:, None] * (2 * draw[:, 1:3] - 1)
    images = video.flatten(1, 2)
    grid = F.affine_grid(view.to(video), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False).view(video.shape)


def _layer(dim: int, inner: int, *, blocks: int, stride: int) -> nn.Sequential:
    widths = [dim] + [2 * inner] * (blocks - 1)
    return nn.Sequential(*(Bottleneck(w, inner, stride=1 if i else stride) for i, w in enumerate(widths)))
