"""Each fault that users make is found by one check, whose message says the remedy."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from suites import Call
from torch import Tensor, nn

from mer_bench.batch import Batch, Width
from mer_bench.fusion import FusionModule
from mer_bench.fusion.layers import masked_mean
from mer_bench.testing import check_method, checks


class Sound(FusionModule):
    """The mean over time of each modality, a layer each, and a classifier of their sum."""

    reads = frozenset({"frames"})

    def __init__(self, dims: Mapping[str, Width], num_classes: int, *, hidden: int = 32) -> None:
        super().__init__(dims, num_classes)
        self.layers = nn.ModuleDict({name: nn.Linear(width.frames, hidden) for name, width in self.dims.items()})
        self.head = nn.Linear(hidden, num_classes)

    def pool(self, batch: Batch, name: str) -> Tensor:
        return masked_mean(batch.frames[name].values, batch.frames[name].mask)

    def hidden(self, batch: Batch) -> Tensor:
        return torch.stack([layer(self.pool(batch, name)).relu() for name, layer in self.layers.items()]).sum(0)

    def forward(self, batch: Batch) -> Tensor:
        return self.head(self.hidden(batch))


class CountsPadding(Sound):
    def pool(self, batch: Batch, name: str) -> Tensor:
        return batch.frames[name].values.mean(1)


class DividesByZero(Sound):
    def pool(self, batch: Batch, name: str) -> Tensor:
        return batch.frames[name].values.sum(1) / batch.frames[name].mask.sum(1, keepdim=True)


class NormalisesOverTheBatch(Sound):
    def hidden(self, batch: Batch) -> Tensor:
        found = super().hidden(batch)
        return found - found.mean(0)


class ReadsLabels(Sound):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + nn.functional.one_hot(batch.label, self.num_classes)


class ReadsTurns(Sound):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) + batch.turn[:, None]


class SaysDialogueAndReadsNone(Sound):
    context = "dialogue"


class ReadsAValueBack(Sound):
    def forward(self, batch: Batch) -> Tensor:
        found = super().forward(batch)
        return found * 1.0 if float(found.detach().sum()) > 0 else found


class NeedsSeveral(Sound):
    def __init__(self, dims: Mapping[str, Width], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        self.between = nn.Linear(32, 32)

    def hidden(self, batch: Batch) -> Tensor:
        found = super().hidden(batch)
        return found + self.between(found) if len(self.dims) > 1 else found


class HasAnIdleLayer(Sound):
    def __init__(self, dims: Mapping[str, Width], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        self.idle = nn.Linear(3, 3)


class ReadsTheFirstAlone(Sound):
    def hidden(self, batch: Batch) -> Tensor:
        name = next(iter(self.layers))
        rest = sum(0.0 * layer(self.pool(batch, other)).sum() for other, layer in self.layers.items() if other != name)
        return self.layers[name](self.pool(batch, name)).relu() + rest


class ReadsTheOrder(Sound):
    def __init__(self, dims: Mapping[str, Width], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        self.weights = nn.ParameterDict({name: torch.tensor(1.0 + place) for place, name in enumerate(dims)})

    def pool(self, batch: Batch, name: str) -> Tensor:
        return super().pool(batch, name) * self.weights[name]


class Detaches(Sound):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) / 1e4


class ForgetsAnOption(Sound):
    def __init__(self, dims: Mapping[str, Width], num_classes: int, *, hidden: int = 8) -> None:
        super().__init__(dims, num_classes)
        self.scale = float(torch.rand(()))

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) * (1 + self.scale)


class TakesAPosition(Sound):
    def __init__(self, dims: Mapping[str, Width], num_classes: int, hidden: int = 32) -> None:
        super().__init__(dims, num_classes, hidden=hidden)


class HidesItsDims(Sound):
    least = 2

    def __init__(self, dims: Mapping[str, Width], num_classes: int) -> None:
        super().__init__({"audio": Width(5, 35), **dims}, num_classes)


class IsOfAnotherShape(Sound):
    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch)[:-1]


class ReadsWhatItDoesNotDeclare(Sound):
    reads = frozenset({"functionals"})


class DeclaresNothingAndReadsFunctionals(Sound):
    reads = frozenset()

    def pool(self, batch: Batch, name: str) -> Tensor:
        return batch.functionals[name][:, : self.dims[name].frames]


class Fails(Sound):
    def forward(self, batch: Batch) -> Tensor:
        raise ValueError("of a reason")


ENDING = (TakesAPosition, IsOfAnotherShape, ReadsWhatItDoesNotDeclare, DeclaresNothingAndReadsFunctionals, Fails)


def test_a_sound_method_passes_with_any_options() -> None:
    check_method(Sound)
    check_method(Sound, hidden=16)


@pytest.mark.parametrize(
    ("method", "sentence", "remedy"),
    [
        (CountsPadding, "amount of padding", "pool and attend with the mask"),
        (DividesByZero, "Missing modalities", "over nothing gives NaN"),
        (NormalisesOverTheBatch, "alone has the logits", "LayerNorm in place of BatchNorm"),
        (ReadsLabels, "Neither labels nor table rows", "read labels in losses alone"),
        (ReadsTurns, "other turns of a dialogue", 'declare context = "dialogue"'),
        (SaysDialogueAndReadsNone, "other turns of a dialogue", 'declare context = "utterance"'),
        (ReadsAValueBack, "reads no value back", r"use no .item\(\)"),
        (NeedsSeveral, "A gradient reaches", "given vision, no gradient reaches between.weight.*declares least = 2"),
        (HasAnIdleLayer, "A gradient reaches", "no gradient reaches idle.weight, idle.bias.*use these layers"),
        (ReadsTheFirstAlone, "Each modality matters", "audio does not change the logits"),
        (ReadsTheOrder, "order of the modalities", "iterate over self.dims"),
        (Detaches, "Eight samples", "classified correctly"),
        (ForgetsAnOption, "A checkpoint loads back", "draw nothing at random"),
        (TakesAPosition, "The constructor takes", r"hidden: 'int' = 32 is no such option"),
        (HidesItsDims, "are refused", "with the dims as they were given"),
        (IsOfAnotherShape, "Logits are finite", "one row of logits per utterance"),
        (
            ReadsWhatItDoesNotDeclare,
            "Logits are finite",
            r"reads batch.frames\['text'\], but .* declare reads = frozenset\({\"frames\", \"functionals\"}\)",
        ),
        (
            DeclaresNothingAndReadsFunctionals,
            "Logits are finite",
            r"reads batch.functionals\['text'\], but .* declare reads = frozenset\({\"functionals\"}\)",
        ),
        (Fails, "Logits are finite", r"it raises ValueError: of a reason \(.*test_testing.py, line"),
    ],
)
def test_a_fault_is_found_and_the_message_says_the_remedy(
    method: type[FusionModule], sentence: str, remedy: str
) -> None:
    failures = {said: failure for said, failure in checks(method) if failure}
    if method in ENDING:  # the other checks would say nothing more
        assert len(failures) == 1
    with pytest.raises(AssertionError, match=f"{sentence}.*{remedy}"):
        raise AssertionError(" | ".join(f"{said} {failure}" for said, failure in failures.items()))
    with pytest.raises(AssertionError, match=f"test_testing:{method.__name__} fails {len(failures)} checks"):
        check_method(method)


def test_the_command_prints_a_line_per_check_and_ends_with_1_if_one_fails(call: Call) -> None:
    sound = call("check", "test_testing:Sound", "--option", "hidden=16")
    assert (sound.code, sound.err) == (0, "")
    assert len(sound.out.splitlines()) == 15
    assert all(line.startswith("ok      ") for line in sound.out.splitlines())
    faulty = call("check", "test_testing:ReadsTurns")
    (failed,) = [line for line in faulty.out.splitlines() if not line.startswith("ok")]
    assert faulty.code == 1
    assert failed.startswith("FAILED  A method reads the other turns of a dialogue if, and only if")
