"""Claims as their file has them, written before the runs that answer them."""

from pathlib import Path
from typing import Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, model_validator
from yaml import YAMLError

from loku_exp.errors import DataError

LITTLE_IS_GOOD = ("collapsed", "updates", "init_share_of_retraining")
"""Quantities that are of a run, not of one of its models; little of them is good."""
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
        if self.b is not None and not self.b:
            raise ValueError("b: it names no choice, and so holds the runs of a too; leave it out")
        if "subject" in self.a or ("subject" in (self.b or {}) and len(self.b or {}) > 1):
            raise ValueError(
                "subject: b: {subject: target} are the runs of a, read at their target; nothing stands "
                "beside it, and a has none"
            )
        if "subject" in (self.b or {}) and self.quantity in LITTLE_IS_GOOD:
            raise ValueError(
                f"subject: {self.quantity} is of a run, whatever model of it; name runs in b"
            )
        if self.same_rate and self.b is None:
            raise ValueError("same_rate: there is no second arm to share rates with; give b")
        return self

    @model_validator(mode="after")
    def _margin(self) -> "Claim":
        """Check that the rule could be followed."""
        if self.side == "within" and self.margin <= 0:
            raise ValueError(
                "margin: within it, to both sides of 0, is nothing; it must be above 0"
            )
        if self.quantity == "updates" and self.at == "end":
            raise ValueError("updates: they are counted to the level; use at: level")
        return self


class Claims(_Part):
    """A file of claims: what runs they are about, the level of equal forgetting, and each claim."""

    protocol: Arm
    level: FiniteFloat
    claims: list[Claim]

    @model_validator(mode="after")
    def _ids(self) -> "Claims":
        """Check that each claim can be told from the others."""
        ids = [claim.id for claim in self.claims]
        twice = [name for name in dict.fromkeys(ids) if ids.count(name) > 1]
        if twice:
            raise ValueError(
                f"claims: {', '.join(twice)} stands there twice; a changed rule is a new id"
            )
        return self


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
