"""The models a run starts from: the target, and the reference that never saw the forget set.

Each comes from a folder, from the hub, or is fine-tuned here once and cached, together with what it
answered when it was evaluated. So a sweep pays for both once.
"""

import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from loku_exp.config.schema import Config
from loku_exp.data.corpus import Role
from loku_exp.errors import TrainingError
from loku_exp.evaluation.harness import evaluate, limits
from loku_exp.evaluation.lm.responses import Responses
from loku_exp.models import identity
from loku_exp.models import load as models
from loku_exp.runtime import distributed as parallel
from loku_exp.runtime.cache import Cache, digest, is_whole
from loku_exp.runtime.lifetime import end_with_parent
from loku_exp.runtime.logs import start_logging
from loku_exp.runtime.seeds import derive
from loku_exp.stages.finetuning import BASE_FORMAT, finetune, training_recipe
from loku_exp.stages.inputs import Materials, language_model, load_materials

log = logging.getLogger(__name__)
RESPONSES = "responses.json"


@dataclass(frozen=True)
class Base:
    """A target or reference.

    Attributes:
        role: which of the two.
        weights: ``pretrained``, ``finetuned_here``, ``from_scratch`` or ``random``.
        identity: of its weights; the same weights anywhere have the same.
        path: folder or hub id; None for random weights.
    """

    role: Role
    weights: str
    identity: str
    path: str | None


def make_bases(config: Config, materials: Materials, cache: Cache) -> dict[Role, Base]:
    """Return the target, and the reference where there is one; fine-tune and evaluate as needed.

    Two that are not cached yet are made side by side in two processes of `config.threads` threads each,
    unless they would share an accelerator.
    """
    roles = _roles(config)
    missing = [role for role in roles if not _is_made(role, config, materials, cache)]
    on_cpu = models.resolve_device(config.device).type == "cpu"
    if (missing and parallel.size() > 1) or (len(missing) > 1 and on_cpu):
        log.info("making target and reference, side by side")
        _make_side_by_side(missing, config)
    return {role: make_base(role, config, materials, cache) for role in roles}


def entries(config: Config, materials: Materials, cache: Cache) -> list[Path]:
    """Return the cache entries of the bases a run trains here: their weights, and their answers."""
    return [entry for role in _roles(config) for entry in _entries(role, config, materials, cache)]


def make_base(
    role: Role, config: Config, materials: Materials, cache: Cache, position: int = 0
) -> Base:
    """Return a base, fine-tuned and evaluated if it is not cached.

    Args:
        role: ``target`` or ``reference``.
        config: of the run.
        materials: of the run.
        cache: where it is kept.
        position: line of its progress bar.
    """
    if _is_random(config):
        recipe = config.model.model_dump() | {"seed": config.target.seed}
        return Base(role, "random", digest(recipe), None)
    path = _given_path(role, config)
    if path is not None:
        digest_of_weights = identity.weights_digest(path, f"{role}.path", config.model)
        base = Base(role, "pretrained", digest_of_weights, path)
    else:
        recipe = training_recipe(role, config, materials)

        def build(folder: Path) -> None:
            finetune(role, config, materials, folder, position)

        folder = cache.entry("models", recipe, build)
        weights = "from_scratch" if config.model.weights == "scratch" else "finetuned_here"
        base = Base(role, weights, digest(recipe), str(folder))
    cached_responses(base, config, materials, cache)
    return base


def load_base(
    base: Base, config: Config, materials: Materials, *, train_all: bool = False
) -> PreTrainedModel:
    """Load a base's weights onto the run's device.

    Args:
        base: which.
        config: of the run.
        materials: of the run.
        train_all: all weights will be trained, so they are fp32 whatever the model's dtype: small
            updates round away in bf16.
    """
    device = models.resolve_device(config.device)
    dtype = "float32" if train_all else None
    if base.path is not None:
        key = f"{base.role}.path"
        return models.load_model(config.model, base.path, device, key=key, dtype=dtype)
    seed = derive(config.target.seed, "weights")
    return models.build_model(config.model, materials.tokenizer, seed, device, dtype=dtype)


def cached_responses(base: Base, config: Config, materials: Materials, cache: Cache) -> Responses:
    """Return what a base answers to the full suite, evaluating it if that is not cached.

    What does not depend on the forget set (abilities, unseen text) is kept apart, so that runs over
    several forget sets pay for it once a model.
    """
    suite, abilities = materials.suite, materials.abilities

    def build(folder: Path, tasks: list[Any], known: Responses | None = None) -> None:
        answers = Responses(folder / RESPONSES)
        answers.answers |= known.answers if known else {}
        lm = language_model(load_base(base, config, materials), config, materials, answers)
        evaluate(lm, tasks, limits(abilities, config.evaluation.limit))
        answers.save()

    def build_shared(folder: Path) -> None:
        log.info("evaluating the %s: what does not depend on the forget set", base.role)
        build(folder, [*suite.shared(), *abilities])

    def build_all(folder: Path) -> None:
        known = None
        if suite.shared() or abilities:
            recipe = _shared_recipe(base, config, materials)
            known = Responses(cache.entry("evaluations", recipe, build_shared) / RESPONSES)
        log.info("evaluating the %s", base.role)
        build(folder, [*suite.tasks(None), *abilities], known)

    recipe = _evaluation_recipe(base, config, materials)
    return Responses(cache.entry("evaluations", recipe, build_all) / RESPONSES)


def _make_side_by_side(roles: list[Role], config: Config) -> None:
    """Make each base in a process of its own; they end with this one, however it ends."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(roles), context, end_with_parent) as pool:
        try:
            jobs = [
                pool.submit(_make_in_own_process, role, config, position)
                for position, role in enumerate(roles)
            ]
            for job in jobs:
                job.result()
        except BrokenProcessPool as error:
            raise TrainingError(
                "a process that trains target or reference was killed; most often memory ran out. "
                "Lower model.finetuning.micro_batch_size; the same command starts it again"
            ) from error
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _make_in_own_process(role: Role, config: Config, position: int) -> None:
    start_logging()
    if parallel.leave() and models.resolve_device(config.device).type == "cuda":
        config = config.model_copy(update={"device": f"cuda:{position}"})  # a GPU for each
    torch.set_num_threads(config.threads)
    cache = Cache(config.cache_dir)
    make_base(role, config, load_materials(config, cache), cache, position)


def _shared_recipe(base: Base, config: Config, materials: Materials) -> dict[str, Any]:
    """Return everything the answers of a base depend on that are the same for every forget set."""
    model, evaluation = config.model, config.evaluation
    places = {"curve", "data_dir", "texts_dir", "include_path"}  # their content is in the digests
    return {
        "format": BASE_FORMAT,
        "weights": base.identity,
        "tokenizer": materials.tokenizer_digest,
        "model": model.model_dump(include={"dtype", "attention", "template", "stop_at_eos"}),
        "texts": [materials.suite.shared_digest, materials.ability_digest],
        "evaluation": evaluation.model_dump(mode="json", exclude=places),
        "code": identity.own_code([evaluation.target]),
        "device": models.resolve_device(config.device).type,
    }


def _evaluation_recipe(base: Base, config: Config, materials: Materials) -> dict[str, Any]:
    """Return everything the answers of a base depend on."""
    return _shared_recipe(base, config, materials) | {"data": materials.corpus.digest()}


def _is_made(role: Role, config: Config, materials: Materials, cache: Cache) -> bool:
    """Return whether a base needs no training here, or is cached with its evaluation."""
    return all(is_whole(entry) for entry in _entries(role, config, materials, cache))


def _entries(role: Role, config: Config, materials: Materials, cache: Cache) -> list[Path]:
    """Return the cache entries of a base that is trained here."""
    if _is_random(config) or _given_path(role, config) is not None:
        return []
    recipe = training_recipe(role, config, materials)
    base = Base(role, "", digest(recipe), None)
    return [
        cache.path("models", recipe),
        cache.path("evaluations", _evaluation_recipe(base, config, materials)),
    ]


def _roles(config: Config) -> list[Role]:
    """Return which models a run starts from."""
    has_reference = config.reference.source in ("train", "path") and not _is_random(config)
    return ["target", "reference"] if has_reference else ["target"]


def _given_path(role: Role, config: Config) -> str | None:
    return config.target.path if role == "target" else config.reference.path


def _is_random(config: Config) -> bool:
    return config.model.weights == "random"
