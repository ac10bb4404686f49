"""Which run a configuration is: named by what it computes, wherever its inputs lie."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from loku_exp.config.schema import PARTS, Component, Config
from loku_exp.errors import UserError
from loku_exp.models import identity
from loku_exp.runtime.cache import digest
from loku_exp.runtime.finished import is_done, read_mark
from loku_exp.runtime.knobs import LATER_KNOBS
from loku_exp.runtime.programs import HOMELESS
from loku_exp.stages.inputs import Inputs
from loku_exp.subject import Subject

log = logging.getLogger(__name__)
NOT_IDENTITY = {"output_dir", "cache_dir", "force", "page", "device", "threads", "tracking"}
NOT_IDENTITY |= {"launcher", "on_error", "pairs"}  # of a sweep, not of its runs
NOT_IDENTITY |= {"attacks", "pairing"}  # added to a run; read where target and reference name it
RUN_FORMAT = 5  # raise by hand whenever the numbers of an unchanged configuration change
FILES_OF_DATA = ("forget", "retain", "holdout")
PLACES = ("data_dir", "texts_dir", "include_path")  # their content is in a digest


def check_places(config: Config) -> None:
    """Check that results and cache can be written, leaving nothing behind.

    Raises:
        UserError: one of them cannot.
    """
    check_place("output_dir", config.output_dir)
    check_place("cache_dir", config.cache_dir)


def check_place(key: str, named: str) -> None:
    """Check that a folder can be written to, by writing there.

    Args:
        key: of the configuration, that names it.
        named: as it stands there.

    Raises:
        UserError: it cannot.
    """
    try:
        folder = Path(named).expanduser().absolute()
    except RuntimeError as error:  # ~name, or ~ of a user without a home
        raise UserError(f"{key}={named}: {HOMELESS}: {key}=DIR") from error
    existing, above = folder, (folder, *folder.parents)
    try:  # a link may lead nowhere, a name be too long to be asked for
        existing = next(path for path in above if path.exists() or path.is_symlink())
        with tempfile.TemporaryDirectory(dir=existing, prefix=".loku_exp-") as within:
            Path(within, folder.relative_to(existing)).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{key}={folder}: {existing} is not a folder that can be written to "
            f"({error.strerror}); name another one: {key}=DIR"
        ) from error


def run_id(config: Config, inputs: Inputs) -> str:
    """Return 12 hex digits: the same for the same computation, wherever its inputs lie.

    Paths of models and data are replaced by what is in them; folders, device, threads and attacks are
    left out. The code's version enters through `RUN_FORMAT` alone, a user's own functions by their source.

    Args:
        config: resolved for this machine, so that precisions are what they became.
        inputs: of the run.
    """
    content = _unlearning(config, inputs)
    evaluation = config.evaluation.model_dump(mode="json", by_alias=True)
    content["evaluation"] = _as_before({k: v for k, v in evaluation.items() if k not in PLACES})
    content["evaluation"]["data"] = inputs.ability_digest
    content["reference"] = config.reference.model_dump(mode="json") | {
        "path": _content_of(config, "reference")
    }
    content["code"] = _own_code(config)
    return digest(content, length=12)


def unlearning_id(config: Config, inputs: Inputs) -> str:
    """Return what an unlearning depends on: equal for runs that differ in their evaluation alone."""
    content = _unlearning(config, inputs)
    stops = config.uses("stop") and config.training.stop is not None
    content["thresholds"] = run_id(config, inputs) if stops else None  # measured by the evaluation
    content["code"] = _own_code(config)
    return digest(content, length=12)


def run_folder(config: Config, run: str) -> Path:
    """Return the run's folder, which may not be there yet; with ``force`` a new one beside it."""
    parts = [config.model.name, config.dataset.label]
    if not config.unlearn:
        parts += ["evaluation"]
    elif config.uses("loss"):
        rank = f"r{config.lora.rank}" if config.lora.kind == "lora" else "full"
        parts += [config.loss.name, config.init.name if config.init else "", rank]
    else:
        parts += [config.method.name]
    name = "-".join([part for part in parts if part] + [run])
    folder = Path(config.output_dir).expanduser() / name
    count = 1
    while config.force and is_done(folder):
        count += 1
        folder = folder.with_name(f"{name}-r{count}")
    return folder


def folder_of(config: Config, run: str, known: Path | None) -> Path:
    """Return a run's folder: that of its name, or a known one, which must be of this run.

    Raises:
        UserError: the known one is of another run.
    """
    if known is None:
        return run_folder(config, run)
    held = read_mark(known)["id"]
    if held != run:
        raise UserError(
            f"{known} is run {held}, and its configuration is run {run} now: data, weights or the "
            "version of loku_exp changed since; run its command again"
        )
    return known


def made_by(component: Component, made: Subject, inputs: Inputs, *more: Any) -> str:
    """Return the identity of a subject that a method or an attack made.

    A user's own need not think of it: their code and knobs, the data and whatever else is given enter.
    """
    code = identity.own_code([component.target])
    if not code:
        return made.identity
    return digest([made.identity, code, component.knobs, inputs.corpus.digest(), *more])


def _unlearning(config: Config, inputs: Inputs) -> dict[str, Any]:
    """Return what the unlearned model depends on, as plain data."""
    unused = set(config.unused_groups()) if config.unlearn else {*PARTS, "method"}
    others = {"evaluation", "reference", *unused}
    content = config.model_dump(mode="json", by_alias=True, exclude=NOT_IDENTITY | others)
    content["format"] = RUN_FORMAT
    if content.get("init") is not None:
        content["init"].pop("fisher_pass", None)  # the same numbers by another way
    if content.get("regulariser", "") is None:
        del content["regulariser"]  # as before there were any
    if content.get("lora", {}).get("base", "") is None:
        del content["lora"]["base"]
    for part in ("loss", "dataset"):
        if part in content:
            content[part] = _as_before(content[part])
    content["dataset"].pop("path", None)
    for key in FILES_OF_DATA:  # what is in them is in the digest, too
        if _is_file(content["dataset"].get(key)):
            content["dataset"][key] = "file"
    content["dataset"]["data"] = inputs.corpus.digest()
    content["model"] |= {
        "tokenizer": inputs.tokenizer_digest,
        "template": inputs.template.model_dump(),
    }
    if content.get("method", {}).get("path"):  # of weights that a method takes as they are
        path = content["method"]["path"]
        content["method"]["path"] = identity.weights_digest(path, "method.path", config.model)
    random = config.model.weights == "random"
    content["target"]["path"] = None if random else _content_of(config, "target")
    if content["target"].pop("run") is not None and inputs.earlier is not None:
        content["target"]["left_by"] = inputs.earlier.identity
    if config.model.weights == "pretrained":
        content["model"]["path"] = _content_of(config, "model")
    return content


def _is_file(value: Any) -> bool:
    try:
        return isinstance(value, str) and Path(value).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):  # too long for a name, no such user
        return False


def _as_before(node: dict[str, Any]) -> dict[str, Any]:
    """Return a component without the knobs it was given later, where they do what it did before."""
    later = LATER_KNOBS.get(node["_target_"], {})
    return {k: v for k, v in node.items() if k not in later or later[k] != v}


def _own_code(config: Config) -> dict[str, str]:
    """Return the source of a user's own functions, but for attacks, which are added to a run."""
    return identity.own_code(config.model_copy(update={"attacks": {}}).functions())


def _content_of(config: Config, section: str) -> str | None:
    """Return the identity of what a section's path names; None where it names nothing that is read."""
    path = getattr(config, section).path
    if not path or config.model.weights == "random":
        return None
    if section == "reference" and config.reference.source == "log":
        return digest(Path(path).expanduser().read_text(encoding="utf-8"))
    return identity.weights_digest(path, f"{section}.path", config.model)
