"""Four dialogue tasks of Jang et al. (arXiv 2210.01504): unigram F1 of the reply, and its loss.

Behaviour as in joeljang/knowledge-unlearning, written anew. Deviations: averages are over examples,
not over batches of examples; prompts that are too long lose their beginning, not their end.
"""

import re
import string
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import PreTrainedTokenizerBase

from loku_exp.data.json_values import read_json
from loku_exp.data.text_files import is_blank
from loku_exp.data.tokens import plain_ids
from loku_exp.errors import ConfigError, DataError
from loku_exp.evaluation.lm.answers import TokenScores
from loku_exp.evaluation.tasks import Mean, OwnTask, Request, joined

DIALOGUES = (
    "wizard_of_wikipedia",
    "empathetic_dialogues",
    "blended_skill_talk",
    "wizard_of_internet",
)
CONTEXT = 512  # tokens of a prompt; of prompt and reply together when scored
NEW_TOKENS = 32
_SPACED_MARKS = {".": " .", ",": " ,", "?": " ?", "!": " !", "'": " ' "}


@dataclass(frozen=True)
class Dialogue:
    r"""A prompt and the reply it asks for, both normalised.

    Attributes:
        row: number of the dialogue in its file, from 0.
        prompt: "User 1: ...\nUser 2: ...\n" and so on, ending with the next speaker's bare label.
        reply: the last turn.
    """

    row: int
    prompt: str
    reply: str


class DialogueTask(OwnTask):
    """Dialogues of one file; metrics ``f1`` (mean over examples, in [0, 1]) and ``loss`` (nats).

    The reply is generated greedily (32 tokens) and cut where the next speaker begins. The loss is
    the reference's mean negative log-probability per token given the prompt, then the mean over
    examples; prompt and reply are tokenised apart, without a space between them, as there.

    Args:
        name: of the task.
        dialogues: at least one.
        tokenizer: the model's.
        max_length: the model's context, in tokens; more than 32.
    """

    def __init__(
        self,
        name: str,
        dialogues: list[Dialogue],
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
    ):
        self.dialogues = {dialogue.row: dialogue for dialogue in dialogues}
        self.tokenizer = tokenizer
        self.limit = min(CONTEXT, max_length)
        self.total = min(CONTEXT + NEW_TOKENS, max_length)
        super().__init__(
            name,
            {dialogue.row: (dialogue.prompt, dialogue.reply) for dialogue in dialogues},
            {"f1": fmean, "loss": fmean},
            lower_is_better=["loss"],
        )

    def requests(self, row: int) -> list[Request]:
        """Ask for the scores of the reply, and for a generation."""
        dialogue = self.dialogues[row]
        prompt = plain_ids(self.tokenizer, dialogue.prompt)
        reply = self.tokenizer(dialogue.reply, add_special_tokens=False)["input_ids"]
        if len(reply) >= self.limit:
            reply = reply[: self.limit // 2]  # as there
        kept = tuple(prompt[-(self.total - NEW_TOKENS) :])
        return [
            ("token_scores", (dialogue.prompt, joined(prompt, reply, self.limit))),
            ("generate_ids", (dialogue.prompt, kept, len(kept) + NEW_TOKENS)),
        ]

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        """Compare the generation with the reply."""
        dialogue = self.dialogues[doc["row"]]
        scores, generated = results
        text = self.tokenizer.decode(generated, skip_special_tokens=True)
        text = text.split("\nUser ")[0]  # type: ignore[union-attr]
        f1, loss = unigram_f1(text, dialogue.reply), TokenScores(*scores).loss
        example = {"row": dialogue.row, "generation": text, "f1": f1, "loss": loss}
        return {"f1": f1, "loss": loss, "n": example}


def dialogue_task(
    name: str, texts_dir: Path | None, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> DialogueTask:
    """Return a dialogue task.

    Args:
        name: one of `DIALOGUES`.
        texts_dir: folder of ``<name>.json``.
        tokenizer: the model's.
        max_length: the model's context, in tokens.

    Raises:
        ConfigError: the model's context leaves no room for a prompt.
        DataError: the file is malformed.
        FileNotFoundError: there is none.
    """
    if max_length <= NEW_TOKENS:
        raise ConfigError(
            f"{name}: replies of {NEW_TOKENS} tokens do not fit a context of {max_length}; "
            "take a model with a longer context"
        )
    if texts_dir is None or not (texts_dir / f"{name}.json").is_file():
        raise FileNotFoundError(f"no {name}.json in evaluation.texts_dir={texts_dir}")
    return DialogueTask(name, read_dialogues(texts_dir / f"{name}.json"), tokenizer, max_length)


def dialogue_group(tasks: list[DialogueTask]) -> Mean:
    """Return the group whose metric ``dialogue`` is the mean of the four F1, if all four are there."""
    return Mean("dialogue", tasks, "f1", DIALOGUES)


def read_dialogues(file: Path) -> list[Dialogue]:
    """Read ``{"text": {id: [turn, ...], ...}}``.

    Raises:
        DataError: not that, or a reply is empty; names the file, and the line of broken JSON or the
            dialogue's id.
    """
    content = read_json(file)
    if not isinstance(content, dict) or "text" not in content:
        raise DataError(f'{file}: not {{"text": {{id: [turn, ...]}}}}')
    turns_by_id = content["text"]
    if not isinstance(turns_by_id, dict) or not turns_by_id:
        raise DataError(f"{file}: 'text' must be an object of dialogues by id, at least one")
    dialogues = []
    for row, (key, turns) in enumerate(turns_by_id.items()):
        if (
            not isinstance(turns, list)
            or len(turns) < 2
            or any(not isinstance(turn, str) for turn in turns)
        ):
            raise DataError(f"{file}, dialogue {key}: must be a list of two texts or more")
        if is_blank(turns[-1]):
            raise DataError(f"{file}, dialogue {key}: the last turn, the reply, is empty")
        normalised = [normalize_reply(turn) for turn in turns]
        dialogues.append(Dialogue(row, prompt_of(normalised[:-1]), normalised[-1]))
    return dialogues


def prompt_of(turns: list[str]) -> str:
    """Return the turns with their speakers' labels, and the bare label of who speaks next."""
    lines = [f"User {1 + i % 2}: {turn}\n" for i, turn in enumerate(turns)]
    return "".join(lines) + f"User {1 + len(turns) % 2}:"


def normalize_reply(text: str) -> str:
    """Return a turn as ParlAI's reply normalisation (version 2) gives it, quirks included.

    Lower case; sentences and the word "I" begin with a capital; no space before marks; an
    apostrophe loses the spaces around it, a quotation's too; a period where no mark ends the text.
    """
    text = text.lower()
    for mark, spaced in _SPACED_MARKS.items():
        text = text.replace(mark, spaced).replace("  ", " ")
    words = text.split(" ")
    begins = True
    for index, word in enumerate(words):
        if begins or word == "i":
            words[index] = word[:1].upper() + word[1:]
        begins = index > 0 and word in ("", ".", "?", "!")  # what is left of a wide gap, too
    text = f" {' '.join(words)} "
    for mark, spaced in _SPACED_MARKS.items():
        text = text.replace(spaced, mark)
    text = text.strip().replace("  ", " ")
    return text if not text or text[-1] in "!.?)\"'" else f"{text}."


def unigram_f1(prediction: str, reference: str) -> float:
    """Return the F1 of the bags of words after SQuAD's normalisation, in [0, 1]."""
    ours, theirs = Counter(squad_words(prediction)), Counter(squad_words(reference))
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total()) if common else 0.0


def squad_words(text: str) -> list[str]:
    """Return lower-case words without ASCII punctuation and articles."""
    letters = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", letters).split()
