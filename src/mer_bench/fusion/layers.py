"""Pieces that several methods share: masked reductions, sequence encoders, attention. Plain modules on tensors.

Every function takes a mask (True = real) and is finite where a sequence is empty: what a missing modality becomes is
decided here, once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over time: [..., time, dim], [..., time] -> [..., dim]; zero where nothing is real."""
    weight = mask[..., None].to(values.dtype)
    return (values * weight).sum(-2) / weight.sum(-2).clamp(min=1)


def centre(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over time, and values less it: [..., time, dim], [..., time] -> [..., dim], [..., time, dim]."""
    mean = masked_mean(values, mask)
    return mean, values - mean[..., None, :]


def masked_deviation(centred: Tensor, mask: Tensor) -> Tensor:
    """Log standard deviation over time of centred values: [..., time, dim], [..., time] -> [..., dim]."""
    return _log_spread((masked_mean(centred.square(), mask) + 1e-6).sqrt(), 0.5, mask)


def masked_change(values: Tensor, mask: Tensor) -> Tensor:
    """Log mean absolute change from frame to frame: [..., time, dim], [..., time] -> [..., dim]."""
    return _log_spread(masked_mean(values.diff(dim=-2).abs(), mask[..., 1:]), 0.1, mask)


def masked_course(centred: Tensor, mask: Tensor, terms: int = 4) -> Tensor:
    """How features run over a sequence of any length: [..., time, dim], [..., time] -> [..., terms dim].

    The first cosine coefficients of centred values: onset, apex and offset. Zero for one frame.
    """
    length = mask.sum(-1, keepdim=True).clamp(min=1)
    place = (torch.arange(mask.shape[-1], device=mask.device) + 0.5) / length
    order = torch.arange(1, terms + 1, device=mask.device)[:, None]
    basis = math.sqrt(2) * (math.pi * order * place[..., None, :]).cos() * (mask / length)[..., None, :]
    return (basis.to(centred.dtype) @ centred).flatten(-2)


def _log_spread(spread: Tensor, typical: float, mask: Tensor) -> Tensor:
    """Spreads are positive and skewed: their logarithm, centred on a typical one, is what a linear layer can weigh.

    A sequence of one frame has no spread; it gets zero, the typical value, and not minus infinity.
    """
    return ((spread + 0.05) / (typical + 0.05)).log() * (mask.sum(-1, keepdim=True) > 1)


def masked_softmax(scores: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Softmax of ``scores`` over the real entries of ``dim``; all zeros where there is none."""
    weights = torch.softmax(scores.masked_fill(~mask, torch.finfo(scores.dtype).min), dim)
    return weights.masked_fill(~mask, 0)


def last_token(values: Tensor, mask: Tensor) -> Tensor:
    """The last real token: [batch, time, dim], [batch, time] -> [batch, dim]; zero where there is none."""
    last = (mask.sum(1) - 1).clamp(min=0)
    token = values.gather(1, last[:, None, None].expand(-1, 1, values.shape[-1]))[:, 0]
    return token * mask.any(1, keepdim=True)


def sinusoidal_positions(time: int, dim: int, device: torch.device) -> Tensor:
    """Sine-cosine positions [time, dim] (Vaswani et al. 2017, section 3.5); any width, odd ones included."""
    rate = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10_000.0) / dim))
    angle = torch.arange(time, device=device)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :dim]


class CheapDropout(nn.Dropout):
    """Dropout whose masks cost a fifth on a CPU, where torch draws a number of 64 bits for each element.

    Here four elements share one; sixteen bits meet ``p`` to 1/131,072. They are other masks than :class:`nn.Dropout`
    draws: a method that comes to take this class changes its numbers, and its version.

    Shapes:
        any -> the same.
    """

    def draws(self, values: Tensor) -> bool:
        """Whether masks are drawn here: in training, on a CPU, in code that is not compiled."""
        cheap = values.device.type == "cpu" and not torch.compiler.is_compiling()
        return cheap and self.training and 0 < self._dropped < 2**16

    def forward(self, values: Tensor) -> Tensor:
        """Drop elements and scale the others."""
        if not self.draws(values):
            return super().forward(values)
        numbers = torch.empty(-(-values.numel() // 4), dtype=torch.long).random_(-(2**63), None)
        bits = numbers.view(torch.short)[: values.numel()].view(values.shape)
        # as floats: comparing in place is several times as fast as a comparison that gives bools
        kept = bits.float().ge_(self._dropped - 2**15).mul_(2**16 / (2**16 - self._dropped))
        return values * kept.to(values.dtype)

    @property
    def _dropped(self) -> int:
        """How many of the numbers that sixteen bits can be stand for an element that is dropped."""
        return round(self.p * 2**16)


class TemporalConvolution(nn.Module):
    """Conv1d over time that never lets the padding in; stride > 1 also shortens the sequence.

    Shapes:
        [utterance, time, dim] -> [utterance, ceil(time / stride), width].
    """

    def __init__(self, dim: int, width: int, *, kernel: int = 1, stride: int = 1, bias: bool = False) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = nn.Conv1d(dim, width, kernel, stride=stride, padding=kernel // 2, bias=bias)

    def forward(self, sequence: PaddedSequence) -> PaddedSequence:
        """Convolve, then mask again."""
        mask = sequence.mask[:, :: self.stride]
        values = self.convolution(sequence.values.transpose(1, 2)).transpose(1, 2)[:, : mask.shape[1]]
        return PaddedSequence(values * mask[..., None], mask)


class BidirectionalRNN(nn.Module):
    """LSTM or GRU over both directions of padded sequences; equals one on packed sequences, dropout aside.

    A plain bidirectional RNN would start its backward pass in the padding, and packing waits for lengths on the CPU.
    Here the backward direction is a second RNN over each sequence's own reversal.

    Shapes:
        values [batch, time, dim], mask [batch, time] (real steps first) -> [batch, time, 2 hidden]; padding stays zero.
    """

    def __init__(
        self, kind: type[nn.LSTM] | type[nn.GRU], dim: int, hidden: int, *, layers: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [dim] + [2 * hidden] * (layers - 1)
        self.ahead = nn.ModuleList(kind(width, hidden, batch_first=True) for width in widths)
        self.back = nn.ModuleList(kind(width, hidden, batch_first=True) for width in widths)
        self.dropout = CheapDropout(dropout)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Read the sequences in both directions; dropout only between layers."""
        steps = torch.arange(mask.shape[1], device=mask.device)
        reversal = torch.where(mask, mask.sum(1, keepdim=True) - 1 - steps, steps)[..., None]
        for depth, (ahead, back) in enumerate(zip(self.ahead, self.back, strict=True)):
            x = self.dropout(values) if depth else values
            reversed_back, _ = back(x.take_along_dim(reversal, 1))
            values = torch.cat([ahead(x)[0], reversed_back.take_along_dim(reversal, 1)], -1) * mask[..., None]
        return values


BLOCK = 512  #: columns that are summed at once: thousands, in double precision, would not stay in a cache


class Standardization(nn.Module):
    """Subtract the mean and divide by the deviation of all training rows seen so far, capped at six deviations.

    Unlike batch normalisation it never lets a row depend on its batch-mates, and it takes a batch of one.

    Shapes:
        values [row, dim] or only its first columns where the others are zero, real [row] (rows that count)
        -> [row, dim].
    """

    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.looks = True  #: whether :meth:`known` looks for zeros
        self.register_buffer("count", torch.zeros((), dtype=torch.double))
        self.register_buffer("total", torch.zeros(dim, dtype=torch.double))
        self.register_buffer("squares", torch.zeros(dim, dtype=torch.double))

    def forward(self, values: Tensor, real: Tensor) -> Tensor:
        """Learn from the rows (in training), then standardise them."""
        dim, width = len(self.total), self._edge(values.shape[1])
        values = _widen(values, width)
        if self.training:
            edges = range(BLOCK, min(width, dim - BLOCK + 1), BLOCK)
            blocks = (part.double() * real[:, None] for part in values.detach().tensor_split(list(edges), 1))
            total, squares = zip(*((rows.sum(0), rows.square().sum(0)) for rows in blocks), strict=True)
            sums = (real.sum(), _widen(torch.cat(total), dim), _widen(torch.cat(squares), dim))
            for seen, more in zip((self.count, self.total, self.squares), sums, strict=True):
                if torch.distributed.is_available() and torch.distributed.is_initialized():
                    torch.distributed.all_reduce(more)  # the rows of all devices
                seen.add_(more)
        count = self.count.clamp(min=1)
        mean = self.total / count
        deviation = (self.squares / count - mean.square()).clamp(min=0).sqrt()
        scale = torch.where(deviation > 1e-4, deviation, 1)  # a constant, and whatever came before any training row
        mean, scale = mean.to(values.dtype), scale.to(values.dtype)
        given = (values - mean[:width]).div_(scale[:width]).clamp_(-6, 6)
        if width == dim:
            return given
        others = (0 - mean[width:]).div_(scale[width:]).clamp_(-6, 6)
        return torch.cat([given, others.expand(len(values), -1)], 1)

    def known(self, width: int) -> int:
        """How many columns of what becomes of ``width`` columns can be other than zero.

        Elsewhere than on a CPU all of them: to look would cost more than it saves.
        """
        edge = self._edge(width)
        looks = self.looks and self.total.device.type == "cpu" and not torch.compiler.is_compiling()
        return edge if looks and not self.total[edge:].any() else len(self.total)

    def _edge(self, width: int) -> int:
        """Columns up to the end of a block: to the last bit, how columns are summed depends on how many there are."""
        dim = len(self.total)
        edge = -(-width // BLOCK) * BLOCK
        return edge if edge <= dim - BLOCK else dim


@contextmanager
def every_column(method: nn.Module) -> Iterator[None]:
    """Within it ``method`` multiplies columns of zeros too, as it does on a GPU."""
    standardizations = [module for module in method.modules() if isinstance(module, Standardization)]
    for module in standardizations:
        module.looks = False
    try:
        yield
    finally:
        for module in standardizations:
            module.looks = True


def _widen(values: Tensor, width: int) -> Tensor:
    """[..., dim] -> [..., width], with zeros at the end."""
    return values if values.shape[-1] == width else F.pad(values, (0, width - values.shape[-1]))


class UtteranceEncoder(nn.Module):
    """One vector an utterance from its feature sequence: the encoder of every method whose paper leaves it open.

    A linear layer on what can be said of a sequence of any length: the mean of each feature, its deviation, its change
    from frame to frame and its course, standardised. Small corpora repay this: on the validation folds of RAVDESS two
    convolutions over the frames beside it, with statistics of their own, cost two points. Methods that read tokens take
    :class:`TokenEncoder`.

    Shapes:
        sequence [utterance, time, dim] -> vector [utterance, hidden]; zero for a missing modality.
    """

    def __init__(self, dim: int, hidden: int, *, dropout: float = 0.15) -> None:
        super().__init__()
        self.standardize = Standardization(7 * dim)
        self.statistics = nn.Linear(7 * dim, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.dropout = CheapDropout(dropout)

    def forward(self, sequence: PaddedSequence) -> Tensor:
        """[utterance, time, dim] -> [utterance, hidden]."""
        return self.activate(self.describe(sequence), sequence.mask)

    def describe(self, sequence: PaddedSequence) -> Tensor:
        """The sequence's statistics, mapped to [utterance, hidden]."""
        values, mask = sequence.values, sequence.mask
        statistics, centred = centre(values, mask)
        if values.shape[1] > 1:  # of one frame all that follows is zero
            spread, course = masked_deviation(centred, mask), masked_course(centred, mask)
            statistics = torch.cat([statistics, spread, masked_change(values, mask), course], -1)
        standard = self.standardize(statistics, mask.any(1))
        known = self.standardize.known(statistics.shape[1])
        standard = self.dropout(standard[:, :known])
        return F.linear(standard, self.statistics.weight[:, :known], self.statistics.bias)

    def activate(self, vector: Tensor, mask: Tensor) -> Tensor:
        """Normalise, bend, drop out; zero where the sequence is empty."""
        return self.dropout(F.gelu(self.norm(vector))) * mask.any(1, keepdim=True)


class TokenEncoder(UtteranceEncoder):
    """Tokens as well: two strided temporal convolutions, a quarter as many tokens as frames.

    ``pool`` adds the mean and the deviation of the tokens, which a method may have reweighted, to the statistics of the
    sequence that the utterance vector of all other methods has: a table compares what fusion makes of the tokens.

    Shapes:
        sequence [utterance, time, dim] -> tokens [utterance, ceil(time / 4), hidden] -> vector [utterance, hidden].
    """

    def __init__(self, dim: int, hidden: int, *, kernel: int = 3, stride: int = 2, dropout: float = 0.15) -> None:
        super().__init__(dim, hidden, dropout=dropout)
        self.input_dropout = nn.Dropout1d(dropout)  # drops a feature from all frames: neighbours in time are redundant
        self.convolutions = nn.ModuleList(
            TemporalConvolution(width, hidden, kernel=kernel, stride=stride, bias=True) for width in (dim, hidden)
        )
        self.movement = nn.Linear(2 * hidden, hidden)

    def forward(self, sequence: PaddedSequence) -> Tensor:
        """[utterance, time, dim] -> [utterance, hidden]."""
        return self.pool(sequence, self.tokens(sequence))

    def tokens(self, sequence: PaddedSequence) -> PaddedSequence:
        """[utterance, time, dim] -> [utterance, ceil(time / stride^2), hidden]."""
        x = PaddedSequence(self.input_dropout(sequence.values.transpose(1, 2)).transpose(1, 2), sequence.mask)
        for convolution in self.convolutions:
            x = convolution(x)
            x = PaddedSequence(F.relu(x.values), x.mask)
        return x

    def pool(self, sequence: PaddedSequence, tokens: PaddedSequence) -> Tensor:
        """The input and its tokens -> [utterance, hidden]."""
        values, mask = tokens.values, tokens.mask
        # a mean each, for the gradients: through one for both they would round otherwise
        movement = [masked_mean(values, mask), masked_deviation(centre(values, mask)[1], mask)]
        return self.activate(self.describe(sequence) + self.movement(torch.cat(movement, -1)), sequence.mask)


class Encoders(nn.ModuleDict):
    """One :class:`UtteranceEncoder` for each modality: every modality's utterance vectors.

    Shapes:
        batch -> [modality, utterance, hidden], in the order of ``dims``; zero for a missing modality.
    """

    def __init__(self, dims: Mapping[str, int], hidden: int, *, dropout: float = 0.15) -> None:
        super().__init__({name: UtteranceEncoder(dim, hidden, dropout=dropout) for name, dim in dims.items()})

    def forward(self, batch: Batch) -> Tensor:
        """Encode all modalities."""
        return torch.stack([encode(batch.features[name]) for name, encode in self.items()])

    def joined(self, batch: Batch) -> Tensor:
        """The vectors side by side: [utterance, modalities * hidden]."""
        return torch.cat(list(self(batch)), -1)


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017) whose queries may attend nothing at all.

    Shapes:
        query [batch, target, dim], source [batch, source, dim], allowed [batch or 1, target or 1, source]
        -> [batch, target, dim]; zero for a query without an allowed source.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not divisible by {heads} heads")
        self.heads, self.dropout = heads, CheapDropout(dropout)
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        for projection in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, query: Tensor, source: Tensor, allowed: Tensor) -> Tensor:
        """Attend from ``query`` to the ``allowed`` places of ``source``."""
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, x in ((self.query, query), (self.key, source), (self.value, source))
        )
        some = allowed.any(-1, keepdim=True)
        mask = (allowed | ~some)[:, None]
        if self.dropout.draws(q):
            # as torch does it here, but for the masks
            barred = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
            heads = self.dropout(((q * q.shape[-1] ** -0.5) @ k.mT + barred).softmax(-1)) @ v
        else:
            heads = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=self.dropout.p if self.training else 0.0
            )
        return self.output(heads.transpose(1, 2).flatten(2)) * some


class TransformerLayer(nn.Module):
    """Pre-LayerNorm transformer layer; with a source it is MulT's cross-modal layer (Tsai et al. 2019, section 3.2)."""

    def __init__(self, dim: int, heads: int, ffn: int, *, attention_dropout: float, relu_dropout: float,
                 residual_dropout: float) -> None:  # fmt: skip
        super().__init__()
        self.attention = Attention(dim, heads, dropout=attention_dropout)
        self.attention_norm, self.ffn_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn), nn.ReLU(), CheapDropout(relu_dropout), nn.Linear(ffn, dim))
        self.dropout = CheapDropout(residual_dropout)

    def forward(self, x: Tensor, source: Tensor | None, allowed: Tensor) -> Tensor:
        """[batch, target, dim] -> the same shape; the source's LayerNorm is the target's, as in MulT."""
        query = self.attention_norm(x)
        source = query if source is None else self.attention_norm(source)
        x = x + self.dropout(self.attention(query, source, allowed))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


class TransformerEncoder(nn.Module):
    """The pre-LayerNorm encoder of MulT and CFN-SR: scaled input, sinusoidal positions, optional causal mask.

    With ``source`` every layer attends from the target sequence to the source's (positions added to both).

    Shapes:
        target [batch, target, dim] (and source [batch, source, dim]) -> [batch, target, dim]; padding stays zero.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int,
        layers: int,
        ffn: int | None = None,
        causal: bool = False,
        attention_dropout: float = 0.1,
        relu_dropout: float = 0.1,
        residual_dropout: float = 0.1,
        embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim, self.causal = dim, causal
        self.embedding_dropout = CheapDropout(embedding_dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(
                dim,
                heads,
                ffn or 4 * dim,
                attention_dropout=attention_dropout,
                relu_dropout=relu_dropout,
                residual_dropout=residual_dropout,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, target: PaddedSequence, source: PaddedSequence | None = None) -> PaddedSequence:
        """Encode the target, from itself or from the source."""
        x = self._embed(target)
        other = None if source is None else self._embed(source)
        allowed = self._allowed(target.mask, (source or target).mask)
        for layer in self.layers:
            x = layer(x, other, allowed)
        return PaddedSequence(self.norm(x) * target.mask[..., None], target.mask)

    def last(self, sequence: PaddedSequence) -> Tensor:
        """The last token of a sequence that is encoded from itself, for which the last layer computes it alone.

        [batch, time, dim] -> [batch, dim]; zero for an empty sequence.
        """
        x = self._embed(sequence)
        allowed = self._allowed(sequence.mask, sequence.mask)
        *before, final = self.layers
        for layer in before:
            x = layer(x, None, allowed)
        token = final(last_token(x, sequence.mask)[:, None], x, sequence.mask[:, None])  # it sees the whole sequence
        return self.norm(token[:, 0]) * sequence.mask.any(1, keepdim=True)

    def _allowed(self, target: Tensor, source: Tensor) -> Tensor:
        """What each step of the target may attend, from both masks: [batch, target or 1, source]."""
        allowed = source[:, None]
        if not self.causal:
            return allowed
        # step t of the target sees its past; of a source of another length, as far ahead as the lengths differ
        ahead = (source.sum(1) - target.sum(1)).abs()
        step = torch.arange(max(target.shape[1], source.shape[1]), device=target.device)
        return allowed & (step[: source.shape[1]] <= step[: target.shape[1], None] + ahead[:, None, None])

    def _embed(self, sequence: PaddedSequence) -> Tensor:
        positions = sinusoidal_positions(sequence.values.shape[1], self.dim, sequence.values.device)
        return self.embedding_dropout(math.sqrt(self.dim) * sequence.values + positions)


class SelfSelection(nn.Module):
    """A sequence selects within itself: the last token of a causal pre-LayerNorm transformer (CFN-SR, TACFN).

    250,048 parameters at width 64 with 5 layers, as in the authors' CFN-SR code.

    Shapes:
        [utterance, time, dim] -> [utterance, dim]; zero for a missing modality.
    """

    def __init__(self, dim: int, *, heads: int, layers: int, dropout: float, embedding_dropout: float) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"self-attention of {layers} layers selects nothing; the least is 1")
        self.encoder = TransformerEncoder(
            dim,
            heads=heads,
            layers=layers,
            causal=True,
            attention_dropout=dropout,
            relu_dropout=dropout,
            residual_dropout=dropout,
            embedding_dropout=embedding_dropout,
        )

    def forward(self, sequence: PaddedSequence) -> Tensor:
        """[utterance, time, dim] -> [utterance, dim]."""
        return self.encoder.last(sequence)


class GuidedAttention(nn.Module):
    r"""Additive attention over a target's tokens that other modalities guide (CFN-SR; in spliced form TACFN).

    With the guide's vector :math:`a` and the target's tokens :math:`x_t`

    .. math:: w = \operatorname{softmax}_t\big(v^\top \tanh(W [x_t ; a] + b)\big), \qquad x'_t = w_t x_t + x_t

    CFN-SR writes :math:`W_x x_t + W_a a` and TACFN splices; both are this one linear map. The weights are per
    utterance: CFN-SR's public code adds up the maps of all clips in a batch, which makes them depend on batch-mates.

    Args:
        target: Width of the target's tokens.
        guide: Width of the guiding vector; 0 for none (the ablation without splice).
        hidden: Width of the additive attention.
        residual: Add the tokens back (off: an ablation).
        scale: Multiply the weights by the number of tokens, so that their mean is one. Without it, as in the papers,
            a softmax over many tokens makes :math:`w_t x_t` vanish beside :math:`x_t`.

    Shapes:
        target [utterance, time, target], guide [utterance, guide] -> [utterance, time, target].
    """

    def __init__(self, target: int, guide: int, hidden: int, *, residual: bool = True, scale: bool = False) -> None:
        super().__init__()
        self.residual, self.scale = residual, scale
        self.target = nn.Linear(target, hidden)
        self.guide = nn.Linear(guide, hidden, bias=False) if guide else None
        self.score = nn.Linear(hidden, 1)

    def forward(self, target: PaddedSequence, guide: Tensor) -> PaddedSequence:
        """Reweight the target's tokens."""
        hidden = self.target(target.values)
        if self.guide is not None:
            hidden = hidden + self.guide(guide)[:, None]
        weight = masked_softmax(self.score(hidden.tanh())[..., 0], target.mask)[..., None]
        if self.scale:
            weight = weight * target.mask.sum(1)[:, None, None]
        return PaddedSequence(target.values * (weight + 1 if self.residual else weight), target.mask)


def resample(sequence: PaddedSequence, steps: int) -> Tensor:
    """Cut each utterance into ``steps`` equal spans and average its frames over each: a time axis for all modalities.

    A frame counts in a span by the part of it that lies there, so that a sequence with fewer frames than steps repeats
    them, and one frame fills all steps. What is lost is how long the utterance took.

    Shapes:
        sequence [utterance, time, dim] (real frames first) -> [utterance, steps, dim]; zero for a missing modality.
    """
    values, mask = sequence.values, sequence.mask
    span = mask.sum(1)[:, None, None].to(values.dtype) / steps  # frames in a span; spans and frames as axes below
    step = torch.arange(steps, device=values.device)[:, None]
    frame = torch.arange(values.shape[1], device=values.device)
    overlap = (torch.minimum((step + 1) * span, frame + 1) - torch.maximum(step * span, frame)).clamp(min=0)
    return (overlap / overlap.sum(-1, keepdim=True).clamp(min=1e-6)) @ values


def perceptron(dim: int, hidden: int, out: int, *, dropout: float = 0.0) -> nn.Sequential:
    """One hidden layer: W_2 dropout(relu(W_1 x + b_1)) + b_2."""
    return nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out))


class GatedMemory(nn.Module):
    r"""Multi-view gated memory: what is kept over time of the interactions between modalities (MFN, Graph-MFN).

    With D networks of one hidden layer

    .. math:: u_t = \sigma(D_1 [x_t; u_{t-1}]) \odot u_{t-1} + \sigma(D_2 [x_t; u_{t-1}]) \odot \tanh(D_u x_t)

    Shapes:
        x [utterance, step, dim] -> the last memory [utterance, memory].
    """

    def __init__(self, dim: int, memory: int, inner: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.memory = memory
        self.proposal = perceptron(dim, inner, memory, dropout=dropout)
        self.retain, self.update = (perceptron(dim + memory, inner, memory, dropout=dropout) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Run over the steps; what does not depend on the memory is computed for all of them at once."""
        memory = x.new_zeros(len(x), self.memory)
        for step, proposal in zip(x.unbind(1), self.proposal(x).tanh().unbind(1), strict=True):
            both = torch.cat([step, memory], -1)
            memory = self.retain(both).sigmoid() * memory + self.update(both).sigmoid() * proposal
        return memory


class ParallelConvolutions(nn.Module):
    """One temporal convolution and relu for each modality: M x [utterance, time, width] -> the same."""

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            TemporalConvolution(width, width, kernel=3, bias=True) for _ in range(modalities)
        )

    def forward(self, tokens: Sequence[PaddedSequence]) -> list[PaddedSequence]:
        """Convolve each modality by itself."""
        convolved = [convolve(x) for convolve, x in zip(self.convolutions, tokens, strict=True)]
        return [PaddedSequence(F.relu(x.values), x.mask) for x in convolved]


class Streams(nn.Module):
    """A stream of tokens a modality, which meet at fusion sites only, with a classifier each (MMTM, MSAF).

    The first site sees the tokens of the shared encoder; a further temporal convolution of each modality leads to
    each further site; after the last the encoder pools. A site is a module on the list of all modalities' tokens.

    Shapes:
        modality -> [utterance, time, dim] -> logits [modality, utterance, classes]; zero for a missing modality.
    """

    def __init__(
        self, dims: Mapping[str, int], hidden: int, classes: int, sites: Sequence[nn.Module], *, dropout: float
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: TokenEncoder(dim, hidden, dropout=dropout) for name, dim in dims.items()})
        between = [module for site in sites[1:] for module in (ParallelConvolutions(len(dims), hidden), site)]
        self.sites = nn.Sequential(*sites[:1], *between)
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, classes) for name in dims})

    def forward(self, features: Mapping[str, PaddedSequence]) -> Tensor:
        """Run the streams side by side."""
        tokens = self.sites([encoder.tokens(features[name]) for name, encoder in self.encoders.items()])
        logits = [
            self.heads[name](encoder.pool(features[name], own)) * features[name].mask.any(1, keepdim=True)
            for (name, encoder), own in zip(self.encoders.items(), tokens, strict=True)
        ]
        return torch.stack(logits)


def tokens_with_summary(encoder: nn.Module, sequence: PaddedSequence) -> PaddedSequence:
    """What a transformer reads of a modality: first the utterance's vector, then its tokens with their positions.

    From a TokenEncoder: [utterance, time, dim] -> [utterance, 1 + ceil(time / 4), hidden]; nothing is real where
    the modality is missing.
    """
    tokens = encoder.tokens(sequence)
    _, time, dim = tokens.values.shape
    placed = tokens.values + sinusoidal_positions(time, dim, tokens.values.device)
    values = torch.cat([encoder.pool(sequence, tokens)[:, None], placed], 1)
    return PaddedSequence(values, torch.cat([tokens.mask.any(1, keepdim=True), tokens.mask], 1))


class ResidualHead(nn.Module):
    """MulT's classifier, W (z + W_2 relu(W_1 z)): [..., width] -> [..., num_classes]."""

    def __init__(self, width: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.residual = perceptron(width, width, width, dropout=dropout)
        self.output = nn.Linear(width, num_classes)

    def forward(self, vector: Tensor) -> Tensor:
        """Classify."""
        return self.output(vector + self.residual(vector))
