"""Load a model's tokenizer, or train one."""

import copy
from pathlib import Path
from typing import cast

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from loku_exp.data.corpus import Corpus
from loku_exp.data.records import Example, Records
from loku_exp.data.tokens import plain_ids
from loku_exp.errors import ModelError
from loku_exp.models.configuration import read_config
from loku_exp.models.identity import PROBE, tokenizer_digest
from loku_exp.runtime.cache import Cache, digest
from loku_exp.runtime.hub import LONGEST_REASON, cannot_load, expanded, is_local
from loku_exp.runtime.settings import ModelSettings, Template

END_OF_TEXT = "<|endoftext|>"
SPECIAL = ("bos_token", "eos_token", "pad_token")
# A chat template may ask for the date: the day's own would be another prompt, and another run, every day.
DATED = "{% macro strftime_now(format) %}10 Apr 2025{% endmacro +%}"


def load_tokenizer(
    model: ModelSettings, corpus: Corpus | None, cache: Cache
) -> tuple[PreTrainedTokenizerBase, str]:
    """Return the model's tokenizer and its digest; without one, train a BPE on the corpus.

    Args:
        model: names its tokenizer, or how large one is trained.
        corpus: read only where one is trained.
        cache: keeps it.

    Raises:
        ModelError: it cannot be loaded, reads nothing, or has no end-of-text token.
    """
    key = "model.path" if model.tokenizer == model.path else "model.tokenizer"
    path = model.tokenizer or _trained(model, cast(Corpus, corpus), cache)
    if path == model.path:
        read_config(model, path, key)  # transformers reads it too, and speaks of the tokenizer
    revision = model.revision if model.path in (path, None) else None  # of its own path, no other's
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            expanded(path), revision=revision, trust_remote_code=model.trust_remote_code
        )
        read = tokenizer(PROBE, add_special_tokens=False).input_ids
    except Exception as error:  # as many kinds as there are formats; each says what is wrong
        if not is_local(path) or "trust_remote_code" in str(error):
            raise ModelError(cannot_load(key, path, error)) from error
        raise ModelError(_no_tokenizer(key, path, error)) from error
    if not read or set(read) == {tokenizer.unk_token_id}:
        raise ModelError(_no_tokenizer(key, path))  # transformers makes up an empty one
    if plain_ids(tokenizer, PROBE)[-len(read) :] != read:
        raise ModelError(
            f"{key}={path}: its tokenizer gives a text other ids where it adds special tokens, so nobody "
            "can say where the text ends; give one that adds none: model.tokenizer=DIR"
        )
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{key}={path} has no end-of-text token, which ends every answer; name one of its tokens as "
            "eos_token in tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # masks come from lengths, never from ids
    return tokenizer, tokenizer_digest(tokenizer)


def template_of(model: ModelSettings, tokenizer: PreTrainedTokenizerBase) -> Template:
    """Return the text around a question; of a chat model what its chat template puts there.

    Where that names the date it is always 10 Apr 2025, which OpenUnlearning's prompts have.

    Args:
        model: says which.
        tokenizer: the model's.

    Raises:
        ModelError: ``chat`` was asked for, and the tokenizer has none that could be used.
    """
    if isinstance(model.template, Template):
        return model.template
    instead = (
        "give the text itself: model.template.question_start=..., question_end=..., answer_tag=..."
    )
    mark = "QUESTION"
    if not tokenizer.chat_template:
        raise ModelError(f"model.template=chat: this tokenizer has no chat template; {instead}")
    try:
        asked = [{"role": "user", "content": mark}]
        text = tokenizer.apply_chat_template(
            asked,
            chat_template=DATED + tokenizer.get_chat_template(),
            tokenize=False,
            add_generation_prompt=True,
        )
        start, end = str(text).split(mark)
    except Exception as error:  # a template is a program of whoever made the model
        said = " ".join(str(error).split())[:LONGEST_REASON]
        raise ModelError(
            f"model.template=chat: the tokenizer's chat template fails ({said}); {instead}"
        ) from error
    first = tokenizer.bos_token or ""
    if (
        first
        and start.startswith(first)
        and plain_ids(tokenizer, "")[:1] == [tokenizer.bos_token_id]
    ):
        start = start[len(first) :]  # the tokenizer adds it, too
    return Template(question_start=start, question_end=end, answer_tag="")


def _trained(model: ModelSettings, corpus: Corpus, cache: Cache) -> str:
    """Return the folder of a tokenizer that is trained on a corpus, where it is not cached."""
    if not isinstance(model.template, Template):
        raise ModelError(
            "model.template=chat: the tokenizer is trained here and has no chat template; leave it out"
        )
    texts = corpus.texts(model.template)
    recipe = {"texts": digest(texts), "vocabulary": model.vocabulary}

    def build(folder: Path) -> None:
        train_tokenizer(texts, model.vocabulary or 0).save_pretrained(folder)

    return str(cache.entry("tokenizers", recipe, build))


def plain_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a tokenizer that gives `plain_ids` itself, for libraries that call it on their own.

    It is the same one where nothing is added after a text, else a copy.

    Raises:
        ModelError: it is not a fast one, so what it adds cannot be set.
    """
    before = plain_ids(tokenizer, "")
    if tokenizer("").input_ids == before:
        return tokenizer
    if not tokenizer.is_fast:
        raise ModelError(
            f"this {type(tokenizer).__name__} adds special tokens after a text and cannot be told not to; "
            "save it as a fast one (tokenizer.json), or with add_eos_token false"
        )
    plain = copy.deepcopy(tokenizer)
    names = [str(name) for name in tokenizer.convert_ids_to_tokens(before)]
    plain.backend_tokenizer.post_processor = TemplateProcessing(
        single=[*names, "$A"],
        pair=[*names, "$A", "$B"],
        special_tokens=list(zip(names, before, strict=True)),
    )
    return plain


def _no_tokenizer(key: str, path: str, error: Exception | None = None) -> str:
    reason = f" ({' '.join(str(error).split())[:LONGEST_REASON]})" if error else ""
    return (
        f"{key}={path} has no tokenizer that reads text{reason}; put its files there (tokenizer.json, "
        "tokenizer_config.json), or say where they are: model.tokenizer=DIR"
    )


def misfits(tokenizer: PreTrainedTokenizerBase, rows: int, name: str) -> list[str]:
    """Return which of a tokenizer's ids have no row in a model's embedding.

    Tokens that were added to a vocabulary and serve nothing do no harm while no text spells them; see
    `beyond`.

    Args:
        tokenizer: the model's.
        rows: of the embedding.
        name: key and path of the model, for the message.
    """
    fix = (
        "; take the tokenizer that belongs to the model (model.tokenizer=DIR), or give the model the rows "
        "once: model.resize_token_embeddings(len(tokenizer)), save_pretrained(DIR)"
    )
    special = {kind: getattr(tokenizer, f"{kind}_id") for kind in SPECIAL}
    found = [
        f"{name} has {rows} rows in its embedding, and the tokenizer's {kind} "
        f"'{tokenizer.convert_ids_to_tokens(number)}' has id {number}{fix}"
        for kind, number in special.items()
        if number is not None and number >= rows
    ]
    plain = set(tokenizer.get_vocab().values()) - set(tokenizer.get_added_vocab().values())
    above = sum(number >= rows for number in plain)
    if above:
        found.append(
            f"{name} has {rows} rows in its embedding, and {above} of the tokenizer's {len(plain)} tokens "
            f"have larger ids, up to {max(plain)}{fix}"
        )
    return found


def beyond(records: Records, rows: int) -> list[str]:
    """Return the texts with ids that an embedding of so many rows has none for, a set at a time."""
    sets = {
        "target_training": records.target_training,
        "reference_training": records.reference_training,
        "forget": records.forget,
        "retain": records.retain,
        **records.others,
        **records.evaluation,
    }
    found = []
    for role, examples in sets.items():
        largest = {example.row: _largest_id(example) for example in examples}
        above = [row for row, number in largest.items() if number >= rows]
        if above:
            found.append(
                f"row {above[0]} of '{role}' has token id {largest[above[0]]}, and the model's embedding "
                f"has {rows} rows: a text spells a token that was added to the tokenizer and not to the "
                f"model ({len(above)} such rows)"
            )
    return found


def _largest_id(example: Example) -> int:
    texts = [example.answer, *(text for kind in example.alternatives.values() for text in kind)]
    return max(max(text.ids) for text in texts)


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE.

    Args:
        texts: what it is trained on.
        vocabulary: number of tokens, end-of-text included.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT
    )
