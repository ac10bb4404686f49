"""What earlier runs forgot, asked again by a run that starts from what the last of them left."""

from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from loku_exp.config.schema import Config
from loku_exp.data.corpus import Corpus
from loku_exp.data.overlap import overlaps
from loku_exp.data.records import Example, Records
from loku_exp.data.text import Text
from loku_exp.errors import ConfigError, UserError
from loku_exp.evaluation.suite import Evaluation
from loku_exp.models import identity
from loku_exp.models.tokenizer import load_tokenizer, template_of
from loku_exp.runtime.cache import Cache, digest
from loku_exp.runtime.settings import ModelSettings, Template
from loku_exp.stages.earlier import Earlier, load_corpus, named_in

SHOWN = 5  # rows in a message


def corpus_of_tokenizer(
    config: Config, earlier: Earlier | None, own: Corpus | None
) -> Corpus | None:
    """Return what a tokenizer is trained on where a model names none: the first run's texts."""
    if config.model.tokenizer is not None or earlier is None:
        return own
    then = earlier.config
    return corpus_of_tokenizer(
        then, earlier.before, load_corpus(then) if not earlier.before else None
    )


def forgotten_before(
    config: Config,
    earlier: Earlier,
    records: Records,
    tokenizer: tuple[PreTrainedTokenizerBase, str],
    template: Template,
    max_length: int,
    cache: Cache,
) -> list[Example]:
    """Return the rows that earlier runs were asked about after they had forgotten them, the newest first.

    Args:
        config: of the run that starts from them.
        earlier: what it starts from.
        records: of that run.
        tokenizer: of that run, and its digest.
        template: of that run.
        max_length: the model's context in tokens.
        cache: keeps tokenizers.

    Raises:
        UserError: an earlier run was of another model, tokenizer or template, its data changed, or a row it
            forgot is in this run's forget or retain set.
    """
    rows: list[Example] = []
    for run in earlier.chain():
        try:
            found = _model_problems(config.model, run.config.model)
            named = load_tokenizer(run.config.model, _texts_of_tokenizer(run), cache)
            if named[1] != tokenizer[1]:
                found.append(
                    "its tokenizer is another one than this run's; name it in model.tokenizer"
                )
            elif template_of(run.config.model, named[0]) != template:
                found.append("its template (model.template) is another one than this run's")
            if found:
                raise ConfigError(found)
            theirs = _records(run, tokenizer[0], template, max_length)
            asked = theirs.evaluation["forget"][: _limit(run.config)]
            _check_apart(records, [*theirs.forget, *asked])
        except UserError as error:
            raise named_in(config, error) from error
        rows += [
            replace(row, row=number, group=f"{run.record.run.id} {row.group}", role="earlier")
            for number, row in enumerate(asked, len(rows))
        ]
    return rows


def _texts_of_tokenizer(run: Earlier) -> Corpus | None:
    own = load_corpus(run.config) if run.before is None else None
    return corpus_of_tokenizer(run.config, run.before, own)


def _records(
    run: Earlier, tokenizer: PreTrainedTokenizerBase, template: Template, most: int
) -> Records:
    corpus = load_corpus(run.config)
    if corpus.digest() != run.record.protocol["data_digest"]:
        raise UserError(
            "its data is no longer what it was run on, so its forget set cannot be asked again"
        )
    records = corpus.records(tokenizer, template, most)
    if not records.evaluation.get("forget"):
        raise UserError(
            f"dataset {run.config.dataset.label} evaluates no set named forget, which would be asked again"
        )
    return records


def _limit(config: Config) -> int | None:
    """Return how many rows of a set the run's suite asked about; None: all."""
    rows = config.evaluation.knobs.get("rows")
    return rows if isinstance(rows, int) else None


def _model_problems(ours: ModelSettings, theirs: ModelSettings) -> list[str]:
    """Return whether two runs are of different base models, wherever these lie."""

    def base(model: ModelSettings) -> str:
        if model.weights == "pretrained":
            return identity.weights_digest(str(model.path), "model.path", model)
        return digest([model.architecture, model.vocabulary])

    alike = ours.weights == theirs.weights
    same_place = ours.path is not None and (ours.path, ours.revision) == (
        theirs.path,
        theirs.revision,
    )
    if alike and (same_place or base(ours) == base(theirs)):
        return []
    there, here = (f"{m.name} ({m.path or 'trained from scratch'})" for m in (theirs, ours))
    return [f"its base model is {there}, this run's is {here}; give this run that model"]


def _check_apart(ours: Records, forgotten: list[Example]) -> None:
    """Check that no row that was forgotten is to be forgotten again, or is taught again.

    Raises:
        ConfigError: with the rows.
    """
    why = {
        "forget": "are forgotten already",
        "retain": "were forgotten, and to keep them would teach them again",
    }
    problems = []
    for name, rows in (("forget", ours.forget), ("retain", ours.retain)):
        shared = _shared(rows, forgotten)
        if shared:
            pairs = [f"{row} (its forget row {other})" for row, other in [*shared.items()][:SHOWN]]
            pairs += ["..."] if len(shared) > SHOWN else []
            problems.append(
                f"{len(shared)} rows of this run's {name} set {why[name]}: row {', '.join(pairs)}; leave "
                "them out"
            )
    if problems:
        raise ConfigError(problems)


def _shared(ours: list[Example], theirs: list[Example]) -> dict[int, int]:
    """Return, for each of our rows with a question of theirs, or a passage of their texts, their row."""
    asked = {row.prompt: row.row for row in theirs if row.question}
    same = {row.row: asked[row.prompt] for row in ours if row.question and row.prompt in asked}
    texts = ([_as_text(row) for row in rows if not row.question] for rows in (ours, theirs))
    return same | overlaps(*texts)


def _as_text(row: Example) -> Text:
    return Text(row.row, row.group, None, row.prompt)


def said_of(earlier: Earlier, evaluations: dict[str, Evaluation]) -> list[str]:
    """Return what stands under the table of a run that started from another one."""
    run, metric = earlier.record, "forget_prob"
    before, after = (run.models[name].metrics.get(metric) for name in ("target", "unlearned"))
    was = (
        ""
        if before is None or after is None
        else f"; there it went from {before:.3f} to {after:.3f}"
    )
    now = evaluations["unlearned" if "unlearned" in evaluations else "target"]
    count = now.counts.get("earlier", 0)
    many = "" if earlier.before is None else ", and of those before it"
    return [
        f"target: what run {run.run.id} left ({earlier.folder.name}); earlier forget set: its {count} rows"
        f"{many}, asked again. What is larger in unlearned than in target came back{was}"
    ]


def started_from(earlier: Earlier | None) -> dict[str, str]:
    """Return which run a run started from, for its record; nothing where it started from a model."""
    if earlier is None:
        return {}
    return {"target_run": earlier.record.run.id, "target_left_by_it": earlier.identity}
