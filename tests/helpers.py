"""Small models and texts shared by tests."""

import random
from pathlib import Path

import torch
from torch import nn

from loku_exp.data.records import IGNORED, Record, Records, Sequence


def random_sequence(length: int, num_prompt: int, vocabulary: int, seed: int) -> Sequence:
    """A random text whose first tokens are not labelled."""
    generator = torch.Generator().manual_seed(seed)
    ids = tuple(torch.randint(vocabulary, (length,), generator=generator).tolist())
    return Sequence(ids, (IGNORED,) * num_prompt + ids[num_prompt:])


def tiny_model(
    tied: bool = True, bias: bool = False, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """A GPT-Neo of two layers, width 16, window 8, 61 tokens; the same weights every time."""
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=61, hidden_size=16, num_layers=2, num_heads=2, window_size=8,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=64,
        tie_word_embeddings=tied, resid_dropout=0, embed_dropout=0, attention_dropout=0,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPTNeoForCausalLM(config).to(dtype)
    if bias:
        model.lm_head.bias = nn.Parameter(torch.randn(61, dtype=dtype))
    return model.eval()


def tiny_records() -> Records:
    """Records of TOFU's four evaluation sets over 61 random tokens."""

    def record(row: int, role: str, wrong: int) -> Record:
        texts = [random_sequence(6 + (row + k) % 5, 3, 61, 100 * row + k) for k in range(wrong + 2)]
        return Record(
            row=row,
            group=f"author {row // 2}",
            role=role,
            prompt=texts[0].ids[:3],
            answer=texts[0],
            alternatives={"paraphrase": (texts[1],), "wrong": tuple(texts[2:])},
            question=f"question {row}",
            reference=f"{row} 17 {row + 1}",
        )

    sets = {
        name: [record(first + row, name, wrong) for row in range(6)]
        for name, first, wrong in (
            ("forget", 0, 5),
            ("retain", 10, 5),
            ("authors", 20, 3),
            ("facts", 30, 3),
        )
    }
    return Records(sets["forget"], sets["retain"], sets["forget"], sets["retain"], sets)


def tdec_folder(place: Path, rows: int = 6) -> Path:
    """A folder laid out like TDEC's, with invented texts; set 2_0 is nested in 4_0, 32_* and 128_0."""
    rng = random.Random(0)
    words = [
        "amber",
        "birch",
        "cedar",
        "delta",
        "ember",
        "fjord",
        "grove",
        "heath",
        "inlet",
        "joist",
        "knoll",
        "larch",
        "marsh",
    ]

    def text(length: int = 60) -> str:
        return " ".join(rng.choice(words) + str(rng.randrange(10)) for _ in range(length))

    texts = [text() for _ in range(rows)]
    (place / "forget_sets").mkdir(parents=True)
    for size, count in ((2, 2), (4, 4), (32, rows - 2), (128, rows)):
        lines = ["doc_id,corpus,text", *(f'{i},invented,"{texts[i]}"' for i in range(count))]
        for number in range(3 if size == 32 else 1):
            file = place / f"forget_sets/lm_extraction_{size}_{number}.csv"
            file.write_text("\n".join(lines) + "\n")
    (place / "validation_data").mkdir()
    for name, header in (("pile", "doc_id,text,corpus"), ("wikitext", ",text")):
        tail = ",invented" if name == "pile" else ""
        lines = [header, *(f'{i},"{text()}"{tail}' for i in range(12))]
        (place / f"validation_data/{name}.csv").write_text("\n".join(lines) + "\n")
    return place
