"""GPT-Neo-1.3B, Phi-1.5 and Llama-2-7B with random weights on one CUDA card, in ten minutes.

Usage:
    python -m benchmarks.gpu [--to FOLDER] [--dry-run] [--leave-out PART]... [gpt_neo_1_3b] [phi] [llama2]

Every timed part is first checked against float64 on a small shape of the same architecture. Rates are
beside the speed of a large matrix product in the same precision, measured in the same run. What does not
fit the card or the ten minutes is named in the result; shapes that an earlier run timed stay in the file.
``--dry-run`` runs the same code with tiny shapes on a CPU; its times mean nothing.
"""

import argparse
import gc
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_parts import PARTS, Bench, Part
from loku_exp.stages.provenance import provenance

SHAPES = ("gpt_neo_1_3b", "phi", "llama2")
SECONDS = 600


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("shapes", nargs="*", default=[], help=f"of {', '.join(SHAPES)}; all")
    parser.add_argument("--to", type=Path, default=Path("benchmarks"), help="folder of gpu.json")
    parser.add_argument("--dry-run", action="store_true", help="tiny shapes on the CPU")
    parser.add_argument(
        "--leave-out",
        action="append",
        default=[],
        choices=PARTS,
        metavar="PART",
        help=f"of {', '.join(PARTS)}",
    )
    options = parser.parse_args(arguments)
    unknown = sorted({*options.shapes} - {*SHAPES})
    if unknown:
        parser.error(f"no such shape: {', '.join(unknown)}; there are {', '.join(SHAPES)}")
    if not options.dry_run and not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks.gpu needs a CUDA device and torch sees none here; --dry-run runs the same code "
            "with tiny shapes on the CPU"
        )
    device = torch.device("cpu" if options.dry_run else "cuda")
    deadline = time.monotonic() + SECONDS
    options.to.mkdir(parents=True, exist_ok=True)
    file = options.to / ("gpu_dry_run.json" if options.dry_run else "gpu.json")
    shapes: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for name in options.shapes or SHAPES:
        bench = Bench(name, device, tiny=options.dry_run)
        shapes[name] = found = {"where": provenance(), "check": bench.check()}
        for part, way in bench.parts():
            if part in options.leave_out:
                found[part] = {"left_out": "asked for"}
                continue
            found[part] = run_part(way, device, deadline)
            print(name, part, json.dumps(found[part]), flush=True)
            file.write_text(json.dumps(shapes, indent=1) + "\n")
        del bench
    print(f"written to {file}")


def run_part(way: Part, device: torch.device, deadline: float) -> dict[str, Any]:
    """Return what a part found, its seconds and peak memory; or why it has none."""
    if time.monotonic() > deadline:
        return {"left_out": f"the {SECONDS} s were spent"}
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = time.monotonic()
    try:
        found = way()
    except torch.cuda.OutOfMemoryError:
        return {"left_out": "does not fit this card"}
    if device.type == "cuda":
        found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found | {"seconds_of_part": time.monotonic() - start}


if __name__ == "__main__":
    main()
