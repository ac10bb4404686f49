"""No code from data: nothing is unpickled, remote code only by its key; and secrets stay where they are."""

import ast
from pathlib import Path

import pytest

from loku_exp.config.compose import compose_config
from loku_exp.results import files as results
from loku_exp.runtime.cache import MANIFEST
from loku_exp.startup import run_tracked
from tests.runs.running import QUICK

PACKAGE = Path(__file__).parents[2] / "loku_exp"
SECRETS = {"WANDB_API_KEY": "5ec4e7" + "a1" * 17, "HF_TOKEN": "hf_" + "Secret" * 6}
PLAIN = {
    "",
    ".json",
    ".jsonl",
    ".lock",
    ".log",
    ".md",
    ".png",
    ".safetensors",
    ".sha256",
    ".state",
    ".yaml",
}


def calls():
    """Every call in the package: file and line, the function's dotted name, its keywords."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                keywords = {word.arg: word.value for word in node.keywords}
                yield f"{file.relative_to(PACKAGE)}:{node.lineno}", ast.unparse(node.func), keywords


def is_constant(node, value):
    return isinstance(node, ast.Constant) and node.value is value


def test_nothing_is_unpickled():
    forbidden = ("pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "yaml.load")
    assert not [place for place, name, _ in calls() if name in forbidden]
    loads = [(place, words) for place, name, words in calls() if name == "torch.load"]
    assert loads
    assert not [place for place, words in loads if not is_constant(words["weights_only"], True)]
    arrays = [
        (place, words) for place, name, words in calls() if name.endswith("format.read_array")
    ]
    assert arrays
    assert not [place for place, words in arrays if not is_constant(words["allow_pickle"], False)]
    assert not [place for place, name, _ in calls() if name in ("np.load", "numpy.load")]


def test_between_processes_nothing_is_pickled():
    """The object collectives of torch pickle what they send."""
    assert not [place for place, name, _ in calls() if name.endswith(("_object", "_object_list"))]


def test_remote_code_is_run_by_its_key_alone():
    given = [
        (place, words["trust_remote_code"])
        for place, _, words in calls()
        if "trust_remote_code" in words
    ]
    assert given
    assert not [place for place, value in given if isinstance(value, ast.Constant) and value.value]


def test_no_model_allows_remote_code_by_itself():
    for file in (PACKAGE.parent / "conf/model").glob("*.yaml"):
        assert "trust_remote_code: true" not in file.read_text()


def test_a_run_leaves_plain_data_alone(quick):
    left = [path for path in quick.rglob("*") if path.is_file()]
    assert {path.suffix for path in left} <= PLAIN
    assert results.read(quick).run.remote_code is False


@pytest.mark.parametrize(
    "tracking",
    [
        ["tracking=none"],
        pytest.param(["tracking=wandb", "tracking.mode=offline"], marks=pytest.mark.slow),
    ],
)
def test_secrets_of_the_environment_are_in_no_file(tmp_path, shared_cache, monkeypatch, tracking):
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    monkeypatch.chdir(tmp_path)
    places = [f"output_dir={tmp_path}/out", f"cache_dir={shared_cache}"]
    folder = run_tracked(compose_config([*QUICK, *places, *tracking]))
    assert (folder / "adapter" / MANIFEST).is_file()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    for secret in SECRETS.values():
        assert not [path for path in files if secret.encode() in path.read_bytes()]
