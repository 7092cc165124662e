"""The HTML page of a results folder: complete, self-contained, harmless, legible in a browser."""

import html
import itertools
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import report
from plantjax import metrics
from plantjax.jobs import InputError, summary

EVIL = "<script>alert('1')</script>&\""
BROWSER = shutil.which("chromium")


def rows(finder="snip"):
    cell = dict.fromkeys(summary.CASE, 1) | {"task": "relu", "metric": "mse", "finder": finder}
    cell |= {"recall": 0.5, "feasible_recall": 1.0, "live_density": 0.1, "constant": False}
    cell |= {"ticket_value": 1e-4, "status": "ok", "density_name": "0.1", "scope": "global"}
    cell |= {"ticket_density": 0.01, "target_value": 1e-4}
    for seed in range(3):
        for stage in ("pruned", "trained"):
            yield cell | {"seed": seed, "stage": stage, "value": 0.123456789 * (3 - seed)}


def whole():
    """A table with all columns but those of fresh samples, none of which has one value only."""
    random = np.random.default_rng(0)
    finders = ("continuous_sparsification", "edge_popup_levels_global", "rigl")
    cases = itertools.product(("circle", "relu"), finders, ("ticket/2", "0.1"), range(2))
    for task, finder, density, seed in cases:
        usual = (name for name in metrics.COLUMNS if "fresh" not in name)
        cell = {name: random.uniform(0.001) for name in usual}
        cell |= {name: 1e-5 * random.random() for name in ("value_raw", "ticket_value")}
        cell |= {"target_value": 1e-5 * random.random(), "lift": 100 * random.random()}
        cell |= {"task": task, "finder": finder, "density_name": density, "seed": seed}
        cell |= {"depth": 3 + seed, "width": 100 * (1 + seed), "noise": seed / 100}
        cell |= {"scope": ("local", "global")[seed], "rounds": 1 + seed, "metric": "mse"}
        cell |= {"kept": random.integers(9999), "collapsed": seed, "constant": seed == 1}
        cell |= {"kind": ("subnetwork", "trained")[finder == "rigl"]}
        cell |= {"rescale": ("none", "rms")[seed], "mask": f"{random.integers(2**48):012x}"}
        cell |= {"status": ("ok", "scores 0.12 not finite")[seed]}
        for stage in ("pruned", "trained"):
            yield cell | {"stage": stage, "value": random.random()}


def make(folder, finder="snip", table=None, **config):
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows(finder) if table is None else table)
    table.to_csv(folder / "results.csv", index=False)
    config = {"format": 2, "settings": {"tasks": ["relu"], "scope": None}, **config}
    (folder / "config.json").write_text(json.dumps(config))
    Image.new("RGB", (1200, 450), "white").save(folder / "figure.png")
    return folder


class Outline(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def test_page_has_figure_tables_settings_and_command(tmp_path):
    command = ["experiments/seek.py", "--tasks", "relu", "--out", "/some/where"]
    folder = make(tmp_path, command=command, device="cpu: 2", versions={"jax": "0.10.2"})
    report.main([str(folder)])
    page = Outline((folder / "report.html").read_text())
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["alt"] for image in images] == ["figure"]
    text = " ".join(page.words)
    assert "python experiments/seek.py --tasks relu" in text
    assert "/some/where" not in text
    for words in ("cpu: 2", "jax 0.10.2", "tasks", "snip", "0.1235"):
        assert words in text
    pivots, cases, all_rows = 2 * (1 + 1), 1 + 2, 1 + 6
    assert sum(tag == "tr" for tag, _ in page.tags) == pivots + cases + all_rows
    assert text.index("relu, mse, strong (masked only)") < text.index("Summary")
    assert "2.5e-1" in text
    assert "1.2e-1 to 3.7e-1" in text
    values = [a["data-v"] for tag, a in page.tags if tag == "td" and "data-v" in a]
    assert "0.123456789" in values


def test_the_page_rounds_as_the_terminal_does(tmp_path):
    """Means of thousandths are often halves of one, up to the last bits of float32."""
    random = np.random.default_rng(0)
    for index in range(20):
        table = pd.concat([pd.DataFrame(rows())] * 2).assign(metric="accuracy")
        table["value"] = (random.integers(0, 1000, len(table)) / 1000).astype(np.float32)
        _, read = report._read(make(tmp_path / str(index), table=table))
        assert summary.pivots(read) == summary.pivots(table)


def test_nothing_is_loaded_from_elsewhere_and_nothing_can_inject_code(tmp_path):
    folder = make(tmp_path / "sub", EVIL, command=[EVIL], device=EVIL, commit=EVIL)
    clean = report.page([make(tmp_path / "clean")], "title")
    text = report.page([folder], EVIL)
    assert text.count("<script>") == clean.count("<script>") == 1
    assert EVIL in " ".join(Outline(text).words)
    assert [tag for tag, _ in Outline(text).tags if tag == "script"] == ["script"]
    for tag, attributes in Outline(text).tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), tag
    assert "@import" not in text
    assert "url(" not in text


def test_a_folder_of_folders_is_one_page(tmp_path):
    for name in ("fig4", "fig3"):
        make(tmp_path / name)
    report.main([str(tmp_path), "--out", str(tmp_path / "all.html")])
    text = (tmp_path / "all.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", text) == ["fig3", "fig4"]


def test_tables_without_cases_are_shown_as_they_are(tmp_path):
    folder = make(tmp_path)
    pd.DataFrame({"width": [10, 20], "bound": [0.5, float("nan")]}).to_csv(
        folder / "results.csv", index=False
    )
    text = report.page([folder], "theorem2")
    assert "Summary" not in text
    assert 'data-v="nan"></td>' in text


def test_pages_have_filters_for_what_differs(tmp_path):
    page = Outline(report.page([make(tmp_path / "one")], "one"))
    assert [a["name"] for tag, a in page.tags if tag == "select"] == ["stage"]
    page = Outline(report.page([make(tmp_path / "many", table=whole())], "many"))
    names = [a["name"] for tag, a in page.tags if tag == "select"]
    assert names == [*report.FILTERS[:4], "depth", "width", "noise", "rescale"]
    titles = [words for words in page.words if "strong (masked only)" in words]
    assert titles[0].startswith("circle, depth 3, width 100, noise 0.0, rescale none, mse")
    assert len(titles) == 4  # two tasks at two depths
    assert any("rigl: trained during the search" in words for words in page.words)


def test_long_tables_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST_ROWS", 4)
    text = report.page([make(tmp_path)], "long")
    assert "All 6 rows, the first 4" in text
    assert sum(tag == "tr" for tag, _ in Outline(text).tags) == 2 * (1 + 1) + (1 + 2) + (1 + 4)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "FOLDER must be a folder with results"),
        (lambda folder: (folder / "results.csv").unlink(), "FOLDER must hold results.csv and"),
        (lambda folder: (folder / "config.json").write_text("{"), "results of plantjax, got"),
        (lambda folder: (folder / "config.json").write_text("[]"), "has no settings"),
        (lambda folder: (folder / "results.csv").write_text(""), "results of plantjax, got"),
        (lambda folder: (folder / "report.html").mkdir(), "--out must be a file"),
    ],
)
def test_bad_folders_are_one_line(tmp_path, spoil, message):
    folder = make(tmp_path / "results")
    spoil(folder)
    with pytest.raises(InputError, match=re.escape(message)):
        report.main([str(folder)])


PROBE = """
<iframe id=f style="width:WIDTHpx;height:900px;border:0" srcdoc="PAGE"></iframe>
<script>
document.getElementById("f").addEventListener("load", (event) => {
  const page = event.target.contentDocument;
  const wide = page.documentElement.scrollWidth > page.documentElement.clientWidth;
  for (const closed of page.querySelectorAll("details")) closed.open = true;
  const boxes = [...page.querySelectorAll(".scroll")];
  const cut = boxes.map((one) => one.scrollWidth - one.clientWidth);
  const heads = [...page.querySelectorAll("details th")];
  const column = heads.findIndex((head) => head.textContent === "value");
  const button = heads[column].firstChild;
  const first = () => page.querySelector("details tbody tr").cells[column].textContent;
  button.click(); const low = first(); button.click();
  const high = first();
  const select = page.querySelector("select[name=stage]");
  select.value = "trained";
  select.dispatchEvent(new Event("change"));
  const shown = (what) => [...page.querySelectorAll(what)].filter((one) => one.offsetParent).length;
  const left = [shown(".pivot"), shown("details tbody tr")];
  const data = {wide, cut, low, high, left, ink: getComputedStyle(page.body).color};
  document.title = JSON.stringify(data);
});
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1400])
def test_browsers_fit_sort_and_filter_the_page(tmp_path, width):
    text = html.escape(report.page([make(tmp_path / "results", table=whole())], "page"))
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", text))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [*command, "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=120
    )
    found = json.loads(html.unescape(re.search("<title>(.*?)</title>", done.stdout).group(1)))
    assert not found["wide"]
    assert width < 1400 or max(found["cut"]) <= 0
    values = [row["value"] for row in whole()]
    assert [found["low"], found["high"]] == [f"{end(values):.4g}" for end in (min, max)]
    assert found["left"] == [4, len(values) // 2]
