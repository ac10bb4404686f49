"""A run without the command line, and its numbers: ``python from_python.py [group=option] [key=value]``."""

import json
import sys

from loku_exp.config.compose import compose_config
from loku_exp.run import run

if __name__ == "__main__":  # target and reference are trained in processes of their own
    config = compose_config(["loss=gd", "init=vanilla", *sys.argv[1:]])
    folder = run(config)
    models = json.loads((folder / "metrics.json").read_text())["models"]
    for name, model in models.items():
        print(name, model["metrics"]["forget_prob"], model["metrics"]["retain_prob"])
