"""One run on two machines: two network namespaces of this machine with a virtual network, and no shared results."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from suites import Workspace, spec_of, train, write_suite

from mer_bench.records import RunSpec, load_records, read_record
from mer_bench.training.build import build_datamodule
from mer_bench.training.options import Hardware

ADDRESSES = ("10.77.77.1", "10.77.77.2")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[str, str]]:
    """The names of two namespaces with one network between them."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("namespaces need root and iproute2")
    names = (f"mer{os.getpid()}a", f"mer{os.getpid()}b")
    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no namespaces here: {error.stderr.decode().strip()}")
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            for link in ("lo", "cable"):
                ip("-n", name, "link", "set", link, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def launch(launcher: str, number: int, workspace: Workspace, spec: RunSpec) -> tuple[list[str], dict[str, str]]:
    """Return the command of docs/many_machines.md on machine ``number``, and its environment variables."""
    file = workspace.suite.with_name("spec.json")
    file.write_text(json.dumps(asdict(spec)), encoding="utf-8")
    line = ["-m", "mer_bench", "run", "--spec", str(file), *workspace.options]
    if launcher == "torchrun":
        rendezvous = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(number)]
        rendezvous += ["--master-addr", ADDRESSES[0], "--master-port", "29511"]
        return [sys.executable, "-m", "torch.distributed.run", *rendezvous, *line], {}
    if launcher == "srun":  # It is not installed here; these are the variables that it sets.
        names = {"NTASKS": 2, "NTASKS_PER_NODE": 1, "NNODES": 2, "PROCID": number, "NODEID": number, "LOCALID": 0}
        names |= {"JOB_ID": 4711, "JOB_NAME": "mer", "NODELIST": "10.77.77.[1-2]"}
        return [sys.executable, *line], {f"SLURM_{name}": str(value) for name, value in names.items()}
    line = ["-m", "mer_bench", *workspace.bench("--num-nodes", "2", "--strategy", "ddp", "--shard", "1/6")]
    return [sys.executable, *line], {"MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": "29512", "NODE_RANK": str(number)}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("launcher", ["torchrun", "lightning", "srun"])
def test_two_machines_score_as_one_device_count_each_utterance_once_and_the_first_alone_records(
    hosts: tuple[str, str], root: Path, tmp_path: Path, launcher: str
) -> None:
    rows = len(build_datamodule(spec_of(root), root).rows["train"])
    assert rows % 2 == 0
    training = f"epochs = 3\nbatch_size = {rows // 2}\nlearning_rate = 2e-2"
    methods = '{ name = "unimodal", options = { hidden = 8, dropout = 0.0 } }'
    suite = write_suite(tmp_path / "suite.toml", training=training, methods=methods)
    spec, *other_folds = Workspace(suite, root, tmp_path).specs(Hardware(num_nodes=2, strategy="ddp"))
    assert len(other_folds) == 5
    alone = replace(spec, training=replace(spec.training, batch_size=rows), num_nodes=1, strategy="auto")
    processes = []
    for number, host in enumerate(hosts):
        folder = tmp_path / f"machine{number}"
        (folder / "tmp").mkdir(parents=True)
        command, more = launch(launcher, number, Workspace(suite, root, folder / "results"), spec)
        environment = os.environ | more | {"GLOO_SOCKET_IFNAME": "cable", "TMPDIR": str(folder / "tmp")}
        command = ["ip", "netns", "exec", host, *command]
        with (folder / "log").open("wb") as log:
            processes.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
    try:
        codes = [process.wait(800) for process in processes]
    finally:
        for process in processes:
            process.kill()
    logs = [(tmp_path / f"machine{number}" / "log").read_text() for number in range(2)]
    assert codes == [0, 0], "\n".join(logs)
    assert load_records(tmp_path / "machine1" / "results") == ([], [])
    (path,) = (tmp_path / "machine0" / "results").glob("*/*/*.json")
    both, one = read_record(path), train(alone, root)
    assert both.spec == spec
    assert both.test_index == one.test_index
    assert np.sum(both.validation_confusion) == one.rows["validation"]
    losses = [[entry["train/loss"] for entry in record.curve] for record in (both, one)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert losses[1][-1] < 0.99 * losses[1][0]
    assert np.mean(np.array(both.test_predictions) != one.test_predictions) < 0.01
