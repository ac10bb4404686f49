"""lm-eval's own command line, which knows this bench's model class and tasks.

Usage:
    python -m loku_exp.lm_eval --model loku --model_args pretrained=DIR,peft=ADAPTER --tasks tofu_forget10
"""

import fnmatch
import glob
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from loku_exp.errors import ConfigError, UserError, nearest
from loku_exp.lm_eval import TASKS
from loku_exp.runtime.hub import use_cached_files_if_unreachable
from loku_exp.runtime.programs import DEBUG, ending

MODEL = "loku"
ANY_HUB_ID = "locuslab/TOFU"
FOR_STOCK_TASKS = ("num_fewshot", "apply_chat_template", "system_instruction", "gen_kwargs")
OF_OURS = "loku_exp.lm_eval.sets.EvaluationSet"  # the class that a task yaml names
NAME = re.compile(r"""^task:\s*["']?([\w.-]+)""", re.MULTILINE)
LONGEST = 300  # characters of a message that is not ours
MISSING = "Tasks not found: "  # how lm-eval begins to say so


def main() -> None:
    """Run lm-eval's command line; what is wrong with our part of it is a line each, exit code 1."""
    if "--debug" in sys.argv:
        sys.argv.remove("--debug")
        os.environ[DEBUG] = "1"
    with ending():
        import lm_eval.models  # noqa: F401 - its own models are in the registry
        from lm_eval._cli import HarnessCLI
        from lm_eval.api.registry import model_registry
        from lm_eval.config.evaluate_config import EvaluatorConfig
        from lm_eval.utils import setup_logging

        setup_logging()
        if MODEL not in model_registry:  # a later lm-eval finds it by its entry point
            model_registry.register(MODEL, target="loku_exp.lm_eval.model:LokuLM")
        cli = HarnessCLI()
        arguments = cli.parse_args()
        use_cached_files_if_unreachable([ANY_HUB_ID])
        try:
            file = getattr(arguments, "config", None)
            given = EvaluatorConfig.load_yaml_config(file) if file else {}
            typed = vars(arguments)
            given |= {name: v for name, v in typed.items() if v or v == 0}  # as lm-eval does
            own = given.get("include_path")
            if problems := _not_followed(given, own):
                raise ConfigError(problems)
            if hasattr(arguments, "include_path"):
                arguments.include_path = [str(TASKS), *([own] if own else [])]
            cli.execute(arguments)
        except UserError:
            raise
        except (ValueError, OSError) as error:  # how lm-eval and transformers refuse
            said = " ".join(str(error).split())
            if not said.startswith(MISSING):
                raise UserError(said[:LONGEST]) from error
            raise ConfigError(_no_such_task(said.removeprefix(MISSING))) from error


def _our_tasks() -> list[str]:
    return sorted(Path(file).stem for file in TASKS.glob("*.yaml"))


def _tasks_of(files: Iterable[Path]) -> list[str]:
    """Return the tasks in a user's files that are sets of ours."""
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()]
    return [name for text in texts if OF_OURS in text for name in NAME.findall(text)]


def _meant(name: str, known: list[str]) -> list[str]:
    """Return which tasks of ours one name stands for: a pattern, a file or a folder may be many."""
    if name.endswith(".yaml"):
        return _tasks_of(map(Path, glob.glob(name)))
    return fnmatch.filter(known, name) or _tasks_of(sorted(Path(name).glob("*.yaml")))


def _not_followed(arguments: dict[str, Any], own: str | None) -> list[str]:
    """Return which options of lm-eval would go unheard by tasks of ours, and a user's made of them."""
    beside = sorted(Path(own).expanduser().rglob("*.yaml")) if own else []
    tasks, known = arguments.get("tasks") or [], [*_our_tasks(), *_tasks_of(beside)]
    # a file of settings may have them as one text
    named = (tasks if isinstance(tasks, str) else ",".join(tasks)).split(",")
    meant = [task for name in named if name.strip() for task in _meant(name.strip(), known)]
    ours = ", ".join(dict.fromkeys(meant))
    found = [
        f"--{option}={value}: {ours} do not follow it, their prompts and generation are the "
        "protocol's (--model_args model.template=chat takes the chat template); give lm-eval's own tasks a "
        "command of their own"
        for option in FOR_STOCK_TASKS
        if ours and (value := arguments.get(option))
    ]
    if ours and arguments.get("predict_only"):
        found.append(
            f"--predict_only: {ours} are measured in any case; leave it out (--log_samples writes what a "
            "model answered)"
        )
    return found


def _no_such_task(names: str) -> list[str]:
    ours = _our_tasks()
    return [
        f"--tasks {name}: no such task{nearest(name, ours)}; this bench's are {', '.join(ours)}, and "
        "lm-eval's own are listed by: python -m loku_exp.lm_eval ls tasks"
        for name in names.split(", ")
    ]


if __name__ == "__main__":
    main()
