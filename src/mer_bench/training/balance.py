r"""Training strategies that keep one modality from dominating: the training option ``balance``.

Each is a callback that changes the gradients of the modalities' own encoders
(:meth:`~mer_bench.fusion.base.FusionModule.encoders_by_modality`) before they are clipped. What a modality says alone
is ``method(batch.only([name]))``, so that every method takes part whose encoders are separate, whatever its fusion, and
modalities may be missing: scores and losses of a modality are means over the utterances that have it, and one that no
utterance of a batch has is left as it is. "The others" are the mean of the other modalities.

``ogm_ge``: :class:`OGMGE`; ``agm``: :class:`AGM`; ``mmpareto``: :class:`MMPareto`. ``modality_dropout`` changes no
gradient: each modality of an utterance is dropped in training with probability
:data:`~mer_bench.fusion.base.MODALITY_DROPOUT`, but never the last one.

All authors train with SGD. AdamW divides by the size of earlier gradients, so that a factor counts only as far as it
changes from step to step, and relative to the noise.
"""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from mer_bench.batch import Batch
from mer_bench.errors import Misuse
from mer_bench.fusion.base import FusionModule
from mer_bench.modalities import shapley_weights
from mer_bench.records import RunSpec, has_whole_weights
from mer_bench.training.callbacks import evaluation

OGM_ALPHA = 0.3  #: as in BalanceBenchmark (arXiv 2502.10816, of the same group); OGM-GE's code has no default
OGM_UNTIL = 0.5  #: share of the epochs after which OGM-GE ends: epochs 0 to 50 of 100 in the authors' code
AGM_ALPHA = 1.0  #: default of the copy of the authors' code that could be read
AGM_LARGEST = 7.0  #: largest difference in AGM's exponent, as in BalanceBenchmark, so that gradients stay finite
SMALLEST = 1e-8  #: probabilities below count as this in AGM's cross-entropy, as in that copy
GAMMA = 1.5  #: of MMPareto, in the authors' code


def check_balance(spec: RunSpec, method: FusionModule) -> None:
    """Raise Misuse unless the method can be trained with the strategy of the spec."""
    balance = spec.training.balance
    if balance == "none":
        return
    if not method.encoders_by_modality() or len(method.dims) < 2:
        raise Misuse(
            f"method {spec.method!r} on {' and '.join(method.dims)} does not take balance = {balance!r}, which needs "
            'two or more modalities with encoders of their own; leave balance = "none"'
        )
    if not has_whole_weights(spec):
        raise Misuse(f"balance = {balance!r} does not go with strategy {spec.strategy!r}, which shards the weights")


def balancing(spec: RunSpec) -> list[Callback]:
    """The callbacks of the strategy of a spec."""
    kinds: dict[str, type[Balance]] = {"ogm_ge": OGMGE, "agm": AGM, "mmpareto": MMPareto}
    kind = kinds.get(spec.training.balance)
    return [kind(spec.seed)] if kind else []


class Balance(Callback):
    """Changes the gradients of the encoders after the backward pass, which sees the batch that was trained on.

    Args:
        seed: Of the noise that a strategy draws; the random numbers of the training are left alone.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Find the encoders."""
        assert isinstance(module, FusionModule)
        self.encoders = module.encoders_by_modality()
        # of its own, so that all devices draw the same
        self.noise = torch.Generator(module.device).manual_seed(self.seed)

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Batch, batch_idx: int) -> None:
        """Keep the batch."""
        self.batch = batch

    def on_before_optimizer_step(
        self, trainer: L.Trainer, module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Change the gradients, which are unscaled, averaged over devices and not clipped yet."""
        assert isinstance(module, FusionModule)
        self.change(trainer, module, self.batch)

    def change(self, trainer: L.Trainer, method: FusionModule, batch: Batch) -> None:
        """Change the gradients of a step."""
        raise NotImplementedError


class OGMGE(Balance):
    r"""OGM-GE: slow the modality that is ahead, and add noise.

    Peng et al. 2022, https://arxiv.org/abs/2203.15332. With :math:`s_m` the mean probability that modality m alone
    gives to the true class, and its ratio to the others,

    .. math::
        \rho_m = \frac{s_m}{\operatorname{mean}_{n \ne m} s_n}, \quad
        k_m = \begin{cases} 1 - \tanh(\alpha \rho_m) & \rho_m > 1 \\ 1 & \text{else} \end{cases}, \quad
        g_m \leftarrow k_m g_m + \mathcal N(0, \operatorname{std}(g_m)^2)

    for each weight of m's encoder, in the first half of the training. Differs from the authors' code: what a modality
    says alone comes from the method with the others missing, in evaluation mode, and not from its slice of a linear
    head with half of the bias. The two are equal up to the bias where the head is linear in concatenated vectors.
    There weights of convolutions are changed, here all weights but vectors (biases and norms). Two modalities there;
    BalanceBenchmark compares each of three with the weakest.
    """

    def change(self, trainer: L.Trainer, method: FusionModule, batch: Batch) -> None:
        """Scale the encoders' gradients and add noise."""
        if trainer.current_epoch > OGM_UNTIL * (trainer.max_epochs or 0):
            return
        logits = alone(trainer, method, batch, [(name,) for name in self.encoders])
        score, known = means(trainer, true_class(logits.softmax(-1), batch), method.present(batch))
        factors = slowing(score, known)
        for factor, parameters in zip(factors, self.encoders.values(), strict=True):
            for each in parameters:
                if each.grad is not None and each.ndim > 1:
                    noise = torch.empty_like(each.grad).normal_(generator=self.noise)
                    each.grad = factor * each.grad + each.grad.std(correction=0) * noise


class AGM(Balance):
    r"""AGM: slow or speed up each modality so that its lead is its average lead.

    Li et al. 2023, https://arxiv.org/abs/2308.07686. With :math:`\phi_m` the Shapley value of modality m for the logits
    over all subsets of modalities (no modality gives zero logits), :math:`s_m` the cross-entropy of :math:`\phi_m` and
    :math:`\hat s_m` its mean over all earlier steps,

    .. math::
        r_m = \exp\big(\operatorname{mean}_{n \ne m} s_n - s_m\big), \quad
        \tau_m = \exp\big(\operatorname{mean}_{n \ne m} \hat s_n - \hat s_m\big), \quad
        g_m \leftarrow \exp\big(\alpha (\tau_m - r_m)\big)\, g_m

    The authors' repository could not be read. The leads and averages are those of a copy of its loop for two
    modalities, which scales what flows back through :math:`\phi_m`; subsets of three, absent modalities in evaluation
    mode without gradients and a factor for the encoder's gradient are those of BalanceBenchmark, whose leads have the
    opposite sign and which leaves biases alone.
    """

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Begin the averages."""
        super().on_train_start(trainer, module)
        self.sum, self.steps = torch.zeros(2, len(self.encoders), device=module.device)

    def change(self, trainer: L.Trainer, method: FusionModule, batch: Batch) -> None:
        """Scale the encoders' gradients."""
        weights = {subset: weight for subset, weight in shapley_weights(list(self.encoders)).items() if subset}
        logits = alone(trainer, method, batch, list(weights))
        values = torch.einsum("sm,suc->muc", logits.new_tensor(list(weights.values())), logits)
        entropy = -true_class(values.softmax(-1), batch).clamp(min=SMALLEST).log()
        now, known = means(trainer, entropy, method.present(batch))
        earlier = self.sum / self.steps.clamp(min=1)
        factors = keeping_pace(now, known, earlier, self.steps > 0)
        self.sum, self.steps = self.sum + now * known, self.steps + known
        for factor, parameters in zip(factors, self.encoders.values(), strict=True):
            for each in parameters:
                if each.grad is not None:
                    each.grad = factor * each.grad


class MMPareto(Balance):
    r"""MMPareto: a loss of each modality alone beside the method's own, without a conflict in its encoder.

    Wei and Hu 2024, https://arxiv.org/abs/2405.17730. With a the gradient of the method's loss in the encoder of
    modality m and b that of the cross-entropy of m alone,

    .. math::
        w = \begin{cases} 1/2 & a \cdot b \ge 0 \\ \arg\min_w |w a + (1 - w) b|^2 & \text{else} \end{cases}, \quad
        h = 2 w a + 2 (1 - w) b, \quad
        g_m \leftarrow \gamma \max\big(1, |a + b| / |h|\big)\, h

    All other parameters have the sum of both gradients. Differs from the authors' code: there each modality has a
    classifier of its own, here the method with the others missing; the length is that of the whole encoder, there of
    each of its weights. The training loss of the curve is the method's own.
    """

    def change(self, trainer: L.Trainer, method: FusionModule, batch: Batch) -> None:
        """Add the gradients of the modalities' own losses."""
        parameters = [each for each in method.parameters() if each.requires_grad]
        with torch.enable_grad(), trainer.precision_plugin.forward_context():
            logits = torch.stack([method(batch.only([name])) for name in self.encoders])
            loss = method.modality_cross_entropies(logits, batch).sum()
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        own: dict[nn.Parameter, Tensor] = {
            each: trainer.strategy.reduce(gradient, reduce_op="mean")
            for each, gradient in zip(parameters, found, strict=True)
            if gradient is not None
        }
        for encoder in self.encoders.values():
            both = [each for each in encoder if each.grad is not None and each in own]
            if both:
                sizes = [each.numel() for each in both]
                ours = torch.cat([each.grad.flatten() for each in both if each.grad is not None])
                mixed = without_conflict(ours, torch.cat([own.pop(each).flatten() for each in both]))
                for each, part in zip(both, torch.split_with_sizes(mixed, sizes), strict=True):
                    each.grad = part.view_as(each)
        for each, gradient in own.items():
            each.grad = gradient if each.grad is None else each.grad + gradient


def alone(trainer: L.Trainer, method: FusionModule, batch: Batch, subsets: list[tuple[str, ...]]) -> Tensor:
    """Logits [subset, utterance, class] of subsets of the modalities, in evaluation mode and without gradients."""
    with evaluation(method), torch.no_grad(), trainer.precision_plugin.forward_context():
        return torch.stack([method(batch.only(chosen)) for chosen in subsets]).float()


def true_class(values: Tensor, batch: Batch) -> Tensor:
    """Values of each utterance's class: [modality, utterance, class] -> [modality, utterance]."""
    index = batch.label.expand(values.shape[:2])
    return values.gather(-1, index[..., None])[..., 0]


def means(trainer: L.Trainer, values: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each modality over the utterances of all devices that have it, and whether there is one.

    Shapes:
        values, present [modality, utterance] -> 2 x [modality].
    """
    both = torch.stack([(values * present).sum(1), present.sum(1).to(values.dtype)])
    total, count = trainer.strategy.reduce(both, reduce_op="mean")
    return total / count.clamp(min=1e-6), count > 0


def mean_of_others(values: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the other modalities that are known, and whether both sides are known: [modality] -> 2 x [modality]."""
    others = known.sum() - known.long()
    total = (values * known).sum() - values * known
    return total / others.clamp(min=1), known & (others > 0)


def slowing(score: Tensor, known: Tensor) -> Tensor:
    """The factors k [modality] of :class:`OGMGE`."""
    others, comparable = mean_of_others(score, known)
    ratio = score / others.clamp(min=torch.finfo(score.dtype).tiny)
    return torch.where(comparable & (ratio > 1), 1 - torch.tanh(OGM_ALPHA * ratio), torch.ones_like(ratio))


def keeping_pace(now: Tensor, known: Tensor, earlier: Tensor, known_earlier: Tensor) -> Tensor:
    """The factors [modality] of :class:`AGM`."""
    leads = []
    for values, each in ((now, known), (earlier, known_earlier)):
        others, comparable = mean_of_others(values, each)
        leads.append(torch.where(comparable, others - values, torch.zeros_like(values)).exp())
    lead, usual = leads
    factor = (AGM_ALPHA * (usual - lead).clamp(max=AGM_LARGEST)).exp()
    return torch.where(known, factor, torch.ones_like(factor))


def without_conflict(ours: Tensor, own: Tensor) -> Tensor:
    """The gradient of :class:`MMPareto` from that of the method's loss and that of a modality's own, all flat."""
    product = (ours * own).sum()
    share = (own.square().sum() - product) / (ours - own).square().sum().clamp(min=torch.finfo(ours.dtype).tiny)
    share = torch.where(product >= 0, torch.full_like(share, 0.5), share)
    mixed = 2 * (share * ours + (1 - share) * own)
    return GAMMA * ((ours + own).norm() / mixed.norm().clamp(min=1e-12)).clamp(min=1) * mixed
