"""The HTML page of a results folder: complete, self-contained, harmless, legible in a browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pandas as pd
import pytest
from PIL import Image

import report
from plantjax.jobs import InputError, summary

EVIL = "<script>alert('1')</script>&\""
BROWSER = shutil.which("chromium")


def rows(finder="snip"):
    cell = dict.fromkeys(summary.CASE, 1) | {"task": "relu", "metric": "mse", "finder": finder}
    cell |= {"recall": 0.5, "feasible_recall": 1.0, "live_density": 0.1, "constant": False}
    cell |= {"ticket_value": 1e-4, "status": "ok", "density_name": "0.1", "scope": "global"}
    for seed in range(3):
        for stage in ("pruned", "trained"):
            yield cell | {"seed": seed, "stage": stage, "value": 0.123456789 * (3 - seed)}


def make(folder, finder="snip", **config):
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows(finder))
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
    assert sum(tag == "tr" for tag, _ in page.tags) == (1 + 2) + (1 + 6)  # summary, all rows
    values = [a["data-v"] for tag, a in page.tags if tag == "td" and "data-v" in a]
    assert "0.123456789" in values


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


def test_long_tables_are_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST_ROWS", 4)
    text = report.page([make(tmp_path)], "long")
    assert "All 6 rows, the first 4" in text
    assert sum(tag == "tr" for tag, _ in Outline(text).tags) == (1 + 2) + (1 + 4)


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
  const heads = [...page.querySelectorAll("details th")];
  const column = heads.findIndex((head) => head.textContent === "value");
  const button = heads[column].firstChild;
  const first = () => page.querySelector("details tbody tr").cells[column].textContent;
  button.click(); const low = first(); button.click();
  const data = {wide, low, high: first(), ink: getComputedStyle(page.body).color};
  document.title = JSON.stringify(data);
});
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1440])
def test_browsers_fit_and_sort_the_page(tmp_path, width):
    text = html.escape(report.page([make(tmp_path / "results")], "page"))
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
    assert (found["low"], found["high"]) == ("0.1235", "0.3704")
