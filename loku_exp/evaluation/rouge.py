"""ROUGE-L recall in every script: rouge_score's own value where it can read the text.

rouge_score's tokenizer keeps runs of a-z and 0-9, stemmed, and drops everything else, so that identical
answers in Cyrillic score 0. Here its tokens stay as they are, and those of other scripts join them:

- a word is a run of letters and digits with their combining marks (lower case, NFC), not stemmed; it
  ends where Latin begins, so "2020год" is "2020" and "год";
- in scripts without spaces between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) each letter with
  its marks is a token;
- Latin letters outside ASCII (é, ß, ø) separate words, as rouge_score has it; so do punctuation, symbols
  and letters of no script (µ).

So the recall is rouge_score's wherever the true answer has Latin letters only, whatever the generation
holds. A true answer that leaves no token ("Éá", "!?", an emoji) is read less strictly, and the generation
with it: as words of any script, else as single characters.
"""

from unicodedata import normalize

import regex
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

_CHARACTER = r"\p{L}\p{N}"
_UNSPACED = r"\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}\p{scx=Thai}\p{scx=Laoo}\p{scx=Khmr}\p{scx=Mymr}"
_ALONE = rf"[[{_CHARACTER}]&&[{_UNSPACED}]]\p{{M}}*"
_SPACED = rf"[[{_CHARACTER}]--[\p{{scx=Latn}}\p{{scx=Zyyy}}{_UNSPACED}]]"
_OTHER = rf"{_ALONE}|{_SPACED}(?:{_SPACED}|\p{{M}})*"


class ScriptTokenizer(DefaultTokenizer):
    """What a pattern finds in the lower-case text; what is ASCII as rouge_score has it, stemmed."""

    def __init__(self, pattern: str):
        super().__init__(use_stemmer=True)
        self.pattern = regex.compile(pattern, regex.VERSION1)

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens in order."""
        tokens: list[str] = []
        for token in self.pattern.findall(text.lower()):
            known = super().tokenize(token) if token.isascii() else []
            tokens += known or [normalize("NFC", token)]
        return tokens


READINGS = tuple(
    ScriptTokenizer(pattern)
    for pattern in (
        rf"[a-z0-9]+|{_OTHER}",
        rf"[{_CHARACTER}][{_CHARACTER}\p{{M}}]*",
        r"[^\s\p{Cc}]",
    )
)
"""What counts as a token, from strict to lenient."""

_WORD = regex.compile(rf"{_ALONE}|(?:(?!{_ALONE})\S)+", regex.VERSION1)


def words_in_any_script(text: str) -> list[str]:
    """Return what stands between spaces, and where a script has none between words each letter."""
    return [word for part in text.split() for word in _WORD.findall(part)]


def rouge_recall(reference: str, generation: str) -> float:
    """Return ROUGE-L recall, the share of the reference's tokens that the generation has in order.

    Args:
        reference: the true answer.
        generation: what a model said.

    Returns:
        In [0, 1]; 0 where the reference holds nothing but white space and control characters.
    """
    for reading in READINGS:
        if reading.pattern.search(reference.lower()):
            scores = RougeScorer(["rougeL"], tokenizer=reading).score(reference, generation)
            return float(scores["rougeL"].recall)
    return 0.0
