"""What MkDocs needs to make a site of pages that are written for GitHub. Pure, except for the two events at the end.

- Pages of the repository that are not in docs/ are in the site too.
- A link to a page leads to its place in the site. One to a file that is not in the site becomes its text.
- Headings have the same anchors as on GitHub.
- A list needs no blank line before it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Pages outside docs/, and where they are in the site.
PAGES = {
    "README.md": "index.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "bench/README.md": "benchmark/method.md",
}
_FENCED = re.compile(r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)[ \t]*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")
_HTML = re.compile(r"""\b(?P<name>src|srcset)="(?P<target>[^"\s]+)\"""")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|#")
_ITEM = re.compile(r"(?:[-*+]|\d+\.) ")


def place_of(path: str) -> str | None:
    """Where a file of the repository is in the site."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def outside_code(page: str, change: Callable[[str], str]) -> str:
    """The page with everything changed but its blocks of code."""
    parts, at = [], 0
    for block in _FENCED.finditer(page):
        parts += [change(page[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*parts, change(page[at:])])


def with_links(page: str, path: str) -> str:
    """The page at this path of the repository, with links between places in the site."""
    place_here = place_of(path) or ""
    here = posixpath.dirname(place_here)
    # MkDocs changes the links of Markdown, but not those of HTML, once more: a page is in a folder of its name.
    folder = here if posixpath.basename(place_here) == "index.md" else place_here.removesuffix(".md")

    def led(target: str, here: str) -> str | None:
        file, hash_, anchor = target.partition("#")
        place = place_of(posixpath.normpath(posixpath.join(posixpath.dirname(path), file)))
        return None if place is None else posixpath.relpath(place, here or ".") + hash_ + anchor

    def link(found: re.Match[str]) -> str:
        if _ELSEWHERE.match(found["target"]):
            return found[0]
        target = led(found["target"], here)
        return found["text"] if target is None else f"{found['picture']}[{found['text']}]({target})"

    def html(found: re.Match[str]) -> str:
        if _ELSEWHERE.match(found["target"]):
            return found[0]
        return f'{found["name"]}="{led(found["target"], folder)}"'

    return outside_code(page, lambda text: _HTML.sub(html, _LINK.sub(link, text)))


def with_blank_lines(page: str) -> str:
    """The page with a blank line before each list, which GitHub does not need."""

    def change(text: str) -> str:
        lines = text.split("\n")
        out = lines[:1]
        for before, line in pairwise(lines):
            inside = _ITEM.match(before) or before.startswith((" ", "\t")) or not before.strip()
            out += [""] if _ITEM.match(line) and not inside else []
            out.append(line)
        return "\n".join(out)

    return outside_code(page, change)


def anchor(heading: str, separator: str = "-") -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower().strip()).replace(" ", separator)


def page_of(path: str, root: Path = ROOT) -> str:
    """A page of the repository as MkDocs should read it."""
    return with_blank_lines(with_links((root / path).read_text("utf-8"), path))


def on_config(config: Any) -> None:
    """Called by MkDocs."""
    config.mdx_configs["toc"]["slugify"] = anchor


def on_files(files: Any, config: Any) -> None:
    """Called by MkDocs: add the pages outside docs/, and change all of them."""
    from mkdocs.structure.files import File  # only there when MkDocs runs

    paths: Mapping[str, str] = PAGES | {
        f"docs/{file.src_uri}": file.src_uri for file in files.documentation_pages()
    }
    for path, place in paths.items():
        if place in files.src_uris:
            files.remove(files.src_uris[place])
        files.append(File.generated(config, place, content=page_of(path)))
