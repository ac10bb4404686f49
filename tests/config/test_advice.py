"""What messages advise can be typed: every key=value in them composes somewhere."""

import ast
import re
from pathlib import Path

import pytest

from loku_exp.config.compose import rehearse
from tests.test_house import FILES

GROUPS = ("model", "dataset", "loss", "init", "lora", "training", "evaluation", "target", "reference",
          "launcher", "tracking", "method", "attacks", "experiment")  # fmt: skip
PLAIN = ("output_dir", "cache_dir", "device", "threads", "force", "unlearn", "seed", "on_error")
ADVICE = re.compile(
    rf"(?<![\w.=/])((?:{'|'.join(GROUPS)})(?:\.\w+)*|{'|'.join(PLAIN)})=(\[[^\]]*\]|[\w./+-]+)"
)
# Where a piece of advice may be followed, beside the toy.
BASES = {
    "attacks": [["attacks=[relearn]"]],
    "dataset": [["model=phi"], ["model=gpt_neo_125m"]],
    "init": [["init=fila_official"], ["lora=none"]],
    "launcher": [["launcher=processes"], ["launcher=gpus"], ["launcher=slurm"]],
    "method": [["method=control"]],
    "model": [["model=hf", "model.path=X", "dataset=tofu", "reference.source=none"]],
    "reference": [["reference.source=path"]],
}
NO_ADVICE = {  # what a message quotes of the user's own, or says of a file
    "loss=a", "loss=", "seed=a",
}  # fmt: skip


def texts(file: Path):
    """The string constants of a file, docstrings apart, with what is filled in as {}."""
    tree = ast.parse(file.read_text())
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body and isinstance(node.body[0], ast.Expr)
    }  # fmt: skip
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in documented | parts:
            yield str(node.value)


FOUND = sorted(
    {
        f"{key}={value.rstrip('.')}"
        for file in FILES
        for text in texts(file)
        for key, value in ADVICE.findall(text)
        if "..." not in value and "{" not in value
    }
    - NO_ADVICE
)


def test_there_is_some():
    assert "model.attention=eager" in FOUND
    assert len(FOUND) > 40


@pytest.mark.slow
@pytest.mark.parametrize("advice", FOUND)
def test_it_can_be_typed(advice, tmp_path):
    key, _, value = advice.partition("=")
    typed = f"{key}={tmp_path if value in ('DIR', 'FILE', 'BASE', 'RUN') else value}"
    heard = []
    for base in [[], *BASES.get(key.split(".")[0], [])]:
        refused = [
            problem
            for problem in rehearse([*base, typed])
            if re.search(r"no such (?!folder)|should be|is not used|takes no", problem)
            and key.split(".")[0] in problem
        ]
        if not refused:
            return
        heard += refused
    raise AssertionError(f"{typed}: {heard[0]}")
