"""lm-eval's own command line, which knows this bench's model class and tasks.

Usage:
    python -m loku_exp.lm_eval --model loku --model_args pretrained=DIR,peft=ADAPTER --tasks tofu_forget10
"""

import os
import sys
from pathlib import Path

from loku_exp.errors import ConfigError, UserError, nearest
from loku_exp.lm_eval import TASKS
from loku_exp.runtime.hub import use_cached_files_if_unreachable
from loku_exp.runtime.programs import DEBUG, ending

MODEL = "loku"
ANY_HUB_ID = "locuslab/TOFU"
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
        if hasattr(arguments, "include_path"):
            own = arguments.include_path
            if own is None and getattr(arguments, "config", None):
                own = EvaluatorConfig.load_yaml_config(arguments.config).get("include_path")
            arguments.include_path = [str(TASKS), *([own] if own else [])]
        try:
            cli.execute(arguments)
        except UserError:
            raise
        except (ValueError, OSError) as error:  # how lm-eval and transformers refuse
            said = " ".join(str(error).split())
            if not said.startswith(MISSING):
                raise UserError(said[:LONGEST]) from error
            raise ConfigError(_no_such_task(said.removeprefix(MISSING))) from error


def _no_such_task(names: str) -> list[str]:
    ours = sorted(Path(file).stem for file in TASKS.glob("*.yaml"))
    return [
        f"--tasks {name}: no such task{nearest(name, ours)}; this bench's are {', '.join(ours)}, and "
        "lm-eval's own are listed by: python -m loku_exp.lm_eval ls tasks"
        for name in names.split(", ")
    ]


if __name__ == "__main__":
    main()
