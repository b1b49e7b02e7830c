"""What a report shows besides figures: how much data there is, pictures of items, examples, the curves of the run."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from polymodal.catalogue.quarantine import decode_record
from polymodal.catalogue.rows import Rows
from polymodal.embed import Embedder
from polymodal.evaluate import AS_IS, Example, Facts, by_id, by_key, make_examples, read_curves
from polymodal.types import Record
from polymodal.workflow.subsets import Evaluated

__all__ = ["curves_of", "examples_of", "facts_of", "thumbnails_of"]

_SIDE = 96
_PATTERNS = 12


def thumbnails_of(records: Sequence[Record], embedder: Embedder, ids: Collection[str]) -> dict[str, bytes]:
    """id -> a small PNG of the first thing in each record that shows as a picture, pictures before clips.

    A spectrogram is a picture of a sound to an engineer only, so that sounds show nothing.
    """
    seen = [name for kind in ("image", "video") for name, k in embedder.modalities.items() if k == kind]
    decoders = {name: embedder.network.modality(name) for name in seen}
    wanted, out = frozenset(ids), {}
    for record in records:
        name = next((name for name in seen if name in record.values), None)
        if name is None or record.id not in wanted:
            continue
        decoded, _ = decode_record(record, {name: decoders[name]})
        if name in decoded.values:
            out[record.id] = _small(decoders[name].show(decoded.values[name])[1])
    return out


def _small(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as picture:
        first = picture.convert("RGB")
        first.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        first.save(file, "PNG")
    return file.getvalue()


def facts_of(rows: Rows, quarantined: int) -> Facts:
    """Rows, splits, and which modalities the rows have."""
    index, total = rows.index, max(len(rows), 1)
    splits = {one["values"].as_py() or "(none)": one["counts"].as_py() for one in pc.value_counts(index["split"])}
    has = np.stack([rows.index[f"has_{name}"].to_numpy() for name in rows.modalities], 1).astype(bool)
    found = Counter(
        frozenset(n for n, there in zip(rows.modalities, line, strict=True) if there) for line in has.tolist()
    )
    patterns = [(subset, count) for subset, count in found.most_common() if subset][:_PATTERNS]
    labels = [name for name in index.column_names if name.startswith("label_")]
    return Facts(
        rows=len(rows),
        splits=splits,
        presence={name: (pc.sum(index[f"has_{name}"]).as_py() or 0) / total for name in rows.modalities},
        patterns=patterns,
        labels={name.removeprefix("label_"): len(pc.unique(index[name].drop_null())) for name in labels},
        quarantined=quarantined,
    )


def examples_of(
    found: Evaluated, modalities: Mapping[str, str], labels: Mapping[str, str], label: str, count: int, seed: int
) -> tuple[Example, ...]:
    """Random queries: each modality alone looks for another one that can be seen, the fused vector for its label."""
    single = {next(iter(s)): e for s, e in found.fused.items() if len(s) == 1}
    seen = {name for name, kind in modalities.items() if kind in ("image", "video")}
    words = {name for name, kind in modalities.items() if kind == "text"}
    out: list[Example] = []
    for query, vectors in single.items():
        others = [name for name in single if name != query]
        if not others:
            continue
        target = max(others, key=lambda name: (name in seen, len(single[name])))
        out += make_examples(
            f"{query} → {target}",
            vectors,
            single[target],
            by_id(vectors.ids, single[target].ids),
            count=count,
            seed=seed,
            query_picture=query in seen,
            query_text=query in words,
        )
    if labels:
        fused = found.fused[AS_IS]
        relevance = by_key(fused.ids, fused.ids, labels)
        out += make_examples(f"whatever an item has → same {label}", fused, fused, relevance, count=count, seed=seed)
    return tuple(out)


def curves_of(model: Path) -> dict[str, Sequence[tuple[float, float]]]:
    """The loss curves of a run; none beside a model folder that was moved out of one."""
    for folder in (model, model.parent):
        if (folder / "metrics.jsonl").is_file():
            return dict(read_curves(folder / "metrics.jsonl"))
    return {}
