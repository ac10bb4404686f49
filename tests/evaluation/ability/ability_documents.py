"""Invented documents of every task, a tokenizer and a model for them, and a model that knows them."""

import json
import re

import torch
from transformers import GPTNeoConfig, GPTNeoForCausalLM

from loku_exp.data.records import IGNORED
from loku_exp.evaluation.lm.answers import Answers, TokenScores
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.models.tokenizer import train_tokenizer
from tests.helpers import inference_of, lm_of, never


def arc(key, question, texts, answer, labels="ABCD"):
    choices = {"text": texts, "label": list(labels[: len(texts)])}
    return {"id": key, "question": f"{key} {question}", "choices": choices, "answerKey": answer}


HUB = {
    "arc_easy": [
        arc("k11", "what is red?", ["the sky", "a rose", "some grass", "snow"], "B"),
        arc("k12", "what flies?", ["a stone", "water", "an old owl", "a tree"], "3", "1234"),
        arc("k13", "what is hot?", ["fire", "ice", "rain", "fog", "mud"], "A", "ABCDE"),
        arc("k14", "what swims?", ["a cat", "a hen", "a goat", "a fish"], "D"),
    ],
    "arc_challenge": [
        arc("k21", "what melts?", ["iron at noon", "ice", "sand", "air"], "B"),
        arc("k22", "what turns?", ["the earth", "a wall", "the roof"], "A"),
        arc("k23", "what falls?", ["light", "sound", "rain", "heat"], "C"),
    ],
    "copa": [
        {"premise": "It rained on k31.", "choice1": "The street got wet.", "choice2": "The sun shone.",
         "question": "effect", "label": 0, "idx": 0},
        {"premise": "The man k32 ran.", "choice1": "He slept.", "choice2": "A dog chased him.",
         "question": "cause", "label": 1, "idx": 1},
    ],
    "hellaswag": [
        {"ind": 1, "activity_label": "Cooking k41", "ctx_a": "A woman cuts bread.", "ctx_b": "she",
         "ctx": "A woman k41 cuts bread. She", "label": "2",
         "endings": ["flies away.", "reads [title] a map.", "eats a slice.", "paints the wall."]},
        {"ind": 2, "activity_label": "Running k42", "ctx_a": "A boy ties his shoe.", "ctx_b": "he",
         "ctx": "A boy k42 ties his shoe. He", "label": "0",
         "endings": ["starts to run.", "cooks.", "sings a song.", "sleeps at once."]},
        {"ind": 3, "activity_label": "Fishing k43", "ctx_a": "A man waits.", "ctx_b": "the rod",
         "ctx": "A man k43 waits. The rod", "label": "1",
         "endings": ["speaks.", "bends down.", "laughs at him.", "is a bird."]},
    ],
    "lambada_openai": [
        {"text": "She met k51 at noon and said farewell to old Bert"},
        {"text": "They opened the k52 box and in it lay a ring"},
        {"text": "He k53 sang all night, he sang"},
    ],
    "mathqa": [
        {"Problem": "k61 what is two plus three ?", "correct": "b",
         "options": "a ) 7 , b ) 5 , c ) 6 , d ) 11 , e ) none of these"},
        {"Problem": "k62 how many legs have 2 dogs ? n =", "correct": "e",
         "options": "a ) 2 , b ) 4 , c ) 6 , d ) 9 , e ) 8"},
    ],
    "piqa": [
        {"goal": "k71 open a jar", "sol1": "turn the lid", "sol2": "sit on it for a day", "label": 0},
        {"goal": "k72 dry hair", "sol1": "use soap", "sol2": "use a towel", "label": 1},
        {"goal": "k73 cut wood", "sol1": "with a spoon", "sol2": "with a saw", "label": 1},
    ],
    "pubmedqa": [
        {"QUESTION": "Does k81 help?", "CONTEXTS": ["Tea was drunk.", "It helped."],
         "final_decision": "yes"},
        {"QUESTION": "Is k82 harmful?", "CONTEXTS": ["Nothing was seen."], "final_decision": "maybe"},
        {"QUESTION": "Is k83 green?", "CONTEXTS": ["It is blue."], "final_decision": "no"},
    ],
    "winogrande": [
        {"sentence": "In w91 someone broke it since the _ was weak.", "option1": "cup",
         "option2": "hammer", "answer": "1"},
        {"sentence": "In w92 we sold the house to _ for little.", "option1": "Ann", "option2": "Tom",
         "answer": "2"},
        {"sentence": "In w93 he thanked _ twice.", "option1": "Mia", "option2": "Leo", "answer": "2"},
    ],
}  # fmt: skip

FOUNDRY: dict[str, list[dict]] = {
    "arc_easy": [
        {"query": "Question: k14 what swims?", "choices": ["a cat", "a fish", "hens", "sand"], "gold": 1},
        {"query": "Question: k11 what is red?", "choices": ["snow", "tar", "a rose", "air"], "gold": 2},
    ],
    "copa": [
        {"query": "It rained on k31, therefore", "choices": ["the street got wet.", "it shone."],
         "gold": 0},
        {"query": "The man k32 ran, because", "choices": ["he slept.", "a dog chased him."], "gold": 1},
    ],
    "piqa": [
        {"query": "Question: k71 open a jar\n", "choices": ["turn the lid", "shout"], "gold": 0},
        {"query": "Question: k72 dry hair\n", "choices": ["use soap", "use a towel"], "gold": 1},
    ],
    "math_qa": [
        {"query": "Question: m61 two and three ?\nA. 7\nB. 5\nC. 6\nD. 9\nAnswer: ",
         "choices": ["A", "B", "C", "D"], "gold": 1},
        {"query": "Question: m62 three ?\nA. 1\nB. 2\nC. 4\nD. 3\nAnswer: ",
         "choices": ["A", "B", "C", "D"], "gold": 3},
    ],
    "lambada_openai": [
        {"context": "She met k51 at noon and said farewell to old", "continuation": "Bert"},
        {"context": "They opened the k52 box and in it lay a", "continuation": "ring"},
    ],
    "pubmed_qa_labeled": [
        {"context": "Context: Tea.\nQuestion: Does k81 help?\nA. yes\nB. no\nC. maybe\nAnswer: ",
         "continuation": "yes"},
        {"context": "Context: Ink.\nQuestion: Is k82 bad?\nA. yes\nB. no\nC. maybe\nAnswer: ",
         "continuation": "maybe"},
    ],
    "winogrande": [
        {"context_options": ["In w91 it broke as the cup", "In w91 it broke as the hammer"],
         "continuation": "was weak.", "gold": 0},
        {"context_options": ["In w92 we sold it to Ann", "In w92 we sold it to Tom"],
         "continuation": "for little.", "gold": 1},
    ],
}  # fmt: skip

LAMBADA = [doc["text"] for doc in HUB["lambada_openai"]]
PUBMED = [
    ("Does k81 help?", "Tea was drunk, and it helped.", "yes"),
    ("Is k82 harmful?", "Nothing\nwas seen.", "maybe"),
    ("Is k83 green?", 'It "is" blue.', "no"),
]
DIALOGUES = {
    "wizard_of_wikipedia": [["i like Tea .", "me too! which one?", "green tea"], ["hi", "hello k"]],
    "empathetic_dialogues": [["my dog is ill", "oh no, i'm sorry"]],
    "blended_skill_talk": [["a", "b", "c", "the last one"], ["do you sing?", "i do"]],
    "wizard_of_internet": [["what's new?", "nothing at all", "really?", "yes", "good."]],
}

GOLD = {
    "k11": "a rose", "k12": "an old owl", "k13": "fire", "k14": "a fish",
    "k21": "ice", "k22": "the earth", "k23": "rain",
    "k31": "the street got wet.", "k32": "a dog chased him.",
    "k41": "eats a slice.", "k42": "starts to run.", "k43": "bends down.",
    "k51": "bert", "k52": "ring", "k53": "sang",
    "k61": "5", "k62": "8", "m61": "b", "m62": "d",
    "k71": "turn the lid", "k72": "use a towel", "k73": "with a saw",
    "k81": "yes", "k82": "maybe", "k83": "no",
    "w91": "cup", "w92": "tom", "w93": "leo",
}  # fmt: skip


def write_hub(folder, names=tuple(HUB)):
    for name in names:
        lines = "".join(json.dumps(doc) + "\n" for doc in HUB[name])
        (folder / f"{name}.jsonl").write_text(lines)
    return str(folder)


def write_foundry(folder, names=tuple(FOUNDRY)):
    for name in names:
        lines = "".join(json.dumps(doc) + "\n" for doc in FOUNDRY[name])
        (folder / f"{name}.jsonl").write_text(lines)
    return str(folder)


def write_texts(folder):
    import csv

    with (folder / "lambada.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["id", "text"], *enumerate(LAMBADA)])
    with (folder / "pubmed_qa.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        rows = [(question, "array(...)", abstract, answer) for question, abstract, answer in PUBMED]
        writer.writerows([["question", "context", "abstract", "final_decision"], *rows])
    for name, dialogues in DIALOGUES.items():
        text = {"text": {str(10 + i): turns for i, turns in enumerate(dialogues)}}
        (folder / f"{name}.json").write_text(json.dumps(text))
    return str(folder)


TOKENIZER = train_tokenizer([json.dumps([HUB, FOUNDRY, PUBMED, DIALOGUES])], 500)
POSITIONS = 192


def random_model(tied=True, seed=0):
    """A GPT-Neo with weights large enough for its choices to differ."""
    torch.manual_seed(seed)
    config = GPTNeoConfig(
        vocab_size=len(TOKENIZER), hidden_size=16, num_layers=2, num_heads=2, window_size=8,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=POSITIONS,
        tie_word_embeddings=tied, resid_dropout=0, embed_dropout=0, attention_dropout=0,
        bos_token_id=0, eos_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    return GPTNeoForCausalLM(config).eval()


def inference(model=None, batch_tokens=400, **options):
    options = {"batch_tokens": batch_tokens, "max_length": POSITIONS, "stop_at_eos": True} | options
    return inference_of(model or random_model(), TOKENIZER, **options)


def language_model(model=None, batch_tokens=400, answers=None, **options):
    return lm_of(inference(model, batch_tokens, **options), answers)


def slow_score(model, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    """Sum of log-probabilities and greediness by one plain forward, token by token."""
    ids = [*context, *continuation]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    total, greedy = 0.0, True
    for place in range(len(context), len(ids)):
        row = logits[place - 1]
        total += (row[ids[place]] - row.logsumexp(0)).item()
        greedy = greedy and int(row.argmax()) == ids[place]
    return total, greedy


class Planted(UnlearnLM):
    """Knows every right answer, and prefers it, or anything else for the keys in `wrong`."""

    def __init__(self, wrong=()):
        super().__init__(Answers(), never)
        self.wrong = set(wrong)

    def judge(self, context, continuation):
        text = (context + continuation).lower()
        key = re.search(r"\b[kmw]\d\d\b", text).group()
        right = GOLD[key] in (text if key[0] == "w" else continuation.lower())
        if key in self.wrong:
            right = not right
        return (-1.0 if right else -2.0), right

    def loglikelihood(self, requests):
        return [self.judge(*request.args) for request in requests]

    def token_scores(self, requests):
        scores = []
        for request in requests:
            sequence = request.args[1]
            count = sum(label == IGNORED for label in sequence.labels)
            if "User" in request.args[0]:
                scores.append(TokenScores([-1.0] * (len(sequence.ids) - count), [True]))
                continue
            texts = TOKENIZER.decode(sequence.ids[:count]), TOKENIZER.decode(sequence.ids[count:])
            logprob, greedy = self.judge(*texts)
            scores.append(TokenScores([logprob], [greedy]))
        return scores

    def generate_ids(self, requests):
        return [[] for _ in requests]
