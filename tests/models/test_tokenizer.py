"""A tokenizer that is none, or does not fit its model, is said before anything is encoded."""

import re

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from loku_exp.config.compose import compose_config
from loku_exp.data.qa import QA, QACorpus
from loku_exp.errors import ModelError
from loku_exp.models.load import architecture
from loku_exp.models.tokenizer import beyond, load_tokenizer, misfits, template_of, train_tokenizer
from loku_exp.models.weights import problems
from loku_exp.runtime.cache import Cache
from loku_exp.runtime.settings import Template
from tests.models.architectures import VOCABULARY, build, folder, settings, tokenizer

CORPUS = QACorpus([], [], [], [], {}, {})
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def loaded(place, tmp_path, **fields):
    return load_tokenizer(settings(place, **fields), CORPUS, Cache(str(tmp_path / "cache")))[0]


CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def chat_model(template="chat"):
    config = compose_config(
        ["model=hf", "model.path=X", "dataset=toy_tofu", "reference.source=none",
         f"model.template={template}"]
    )  # fmt: skip
    return config.model


def test_a_chat_models_own_words_stand_around_a_question():
    own = train_tokenizer(["what is it"], 300)
    own.chat_template = CHAT
    found = template_of(chat_model(), own)
    assert found == Template(
        question_start="<|user|>", question_end="<|end|><|assistant|>", answer_tag=""
    )
    plain = compose_config(["model=phi"]).model
    assert template_of(plain, own) == plain.template
    rows = [QA(0, "", "who?", "me")]
    (example,) = QACorpus(rows, [], rows, [], {}, {}).records(own, found, 99).forget
    shown = own.apply_chat_template(
        [{"role": "user", "content": "who?"}], tokenize=False, add_generation_prompt=True
    )
    assert own.decode(example.prompt) == shown
    labelled = [token for token in example.answer.labels if token != -100]
    assert own.decode(labelled) == "me" + own.eos_token


@pytest.mark.parametrize(
    ("path", "words", "revision"),
    [("me/m", "me/m", "old"), ("me/m", "me/words", None), (None, "me/words", "old")],
)
def test_a_revision_is_of_the_models_own_path(tmp_path, monkeypatch, path, words, revision):
    """Another repository was asked for it too, and has none of that name."""
    asked = []

    def from_pretrained(name, **options):
        asked.append((name, options["revision"]))
        return tokenizer()

    monkeypatch.setattr("loku_exp.models.tokenizer.AutoTokenizer.from_pretrained", from_pretrained)
    monkeypatch.setattr("loku_exp.models.tokenizer.read_config", lambda *_: None)
    loaded("me/m", tmp_path, path=path, tokenizer=words, revision="old")
    assert asked == [(words, revision)]


def test_what_the_tokenizer_puts_first_itself_is_not_there_twice():
    own = train_tokenizer(["what is it"], 300)
    own.bos_token = own.eos_token
    own.chat_template = "{{ bos_token }}" + CHAT
    start = own.bos_token
    assert template_of(chat_model(), own).question_start == f"{start}<|user|>"
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single=[start, "$A"], special_tokens=[(start, own.bos_token_id)]
    )
    assert template_of(chat_model(), own).question_start == "<|user|>"


@pytest.mark.parametrize(
    "dated",
    [
        "{{ strftime_now('%d %b %Y') }}",
        "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% endif %}{{ day }}",
    ],
)
def test_a_chat_template_with_a_date_is_the_same_every_day(dated):
    own = train_tokenizer(["what is it"], 300)
    own.chat_template = "\n" + dated + CHAT
    assert template_of(chat_model(), own).question_start == "\n10 Apr 2025<|user|>"


def test_without_a_chat_template_or_with_a_broken_one():
    own = train_tokenizer(["what is it"], 300)
    with pytest.raises(
        ModelError, match=r"model\.template=chat: this tokenizer has no chat template"
    ):
        template_of(chat_model(), own)
    for broken in ("{{ raise_exception('no') }}", "{{ messages[3] }}", "nothing"):
        own.chat_template = broken
        with pytest.raises(ModelError, match="chat template fails"):
            template_of(chat_model(), own)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma", "bloom", "qwen2", "mamba", "phi"])
def test_a_folder_without_a_tokenizer_says_so_and_how_to_go_on(kind, tmp_path):
    place = tmp_path / "base"
    build(kind).save_pretrained(place)
    with pytest.raises(ModelError, match=r"model\.tokenizer=DIR") as error:
        loaded(place, tmp_path)
    assert str(error.value).startswith(f"model.path={place} has no tokenizer that reads text")
    assert "\n" not in str(error.value)
    tokenizer().save_pretrained(tmp_path / "other")
    assert loaded(place, tmp_path, tokenizer=str(tmp_path / "other")).eos_token_id == 0


@pytest.mark.parametrize("content", [LFS, '{"a":', "[]", "{}", "", '{"model": 3}'])
def test_a_damaged_tokenizer_is_named(content, tmp_path):
    place = folder("llama", tmp_path / "base")
    (place / "tokenizer.json").write_text(content)
    with pytest.raises(
        ModelError, match=rf"model\.path={re.escape(str(place))} has no tokenizer"
    ) as e:
        loaded(place, tmp_path)
    assert "\n" not in str(e.value)


def test_without_an_end_of_text_token(tmp_path):
    place = folder("llama", tmp_path / "base")
    own = AutoTokenizer.from_pretrained(place)
    own.eos_token = None
    own.save_pretrained(tmp_path / "endless")
    with pytest.raises(
        ModelError, match=r"model\.tokenizer=.*endless has no end-of-text token.*eos_"
    ):
        loaded(place, tmp_path, tokenizer=str(tmp_path / "endless"))


def test_the_key_is_the_one_the_user_wrote(tmp_path):
    with pytest.raises(ModelError, match=r"^model\.path=/nonexistent: no such folder$"):
        loaded("/nonexistent", tmp_path)
    place = folder("llama", tmp_path / "base")
    with pytest.raises(ModelError, match=r"^model\.tokenizer=/nonexistent: no such folder$"):
        loaded(place, tmp_path, tokenizer="/nonexistent")


# -- ids the embedding has no row for ------------------------------------------------------------


def with_padding(place):
    own = AutoTokenizer.from_pretrained(place)
    own.add_special_tokens({"pad_token": "[PAD]"})
    assert own.pad_token_id == VOCABULARY
    own.save_pretrained(place)
    return own


def test_special_tokens_above_the_embedding_are_refused_and_rows_help(tmp_path):
    place = folder("llama", tmp_path / "base")
    own = with_padding(place)
    (line,) = problems(str(place), "model.path", settings(place), own)
    start = (
        f"model.path={place} has {VOCABULARY} rows in its embedding, and the tokenizer's pad_token"
    )
    assert line.startswith(f"{start} '[PAD]' has id {VOCABULARY}; ")
    with pytest.raises(ModelError, match=r"'\[PAD\]' has id"):
        architecture(settings(place), own)
    advice = re.search(
        r"model\.(resize_token_embeddings\(len\(tokenizer\)\)), (save_pretrained)\(", line
    )
    assert advice is not None
    model = AutoModelForCausalLM.from_pretrained(place)
    model.resize_token_embeddings(len(own))
    model.save_pretrained(place)
    assert problems(str(place), "model.path", settings(place), own) == []
    assert architecture(settings(place), own).vocab_size == VOCABULARY + 1


def test_an_embedding_smaller_than_the_vocabulary_is_refused(tmp_path):
    place = folder("llama", tmp_path / "base", vocab_size=200)
    lines = problems(str(place), "target.path", settings(place), tokenizer())
    above, total = VOCABULARY - 200, len(tokenizer())
    count = len(set(tokenizer().get_vocab().values()) - {0})
    assert len(lines) == 1
    assert (
        f"{above} of the tokenizer's {count} tokens have larger ids, up to {total - 1}" in lines[0]
    )
    assert misfits(tokenizer(), VOCABULARY, "x") == []
    assert misfits(tokenizer(), VOCABULARY + 7, "x") == []  # as Phi: more rows than tokens


def test_a_vocabulary_of_the_users_own_is_checked_where_a_model_is_built(tmp_path):
    small = {"model_type": "llama", "vocab_size": 9}
    own = settings("x", weights="scratch", architecture=small, name="mine")
    with pytest.raises(ModelError, match=r"model\.architecture of mine has 9 rows"):
        architecture(own, tokenizer())
    other = own.model_copy(update={"architecture": {"model_type": "nowhere"}})
    with pytest.raises(ModelError, match=r"model\.architecture of mine is not one \(.*nowhere"):
        architecture(other, tokenizer())


def test_an_added_token_that_serves_nothing_harms_only_where_a_text_spells_it(tmp_path):
    place = folder("llama", tmp_path / "base")
    own = AutoTokenizer.from_pretrained(place)
    own.add_special_tokens({"additional_special_tokens": ["<extra>"]})
    assert misfits(own, VOCABULARY, "x") == []
    template = Template(question_start="", question_end="\n", answer_tag="")

    def records(answer):
        rows = [QA(k, "", "who?", text, "he", ("she",)) for k, text in enumerate(("me", answer))]
        return QACorpus(rows, [], rows[:1], [], {"forget": rows}, {}).records(own, template, 99)

    assert beyond(records("you"), VOCABULARY) == []
    found = beyond(records("an <extra> one"), VOCABULARY)
    assert [line.split(",")[0] for line in found] == [
        f"row 1 of 'target_training' has token id {VOCABULARY}",
        f"row 1 of 'forget' has token id {VOCABULARY}",
    ]
