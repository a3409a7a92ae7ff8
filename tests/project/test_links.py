"""Every relative link of the pages leads to a file of the repository, and every anchor to a heading."""

from __future__ import annotations

import posixpath
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
_FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1[ \t]*$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)")
_REFERENCE = re.compile(r"^\[[^\]]+\]:\s*<?([^\s>]+)", re.MULTILINE)
_HTML = re.compile(r"""\b(?:href|src|srcset)=["']([^"'\s]+)""")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//")


def links(page: str) -> Iterator[str]:
    """The targets of all links and pictures in a page of Markdown."""
    text = _CODE.sub("", _FENCED.sub("", page))
    for form in (_LINK, _REFERENCE, _HTML):
        yield from form.findall(text)


def anchors(page: str) -> set[str]:
    """The anchors of the headings, as GitHub and MkDocs make them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in _HEADING.findall(_FENCED.sub("", page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def broken(pages: Mapping[str, str], files: set[str]) -> Iterator[str]:
    """The problems of broken links in these pages. `files` are those of the repository."""
    folders = {str(parent) for file in files for parent in PurePosixPath(file).parents}
    headings = {name: anchors(page) for name, page in pages.items()}
    for name, page in pages.items():
        for link in links(page):
            if _ELSEWHERE.match(link):
                continue
            path, _, anchor = link.partition("#")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path)) if path else name
            if target.startswith(".."):
                yield f"{name}: {link} leads out of the repository"
            elif target not in files and target not in folders:
                yield f"{name}: {link} leads to no file of the repository"
            elif anchor and anchor not in headings.get(target, ()):
                yield f"{name}: {link} leads to no heading"


def tracked() -> set[str]:
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a clone of the repository")
    return set(listed.stdout.splitlines())


def test_every_link_leads_somewhere() -> None:
    files = tracked()
    pages = {name: (ROOT / name).read_text("utf-8") for name in sorted(files) if name.endswith(".md")}
    assert {"README.md", "docs/protocols.md"} <= set(pages)
    wrong = list(broken(pages, files))
    assert not wrong, "\n".join(wrong)


def test_every_picture_is_shown_on_a_page() -> None:
    files = tracked()
    shown = {
        posixpath.normpath(posixpath.join(posixpath.dirname(name), link.partition("#")[0]))
        for name in files
        if name.endswith(".md")
        for link in links((ROOT / name).read_text("utf-8"))
    }
    pictures = {
        name for name in files if name.startswith("docs/") and PurePosixPath(name).suffix in {".png", ".svg"}
    }
    assert len(pictures) > 10
    assert not pictures - shown, "\n".join(sorted(pictures - shown))


PAGE = """\
# One: `two`

## Same
## Same

[a](b.md#part) [c](#one-two) [d](#same-1) [e](other/) ![f](f.svg) <img src="g.svg"> [h]

[h]: gone.md

`[not a link](nowhere)` and

```
[not either](nowhere)
## Not a heading
```

[k](b.md#none) [l](#not-a-heading) [m](../n.md) [o](https://example.org/p#q)
"""


def test_links_and_anchors_are_found_where_they_are() -> None:
    files = {"page.md", "b.md", "other/file", "f.svg"}
    assert list(broken({"page.md": PAGE, "b.md": "# Part\n"}, files)) == [
        "page.md: b.md#none leads to no heading",
        "page.md: #not-a-heading leads to no heading",
        "page.md: ../n.md leads out of the repository",
        "page.md: gone.md leads to no file of the repository",
        "page.md: g.svg leads to no file of the repository",
    ]
