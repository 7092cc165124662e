"""What MkDocs calls while it builds the site: pages that have no file, and comments in pages."""

import comments
import including
import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

WHOLE = ("LEADERBOARD.md", "SEEKER.md", "CHANGELOG.md", "SECURITY.md")
"""Files that are pages as they are."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the API reference at the end of the navigation."""
    assert config.nav is not None
    config.nav.append({"API reference": reference.nav()})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that have no file in docs/."""
    whole = {including.PAGES[name]: f"<!-- include {name} -->\n" for name in WHOLE}
    for name, content in (whole | reference.pages()).items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fills in what the comments of a page ask for."""
    del page

    def add(path: str) -> str:
        if files.get_file_from_path(path) is None:
            source = str(including.ROOT / path)
            files.append(File.generated(config, path, abs_src_path=source))
        return path

    return comments.expanded(markdown, add)
