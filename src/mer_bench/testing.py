"""What every fusion method must hold, as checks: for pytest by :func:`check_method`, and for ``mer-bench check``.

Each check raises AssertionError with what its failure means and the usual remedy. They train on small random batches
and need no corpus::

    def test_my_fusion() -> None:
        mer_bench.testing.check_method(MyFusion)
"""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_bench.batch import Batch, PaddedSequence, Width
from mer_bench.errors import Misuse
from mer_bench.functionals import COUNT, functionals
from mer_bench.fusion.base import FusionModule
from mer_bench.fusion.find import said
from mer_bench.modalities import MODALITIES
from mer_bench.training.cost import count_flops

CLASSES = 4
#: widths of the random features
DIMS = {name: Width(dim, COUNT * dim) for name, dim in {"text": 6, "audio": 5, "vision": 4}.items()}

#: A constant added to all scores of a softmax changes nothing, so these biases have no gradient by construction.
IDLE = re.compile(r"\.(key|score)\.bias$")

# Batches


def random_batch(
    dims: Mapping[str, Width] = DIMS,
    num_classes: int = CLASSES,
    dialogues: Sequence[int] = (5, 3, 1),
    *,
    context: str = "dialogue",
    times: tuple[int, int] = (2, 9),
    missing: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
) -> Batch:
    """Gaussian features of ``sum(dialogues)`` utterances.

    Args:
        dims: Widths of each modality.
        num_classes: Number of classes; the labels repeat 0, 1, ... in turn.
        dialogues: Number of turns of each dialogue; in utterance context only their sum matters.
        context: "dialogue", or "utterance": then the grid is one column, each utterance on its own.
        times: Least and largest number of frames of a sequence.
        missing: Modality -> utterances that lack it.
        seed: Seed of the features, lengths and speakers.
    """
    draw = torch.Generator().manual_seed(seed)
    rows = sum(dialogues)
    frames = {}
    for name, width in dims.items():
        length = torch.randint(times[0], times[1] + 1, (rows,), generator=draw)
        length[list((missing or {}).get(name, ()))] = 0
        steps = torch.arange(max(int(length.max()), 1))
        mask = steps < length[:, None]
        values = torch.randn(*mask.shape, width.frames, generator=draw)
        frames[name] = PaddedSequence(values * mask[..., None], mask)
    present = {name: sequence.mask.any(1) for name, sequence in frames.items()}
    described = {name: functionals(frames[name], width.functionals).float() for name, width in dims.items()}
    turns = torch.tensor([1] * rows if context == "utterance" else list(dialogues))
    real = torch.arange(int(turns.max())) < turns[:, None]
    grid = torch.full(real.shape, -1)
    grid[real] = torch.arange(rows)
    dialogue, turn = real.nonzero(as_tuple=True)
    speaker = torch.randint(0, 2, (rows,), generator=draw)
    labels, index = torch.arange(rows) % num_classes, torch.arange(rows) + 40
    return Batch(present, described, frames, labels, speaker, dialogue, turn, index, grid)


def pad(batch: Batch, *, frames: int = 3, turns: int = 0) -> Batch:
    """The same utterances with more padding, by one frame more in each further modality."""
    padded = {
        name: PaddedSequence(F.pad(s.values, (0, 0, 0, frames + extra)), F.pad(s.mask, (0, frames + extra)))
        for extra, (name, s) in enumerate(batch.frames.items())
    }
    return replace(batch, frames=padded, grid=F.pad(batch.grid, (0, turns), value=-1))


def changed(batch: Batch, change: Callable[[Tensor], Tensor], modalities: Sequence[str] | None = None) -> Batch:
    """The batch with functionals and frames of some modalities, or of all, changed."""
    chosen = set(batch.present if modalities is None else modalities)
    functionals = {name: change(x) if name in chosen else x for name, x in batch.functionals.items()}
    frames = {n: PaddedSequence(change(s.values), s.mask) if n in chosen else s for n, s in batch.frames.items()}
    return replace(batch, functionals=functionals, frames=frames)


class Undeclared(dict[str, Any]):
    """Features that a method does not declare to read: nothing, and who reads them is told the remedy."""

    def __init__(self, kind: str, declared: frozenset[str]) -> None:
        super().__init__()
        self.kind, self.needed = kind, ", ".join(f'"{each}"' for each in sorted({*declared, kind}))

    def __missing__(self, name: str) -> Any:
        raise AssertionError(
            f"the method reads batch.{self.kind}[{name!r}], but batches hold only what it declares to read: declare "
            f"reads = frozenset({{{self.needed}}})"
        )


def read_by(module: FusionModule, batch: Batch) -> Batch:
    """The batch with what the method declares to read, as a datamodule makes it."""
    reads = module.reads
    return replace(
        batch,
        functionals=batch.functionals if "functionals" in reads else Undeclared("functionals", reads),
        frames=batch.frames if "frames" in reads else Undeclared("frames", reads),
    )


def alone(batch: Batch, group: int) -> tuple[Batch, Tensor]:
    """One row of the grid as a batch of its own, with no padding left, and its positions in ``batch``."""
    rows = batch.grid[group][batch.grid[group] >= 0]
    frames = {}
    for name, sequence in batch.frames.items():
        values, mask = sequence.values[rows], sequence.mask[rows]
        time = max(int(mask.sum(1).max()), 1)
        frames[name] = PaddedSequence(values[:, :time], mask[:, :time])
    present, functionals = (
        {name: tensor[rows] for name, tensor in each.items()} for each in (batch.present, batch.functionals)
    )
    count = torch.arange(len(rows))
    fields = {name: getattr(batch, name)[rows] for name in ("label", "speaker", "turn", "index")}
    return Batch(present, functionals, frames, dialogue=torch.zeros_like(count), grid=count[None], **fields), rows


# One method on one set of modalities


@dataclass(frozen=True)
class Case:
    """A method with its options on one set of modalities."""

    method: type[FusionModule]
    modalities: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self) -> FusionModule:
        """The untrained module, the same at each call."""
        torch.manual_seed(1)
        return self.method({modality: DIMS[modality] for modality in self.modalities}, CLASSES, **self.options)

    def batch(self, **settings: Any) -> Batch:
        """A random batch, see :func:`random_batch`."""
        dims = {modality: DIMS[modality] for modality in self.modalities}
        return read_by(self.build(), random_batch(dims, context=self.method.context, **settings))

    @property
    def gaps(self) -> dict[str, list[int]]:
        """Utterance 3 lacks everything, and so does 8, a dialogue of its own; others lack one modality each."""
        return {modality: [3, 8, index] for index, modality in enumerate(self.modalities)}

    @property
    def trains(self) -> bool:
        """Whether the method has parameters to train."""
        return self.build().num_parameters > 0

    @property
    def is_widest(self) -> bool:
        """Whether the method accepts no larger set."""
        return len(self.modalities) == max(map(len, self.method.accepted_modalities()))

    @property
    def given(self) -> str:
        """The modalities, as messages name them."""
        return f"given {' + '.join(self.modalities)}"


def total_loss(module: FusionModule, batch: Batch) -> Tensor:
    """Sum of the losses of a training batch."""
    return torch.stack(list(module.losses(batch).values())).sum()


@torch.no_grad()
def logits(module: FusionModule, batch: Batch) -> Tensor:
    """Logits [utterance, class] in evaluation."""
    return module.eval()(batch)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal except for rounding in single precision."""
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)


@contextmanager
def deterministic() -> Iterator[None]:
    """As the trainer of a run sets it."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


# Checks on every set of modalities


def shapes(case: Case) -> None:
    """Logits are finite numbers [utterance, class] in single precision."""
    batch = case.batch()
    found = logits(case.build(), batch)
    assert found.shape == (len(batch), CLASSES), (
        f"{case.given}, forward returns a tensor {list(found.shape)} for {len(batch)} utterances and {CLASSES} "
        "classes: return one row of logits per utterance (a method for dialogues ends with batch.flatten(...))"
    )
    assert found.dtype == torch.float32, f"{case.given}, the logits are {found.dtype}: make no tensor of another type"
    assert found.isfinite().all(), f"{case.given}, some logits are not finite: look for a division by 0 or log of 0"


def gradients(case: Case) -> None:
    """A gradient reaches every parameter."""
    module = case.build()
    if module.num_parameters:
        every_parameter_learns(module, case.batch(times=(6, 12)), case)


def every_parameter_learns(module: FusionModule, batch: Batch, case: Case) -> None:
    """A gradient reaches every parameter of ``module``.

    In double precision, where true gradients are ten orders of magnitude larger than rounding errors of zero.
    """
    module.double().train()
    torch.autograd.backward(total_loss(module, changed(batch, Tensor.double)))
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    dead = [name for name, p in trained if p.grad is None]
    dead += [
        name
        for name, p in trained
        if p.grad is not None and float(p.grad.abs().max()) < 1e-13 and not IDLE.search(name)
    ]
    if len(case.modalities) == 1 and not case.is_widest:
        remedy = "a method that needs several modalities declares least = 2; else create only the layers that are used"
    else:
        remedy = "use these layers in forward, do not create them, or drop a bias that a softmax cancels (bias=False)"
    assert not dead, f"{case.given}, no gradient reaches {', '.join(dead)}, which would stay random: {remedy}"


def padding(case: Case) -> None:
    """Logits do not depend on the amount of padding."""
    batch, module = case.batch(missing=case.gaps), case.build()
    turns = 4 if case.method.context == "dialogue" else 0
    expected = logits(module, batch)
    for frames in (1, 2, 8):  # with one frame more in each further modality, strides of 2 and 4 meet every remainder
        assert _same(logits(module, pad(batch, frames=frames, turns=turns)), expected), (
            f"{case.given}, logits change with the padding, so a score depends on which utterances share a batch: "
            "pool and attend with the mask (masked_mean of mer_bench.fusion.layers, key_padding_mask), and set what "
            "follows a bias or a convolution to 0 where the mask is False"
        )


def neighbours(case: Case) -> None:
    """An utterance (or dialogue) alone has the logits that it has in a batch."""
    batch, module = case.batch(missing=case.gaps), case.build()
    together = logits(module, batch)
    for group in range(min(len(batch.grid), 4)):  # the utterances with gaps are among them
        single, rows = alone(batch, group)
        assert _same(logits(module, single), together[rows]), (
            f"{case.given}, the logits of {'a dialogue' if case.method.context == 'dialogue' else 'an utterance'} "
            "change with the others in its batch, so test data would be read together: take no mean, attention or "
            "normalisation over the batch (LayerNorm in place of BatchNorm); a method that reads the other turns of a "
            'dialogue declares context = "dialogue"'
        )


def order(case: Case) -> None:
    """The order of the modalities does not matter."""
    batch = case.batch()
    reordered = Case(case.method, case.modalities[::-1], case.options).build()
    backwards = replace(
        batch,
        present={name: batch.present[name] for name in reversed(list(batch.present))},
        functionals={name: batch.functionals[name] for name in reversed(list(batch.functionals))},
        frames={name: batch.frames[name] for name in reversed(list(batch.frames))},
    )
    same = torch.equal(logits(reordered, backwards), logits(case.build(), batch))
    assert same, f"{case.given}, logits change with the order of the modalities: iterate over self.dims, not over dims"


def missing(case: Case) -> None:
    """Missing modalities give finite logits and gradients."""
    for gaps in (case.gaps, {case.modalities[0]: range(9)}):
        batch, module = case.batch(missing=gaps), case.build()
        which = f"{case.given} and {', '.join(gaps)} missing in some utterances"
        assert logits(module, batch).isfinite().all(), (
            f"{which}, logits are not finite: where a mask is False everywhere, a softmax or a mean over nothing gives "
            "NaN; replace it by 0 (masked_mean, masked_fill)"
        )
        loss = total_loss(module.train(), batch)
        assert loss.isfinite(), f"{which}, the loss is not finite: see that losses passes over what is missing"
        if loss.requires_grad:
            torch.autograd.backward(loss)
        wrong = [name for name, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
        assert not wrong, (
            f"{which}, the gradients of {', '.join(wrong)} are not finite: torch.where and masked_fill hide a NaN from "
            "the logits and not from the gradient; avoid it before, for example by clamp(min=1) of a count"
        )


def use(case: Case, modalities: Sequence[str] = ()) -> None:
    """Each modality matters.

    Args:
        case: The method on its modalities.
        modalities: Those that have to matter where the others are read in training alone; empty = all.
    """
    batch, module = case.batch(), case.build()
    if not module.num_parameters:
        return
    before = logits(module, batch)
    for modality in modalities or case.modalities:
        after = logits(module, changed(batch, Tensor.neg, [modality]))
        assert float((after - before).abs().max()) > 1e-6, (
            f"{case.given}, {modality} does not change the logits: read batch.functionals[{modality!r}] in forward, or "
            "declare by most and needs which modalities the method reads"
        )


# Checks on the largest set


def device(case: Case) -> None:
    """A training step reads no value back from the device.

    Nothing has a value on the meta device: who reads one, or leaves a tensor on the CPU, fails there.
    """
    with deterministic():
        try:
            batch = case.batch(missing=case.gaps).to("meta")
            module = case.build().to("meta").train()
            loss = module.training_step(batch, 0)
            if module.num_parameters:
                torch.autograd.backward(loss)
            with torch.no_grad():
                module.eval().validation_step(batch, 0)
        except (RuntimeError, NotImplementedError) as error:
            raise AssertionError(
                f"a step reads a value back from the device, makes a tensor on the CPU or calls an operation that is "
                f"not deterministic ({said(error)}): use no .item(), .tolist(), float(), bool() or if on a tensor, and "
                "make new tensors with device=self.device or by new_zeros, or register_buffer"
            ) from error
        assert loss.is_meta, "the loss is on another device than the batch: do not move tensors in forward or losses"


def context(case: Case) -> None:
    """A method reads the other turns of a dialogue if, and only if, its context is "dialogue"."""
    batch, module = case.batch(), case.build()
    before = logits(module, batch)
    if case.method.context == "utterance":
        elsewhere = torch.full_like(batch.turn, 10_000)  # an index that no tensor has
        grid = torch.full((2, 3), 10_000)
        moved = replace(batch, speaker=elsewhere, dialogue=elsewhere, turn=elsewhere, grid=grid)
        try:
            same = torch.equal(logits(module, moved), before)
        except (RuntimeError, IndexError):
            same = False
        assert same, 'speaker, dialogue, turn or grid changes the logits: declare context = "dialogue"'
    elif case.trains:
        first = torch.ones(len(batch)).index_fill_(0, torch.tensor([0]), -1)
        turned = changed(batch, lambda x: x * first.reshape(-1, *[1] * (x.ndim - 1)))
        difference = (logits(module, turned) - before).abs().amax(1)
        assert float(difference[1]) > 1e-6, (
            "an utterance does not change the logits of the next one in its dialogue: regroup with batch.by_dialogue "
            'and batch.flatten, or declare context = "utterance"'
        )


def labels(case: Case) -> None:
    """Neither labels nor table rows change the logits."""
    batch = case.batch()
    for training in (False, True):
        module = case.build().train(training)
        found = []
        for one in (batch, replace(batch, label=(batch.label + 1) % CLASSES, index=batch.index + 1000)):
            torch.manual_seed(2)  # the same dropout
            found.append(module(one).detach())
        assert torch.equal(*found), (
            "forward reads batch.label or batch.index, so the test scores would be worth nothing: read labels in "
            "losses alone"
        )


def overfit(case: Case) -> None:
    """Eight samples are learnt by heart."""
    batch, module = case.batch(dialogues=(5, 3)), case.build()
    if not module.num_parameters:
        return
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 3e-3)
    for step in range(200):
        optimizer.zero_grad()
        torch.autograd.backward(total_loss(module.train(), batch))
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        if step % 5 == 4 and bool((logits(module, batch).argmax(1) == batch.label).all()):
            return
    right = int((logits(module, batch).argmax(1) == batch.label).sum())
    raise AssertionError(
        f"after 200 steps on 8 utterances {right} of them are classified correctly: see that the loss falls, that no "
        "softmax stands before the cross-entropy, that nothing is detached and that the features reach the classifier"
    )


def checkpoint(case: Case) -> None:
    """A checkpoint loads back to the same logits and options."""
    module = case.build()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    module.class_counts.copy_(torch.arange(CLASSES) + 5)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=folder,
        )
        trainer.strategy.connect(module)
        file = Path(folder) / "one.ckpt"
        trainer.save_checkpoint(file, weights_only=True)
        try:
            loaded = case.method.load_from_checkpoint(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise AssertionError(
                f"a checkpoint cannot be loaded ({said(error)}): give super().__init__ the arguments dims and "
                "num_classes, and keep options that are numbers, texts, truth values or lists of these"
            ) from error
    batch = case.batch()
    assert torch.equal(logits(loaded, batch), logits(module, batch)), (
        "a module that is loaded from its checkpoint gives other logits, so the chosen epoch could not be tested: keep "
        "all state in parameters and by register_buffer, and draw nothing at random in the constructor that is neither"
    )
    assert torch.equal(loaded.class_counts, module.class_counts), (
        "class_counts is lost in the checkpoint: do not change it"
    )
    assert loaded.hparams == module.hparams, (
        "an option of the constructor is lost in the checkpoint: call super().__init__(dims, num_classes) first"
    )


def operations(case: Case) -> None:
    """The operations of a forward pass can be counted."""
    module = case.build()
    try:
        found = count_flops(module, case.batch())
    except Exception as error:
        raise AssertionError(
            f"the operations of a forward pass cannot be counted ({said(error)}), and a run counts them after its "
            "training: call layers in the usual way, without code that torch cannot trace"
        ) from error
    assert (found > 0) == (module.num_parameters > 0), (
        f"{found} operations are counted for {module.num_parameters} parameters: use the parameters in matrix products"
    )


def constructor(case: Case) -> None:
    """The constructor takes dims, num_classes, and keyword options with defaults."""
    parameters = list(inspect.signature(case.method).parameters.values())
    fixed = all(p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty for p in parameters[:2])
    wrong = [str(p) for p in parameters[2:] if p.kind is not p.KEYWORD_ONLY or p.default is p.empty]
    fits = fixed and [p.name for p in parameters[:2]] == ["dims", "num_classes"] and not wrong
    assert fits, (
        f"the constructor is called as {case.method.__name__}(dims, num_classes, **options), and suites and "
        "checkpoints find its options by name: write __init__(self, dims, num_classes, *, option=default)"
        + (f"; {', '.join(wrong)} is no such option" if wrong else "")
    )


def refusals(case: Case) -> None:
    """Modalities that the class does not declare are refused."""
    accepted = case.method.accepted_modalities()
    sets = [chosen for size in range(len(MODALITIES) + 1) for chosen in combinations(MODALITIES, size)]
    for chosen in (chosen for chosen in sets if chosen not in accepted):
        try:
            Case(case.method, chosen, case.options).build()
        except Misuse as error:
            said = str(error)
        else:
            said = ""
        assert repr(case.method.code_name()) in said, (
            f"{' + '.join(chosen) or 'no modality'} is not refused although least, most or needs exclude it: call "
            "super().__init__(dims, num_classes) with the dims as they were given, before anything reads them"
        )


#: Checks that hold on every set of modalities, and those that are made once, on the largest set.
EACH = (shapes, gradients, padding, neighbours, order, missing, use)
ONCE = (constructor, refusals, device, context, labels, overfit, operations, checkpoint)


def checks(method: type[FusionModule], options: Mapping[str, Any] | None = None) -> Iterator[tuple[str, str]]:
    """Make every check; yields its sentence with what failed, or with "" if it holds.

    It ends where the method cannot be constructed or gives no logits, as all other checks would fail as well.

    Args:
        method: The class.
        options: Options of its constructor; None = the defaults.
    """
    accepted = method.accepted_modalities()
    if not accepted:
        raise Misuse(f"{method.code_name()} accepts no modalities: see its least, most and needs")
    # the largest set first: what fails there has another remedy than what fails on a single modality alone
    cases = [Case(method, chosen, options or {}) for chosen in reversed(accepted)]
    with torch.random.fork_rng(devices=[]):
        for check in dict.fromkeys((constructor, refusals, shapes, *ONCE, *EACH)):
            sentence = (check.__doc__ or "").splitlines()[0]
            failures = (_failure(check, case) for case in (cases if check in EACH else cases[:1]))
            failure = next(filter(None, failures), "")
            yield sentence, failure
            if failure and check in (constructor, shapes):
                return


def _failure(check: Callable[[Case], None], case: Case) -> str:
    try:
        check(case)
    except AssertionError as error:
        return str(error)
    except Exception as error:
        return f"{case.given}, it raises {said(error)}"
    return ""


def check_method(method: type[FusionModule], **options: Any) -> None:
    """Assert that a method holds what every fusion method must hold; ``options`` are those of its constructor.

    Raises:
        AssertionError: the failed checks, one per line, each with what it means and the usual remedy.
    """
    failed = [f"{sentence} {failure}" for sentence, failure in checks(method, options) if failure]
    assert not failed, f"{method.code_name()} fails {len(failed)} checks:\n" + "\n".join(failed)
