"""lm-eval's own command line with this bench's model class and tasks: ``python -m loku_exp.lm_eval``."""

from pathlib import Path

TASKS = Path(__file__).parent / "tasks"
"""The folder of the task yaml files, for ``--include_path`` of another program."""
