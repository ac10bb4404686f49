"""What is the same for every subject of a run: its texts, their encoding, and the tasks made of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from loku_exp.config.schema import Config
from loku_exp.data.corpus import Corpus
from loku_exp.data.records import Records
from loku_exp.errors import Gathered, UserError
from loku_exp.evaluation.ability.build import ability
from loku_exp.evaluation.earlier import with_earlier
from loku_exp.evaluation.harness import documents_digest, standard_tasks
from loku_exp.evaluation.suite import Suite
from loku_exp.models import load as models
from loku_exp.models.tokenizer import load_tokenizer, template_of
from loku_exp.runtime.cache import Cache, digest, file_digest
from loku_exp.runtime.chosen import check_returned
from loku_exp.runtime.settings import Template
from loku_exp.stages.earlier import Earlier, earlier_of, load_corpus
from loku_exp.stages.forgotten import corpus_of_tokenizer, forgotten_before
from loku_exp.stages.weights import weights_problems

TASK_FILES = (".yaml", ".yml", ".py")  # of a user's own tasks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Texts and tasks of a run.

    Attributes:
        corpus: the dataset as text.
        tokenizer: the model's.
        tokenizer_digest: its identity.
        template: the text around a question.
        records: the dataset as labelled ids.
        max_length: the model's context in tokens.
        suite: the tasks made of the evaluation sets, and their words.
        abilities: tasks that do not depend on the forget set: the suite's, general ones, lm-eval's.
        missing_abilities: by task whose data could not be had, why; only where such are left out.
        ability_digest: identity of the abilities' documents.
        earlier: the run that this one starts from; None where it starts from a model.
    """

    corpus: Corpus
    tokenizer: PreTrainedTokenizerBase
    tokenizer_digest: str
    template: Template
    records: Records
    max_length: int
    suite: Suite
    abilities: Sequence[Any]
    missing_abilities: dict[str, str]
    ability_digest: str
    earlier: Earlier | None = None


def load_inputs(config: Config, cache: Cache) -> Inputs:
    """Load corpus and tokenizer, encode, and build all tasks; no weights are read.

    Raises:
        UserError: something cannot be loaded or does not fit together; what is wrong with the data is said
            together with what is wrong with the model and its weights.
    """
    earlier = earlier_of(config)
    corpus, (tokenizer, tokenizer_digest), max_length = _sources(config, earlier, cache)
    template = template_of(config.model, tokenizer)
    records = corpus.records(tokenizer, template, max_length)
    check_returned(f"records of {config.dataset.target}", records, Records)
    if not any(records.evaluation.values()):
        raise UserError(f"dataset={config.dataset.label}: it has no row to evaluate; give it some")
    evaluation = config.evaluation
    suite: Suite = evaluation.chosen()(records=records, tokenizer=tokenizer, max_length=max_length)
    check_returned(evaluation.target, suite, Suite)
    if earlier is not None:
        model = (tokenizer, tokenizer_digest), template, max_length
        suite = with_earlier(suite, forgotten_before(config, earlier, records, *model, cache))
    further = ability(
        evaluation.abilities,
        tokenizer,
        max_length,
        data_dir=evaluation.data_dir,
        texts_dir=evaluation.texts_dir,
        skip_missing=evaluation.skip_missing,
    )
    abilities = [*suite.abilities, *further.tasks]
    abilities += standard_tasks(evaluation.tasks, evaluation.include_path)
    if evaluation.limit and not abilities and not further.missing:
        log.warning("evaluation.limit=%d cuts nothing: no abilities are asked", evaluation.limit)
    return Inputs(
        corpus,
        tokenizer,
        tokenizer_digest,
        template,
        records,
        max_length,
        suite,
        abilities,
        further.missing,
        _digest_of(abilities, evaluation.include_path),
        earlier,
    )


def _digest_of(abilities: list[Any], include_path: str | None) -> str:
    """Return the identity of what abilities ask: their documents, and a user's own tasks as written."""
    documents = documents_digest(abilities)
    if include_path is None:
        return documents
    place = Path(include_path).expanduser()
    files = sorted(
        file for kind in TASK_FILES for file in place.rglob(f"*{kind}") if file.is_file()
    )
    return digest([documents, [[str(f.relative_to(place)), file_digest(f)] for f in files]])


def _sources(
    config: Config, earlier: Earlier | None, cache: Cache
) -> tuple[Corpus, tuple[PreTrainedTokenizerBase, str], int]:
    """Return the corpus, the model's tokenizer with its digest, and its context length in tokens."""
    found, model = Gathered(), config.model
    corpus = found.of(lambda: load_corpus(config))
    loaded, length = None, None
    if corpus is not None or model.tokenizer is not None:  # else it is trained on texts
        trained_on = corpus_of_tokenizer(config, earlier, corpus)
        loaded = found.of(lambda: load_tokenizer(model, trained_on, cache))
    if loaded is not None:
        tokenizer = loaded[0]
        length = found.of(lambda: models.context_length(models.architecture(model, tokenizer)))
    if found.problems:  # a run that goes on looks at its weights in its preflight
        found.problems += weights_problems(config, loaded)
    found.end_if_any()
    return cast(tuple[Corpus, tuple[PreTrainedTokenizerBase, str], int], (corpus, loaded, length))
