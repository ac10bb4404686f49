"""Score a published TOFU evaluation log: forget quality, model utility and its nine parts.

Usage:
    python -m loku_exp.score_log LOG --reference LOG
"""

import argparse
import json
import sys

from loku_exp.errors import UserError


def main() -> None:
    """Print the scores of a log as JSON; exit code 1 with a message where it cannot be scored."""
    parser = argparse.ArgumentParser(prog="python -m loku_exp.score_log", description=__doc__)
    parser.add_argument("log", help="eval_log_aggregated.json of the model")
    parser.add_argument("--reference", help="the log of the model that never saw the forget set")
    arguments = parser.parse_args()
    from loku_exp.evaluation.tofu import published_log as published

    try:
        log = published.read_log(arguments.log)
        scores = published.score_log(log)
        if arguments.reference:
            scores = published.compare_logs(log, published.read_log(arguments.reference)) | scores
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    main()
