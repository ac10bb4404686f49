"""Score a TOFU evaluation log made elsewhere: forget quality, model utility and its nine parts.

A log of TOFU's authors (``eval_log_aggregated.json``) or of OpenUnlearning (``TOFU_EVAL.json``).

Usage:
    python -m loku_exp.score_log LOG --reference LOG
"""

import json

from loku_exp.runtime.programs import ending, parser_of


def main() -> None:
    """Print the scores of a log as JSON; exit code 1 with a message where it cannot be scored."""
    parser = parser_of("loku_exp.score_log", __doc__)
    parser.add_argument("log", help="the log of the model")
    parser.add_argument("--reference", help="the log of the model that never saw the forget set")
    arguments = parser.parse_args()
    with ending():
        from loku_exp.evaluation.tofu import published_log as published

        log = published.read_log(arguments.log)
        scores = published.score_log(log)
        if arguments.reference:
            scores = published.compare_logs(log, published.read_log(arguments.reference)) | scores
        print(json.dumps(scores, indent=2))


if __name__ == "__main__":
    main()
