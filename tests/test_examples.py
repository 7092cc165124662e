"""The examples run, and what they show is so."""

import re
import runpy
import sys

import jax
import pandas as pd
import pytest

import plantjax as pj
import scripting
from scripting import cache

__all__ = ["cache"]

EXAMPLES = scripting.ROOT / "examples"


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs an example and returns its lines; what it registered is forgotten."""

    def lines(name, *words):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    with scripting.restored():
        yield lines


@pytest.mark.slow
def test_own_network(run):
    found = [
        re.fullmatch(r"(\w+): (\w+) keeps (\d+), accuracy ([\d.]+)", line).groups()
        for line in run("own_network")
    ]
    assert [row[:2] for row in found] == [
        (network, ticket)
        for network in ("module", "list")
        for ticket in ("planted", "synflow", "edge_popup")
    ]
    for network, ticket, kept, accuracy in found:
        assert ticket != "planted" or float(accuracy) == 1.0, network
        assert int(kept) > 0


@pytest.mark.slow
def test_own_target(run):
    found = dict(line.split(": strong ") for line in run("own_target"))
    assert list(found) == ["planted", "synflow100", "edge_popup_global"]
    strong = {name: float(words.split(",")[0]) for name, words in found.items()}
    assert strong["planted"] < 2e-4  # the variance of the noise is 1e-4
    assert strong["edge_popup_global"] < 0.5 * strong["synflow100"]


@pytest.mark.slow
def test_own_finder(run):
    lines = [re.fullmatch(r"best of (\d+): mse (\S+), (\S+)", line) for line in run("own_finder")]
    assert [line[1] for line in lines] == ["1", "16", "256"]
    for column in (2, 3):
        errors = [float(line[column]) for line in lines]
        assert errors[2] < errors[0]


@pytest.mark.slow
def test_own_score(run, monkeypatch):
    """Beside one score and on two tasks, since all on all take minutes."""
    monkeypatch.setattr(pj.scores, "PAPER_SCORES", ("magnitude",))
    for name in set(pj.TASKS) - {"relu", "xor"}:
        del pj.TASKS[name]
    table = "\n".join(run("own_score"))
    assert (table.count("activity"), table.count("magnitude")) == (2, 2)
    assert "nan" not in table.lower()


@pytest.mark.slow
def test_own_metric(run):
    found = dict(line.split(": strong ") for line in run("own_metric"))
    distances = {name: [float(n) for n in words.split(", weak ")] for name, words in found.items()}
    assert list(distances) == ["planted", "synflow", "edge_popup_global"]
    assert distances["planted"][0] < 1e-6
    assert distances["edge_popup_global"][0] < 0.5 * distances["synflow"][0]
    assert all(0.0 <= number <= 1.0 + 1e-6 for pair in distances.values() for number in pair)


@pytest.mark.slow
def test_compose(run):
    found = [re.findall(r"[\d.]+", line) for line in run("compose")]
    assert [row[0] for row in found] == ["0.1", "0.3", "1"]
    assert all(0.0 < float(row[i]) <= 1.0 for row in found for i in (1, 3))
    assert float(found[-1][3]) > 0.8


@pytest.mark.slow
def test_optax_one_line(run):
    form = re.compile(r"(.+): accuracy ([\d.]+) at density ([\d.]+)")
    with jax.numpy_dtype_promotion("standard"):  # optax does not run under "strict"
        lines = run("optax_one_line")
    found = {row[1]: row.groups()[1:] for row in map(form.fullmatch, lines)}
    accuracy, density = ({name: float(row[i]) for name, row in found.items()} for i in (0, 1))
    assert list(found) == ["dense", "gradual", "2:4", "RigL"]
    assert (density["gradual"], density["RigL"]) == (0.1, 0.1)
    assert 0.5 < density["2:4"] < 0.6  # biases and norms have one input, and stay
    assert min(accuracy.values()) > accuracy["dense"] - 0.05


@pytest.mark.slow
def test_own_script(run, tmp_path):
    first = run("own_script", str(tmp_path / "run"))
    assert any("snip" in line for line in first)
    table = pd.read_csv(tmp_path / "run" / "results.csv")
    assert set(table["finder"]) == {"snip", "synflow", *pj.REFERENCES}
    chunks = scripting.contents(tmp_path / "run" / "chunks")
    assert run("own_script", str(tmp_path / "run")) == first
    assert scripting.contents(tmp_path / "run" / "chunks") == chunks
    assert (tmp_path / "run" / "figure.png").stat().st_size > 10_000


@pytest.mark.slow
def test_nnx_module(run):
    lines = [
        re.fullmatch(r"(\w+): keeps (\d+) of (\d+), accuracy ([\d.]+)", line).groups()
        for line in run("nnx_module")
    ]
    assert [line[0] for line in lines] == ["magnitude", "snip", "synflow"]
    for _, kept, size, accuracy in lines:
        assert (int(kept), int(size)) == (290, 2904)
        assert float(accuracy) > 0.85


@pytest.mark.slow
def test_equinox_module(run):
    pytest.importorskip("equinox")
    lines = [
        re.fullmatch(r"(\w+): (\d+) of (\d+) are zero, accuracy ([\d.]+)", line).groups()
        for line in run("equinox_module")
    ]
    assert [line[0] for line in lines] == ["planted", "synflow", "edge_popup_global"]
    assert len({line[1:3] for line in lines}) == 1
    accuracies = [float(line[3]) for line in lines]
    assert accuracies[0] > 0.95
    assert accuracies[2] > 0.5


@pytest.mark.slow
def test_to_pytorch(run):
    pytest.importorskip("torch")
    pruned, compact = (
        re.fullmatch(r"\w+: widths \[(\d+), (\d+), 4\], differs by at most (\S+)", line).groups()
        for line in run("to_pytorch")
    )
    assert pruned[:2] == ("60", "60")
    assert max(int(width) for width in compact[:2]) < 40
    assert max(float(error) for error in (pruned[2], compact[2])) < 1e-3


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_short(path):
    assert len(path.read_text().splitlines()) < 60
