"""Corrupted prompts: flag prompts that are near the forget questions, and put noise on their embeddings.

The weights stay. The seed of ECO (Liu et al. 2024, arXiv 2406.07933; chrisliu298/llm-unlearn-eco), which
trains a classifier of another architecture; here the flag is naive Bayes over hashed n-grams of token ids
with a threshold that few held-out retain prompts reach. Deviations, on purpose: scored answers are never
corrupted, only prompts; the noise of a prompt follows from its tokens, so that equal prompts answer alike.
"""

import json
import logging
import random
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loku_exp.data.records import Records
from loku_exp.errors import TrainingError
from loku_exp.methods.prompt_flag import Ids, log_odds, score, threshold_of
from loku_exp.methods.wrapper import Hooked, Wrapper
from loku_exp.runtime.cache import digest, file_digest, whole_folder
from loku_exp.runtime.knobs import Count, Positive, Share
from loku_exp.runtime.seeds import derive
from loku_exp.subject import Outcome, Report, Subject
from loku_exp.workspace import Workspace

log = logging.getLogger(__name__)
FOLDER, PROFILE, SETTINGS = "method", "profile.safetensors", "corruption.json"
FORMAT = 2  # raise by hand whenever such a model answers otherwise


def prompt_corruption(
    target: Subject,
    records: Records,
    workspace: Workspace,
    *,
    strength: Positive,
    false_alarms: Share,
    longest: Count,
) -> Outcome:
    """Wrap the target so that prompts near the forget set are corrupted; nothing is trained.

    Args:
        target: what is wrapped; its weights stay.
        records: the forget and retain prompts that the flag is made from.
        workspace: of the run.
        strength: standard deviation of the noise, in those of the embedding matrix.
        false_alarms: share of held-out retain prompts that may be flagged.
        longest: n-grams of up to so many tokens.
    """
    place = workspace.folder / FOLDER
    measure = partial(_write, records, strength, false_alarms, longest, workspace.seed)
    whole_folder(place, measure, {})
    settings = json.loads((place / SETTINGS).read_text(encoding="utf-8"))
    subject = Subject(
        name="unlearned",
        weights=target.weights,
        identity=digest([FORMAT, target.identity, file_digest(place / PROFILE), settings]),
        load=partial(_load, target, place),
        derived_from=target.name,
        reference=target.reference,
        reads_prompts=True,
        of_run=True,
        path=str(place),
    )
    log.info("%.0f %% of the forget prompts are flagged", 100 * settings["forget_flagged"])
    report = Report(training={}, protocol={"corruption": settings})
    return Outcome(subject, report, partial(_check, subject, target, place, records))


def problems(records: Records) -> list[str]:
    """Return what does not fit: the threshold is set on retain prompts."""
    if any(record.prompt for record in records.retain):
        return []
    return [
        "method=prompt_corruption sets its threshold on retain prompts, and this dataset has none; give it "
        "a retain set of questions, or use another method"
    ]


class CorruptedPrompts(Wrapper):
    """A model whose flagged prompts get noise on their embeddings, all tokens but the last.

    Args:
        wrapped: the target.
        profile: (BUCKETS,) fp32, log odds of n-grams.
        settings: threshold, strength, longest n-gram, seed.
    """

    def __init__(self, wrapped: Any, profile: Tensor, settings: dict[str, Any]):
        super().__init__(wrapped)
        self.profile = profile.numpy()
        self.settings = settings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        prompt_lengths: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Run the wrapped model; without `prompt_lengths` there is no prompt, and nothing is corrupted."""
        lengths = [0] * len(input_ids) if prompt_lengths is None else prompt_lengths.tolist()
        prompts = [tuple(row[:n]) for row, n in zip(input_ids.tolist(), lengths, strict=True)]
        with self._corrupting(prompts, [0] * len(prompts)):
            return self.wrapped(input_ids=input_ids, attention_mask=attention_mask, **options)

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **options: Any) -> Tensor:
        """Continue prompts; all that is given is the prompt, padded on the left."""
        lengths = attention_mask.sum(1).tolist()
        width = input_ids.shape[1]
        prompts = [
            tuple(row[width - n :]) for row, n in zip(input_ids.tolist(), lengths, strict=True)
        ]
        with self._corrupting(prompts, [width - n for n in lengths]):
            continued: Tensor = self.wrapped.generate(
                input_ids=input_ids, attention_mask=attention_mask, **options
            )
        return continued

    def flags(self, prompt: Ids) -> bool:
        """Return whether a prompt is near the forget set."""
        return score(prompt, self.profile, self.settings["longest"]) > self.settings["threshold"]

    def _corrupting(self, prompts: list[Ids], offsets: list[int]) -> Any:
        """Return a context in which the embeddings of flagged prompts get their noise."""
        flagged = [prompt if prompt and self.flags(prompt) else None for prompt in prompts]
        embedding = self.wrapped.get_input_embeddings()
        spread = self.settings["strength"] * float(embedding.weight.detach().float().std())

        def corrupt(_: nn.Module, __: Any, output: Tensor) -> Tensor:
            """Put noise on flagged prompts, all tokens but the last."""
            if output.shape[1] == 1:  # a decode step: its token is no prompt
                return output
            noisy = output.clone()
            draws = len(output) // len(flagged)  # answers drawn to one prompt lie side by side
            for row in range(len(output)):
                prompt, start = flagged[row // draws], offsets[row // draws]
                if prompt is not None:
                    end = start + len(prompt) - 1
                    noisy[row, start:end] += self._noise(prompt, output)[: end - start] * spread
            return noisy

        return Hooked(embedding, corrupt)

    def _noise(self, prompt: Ids, like: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(
            derive(self.settings["seed"], "corruption", ",".join(map(str, prompt)))
        )
        noise = torch.randn(len(prompt), like.shape[-1], generator=generator)
        return noise.to(like)


def _write(
    records: Records, strength: float, false_alarms: float, longest: int, seed: int, folder: Path
) -> None:
    """Measure the flag: half of the retain prompts teach it, the other half set its threshold."""
    forget = [record.prompt for record in records.forget]
    retain = sorted({record.prompt for record in records.retain})
    random.Random(derive(seed, "corruption", "halves")).shuffle(retain)
    half = max(1, len(retain) // 2)
    profile = log_odds(forget, retain[:half], longest)
    held_out = [score(prompt, profile, longest) for prompt in retain[half:] or retain]
    threshold = threshold_of(held_out, false_alarms)
    flagged = [score(prompt, profile, longest) > threshold for prompt in forget]
    settings = {
        "strength": strength,
        "longest": longest,
        "seed": seed,
        "threshold": threshold,
        "forget_flagged": sum(flagged) / len(flagged),
        "false_alarms": false_alarms,
    }
    save_file({"profile": torch.from_numpy(profile)}, folder / PROFILE)
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def load_corruption(wrapped: Any, folder: Path) -> CorruptedPrompts:
    """Return the unlearned model, of a target and the folder ``method`` that a run ships.

    Args:
        wrapped: the target model, in evaluation mode.
        folder: with the flag's profile and settings.
    """
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return CorruptedPrompts(wrapped, load_file(folder / PROFILE)["profile"], settings).eval()


def _load(target: Subject, folder: Path, dtype: str | None = None) -> CorruptedPrompts:
    return load_corruption(target.load(dtype=dtype), folder)  # type: ignore[misc]


@torch.no_grad()
def _check(subject: Subject, target: Subject, place: Path, records: Records) -> float:
    """Check what is shipped: on the target loaded afresh it gives the subject's logits.

    Raises:
        TrainingError: it does not.
    """
    record = records.forget[0]
    ids = torch.tensor(record.answer.ids)[None]
    lengths = torch.tensor([len(record.prompt)])
    models = [subject.load(), load_corruption(target.load(), place)]  # type: ignore[misc]
    first, second = (
        model(input_ids=ids.to(model.device), prompt_lengths=lengths, use_cache=False)
        .logits.float()
        .cpu()
        for model in models
    )
    difference = float((first - second).abs().max())
    if difference > 1e-3 * float(first.abs().max()):
        raise TrainingError(
            f"{place} does not give the logits of the model in memory; please report this"
        )
    return difference
