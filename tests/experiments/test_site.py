"""The leaderboard's page: one file, whole, filtered and linked; the table behind it."""

import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest

import leaderboard
from plantjax import results
from plantjax.jobs import InputError
from ranking import release, scores, site

COMMAND = "experiments/leaderboard.py --budget smoke"
EVIL = "<script>alert('1')</script>"


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(scores, "RESAMPLES", 50)


def made(folder, **columns):
    cases = pd.MultiIndex.from_product(
        [["xor", "relu"], ["edge_popup", "snip", EVIL], [0, 1], ["0.5", "ticket"], site.STAGES],
        names=["task", "finder", "seed", "density_name", "stage"],
    )
    table = cases.to_frame(index=False).assign(
        metric="accuracy", ticket_value=1.0, dead_value=0.5, status="ok", seconds=1.0, **columns
    )
    table["value"] = table["finder"].map({"edge_popup": 0.75, "snip": 0.5, EVIL: 1.0})
    table["density"] = table["density_name"].map({"0.5": 0.5, "ticket": 0.01})
    table.to_csv(folder / "results.csv", index=False)
    config = {"command": COMMAND.split(), "device": EVIL, "versions": {"jax": "0.10"}}
    (folder / "config.json").write_text(json.dumps(config))
    return table


class Outline(HTMLParser):
    """Tags with attributes; checks that every tag that is opened is closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "option") and "/>" not in self.get_starttag_text():
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "option" and "/>" not in (self.get_starttag_text() or "")[-2:]:
            assert self.open.pop() == tag


def test_the_page_is_one_whole_file_with_filters_links_and_captions(tmp_path):
    made(tmp_path, ruling="tuned")
    out = tmp_path / "page.html"
    leaderboard.main(["page", str(tmp_path), "--out", str(out)])
    text = out.read_text()
    tags = Outline(re.sub(r"(?s)<svg.*?</svg>", "", text)).tags
    selects = [attributes["name"] for tag, attributes in tags if tag == "select"]
    assert selects == ["stage", "task", "density", "family"]  # one ruling needs no filter
    links = {attributes["href"] for tag, attributes in tags if tag == "a"}
    assert links == {"docs/finders.md#edge-popup", "docs/finders.md#singleshot"}
    bodies = [attributes for tag, attributes in tags if tag == "tbody"]
    assert len(bodies) == 2 * 3 * 3
    assert sum("hidden" not in attributes for attributes in bodies) == 1
    captions = re.findall(r"(?s)<figcaption>(.*?)</figcaption>", text)
    assert len(captions) == text.count("<figure>") == 4
    for caption in captions:
        for words in (f"python {COMMAND}", "seeds 0 to 1", "95% of 50 bootstrap"):
            assert words in caption
        assert ("below 0.02: snip." in caption) == ("Cost against score" in caption)
    assert text.count("<svg") == 2 + 2 * 3
    assert text.count("<script>") == 1
    assert not re.search(r"(src|href)=\"?http|url\(|@import|nan", text)
    first = re.search(r"(?s)<tbody.*?</tbody>", text)[0]
    assert re.findall(r'data-v="([\d.]+)">', first) == list(
        map(str, (1.0, 1.0, 1.0, 1.0, 0.5, 2.0, 1.0, 1.0, 0.0, 3.0, 1.0))  # the last beats none
    )


def test_finders_that_lack_cells_are_named_and_rulings_stand_apart(tmp_path):
    table = made(tmp_path)
    lacking = (table["finder"] == "snip") & (table["seed"] == 1) & (table["task"] == "xor")
    whole = pd.concat([table[~lacking].assign(ruling="tuned"), table.assign(ruling="published")])
    text = site.page(whole, "finders.md")
    assert "lack cells: snip." in text
    assert "nan" not in text
    assert '<select name="sheet"' not in text
    assert '<select name="ruling"><option>tuned</option><option>published</option>' in text


def test_sheets_are_filtered_and_pooled_apart(tmp_path):
    table = made(tmp_path, ruling="tuned")
    deep = table[table["task"] == "xor"].assign(sheet="depth 10", seed=table["seed"] + 2)
    untold = site.page(pd.concat([table, deep]), "finders.md")
    assert '<select name="sheet"><option>all mothers</option><option>depth 10</option>' in untold
    text = site.page(pd.concat([table.assign(sheet="depth 5"), deep]), "finders.md")
    assert '<select name="sheet"><option>depth 5</option><option>depth 10</option>' in text
    assert text.count('<tbody class="only" data-sheet="depth 5"') == 2 * 3 * 3
    assert text.count('<tbody class="only" data-sheet="depth 10"') == 2 * 2 * 3
    captions = re.findall(r"(?s)<figcaption>(.*?)</figcaption>", text)
    assert sum("xor seeds 2 to 3." in caption for caption in captions) == 4
    assert sum("xor seeds 0 to 1." in caption for caption in captions) == 4


def test_publishing_writes_the_table_that_makes_the_same_page(tmp_path, monkeypatch):
    made(tmp_path)
    asset = tmp_path / "asset.csv.gz"
    monkeypatch.setattr(release, "ASSET", asset)
    monkeypatch.setattr(release, "write", lambda *_: None)
    pages = [tmp_path / name for name in ("a.html", "b.html")]
    release.main([str(tmp_path), "--out", str(pages[0]), "--publish"])
    release.main([str(asset), "--out", str(pages[1])])
    assert pages[0].read_text() == pages[1].read_text()
    assert results.load(asset).attrs["command"] == f"python {COMMAND}"


def test_parts_become_one_table_in_which_later_cells_go_before_earlier(tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    table, other = (made(folder) for folder in folders)
    table[table["task"] == "xor"].to_csv(folders[0] / "results.csv", index=False)
    other.assign(value=0.625).to_csv(folders[1] / "results.csv", index=False)
    first, whole = release.read(folders[:1]), release.read(folders)
    assert len(whole) == len(other) == 2 * len(first)
    assert set(whole["value"]) == {0.625}
    assert set(release.read(folders[::-1])["value"]) == {0.5, 0.625, 0.75, 1.0}
    assert whole.attrs["command"] == f"python {COMMAND}"
    pd.concat([other, other]).to_csv(folders[1] / "results.csv", index=False)
    assert len(release.read(folders)) == 2 * len(other)  # of one source nothing is left out


def test_bad_input_is_one_line(tmp_path):
    with pytest.raises(InputError, match="SOURCES must be results of plantjax"):
        release.main([str(tmp_path)])
    made(tmp_path).drop(columns="dead_value").to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(InputError, match="must have the column dead_value"):
        release.main([str(tmp_path), "--out", str(tmp_path / "p.html")])
    with pytest.raises(InputError, match="--out must be a file"):
        release.main([str(tmp_path), "--out", str(tmp_path)])
