"""Two methods side by side, from records alone and with the corpus at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mer_bench.errors import Misuse
from mer_bench.exposure import Exposure
from mer_bench.methods import method_facts
from mer_bench.metrics import confusion_matrix
from mer_bench.records import FeatureFacts, RunRecord, RunSpec, Training
from mer_bench.report.compare import claims, compare, describe
from mer_bench.report.tables import tables
from mer_bench.utterances import write_table

TRUE = np.arange(60) % 3  # twelve dialogues of five utterances
CLASSES = ("angry", "happy", "sad")


def record(method: str, seed: int, wrong: list[int]) -> RunRecord:
    """A run that is right but for the rows ``wrong``, where it says the next class."""
    predicted = np.where(np.isin(np.arange(60), wrong), (TRUE + 1) % 3, TRUE)
    version = method_facts()[method].version if method in method_facts() else 1
    clusters = [confusion_matrix(TRUE[i : i + 5], predicted[i : i + 5], 3).tolist() for i in range(0, 60, 5)]
    return RunRecord(
        spec=RunSpec(
            dataset="meld", label_set="emotion", protocol="official", fold=1, features={"text": "minilm"},
            features_sha256={"text": "0" * 64}, method=method, version=version, options={},
            training=Training(), seed=seed,
        ),
        classes=CLASSES, context="utterance", provenance="reimplemented", simulated=False,
        features={"text": FeatureFacts("minilm", "", "", "", 384, 0)},
        rows={"train": 9, "validation": 0, "test": 60}, validation_confusion=None,
        test_confusion=confusion_matrix(TRUE, predicted, 3).tolist(), test_by_cluster=clusters,
        test_index=list(range(60)), test_predictions=predicted.tolist(), curve=[], best_epoch=0, parameters=1,
        flops_per_utterance=1, seconds=1.0, peak_memory_mib=1.0, device="cpu",
    )  # fmt: skip


RECORDS = [record("a", seed, [7]) for seed in range(3)] + [record("b", seed, [7, 20 + seed, 40]) for seed in range(3)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    names = [f"u{i}" for i in range(60)]
    columns = {name: "" for name in ("session", "start", "end", "split", "media")}
    table = pd.DataFrame(
        {"id": names, "dialogue": names, "turn": 0, "speaker": "s", "text": [f"words {i}" for i in range(60)]} | columns
    )
    write_table(tmp_path / "meld", table.assign(emotion=[CLASSES[i] for i in TRUE]))
    return tmp_path


def test_difference_and_gains_stand_in_the_text(tmp_path: Path) -> None:
    (found,) = compare(RECORDS, "a", "b")
    assert found.difference is not None
    assert found.difference.effect == pytest.approx(2 / 60, abs=0.003)
    text = describe(found, tmp_path, 5)
    assert text.startswith("meld: emotion, official, utterance track: a against b")
    assert "+3.3 points" in text
    # all seeds of b are wrong on one utterance; on each of the others only one seed is
    assert "they differ on 1 of 60 utterances" in text
    assert "words" not in text  # no corpus, no utterances
    (found,) = compare([replace(one, test_by_cluster=None) for one in RECORDS], "a", "b")
    assert found.difference is None
    assert "There is no test" in describe(found, tmp_path, 5)


def test_utterances_are_shown_where_the_corpus_is(corpus: Path) -> None:
    (found,) = compare(RECORDS, "a", "b", "meld")
    text = describe(found, corpus, 5)
    assert "| u40       | happy   | happy | sad | words 40 |" in text
    assert "words" not in describe(found, corpus, 0)
    # another table than that of the runs is not shown
    (found,) = compare([replace(r, test_index=[i + 1 for i in r.test_index]) for r in RECORDS], "a", "b")
    assert "is not the table that the runs were made on" in describe(found, corpus, 5)


def test_methods_that_cannot_be_compared_are_one_sentence() -> None:
    with pytest.raises(Misuse, match="did you mean 'a'"):
        compare(RECORDS, "aa", "b")
    with pytest.raises(Misuse, match="no table of iemocap has both 'a' and 'b'"):
        compare(RECORDS, "a", "b", "iemocap")


def test_rows_are_found_by_their_label_ablations_included(tmp_path: Path) -> None:
    def part(seed: int) -> RunRecord:
        made = record("cfn_sr", seed, [7, 20, 40])
        return replace(made, spec=replace(made.spec, options={"residual": False}), provenance="reconstruction")

    records = [*(record("cfn_sr", seed, [7]) for seed in range(3)), *(part(seed) for seed in range(3))]
    (found,) = compare(records, "cfn_sr", "cfn_sr (residual=false)")
    assert found.difference is not None
    assert found.difference.effect == pytest.approx(2 / 60, abs=0.003)
    assert "CFN-SR `cfn_sr` against CFN-SR `cfn_sr` (residual=false) †" in describe(found, tmp_path, 0)


def test_a_method_is_the_row_that_reads_most_unless_its_modalities_are_named(tmp_path: Path) -> None:
    both = {"text": "minilm", "audio": "mfcc"}
    fused = [replace(one, spec=replace(one.spec, features=both)) for one in RECORDS if one.spec.method == "b"]
    alone = [replace(one, spec=replace(one.spec, method="b")) for one in RECORDS if one.spec.method == "a"]
    (found,) = compare([*fused, *alone], "b", "b/text")
    assert (found.first.modalities, found.second.modalities) == (("text", "audio"), ("text",))
    assert found.difference is not None
    assert found.difference.effect < 0  # text alone is ahead, and yet not what "b" means
    text = describe(found, tmp_path, 0)
    assert "b on text + audio against b on text" in text
    assert compare([*fused, *alone], "b/text+audio", "b/text")[0].first.label == "b"
    with pytest.raises(Misuse, match="b/vision"):
        compare([*fused, *alone], "b", "b/vision")


def test_the_best_single_modality_counts_whatever_its_options() -> None:
    """Fewer options choose among settings of the best modality, and never another modality."""
    both = {"text": "minilm", "audio": "mfcc"}
    singles: list[tuple[str, dict[str, object], range]] = [
        ("text", {"dropout": 0.1, "hidden": 8}, range(0, 60, 6)),
        ("audio", {"dropout": 0.1}, range(0, 60, 2)),
    ]
    records = [record("early_concat", seed, []) for seed in range(3)]
    records = [replace(one, spec=replace(one.spec, features=both)) for one in records]
    for modality, options, wrong in singles:
        for made in (record("unimodal", seed, list(wrong)) for seed in range(3)):
            spec = replace(made.spec, features={modality: both[modality]}, options=options)
            records.append(replace(made, spec=spec))
    (found,) = compare(records, "early_concat", "unimodal")
    assert found.second.modalities == ("text",)


def test_rows_of_today_s_version_come_before_others_and_none_is_compared_with_itself() -> None:
    few, more = {"layers": 2}, {"layers": 2, "scale": True}
    old = [replace(one, spec=replace(one.spec, version=1, options=few)) for one in made_runs("unimodal", [])]
    new = [replace(one, spec=replace(one.spec, options=more)) for one in made_runs("unimodal", [7])]
    (found,) = compare([*old, *new, *made_runs("cfn_sr", [7, 9])], "unimodal", "cfn_sr")
    assert found.first.records[0].spec.options == more
    (itself,) = compare(made_runs("tacfn", []), "tacfn", "tacfn/text")
    assert itself.difference is None
    assert "|" not in "".join(claims(tables(made_runs("bc_lstm", [7]))).splitlines()[2:])


def made_runs(method: str, wrong: list[int]) -> list[RunRecord]:
    return [record(method, seed, wrong) for seed in range(3)]


def test_claims_name_the_form_of_cfn_sr_and_tacfn_that_they_are_about() -> None:
    """The paper's row and the one with ``scale``, whatever their other options and whichever is the better one."""
    convolution: dict[str, object] = {"encoder": "convolution"}
    forms = {("tacfn", False): [7, 20, 40], ("tacfn", True): range(0, 60, 2)}
    records = [
        replace(made, spec=replace(made.spec, options=convolution | ({"scale": True} if scale else {})))
        for (method, scale), wrong in forms.items()
        for seed in range(3)
        for made in [record(method, seed, list(wrong))]
    ]
    records += [record("early_concat", seed, list(range(0, 60, 4))) for seed in range(3)]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in claims(tables(records)).splitlines()[2:]]
    assert [(line[0], line[-1]) for line in lines] == [
        ("TACFN's cross-modal blocks beat concatenation", "holds"),
        ("TACFN's blocks with scale=true beat concatenation", "the reverse holds"),
    ]


def test_a_claim_holds_is_turned_round_or_is_not_shown() -> None:
    wrong = {"early_concat": [], "unimodal": range(0, 60, 2), "cfn_sr": range(0, 60, 3), "tacfn": [7]}
    records = [record(method, seed, list(rows)) for method, rows in wrong.items() for seed in range(3)]
    imagined = [replace(each, simulated=True, spec=replace(each.spec, dataset="simulated-meld")) for each in records]
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in claims(tables(records + imagined)).splitlines()[2:]
    ]
    assert [(line[0].split()[0], line[1], line[-1]) for line in lines] == [
        ("Simple", "meld, official", "holds"),
        ("CFN-SR's", "meld, official", "the reverse holds"),
        ("TACFN's", "meld, official", "not shown"),
        ("TACFN", "meld, official", "holds"),
    ]


# Across tables


def in_track(track: str, features: str, *records: RunRecord) -> list[RunRecord]:
    """The records as those of a track on another feature set of the text."""
    sets = {"text": features}
    return [replace(one, context=track, spec=replace(one.spec, features=sets, features_sha256=sets)) for one in records]


def test_rows_of_two_tracks_are_compared_where_the_test_utterances_are_the_same(tmp_path: Path) -> None:
    reads_dialogues = in_track("dialogue", "minilm", *made_runs("bc_lstm", [7]))
    reads_utterances = in_track("utterance", "minilm", *made_runs("early_concat", list(range(0, 60, 3))))
    (found,) = compare([*reads_dialogues, *reads_utterances], "bc_lstm", "early_concat")
    assert found.difference is not None
    assert found.difference.effect > 0.3
    assert found.difference.p < 0.05
    assert found.differs == ["track (dialogue against utterance)"]
    text = describe(found, tmp_path, 0)
    assert text.startswith("meld: emotion, official, two tables: bc-LSTM `bc_lstm` against Early concatenation")
    assert "\nThe rows differ also in their track (dialogue against utterance).\n" in text
    # both, were they in one table, are compared as they are there: with the draws of that table
    together = [*reads_utterances, *in_track("utterance", "minilm", *reads_dialogues)]
    (within,) = compare(together, "bc_lstm", "early_concat")
    assert (within.other, within.differs) == (None, [])
    assert within.difference is not None
    assert within.difference.effect == found.difference.effect
    # the claim about them is tested too, and says what else differs
    (line,) = claims(tables([*reads_dialogues, *reads_utterances])).splitlines()[2:]
    assert "| Concatenation in context beats concatenation without | meld, official " in line
    assert "| minilm; track (dialogue against utterance) |" in line
    assert line.endswith("| holds |")


def test_rows_that_tested_other_utterances_are_not_compared() -> None:
    ours = in_track("dialogue", "minilm", *made_runs("bc_lstm", [7]))
    theirs = in_track("utterance", "minilm", *made_runs("early_concat", [7, 9]))
    rows = [replace(one, test_index=[row + 60 for row in one.test_index]) for one in theirs]
    clusters = [replace(one, test_by_cluster=[one.test_confusion]) for one in theirs]
    fold = [replace(one, spec=replace(one.spec, fold=2)) for one in theirs]
    labels = [replace(one, spec=replace(one.spec, label_set="sentiment")) for one in theirs]
    for others in (rows, clusters, fold, labels):
        with pytest.raises(Misuse, match="nor do two tables have one each for the same test utterances"):
            compare([*ours, *others], "bc_lstm", "early_concat")
    assert len(compare([*ours, *theirs], "bc_lstm", "early_concat")) == 1


def test_features_that_saw_labels_are_compared_with_none_that_did_not() -> None:
    ours = in_track("utterance", "minilm", *made_runs("early_concat", [7]))
    theirs = in_track("utterance", "mpnet", *made_runs("cfn_sr", [7, 9]))
    saw = Exposure("labels", "its authors say so")
    facts = {"text": replace(theirs[0].features["text"], name="mpnet", exposure=saw)}
    assert len(compare([*ours, *theirs], "early_concat", "cfn_sr")) == 1
    with pytest.raises(Misuse, match="features that alike saw labels or did not"):
        compare([*ours, *(replace(one, features=facts) for one in theirs)], "early_concat", "cfn_sr")


def test_feature_sets_are_compared_by_their_names_and_said(tmp_path: Path) -> None:
    records = [
        *in_track("utterance", "minilm", *made_runs("early_concat", [7])),
        *in_track("utterance", "mpnet", *made_runs("early_concat", [7, 9])),
        *in_track("utterance", "mpnet", *made_runs("cfn_sr", [7, 9, 20])),
    ]
    (found,) = compare(records, "early_concat/text=minilm", "early_concat/text=mpnet")
    assert found.difference is not None
    assert found.difference.effect > 0
    assert found.differs == ["features (text minilm against text mpnet)"]
    names = "Early concatenation `early_concat` on text minilm against Early concatenation `early_concat` on text mpnet"
    assert names in describe(found, tmp_path, 0)
    # without a name the table that has both decides, and a name that no row has is none
    (found,) = compare(records, "early_concat", "cfn_sr")
    assert (found.other, found.differs) == (None, [])
    with pytest.raises(Misuse, match="text=glove"):
        compare(records, "early_concat/text=glove", "cfn_sr")


def test_sets_of_one_name_and_two_contents_are_two_sets() -> None:
    def hashed(records: list[RunRecord], digest: str) -> list[RunRecord]:
        return [replace(one, spec=replace(one.spec, features_sha256={"text": digest * 64})) for one in records]

    (found,) = compare([*hashed(made_runs("lmf", [7]), "a"), *hashed(made_runs("tacfn", [9]), "b")], "lmf", "tacfn")
    assert found.differs == [f"features (text minilm (sha256 {'a' * 12}) against text minilm (sha256 {'b' * 12}))"]


def test_a_row_that_stands_in_several_tables_is_compared_once() -> None:
    single = in_track("utterance", "minilm", *made_runs("unimodal", [7, 9, 20]))
    fused = [
        replace(one, context="dialogue", spec=replace(one.spec, features={"text": "mpnet"}, features_sha256={}))
        for one in made_runs("bc_lstm", [7])
    ]
    both = [*single, *in_track("utterance", "minilm", *made_runs("lmf", [9])), *fused]
    both += in_track("dialogue", "minilm", *made_runs("mmgcn", [9]))  # whose table has the single modality as well
    assert len(compare(both, "bc_lstm", "unimodal")) == 1


def test_a_comparison_of_one_seed_says_that_it_is_one_of_trainings(tmp_path: Path) -> None:
    one = [each for each in RECORDS if each.spec.seed < 1 or each.spec.method == "b"]
    for records, said in ((RECORDS, 0), (one, 1)):
        (found,) = compare(records, "a", "b")
        assert found.difference is not None
        assert describe(found, tmp_path, 0).count("With one seed, this holds for these trainings alone") == said
