"""Render README.md and docs/*.md as HTML pages: python docs/build.py [FOLDER], default out/docs.

Links to pages lead to their HTML, other relative links into the repository; headings get the anchors of the forge.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import pairwise
from os.path import relpath
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]
PAGES = (Path("README.md"), *sorted(page.relative_to(ROOT) for page in (ROOT / "docs").glob("*.md")))
PARSER = MarkdownIt("commonmark").enable("table")
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ max-width: 52rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.55 system-ui, sans-serif; }}
pre {{ padding: .8rem; overflow-x: auto; background: #8881; font-size: .9em; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ padding: .25rem .6rem; border: 1px solid #8886; text-align: left; vertical-align: top; }}
img {{ max-width: 100%; }}
</style></head>
<body><nav>{menu}</nav>
{body}</body></html>
"""


def build(folder: Path) -> list[Path]:
    """Write every page below ``folder``."""
    return [_write(page, folder) for page in PAGES]


def slugs(tokens: list[Token]) -> Iterator[tuple[Token, str]]:
    """Headings with their anchors: lower case, no punctuation, hyphens for spaces, numbered when repeated."""
    seen: dict[str, int] = {}
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            text = "".join(part.content for part in inline.children or ())
            slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            seen[slug] = seen.get(slug, -1) + 1
            yield token, f"{slug}-{seen[slug]}" if seen[slug] else slug


def _write(page: Path, folder: Path) -> Path:
    tokens = PARSER.parse((ROOT / page).read_text("utf-8"))
    for token, slug in list(slugs(tokens)):
        token.attrSet("id", slug)
    target = (folder / page).with_suffix(".html")
    for token in (child for block in tokens for child in block.children or ()):
        for name in ("href", "src"):
            link = str(token.attrGet(name) or "")
            if link and not re.match(r"[a-z]+:|#", link):
                token.attrSet(name, _moved(link, page, target))
    title = next(token.content for token in tokens if token.type == "inline")
    menu = " · ".join(f'<a href="{_moved(relpath(p, page.parent), page, target)}">{p.stem}</a>' for p in PAGES)
    target.parent.mkdir(parents=True, exist_ok=True)
    body = PARSER.renderer.render(tokens, PARSER.options, {})
    target.write_text(TEMPLATE.format(title=title, menu=menu, body=body), "utf-8")
    return target


def _moved(link: str, page: Path, target: Path) -> str:
    """A relative ``link`` of ``page`` as its built form ``target`` needs it."""
    path, hash_, anchor = link.partition("#")
    place = (ROOT / page.parent / path).resolve()
    if place.is_relative_to(ROOT) and place.relative_to(ROOT) in PAGES:
        return str(Path(path).with_suffix(".html")) + hash_ + anchor
    return relpath(place, target.resolve().parent) + hash_ + anchor


if __name__ == "__main__":
    print(f"{len(build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / 'out' / 'docs')))} pages")
