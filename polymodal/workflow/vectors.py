"""A model and data in, a Parquet file of ids and vectors out; and that file read back, checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polymodal.types import BadInput, Embeddings
from polymodal.workflow.files import aside

__all__ = ["EmbedResult", "VectorFacts", "embed_data", "read_facts", "read_vectors"]

_FORMAT = b"polymodal-vectors"
_CHUNK = 1024  # records embedded and written at a time: what memory holds
_AGAIN = "Write it again: polymodal embed MODEL DATA --out FILE"


@dataclass(frozen=True)
class VectorFacts:
    """What a file of vectors says of itself: digest and place of the model, width E, the data, rows."""

    model: str
    model_path: str
    width: int
    data: str
    rows: int


@dataclass(frozen=True)
class EmbedResult:
    """What `embed_data` wrote: vectors, rows without any modality that the model can read, cells left out by reason."""

    out: Path
    vectors: int
    width: int
    model: str
    empty: int
    quarantined: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "out": str(self.out)}


def embed_data(
    model: Path,
    data: Path,
    out: Path,
    *,
    split: str | None = None,
    only: Collection[str] = (),
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> EmbedResult:
    """Embed the rows of a catalogue or of prepared shards into a Parquet file: `id`, `vector`.

    The file is written under another name and renamed when whole.

    Args:
        model: a run directory or a model folder.
        split: rows of one split; all by default.
        only: embed as if the rows had these modalities alone.
        progress: called with rows done and rows in all.

    Raises:
        BadInput: a modality that the model or the data lacks, a split without rows, no row that the model can read.
    """
    from polymodal.embed import Embedder, model_folder
    from polymodal.model import ITEM
    from polymodal.workflow.records import check_names, check_shapes, records_of
    from polymodal.workflow.training import open_rows, split_rows

    rows = open_rows(data)
    numbers = split_rows(rows, split)
    embedder = Embedder.load(model, device)
    check_names("--only", only, embedder.modalities, "modalities of the model")
    check_kinds(embedder.modalities, rows.modalities)
    check_shapes(rows, {name: embedder.network.modality(name) for name in embedder.modalities})
    facts = {"model": embedder.model, "model_path": str(model_folder(model).resolve()), "data": str(data.resolve())}
    records, done, written = records_of(rows, numbers), 0, 0
    with _writer(out, embedder.width, facts) as write:
        while chunk := list(islice(records, _CHUNK)):
            found = embedder.vectors(chunk, [ITEM], only=only or None, progress=_counted(progress, done, len(numbers)))[
                ITEM
            ]
            write(found)
            done, written = done + len(chunk), written + len(found)
        if not written:
            known = ", ".join(only or embedder.modalities)
            raise BadInput("data", f"rows that have one of {known}", f"none of {done}")
    reasons: dict[str, int] = {}
    for entry in [*getattr(rows, "quarantine", ()), *embedder.quarantine]:
        reasons[entry.reason] = reasons.get(entry.reason, 0) + 1
    return EmbedResult(out, written, embedder.width, embedder.model, done - written, dict(sorted(reasons.items())))


def check_kinds(model: dict[str, str], data: Any) -> None:
    """Raises BadInput where data and model share no modality, or a name stands for another kind in the data."""
    shared = [name for name in model if name in data]
    if not shared:
        raise BadInput(
            "data",
            f"one of the model's modalities: {', '.join(model)}",
            ", ".join(data),
            "Name them alike in catalogue.toml.",
        )
    for name in shared:
        if model[name] != data[name]:
            raise BadInput(
                f"data: modality {name!r}", f"kind {model[name]!r}, as the model has it", f"kind {data[name]!r}"
            )


def _counted(progress: Callable[[int, int], None] | None, before: int, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = before

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total)

    return count


@contextmanager
def _writer(out: Path, width: int, facts: dict[str, str]) -> Iterator[Callable[[Embeddings], None]]:
    """Writes Embeddings one after the other; the file appears when the block ends without an error."""
    if out.is_dir():
        raise BadInput("--out", "a file", f"the folder {out}", "Name a file, such as vectors.parquet.")
    metadata = {_FORMAT: b"1", b"facts": json.dumps({**facts, "width": width}).encode()}
    schema = pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32(), width))], metadata)

    def write(found: Embeddings) -> None:
        flat = pa.array(found.vectors.reshape(-1), pa.float32())
        columns = [pa.array(found.ids, pa.string()), pa.FixedSizeListArray.from_arrays(flat, width)]
        writer.write_table(pa.Table.from_arrays(columns, schema=schema))

    with aside(out) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        yield write


def read_facts(path: Path) -> VectorFacts:
    """What a file of vectors says of itself.

    Raises:
        BadInput: no such file, or not one that `polymodal embed` wrote.
    """
    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except FileNotFoundError:
        raise BadInput("vectors", "a file that `polymodal embed` wrote", f"no file {path}", _AGAIN) from None
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput("vectors", "a file that `polymodal embed` wrote", f"{path}: {error}", _AGAIN) from None
    metadata = schema.metadata or {}
    kind = schema.field("vector").type if schema.names == ["id", "vector"] else None
    if metadata.get(_FORMAT) != b"1" or kind is None or not pa.types.is_fixed_size_list(kind):
        raise BadInput(
            "vectors", "a file that `polymodal embed` wrote", f"{path} with columns {', '.join(schema.names)}", _AGAIN
        )
    facts = json.loads(metadata[b"facts"])
    return VectorFacts(str(facts["model"]), str(facts["model_path"]), int(facts["width"]), str(facts["data"]), rows)


def read_vectors(path: Path) -> Embeddings:
    """The vectors in a file that `polymodal embed` wrote.

    Raises:
        BadInput: as `read_facts`; an empty file; values that are no vectors.
    """
    facts = read_facts(path)
    table = pq.read_table(path)
    if not len(table) or table["id"].null_count or table["vector"].null_count:
        raise BadInput("vectors", "at least one vector, and no gaps", f"{path} with {len(table)} rows", _AGAIN)
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = np.ascontiguousarray(flat.reshape(len(table), facts.width), np.float32)
    return Embeddings(tuple(table["id"].to_pylist()), vectors, facts.model)
