"""The command line: exit codes, and that every mistake is one line that says what to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_runs import record, spec
from suites import RAVDESS, Answer, Call, write_suite

from mer_bench.datasets import DATASETS
from mer_bench.fusion import METHODS
from mer_bench.records import Training, load_records, read_record, write_record
from mer_bench.report.cache import FOLDER

BOTH = 'audio = "simulated-audio", vision = "simulated-vision"'


def assert_one_sentence(answer: Answer, part: str = "") -> None:
    """Assert that the exit code is 2 and that nothing but one line of error with ``part`` was written."""
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("error: ")
    assert part in answer.err
    assert answer.err.count("\n") == 1


# In a process of its own


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        (["--help"], [f"\n  {name} " for name in ("bench", "run", "fit", "leaderboard", "verify", "list")]),
        (["list", "methods", "--json"], METHODS),
    ],
)
def test_help_and_the_list_of_methods_need_no_torch(line: list[str], printed: Iterable[str]) -> None:
    code = (
        "import sys; sys.argv[0] = 'mer-bench'\n"
        "from mer_bench.cli import main\n"
        "try: main()\n"
        "except SystemExit as left: print('code', left.code, 'torch' in sys.modules, 'lightning' in sys.modules)\n"
    )
    command = [sys.executable, "-c", code, *line]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "code 0 False False" in finished.stdout
    assert all(each in finished.stdout for each in printed)


@pytest.mark.parametrize("line", [["verify", "--data", "nowhere"], ["bnch"], ["leaderboard", "--chekc"]])
def test_misuse_of_the_installed_command_is_exit_code_2_and_one_line(line: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mer_bench", *line]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert_one_sentence(Answer(finished.returncode, finished.stdout, finished.stderr))


# In this process


RUN = f"run --dataset {RAVDESS} --method"


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("bnch", "unknown command 'bnch': did you mean 'bench'?"),
        ("lederboard", "unknown command 'lederboard': did you mean 'leaderboard'?"),
        ("bench nosuch/suite.toml", "unknown suite in nosuch 'suite'"),
        ("bench", "Missing argument"),
        ("bench {folder}/suite.toml --seeds x", "--seeds takes whole numbers such as '0 1 2', not 'x'"),
        ("bench {folder}/suite.toml --jobs 0", "0 is not in the range"),
        ("bench {folder}/suite.toml --corpus rael", "'rael' is not one of"),
        ("run --method majority", "run needs --dataset and --method, or --spec"),
        ("run --dataset simulated-ravdes --method majority", "did you mean 'simulated-ravdess'?"),
        (f"{RUN} majorty", "did you mean 'majority'?"),
        (f"{RUN} majority --fold 9", "has folds 1 to 6, not 9"),
        (f"{RUN} majority --feature audio", "takes NAME=VALUE, not 'audio'"),
        (f"{RUN} majority --feature audi=x", "did you mean 'audio'?"),
        (f"{RUN} majority --feature audio=x", "no feature set 'x'"),
        (f"{RUN} early_concat --option hiden=3", "did you mean 'hidden'?"),
        (f"{RUN} early_concat --option hidden=-3", "hidden of early_concat must be a whole number from 1 on, not -3"),
        (f"{RUN} majority --train epoch=3", "did you mean 'epochs'?"),
        (f"{RUN} majority --train epochs=soon", "epochs must be a whole number, not 'soon'"),
        ("run --dataset ravdess --method majority", "no feature set 'mfcc'"),
        ("run --spec {folder}/suite.toml", "is not the description of a run"),
        ("run --spec {folder}/list.json", "its content must be a mapping, not [1]"),
        ("list method", "'method' is not one of"),
        ("verify --dataset meld", "no feature set at"),
    ],
)
def test_a_mistake_is_one_sentence_that_says_what_is_wrong(
    call: Call, root: Path, tmp_path: Path, line: str, part: str
) -> None:
    write_suite(tmp_path / "suite.toml", features=BOTH, methods='"majority"')
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    words = [word.format(folder=tmp_path) for word in line.split()]
    answer = call(*words, *(["--data", root] if words[0] in ("run", "verify", "bench") else []))
    assert_one_sentence(answer, part)


def test_leaderboard_check_fails_unless_the_page_is_what_the_records_give(call: Call, tmp_path: Path) -> None:
    write_record(record(spec("unimodal")), tmp_path)
    absent = call("leaderboard", "--check", "--results", tmp_path)
    assert absent.code == 1
    assert "does not exist" in absent.err
    assert call("leaderboard", "--results", tmp_path).code == 0
    (path,) = (tmp_path / "tables").glob("*-*.md")
    page = path.read_text(encoding="utf-8")
    assert "unimodal" in page
    assert call("leaderboard", "--check", "--results", tmp_path).code == 0

    path.write_text(page.replace("unimodal", "multimodal", 1), encoding="utf-8")
    edited = call("leaderboard", "--check", "--results", tmp_path)
    assert edited.code == 1
    assert edited.err.startswith(f"error: {path} is not what the records say")
    assert "multimodal" in path.read_text(encoding="utf-8"), "a check writes nothing"

    path.write_text(page, encoding="utf-8")
    write_record(record(spec("unimodal", 1)), tmp_path)
    assert call("leaderboard", "--check", "--results", tmp_path).code == 1


def test_an_unreadable_record_is_a_warning_and_the_others_are_shown(call: Call, tmp_path: Path) -> None:
    write_record(record(spec("unimodal")), tmp_path)
    whole = write_record(record(spec("unimodal", 1)), tmp_path)
    broken = whole.with_name("torn.json")
    broken.write_text(whole.read_text(encoding="utf-8")[:200], encoding="utf-8")
    whole.rename(moved := whole.with_name("moved.json"))
    answer = call("leaderboard", "--results", tmp_path)
    assert answer.code == 0
    assert [line.partition(": ")[0] for line in answer.err.splitlines()] == ["warning", "warning"]
    assert f"{broken} is not a readable record" in answer.err
    assert f"{moved} holds another run than its path says" in answer.err
    (page,) = (tmp_path / "tables").glob("*-*.md")
    assert "unimodal" in page.read_text(encoding="utf-8")


def test_verify_finds_a_flipped_byte(call: Call, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / RAVDESS, tmp_path / RAVDESS)
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


def test_one_method_is_described_with_paper_and_options(call: Call) -> None:
    text = call("list", "methods", "cfn_sr").out
    assert text.startswith("cfn_sr: CFN-SR: ")
    for part in ("https://arxiv.org/abs/2111.02172", "  hidden = 64\n", "26,301,417 parameters"):
        assert part in text
    content = json.loads(call("list", "methods", "cfn_sr", "--json").out)
    assert (content["title"], content["track"], content["options"]["scale"]) == ("CFN-SR", "utterance", False)
    assert_one_sentence(call("list", "methods", "tacfm"), "unknown method 'tacfm': did you mean 'tacfn'?")


def test_one_dataset_is_described_alone(call: Call, root: Path) -> None:
    described = json.loads(call("list", "datasets", "meld", "--json", "--data", root).out)
    modalities, label_sets = ["text", "audio", "vision"], ["seven", "four", "sentiment"]
    rest = {"label sets": label_sets, "protocols (folds)": ["official (1)"], "prepared": "no"}
    assert described == {"meld": {"modalities": modalities, **rest}}
    assert "did you mean 'meld'?" in call("list", "datasets", "medl", "--data", root).err


def test_run_takes_the_usual_features_and_its_record_runs_again_as_a_spec(
    call: Call, root: Path, tmp_path: Path
) -> None:
    options = ["--data", root, "--results", tmp_path / "results", "--logger", "none"]
    answer = call("run", "--dataset", RAVDESS, "--method", "majority", "--seed", "3", *options)
    assert (answer.code, answer.err) == (0, "")
    path = Path(answer.out.strip())
    first = read_record(path)
    assert first.spec.features == {"audio": "simulated-audio", "vision": "simulated-vision"}
    assert (first.spec.label_set, first.spec.protocol, first.spec.seed) == ("eight", "folds6", 3)

    (tmp_path / "spec.json").write_bytes(path.read_bytes())
    path.unlink()
    again = call("run", "--spec", tmp_path / "spec.json", *options)
    assert again.out.strip() == str(path)
    times = {"seconds": 0.0, "peak_memory_mib": 0.0}
    assert replace(read_record(path), **times) == replace(first, **times)


def test_options_of_run_are_toml_values(call: Call, root: Path, tmp_path: Path) -> None:
    choice = ["run", "--dataset", RAVDESS, "--method", "unimodal", "--feature", "vision=simulated-vision"]
    options = ["--option", "hidden=4", "--option", "dropout=0.5", "--train", "epochs=1", "--train", "batch_size=64"]
    answer = call(*choice, *options, "--data", root, "--results", tmp_path, "--logger", "none")
    assert answer.code == 0, answer.err
    found = read_record(Path(answer.out.strip())).spec
    assert found.features == {"vision": "simulated-vision"}
    assert found.options == {"hidden": 4, "dropout": 0.5}
    assert found.training == Training(epochs=1, batch_size=64)


@pytest.mark.parametrize("line", ["run", "leaderboard"])
def test_a_folder_that_cannot_be_written_is_one_sentence(call: Call, root: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    rest = ["--dataset", RAVDESS, "--method", "majority", "--data", root, "--logger", "none"] if line == "run" else []
    answer = call(line, *rest, "--results", tmp_path / "file" / "results")
    assert_one_sentence(answer, "error: cannot write ")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"


# Benches


@pytest.mark.usefixtures("_workers_are_this_process")
def test_without_the_real_corpus_a_bench_warns_and_runs_the_simulated_one(
    call: Call, root: Path, tmp_path: Path
) -> None:
    features = 'audio = "mfcc", vision = "landmarks"'
    suite = write_suite(tmp_path / "suite.toml", "ravdess", seeds=[0, 1], features=features, methods='"majority"')
    results = tmp_path / "results"
    options = ["--data", root, "--results", results, "--logger", "none"]

    refused = call("bench", suite, *options, "--corpus", "real")
    assert refused.code == 2
    assert refused.err == f"error: ravdess is not prepared below {root}: {DATASETS['ravdess'].how_to_prepare()}\n"
    assert not results.exists()

    answer = call("bench", suite, *options)
    assert answer.code == 0, answer.err
    for part in ("RAVDESS IS NOT PREPARED BELOW", "make data DATASET=ravdess", "SIMULATED"):
        assert part in answer.err
    records, problems = load_records(results)
    assert not problems
    assert [(r.spec.dataset, r.simulated, r.spec.seed) for r in records] == [(RAVDESS, True, 0)] * 6
    assert sorted(path.name for path in results.iterdir()) == [FOLDER, "leaderboard.md", RAVDESS, "tables"]
    page = (results / "leaderboard.md").read_text(encoding="utf-8")
    assert "## Simulated corpora" in page
    assert page.index("## Simulated corpora") < page.index("## All other tables")
    assert "(simulated)" in answer.out
    assert "majority" in answer.out

    wanted = call("bench", suite, *options, "--corpus", "simulated")
    assert wanted.code == 0
    assert "NOT PREPARED" not in wanted.err
    assert "6 runs: 6 recorded, 0 to do" in wanted.err


@pytest.mark.usefixtures("_workers_are_this_process")
def test_a_failed_run_is_noted_the_others_are_done_and_the_exit_code_is_1(
    call: Call, root: Path, tmp_path: Path
) -> None:
    methods = '{ name = "early_concat", options = { hidden = 4 }, training = { learning_rate = 1e30 } }, "majority"'
    suite = write_suite(tmp_path / "suite.toml", training="epochs = 1", features=BOTH, methods=methods)
    suite.write_text(suite.read_text().replace("folds6", "fixed"), encoding="utf-8")
    results = tmp_path / "results"
    options = ["--data", root, "--results", results, "--logger", "none"]
    answer = call("bench", suite, "--seeds", "5", "--shard", "1/3", *options)  # two of six folds
    assert answer.code == 1
    assert "Traceback" not in answer.err
    assert "2 of 4 runs failed; the next bench tries them again" in answer.err
    records, problems = load_records(results)
    assert not problems
    assert [record.spec.method for record in records] == ["majority"] * 2
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in results.rglob("*.failed.json")]
    assert [note["spec"]["method"] for note in notes] == ["early_concat"] * 2
    assert {note["spec"]["seed"] for note in notes} == {5}
    assert all("epoch" in note["reason"] for note in notes)
    assert "majority" in answer.out


# LightningCLI


FIT = [
    *["fit", "--data", "SimulatedIEMOCAP", "--data.label_set", "six", "--data.protocol", "session5", "--data.features"],
    '{"text": "simulated-text", "audio": "simulated-audio"}',
    *["--trainer.max_epochs", "1", "--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"],
    *["--trainer.enable_progress_bar", "false"],
]


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
    call: Call, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, context: str
) -> None:
    monkeypatch.chdir(tmp_path)
    model_options = ["--model", model, "--model.hidden", "8", "--data.context", context, "--data.root", str(root)]
    answer = call(*FIT, *model_options)
    assert answer.code == 0, answer.err
    assert "Trainable params" in answer.out
    assert "head" in answer.out
    assert (root / "simulated-iemocap" / "utterances.csv").is_file()  # generated on first use


@pytest.mark.usefixtures("_fit_is_installed")
@pytest.mark.parametrize(
    ("model", "protocol", "part"),
    [("EarlyConct", "session5", "EarlyConct"), ("EarlyConcat", "session6", "did you mean 'session5'?")],
)
def test_fit_with_a_mistake_is_exit_code_2(call: Call, tmp_path: Path, model: str, protocol: str, part: str) -> None:
    line = [word.replace("session5", protocol) for word in FIT]
    answer = call(*line, "--model", model, "--data.root", tmp_path)
    assert answer.code == 2
    assert part in answer.err
    assert "Traceback" not in answer.err
