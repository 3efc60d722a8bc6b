"""MFCCNet: three one-dimensional convolutions over MFCCs (Su et al. 2020, MSAF, arXiv 2012.07175; also in CFN-SR)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence
from mer_bench.errors import Misuse


class MFCCCNN(nn.Module):
    """20,704 parameters with 13 coefficients. Layers have the names of the authors' state dict; there is no classifier.

    Args:
        dim: Number of coefficients per frame.
        frames: Number of frames per clip. Longer clips are cut and shorter ones padded with zeros: the vector is the
            concatenation of all tokens, so that their number is fixed.

    Raises:
        Misuse: there are fewer frames than two tokens need.

    Shapes:
        sequence [clip, time, dim] -> tokens [clip, (frames - 4) // 8, 64] -> vector [clip, ((frames - 4) // 8) * 64].
    """

    modality = "audio"
    head = "fc1"  #: name of the classifier in the authors' state dict, which is not loaded
    width = 64  #: width of a token
    slices = 1  #: number of parts of a clip's tokens with separate attention

    def __init__(self, dim: int = 13, *, frames: int = 212) -> None:
        super().__init__()
        if frames < 20:
            raise Misuse(f"the MFCC CNN needs at least 20 frames per clip, not {frames}: pooling leaves one in eight")
        self.frames = frames
        self.steps = (frames - 4) // 8
        self.pooled = self.steps * self.width  #: width of the vector
        self.conv1, self.bn1 = nn.Conv1d(dim, 32, 7, padding=2), nn.BatchNorm1d(32)
        self.conv2, self.bn2 = nn.Conv1d(32, 32, 7, padding=2), nn.BatchNorm1d(32)
        self.conv3, self.bn3 = nn.Conv1d(32, self.width, 5, padding=2), nn.BatchNorm1d(self.width)
        self.token_dropout, self.vector_dropout = nn.Dropout(0.2), nn.Dropout(0.4)

    def forward(self, mfcc: Tensor) -> Tensor:
        """[clip, dim, frames] -> [clip, 64, (frames - 4) // 8]; the ReLU precedes normalisation, as in their code."""
        x = self.bn1(F.relu(self.conv1(mfcc)))
        x = F.relu(self.conv2(x))
        x = x[..., : 8 * self.steps].reshape(*x.shape[:2], self.steps, 8).amax(-1)
        return self.bn3(F.relu(self.conv3(self.token_dropout(self.bn2(x)))))

    def tokens(self, batch: Batch) -> PaddedSequence:
        """Encode the clips of a batch, see :meth:`encode`."""
        return self.encode(batch.frames[self.modality])

    def encode(self, sequence: PaddedSequence) -> PaddedSequence:
        """Encode the clips that are present."""
        present = sequence.mask.any(1)
        values = sequence.values.new_zeros(len(present), self.steps, self.width)
        if present.any():
            mfcc = F.pad(sequence.values[present], (0, 0, 0, self.frames - sequence.values.shape[1]))
            values[present] = self(mfcc.mT).mT.to(values.dtype)
        return PaddedSequence(values, present[:, None].expand(-1, self.steps))

    def pool(self, batch: Batch, tokens: PaddedSequence) -> Tensor:
        """Concatenate all tokens, channel by channel as the authors' code flattens them."""
        return self.vector_dropout(tokens.values.mT.flatten(1))
