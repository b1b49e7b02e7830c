"""What a report shows of the data: how much there is, and small pictures of items."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import pyarrow.compute as pc
from PIL import Image

from polymodal.catalogue.quarantine import decode_record
from polymodal.catalogue.rows import Rows
from polymodal.embed import Embedder
from polymodal.evaluate import Facts, Subset
from polymodal.types import Record

__all__ = ["facts_of", "thumbnails_of"]

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


def facts_of(rows: Rows, presence: Mapping[str, Subset], quarantined: int) -> Facts:
    """Rows, splits, and which modalities the evaluated rows have."""
    index, total = rows.index, max(len(rows), 1)
    splits = {one["values"].as_py() or "(none)": one["counts"].as_py() for one in pc.value_counts(index["split"])}
    patterns = Counter(presence.values()).most_common(_PATTERNS)
    labels = [name for name in index.column_names if name.startswith("label_")]
    return Facts(
        rows=len(rows),
        splits=splits,
        presence={name: (pc.sum(index[f"has_{name}"]).as_py() or 0) / total for name in rows.modalities},
        patterns=patterns,
        labels={name.removeprefix("label_"): len(pc.unique(index[name].drop_null())) for name in labels},
        quarantined=quarantined,
    )
