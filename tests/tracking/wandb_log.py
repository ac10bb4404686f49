"""Read an offline run of wandb back from its record log (LevelDB's format: blocks of framed records)."""

import json
import struct
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

BLOCK, HEADER, FRAME = 32768, 7, struct.Struct("<IHB")
FULL, LAST = 1, 4


def records(file: Path) -> list[Record]:
    """Return the records of a log, whole ones only."""
    data, place, found, part = file.read_bytes(), HEADER, [], b""
    while place + FRAME.size <= len(data):
        if BLOCK - place % BLOCK < FRAME.size:  # too little left for a frame: padding
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = FRAME.unpack_from(data, place)
        place += FRAME.size
        part += data[place : place + length]
        place += length
        if kind in (FULL, LAST):
            found.append(Record.FromString(part))
            part = b""
    return found


def read(folder: Path) -> dict[str, Any]:
    """Return run, config, history, summary, artifacts and exit code of the only offline run of a folder."""
    (place,) = folder.glob("wandb/offline-run-*")
    return read_file(place)


def read_file(place: Path) -> dict[str, Any]:
    """Return the same of the folder of an offline run."""
    (file,) = place.glob("run-*.wandb")
    run: dict[str, Any] = {
        "history": [],
        "summary": {},
        "artifacts": [],
        "files": file.parent / "files",
    }
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run["run"] = record.run
            run["config"] = {
                item.key: json.loads(item.value_json) for item in record.run.config.update
            }
        elif kind == "history":
            items = record.history.item
            run["history"].append({_key(item): json.loads(item.value_json) for item in items})
        elif kind == "summary":
            run["summary"] |= {_key(i): json.loads(i.value_json) for i in record.summary.update}
        elif kind == "artifact":
            run["artifacts"].append(record.artifact)
        elif kind == "exit":
            run["exit"] = record.exit.exit_code
    return run


def _key(item: Any) -> str:
    return item.key or "/".join(item.nested_key)
