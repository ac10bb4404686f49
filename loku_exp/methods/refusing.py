"""A model that refuses before it answers: the control whose generations say nothing and whose scores do."""

from typing import Any

import torch
from torch import Tensor, nn

from loku_exp.methods.wrapper import Hooked, Wrapper


class Refusing(Wrapper):
    """A model that says a refusal before every answer, and then what it would have said after it.

    Args:
        wrapped: the target.
        refusal: ids of the refusal.
    """

    def __init__(self, wrapped: Any, refusal: list[int]):
        super().__init__(wrapped)
        self.refusal = refusal

    def forward(
        self, input_ids: Tensor, prompt_lengths: Tensor, attention_mask: Any = None, **options: Any
    ) -> Any:
        """Run the model on prompt, refusal and answer; what is given back has no refusal in it."""
        (length,) = prompt_lengths.tolist()
        if not length:  # a text without a question, to which nothing is answered
            return self.wrapped(input_ids=input_ids, attention_mask=attention_mask, **options)
        said = self._refusal(input_ids)
        ids = torch.cat([input_ids[:, :length], said, input_ids[:, length:]], dim=1)
        head, start = self.wrapped.get_output_embeddings(), length + said.shape[1] - 1

        def cut(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden = arguments[0]
            kept = torch.cat([hidden[:, : length - 1], hidden[:, start:]], dim=1)
            return (kept, *arguments[1:])

        with Hooked(head, cut, pre=True):
            return self.wrapped(input_ids=ids, attention_mask=torch.ones_like(ids), **options)

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Tensor:
        """Refuse, then continue."""
        said = self._refusal(input_ids)
        ids = torch.cat([input_ids, said], dim=1)
        continued: Tensor = self.wrapped.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), **options
        )
        return continued

    def _refusal(self, like: Tensor) -> Tensor:
        return torch.tensor([self.refusal], device=like.device).expand(len(like), -1)
