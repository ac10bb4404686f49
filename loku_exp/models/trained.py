"""Trained weights of a snapshot, put into a model of the same shape."""

from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn

from loku_exp.errors import ModelError
from loku_exp.models.tensors import without_load_report


def load_trained(model: nn.Module, folder: Path) -> None:
    """Put the trained weights of a snapshot into a model of the same shape, adapted or not."""
    if isinstance(model, PeftModel):
        state = load_file(folder / "adapter_model.safetensors")
        set_peft_model_state_dict(model, state)
        return
    state = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= load_file(file)
    names = set(model.state_dict())
    if not state.keys() <= names:  # some architectures are saved under other names than they have
        model_class: Any = type(model)
        with without_load_report():
            again, info = model_class.from_pretrained(
                folder, config=model.config, dtype="auto", output_loading_info=True
            )
        missing, state = set(info["missing_keys"]), again.state_dict()
    else:
        missing = names - state.keys()
        if model.config.tie_word_embeddings:  # type: ignore[union-attr]
            missing -= set(getattr(model, "_tied_weights_keys", None) or ())
    if missing:
        raise ModelError(f"{folder} lacks the weights {', '.join(sorted(missing)[:3])}")
    model.load_state_dict(state, strict=False)
