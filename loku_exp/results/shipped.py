"""What a finished run left for others to build on."""

import json
from pathlib import Path
from typing import Any

from loku_exp.errors import UserError
from loku_exp.models.identity import weight_files
from loku_exp.models.origin import hand_on_origin as hand_on_origin
from loku_exp.results.schema import Record
from loku_exp.runtime.cache import MANIFEST, damage
from loku_exp.runtime.finished import shipped


def shipped_of(run: Path, record: Record) -> tuple[str, Path, dict[str, Any]]:
    """Return what a finished run shipped, ``adapter`` or ``model``, where it lies, and its recipe.

    The recipe's ``base`` is where the target lay that an adapter is for, ``weights`` the sums of its files.

    Args:
        run: its folder.
        record: of it.

    Raises:
        UserError: it shipped nothing, or what it shipped is not as it was written.
    """
    found = shipped(run)
    if found is not None:
        manifest = json.loads((found[1] / MANIFEST).read_text(encoding="utf-8"))
        return *found, manifest["recipe"]
    if not record.unlearned:
        raise UserError(f"{run} left no adapter and no model: it only evaluates (unlearn=false)")
    method = record.run.choices.get("method", "gradient")
    if method != "gradient":
        raise UserError(f"{run} left no adapter and no model: method={method} trains none")
    raise UserError(
        f"{run} has lost its adapter; delete {run}/done.json, and run the command again: it goes on from "
        "the newest snapshot"
    )


def base_damage(recipe: dict[str, Any]) -> str | None:
    """Return why the target that an adapter is for is not what it was; None where that cannot be seen.

    Args:
        recipe: of what was shipped.
    """
    base = Path(recipe["base"])
    if (base / MANIFEST).is_file():  # made here
        return damage(base)
    was = recipe.get("weights")  # earlier versions wrote none
    if was and base.is_dir() and was != sorted(weight_files(str(base))):
        return "other weights lie there now"
    return None
