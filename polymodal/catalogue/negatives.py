"""Hard negatives of a whole training set: rows whose cells say much the same, and are of other items."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polymodal.catalogue.quarantine import decode_record
from polymodal.catalogue.rows import Rows
from polymodal.modality import Modality
from polymodal.types import BadInput

__all__ = ["Counts", "Negatives", "count_rows", "find_negatives", "nearest_in_band"]

Ints = npt.NDArray[np.int64]
# similarities in memory at a time (16 MB, and some copies of them), and anchors
_CHUNK, _ANCHORS = 1 << 22, 256


@dataclass(frozen=True)
class Counts:
    """How often each symbol stands in each of R rows that have the cell, sparse.

    Args:
        rows: (R,) their numbers in the catalogue, ascending.
        start: (R + 1,), where a row's entries begin. symbols, times: (entries,).
    """

    rows: Ints
    start: Ints
    symbols: Ints
    times: Ints


@dataclass(frozen=True)
class Negatives:
    """`near` (R, top): the rows like each of `rows` (R,), ascending, most alike first; -1 where there are fewer.

    `share` of the rows in an epoch are to have one of theirs behind them.
    """

    rows: Ints
    near: Ints
    share: float

    def arrange(self, eligible: Ints, order: Ints, window: Ints, draws: npt.NDArray[np.float64]) -> tuple[Ints, Ints]:
        """An order in which a share of the rows is followed by a hard negative, which moves up from its own place.

        Args:
            eligible: (n,) rows, ascending; what follows speaks of places in it.
            order: (n,). window: (n,) of each place; a row moves within its window. draws: (2, n) uniform in [0, 1):
                whether a row asks for a negative, and which.

        Returns:
            The order (n,), and the row that was put behind each place, -1 for none.
        """
        near = self._places(eligible)
        # a row that was moved up does not ask: p / (1 - p) of those who can do makes p of all
        asks = (draws[0] < self.share / (1 - self.share)).tolist()
        of, which = window.tolist(), draws[1].tolist()
        taken, out, after = [False] * len(order), [], np.full(len(order), -1)
        for at in order.tolist():
            if taken[at]:
                continue
            taken[at] = True
            out.append(at)
            left = [c for c in near.get(at, ()) if not taken[c] and of[c] == of[at]] if asks[at] else []
            if left:
                chosen = left[int(which[at] * len(left))]
                taken[chosen] = True
                out.append(chosen)
                after[at] = eligible[chosen]
        return np.asarray(out, np.int64), after

    def _places(self, eligible: Ints) -> dict[int, list[int]]:
        at = np.searchsorted(eligible, self.near).clip(max=len(eligible) - 1)
        known = eligible[at] == self.near
        own = np.searchsorted(eligible, self.rows).clip(max=len(eligible) - 1)
        there = eligible[own] == self.rows
        rows = zip(own.tolist(), at.tolist(), known.tolist(), there.tolist(), strict=True)
        return {row: [c for c, k in zip(places, ks, strict=True) if k] for row, places, ks, mine in rows if mine}


def find_negatives(
    rows: Rows,
    numbers: Ints,
    name: str,
    modality: Modality,
    *,
    share: float = 0.2,
    band: tuple[float, float] = (0.0, 0.5),
    top: int = 30,
    among: int = 100_000,
) -> Negatives:
    """The hard negatives of the rows `numbers` by one modality: TF-IDF over these rows, the `top` most alike in `band`.

    Args:
        name, modality: which; it must have `symbols`.
        share: of the rows that are to be followed by one of theirs, at most a half.
        band, top: of `losses.matching.hard_pool`.
        among: rows that are searched. Of a larger set that many are drawn: time is rows x searched rows, about
            four minutes for 100,000 titles on one core.

    Raises:
        BadInput: a modality that has nothing to count.

    Source: InterBERT, arXiv 2003.13198: 20 % of the wrong captions are of the 30 most similar below 0.5.
    Differences: symbols are the pieces of the modality's own tokenizer; rows of one group are never negatives of one
        another; `among`.
    """
    counts = count_rows(rows, numbers, name, modality)
    groups = rows.index.column("group").combine_chunks() if "group" in rows.index.column_names else None
    codes = np.arange(len(rows))
    if groups is not None:
        known = groups.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        codes = np.where(np.isnan(known), codes, len(rows) + np.nan_to_num(known)).astype(np.int64)
    near = nearest_in_band(counts, codes[counts.rows], band, top, among)
    return Negatives(counts.rows, np.where(near < 0, -1, counts.rows[near]), share)


def count_rows(rows: Rows, numbers: Ints, name: str, modality: Modality) -> Counts:
    """The symbols of one modality in the rows `numbers`, block by block. Raises BadInput where it has no symbols."""
    found, lengths, symbols, times = [], [], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for row, value in _cells(rows, np.unique(numbers), name, modality):
        fields = {key: field[None] for key, field in modality.preprocess(value).items()}
        if not len(next(iter(fields.values()))[0]):
            continue
        counted = modality.symbols(fields)
        if counted is None:
            raise BadInput("objective.replacement.corpus", "a modality whose symbols can be counted", modality.kind)
        symbol, often = np.unique(counted[0].numpy(), return_counts=True)
        found.append(row)
        lengths.append(len(symbol))
        symbols.append(symbol)
        times.append(often)
    start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Counts(np.asarray(found, np.int64), start, np.concatenate(symbols), np.concatenate(times))


def _cells(rows: Rows, numbers: Ints, name: str, modality: Modality) -> Iterator[tuple[int, object]]:
    start = 0
    for block, size in enumerate(rows.blocks):
        inside = numbers[(numbers >= start) & (numbers < start + size)].tolist()
        records = rows.block(block) if inside else []
        for row in inside:
            record, _ = decode_record(records[row - start], {name: modality})
            if name in record.values:
                yield row, record.values[name]
        start += size


def nearest_in_band(
    counts: Counts, groups: Ints, band: tuple[float, float] = (0.0, 0.5), top: int = 30, among: int = 100_000
) -> Ints:
    """The rows of highest TF-IDF cosine within `band`, of another group: (R, top) places, -1 where there are fewer.

    What `losses.matching` does with `tfidf` and `hard_pool` in a batch, for a set that has no room for all its
    similarities: sparse, and some anchors at a time. Most similar first; ties, to five decimals, by place.

    Args:
        groups: (R,) int64, equal where two rows are of one group.
        band, top, among: of `find_negatives`.
    """
    total = len(counts.rows)
    searched = np.arange(total)
    if total > among:
        searched = np.sort(np.argsort(np.random.PCG64(0).random_raw(total), kind="stable")[:among])
    weights = _weights(counts)
    table, step = _picked(weights, searched), max(1, min(_ANCHORS, _CHUNK // max(len(searched), 1)))
    place, of = torch.from_numpy(searched), torch.from_numpy(groups)
    out = np.full((total, top), -1)
    for begin in range(0, total, step):
        own = np.arange(begin, min(begin + step, total))
        alike = (table @ _picked(weights, own).to_dense().T).T  # (anchors, searched)
        near = (alike * 1e5).round()
        inside = (near >= band[0] * 1e5) & (near < band[1] * 1e5) & (of[own][:, None] != of[place][None])
        # one number that orders by similarity, then by place
        rank = near.long() * len(place) + torch.arange(len(place)).flip(0)
        best, at = rank.masked_fill(~inside, torch.iinfo(torch.long).min).topk(min(top, len(place)), dim=1)
        missing = best == torch.iinfo(torch.long).min
        out[own, : at.shape[1]] = place[at].masked_fill(missing, -1).numpy()
    return out


def _weights(counts: Counts) -> Tensor:
    """TF-IDF rows of unit length, (R, V), sparse."""
    rows, symbols = len(counts.rows), np.unique(counts.symbols, return_inverse=True)
    frequency = np.bincount(symbols[1], minlength=len(symbols[0]))
    value = counts.times * (np.log((1 + rows) / (1 + frequency)) + 1)[symbols[1]]
    row = np.repeat(np.arange(rows), np.diff(counts.start))
    value = value / np.sqrt(np.bincount(row, value**2, rows))[row]
    columns = torch.from_numpy(symbols[1].reshape(-1))
    return _sparse(counts.start, columns, torch.from_numpy(value.astype(np.float32)), max(len(symbols[0]), 1))


def _picked(weights: Tensor, rows: Ints) -> Tensor:
    """Some rows of a sparse matrix."""
    start, length = weights.crow_indices().numpy(), np.diff(weights.crow_indices().numpy())[rows]
    ends = np.cumsum(length)
    at = np.arange(ends[-1] if len(ends) else 0) + np.repeat(start[rows] - (ends - length), length)
    entries = weights.col_indices()[at], weights.values()[at]
    return _sparse(np.concatenate([[0], ends]), *entries, weights.shape[1])


def _sparse(start: Ints, columns: Tensor, values: Tensor, width: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that CSR is in beta
        return torch.sparse_csr_tensor(
            torch.from_numpy(start), columns, values, (len(start) - 1, width), check_invariants=True
        )
