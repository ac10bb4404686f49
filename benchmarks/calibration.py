"""Is forget quality a test at its level, and how many rows does it need? Toy references and targets tell.

Usage:
    python -m benchmarks.calibration [--references 9] [--targets 3]

References differ in their seed alone, so a test at the 5 % level should tell two of them apart in 5 % of
all pairs. Rows of one author hang together, so the Kolmogorov-Smirnov test, which takes them for
independent, may do so more often: then the table has the distances that pairs of references really reach,
a corrected null. Power: how often a target is told from a reference, by number of forget rows. Toy models;
writes calibration.json beside this file.
"""

import argparse
import itertools
import json
import math
import random
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from scipy import stats

from loku_exp.config.compose import compose_config
from loku_exp.data.corpus import Role
from loku_exp.evaluation.tofu import metrics
from loku_exp.evaluation.tofu.judge import log_ratios
from loku_exp.runtime.cache import Cache
from loku_exp.runtime.logs import start_logging
from loku_exp.runtime.whole_files import write_text
from loku_exp.stages.bases import make_base
from loku_exp.stages.evaluate import evaluate_subject
from loku_exp.stages.inputs import load_inputs
from loku_exp.stages.machine import machine_of, on_this_machine
from loku_exp.workspace import Workspace

RESULTS = Path(__file__).with_suffix(".json")
LEVEL = 0.05
SIZES = (10, 20, 40, 60, 80)
DRAWS = 20  # subsets of rows for each pair and size
Ratios = dict[int, float]


def main() -> None:
    """Measure, print, and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--references", type=int, default=9)
    parser.add_argument("--targets", type=int, default=3)
    options = parser.parse_args()
    start_logging()
    references = [ratios_of("reference", seed) for seed in range(options.references)]
    targets = [ratios_of("target", seed) for seed in range(options.targets)]
    content = {
        "null": null(references),
        "power": power(references, targets),
        "references": options.references,
        "targets": options.targets,
        "rows": len(references[0]),
        "toy": True,
    }
    write_text(RESULTS, json.dumps(content, indent=1) + "\n")
    for line in lines(content):
        print(line)


def ratios_of(role: Role, seed: int) -> Ratios:
    """Return log R of the forget rows of a toy model, trained where it is not cached."""
    config = on_this_machine(compose_config([f"{role}.seed={seed}"]))
    cache = Cache(config.cache_dir)
    print(f"{role} {seed}", file=sys.stderr)
    inputs = load_inputs(config, cache)
    workspace = Workspace(
        Path(cache.root) / "calibration", cache, 0, machine_of(config), inputs.tokenizer
    )
    subject = make_base(role, config, inputs, workspace)
    return log_ratios(evaluate_subject(subject, config, inputs, workspace).examples)


def null(references: list[Ratios]) -> dict[str, Any]:
    """Return how often two references are told apart, with the interval of a test at its level."""
    pairs = list(itertools.combinations(references, 2))
    found = [tell_apart(first, second, list(first)) for first, second in pairs]
    below = sum(p < LEVEL for p, _ in found)
    low, high = stats.binom.interval(0.95, len(pairs), LEVEL)
    by_distance = sorted(found, key=lambda pair: pair[1])
    p, distance = by_distance[math.ceil(0.95 * len(by_distance)) - 1]
    return {
        "pairs": len(pairs),
        "share_below": below / len(pairs),
        "interval": [low / len(pairs), high / len(pairs)],
        "inside": bool(low <= below <= high),
        "distance_95": distance,
        "p_at_distance_95": p,
    }


def power(references: list[Ratios], targets: list[Ratios]) -> list[dict[str, float]]:
    """Return, by number of rows, how often a target and a second reference are told from a reference."""
    rng = random.Random(0)
    rows = list(references[0])
    found = []
    for size in [size for size in SIZES if size <= len(rows)]:
        shares = {}
        for name, pairs in (
            ("target", itertools.product(targets, references)),
            ("reference", itertools.combinations(references, 2)),
        ):
            told = [
                tell_apart(first, second, rng.sample(rows, size))[0] < LEVEL
                for first, second in pairs
                for _ in range(DRAWS)
            ]
            shares[name] = fmean(told)
        found.append({"rows": size} | shares)
    return found


def tell_apart(first: Ratios, second: Ratios, rows: list[int]) -> tuple[float, float]:
    """Return p and distance of two models on some rows."""
    return metrics.forget_quality([first[row] for row in rows], [second[row] for row in rows])


def lines(content: dict[str, Any]) -> list[str]:
    """Return what was found as Markdown."""
    null_of, low_high = content["null"], content["null"]["interval"]
    said = [
        f"{null_of['pairs']} pairs of {content['references']} TOY references, {content['rows']} rows: "
        f"p < .05 in {null_of['share_below']:.1%}; a test at its level: {low_high[0]:.1%} to "
        f"{low_high[1]:.1%} ({'inside' if null_of['inside'] else 'OUTSIDE'}). 95 % of the pairs are "
        f"within a KS distance of {null_of['distance_95']:.3f} (p = {null_of['p_at_distance_95']:.2g}).",
        "",
        "| forget rows | target told from a reference | reference told from a reference |",
        "|---:|---:|---:|",
    ]
    return said + [
        f"| {row['rows']:g} | {row['target']:.1%} | {row['reference']:.1%} |"
        for row in content["power"]
    ]


if __name__ == "__main__":
    main()
