"""Where an unlearning by gradient steps begins: the target, adapted by an init or with all weights in fp32.

``init.safetensors`` holds A0 and B0, written once and never computed again: base weights are what is left
of the target's without their product, so a snapshot means nothing without them.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from loku_exp.data.records import Example, Records
from loku_exp.errors import UserError
from loku_exp.fisher.measure import fisher_measure
from loku_exp.fisher.moments import moments_measure
from loku_exp.fisher.variance import variance_measure
from loku_exp.inits.interface import Factors, Importance, Layer
from loku_exp.methods.adapter import Adapter, attach, coverage, load_factors, save_factors
from loku_exp.methods.few_bits import hold_in_nf4
from loku_exp.runtime import distributed
from loku_exp.runtime.cache import Cache, digest, file_digest, set_aside
from loku_exp.runtime.chosen import Chosen, check_returned
from loku_exp.runtime.seeds import derive
from loku_exp.runtime.whole_files import write_text
from loku_exp.subject import Subject
from loku_exp.workspace import Workspace

log = logging.getLogger(__name__)
INITIAL = "init.safetensors"
SUM = "init.sha256"  # as sha256sum writes it; written after the factors


@dataclass
class Started:
    """A model as its training begins: adapted by the init, or with all weights in fp32."""

    model: nn.Module
    factors: dict[str, Factors]
    adapter: Adapter | None
    report: dict[str, Any]
    dtype: str
    trainable: int


def ready_to_train(
    target: Subject,
    records: Records,
    workspace: Workspace,
    init: Chosen | None,
    adapter: Adapter | None,
) -> Started:
    """Load the target and make it ready to train; factors that are there already are taken.

    Args:
        target: what is trained.
        records: forget and retain, which an init may measure on.
        workspace: of the run.
        init: makes the factors; None without an adapter.
        adapter: its shape; None to train all weights.
    """
    load: Callable[..., Any] = target.load  # type: ignore[assignment]  # a target is a model
    if adapter is None or init is None:
        model = load(dtype="float32")
        dtype = workspace.machine.precision["model"]
        return Started(model, {}, None, {}, dtype, _trainable(model))
    model = load()
    file = workspace.folder / INITIAL
    with distributed.first_alone() as first:
        if first and not _is_whole(file):
            layers = adapter.layers(model, derive(workspace.seed, "init"))
            machine = workspace.machine
            identity = digest([target.identity, machine.precision["model"], machine.attention])
            sets = (records.forget, records.retain)
            report: dict[str, Any] = {}
            measures = _measures(model, identity, *sets, workspace.cache, report)
            save_factors(*initial_factors(init, layers, measures, report), file)
            write_text(file.with_name(SUM), f"{file_digest(file)}  {file.name}\n")
    factors, report = load_factors(file)
    report["share_of_matrices"], left_out = coverage(model, adapter.targets)
    if left_out:
        share, names = report["share_of_matrices"], ", ".join(left_out)
        log.info(
            "the adapter is on %.0f %% of the weights in matrices; not on %s", 100 * share, names
        )
    adapted, report["share_of_weight_norm"] = attach(model, factors, adapter)
    if adapter.base == "nf4":
        hold_in_nf4(adapted)
    dtype = workspace.machine.precision["model"]
    return Started(adapted, factors, adapter, report, dtype, _trainable(adapted))


def initial_factors(
    init: Chosen,
    layers: list[Layer],
    measures: dict[str, Callable[..., Any]],
    report: dict[str, Any],
) -> tuple[dict[str, Factors], dict[str, Any]]:
    """Run an init; return its factors by layer, and what it found, if it measured something.

    Args:
        init: function and knobs; its module may offer ``flops(name, layers, knobs)``.
        layers: the adapted layers.
        measures: what an init may measure with, by the name it takes it by; called only if it is.
        report: what they found.
    """
    log.info("initialising the adapter with %s", init.name)
    factors_by_layer = _checked(init, layers, init(layers=layers, **measures))
    counted = init.beside("flops")
    if counted is not None:
        report["low_rank_flops"] = counted(init.name, layers, init.knobs)
    return factors_by_layer, report


def _measures(
    model: nn.Module,
    identity: str,
    forget: list[Example],
    retain: list[Example],
    cache: Cache,
    report: dict[str, Any],
) -> dict[str, Callable[..., Any]]:
    """Return what an init may measure with; what is found and spent is written into a report."""

    def noted(measure: Callable[..., Importance]) -> Callable[..., Importance]:
        """Return a measure that writes what it finds into the report."""

        def measured(*given: Any, **knobs: Any) -> Importance:
            importance = measure(*given, **knobs)
            report["epsilon_share"] = importance.epsilon_share
            report["epsilon_dominates"] = importance.epsilon_share > 0.5
            report["fisher_flops"] = importance.flops
            if importance.fisher_pass is not None:
                report["fisher_pass"] = importance.fisher_pass  # what ``auto`` became
            return importance

        return measured

    def spent(flops: int) -> None:
        report["fisher_flops"] = report.get("fisher_flops", 0) + flops

    return {
        "fisher": noted(fisher_measure(model, identity, forget, retain, cache)),
        "variance": noted(variance_measure(model, forget, retain)),
        "moments": moments_measure(model, forget, retain, spent),
    }


def _checked(init: Chosen, layers: list[Layer], made: Any) -> dict[str, Factors]:
    """Return an init's factors by layer.

    Raises:
        UserError: some are missing, of a layer that there is not, of another shape, or not finite.
    """
    check_returned(init.target, made, Iterable)
    found = {}
    for factors in made:
        check_returned(f"an item of {init.target}", factors, Factors)
        # as the adapter holds them, so that what is taken out of the base is what it adds
        found[factors.name] = replace(factors, a=factors.a.float(), b=factors.b.float())
    for name in found.keys() - {layer.name for layer in layers}:
        raise UserError(
            f"init={init.name}: {init.target} gave factors of {name}, no layer it was given"
        )
    for layer in layers:
        outputs, inputs = layer.weight.shape
        wanted = [(layer.rank, inputs), (outputs, layer.rank)]
        if layer.name not in found:
            raise UserError(f"init={init.name}: {init.target} gave no factors of {layer.name}")
        parts = found[layer.name].a, found[layer.name].b
        shapes = [tuple(part.shape) for part in parts]
        if shapes != wanted:
            raise UserError(
                f"init={init.name}: the factors a and b of {layer.name} have the shapes {shapes[0]} and "
                f"{shapes[1]}; they must have {wanted[0]} and {wanted[1]}"
            )
        if not all(part.isfinite().all() for part in parts):
            raise UserError(f"init={init.name}: factors of {layer.name} are not finite")
    return found


def _is_whole(file: Path) -> bool:
    """Return whether factors are there as they were written; if not, what rests on them is set aside."""
    try:
        written = file.with_name(SUM).read_text(encoding="utf-8").split()[0]
    except (OSError, ValueError, IndexError):
        written = ""
    if file.is_file() and written == file_digest(file):
        return True
    snapshots = file.with_name("snapshots")
    for path in (file, snapshots):
        if path.exists() and snapshots.exists():
            set_aside(
                path, f"{file.name} is not what was written, and snapshots mean nothing without it"
            )
    return False


def _trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
