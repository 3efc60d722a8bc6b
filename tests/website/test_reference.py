"""The generated pages are those that the code gives, and say everything that they are about."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_prep.__main__ import main as prepare
from mer_bench import suites
from mer_bench.cli import cli
from mer_bench.datasets import DATASETS
from mer_bench.fusion import METHODS
from mer_bench.methods import method_facts
from mer_bench.records import Training
from mer_bench.utterances import COLUMNS
from website import command_page, method_page, suite_page
from website.__main__ import DOCS, GENERATED
from website.corpora import CARDS, SETS
from website.counts import SPLITS, counts, main
from website.docstrings import comments, to_markdown

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == GENERATED[name](), "run make reference"


def test_every_key_of_a_suite_stands_on_its_page_with_a_meaning() -> None:
    page = suite_page.page()
    for _, _, kind in suite_page.PARTS:
        for item in fields(kind):
            assert comments(kind)[item.name], f"{kind.__name__}.{item.name} has no comment (#:)"
            assert f"| `{item.name}` " in page
    known = {kind: {item.name for item in fields(kind)} for _, _, kind in suite_page.PARTS}
    for path in (ROOT / "benchmarks").glob("*.toml"):
        said = tomllib.loads(path.read_text(encoding="utf-8"))
        assert set(said) <= known[suites._File] | {"extends"}
        assert set(said.get("training", {})) <= known[Training]
        assert set(said.get("tune", {})) <= known[suites.Tune]
        for table in said.get("table", ()):
            assert set(table) <= known[suites._Table]
            assert all(set(each) <= known[suites._Method] for each in table["methods"] if isinstance(each, dict))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (suites.Names, "a list of at least one: a name"),
        (int | None, "a whole number"),
        (suites.Positive, "a whole number from 1"),
        (suites.ShareAboveZero, "a number above 0 to 1"),
        (suites.Space, "setting → range or list"),
    ],
)
def test_types_become_words(kind: Any, words: str) -> None:
    assert suite_page.in_words(kind) == words


def test_a_type_without_words_is_an_error() -> None:
    with pytest.raises(TypeError, match="no words"):
        suite_page.in_words(complex)


def test_comments_are_read_above_beside_and_after_a_wrapped_default() -> None:
    found = comments(Training)
    assert found["epochs"] == "passes over the training utterances"
    assert found["class_weights"].startswith("weights of the training loss")
    assert comments(suites._Table)["features"].startswith("modality -> feature set; a number")


def test_every_command_and_option_stands_on_its_page() -> None:
    page = command_page.page()
    called = {f"mer-bench {name}": command for name, command in cli.commands.items()}
    called |= dict(command_page.leaves(prepare, "mer-bench prepare"))
    assert len(called) > 30
    for name, command in called.items():
        section = page.partition(f"# {name}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
        assert section.startswith(f"\n```text\n{name}"), name
        for parameter in command.params:
            for flag in [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else ():
                assert re.search(rf"`[^`]*{flag}[ `]", section), (name, flag)
    assert "`--jobs INTEGER` (default `1`): Runs side by side." in page
    assert "<id>" not in page


def test_every_method_has_its_idea_its_paper_and_its_count() -> None:
    page = method_page.page()
    for name, facts in method_facts().items():
        section = page.partition(f"\n### {method_page.heading(name, facts)}\n")[2].partition("\n### ")[0]
        assert f"- Parameters: {facts.parameters:,}" in section
        assert not facts.paper or (f"<{facts.paper}>" in section and "@misc{" in section)
        assert section.count("```math") == (METHODS[name].__doc__ or "").count(".. math::")
        assert f"](#{name})" in page
        assert f'<a id="{name}"></a>\n\n### {method_page.heading(name, facts)}' in page
    assert not re.search(r":(math|class|func|mod|meth|data):", page)


def test_docstrings_become_markdown() -> None:
    given = r"""Sum :math:`h_m`, see ``fusion`` and :class:`~a.B` (https://a.example/b).

    .. math:: a = b, \quad
        c = d

    .. math::
        a &= b \\
        c &= d

    After.

    Args:
        hidden: Not here.
    """
    assert to_markdown(given) == (
        "Sum $h_m$, see `fusion` and `a.B` (<https://a.example/b>).\n\n```math\na = b, \\quad\nc = d\n```\n\n"
        "```math\n\\begin{aligned}\na &= b \\\\\nc &= d\n\\end{aligned}\n```\n\nAfter.\n"
    )


def test_counts_are_those_of_the_records() -> None:
    compared = Counter()  # type: Counter[str]
    results = ROOT / "benchmarks" / "results"
    for path in [*results.glob("*/early_concat/*.json"), *results.glob("*/bc_lstm/*.json")]:
        record = json.loads(path.read_bytes())
        spec = record["spec"]
        if spec["dataset"] not in CARDS or spec.get("share", 1) != 1:
            continue
        its = counts()[spec["dataset"]]
        sizes = its["label_sets"][spec["label_set"]]["folds"][spec["protocol"]][spec["fold"] - 1]
        assert dict(zip(SPLITS, sizes, strict=True)) == record["rows"], path
        for facts in record["features"].values():
            stated = its["features"][facts["name"]]
            assert (stated["extractor"], stated["revision"], stated["dim"]) == (
                facts["extractor"], facts["revision"], facts["dim"],
            )  # fmt: skip
        compared[spec["dataset"]] += 1
    assert set(compared) == set(CARDS)


def test_counts_of_ravdess_follow_from_the_names_of_its_takes() -> None:
    ids = [
        f"01-{emotion:02}-{level:02}-{sentence:02}-{take:02}-{actor:02}"
        for actor in range(1, 25)
        for emotion in range(1, 9)
        for level in range(1, 2 if emotion == 1 else 3)
        for sentence in (1, 2)
        for take in (1, 2)
    ]
    table = pd.DataFrame({"id": ids, "speaker": [str(int(each[-2:])) for each in ids]})
    module = DATASETS["ravdess"]
    for protocol, folds in counts()["ravdess"]["label_sets"]["eight"]["folds"].items():
        for fold, sizes in enumerate(folds, 1):
            split = module.split(object.__new__(module), table, protocol, fold)
            assert [int(np.sum(split == name)) for name in SPLITS] == sizes


def test_every_label_set_protocol_and_feature_set_has_its_numbers_and_its_card() -> None:
    for name, its in counts().items():
        corpus = DATASETS[name]
        assert list(its["label_sets"]) == list(corpus.label_sets)
        for label_set, numbers in its["label_sets"].items():
            assert set(numbers["classes"]) == set(corpus.label_sets[label_set].values())
            folds = {protocol: len(each) for protocol, each in numbers["folds"].items()}
            assert folds == {protocol: facts.folds for protocol, facts in corpus.protocols.items()}
        assert set(its["features"]) <= set(SETS)
        assert set(corpus.default_features.values()) <= set(its["features"])
    assert {each for its in counts().values() for each in its["features"]} == set(SETS)
    assert set(counts()) == set(CARDS)


def test_what_is_not_prepared_keeps_its_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "counts.json").write_text('{"meld": {"utterances": 1}}', encoding="utf-8")
    monkeypatch.setattr("website.counts.FILE", tmp_path / "counts.json")
    main([str(tmp_path)])
    assert json.loads((tmp_path / "counts.json").read_text(encoding="utf-8")) == {"meld": {"utterances": 1}}


@pytest.mark.parametrize("name", CARDS)
def test_the_metadata_has_the_columns_of_the_tables_and_no_content(name: str) -> None:
    content = json.loads(GENERATED[f"croissant/{name}.json"]())
    sets = {each["@id"]: each for each in content["recordSet"]}
    assert [each["name"] for each in sets["utterances"]["field"]] == list(COLUMNS)
    assert set(sets) == {"utterances", "feature_sets", *(f"labels_{each}" for each in DATASETS[name].sidecars)}
    found = [each["@id"] for each in [*content["distribution"], *content["recordSet"]]]
    columns = [each["@id"] for records in content["recordSet"] for each in records["field"]]
    assert len({*found, *columns}) == len(found) + len(columns)
    for records in content["recordSet"]:
        assert not {"data", "examples"} & set(records)
        for each in records["field"]:
            (source,) = (each["source"][key]["@id"] for key in ("fileObject", "fileSet") if key in each["source"])
            assert source in found
            assert each.get("references", {"field": {"@id": "utterances/id"}})["field"]["@id"] in columns
    assert content["conformsTo"] == "http://mlcommons.org/croissant/1.0"


def test_nothing_but_its_tests_imports_what_builds_the_site() -> None:
    sources = [path for folder in ("src", "data_prep") for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 100
    assert not [path for path in sources if re.search(r"^\s*(from|import) website\b", path.read_text("utf-8"), re.M)]
