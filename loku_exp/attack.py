"""Attack the models of a finished run, without unlearning again; its table then has the attacked ones too.

Usage:
    python -m loku_exp.attack outputs/RUN relearn [attacks.relearn.steps=20]
"""

import sys
from pathlib import Path

from loku_exp.runtime.programs import ending, parser_of
from loku_exp.startup import add_to, begin_program, prepare_environment


def main(arguments: list[str] | None = None) -> None:
    """Add attacks to a run; exit code 1 with a line a problem where that cannot be."""
    begin_program()
    parser = parser_of("loku_exp.attack", __doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument(
        "attacks",
        nargs="+",
        help="names, and keys of theirs (relearn attacks.relearn.rows=4), or device=, threads=, cache_dir=",
    )
    parser.add_argument("--config-dir", "-cd", help="a folder of your own yaml")
    options = parser.parse_intermixed_args(sys.argv[1:] if arguments is None else arguments)
    with ending():
        attack(options.run, options.attacks, options.config_dir)


def attack(run_folder: Path, attacks: list[str], config_dir: str | None = None) -> Path:
    """Attack the models of a finished run.

    Args:
        run_folder: of the run.
        attacks: names of ``conf/attacks``, and overrides of their keys.
        config_dir: a folder of the user's own yaml.

    Raises:
        UserError: it is no finished run, its data or models changed, or an attack has no such name.
    """
    from loku_exp.config.saved import with_attacks

    config = with_attacks(run_folder, attacks, config_dir)
    prepare_environment(config)
    return add_to(run_folder, config)


if __name__ == "__main__":
    main()
