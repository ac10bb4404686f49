"""A hook of mkdocs: pages may link to files outside docs/, which are then part of the site.

In the repository a page links to ``../examples/my_loss/losses.py``, which any viewer of Markdown follows.
The site has those files too, and the links lead to them there.
"""

import os
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\()([\w./-]+)")  # the path of a relative link, without its anchor


def on_files(files: Any, config: Any) -> Any:
    """Add every file that a page links to, and those that these link to."""
    pages = [file for file in files if file.is_documentation_page()]
    known = {file.src_uri for file in files}
    while pages:
        page = pages.pop()
        for _, link in LINK.findall(page.content_string):
            target = _in_repository(page.src_uri, link)
            if (ROOT / target).is_file() and _in_site(target) not in known:
                place = _in_site(target)
                file = File.generated(config, place, abs_src_path=str(ROOT / target))
                files.append(file)
                known.add(place)
                pages += [file] if file.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at where the files are in the site."""
    here = PurePosixPath(page.file.src_uri).parent

    def moved(link: re.Match[str]) -> str:
        target = _in_repository(page.file.src_uri, link[2])
        if not (ROOT / target).is_file():
            return link[0]  # mkdocs says so
        return link[1] + os.path.relpath(_in_site(target), here)

    return LINK.sub(moved, markdown)


def on_post_build(config: Any) -> None:
    """Put the pages' Markdown beside them, for what follows llms.txt."""
    for page in (ROOT / "docs").glob("*.md"):
        shutil.copy(page, config.site_dir)


def _in_repository(page: str, link: str) -> str:
    """Return what a page of the site links to, as a path from the repository's root."""
    outside = (ROOT / page).is_file() and not (ROOT / "docs" / page).is_file()
    folder = PurePosixPath(page if outside else f"docs/{page}").parent
    return os.path.normpath(folder / link)


def _in_site(path: str) -> str:
    """Return where a file of the repository is in the site."""
    return path.removeprefix("docs/")
