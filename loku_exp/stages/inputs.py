"""What is the same for every model of a run: its texts, their encoding, and the tasks made of them."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from loku_exp.config.schema import Config
from loku_exp.data.corpus import Corpus
from loku_exp.data.records import Records
from loku_exp.evaluation.harness import documents_digest, standard_tasks
from loku_exp.evaluation.lm.responses import Responses
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.evaluation.suite import Suite
from loku_exp.models import load as models
from loku_exp.models.tokenizer import load_tokenizer
from loku_exp.runtime.cache import Cache


@dataclass(frozen=True)
class Materials:
    """Texts and tasks of a run.

    Attributes:
        corpus: the dataset as text.
        tokenizer: the model's.
        tokenizer_digest: its identity.
        records: the dataset as labelled ids.
        max_length: the model's context in tokens.
        suite: the tasks made of the evaluation sets.
        abilities: tasks that do not depend on the dataset: the suite's, and lm-eval's by name.
        ability_digest: identity of the abilities' documents.
    """

    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    tokenizer_digest: str
    records: Records
    max_length: int
    suite: Suite
    abilities: list[Any]
    ability_digest: str


def load_materials(config: Config, cache: Cache) -> Materials:
    """Load corpus and tokenizer, encode, and build all tasks; no weights are read.

    Raises:
        UserError: something cannot be loaded or does not fit together.
    """
    corpus: Corpus = config.dataset.resolve()(**config.dataset.knobs)
    tokenizer, tokenizer_digest = load_tokenizer(config.model, corpus, cache)
    max_length = models.context_length(models.architecture(config.model, tokenizer))
    template = config.model.template
    records = corpus.records(tokenizer, template, max_length)
    available = {"records": records, "tokenizer": tokenizer, "max_length": max_length}
    evaluation = config.evaluation
    suite: Suite = evaluation.resolve()(
        **{name: available[name] for name in evaluation.inputs}, **evaluation.knobs
    )
    abilities = [*suite.abilities, *standard_tasks(evaluation.tasks, evaluation.include_path)]
    return Materials(
        corpus,
        tokenizer,
        tokenizer_digest,
        records,
        max_length,
        suite,
        abilities,
        documents_digest(abilities),
    )


def language_model(
    model: Any, config: Config, materials: Materials, responses: Responses | None = None
) -> UnlearnLM:
    """Wrap a model for one evaluation."""
    return UnlearnLM(
        model,
        materials.tokenizer,
        batch_tokens=config.evaluation.batch_tokens,
        max_length=materials.max_length,
        decode_bytes=config.evaluation.decode_bytes,
        stop_at_eos=config.model.stop_at_eos,
        responses=responses,
    )
