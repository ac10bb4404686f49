"""What a sweep has to do: each run once, everything checked that can be before they start."""

import logging
from pathlib import Path

import torch

from loku_exp.config.grid import job_label
from loku_exp.config.saved import keep_attacks
from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, UserError
from loku_exp.runtime.cache import Cache, digest
from loku_exp.stages import bases, identity, preflight
from loku_exp.stages.inputs import Inputs, load_inputs
from loku_exp.stages.machine import machine_of, on_this_machine
from loku_exp.stages.space import Need, check_space, space_needs
from loku_exp.sweeps.jobs import SKIPPED, Job
from loku_exp.workspace import Workspace

log = logging.getLogger(__name__)


def plan_jobs(jobs: list[list[str]], configs: list[Config], config_dir: str | None) -> list[Job]:
    """Return the runs of a sweep, each once.

    Args:
        jobs: overrides of each run.
        configs: what they compose to.
        config_dir: a folder of the user's own yaml.

    Raises:
        ConfigError: with every problem of every run.
    """
    planned, needs = checked_jobs(jobs, configs, config_dir)
    check_space(needs, len([job for job in planned if job.state != SKIPPED]))
    return planned


def checked_jobs(
    jobs: list[list[str]], configs: list[Config], config_dir: str | None
) -> tuple[list[Job], list[Need]]:
    """Return the same and what they write, without a look at the disk; see `plan_jobs`."""
    if len({config.launcher.model_dump_json() for config in configs}) > 1:
        raise ConfigError("launcher: a sweep has one; remove it from the values swept over")
    loaded: dict[str, Inputs] = {}
    planned: dict[Path, Job] = {}
    problems: dict[str, None] = {}
    needs: list[Need] = []
    torch.set_num_threads(configs[0].threads)
    for overrides, config in zip(jobs, configs, strict=True):
        name = job_label(overrides, jobs) or "the run"
        try:
            job, writes = _planned(name, overrides, config, config_dir, loaded)
        except UserError as error:
            problems |= {f"{name}: {line}": None for line in str(error).splitlines()}
            continue
        if job.folder in planned:
            other = planned[job.folder]
            if job.config.attacks != other.config.attacks:
                both = ",".join({**other.config.attacks, **job.config.attacks})
                said = f"{name}: it is {other.label} but for its attacks"
                problems[f"{said}; name them together: attacks=[{both}]"] = None
            log.info("%s is the same run as %s", name, other.label)
        planned.setdefault(job.folder, job)
        needs += writes
    if problems:
        raise ConfigError(list(problems))
    return list(planned.values()), needs


def _planned(
    name: str,
    overrides: list[str],
    composed: Config,
    config_dir: str | None,
    loaded: dict[str, Inputs],
) -> tuple[Job, list[Need]]:
    """Return a run as a job, checked, and what it writes; what it reads is kept in `loaded` for others."""
    # The machine that submits need not have the device that a cluster's machines have.
    slurm = composed.launcher.kind == "slurm"
    config = on_this_machine(composed.model_copy(update={"device": "cpu"}) if slurm else composed)
    identity.check_places(config)
    cache = Cache(config.cache_dir)
    sections = config.model_dump(mode="json", include={"dataset", "model", "evaluation"})
    recipe = digest([sections, config.target.run, config.cache_dir])
    if recipe not in loaded:
        loaded[recipe] = load_inputs(config, cache)
    inputs = loaded[recipe]
    writes = space_needs(config, inputs, preflight.check(config, inputs))
    folder = identity.run_folder(config, identity.run_id(config, inputs))
    if config.attacks:  # with other settings than a finished run has, they are refused here
        config = keep_attacks(config, folder)
    workspace = Workspace(folder, cache, config.seed, machine_of(config), inputs.tokenizer)
    needs = set(bases.entries(config, inputs, workspace))
    job = Job(name, overrides, config_dir, composed, folder, needs)
    job.state = SKIPPED if job.is_done() else job.state
    return job, writes
