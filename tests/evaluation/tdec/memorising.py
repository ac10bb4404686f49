"""Tiny models that know texts not at all, in part, or by heart, and slow decoding without a cache."""

import torch
from transformers import (
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

VOCABULARY = 48
POSITIONS = 64
END = 0


def random_text(length: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist())


def untrained(kind: str):
    """A GPT-Neo whose local window is shorter than the texts, a Llama with grouped heads, or a Phi."""
    torch.manual_seed(1)
    shape = {
        "vocab_size": VOCABULARY, "hidden_size": 16, "max_position_embeddings": POSITIONS,
        "initializer_range": 0.4, "bos_token_id": END, "eos_token_id": END,
    }  # fmt: skip
    if kind == "gpt_neo":
        config = GPTNeoConfig(
            **shape, num_layers=2, num_heads=2, window_size=6, resid_dropout=0, embed_dropout=0,
            attention_types=[[["global", "local"], 1]], attention_dropout=0,
        )  # fmt: skip
        return GPTNeoForCausalLM(config).eval()
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape, **layers, num_key_value_heads=2)).eval()
    config = PhiConfig(**shape, **layers, partial_rotary_factor=0.5, resid_pdrop=0.0)
    model = PhiForCausalLM(config).eval()
    torch.nn.init.normal_(model.lm_head.bias, std=0.5)
    return model


@torch.no_grad()
def accuracy(model, texts) -> float:
    """Mean memorisation accuracy by one plain forward a text."""
    values = []
    for ids in texts:
        guesses = model(input_ids=torch.tensor([ids])).logits[0, :-1].argmax(-1)
        values.append((guesses == torch.tensor(ids[1:])).float().mean().item())
    return sum(values) / len(values)


def memorise(model, texts, goal: float, max_steps: int = 400):
    """Train until the mean memorisation accuracy of the texts is `goal`."""
    longest = max(map(len, texts))
    ids = torch.tensor([[*text, *[END] * (longest - len(text))] for text in texts])
    labels = torch.tensor([[*text, *[-100] * (longest - len(text))] for text in texts])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    model.train()
    for step in range(max_steps):
        if step % 5 == 0 and accuracy(model, texts) >= goal:
            break
        model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    assert accuracy(model, texts) >= goal
    return model.eval()


@torch.no_grad()
def decode_all(model, ids) -> dict[int, tuple[int, ...]]:
    """Greedily continue every prefix to the text's length: whole forwards, no cache, no padding."""
    rows: dict[int, tuple[int, ...]] = {}
    for length in range(1, len(ids)):
        rows[length] = tuple(ids[:length])
        logits = model(input_ids=torch.tensor([*rows.values()]), use_cache=False).logits
        tokens = logits[:, -1].argmax(-1).tolist()
        rows = {t: (*row, token) for (t, row), token in zip(rows.items(), tokens, strict=True)}
    return {t: row[t:] for t, row in rows.items()}


def ended(tokens: tuple[int, ...], end: int) -> tuple[int, ...]:
    """The tokens up to the first `end`, filled up with it."""
    kept: list[int] = []
    for token in tokens:
        kept.append(end if end in kept else token)
    return tuple(kept)


def likelihood(ids, said: dict[int, tuple[int, ...]], n: int) -> float:
    """EL_n by loops over n-grams of the continuations of all prefixes."""
    total = 0.0
    for t in range(1, len(ids) - n + 1):
        rest = [ids[i : i + n] for i in range(t, len(ids) - n + 1)]
        grams = [said[t][i : i + n] for i in range(len(said[t]) - n + 1)]
        total += sum(1 for gram in grams if gram in rest) / len(rest)
    return total / (len(ids) - n)
