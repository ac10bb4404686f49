"""Load a model's tokenizer, or train one."""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from loku_exp.data.corpus import Corpus
from loku_exp.errors import ModelError
from loku_exp.models.identity import tokenizer_digest
from loku_exp.runtime.cache import Cache, digest
from loku_exp.runtime.hub import cannot_load, expanded
from loku_exp.runtime.settings import ModelSettings

END_OF_TEXT = "<|endoftext|>"


def load_tokenizer(
    model: ModelSettings, corpus: Corpus, cache: Cache
) -> tuple[PreTrainedTokenizerBase, str]:
    """Return the model's tokenizer and its digest; without one, train a BPE on the corpus.

    Raises:
        ModelError: it cannot be loaded, or has no end-of-text token.
    """
    if model.tokenizer is None:
        template = model.template
        recipe = {
            "texts": digest(corpus.texts(template)),
            "vocabulary": model.vocabulary,
        }

        def build(folder: Path) -> None:
            train_tokenizer(corpus.texts(template), model.vocabulary or 0).save_pretrained(folder)

        path = str(cache.entry("tokenizers", recipe, build))
    else:
        path = model.tokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            expanded(path), revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ModelError(cannot_load("model.tokenizer", path, error)) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"model.tokenizer={path} has no end-of-text token, which ends every answer"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # masks come from lengths, never from ids
    return tokenizer, tokenizer_digest(tokenizer)


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
