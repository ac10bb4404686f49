"""The runs of a preset, made if they are not there, for a program that makes one table of them."""

import subprocess
import sys
from pathlib import Path

from loku_exp.results import folder as runs
from loku_exp.results.schema import RunPart


def named(default: str) -> tuple[str, list[str]]:
    """Return the preset that the command line names first, and the overrides behind it."""
    preset, *overrides = sys.argv[1:] or [default]
    return preset, overrides


def finished(preset: str, overrides: list[str], *, sweep: bool) -> list[Path]:
    """Run what is not finished yet of a preset; return the folders of its runs."""
    output = Path("outputs", preset)
    command = [sys.executable, "-m", "loku_exp", *(["-m"] if sweep else [])]
    subprocess.run(
        [*command, f"experiment={preset}", f"output_dir={output}", *overrides], check=True
    )
    return [path.parent for path in sorted(output.glob(f"*/{runs.DONE}"))]


def write(preset: str, text: str) -> None:
    """Print a table and write it to ``benchmarks/PRESET.md``."""
    Path("benchmarks", f"{preset}.md").write_text(text)
    print(text)


def described(run: RunPart) -> str:
    """Return what a run is of, with its seed and versions."""
    packages = ", ".join(f"{p} {run.packages[p]}" for p in ("torch", "transformers", "peft"))
    return f"{run.choices['model']} on {run.choices['dataset']} ({run.label}), seed {run.seed}, {packages}."
