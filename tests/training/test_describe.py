from mer_bench.fusion import METHODS
from mer_bench.methods import method_facts, title
from mer_bench.training.describe import describe_method


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
