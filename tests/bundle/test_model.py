"""Loading a model: without its corpus, without a pickle, without code that it names; and predicting with it."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import safetensors.torch
import torch
from lab import WIDTHS, spec_for
from suites import execute_and_write

from mer_bench import load_model
from mer_bench.bundle.facts import FILE, WEIGHTS, _checksum
from mer_bench.bundle.model import Bundle
from mer_bench.bundle.predict import open_table, predict_table
from mer_bench.errors import Misuse
from mer_bench.features import open_features
from mer_bench.files import sha256
from mer_bench.fusion import METHODS
from mer_bench.fusion.early_concat import EarlyConcat
from mer_bench.records import bundle_path
from mer_bench.training.options import RunSettings
from mer_bench.training.run import run


def edit(folder: Path, change: Callable[[dict[str, Any]], object], *, signed: bool = True) -> None:
    """Change the description of a model; ``signed`` writes its checksum anew."""
    content = json.loads((folder / FILE).read_text())
    change(content)
    if signed:
        del content["sha256"]
        content["sha256"] = _checksum(content)
    (folder / FILE).write_text(json.dumps(content))


def frames(data: Path) -> dict[str, list[np.ndarray[Any, Any]]]:
    """The arrays of every utterance."""
    found = {}
    for modality, name in zip(WIDTHS, ("sound", "faces", "waves"), strict=True):
        opened = open_features(data / "lab" / name)
        found[modality] = [np.array(part) for part in np.split(opened.values, opened.offsets[1:-1])]
    return found


def test_a_model_is_loaded_without_its_corpus_and_says_what_it_reads(
    records: dict[str, Path], loaded: dict[str, Bundle], data: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(bundle_path(records["early_concat"]), tmp_path / "anywhere"))
    bundle = load_model(str(moved))
    assert bundle.classes == ("happy", "sad", "angry")
    assert bundle.context == "utterance"
    assert list(bundle.features) == ["audio", "vision", "eeg"]
    assert (bundle.features["audio"].extractor, bundle.features["audio"].dim) == ("made-audio", 5)
    assert not bundle.module.training
    assert loaded["bc_lstm"].context == "dialogue"
    given = frames(data)
    assert bundle.predict(given).shape == (72, 3)


def test_a_model_whose_layers_depend_on_the_names_of_the_classes_is_loaded(data: Path, tmp_path: Path) -> None:
    settings = RunSettings(data, tmp_path, "none", save_model=True)
    spec = spec_for(data, "graph_smile")
    record = execute_and_write(replace(spec, options={"hidden": 8, "layers": 1}), settings)
    module = load_model(bundle_path(record)).module
    assert {"sentiment.weight", "shift.weight"} <= set(module.state_dict())


def test_loading_leaves_random_numbers_and_the_corpora_alone(records: dict[str, Path]) -> None:
    before = torch.get_rng_state()
    load_model(bundle_path(records["early_concat"]))
    assert torch.equal(torch.get_rng_state(), before)


def test_loading_a_model_unpickles_nothing(records: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for module, name in ((torch, "load"), (pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, never)
    assert load_model(bundle_path(records["early_concat"])).classes


@pytest.mark.parametrize("method", ["early_concat", "bc_lstm"])
def test_arrays_and_a_table_give_the_same_probabilities(loaded: dict[str, Bundle], data: Path, method: str) -> None:
    bundle = loaded[method]
    frame = predict_table(bundle, data / "lab")
    dialogues = {"dialogue": [f"d{row // 6}" for row in range(72)], "speaker": [f"s{row % 2}" for row in range(72)]}
    found = bundle.predict(frames(data), **dialogues)
    np.testing.assert_allclose(found, frame[[f"p_{name}" for name in bundle.classes]], atol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1)


def test_a_modality_that_is_not_given_is_missing(loaded: dict[str, Bundle], data: Path) -> None:
    given = frames(data)
    nothing = [None] * 72
    bundle = loaded["early_concat"]
    without = bundle.predict({"audio": given["audio"]})
    assert np.array_equal(without, bundle.predict({**given, "vision": nothing, "eeg": nothing}))
    assert not np.allclose(without, bundle.predict(given))
    assert np.isfinite(bundle.predict({name: nothing for name in given})).all()


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec.*is deprecated")
def test_trainer_predict_takes_the_module_and_a_table_and_leaves_the_model_as_it_was(
    loaded: dict[str, Bundle], data: Path, tmp_path: Path
) -> None:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", devices=1, default_root_dir=tmp_path, **quiet)
    for method in ("early_concat", "bc_lstm", "majority"):
        bundle = loaded[method]
        frame = predict_table(bundle, data / "lab", "test")
        batches = trainer.predict(bundle.module, datamodule=open_table(bundle, data / "lab", "test"))
        assert batches is not None
        rows, probabilities = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert sorted(rows.tolist()) == list(range(48, 72))
        expected = frame[[f"p_{name}" for name in bundle.classes]].to_numpy()
        np.testing.assert_allclose(probabilities[rows.argsort()], expected, atol=1e-12)
        assert predict_table(bundle, data / "lab", "test").equals(frame)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"adio": [None]}, "did you mean 'audio'?"),
        ({"audio": [None], "vision": [None, None]}, "the same number of utterances"),
        ({}, "at least one"),
        ({"audio": [np.zeros((3, 4), np.float32)]}, r"audio of utterance 0 has shape \(3, 4\), not \[time, 5\]"),
        ({"audio": [np.full((1, 5), np.nan)]}, "NaN"),
        ({"audio": [np.full((1, 5), "x")]}, "not float32"),
    ],
)
def test_arrays_that_do_not_fit_are_one_sentence(loaded: dict[str, Bundle], given: Any, part: str) -> None:
    with pytest.raises(Misuse, match=part):
        loaded["early_concat"].predict(given)


def test_a_model_of_dialogues_needs_whole_dialogues(loaded: dict[str, Bundle]) -> None:
    given = {"audio": [np.zeros((2, 5), np.float32)] * 3}
    with pytest.raises(Misuse, match="give the dialogue and the speaker"):
        loaded["bc_lstm"].predict(given)
    with pytest.raises(Misuse, match="adjacent"):
        loaded["bc_lstm"].predict(given, dialogue=["a", "b", "a"], speaker=["x", "x", "x"])


# Bad bundles


def flip(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def reweigh(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors, and the hash with them."""
    tensors = safetensors.torch.load_file(folder / WEIGHTS)
    change(tensors)
    safetensors.torch.save_file(tensors, folder / WEIGHTS)
    edit(folder, lambda content: content.update(weights_sha256=sha256(folder / WEIGHTS)))


def not_tensors(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"junk")
    edit(folder, lambda content: content.update(weights_sha256=sha256(folder / WEIGHTS)))


@pytest.mark.parametrize(
    ("harm", "part"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no folder"),
        (lambda folder: (folder / FILE).unlink(), "is absent"),
        (lambda folder: (folder / WEIGHTS).unlink(), "cannot read the weights of the model"),
        (lambda folder: (folder / FILE).write_text("{"), "is not the description of a trained model"),
        (lambda folder: (folder / FILE).write_text("[]"), "must be a mapping"),
        (flip, "was changed after it was written"),
        (not_tensors, "is not a file of tensors"),
        (lambda folder: edit(folder, lambda c: c.update(format=3)), "has format 3, .* install a newer version"),
        (lambda folder: edit(folder, lambda c: c.update(format=0)), "has format 0, .* export the model again"),
        (lambda folder: edit(folder, lambda c: c.update(clases=[])), "did you mean 'classes'?"),
        (lambda folder: edit(folder, lambda c: c["features"]["audio"].update(dmi=1)), "did you mean 'dim'?"),
        (lambda folder: edit(folder, lambda c: c.pop("classes")), "lacks the key 'classes'"),
        (lambda folder: edit(folder, lambda c: c["classes"].reverse(), signed=False), "its sha256 is not that of"),
        (lambda folder: edit(folder, lambda c: c.update(classes=["sad"] * 3)), "a class occurs twice"),
        (lambda folder: edit(folder, lambda c: c["features"]["audio"].update(name="other")), "not those of its spec"),
        (lambda folder: edit(folder, lambda c: c["features"]["audio"].update(name="../x")), "must be a name"),
        (lambda folder: edit(folder, lambda c: c["spec"].update(version=99)), "was trained with version 99"),
        (lambda folder: edit(folder, lambda c: c["spec"]["options"].update(hidden=9)), "has the shape"),
        (lambda folder: edit(folder, lambda c: c["spec"]["options"].update(hiden=9)), "does not fit its method"),
        (lambda folder: edit(folder, lambda c: c.update(context="dialogue")), "reads dialogues"),
        (lambda folder: edit(folder, lambda c: c["spec"].update(method="os:system")), "is no part of mer_bench"),
        (lambda folder: reweigh(folder, lambda t: t.pop("mean.functionals.eeg")), "no part of a model"),
        (lambda folder: reweigh(folder, lambda t: t.update({"x": torch.ones(1)})), "no part of a model"),
        (lambda folder: reweigh(folder, lambda t: t.update({"model.x": torch.ones(1)})), "x has the shape"),
    ],
)
def test_what_is_no_whole_model_is_one_sentence(folder: Path, harm: Callable[[Path], object], part: str) -> None:
    harm(folder)
    with pytest.raises(Misuse, match=part) as raised:
        load_model(folder)
    assert "\n" not in str(raised.value)


def test_a_file_of_initial_weights_that_an_option_names_is_not_opened(
    records: dict[str, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reads(EarlyConcat):
        def __init__(self, dims: Any, num_classes: int, *, weights: Any = None, hidden: int = 64) -> None:
            assert weights is None
            super().__init__(dims, num_classes, hidden=hidden)

    monkeypatch.setitem(METHODS, "early_concat", Reads)
    edit(folder, lambda content: content["spec"]["options"].update(weights={"audio": "secret"}))
    assert load_model(folder).classes


# Methods of one's own

MINE = """
from mer_bench.fusion.early_concat import EarlyConcat
print("imported")
class Mine(EarlyConcat):
    pass
class Other(EarlyConcat):
    context = "dialogue"
"""


@pytest.fixture
def own(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model of a method that is found in the working folder; the module is then forgotten."""
    (tmp_path / "mine_for_bundles.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    run(spec_for(data, "mine_for_bundles:Mine"), data, logger="none", bundle=tmp_path / "own")
    del sys.modules["mine_for_bundles"]
    yield tmp_path / "own"
    sys.modules.pop("mine_for_bundles", None)


def test_code_that_a_model_names_is_imported_only_if_the_user_names_it_too(
    own: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    with pytest.raises(Misuse, match="name it: --method mine_for_bundles:Mine"):
        load_model(own)
    assert "mine_for_bundles" not in sys.modules
    assert capfd.readouterr().out == ""
    bundle = load_model(own, method="mine_for_bundles:Mine")
    assert len(predict_table(bundle, data / "lab")) == 72
    assert load_model(own, method=type(bundle.module)).classes == bundle.classes


def test_edited_code_and_another_class_are_refused(own: Path, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="reads utterances, and mine_for_bundles:Other dialogues"):
        load_model(own, method="mine_for_bundles:Other")
    with pytest.raises(Misuse, match="did you mean"):
        load_model(own, method="mine_for_bundles:Mien")
    with pytest.raises(Misuse, match="is not the one that the model"):
        load_model(own, method=EarlyConcat)
    (tmp_path / "mine_for_bundles.py").write_text(MINE + "# edited\n")
    with pytest.raises(Misuse, match="--allow-changed"):
        load_model(own, method="mine_for_bundles:Mine")
    assert load_model(own, method="mine_for_bundles:Mine", allow_changed=True).classes


def test_a_built_in_method_is_taken_by_no_other_name(folder: Path) -> None:
    assert load_model(folder, method="early_concat").classes
    with pytest.raises(Misuse, match="was trained with early_concat, not with majority"):
        load_model(folder, method="majority")
