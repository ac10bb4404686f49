"""The bench's own inference as an lm-eval model: any causal language model, with an adapter or without."""

import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper
from peft.utils.save_and_load import load_peft_weights

from loku_exp.config.compose import compose_config
from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError, ModelError, nearest
from loku_exp.evaluation.lm.answers import OWN_REQUESTS, Answers
from loku_exp.evaluation.lm.inference import Inference
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.lm_eval.words import LM_EVAL, in_lm_evals_words, model_overrides
from loku_exp.models import load as models
from loku_exp.models.configuration import empty_model, read_config
from loku_exp.models.head import check_head
from loku_exp.models.identity import check_weights
from loku_exp.models.tokenizer import load_tokenizer
from loku_exp.runtime.cache import Cache
from loku_exp.stages.machine import on_this_machine

log = logging.getLogger(__name__)
KEYS = LM_EVAL | {"dtype": "model.dtype"}
TOKENS = "evaluation.batch_tokens"
DEVICE_OF_LM_EVAL = "cuda:0"  # what its command line says where nothing is said


class LokuLM(UnlearnLM):
    """A model for lm-eval: its weights are read once something is asked, and checked before.

    Args:
        pretrained: folder or hub id.
        peft: folder or hub id of an adapter for it.
        batch_size: lm-eval's, texts of full length per forward pass; 1, its default, and ``auto`` leave
            it to ``evaluation.batch_tokens``.
        device: lm-eval's; its default is the CPU where there is no CUDA.
        words: ``tokenizer``, ``revision``, ``trust_remote_code``, ``max_length``, ``dtype``,
            ``evaluation.batch_tokens``; ``model=NAME`` for the settings of ``conf/model/NAME.yaml``,
            ``model.KEY`` for one of them.

    Raises:
        UserError: a word is unknown, something cannot be loaded, or the adapter is of another model.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        peft: str | None = None,
        batch_size: int | str = 1,
        device: str = "auto",
        **words: Any,
    ):
        with in_lm_evals_words():
            config = _config_of(pretrained, device, words)
            self.tokenizer, _ = load_tokenizer(config.model, None, Cache(config.cache_dir))
            length = models.context_length(models.architecture(config.model, self.tokenizer))
            path = str(config.model.path)
            check_weights(path, "pretrained")
            if peft is not None:
                peft = os.path.expanduser(peft)
                check_adapter(peft, config)
        tokens = config.evaluation.batch_tokens
        if str(batch_size).isdigit() and int(batch_size) > 1:
            tokens = int(batch_size) * length

        def load() -> Inference:
            """Load the weights, with the adapter on them, when something is first asked."""
            device = torch.device(config.device)
            model: Any = models.load_model(config.model, path, device, key="pretrained")
            if peft is not None:
                model = PeftModel.from_pretrained(model, peft)
            return Inference(
                model,
                self.tokenizer,
                batch_tokens=tokens,
                max_length=length,
                stop_at_eos=config.model.stop_at_eos,
            )

        super().__init__(Answers(), load)

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name, as lm-eval keeps requests by."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Return the chat template; see `HFLM`."""
        return HFLM.chat_template(self, chat_template)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as text."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )


def check_adapter(path: str, config: Config) -> None:
    """Check that an adapter's tensors are those that the model would have with it; weights are not read.

    Args:
        path: folder or hub id.
        config: of the model.

    Raises:
        ModelError: it cannot be read, is of a model of another shape, or reaches what scores are computed
            from.
    """
    model = config.model
    named = f"peft={path}"
    try:
        adapter = PeftConfig.from_pretrained(path)
        found = {name: weight.shape for name, weight in load_peft_weights(path, "cpu").items()}
    except Exception as error:  # as many kinds as there are damages
        raise ModelError(
            f"{named}: no adapter that can be read ({' '.join(str(error).split())[:200]}); give a folder "
            "with adapter_config.json and adapter_model.safetensors"
        ) from error
    _check_no_prompt(adapter, named)
    own, adapter.base_model_name_or_path = adapter.base_model_name_or_path, None
    if own and Path(own).name != Path(str(model.path)).name:
        log.warning("%s was made for %s, and is put on %s", named, own, model.path)
    base = read_config(model, str(model.path), "pretrained")
    with torch.device("meta"):
        empty: Any = empty_model(model, base, None, f"pretrained={model.path}")
        adapter.init_lora_weights = False
        try:
            adapted: Any = get_peft_model(empty, adapter)
            wanted = get_peft_model_state_dict(adapted)
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                f"{named} does not go on pretrained={model.path} ({reason})"
            ) from error
    expected = {name: weight.shape for name, weight in wanted.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            theirs, ours = (_shape(shapes.get(name)) for shapes in (found, expected))
            raise ModelError(
                f"{named} is not an adapter of pretrained={model.path}: {name} is {theirs} in it, and "
                f"would be {ours}; its own base is {own}"
            )
    _check_own_head(adapted, named)


def _check_no_prompt(adapter: Any, named: str) -> None:
    """Check that an adapter puts nothing before a text, which would move what is read off by place."""
    if adapter.is_prompt_learning:
        raise ModelError(
            f"{named}: a {adapter.peft_type.value} adapter puts tokens of its own before every text, and "
            "such a model is not scored here; give one that changes layers (LoRA, ...)"
        )


def _check_own_head(adapted: Any, named: str) -> None:
    """Check that the output head is a plain matrix: scores are computed from it, apart from the model."""
    head = adapted.get_output_embeddings()
    shared = getattr(adapted.config, "tie_word_embeddings", False)
    layer = isinstance(head, BaseTunerLayer)
    if not layer and not (shared and isinstance(head, AuxiliaryTrainingWrapper)):
        return
    instead = (
        "the base shares it with its embedding, so a merged model is another one; train one without it"
        if layer and shared
        else "merge it into its base (peft: merge_and_unload, save_pretrained), and give that as pretrained"
    )
    raise ModelError(
        f"{named}: it adapts the output head, which scores are computed from; {instead}"
    )


def teach(kinds: tuple[str, ...] = OWN_REQUESTS) -> None:
    """Let every model of lm-eval answer this bench's request types, or say that it cannot.

    A model that lm-eval loads with transformers (``--model hf``) is asked through the bench's inference;
    any other gives no log-probabilities of single tokens by their ids.
    """
    for kind in kinds:
        if not hasattr(LM, kind):
            setattr(LM, kind, _asking(kind))


def _asking(kind: str) -> Any:
    def ask(lm: Any, requests: list[Any]) -> list[Any]:
        if not isinstance(lm, HFLM) or lm.backend != "causal":
            raise ConfigError(
                f"--model: {type(lm).__name__} cannot be asked for tokens by their ids, which this bench's "
                "tasks need; use --model loku or --model hf with a causal language model"
            )
        inner = vars(lm).setdefault("_by_ids", UnlearnLM(Answers(), partial(_around, lm)))
        return list(getattr(inner, kind)(requests))

    return ask


def _around(lm: Any) -> Inference:
    if isinstance(lm.model, PeftModel):
        _check_no_prompt(lm.model.active_peft_config, "peft")
        _check_own_head(lm.model, "peft")
    check_head(lm.model)
    size = lm.batch_size if isinstance(lm.batch_size, int) else 1
    return Inference(
        lm.model, lm.tokenizer, batch_tokens=size * lm.max_length, max_length=lm.max_length
    )


def _config_of(pretrained: str | None, device: str, words: dict[str, Any]) -> Config:
    known = ["pretrained", "peft", "model", *KEYS, TOKENS]
    wrong = [name for name in words if name not in known and not name.startswith("model.")]
    problems = [
        f"--model_args {name}={words[name]}: --model loku has no such word{nearest(name, known)}; it has "
        f"{', '.join(dict.fromkeys(known))}, and model.KEY for a key of conf/model"
        for name in wrong
    ]
    if pretrained is None:
        problems.append("--model_args pretrained=...: not given; a folder or hub id")
    if problems:
        raise ConfigError(problems)
    named = {KEYS.get(name, name): value for name, value in words.items()}
    no_cuda = device == DEVICE_OF_LM_EVAL and not torch.cuda.is_available()
    overrides = model_overrides({"pretrained": str(pretrained)} | named, ("model", "evaluation"))
    overrides += ["dataset=toy_tofu", "unlearn=false", "reference.source=none"]  # no data is read
    overrides.append(f"device={'auto' if no_cuda else device}")
    return on_this_machine(compose_config(overrides))


def _shape(shape: Any) -> str:
    return "absent" if shape is None else f"of shape {tuple(shape)}"
