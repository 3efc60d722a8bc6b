"""Frozen models: identified by their weights, and refused if the checkpoint is incomplete."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from recordings import save_encoder

from data_prep.extractors.hub import FrozenModel
from mer_bench.errors import Misuse

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("models") / "Tiny")


def frozen(name: str | Path, **options: object) -> FrozenModel:
    return FrozenModel(str(name), processor="AutoTokenizer", **options)  # type: ignore[arg-type]


def test_a_model_is_identified_by_its_weights_and_not_by_its_path(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "Tiny"
    shutil.copytree(folder, copy)
    assert frozen(folder).revision == frozen(copy).revision
    assert (frozen(copy).name, frozen(copy).short) == ("Tiny", "tiny")
    (copy / "pytorch_model.bin").write_bytes(b"not looked at beside safetensors")
    assert frozen(folder).revision == frozen(copy).revision
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert frozen(folder).revision != frozen(copy).revision
    assert frozen(folder).parameters() == sum(p.numel() for p in frozen(folder).model.parameters()) > 0


def test_weights_in_half_precision_are_used_in_single_precision(folder: Path, tmp_path: Path) -> None:
    import torch

    frozen(folder).model.half().save_pretrained(tmp_path)
    assert {p.dtype for p in frozen(tmp_path).model.parameters()} == {torch.float32}
    assert not frozen(tmp_path).model.training


def test_a_model_in_the_hubs_cache_is_identified_by_its_commit(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--someone--Tiny-1"
    shutil.copytree(folder, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    for module in ("constants", "file_download"):
        monkeypatch.setattr(f"huggingface_hub.{module}.HF_HUB_CACHE", str(tmp_path), raising=False)
    model = frozen("someone/Tiny-1")
    assert (model.name, model.short, model.revision) == ("Tiny-1", "tiny-1", commit)
    assert model.parameters() == frozen(folder).parameters()


def test_missing_parameters_are_refused_unless_they_are_unused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    for dropped, unused in (("pooler.", ("pooler.",)), ("attention", ())):
        kept = {name: value for name, value in state.items() if dropped not in name}
        save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
        if unused:
            assert frozen(tmp_path, unused=unused).model is not None
        with pytest.raises(Misuse, match=r"lacks \d+ parameters of a BertModel \(first: "):
            _ = frozen(tmp_path).model


def test_an_absent_or_damaged_model_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"'nobody/none' is not on this machine: pass --download.* --local-dir FOLDER"):
        _ = frozen("nobody/none").model
    with pytest.raises(Misuse, match="holds no model"):
        _ = frozen(tmp_path).revision
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])
    for config in ((folder / "config.json").read_text(), "{"):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(Misuse, match=f"cannot load the model in {tmp_path}"):
            _ = frozen(tmp_path).model
