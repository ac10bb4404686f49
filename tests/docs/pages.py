"""What the pages hold: blocks, commands, words in backticks, links.

Everything is found by what it is (a bash block, a linked example, a key in backticks), never by a
heading or a sentence: prose may be moved and rewritten.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
README, CONTRIBUTING, CHANGELOG, LLMS = (
    (ROOT / name).read_text()
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/llms.txt")
)
DOCS = {file.name: file.read_text() for file in sorted((ROOT / "docs").glob("*.md"))}
PAGES = {"README.md": README, "CONTRIBUTING.md": CONTRIBUTING} | {
    f"docs/{name}": text for name, text in DOCS.items()
}
BLOCK = re.compile(
    r"(?:\]\((?:\.\./)?(?P<file>examples/[^)]+)\):\n\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
TYPED = r"(?:python|pip|make|torchrun|tensorboard|wandb|TRACKIO_DIR=\S+) \S"


class Block(NamedTuple):
    """A fenced block; `file` is the example that is linked just above it."""

    page: str
    file: str | None
    language: str
    text: str


class Command(NamedTuple):
    """A command that a page shows; `folder` is where it is typed, from the repository's root."""

    line: str
    words: tuple[str, ...]
    folder: str


def commands_of(text: str) -> list[Command]:
    """Return the commands of a bash block, one a line."""
    found, folder = [], "."
    for line in text.splitlines():
        words = tuple(shlex.split(line, comments=True))
        if words[:1] == ("cd",):
            folder = words[1]
        elif words:
            found.append(Command(line.split(" #")[0].strip(), words, folder))
    return found


BLOCKS = [
    Block(page, match["file"], match["language"], match["text"])
    for page, text in PAGES.items()
    for match in BLOCK.finditer(text)
]
PROSE = {page: BLOCK.sub("", text) for page, text in PAGES.items()}
SPANS = sorted({span for text in PROSE.values() for span in SPAN.findall(text)})
SHOWN = [command for b in BLOCKS if b.language == "bash" for command in commands_of(b.text)]
SHOWN += [command for span in SPANS if re.match(TYPED, span) for command in commands_of(span)]
SHOWN = sorted(set(SHOWN))
SCRIPTS = sorted(file.name for file in EXAMPLES.glob("*.py"))
