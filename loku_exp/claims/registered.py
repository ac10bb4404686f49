"""Claims as their file has them, written before the runs that answer them."""

from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, model_validator
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
    margin: FiniteFloat
    same_rate: bool = False
    best: bool = False

    @model_validator(mode="after")
    def _rates(self) -> "Claim":
        """Check that what is said of rates is of arms that have them."""
        if self.best and (self.at != "level" or self.same_rate or "subject" in (self.b or {})):
            raise ValueError(
                "best: rates are chosen on one half of the rows and read on the other, at the level, each "
                "arm's by itself; leave out best, or use at: level without same_rate and subject"
            )
        if self.same_rate and self.b is None:
            raise ValueError("same_rate: there is no second arm to share rates with; give b")
        return self


class Claims(_Part):
    """A file of claims: what runs they are about, the level of equal forgetting, and each claim."""

    protocol: Arm
    level: FiniteFloat
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
