"""Predicting a table: as the record says, without labels, from features of the same extractors alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab import WIDTHS, spec_for, write_corpus
from suites import Answer, Call

from mer_bench.bundle import predict as predicting
from mer_bench.bundle.model import Bundle, load_model
from mer_bench.bundle.predict import predict_table, remarks, sentence, summary, write_predictions
from mer_bench.errors import Misuse
from mer_bench.features import write_features
from mer_bench.records import bundle_path, read_record
from mer_bench.training.run import run
from mer_bench.utterances import DESCRIPTION, FILE


def assert_one_sentence(answer: Answer, part: str) -> None:
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert part in answer.err
    assert answer.err.count("\n") == 1


def rewrite(table: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change a table and make its feature sets anew, as whoever prepares new data would."""
    before = pd.read_csv(table / FILE, dtype=str, keep_default_na=False)
    after = change(before)
    after.to_csv(table / FILE, index=False)
    for modality, name in zip(WIDTHS, ("sound", "faces", "waves"), strict=True):
        values, offsets = np.load(table / name / "values.npy"), np.load(table / name / "offsets.npy")
        features(table, name, modality, np.split(values, offsets[1:-1])[: len(after)])


def features(
    table: Path, name: str, modality: str, sequences: list[np.ndarray], extractor: str | None = None, **facts: object
) -> None:
    ids = [str(row) for row in range(len(sequences))]
    usual = {"extractor": extractor or f"made-{modality}", "revision": "1", "settings": {"rate": 16, "source": "new"}}
    write_features(table / name, sequences, ids=ids, modality=modality, **{**usual, **facts})  # type: ignore[arg-type]


# Tables


def test_a_table_without_labels_and_columns_that_the_model_does_not_read_is_predicted(
    loaded: dict[str, Bundle], data: Path, table: Path
) -> None:
    expected = predict_table(loaded["early_concat"], data / "lab")
    rewrite(table, lambda frame: frame[["id"]])
    assert predict_table(loaded["early_concat"], table).equals(expected)
    dialogues = predict_table(loaded["bc_lstm"], data / "lab")
    with pytest.raises(Misuse, match="lacks the column 'dialogue': this model reads whole dialogues"):
        predict_table(loaded["bc_lstm"], table)
    shutil.copy(data / "lab" / FILE, table / FILE)
    rewrite(table, lambda frame: frame[["id", "dialogue", "turn", "speaker"]])
    assert predict_table(loaded["bc_lstm"], table).equals(dialogues)


def test_the_dialogues_of_the_table_are_what_a_model_of_dialogues_reads(
    loaded: dict[str, Bundle], data: Path, table: Path
) -> None:
    expected = predict_table(loaded["bc_lstm"], data / "lab")
    rewrite(table, lambda frame: frame.assign(dialogue=frame["id"], turn="0"))
    assert not np.allclose(predict_table(loaded["bc_lstm"], table)["p_sad"], expected["p_sad"])


def test_new_data_are_standardised_with_the_statistics_of_the_training_rows(
    loaded: dict[str, Bundle], tmp_path: Path
) -> None:
    write_corpus(tmp_path / "other", seed=5)
    bundle, few = loaded["early_concat"], tmp_path / "few"
    all_of_it = predict_table(bundle, tmp_path / "other")
    shutil.copytree(tmp_path / "other", few)
    rewrite(few, lambda frame: frame.head(3))
    found = predict_table(bundle, few)
    np.testing.assert_allclose(found.filter(like="p_"), all_of_it.head(3).filter(like="p_"), atol=1e-6)


def test_columns_are_ids_the_predicted_class_and_probabilities_that_sum_to_one(
    loaded: dict[str, Bundle], data: Path
) -> None:
    frame = predict_table(loaded["early_concat"], data / "lab")
    assert list(frame) == ["id", "prediction", "p_happy", "p_sad", "p_angry", "missing"]
    assert frame["id"].tolist() == [f"u{row}" for row in range(72)]
    probabilities = frame.filter(like="p_").to_numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert frame["prediction"].tolist() == np.array(["happy", "sad", "angry"])[probabilities.argmax(1)].tolist()
    assert (frame["missing"] != "").sum() == sum(row % 7 in (1, 2, 3) for row in range(72))


def test_splits_are_those_of_the_models_fold_or_values_of_the_column(
    loaded: dict[str, Bundle], data: Path, table: Path, records: dict[str, Path]
) -> None:
    bundle, record = loaded["early_concat"], read_record(records["early_concat"])
    frame = predict_table(bundle, data / "lab", "test")
    assert frame["id"].tolist() == [f"u{row}" for row in record.test_index]
    assert len(predict_table(bundle, data / "lab", "validation")) == 12
    with pytest.raises(Misuse, match=r"unknown split 'tset': did you mean 'test'\?"):
        predict_table(bundle, data / "lab", "tset")
    rewrite(table, lambda rows: rows.assign(split=np.repeat(["mine", ""], [10, 62]), emotion=""))
    assert predict_table(bundle, table, "mine")["id"].tolist() == [f"u{row}" for row in range(10)]
    with pytest.raises(Misuse, match="valid are all, mine"):
        predict_table(bundle, table, "test")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda frame: frame.drop(columns="id"), "lacks the column 'id'"),
        (lambda frame: frame.rename(columns={"speaker": "speker"}), "did you mean 'speaker'?"),
        (lambda frame: frame.assign(turn="x"), "no whole number"),
        (lambda frame: frame.assign(id="same"), "more than once"),
        (lambda frame: frame.assign(turn="0"), "does not continue its dialogue"),
        (lambda frame: frame.head(5), "72 rows, its table 5"),
        (lambda frame: frame.assign(speaker="x"), f"was made for another {FILE}"),
    ],
)
def test_a_table_that_does_not_fit_is_one_sentence(
    loaded: dict[str, Bundle], table: Path, change: Callable[[pd.DataFrame], pd.DataFrame], part: str
) -> None:
    change(pd.read_csv(table / FILE, dtype=str, keep_default_na=False)).to_csv(table / FILE, index=False)
    with pytest.raises(Misuse, match=part) as raised:
        predict_table(loaded["early_concat"], table)
    assert "\n" not in str(raised.value)


# Features


def ones(width: int) -> list[np.ndarray]:
    return [np.ones((2, width), np.float32) for _ in range(72)]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"extractor": "wavlm"}, "its extractor is 'wavlm', not 'made-audio'; extract it with made-audio 1, or say"),
        ({"revision": "2"}, "its revision is '2', not '1'"),
        ({"layer": "12"}, "its layer is '12', not ''"),
        ({"settings": {"rate": 8}}, "its setting rate is 8, not 16"),
        ({"settings": {}}, "its setting rate is None, not 16"),
        ({"modality": "vision"}, "its modality is 'vision', not 'audio'"),
        ({"sequences": ones(4)}, "its width is 4, not 5; extract it with made-audio 1$"),
        ({"sequences": [np.ones((2, 5), np.uint8)] * 72, "dtype": "uint8"}, "'pixels', not 'numbers'"),
    ],
)
def test_features_of_another_extractor_are_refused_by_name(
    loaded: dict[str, Bundle], table: Path, change: dict[str, object], part: str
) -> None:
    given = {"modality": "audio", "sequences": ones(5), **change}
    features(table, "sound", **given)  # type: ignore[arg-type]
    with pytest.raises(Misuse, match=part) as raised:
        predict_table(loaded["early_concat"], table)
    assert f"feature set {table / 'sound'} is not of the kind" in str(raised.value)


def test_the_content_of_a_set_may_differ_and_the_user_may_vouch_for_another_extractor(
    loaded: dict[str, Bundle], table: Path
) -> None:
    bundle = loaded["early_concat"]
    features(table, "sound", "audio", ones(5), settings={"rate": 16, "source": "x", "decoder": "PyAV 14"})
    features(table, "waves", "eeg", ones(2), frame_rate=5.0, dtype="float16")
    assert len(predict_table(bundle, table)) == 72
    features(table, "sound", "audio", ones(5), extractor="import")
    with pytest.raises(Misuse, match="--trust audio"):
        predict_table(bundle, table)
    assert len(predict_table(bundle, table, trust=["audio"])) == 72
    features(table, "sound", "audio", ones(4), extractor="import")
    with pytest.raises(Misuse, match="its width is 4, not 5"):
        predict_table(bundle, table, trust=["audio"])


def test_a_set_that_is_not_there_is_named_and_may_be_left_out(loaded: dict[str, Bundle], table: Path) -> None:
    bundle = loaded["early_concat"]
    shutil.rmtree(table / "faces")
    with pytest.raises(Misuse, match=r"no feature set 'faces' in .* \(available: sound, waves\)"):
        predict_table(bundle, table)
    with pytest.raises(Misuse, match=r"did you mean 'vision'\?"):
        predict_table(bundle, table, without=["visoin"])
    frame = predict_table(bundle, table, without=["vision"])
    assert frame["missing"].str.contains("vision").all()
    assert "vision is missing in every utterance" in remarks(bundle, frame)


def test_what_is_missing_is_said_with_the_ids_and_where_too_much_is(
    loaded: dict[str, Bundle], data: Path, table: Path, tmp_path: Path
) -> None:
    bundle = loaded["early_concat"]
    frame = predict_table(bundle, data / "lab")
    assert remarks(bundle, frame)[0] == "audio is missing in 11 of 72 utterances (u1, u8, u15, ...)"
    assert len(remarks(bundle, frame)) == 3
    said = remarks(bundle, predict_table(bundle, data / "lab", without=["vision", "eeg"]))
    assert "there is no modality at all in 11 of 72 utterances (u1, u8, u15, ...): what" in said[-1]
    assert remarks(loaded["majority"], predict_table(loaded["majority"], data / "lab"))[0].startswith("audio is")
    spec = spec_for(data, "cfn_sr", training={"epochs": 1})
    run(spec, data, logger="none", bundle=tmp_path / "pair")
    pair = load_model(tmp_path / "pair")
    said = remarks(pair, predict_table(pair, table, without=["vision"]))
    few = "there are fewer than the 2 modalities that cfn_sr is made for in 21 of 72 utterances (u1, u3, u8, ...)"
    assert said[-1] == few


# Explanations


def test_shares_are_shapley_values_from_the_frequency_of_the_class_to_its_probability(
    loaded: dict[str, Bundle], data: Path
) -> None:
    bundle = loaded["early_concat"]
    frame = predict_table(bundle, data / "lab", explain=True)
    plain = predict_table(bundle, data / "lab")
    assert frame[list(plain)].equals(plain)
    classes = list(bundle.classes)
    counts = bundle.module.class_counts.double().numpy()
    prior = counts / counts.sum()
    for _, row in frame.iterrows():
        here = [name for name in WIDTHS if name not in row["missing"].split("+")]
        start = prior[classes.index(row["prediction"])]
        values = {(): start}
        for column in frame.columns[frame.columns.str.fullmatch("with_.*_p")]:
            subset = tuple(column.removeprefix("with_").removesuffix("_p").split("+"))
            values[subset] = row[column] if set(subset) & set(here) else start
        shares = {name: row[f"share_{name}"] for name in WIDTHS}
        assert sum(shares.values()) == pytest.approx(row[f"p_{row['prediction']}"] - start)
        a, v, e = values["audio",], values["vision",], values["eeg",]
        av, ae, ve = values["audio", "vision"], values["audio", "eeg"], values["vision", "eeg"]
        all_ = values["audio", "vision", "eeg"]
        assert shares["audio"] == pytest.approx((2 * (a - start) + (av - v) + (ae - e) + 2 * (all_ - ve)) / 6)
        for name in set(WIDTHS) - set(here):
            assert shares[name] == pytest.approx(0, abs=1e-6)


def test_each_subset_is_predicted_as_if_the_others_were_missing(loaded: dict[str, Bundle], data: Path) -> None:
    for method in ("early_concat", "bc_lstm"):
        frame = predict_table(loaded[method], data / "lab", explain=True)
        alone = predict_table(loaded[method], data / "lab", without=["vision", "eeg"])
        assert frame["with_audio"].equals(alone["prediction"])
        chosen = [alone[f"p_{name}"][row] for row, name in enumerate(frame["prediction"])]
        np.testing.assert_allclose(frame["with_audio_p"], chosen, atol=1e-6)


def test_too_many_modalities_are_not_explained(
    loaded: dict[str, Bundle], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "LARGEST", 2)
    with pytest.raises(Misuse, match="--explain needs a model of 1 to 2 modalities; this one has 3"):
        predict_table(loaded["early_concat"], data / "lab", explain=True)


# Output


def test_predictions_are_written_as_csv_and_json_that_read_back(
    loaded: dict[str, Bundle], data: Path, tmp_path: Path
) -> None:
    frame = predict_table(loaded["early_concat"], data / "lab", explain=True)
    write_predictions(frame, tmp_path / "a.csv")
    write_predictions(frame, tmp_path / "a.json")
    from_csv = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(from_csv, frame, atol=1e-5)
    assert json.loads((tmp_path / "a.json").read_text())[3]["id"] == "u3"
    pd.testing.assert_frame_equal(pd.DataFrame(json.loads((tmp_path / "a.json").read_text())), frame)


def test_a_prediction_is_one_readable_line(loaded: dict[str, Bundle]) -> None:
    row = {"id": "u1", "p_happy": 0.81, "p_sad": 0.1, "p_angry": 0.09, "missing": "vision+eeg", "share_audio": 0.5,
           "share_vision": -0.02, "share_eeg": 0.0, "with_audio": "sad", "with_audio+eeg": "sad"}  # fmt: skip
    expected = "u1: happy 0.81, then sad 0.10; vision and eeg missing; from audio +0.50, vision -0.02, eeg +0.00"
    assert sentence(loaded["early_concat"], row) == f"{expected}; audio alone: sad"
    assert summary(pd.DataFrame({"prediction": ["a", "b", "a"]})) == "3 utterances: 2 a, 1 b"


def test_the_command_prints_predicts_and_writes_what_mer_bench_score_reads(
    call: Call, records: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    model, target = bundle_path(records["early_concat"]), tmp_path / "p.csv"
    answer = call("predict", model, "--table", data / "lab", "--split", "test", "--to", target)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0].startswith("u48: ")
    assert len(lines) == 12
    assert lines[-2].startswith("24 utterances: ")
    assert lines[-1] == str(target)
    assert "warning: vision is missing in" in answer.err
    scored = call("score", target, "--dataset", "lab", "--data", data, "--json")
    assert scored.code == 0, scored.err
    record = read_record(records["early_concat"])
    accuracy = np.trace(record.test_confusion) / np.sum(record.test_confusion)
    assert f"{accuracy:.4f}"[:5] in scored.out


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ([], "there is no clip: name media files or folders"),
        (["--table", "nowhere"], "there is no utterance table at nowhere"),
        (["--table", "{lab}", "--to", "{tmp}/p.txt"], ".csv or .json"),
        (["--table", "{lab}", "--to", "{tmp}/none/p.csv"], "there is no folder"),
        (["--table", "{lab}", "--to", "{tmp}/there.csv"], "exists; name another file"),
        (["--table", "{lab}", "--split", "tran"], "did you mean 'train'?"),
        (["--table", "{lab}", "--without", "adio"], "did you mean 'audio'?"),
    ],
)
def test_wrong_options_of_the_command_are_one_sentence(
    call: Call, records: dict[str, Path], data: Path, tmp_path: Path, options: list[str], part: str
) -> None:
    (tmp_path / "there.csv").write_text("mine")
    given = [option.format(lab=data / "lab", tmp=tmp_path) for option in options]
    assert_one_sentence(call("predict", bundle_path(records["early_concat"]), *given), part)
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_the_description_of_the_corpus_decides_its_splits_and_is_not_needed(
    loaded: dict[str, Bundle], data: Path, table: Path
) -> None:
    assert not (table / DESCRIPTION).exists()
    assert predict_table(loaded["early_concat"], table, "test").equals(
        predict_table(loaded["early_concat"], data / "lab", "test")
    )
