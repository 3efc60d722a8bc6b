"""The command line: exit codes, and that every mistake is one line that says what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mer_bench.datasets import DATASETS
from mer_bench.fusion import METHODS
from mer_bench.records import RunRecord, RunSpec, Training, load_records, read_record, write_record

RAVDESS = "simulated-ravdess"
SUITE = """
dataset = "{dataset}"
label_set = "eight"
protocol = "folds6"
seeds = [0, 1]

[training]
epochs = 1

[[table]]
features = {{ audio = "{audio}", vision = "{vision}" }}
methods = [{methods}]
"""


class Answer(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """The command line in this process."""
    from mer_bench.cli import main

    def called(*arguments: str | Path) -> Answer:
        monkeypatch.setattr(sys, "argv", ["mer-bench", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        return Answer(int(left.value.code or 0), *capfd.readouterr())

    return called


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One simulated corpus."""
    folder = tmp_path_factory.mktemp("data")
    DATASETS[RAVDESS](folder, label_set="eight", protocol="folds6")
    return folder


def write_suite(folder: Path, dataset: str, methods: str, audio: str, vision: str) -> Path:
    path = folder / "suite.toml"
    text = SUITE.format(dataset=dataset, methods=methods, audio=audio, vision=vision)
    path.write_text(text, encoding="utf-8")
    return path


def record_of(seed: int) -> RunRecord:
    spec = RunSpec(
        "simulated-ravdess", "eight", "folds6", 1, {"audio": "a"}, {"audio": "0" * 64}, "unimodal", 1, {}, Training(),
        seed,
    )  # fmt: skip
    features = {"audio": {"name": "a", "extractor": "e", "revision": "", "layer": "", "dim": 2, "parameters": 0}}
    return RunRecord(
        spec, ("happy", "sad"), "utterance", "baseline", True, features, {"train": 9, "validation": 2, "test": 3},
        [[1, 0], [0, 1]], [[1, 1], [0, 1]], [0, 1, 2], [0, 1, 1], [{"train/loss": 1.0, "val/weighted_f1": 1.0}],
        0, 10, 20, 1.0, 100.0, "cpu",
    )  # fmt: skip


# In a process of its own


def test_help_answers_without_importing_torch() -> None:
    code = (
        "import sys; sys.argv = ['mer-bench', '--help']\n"
        "from mer_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as left: print('code', left.code, 'torch' in sys.modules, 'lightning' in sys.modules)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "code 0 False False" in finished.stdout
    for command in ("bench", "run", "fit", "leaderboard", "verify", "list"):
        assert f"\n  {command} " in finished.stdout


@pytest.mark.parametrize("line", [["verify", "--data", "nowhere"], ["bnch"], ["leaderboard", "--chekc"]])
def test_misuse_is_exit_code_2_and_one_line(line: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mer_bench", *line]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1


# In this process


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["bnch"], "unknown command 'bnch': did you mean 'bench'?"),
        (["lederboard"], "unknown command 'lederboard': did you mean 'leaderboard'?"),
        (["bench", "nosuch/suite.toml"], "unknown suite in nosuch 'suite'"),
        (["bench"], "Missing argument"),
        (["bench", "{root}/suite.toml", "--seeds", "x"], "--seeds takes whole numbers such as '0 1 2', not 'x'"),
        (["bench", "{root}/suite.toml", "--jobs", "0"], "0 is not in the range"),
        (["bench", "{root}/suite.toml", "--corpus", "rael"], "'rael' is not one of"),
        (["run", "--method", "majority"], "run needs --dataset and --method, or --spec"),
        (["run", "--dataset", "simulated-ravdes", "--method", "majority"], "did you mean 'simulated-ravdess'?"),
        (["run", "--dataset", RAVDESS, "--method", "majorty"], "did you mean 'majority'?"),
        (["run", "--dataset", RAVDESS, "--method", "majority", "--fold", "9"], "has folds 1 to 6, not 9"),
        (["run", "--dataset", RAVDESS, "--method", "majority", "--feature", "audio"], "takes NAME=VALUE, not 'audio'"),
        (["run", "--dataset", RAVDESS, "--method", "majority", "--feature", "audi=x"], "did you mean 'audio'?"),
        (["run", "--dataset", RAVDESS, "--method", "majority", "--feature", "audio=x"], "no feature set 'x'"),
        (["run", "--dataset", RAVDESS, "--method", "early_concat", "--option", "hiden=3"], "did you mean 'hidden'?"),
        (["run", "--dataset", RAVDESS, "--method", "early_concat", "--option", "hidden=-3"], "refuses its options"),
        (["run", "--dataset", RAVDESS, "--method", "majority", "--train", "epoch=3"], "did you mean 'epochs'?"),
        (
            ["run", "--dataset", RAVDESS, "--method", "majority", "--train", "epochs=soon"],
            "epochs must be of type int, not 'soon'",
        ),
        (["run", "--dataset", "ravdess", "--method", "majority"], "no feature set 'mfcc'"),
        (["run", "--spec", "{root}/suite.toml"], "does not describe a run"),
        (["run", "--spec", "{root}/list.json"], "does not describe a run"),
        (["list", "method"], "'method' is not one of"),
        (["verify", "--dataset", "meld"], "no feature set at"),
    ],
)
def test_a_mistake_names_what_is_wrong(call: Call, root: Path, line: list[str], said: str) -> None:
    write_suite(root, RAVDESS, '"majority"', "simulated-audio", "simulated-vision")
    (root / "list.json").write_text("[1]", encoding="utf-8")
    line = [word.format(root=root) for word in line]
    answer = call(*line, *(["--data", root] if line[0] in ("run", "verify", "bench") else []))
    assert answer.code == 2
    assert answer.err.startswith("error: ")
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert answer.out == ""


def test_leaderboard_check_tells_whether_the_page_is_what_the_records_give(call: Call, tmp_path: Path) -> None:
    write_record(record_of(0), tmp_path)
    absent = call("leaderboard", "--check", "--results", tmp_path)
    assert absent.code == 1
    assert "does not exist" in absent.err
    assert call("leaderboard", "--results", tmp_path).code == 0
    page = (tmp_path / "leaderboard.md").read_text(encoding="utf-8")
    assert "unimodal" in page
    assert call("leaderboard", "--check", "--results", tmp_path).code == 0

    (tmp_path / "leaderboard.md").write_text(page.replace("unimodal", "multimodal", 1), encoding="utf-8")
    edited = call("leaderboard", "--check", "--results", tmp_path)
    assert edited.code == 1
    assert edited.err.startswith("error: ")
    assert "multimodal" in (tmp_path / "leaderboard.md").read_text(encoding="utf-8"), "a check writes nothing"

    (tmp_path / "leaderboard.md").write_text(page, encoding="utf-8")
    write_record(record_of(1), tmp_path)
    assert call("leaderboard", "--check", "--results", tmp_path).code == 1


def test_an_unreadable_record_is_a_warning_and_the_others_are_shown(call: Call, tmp_path: Path) -> None:
    write_record(record_of(0), tmp_path)
    whole = write_record(record_of(1), tmp_path)
    broken = whole.with_name("torn.json")
    broken.write_text(whole.read_text(encoding="utf-8")[:200], encoding="utf-8")
    whole.rename(moved := whole.with_name("moved.json"))
    answer = call("leaderboard", "--results", tmp_path)
    assert answer.code == 0
    assert [line.partition(": ")[0] for line in answer.err.splitlines()] == ["warning", "warning"]
    assert f"{broken} is not a readable record" in answer.err
    assert f"{moved} holds another run than its name says" in answer.err
    assert "unimodal" in (tmp_path / "leaderboard.md").read_text(encoding="utf-8")


def test_verify_finds_a_flipped_byte(call: Call, tmp_path: Path) -> None:
    DATASETS[RAVDESS](tmp_path, label_set="eight", protocol="folds6")
    good = call("verify", "--data", tmp_path)
    assert (good.code, good.err) == (0, "")
    assert [line.split()[0] for line in good.out.splitlines()] == ["ok", "ok"]

    path = tmp_path / RAVDESS / "simulated-vision" / "values.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    bad = call("verify", "--data", tmp_path)
    assert bad.code == 1
    assert bad.err.startswith(f"error: feature set {path.parent}: values.npy has changed")
    assert bad.err.count("\n") == 1
    assert bad.out.startswith(f"ok {path.parent.with_name('simulated-audio')} ")


def test_lists_have_one_line_per_method_and_per_dataset(call: Call, root: Path) -> None:
    for what, names in (("methods", METHODS), ("datasets", DATASETS)):
        lines = call("list", what, "--data", root).out.splitlines()
        assert [line.split()[0] for line in lines[1:]] == list(names)
        assert what == "datasets" or max(map(len, lines)) <= 80
        assert list(json.loads(call("list", what, "--json", "--data", root).out)) == list(names)


def test_the_list_of_methods_needs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['mer-bench', 'list', 'methods', '--json']\n"
        "from mer_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as left: print('code', left.code, 'torch' in sys.modules)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "code 0 False" in finished.stdout


def test_one_method_is_described_with_paper_and_options(call: Call) -> None:
    said = call("list", "methods", "cfn_sr").out
    assert said.startswith("cfn_sr: CFN-SR: ")
    assert "https://arxiv.org/abs/2111.02172" in said
    assert "  hidden = 64\n" in said
    assert "26,301,417 parameters" in said  # of its docstring
    content = json.loads(call("list", "methods", "cfn_sr", "--json").out)
    assert (content["title"], content["track"], content["options"]["scale"]) == ("CFN-SR", "utterance", False)
    wrong = call("list", "methods", "tacfm")
    assert wrong.code == 2
    assert "unknown method 'tacfm': did you mean 'tacfn'?" in wrong.err


def test_one_dataset_is_described_alone(call: Call, root: Path) -> None:
    (meld,) = json.loads(call("list", "datasets", "meld", "--json", "--data", root).out).items()
    assert meld == ("meld", {
        "modalities": ["text", "audio", "vision"], "label sets": ["seven", "sentiment"],
        "protocols (folds)": ["official (1)"], "prepared": "no",
    })  # fmt: skip
    assert "did you mean 'meld'?" in call("list", "datasets", "medl", "--data", root).err


def test_run_takes_the_usual_features_and_its_record_runs_again_as_a_spec(
    call: Call, root: Path, tmp_path: Path
) -> None:
    options = ["--data", root, "--results", tmp_path / "results", "--logger", "none"]
    answer = call("run", "--dataset", RAVDESS, "--method", "majority", "--seed", "3", *options)
    assert (answer.code, answer.err) == (0, "")
    path = Path(answer.out.strip())
    record = read_record(path)
    assert record.spec.features == {"audio": "simulated-audio", "vision": "simulated-vision"}
    assert (record.spec.label_set, record.spec.protocol, record.spec.seed) == ("eight", "folds6", 3)

    (tmp_path / "spec.json").write_bytes(path.read_bytes())
    path.unlink()
    again = call("run", "--spec", tmp_path / "spec.json", *options)
    assert again.out.strip() == str(path)
    assert replace(read_record(path), seconds=0.0, peak_memory_mib=0.0) == replace(
        record, seconds=0.0, peak_memory_mib=0.0
    )


def test_options_of_run_are_toml_values(call: Call, root: Path, tmp_path: Path) -> None:
    choice = ["run", "--dataset", RAVDESS, "--method", "unimodal", "--feature", "vision=simulated-vision"]
    options = ["--option", "hidden=4", "--option", "dropout=0.5", "--train", "epochs=1", "--train", "batch_size=64"]
    answer = call(*choice, *options, "--data", root, "--results", tmp_path, "--logger", "none")
    assert answer.code == 0, answer.err
    spec = read_record(Path(answer.out.strip())).spec
    assert spec.features == {"vision": "simulated-vision"}
    assert spec.options == {"hidden": 4, "dropout": 0.5}
    assert spec.training == Training(epochs=1, batch_size=64)


@pytest.mark.parametrize("line", ["run", "leaderboard"])
def test_a_folder_that_cannot_be_written_is_one_sentence(call: Call, root: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    rest = ["--dataset", RAVDESS, "--method", "majority", "--data", root, "--logger", "none"] if line == "run" else []
    answer = call(line, *rest, "--results", tmp_path / "file" / "results")
    assert answer.code == 2
    assert answer.err.startswith("error: cannot write ")
    assert answer.err.count("\n") == 1
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"


# Benches


def test_without_the_real_corpus_a_bench_says_so_loudly_and_runs_the_simulated_one(
    call: Call, root: Path, tmp_path: Path
) -> None:
    suite = write_suite(tmp_path, "ravdess", '"majority"', "mfcc", "landmarks")
    results = tmp_path / "results"
    options = ["--data", root, "--results", results, "--logger", "none"]

    refused = call("bench", suite, *options, "--corpus", "real")
    assert refused.code == 2
    assert refused.err == f"error: ravdess is not prepared below {root}: {DATASETS['ravdess'].how_to_get}\n"
    assert not results.exists()

    answer = call("bench", suite, *options)
    assert answer.code == 0, answer.err
    assert "RAVDESS IS NOT PREPARED BELOW" in answer.err
    assert "make data DATASET=ravdess" in answer.err
    assert "SIMULATED" in answer.err
    records, problems = load_records(results)
    assert not problems
    assert [(r.spec.dataset, r.simulated, r.spec.seed) for r in records] == [(RAVDESS, True, 0)] * 6
    assert sorted(path.name for path in results.iterdir()) == ["leaderboard.md", RAVDESS]
    page = (results / "leaderboard.md").read_text(encoding="utf-8")
    assert "## Simulated corpora" in page
    assert "## Real corpora" not in page
    assert "(simulated)" in answer.out
    assert "majority" in answer.out

    wanted = call("bench", suite, *options, "--corpus", "simulated")
    assert wanted.code == 0
    assert "NOT PREPARED" not in wanted.err
    assert "6 runs: 6 recorded, 0 to do" in wanted.err


def test_a_failed_run_is_noted_the_others_are_done_and_the_exit_code_is_1(call: Call, tmp_path: Path) -> None:
    DATASETS[RAVDESS](tmp_path, label_set="eight", protocol="folds6")
    folder = tmp_path / RAVDESS / "simulated-vision"
    values, offsets = np.load(folder / "values.npy"), np.load(folder / "offsets.npy")
    row = int(np.flatnonzero(np.diff(offsets))[300])
    values[offsets[row], 0] = np.nan
    np.save(folder / "values.npy", values)
    methods = '{ name = "unimodal", options = { hidden = 4 } }'
    suite = write_suite(tmp_path, RAVDESS, methods, "simulated-audio", "simulated-vision")
    suite.write_text(suite.read_text().replace("folds6", "fixed"), encoding="utf-8")
    results = tmp_path / "results"
    answer = call("bench", suite, "--seeds", "5", "--data", tmp_path, "--results", results, "--logger", "none")
    assert answer.code == 1
    assert "Traceback" not in answer.err
    assert "6 of 12 runs failed; the next bench tries them again" in answer.err
    records, problems = load_records(results)
    assert not problems
    assert [list(r.spec.features) for r in records] == [["audio"]] * 6
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in results.rglob("*.failed.json")]
    assert [list(note["spec"]["features"]) for note in notes] == [["vision"]] * 6
    assert {note["spec"]["seed"] for note in notes} == {5}
    assert all(f"simulated-vision holds NaN or infinite values at row {row} " in note["reason"] for note in notes)
    assert "unimodal" in answer.out


# LightningCLI


FIT = [
    "fit", "--data", "SimulatedIEMOCAP", "--data.label_set", "six", "--data.protocol", "session5",
    "--data.features", '{"text": "simulated-text", "audio": "simulated-audio"}',
    "--trainer.max_epochs", "1", "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu",
    "--trainer.enable_progress_bar", "false",
]  # fmt: skip


@pytest.fixture
def _fit_is_installed() -> None:
    pytest.importorskip("jsonargparse")


@pytest.mark.usefixtures("_fit_is_installed")
def test_help_of_fit_names_model_data_and_trainer(call: Call) -> None:
    answer = call("fit", "--help")
    assert answer.code == 0
    for option in ("--model", "--data", "--trainer.max_epochs"):
        assert option in answer.out


@pytest.mark.usefixtures("_fit_is_installed")
@pytest.mark.filterwarnings("ignore")  # Lightning's own, of a Trainer that the user sets up
@pytest.mark.parametrize(("model", "context"), [("EarlyConcat", "utterance"), ("BCLSTM", "dialogue")])
def test_fit_trains_a_method_by_its_class_name(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, context: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model_options = ["--model", model, "--model.hidden", "8", "--data.context", context, "--data.root", str(tmp_path)]
    answer = call(*FIT, *model_options)
    assert answer.code == 0, answer.err
    assert "Trainable params" in answer.out
    assert "head" in answer.out
    assert (tmp_path / "simulated-iemocap" / "utterances.csv").is_file()


@pytest.mark.usefixtures("_fit_is_installed")
def test_fit_with_an_unknown_class_is_exit_code_2(call: Call, tmp_path: Path) -> None:
    answer = call(*FIT, "--model", "EarlyConct", "--data.root", tmp_path)
    assert answer.code == 2
    assert "EarlyConct" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.usefixtures("_fit_is_installed")
def test_fit_with_a_mistake_in_the_corpus_is_exit_code_2(call: Call, tmp_path: Path) -> None:
    line = [word.replace("session5", "session6") for word in FIT]
    answer = call(*line, "--model", "EarlyConcat", "--data.root", tmp_path)
    assert answer.code == 2
    assert "did you mean 'session5'?" in answer.err
    assert "Traceback" not in answer.err
