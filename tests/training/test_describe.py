from collections.abc import Mapping

import pytest

from mer_bench.errors import Misuse
from mer_bench.fusion import METHODS, FusionModule
from mer_bench.fusion.early_concat import EarlyConcat
from mer_bench.methods import method_facts, title
from mer_bench.training.describe import describe_method, method_details


class ReadsText(EarlyConcat):
    """Early concatenation with text.

    It is not built in.
    """

    needs = frozenset({"text"})


class Unfinished(FusionModule):
    def __init__(self, dims: Mapping[str, int], num_classes: int) -> None:
        super().__init__(dims, num_classes)
        raise KeyError("a layer")

    forward = FusionModule.present


def test_a_method_that_is_not_built_in_is_described_like_one_that_is() -> None:
    facts = describe_method("test_describe:ReadsText")
    assert (facts.idea, facts.kind, facts.modalities) == ("Early concatenation with text", "own", "any, text")
    assert facts.parameters > 0
    assert "It is not built in." in method_details("test_describe:ReadsText")[1]


def test_what_its_constructor_raises_is_one_sentence_with_the_line() -> None:
    with pytest.raises(Misuse, match=r"'test_describe:Unfinished' .*KeyError: 'a layer' \(.*test_describe.py, line"):
        describe_method("test_describe:Unfinished")


def test_the_facts_without_torch_are_those_of_the_classes() -> None:
    facts = {name: describe_method(name) for name in METHODS}
    assert list(method_facts()) == list(METHODS)
    assert method_facts() == facts, "src/mer_bench/methods.json is out of date: run `make methods`"


def test_titles_are_what_papers_call_the_methods() -> None:
    assert [title(name) for name in ("cfn_sr", "tensor_fusion", "sync_tva")] == ["CFN-SR", "TFN", "Sync-TVA"]
    assert title("of_somebody_else") == "of_somebody_else"
    titles = [facts.title for facts in method_facts().values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)
