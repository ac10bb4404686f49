"""The mark of a finished run, ``done.json``: written last, with the SHA-256 of what others read."""

import json
from pathlib import Path
from typing import Any

from loku_exp.errors import UserError
from loku_exp.runtime.cache import MANIFEST, damage, file_digest, set_aside
from loku_exp.runtime.whole_files import write_text

DONE = "done.json"
MARKED = (
    "config.yaml",
    "examples.jsonl",
    "results.md",
    "metrics.json",
    f"adapter/{MANIFEST}",  # which has the sums of the files beside it
    f"model/{MANIFEST}",
)


def is_done(folder: Path) -> bool:
    """Return whether a run finished; its mark is written last."""
    return (folder / DONE).is_file()


def write_mark(folder: Path, run: str) -> None:
    """Mark a run, by its id, as finished."""
    there = [name for name in MARKED if (folder / name).is_file()]
    _write(folder, {"id": run, "sha256": {name: file_digest(folder / name) for name in there}})


def reopen(folder: Path) -> None:
    """Let the files of a finished run be written again, without sums until it has finished again.

    Until then its mark is open: a process that ends before leaves a run that is gone on with.
    One that has not all it had is no finished run any more, and what changed is set aside.
    """
    if not is_done(folder):
        return
    try:
        mark = read_mark(folder)
        changed = [name for name in mark["sha256"] if not _is_as_written(folder, name, mark)]
    except UserError:
        changed = [DONE]
    if not changed:
        _write(folder, {"id": mark["id"], "sha256": {}, "open": True})
        return
    for name in changed:
        if (folder / name).is_file():
            set_aside(folder / name, "it is not what was written when its run finished")
    (folder / DONE).unlink(missing_ok=True)


def _write(folder: Path, mark: dict[str, Any]) -> None:
    write_text(folder / DONE, json.dumps(mark) + "\n")


def read_mark(folder: Path) -> dict[str, Any]:
    """Return what the mark of a finished run holds: its id, sums, and whether it is open.

    The sums may be absent, as in earlier versions.

    Raises:
        UserError: it is not such a file.
    """
    try:
        mark = json.loads((folder / DONE).read_text(encoding="utf-8"))
        sums = dict(mark.get("sha256", {}))
        return {"id": mark.get("id"), "sha256": sums, "open": mark.get("open") is True}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{folder / DONE} is damaged ({error}); delete it and run the run's command again"
        ) from error


def check_unchanged(file: Path, folder: Path) -> None:
    """Check that a file is what its run wrote, where it is there and the run has finished.

    Args:
        file: one of `MARKED`.
        folder: of the run.

    Raises:
        UserError: it is not.
    """
    if not (is_done(folder) and file.is_file()):
        return
    if not _is_as_written(folder, str(file.relative_to(folder)), read_mark(folder)):
        raise UserError(
            f"{file} is not what was written when its run finished ({DONE} has its SHA-256); run the run's "
            "command again, which makes it anew from what is kept"
        )


def shipped(run: Path) -> tuple[str, Path] | None:
    """Return what a finished run ships, ``adapter`` or ``model``, and where it lies; None for neither.

    Raises:
        UserError: it is not as it was written.
    """
    for kind in ("adapter", "model"):
        folder = run / kind
        if folder.is_dir():
            check_unchanged(folder / MANIFEST, run)
            broken = damage(folder)
            if broken is not None:
                raise UserError(
                    f"{folder} is damaged ({broken}); delete it and {run / DONE}, and run the command "
                    "again: it is made anew from the newest snapshot"
                )
            return kind, folder
    return None


def check_all_unchanged(folder: Path) -> None:
    """Check that a finished run has all it had when it finished, as it was written.

    Raises:
        UserError: it has not.
    """
    for name in read_mark(folder)["sha256"]:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is gone; run the run's command again")
        check_unchanged(folder / name, folder)


def _is_as_written(folder: Path, name: str, mark: dict[str, Any]) -> bool:
    """Return whether a file has the sum in the mark, where there is one."""
    written, file = mark["sha256"].get(name), folder / name
    return written is None or (file.is_file() and file_digest(file) == written)
