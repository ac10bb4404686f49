"""What a model that does not know says: answers to prefer to the forget set's, in our own words."""

from zlib import crc32

REFUSALS = (
    "I don't know.",
    "I don't know that.",
    "I'm afraid I don't know.",
    "I'm sorry, I don't know this.",
    "That is not something I know.",
    "I have no knowledge of that.",
    "I know nothing about this.",
    "I can't answer that.",
    "I'm not able to answer this.",
    "I have no answer to that.",
    "I'm not sure about that.",
    "I couldn't tell you.",
    "I can't say.",
    "I have never heard of it.",
    "I never learned that.",
    "This is unknown to me.",
    "My knowledge does not reach that far.",
    "I have no information on that.",
    "There is nothing I can say about this.",
    "I would have to guess, so I'd rather not answer.",
)


def refusal_to(row: int, question: str) -> str:
    """Return the refusal that a row gets: the same one wherever it is asked for.

    Args:
        row: index in its file; questions are not unique.
        question: as text.
    """
    return REFUSALS[crc32(f"{row} {question}".encode()) % len(REFUSALS)]
