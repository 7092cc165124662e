"""Tickets in a tiny VGG on real digits: the table, resuming after a kill, planting, bad input."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import paper
import scripting
import vgg
from images import plan
from images.groups import ImageGroup
from images.sources import SOURCES
from plantjax.finders import FINDERS
from plantjax.jobs import InputError, cli, folder
from plantjax.jobs.checkpoints import Checkpoint
from plantjax.nets import convnets

BLOCKS = ((32,), (64,))  # in place of VGG11's, which takes minutes to compile
SMALL = {"width": 0.25, "ticket_density": "0.3", "samples": 640, "epochs": 6, "learning_rate": 0.01}
TINY = ["--budget", "smoke", "--seeds", "2"]
TINY += [word for k, v in SMALL.items() for word in (f"--{k.replace('_', '-')}", str(v))]
POPUP = "edge_popup_levels"
"""Of the finders of strong tickets one, as the other differs in its scope alone."""


@pytest.fixture(autouse=True, scope="module")
def small_vgg():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(convnets.VGGS, 11, BLOCKS)
        patch.setattr(plan, "POPUPS", (POPUP,))
        yield


@pytest.fixture(scope="module")
def finished(cache: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vgg") / "run"
    vgg.main([*TINY, "--out", str(folder)])
    return folder


@pytest.mark.slow
def test_a_run_writes_table_settings_and_figure(finished: Path) -> None:
    rows = scripting.table(finished)
    plain, planted = (rows[rows["mother"] == name] for name in ("plain", "planted"))
    assert set(plain["finder"]) == {"multishot_synflow", "dense", "magnitude"}
    assert set(plain["stage"]) == {"pruned", "trained"}
    assert set(planted["finder"]) == {"planted", POPUP}
    assert set(planted["stage"]) == {"pruned"}
    assert len(rows) == 2 * (3 * 2 + 2)
    assert set(rows["status"]) == {"ok"}
    network = convnets.vgg(11, 0.25)
    n = sum(9 * i * o + o for i, o in ((1, 8), (8, 16))) + 16 * 10 + 10
    for finder, density in (("magnitude", 0.5), ("multishot_synflow", 0.3)):
        assert set(rows.loc[rows["finder"] == finder, "kept"]) == {int(density * n + 0.5)}
    assert network.module.blocks == ((8,), (16,))
    config = json.loads((finished / "config.json").read_text())
    assert config["settings"]["data"] == "mnist5k"
    assert "data_dir" not in config["settings"]
    assert (finished / "figure.png").read_bytes()[:4] == b"\x89PNG"
    levels = pd.read_csv(finished / "levels.csv")
    assert set(levels["finder"]) == {"multishot_synflow", POPUP}
    assert set(levels.groupby(["finder", "seed"]).size()) == {2}
    assert not list((finished / "levels").iterdir())  # searches under way: none


@pytest.mark.slow
def test_the_planted_ticket_is_as_good_as_the_trained_one(finished: Path) -> None:
    rows = scripting.table(finished)
    trained = rows[(rows["finder"] == "multishot_synflow") & (rows["stage"] == "trained")]
    planted = rows[rows["finder"] == "planted"]
    wanted = trained.set_index("seed")["value"]
    assert wanted.mean() > 0.2
    for column in ("value", "ticket_value", "target_value"):
        np.testing.assert_allclose(planted.set_index("seed")[column], wanted, atol=0.001)
    np.testing.assert_array_equal(planted["recall"], 1.0)
    kept = trained.set_index("seed")["kept"]
    assert (planted.set_index("seed")["kept"] <= kept).all()  # what was dead is left out
    plain = rows[rows["mother"] == "plain"]
    np.testing.assert_array_equal(plain["ticket_value"], wanted[plain["seed"]])
    assert plain["recall"].isna().all()  # nothing is planted there
    assert plain["live_density"].notna().all()


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_figure_5_is_the_same(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vgg.main([*TINY, "--out", str(finished)])
    shown = capsys.readouterr().out
    assert "nothing was computed" in shown
    assert shown.count("planted") >= 4
    assert "popup_levels" in shown
    monkeypatch.setitem(plan.BUDGETS, "smoke", plan.BUDGETS["smoke"] | SMALL)
    paper.main(["fig5", "--budget", "smoke", "--seeds", "2", "--out", str(tmp_path)])
    found, wanted = scripting.table(tmp_path), scripting.table(finished)
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    assert len(pd.read_csv(tmp_path / "summary.csv")) == 8
    assert json.loads((tmp_path / "config.json").read_text())["settings"]["name"] == "fig5"


class StopError(Exception):
    """Ends a search after a level, as a kill would."""


@pytest.mark.slow
def test_what_is_missing_is_computed_again_and_searches_go_on_between_levels(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the chunk of the tickets, the cells that need them make them anew."""
    out = Path(shutil.copytree(finished, tmp_path / "run"))
    for chunk in folder.load(finished):
        if chunk.labels["finder"][0] in ("multishot_synflow", "planted", "edge_popup_levels"):
            (out / "chunks" / f"{folder.name_of(chunk.ids)}.npz").unlink()
    assert len(list((out / "chunks").iterdir())) == 2
    groups = cli.parse(vgg.Settings, TINY, "vgg.py").plan().groups()
    (planted,) = [group.at(out) for group in groups if group.finder == "planted"]
    values = planted.compute(planted.cells(), 2).results["pruned/value"]
    wanted = scripting.table(finished)
    np.testing.assert_allclose(values, wanted.query("finder == 'planted'")["value"], rtol=1e-6)
    save, levels = Checkpoint.save, []

    def stopping(self: Checkpoint, level: int, tree: object) -> None:
        save(self, level, tree)
        levels.append(level)
        if len(levels) in (1, 3):
            raise StopError

    monkeypatch.setattr(Checkpoint, "save", stopping)
    for _ in range(2):
        with pytest.raises(StopError):
            vgg.main([*TINY, "--out", str(out)])
        assert list((out / "levels").iterdir())
    vgg.main([*TINY, "--out", str(out)])
    assert levels == [1, 2, 1, 2]  # of the tickets, of edge-popup: no level twice
    pd.testing.assert_frame_equal(scripting.table(out), wanted, check_exact=True)


BAD = {
    "--data nowhere": "--data must be one of mnist5k, .*cifar10.*, got 'nowhere'",
    "--data cifar10": "cifar10 needs a folder that holds data_batch_1, .*got folder=None",
    "--data-dir {tmp}": r"mnist5k expects the file .*mnist_5k\.csv\.gz, which does not exist",
    "--data cifar100 --data-dir {tmp}": r"cifar100 expects in .*: train, test .*train\.bin",
    "--depth 12": "--depth must be one of 11, 13, 16, 19, .*got 12",
    "--width 0": "--width must lie in",
    "--finders guess": "--finders must be one of random, .*got 'guess'",
    "--densities 1.5": r"--densities .*\(0, 1\].*1.5",
    "--densities ticket": r"--densities must be numbers in \(0, 1\], got 'ticket'",
    "--popup-densities 0": r"\(0, 1\]",
    "--ticket-density much": "much",
    "--seeds 0": "--seeds must be an integer of at least 1",
    "--first-seed -1": "--first-seed must be",
    "--epochs 0": "--epochs must be an integer of at least 1",
    "--popup-epochs 0": "--popup-epochs must be an integer of at least 1",
    "--samples 63": "--samples must be an integer of at least 64, got 63",
    "--learning-rate nan": "--learning-rate",
    "--budget huge": "full",
    "--colour red": "--colour",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_names_argument_value_and_allowed(words: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = words.format(tmp=tmp_path).split()
    with pytest.raises(InputError, match=BAD[words]):
        vgg.main([*given, "--out", str(out)])
    assert not out.exists()


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    vgg.main(["--list"])
    shown = capsys.readouterr().out.replace("\n", " ").replace(",", " ").split()
    assert set(shown) >= {*SOURCES, *FINDERS}


@pytest.mark.parametrize("words", [["--data", "cifar10"], ["--data-dir", "."]])
def test_image_data_goes_with_figure_5(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{words[0]} goes with fig5"):
        paper.main(["fig3", *words, "--out", str(tmp_path / "out")])
    with pytest.raises(InputError, match=r"cifar10 needs|mnist5k expects"):
        paper.main(["fig5", *words, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_full_plan_is_the_papers() -> None:
    full = plan.plan("full", data="cifar10")
    groups = {(group.finder, group.mother): group for group in full.groups()}
    popup = groups["edge_popup_levels", "planted"]
    assert isinstance(popup, ImageGroup)
    assert (popup.depth, popup.width, len(popup.seeds)) == (16, 1.0, 3)
    assert [name for name, _ in popup.densities] == ["0.01", "0.05", "0.1", "0.2", "0.5"]
    run = popup.run
    assert (run.finder.scope, run.finder.rounds, popup.static["level_epochs"]) == ("layer", 5, 50)
    assert SOURCES["cifar10"].batch_size == 128
    tickets = [group for group in full.groups() if group.finder == "multishot_synflow"]
    assert [len(group.densities) for group in tickets] == [1, 4]  # 0.01 is the target itself
    assert {f"{p}{name}" for p in ("", "multishot_") for name in ("snip", "grasp", "synflow")} <= {
        group.finder for group in full.groups()
    }


def test_figure_of_all_finders(tmp_path: Path) -> None:
    full = plan.plan("full")
    rows = [
        {
            **{"mother": group.mother, "finder": group.finder, "stage": stage, "seed": seed},
            **{"density": value, "density_name": name, "metric": "accuracy", "value": 0.9 * value},
            **{"constant": False, "ticket_value": 0.9, "ticket_density": 0.01},
        }
        for group in full.groups()
        for name, value in group.densities
        for seed in (0, 1)
        for stage in ("pruned", "trained")
    ]
    plan.draw(pd.DataFrame(rows), tmp_path / "figure.png", full.about())
    assert (tmp_path / "figure.png").stat().st_size > 20_000
