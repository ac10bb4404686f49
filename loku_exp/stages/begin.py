"""Begin a run in its folder, or go on with it: its configuration, and the code that began it."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from loku_exp.config.saved import CONFIG_FILE
from loku_exp.config.schema import Config
from loku_exp.runtime import distributed
from loku_exp.runtime.events import Begun, tell
from loku_exp.runtime.finished import reopen
from loku_exp.runtime.whole_files import write_text
from loku_exp.stages.given import is_toy
from loku_exp.stages.provenance import commit

log = logging.getLogger(__name__)
PLACES = ("path", "tokenizer", "run")  # ends of keys that may name a file or folder
FILES = ("forget", "retain", "holdout")  # keys that may name a file


def begin_run(folder: Path, config: Config) -> None:
    """Write the resolved configuration; warn where another version of the code began this run."""
    if distributed.rank() > 0:
        return
    reopen(folder)
    content = config.model_dump(mode="json", by_alias=True)
    write_text(folder / CONFIG_FILE, OmegaConf.to_yaml(OmegaConf.create(_absolute(content))))
    file, now = folder / "commit", str(commit())
    if file.is_file() and file.read_text(encoding="utf-8").strip() != now:
        earlier = file.read_text(encoding="utf-8").strip()
        log.warning("begun at commit %s, going on at %s", earlier, now)
    write_text(file, f"{now}\n")
    content.pop("tracking")
    settings = content.pop("method")
    named = {"method": method_name(config), "method_settings": settings}
    tell(Begun(folder, content | named, is_toy(config)))


def _absolute(content: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration whose places are found from any working directory; hub ids stay."""
    return {key: _place(key, value) for key, value in content.items()}


def _place(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _absolute(value)
    if not (isinstance(value, str) and (key.endswith((*PLACES, "_dir")) or key in FILES)):
        return value  # a text may begin with ~, too
    path = Path(value).expanduser()
    named = (key.endswith(PLACES) and path.exists()) or (key in FILES and path.is_file())
    return str(path.absolute()) if named or key.endswith("_dir") else value


def method_name(config: Config) -> str:
    """Return the method, or of a gradient method loss, regulariser and init: what plots are grouped by."""
    if not config.unlearn:
        return "none"
    if not config.uses("loss"):
        return config.method.name
    beside = f" + {config.regulariser.name}" if config.regulariser else ""
    return f"{config.loss.name}{beside} {config.init.name if config.init else 'all weights'}"
