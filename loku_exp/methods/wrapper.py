"""A module around a language model that changes what it does with prompts, and is asked like it."""

from typing import Any

from torch import nn


class Wrapper(nn.Module):
    """A model around another one; what it does not define itself is the other's.

    Args:
        wrapped: a causal language model.
    """

    def __init__(self, wrapped: Any):
        super().__init__()
        self.wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("wrapped"), name)


class Hooked:
    """A hook of a module for the time of a context.

    Args:
        module: whose forward pass it sees.
        hook: as `torch.nn.Module.register_forward_hook` takes it, or its ``pre`` variant.
        pre: whether it comes before the forward pass.
    """

    def __init__(self, module: nn.Module, hook: Any, *, pre: bool = False):
        self.module, self.hook, self.pre = module, hook, pre

    def __enter__(self) -> None:
        register = (
            self.module.register_forward_pre_hook if self.pre else self.module.register_forward_hook
        )
        self.handle = register(self.hook)

    def __exit__(self, *_: Any) -> None:
        self.handle.remove()
