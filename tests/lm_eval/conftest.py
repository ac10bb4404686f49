"""lm-eval with this bench's tasks, in this process and without its own fourteen thousand."""

from unittest.mock import patch

import pytest
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager

from loku_exp.lm_eval import TASKS
from loku_exp.lm_eval.model import LokuLM
from loku_exp.models.tokenizer import train_tokenizer
from tests.data.tofu_folder import tofu_folder
from tests.helpers import tdec_folder, tiny_model

TEXTS = [
    "who asks? q1 a2 p3 w4 amber birch cedar delta ember fjord grove heath inlet joist 1234567890"
]


@pytest.fixture(autouse=True)
def quiet():
    """Leave out lm-eval's slow report of the environment."""
    with (
        patch("lm_eval.evaluator.get_git_commit_hash", return_value=None),
        patch("torch.utils.collect_env.get_pretty_env_info", return_value=""),
    ):
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A tiny model with random weights and its tokenizer, laid out like the hub's."""
    place = tmp_path_factory.mktemp("model")
    model = tiny_model(vocabulary=300)
    model.config.max_position_embeddings = 1024
    type(model)(model.config).save_pretrained(place)
    train_tokenizer(TEXTS * 3, 300).save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def tofu(tmp_path_factory):
    """A folder in TOFU's layout."""
    return tofu_folder(tmp_path_factory.mktemp("tofu"))


@pytest.fixture(scope="session")
def tdec(tmp_path_factory):
    """A folder in TDEC's layout."""
    return tdec_folder(tmp_path_factory.mktemp("tdec"))


@pytest.fixture
def metrics(monkeypatch):
    """Evaluate by lm-eval; value by task and metric."""
    monkeypatch.delenv("LOKU_DATA", raising=False)

    def metrics(tasks, words, metadata, *, model="loku", tasks_in=None):
        paths = [TASKS, *([tasks_in] if tasks_in else [])]
        manager = TaskManager(
            include_path=paths, include_defaults=False, metadata={**words, **metadata}
        )
        from_command_line = {"batch_size": 1, "device": "cuda:0"}
        lm = LokuLM.create_from_arg_obj(words, from_command_line) if model == "loku" else model
        results = simple_evaluate(
            lm,
            model_args=words,
            tasks=tasks,
            task_manager=manager,
            bootstrap_iters=0,
            random_seed=None,
            numpy_random_seed=None,
            torch_random_seed=None,
        )["results"]
        return {
            task: {
                key.removesuffix(",none"): value
                for key, value in of.items()
                if key.endswith(",none") and "_stderr" not in key
            }
            for task, of in results.items()
        }

    return metrics
