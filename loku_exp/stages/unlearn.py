"""Hand a method what it takes of a configuration, and take over what another run has made already."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from loku_exp.config.schema import Config
from loku_exp.evaluation.suite import Evaluation, Stop
from loku_exp.methods.adapter import Adapter
from loku_exp.methods.few_bits import check_holdable
from loku_exp.methods.regularised import Regularised
from loku_exp.models import load as models
from loku_exp.runtime import distributed
from loku_exp.runtime.chosen import Chosen, check_returned
from loku_exp.runtime.finished import DONE
from loku_exp.runtime.settings import MeetReference, StopRule
from loku_exp.runtime.whole_files import write_text
from loku_exp.stages.bases import reference_of
from loku_exp.stages.evaluate import evaluate_subject
from loku_exp.stages.identity import made_by
from loku_exp.stages.inputs import Inputs
from loku_exp.subject import Outcome, Subject
from loku_exp.workspace import Workspace

log = logging.getLogger(__name__)
OF_METHODS = ("init.safetensors", "init.sha256", "snapshots", "adapter", "model", "method")
UNLEARNING = "unlearning.json"


def plan_adapter(config: Config, inputs: Inputs) -> Adapter | None:
    """Return the adapter, checked against the architecture; None for full fine-tuning, or no training.

    Raises:
        UserError: a target matches no layer, or the rank is too large.
    """
    if not config.uses("adapter") or config.lora.kind == "full":
        return None
    adapter = Adapter(
        rank=int(config.lora.rank or 0),
        alpha=int(config.lora.alpha or 0),
        dropout=float(config.lora.dropout or 0),
        targets=config.model.lora_targets[str(config.lora.targets)],
        base=config.lora.base,
    )
    with torch.device("meta"):
        skeleton = models.from_architecture(config.model, inputs.tokenizer)
    adapter.layers(skeleton, seed=0)
    if adapter.base:
        check_holdable(skeleton)
    return adapter


def unlearn(
    target: Subject,
    knows: Evaluation,
    adapter: Adapter | None,
    config: Config,
    inputs: Inputs,
    workspace: Workspace,
) -> Outcome:
    """Call the method.

    Args:
        target: what it unlearns from.
        knows: evaluation of the target, which a stop rule is measured on.
        adapter: from `plan_adapter`.
        config: of the run.
        inputs: of the run.
        workspace: of the run.

    Raises:
        UserError: what the method finds wrong.
    """
    outcome: Outcome = config.method.chosen()(
        target=target,
        records=inputs.records,
        workspace=workspace,
        loss=_loss(config, inputs),
        init=config.init.chosen() if config.init else None,
        adapter=adapter,
        recipe=config.training,
        stop=_stop(config, inputs, workspace, knows),
    )

    check_returned(config.method.target, outcome, Outcome)

    def known(made: Subject, step: int) -> Subject:
        """Return what the method made with its name, identity and descent."""
        return replace(
            made,
            name="unlearned",
            identity=made_by(config.method, made, inputs, config.seed, step),
            derived_from=target.name,
            reference=target.reference,
            of_run=True,
        )

    curve = (
        replace(moment, subject=known(moment.subject, moment.step)) for moment in outcome.curve
    )
    return replace(outcome, subject=known(outcome.subject, outcome.step), curve=tuple(curve))


def _loss(config: Config, inputs: Inputs) -> Chosen:
    """Return the loss, with its regulariser where there is one."""
    loss = config.loss.chosen()
    if config.regulariser is None:
        return loss
    return Regularised(
        loss.name,
        loss.target,
        loss.inputs,
        loss.knobs,
        regulariser=config.regulariser.chosen(),
        records=inputs.records,
    )


def _stop(config: Config, inputs: Inputs, workspace: Workspace, knows: Evaluation) -> Stop | None:
    """Return the recipe's rule; what there is of one was looked at before.

    Raises:
        ConfigError: the target is where the rule ends.
    """
    rule, suite = config.training.stop if config.uses("stop") else None, inputs.suite
    if isinstance(rule, MeetReference) and suite.meet is not None:
        reference = reference_of(config, inputs, workspace)
        met = evaluate_subject(reference, config, inputs, workspace, depth="reduced")
        return suite.meet(rule, knows, met)
    return suite.stop(rule, knows) if isinstance(rule, StopRule) and suite.stop else None


def take_over(config: Config, workspace: Workspace, unlearning: str) -> None:
    """Take what a finished run beside this one has unlearned, if it differs in its evaluation alone.

    Its files are linked, or copied where a file system has no links, and never changed. Nothing is taken by
    a run that has begun to unlearn itself, nor where `config.force` asks for all of it again.
    """
    begun = any((workspace.folder / name).exists() for name in OF_METHODS)
    taken = workspace.folder / ".taken"
    if distributed.rank() > 0:
        return
    shutil.rmtree(taken, ignore_errors=True)  # of a call that was ended in it
    if config.force or begun:
        return
    for done in sorted(workspace.folder.parent.glob(f"*/{DONE}")):
        other = done.parent
        if other == workspace.folder or _unlearning_of(other) != unlearning:
            continue
        log.info("%s has this unlearning; only its evaluation is made anew", other.name)
        taken.mkdir()
        for name in OF_METHODS:
            source = other / name
            if source.is_dir():
                shutil.copytree(source, taken / name, copy_function=_link)
            elif source.is_file():
                _link(source, taken / name)
        for name in OF_METHODS:
            if (taken / name).exists():
                (taken / name).rename(workspace.folder / name)
        taken.rmdir()
        return


def note_unlearning(workspace: Workspace, unlearning: str) -> None:
    """Note in a run's folder which unlearning it holds, so that other runs can take it over."""
    if distributed.rank() == 0:
        text = json.dumps({"unlearning": unlearning}) + "\n"
        write_text(workspace.folder / UNLEARNING, text)


def _unlearning_of(folder: Path) -> str | None:
    try:
        content = json.loads((folder / UNLEARNING).read_text(encoding="utf-8"))
        return str(content["unlearning"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _link(source: str | Path, place: str | Path) -> None:
    try:
        os.link(source, place)
    except OSError:
        shutil.copy2(source, place)
