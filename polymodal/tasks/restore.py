"""Parts of an item hidden and reconstructed: what was there, what the model saw, what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from polymodal import presence
from polymodal.catalogue.quarantine import decode_record
from polymodal.complete import Completer
from polymodal.draws import seed_of, uniform
from polymodal.modality import Modality, Question
from polymodal.tensors import Fields, stable_hash
from polymodal.types import BadInput, MediaError, MediaReason, Record

__all__ = ["Restored", "level_error", "restore"]

_GAP = "▁▁▁"


@dataclass(frozen=True)
class Restored:
    """One modality of an item, three times.

    Args:
        kind: of the modality. original: as decoded and read. seen: with the hidden parts blank (the catalogue's mean
            level; a gap for a word). said: with the hidden parts as the decoder has them.
        hidden, tokens: how many tokens were hidden, of how many.
        right: share of the hidden words or attributes that came back as they were; None for pictures and sounds.
    """

    kind: str
    original: Any
    seen: Any
    said: Any
    hidden: int
    tokens: int
    right: float | None = None


def restore(completer: Completer, record: Record, ratio: float = 0.5, *, seed: int = 0) -> dict[str, Restored]:
    """Hide a part of each modality in turn, the others whole, and reconstruct it.

    What hides together in training (a word, a moment of a clip) does so here. Attributes are asked for one at a time,
    each beside all others.

    Args:
        ratio: share of the units of a modality that is hidden, in (0, 1]; at least one.

    Returns:
        Modality -> Restored; a modality that cannot be reconstructed is left out, and so is an only one that would be
        hidden as a whole.

    Raises: BadInput: a ratio out of range. MediaError: a cell that cannot be decoded.
    """
    if not 0 < ratio <= 1:
        raise BadInput("--hide", "a share above 0, at most 1", ratio)
    network = completer.network
    decoded, bad = decode_record(record, {name: network.modality(name) for name in network.names})
    if bad:
        raise MediaError(cast(MediaReason, bad[0].reason), f"{bad[0].modality}: {bad[0].detail}".rstrip(": "))
    out = {}
    for name in decoded.values:
        modality = network.modality(name)
        fields = modality.preprocess(decoded.values[name])
        if modality.parts():
            found = _attributes(completer, decoded, name, modality)
        else:
            hidden = _hidden(modality, fields, ratio, f"{record.id} {name}", seed)
            if bool(hidden.all()) and len(decoded.values) == 1:
                continue
            found = _tokens(completer, decoded, name, fields, hidden)
        if found is not None:
            out[name] = found
    return out


def _hidden(modality: Modality, fields: Fields, ratio: float, key: str, seed: int) -> Tensor:
    """(N,) bool: the share of the units with the smallest draws."""
    one = {name: value[None] for name, value in fields.items()}
    count = len(next(iter(fields.values())))
    valid, tied = torch.ones(1, count, dtype=torch.bool), modality.overlap(one)
    may = modality.maskable(one)
    valid = valid if may is None else valid & may
    draws = uniform(seed_of(seed, "restore"), torch.tensor([stable_hash(key)]), count)
    units = presence.leads(valid, tied).sum(1)
    wanted = (units * ratio).round().long().clamp(min=1)
    return presence.show(valid, wanted, draws, tied)[0]


def _tokens(completer: Completer, record: Record, name: str, fields: Fields, hidden: Tensor) -> Restored | None:
    modality = completer.network.modality(name)
    said = completer.complete(record, hidden={name: hidden.numpy()})[name]
    pieces = getattr(modality, "pieces", None)
    counts = int(hidden.sum()), len(hidden)
    if pieces is not None:
        own, units = fields["id"], fields["unit"].tolist()
        words = {u: [int(own[i]) for i, v in enumerate(units) if v == u] for u in dict.fromkeys(units)}
        gone = {u for u, h in zip(units, hidden.tolist(), strict=True) if h}
        original = " ".join(pieces.decode(ids) for ids in words.values())
        seen = " ".join(_GAP if u in gone else pieces.decode(ids) for u, ids in words.items())
        first = [row[0][0] for row in said.choices]
        truth = [pieces.decode([int(i)]) for i in own[hidden]]
        right = sum(a == b for a, b in zip(first, truth, strict=True)) / max(len(truth), 1)
        return Restored(modality.kind, original, seen, said.value, *counts, right)
    target = modality.target({key: value[hidden] for key, value in fields.items()})
    blank = modality.answer(Question(fields, hidden), torch.zeros_like(target)).value
    whole = modality.answer(Question(fields, torch.zeros_like(hidden)), target[:0]).value
    return Restored(modality.kind, whole, blank, said.value, *counts)


def _attributes(completer: Completer, record: Record, name: str, modality: Modality) -> Restored | None:
    known = set(modality.parts())
    pairs = {str(key): value for key, value in record.values[name] if key in known}
    if not pairs or (len(pairs) == 1 and len(record.values) == 1):
        return None
    asked = completer.complete(record, [f"{name}.{key}" for key in pairs])
    said = {key: asked[f"{name}.{key}"].value for key in pairs if f"{name}.{key}" in asked}
    words = [key for key, value in pairs.items() if isinstance(value, str) and key in said]
    right = sum(str(said[key]).strip() == _plain(modality, str(pairs[key])) for key in words) / max(len(words), 1)
    gaps: Mapping[str, Any] = dict.fromkeys(pairs, _GAP)
    return Restored(modality.kind, pairs, gaps, said, len(said), len(pairs), right if words else None)


def _plain(modality: Modality, text: str) -> str:
    """A value as its pieces say it: the tokenizer may ignore case."""
    pieces = cast(Any, modality).pieces
    return str(pieces.decode(pieces.encode(text, 64)[0])).strip()


def level_error(restored: Restored) -> float | None:
    """Mean absolute error of the reconstruction over that of the blank, where these are arrays; None elsewhere."""
    if not isinstance(restored.original, np.ndarray):
        return None
    truth = restored.original.astype(np.float64)
    blank = np.abs(restored.seen.astype(np.float64) - truth).sum()
    return float(np.abs(restored.said.astype(np.float64) - truth).sum() / max(blank, 1e-9))
