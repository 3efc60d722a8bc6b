from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mer_bench.corpora import SIMULATION, corpus_facts
from mer_bench.datasets import DATASETS
from mer_bench.errors import Misuse
from mer_bench.fusion import METHODS, FusionModule
from mer_bench.fusion.early_concat import EarlyConcat
from mer_bench.methods import method_facts, title
from mer_bench.training.describe import describe_method, method_details
from mer_bench.training.facts import asking, find_facts


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


def test_the_facts_of_corpora_are_those_of_the_classes() -> None:
    assert list(corpus_facts()) == list(DATASETS)
    assert corpus_facts() == {name: corpus.facts() for name, corpus in DATASETS.items()}, "run `make methods`"


def test_a_simulated_corpus_is_there_once_it_is_generated_from_the_configuration_of_today(
    root: Path, tmp_path: Path
) -> None:
    facts = corpus_facts()["simulated-ravdess"]
    assert facts.is_generated(root)
    assert not facts.is_generated(tmp_path)
    (tmp_path / facts.name).mkdir()
    (tmp_path / facts.name / SIMULATION).write_text("{}")
    assert not facts.is_generated(tmp_path)


def test_facts_of_what_is_not_built_in_are_asked_for_once_within_a_bench() -> None:
    asked: list[Any] = []

    def ask(function: Callable[..., Any], *given: Any) -> Any:
        asked.append(given)
        return function(*given)

    with asking(ask):
        first = find_facts("test_describe:ReadsText")
        assert find_facts("test_describe:ReadsText") == first
        assert find_facts("early_concat") == method_facts()["early_concat"]
    assert asked == [("test_describe:ReadsText", "method")]
    assert (first.needs, first.kind) == (["text"], "own")
    assert first.file.endswith("test_describe.py")


def test_titles_are_what_papers_call_the_methods() -> None:
    assert [title(name) for name in ("cfn_sr", "tensor_fusion", "sync_tva")] == ["CFN-SR", "TFN", "Sync-TVA"]
    assert title("of_somebody_else") == "of_somebody_else"
    titles = [facts.title for facts in method_facts().values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)
