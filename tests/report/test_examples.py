"""The examples run on records of their own; a notebook as the script that its cells are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_runs import consistent
from test_leaderboard import clustered

from mer_bench.records import write_record

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_notebook_of_results_draws_the_ranking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeds: int) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    for name, hits in (("a", 9), ("b", 8), ("c", 2)):
        for seed in range(seeds):
            write_record(consistent(clustered(name, seed, hits)), tmp_path / "benchmarks" / "results")
    monkeypatch.chdir(tmp_path)
    cells = json.loads((EXAMPLES / "results.ipynb").read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "results.ipynb", "exec"), names)
    axes = names["axes"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "b", "a"]  # type: ignore[attr-defined]
    assert sum(len(drawn.get_offsets()) for drawn in axes.collections if drawn.get_zorder() == 3) == 3  # type: ignore[attr-defined]
    matplotlib.pyplot.close("all")
