"""What a subject answered, by request, in a file that grows while it is asked.

A line of the file is a batch of answers with a check sum of its own, and the digest of all that was asked
together. So a file that was cut off or damaged loses those batches and no others, and what is asked again
is asked in the batches it was asked in before: a killed evaluation ends with the numbers, to the bit, of
one that was not. What was answered when something else was asked, e.g. for another forget set, is in no
batch.
"""

import hashlib
import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from lm_eval.api.instance import Instance

from loku_exp.errors import ModelError
from loku_exp.runtime.whole_files import drop_half_written, write_text, writing

log = logging.getLogger(__name__)
SECONDS_BETWEEN_WRITES = 15.0
OWN_REQUESTS = ("token_scores", "generate_ids", "greedy_suffixes")  # first argument: for people
Wanted = Callable[[int], bool]
"""Whether a request, by index, needs an answer."""
Compute = Callable[[str, list[Instance], Wanted], Iterator[dict[int, Any]]]
"""From a request type, requests that are all different, and which of them (by index) have no answer yet, to
answers by index, batch by batch. The batches are those of all the requests, whichever have no answer."""


def everything(_: int) -> bool:
    """Want every request."""
    return True


class TokenScores(NamedTuple):
    """Per labelled token of a text: its log-probability in nats, and whether it was the argmax."""

    logprobs: list[float]
    greedy: list[bool]

    @property
    def loss(self) -> float:
        """The mean negative log-probability per labelled token, in nats."""
        return -sum(self.logprobs) / len(self.logprobs)


class Answers:
    """Answers of one subject.

    Args:
        file: to read earlier answers from, and to write each new one to; None keeps them in memory.

    While something is computed the file is locked, so that of two processes that ask the same subject one
    waits for the other's answers.
    """

    def __init__(self, file: Path | None = None):
        self.file = file
        self.known: dict[str, Any] = {}
        self._asked_with: dict[str, str] = {}  # by key: digest of what was asked together with it
        self._lock = FileLock(file.with_suffix(".lock")) if file is not None else None
        self._unwritten: list[str] = []
        self._written = time.monotonic()
        self._read()

    def answer(self, kind: str, requests: list[Instance], compute: Compute) -> list[Any]:
        """Return the answer to each request, computing those not known; equal ones are computed once.

        Args:
            kind: the request type.
            requests: of that type.
            compute: see `Compute`.
        """
        keys = [key_of(kind, request) for request in requests]
        if any(key not in self.known for key in keys):
            self._hold()
        asked = _key(kind, tuple(keys))
        pairs = zip(keys, requests, strict=True)
        different = {k: r for k, r in pairs if self._asked_with.get(k, asked) == asked}
        names = list(different)
        missing = {index for index, key in enumerate(names) if key not in self.known}
        if missing:
            for batch in compute(kind, list(different.values()), missing.__contains__):
                new = {names[i]: a for i, a in batch.items() if names[i] not in self.known}
                self._keep(new, asked)
                if time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
                    self._write()
            self._write()
        return [self.known[key] for key in keys]

    def remember(self, kind: str, content: tuple[Any, ...], answer: Any) -> None:
        """Keep an answer that was found on the way; `content` is a request's, without its text."""
        key = _key(kind, content)
        if key not in self.known:
            self._keep({key: answer}, "aside")

    def close(self) -> None:
        """Write what is left, and let other processes ask."""
        try:
            self._write()
        finally:
            if self._lock is not None:
                self._lock.release()

    def _holds(self) -> bool:
        """Return whether the file is this process's to write."""
        return self._lock is not None and self._lock.is_locked

    def _hold(self) -> None:
        """Take the file for this process; what another one has written meanwhile is known then."""
        if self.file is None or self._lock is None or self._holds():
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            log.info("another process is asking the same model; waiting for its answers")
            self._lock.acquire()
        drop_half_written(self.file.parent)
        self._read()

    def _keep(self, batch: dict[str, Any], asked: str) -> None:
        try:
            content = json.dumps([asked, batch], allow_nan=False)
        except ValueError as error:
            raise ModelError(
                "the model's answers are not finite (NaN or infinite log-probabilities): its weights are "
                "damaged, or its precision is too low; try model.dtype=float32"
            ) from error
        self._learn(asked, batch)
        if self._holds():
            self._unwritten.append(f"{_checksum(content)} {content}\n")

    def _learn(self, asked: str, batch: dict[str, Any]) -> None:
        self.known |= batch
        self._asked_with |= dict.fromkeys(batch, asked)

    def _write(self) -> None:
        self._written = time.monotonic()
        if self.file is None or not self._unwritten:
            return
        lines, self._unwritten = self._unwritten, []  # what fails is not written twice
        with writing(self.file), self.file.open("a", encoding="utf-8") as stream:
            stream.write("".join(lines))
            stream.flush()
            os.fsync(stream.fileno())

    def _read(self) -> None:
        """Read what is whole; what is not is taken out of the file by the process that holds it."""
        if self.file is None or not self.file.is_file():
            return
        text = self.file.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.split("\n") if line]
        whole = []
        for line in lines:
            checksum, _, content = line.partition(" ")
            if checksum == _checksum(content):
                self._learn(*json.loads(content))
                whole.append(f"{line}\n")
        lost = len(lines) - len(whole)
        if self._holds() and (lost or not text.endswith("\n")):
            if lost:
                log.warning("%s: %d damaged lines, asked again", self.file, lost)
            write_text(self.file, "".join(whole))


def key_of(kind: str, request: Instance) -> str:
    """Return what a request is known by: its type and arguments, without its text for people."""
    return _key(kind, request.args[1:] if kind in OWN_REQUESTS else request.args)


def _key(kind: str, content: tuple[Any, ...]) -> str:
    return hashlib.sha256(f"{kind}{content!r}".encode()).hexdigest()[:24]


def _checksum(content: str) -> str:
    return f"{zlib.crc32(content.encode()):08x}"
