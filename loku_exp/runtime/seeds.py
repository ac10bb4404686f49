"""One seed, many independent streams: every random draw of a run names the stream it takes from."""

import hashlib


def derive(seed: int, *stream: str) -> int:
    """Return the seed of a named stream, the same in every process and for every hash seed.

    Args:
        seed: the seed a user sets.
        stream: names from coarse to fine, e.g. ``("fila", "transformer.h.0.mlp.c_fc")``.

    Returns:
        An integer in [0, 2**31), fit for torch, numpy and random.
    """
    text = "/".join((str(seed), *stream))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
