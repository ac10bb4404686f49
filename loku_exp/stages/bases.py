"""The models a run starts from: the target, and the reference that never saw the forget set.

Where both are fine-tuned here from pretrained weights, those are asked too what they can: what the
fine-tuning took from it is not the unlearning's doing.

Each comes from a folder, from the hub, from a published log, or is fine-tuned here once and cached,
together with what it answered. So a sweep pays for both once.
"""

import logging
import multiprocessing
import shutil
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from loku_exp.config.schema import Config
from loku_exp.data.corpus import Role
from loku_exp.errors import TrainingError
from loku_exp.models import identity
from loku_exp.models import load as models
from loku_exp.runtime import distributed
from loku_exp.runtime.cache import Cache, digest, is_whole
from loku_exp.runtime.hub import expanded
from loku_exp.runtime.lifetime import end_with_parent
from loku_exp.runtime.logs import log_file, start_logging
from loku_exp.runtime.seeds import derive
from loku_exp.stages.earlier import target_left
from loku_exp.stages.evaluate import answers_file, asked_recipe, evaluate_subject
from loku_exp.stages.finetuning import finetune, training_recipe
from loku_exp.stages.given import UNTUNED, of_log, untuned
from loku_exp.stages.inputs import Inputs, load_inputs
from loku_exp.subject import Subject
from loku_exp.workspace import Workspace

log = logging.getLogger(__name__)
LOG_FILE = "run.log"


def make_bases(config: Config, inputs: Inputs, workspace: Workspace) -> dict[str, Subject]:
    """Return the reference where there is one, the target, fine-tuned and asked as needed, and `untuned`.

    Two that are not cached yet are made side by side in two processes of `config.threads` threads each,
    unless they would share an accelerator.
    """
    roles = _roles(config)
    missing = [role for role in roles if _is_missing(role, config, inputs, workspace)]
    on_cpu = workspace.machine.device == "cpu"
    if (missing and distributed.size() > 1) or (len(missing) > 1 and on_cpu):
        log.info("making target and reference, side by side")
        _make_side_by_side(missing, config, workspace.folder)
    bases = {role: make_base(role, config, inputs, workspace) for role in roles}
    found: dict[str, Subject] = {"reference": of_log(config)} if _has_log(config) else {}
    found |= {role: bases[role] for role in ("reference", "target") if role in bases}
    for role, base in bases.items():
        log.info("the %s is %s", role, base.path or "drawn at random")
    return found | ({UNTUNED: untuned(config)} if _has_untuned(config, inputs) else {})


def reference_of(config: Config, inputs: Inputs, workspace: Workspace) -> Subject:
    """Return the reference of a run that has one, and has made it."""
    return of_log(config) if _has_log(config) else make_base("reference", config, inputs, workspace)


def entries(config: Config, inputs: Inputs, workspace: Workspace) -> list[Path]:
    """Return the cache entries of the bases a run trains here: their weights, and that they were asked."""
    return [path for role in _roles(config) for path in _entries(role, config, inputs, workspace)]


def make_base(
    role: Role, config: Config, inputs: Inputs, workspace: Workspace, position: int = 0
) -> Subject:
    """Return a base, fine-tuned and asked everything if it is not cached.

    Args:
        role: ``target`` or ``reference``.
        config: of the run.
        inputs: of the run.
        workspace: of the run.
        position: line of its progress bar.
    """
    path = _given_path(role, config)
    if _is_random(config):
        return subject_of(role, config, inputs, None)
    if role == "target" and inputs.earlier is not None:
        compared = "reference" if _has_reference(config) else None
        return target_left(inputs.earlier, config, inputs.tokenizer, workspace.cache, compared)
    if path is not None:
        return subject_of(role, config, inputs, path)
    cache, recipe = workspace.cache, training_recipe(role, config, inputs)
    unfinished = cache.path("models", recipe).with_suffix(".unfinished")

    def build(folder: Path) -> None:
        finetune(role, config, inputs, folder, unfinished, position)

    weights = cache.entry("models", recipe, build)
    shutil.rmtree(unfinished, ignore_errors=True)
    subject = subject_of(role, config, inputs, str(weights))

    def ask(folder: Path) -> None:
        evaluate_subject(subject, config, inputs, workspace)
        (folder / "asked").touch()

    cache.entry("asked", _asked(subject, config, inputs, workspace), ask)
    return subject


def subject_of(role: Role, config: Config, inputs: Inputs, path: str | None) -> Subject:
    """Return a base as a subject.

    Args:
        role: which.
        config: of the run.
        inputs: of the run.
        path: of its weights; None for random ones.
    """
    if path is None:
        weights = "random"
        name = digest(config.model.model_dump(mode="json") | {"seed": config.target.seed})
    elif _given_path(role, config) is None:
        weights = "from_scratch" if config.model.weights == "scratch" else "finetuned_here"
        name = digest(training_recipe(role, config, inputs))
    else:
        weights = "pretrained"
        name = identity.weights_digest(path, f"{role}.path", config.model)
    return Subject(
        name=role,
        weights=weights,
        identity=name,
        load=partial(_load, role, path, config, inputs),
        reference="reference" if role == "target" and _has_reference(config) else None,
        path=path and expanded(path),
    )


def _load(
    role: Role, path: str | None, config: Config, inputs: Inputs, dtype: str | None = None
) -> PreTrainedModel:
    device = torch.device(config.device)
    if path is not None:
        key = f"{role}.path"
        return models.load_model(config.model, path, device, key=key, dtype=dtype)
    seed = derive(config.target.seed, "weights")
    return models.build_model(config.model, inputs.tokenizer, seed, device, dtype=dtype)


def _has_untuned(config: Config, inputs: Inputs) -> bool:
    tuned = config.model.weights == "pretrained" and config.target.made_here
    return tuned and bool(inputs.abilities)


def _make_side_by_side(roles: list[Role], config: Config, folder: Path) -> None:
    """Make each base in a process of its own; they end with this one, however it ends."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(roles), context, end_with_parent) as pool:
        try:
            jobs = [
                pool.submit(_make_in_own_process, role, config, folder, position)
                for position, role in enumerate(roles)
            ]
            for job in jobs:
                job.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                "a process that trains target or reference was killed; most often memory ran out. "
                "Lower model.finetuning.micro_batch_size; the same command goes on from its newest snapshot"
            ) from error
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _make_in_own_process(role: Role, config: Config, folder: Path, position: int) -> None:
    from loku_exp.stages.machine import machine_of

    start_logging()
    if distributed.leave() and config.device.startswith("cuda"):
        config = config.model_copy(update={"device": f"cuda:{position}"})  # a GPU for each
    torch.set_num_threads(config.threads)
    cache = Cache(config.cache_dir)
    workspace = Workspace(folder, cache, config.seed, machine_of(config))
    with log_file(folder / LOG_FILE):
        # the first process has said what there is to say of the inputs
        logging.disable(logging.WARNING)
        inputs = load_inputs(config, cache)
        logging.disable(logging.NOTSET)
        make_base(role, config, inputs, workspace, position)


def _asked(
    subject: Subject, config: Config, inputs: Inputs, workspace: Workspace
) -> dict[str, Any]:
    """Return what it depends on whether a base was asked everything this run asks."""
    answers = answers_file(subject, config, inputs, workspace)
    return asked_recipe(config, inputs) | {"answers": answers.parent.name}


def _is_missing(role: Role, config: Config, inputs: Inputs, workspace: Workspace) -> bool:
    """Return whether a base is to be trained or asked here."""
    return not all(is_whole(entry) for entry in _entries(role, config, inputs, workspace))


def _entries(role: Role, config: Config, inputs: Inputs, workspace: Workspace) -> list[Path]:
    """Return the cache entries of a base that is trained here."""
    given = _given_path(role, config) is not None
    if given or _is_random(config) or (role == "target" and inputs.earlier is not None):
        return []
    weights = workspace.cache.path("models", training_recipe(role, config, inputs))
    subject = subject_of(role, config, inputs, str(weights))
    asked = _asked(subject, config, inputs, workspace)
    return [weights, workspace.cache.path("asked", asked)]


def _roles(config: Config) -> list[Role]:
    """Return which models a run starts from."""
    trained = config.reference.source in ("train", "path") and not _is_random(config)
    return ["target", "reference"] if trained else ["target"]


def _has_log(config: Config) -> bool:
    return config.reference.source == "log"


def _has_reference(config: Config) -> bool:
    return _has_log(config) or len(_roles(config)) > 1


def _given_path(role: Role, config: Config) -> str | None:
    return config.target.path if role == "target" else config.reference.path


def _is_random(config: Config) -> bool:
    return config.model.weights == "random"
