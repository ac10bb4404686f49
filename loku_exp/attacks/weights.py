"""What an attack on weights changes: the model inside a wrapper, with its adapter merged."""

from typing import Any

from loku_exp.methods.adapter import merged


def attackable(whole: Any) -> Any:
    """Return the model inside a wrapper, without an adapter of its own: that is merged."""
    return merged(getattr(whole, "wrapped", whole))


def put_back(whole: Any, changed: Any) -> Any:
    """Return what was loaded, a wrapper around the changed model or that model, in evaluation mode."""
    if not hasattr(whole, "wrapped"):
        return changed.eval()
    whole.wrapped = changed
    return whole.eval()
