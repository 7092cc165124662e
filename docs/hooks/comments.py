"""What a page takes from the rest of the repository, by comments on lines of their own.

- `<!-- include FILE: HEADING -->`: the text under a heading of a Markdown file, or all of it;
- `<!-- code FILE -->`: a script;
- `<!-- registry MODULE.NAME -->`: a registry, a table and a section for every entry;
- `<!-- table MODULE.NAME -->`: the table alone;
- `<!-- files FOLDER -->`: links to the tables in a folder of docs/.
"""

import re
from collections.abc import Callable

import including
import registries

_COMMENT = re.compile(r"^<!-- (include|code|registry|table|files) (\S+?)(?:: (.*?))? -->$", re.M)

_MAKERS: dict[str, Callable[[str], str]] = {
    "code": including.code,
    "registry": registries.sections,
    "table": registries.table,
    "files": including.listed,
}


def expanded(markdown: str, add: Callable[[str], str]) -> str:
    """The Markdown of a page with its comments replaced by what they name.

    Args:
      markdown: of the page.
      add: as in `including.linked`.

    Raises:
      ValueError: if what a comment names does not exist.
    """

    def filled(match: re.Match[str]) -> str:
        kind, what, heading = match.groups()
        if kind == "include":
            return including.linked(including.section(what, heading), what, add)
        return _MAKERS[kind](what)

    return _COMMENT.sub(filled, markdown)
