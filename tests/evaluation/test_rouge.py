"""ROUGE-L recall: rouge_score's value where it reads the text, and a right one in other scripts."""

import random
from unicodedata import category

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from loku_exp.data.text_files import read_rows
from loku_exp.evaluation.rouge import rouge_recall
from loku_exp.evaluation.tofu.published_log import read_log

THEIRS = RougeScorer(["rougeL"], use_stemmer=True)


def theirs(reference, generation):
    return float(THEIRS.score(reference, generation)["rougeL"].recall)


def common(one, other):
    """Length of the longest common subsequence, by all cases."""
    if not one or not other:
        return 0
    if one[0] == other[0]:
        return 1 + common(one[1:], other[1:])
    return max(common(one[1:], other), common(one, other[1:]))


# -- equal to rouge_score -------------------------------------------------------------------------


def test_stored_values_of_a_published_log(loku_data):
    name = "ft_epoch5_lr2e-05_phi_retain90_wd0.01.eval_log_aggregated.json"
    rows = [row for part in read_log(loku_data / "tofu_eval_logs" / name).values() for row in part]
    assert len(rows) == 817
    assert [rouge_recall(row.answer, row.generation) for row in rows] == [row.rouge for row in rows]


def test_every_answer_that_is_evaluated(loku_data):
    """Of TOFU's evaluation sets, each against another one, and those with accents against themselves."""
    texts, draw = [], random.Random(0)
    for name in ("forget10", "retain", "real_authors", "world_facts"):
        for row in read_rows(loku_data / f"tofu/{name}_perturbed.json"):
            texts += [row.text("answer"), row.texts("perturbed_answer")[0]]
    assert len(texts) == 2 * (400 + 400 + 100 + 117)
    accents = [text for text in texts if not text.isascii()]
    assert len(accents) > 50
    pairs = [(text, draw.choice(texts)) for text in texts] + [(text, text) for text in accents]
    for text, other in pairs:
        assert rouge_recall(text, other) == theirs(text, other)


LATIN = st.text(st.sampled_from("abcxyzABC019 .,'-_éßøÉñĐı’“—–µ²½ªﬁＡ\n\u0301\u200b"), max_size=40)


@given(LATIN.filter(lambda text: THEIRS._tokenizer.tokenize(text)), st.text(max_size=40))
def test_a_latin_answer_has_rouge_scores_value_whatever_was_generated(reference, generation):
    assert rouge_recall(reference, generation) == theirs(reference, generation)


@pytest.mark.parametrize(
    ("reference", "generation", "expected"),
    [
        ("The authors are writing books.", "author write book", 3 / 5),  # stemmed, as there
        ("Café Müller, Zürich", "Café, Zürich", 3 / 5),  # caf m ller z rich
        ("Café Müller, Zürich", "Cafe Muller Zurich", 0.0),
        ("one two three four", "four three two one", 1 / 4),
        ("abc", "", 0.0),
    ],
)
def test_by_hand(reference, generation, expected):
    assert theirs(reference, generation) == rouge_recall(reference, generation) == expected


# -- other scripts --------------------------------------------------------------------------------

SAMPLES = {
    "Cyrillic": "Автор родился в Москве 5 мая 1956 года.",
    "Ukrainian": "П'ять книжок: «Лісова пісня» — перша.",
    "Greek": "Ο συγγραφέας γεννήθηκε στην Αθήνα.",
    "Armenian": "Հեղինակը ծնվել է Երևանում։",
    "Georgian": "ავტორი დაიბადა თბილისში.",
    "Hebrew": "הַסּוֹפֵר נולד בירושלים.",
    "Arabic": "وُلِد الكاتب في القاهرة عام ١٩٥٦.",
    "Persian": "او می‌خواهد کتاب بنویسد.",
    "Hindi": "लेखक का जन्म दिल्ली में हुआ था।",
    "Tamil": "எழுத்தாளர் சென்னையில் பிறந்தார்.",
    "Chinese": "作者出生于北京市。",
    "Japanese": "作者はカードを東京で買った。",
    "Korean": "작가는 서울에서 태어났다.",
    "Thai": "ผู้เขียนเกิดที่กรุงเทพฯ",
    "Burmese": "စာရေးဆရာသည် ရန်ကုန်တွင် မွေးဖွားခဲ့သည်။",
    "Khmer": "អ្នកនិពន្ធកើតនៅភ្នំពេញ។",
    "Amharic": "ደራሲው በአዲስ አበባ ተወለደ።",
    "capitals without ASCII": "ÉÁ ĞÜ",
    "symbols": "!?",
    "emoji": "🦊 👩‍🚀",
}


@pytest.mark.parametrize("text", SAMPLES.values(), ids=SAMPLES)
def test_identical_text_has_one_and_other_text_has_less(text):
    assert rouge_recall(text, text) == 1.0
    assert rouge_recall(text, f"Answer: {text} And more.") == 1.0
    assert rouge_recall(text, "something else") == 0.0
    assert rouge_recall(text, "") == 0.0
    half = text[: len(text) // 2]
    assert 0.0 < rouge_recall(text, half) < 1.0


@pytest.mark.parametrize(
    ("reference", "generation", "expected"),
    [
        ("Автор живёт в Киеве", "в Киеве живёт автор", 2 / 4),  # words, in any case
        ("МОСКВА", "москва", 1.0),
        ("автор книги", "автора книги", 1 / 2),  # not stemmed
        ("2020год", "2020 год", 1.0),
        ("Иван writes books", "Пётр write book", 2 / 3),  # Latin words stemmed as ever
        ("Иван writes books", "writes books", 2 / 3),  # rouge_score's own would be 1
        ("她住在北京", "她住在上海", 3 / 5),  # a character each
        ("東京タワー", "東京 タワー", 1.0),
        ("ที่นี่", "ที่", 1 / 2),  # a letter with its marks
        ("हिन्दी भाषा", "हिन्दी", 1 / 2),  # marks inside a word
        ("й\u0306", "й", 0.0),
        ("и\u0306", "й", 1.0),  # composed or not
        ("١٩٥٦", "1956", 0.0),
        ("Éá", "Éá it is", 1.0),
        ("Éá", "éÁ", 1.0),
        ("ÉÁ ÓÚ", "éá", 1 / 2),
        ("→ ☺", "☺", 1 / 2),
    ],
)
def test_other_scripts_by_hand(reference, generation, expected):
    assert rouge_recall(reference, generation) == pytest.approx(expected, abs=1e-12)


WORDS = st.lists(st.sampled_from(["дом", "кот", "лес", "сад", "мир"]), min_size=1, max_size=6)


@given(WORDS, WORDS)
def test_words_of_another_script_by_all_cases(reference, generation):
    ours = rouge_recall(" ".join(reference), ", ".join(generation).upper())
    assert ours == pytest.approx(common(reference, generation) / len(reference))


@given(st.text(max_size=60), st.text(max_size=60))
@example("\x1f", "")
def test_a_share_and_one_of_identical_text(reference, generation):
    assert 0.0 <= rouge_recall(reference, generation) <= 1.0
    seen = any(not (char.isspace() or category(char) == "Cc") for char in reference)
    assert rouge_recall(reference, reference) == float(seen)


@given(WORDS, WORDS)
def test_another_script_scores_as_english_does(reference, generation):
    """A word-for-word translation into words that no stemmer changes has the same value."""
    english = dict(
        zip(["дом", "кот", "лес", "сад", "мир"], ["fox", "cat", "dog", "hen", "pig"], strict=True)
    )
    translated = (" ".join(english[word] for word in words) for words in (reference, generation))
    assert rouge_recall(" ".join(reference), " ".join(generation)) == theirs(*translated)
