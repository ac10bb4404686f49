"""Claims as their file has them, written before the runs that answer them."""

from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError
from yaml import YAMLError

from loku_exp.errors import DataError

Arm = dict[str, Any]
"""Choices of runs: names of the record or keys of the configuration, to values."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Claim(_Part):
    """A claim, as its file has it; there `docs/claims.yaml` says what the fields mean."""

    id: str
    claim: str
    quantity: str
    at: Literal["level", "end"]
    a: Arm
    b: Arm | None = None
    side: Literal["above", "below", "within"]
    margin: float
    same_rate: bool = False
    best: bool = False


class Claims(_Part):
    """A file of claims: what runs they are about, the level of equal forgetting, and each claim."""

    protocol: Arm
    level: float
    claims: list[Claim]


def read_claims(file: Path) -> Claims:
    """Read a file of claims.

    Raises:
        DataError: it cannot be read, or an entry is none.
    """
    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
        return Claims.model_validate(content)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        else:
            said = " ".join(str(error).split())[:200]
        raise DataError(f"{file}: no file of claims ({said}); see docs/claims.yaml") from error
