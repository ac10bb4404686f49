"""Tables are the committed ones, links lead somewhere, and the pages build as a site."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import BLOCK, CHANGELOG, DOCS, LINK, LLMS, PAGES, README, ROOT

TEXT = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "file",
    [f"benchmarks/toy_{name}.md" for name in ("grid", "seeds", "losses", "attacks", "inits")],
)
def test_tables_are_the_committed_ones(file):
    tables = [part for part in (ROOT / file).read_text().split("\n\n") if part.startswith("|")]
    assert tables
    for table in tables:
        assert table.strip() in "\n".join(DOCS.values())


def test_the_first_screen_says_how_to_begin():
    screen = "\n".join(README.splitlines()[:50])
    for word in (
        "Python 3.11",
        "make run",
        "source .venv/bin/activate",
        "pip install",
        "On my GPU",
    ):
        assert word in screen


def test_readme_shows_six_rows_of_the_whole_table_and_is_short():
    (shown,) = (text for text in TEXT.findall(README) if text.startswith("toy_neo on toy_tofu"))
    (whole,) = (text for text in TEXT.findall(DOCS["toy.md"]) if text.startswith(shown[:20]))
    rows = [line.rstrip() for line in shown.splitlines()]
    assert len(rows) == 11  # title, three of the table's head, six rows, verdict
    assert set(rows) <= {line.rstrip() for line in whole.splitlines()}
    assert len(README.splitlines()) < 200


def test_links_lead_to_files():
    pages = {**PAGES, "CHANGELOG.md": CHANGELOG, "docs/llms.txt": LLMS}
    for page, text in pages.items():
        for link in LINK.findall(BLOCK.sub("", text)):
            if "://" not in link:
                assert ((ROOT / page).parent / link).is_file(), f"{page}: {link}"


@pytest.mark.parametrize("place", ["README.md", "docs/index.md", "docs/llms.txt", "mkdocs.yml"])
def test_every_page_is_listed(place):
    text = (ROOT / place).read_text()
    assert [name for name in DOCS if name != "index.md" and name not in text] == []


def test_the_site_builds_and_fetches_nothing(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {f"{Path(name).stem}.html" for name in DOCS} <= {p.name for p in tmp_path.glob("*.html")}
    fetched = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"(?:https?:)?//")
    for page in tmp_path.rglob("*.html"):
        assert not fetched.search(page.read_text()), page
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style
    for link in LINK.findall(LLMS):
        assert (tmp_path / link).is_file()
