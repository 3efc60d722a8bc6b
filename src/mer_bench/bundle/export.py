"""The trained model of a record: the one that was kept, or one that is trained again."""

from __future__ import annotations

from pathlib import Path

from mer_bench.bundle.facts import facts_of, read_facts
from mer_bench.bundle.store import check_target, copy_bundle
from mer_bench.errors import Misuse
from mer_bench.files import check_folder
from mer_bench.records import RunRecord, bundle_path, read_record
from mer_bench.schema import read_json
from mer_bench.training.build import check_trainer
from mer_bench.training.checks import check_savable
from mer_bench.training.run import run
from mer_bench.training.suite import run_from_file
from mer_bench.training.temporary import FREE
from mer_bench.training.validate import validate


def export(path: Path, folder: Path, root: Path) -> tuple[str, bool]:
    """Write the trained model of a run to ``folder``, which must not exist or be empty.

    Args:
        path: The record of the run, or its spec as JSON.
        folder: The folder of the model.
        root: Folder of the prepared corpora, for a model that is not kept beside its record.

    Returns:
        A sentence that says where the model is from, and whether its predictions are those of the record; and whether
        it is a warning that they are not.

    Raises:
        Misuse: ``folder`` holds something, ``path`` is not a run, or the run cannot be made here.
    """
    check_target(folder)
    content = read_json(path, "a record of a run")
    record = read_record(path) if isinstance(content, dict) and "test_predictions" in content else None
    kept = bundle_path(path)
    if record is not None and _is_of(kept, record):
        copy_bundle(kept, folder)
        return f"copied from {kept}", False
    spec = run_from_file(path, root)
    validate([spec], root)
    check_savable([spec])
    if spec.devices * spec.num_nodes > 1:
        raise Misuse(
            f"{path} is a run on several devices, whose model no single process makes again: keep it by mer-bench run "
            f"--spec {path} --save-model"
        )
    check_trainer(spec)
    check_folder(folder.parent, "--to", FREE)
    made = run(spec, root, logger="none", bundle=folder)
    assert made is not None
    if record is None:
        return "trained; there is no record to compare its predictions with", False
    if made.test_index != record.test_index:
        return "trained again; WARNING: the record tests other utterances", True
    pairs = zip(made.test_predictions, record.test_predictions, strict=True)
    different = sum(one != other for one, other in pairs)
    if different:
        return (
            f"trained again; WARNING: {different} of {len(made.test_predictions)} test predictions differ from those "
            f"of the record, which was made on {record.device} with torch {record.versions.get('torch', 'unknown')}: "
            "the model has its own scores, not those of the record",
            True,
        )
    return f"trained again; its {len(made.test_predictions)} test predictions are those of the record", False


def _is_of(folder: Path, record: RunRecord) -> bool:
    """Whether a readable model is there, and is the one that the record is about."""
    if record.code is None or record.test_by_cluster is None or record.protocol is None:
        return False
    try:
        facts = read_facts(folder)
    except Misuse:
        return False
    return facts == facts_of(record, facts.features, facts.licence, facts.weights_sha256)
