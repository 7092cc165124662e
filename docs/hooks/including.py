"""Text that stands elsewhere in the repository, as part of a page: sections, code, links.

Nothing is written twice. Links are those of the repository in the file, and those of the site on
the page: files without a page of their own are copied beside it.
"""

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = {
    "README.md": "index.md",
    "FINDINGS.md": "findings.md",
    "LEADERBOARD.md": "leaderboard.md",
    "SEEKER.md": "seeker.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples": "extend.md",
    "examples/cluster.md": "cluster.md",
    "docs/findings": "findings.md#tables",
}
"""Where links to the repository lead in the site."""

_LINK = re.compile(r"(^```.*?^```|`[^`\n]*`)|(\]\()([^)\s]+)(?=\))", re.MULTILINE | re.DOTALL)


def section(file: str, heading: str | None) -> str:
    """The text under a heading of a Markdown file, or all of the file.

    Args:
      file: its path in the repository.
      heading: its words; None for the whole file. The title's text ends at the next heading.

    Returns:
      The text, without the heading itself.

    Raises:
      ValueError: if there is no such heading.
    """
    text = (ROOT / file).read_text()
    if heading is None:
        return text
    found: list[str] | None = None
    level, fenced = 0, False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        marks, _, words = line.partition(" ")
        is_heading = not fenced and marks and set(marks) == {"#"}
        if found is not None and is_heading and len(marks) <= max(level, 2):
            break
        if found is not None:
            found.append(line)
        elif is_heading and words == heading:
            found, level = [], len(marks)
    if found is None:
        raise ValueError(f"heading must be one of {file}, got {heading!r}.")
    return "\n".join(found).strip("\n")


def code(file: str) -> str:
    """A script as a block of code."""
    return f"```python\n{(ROOT / file).read_text().strip()}\n```"


def listed(folder: str) -> str:
    """Links to the tables in a folder of docs/."""
    names = sorted(path.name for path in (ROOT / "docs" / folder).glob("*.csv"))
    return "\n".join(f"- [{name}]({folder}/{name})" for name in names)


def linked(text: str, file: str, add: Callable[[str], str]) -> str:
    """The text with its links changed to those of the site.

    Args:
      text: part of a Markdown file.
      file: its path in the repository; links are relative to it.
      add: takes the path of a file without a page, copies it, and returns where it is then.

    Raises:
      ValueError: if a link leads nowhere.
    """

    def changed(match: re.Match[str]) -> str:
        verbatim, start, target = match.groups()
        if verbatim or ":" in target or target.startswith("#"):
            return match[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
        if path in PAGES:
            return start + PAGES[path] + (f"#{anchor}" if anchor else "")
        if not (ROOT / path).is_file():
            raise ValueError(f"{file} must link to what there is, got {target}.")
        if path.startswith("docs/"):
            return start + path.removeprefix("docs/")
        if path.startswith("examples/"):
            return f"{start}extend.md#{Path(path).stem}"
        return start + add(path)

    return _LINK.sub(changed, text)
