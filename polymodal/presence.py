"""The one place for absence. To everyone else an absent modality is a modality with no valid token, and a row that
does not count.

Absence enters a batch in `fill` and leaves a loss in `masked_mean`; nothing in between may know more about it than
the masks made here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from polymodal.tensors import Batch, Cells, Embedded, Fields, Parts, Term, Tokens, World

__all__ = [
    "at_least_one",
    "attention_mask",
    "average",
    "clean",
    "complete",
    "drop",
    "exchange",
    "fill",
    "first",
    "hide",
    "join",
    "keep_only",
    "leads",
    "lengthen",
    "masked_mean",
    "moments",
    "pool",
    "restrict",
    "reveal",
    "scatter",
    "show",
    "split",
    "summarise",
    "take",
]


def fill(rows: Sequence[Fields | None], blank: Fields | None = None) -> Cells | None:
    """One modality's cells of a batch from the fields of each row; `None` or zero tokens is an absent cell.

    Args:
        rows: B mappings of field -> (N_b, ...), or None.
        blank: zero imputation, the control that the SCALE release uses: absent rows get these fields **as valid
            tokens**. None, the default, leaves them without a token.

    Returns:
        Cells padded to the longest row (B, N, ...), stored zeros where not valid; None when no row has a token.
    """
    kept = [blank if row is None or _length(row) == 0 else row for row in rows]
    lengths = [0 if row is None else _length(row) for row in kept]
    sample = next((row for row in kept if row is not None), None)
    if sample is None:
        return None
    longest = max(lengths)
    fields = {}
    for name, value in sample.items():
        out = value.new_zeros((len(kept), longest, *value.shape[1:]))
        for at, row in enumerate(kept):
            if row is not None:
                out[at, : lengths[at]] = row[name]
        fields[name] = out
    return Cells(fields, torch.arange(longest)[None] < torch.tensor(lengths)[:, None])


def complete(batch: Batch, blanks: Mapping[str, Fields]) -> Batch:
    """The batch with every modality of `blanks` among its cells: one that no row has gets a column without a valid
    token. Every process then builds the same graph and exchanges the same tensors, whatever its rows lack.

    Args:
        batch: B rows.
        blanks: modality -> fields of any cell; only their types and trailing shapes are used.
    """
    lacking = {name: fields for name, fields in blanks.items() if name not in batch.cells}
    if not lacking:
        return batch
    none = batch.keys.new_zeros((len(batch), 1), dtype=torch.bool)
    cells = {
        name: Cells(
            {k: v.new_zeros((len(batch), 1, *v.shape[1:]), device=none.device) for k, v in fields.items()}, none
        )
        for name, fields in lacking.items()
    }
    digests = {name: torch.zeros_like(batch.keys) for name in lacking}
    return replace(batch, cells={**batch.cells, **cells}, digests={**batch.digests, **digests})


def _length(fields: Fields) -> int:
    return len(next(iter(fields.values())))


def scatter(packed: Tensor, valid: Tensor) -> Tokens:
    """Tokens from the packed content of the valid ones: (K, D) and (B, N) -> Tokens (B, N, D), zeros elsewhere."""
    at = valid.flatten().nonzero()[:, 0]
    flat = packed.new_zeros((valid.numel(), packed.shape[-1])).index_copy(0, at, packed)
    return Tokens(flat.view(*valid.shape, -1), valid)


def restrict(tokens: Tokens, rows: Tensor) -> Tokens:
    """The tokens of `rows` (B,) bool only: elsewhere no token is valid."""
    return Tokens(tokens.x, tokens.valid & rows[:, None])


def keep_only(parts: Parts, names: Collection[str]) -> dict[str, Tokens]:
    """The parts of the named modalities only, as if the others did not exist."""
    return {name: tokens for name, tokens in parts.items() if name in names}


def drop(parts: Parts, probability: float, draws: Mapping[str, Tensor]) -> dict[str, Tokens]:
    """Modality dropout: each row loses each of its modalities with `probability`, but never its last one.

    Args:
        parts: modality -> Tokens.
        probability: in [0, 1].
        draws: modality -> (B, 2) uniform in [0, 1), one number for its fate and one for its rank.

    The one a row keeps in any case is drawn uniformly from those that it has.
    """
    if probability <= 0 or not parts:
        return dict(parts)
    present = torch.stack([tokens.valid.any(1) for tokens in parts.values()], 1)
    fate, rank = torch.stack([draws[name] for name in parts], 1).unbind(2)
    last = rank.masked_fill(~present, -1.0).argmax(1, keepdim=True)
    keep = (fate >= probability).scatter(1, last, True)
    return {name: restrict(tokens, keep[:, at]) for at, (name, tokens) in enumerate(parts.items())}


def hide(
    valid: Tensor,
    ratio: float,
    draws: Tensor,
    overlap: Tensor | None = None,
    *,
    reach: tuple[Tensor, Tensor] | None = None,
    each: bool = False,
    at_least_one: Tensor | None = None,
) -> Tensor:
    """Which tokens to hide and predict, (B, N) bool: drawn on valid tokens only.

    Args:
        valid: (B, N) bool.
        ratio: chance of each token, in [0, 1]; of each set of tokens where `overlap` ties them.
        draws: (B, N) uniform in [0, 1).
        overlap: (B, N, N) bool: hiding token i hides every valid j with overlap[i, j].
        reach: (place, extra), both (B, N) int64: a drawn token hides also what follows it by at most `extra` places.
        each: every token has a draw of its own, whatever it is tied to.
        at_least_one: (B,) bool: rows in which, where nothing was drawn, the token with the smallest draw is.

    A token uses the draw of the first token it is tied to: a unit has one draw, so units of every size are hidden with
    the same chance. Under a looser relation (boxes that overlap) everything tied to a drawn token is hidden with it,
    so more than `ratio` of the tokens are. Nothing is passed on: what is hidden with a drawn token hides no other.
    """
    if overlap is None and reach is None and at_least_one is None:
        return valid & (draws < ratio)
    alone = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    tied = (alone if overlap is None else overlap) & valid[:, None, :] & valid[:, :, None]
    first = tied.int().argmax(-1)
    own = draws if each else draws.gather(1, first)
    drawn = valid & (own < _enough(valid, ratio, own, at_least_one))
    if reach is not None:
        place, extra = reach
        ahead = place[:, None, :] - place[:, :, None]
        extra = extra if each else extra.gather(1, first)
        tied = tied | ((ahead > 0) & (ahead <= extra[:, :, None]))
    return valid & (tied & drawn[:, :, None]).any(1)


def show(valid: Tensor, count: Tensor, draws: Tensor, overlap: Tensor | None = None) -> Tensor:
    """Which tokens stay visible, (B, N) bool: of every row exactly `count`, those with the smallest draws.

    Args:
        valid: (B, N) bool.
        count: (B,) int64, of tokens, or of sets of tied tokens (`leads`); what is more than valid changes nothing.
        draws: (B, N) uniform in [0, 1).
        overlap: (B, N, N) bool, as in `hide`: tied tokens are visible together, by the draw of the first of them.
    """
    if overlap is None:
        return valid & (_rank(draws, valid) < count[:, None])
    return valid & (_rank(draws, leads(valid, overlap)).gather(1, _first(valid, overlap)) < count[:, None])


def leads(valid: Tensor, overlap: Tensor | None) -> Tensor:
    """(B, N) bool: the first valid token of each set that hides together; every valid one where `overlap` is None."""
    if overlap is None:
        return valid
    return valid & (_first(valid, overlap) == torch.arange(valid.shape[1], device=valid.device))


def _first(valid: Tensor, overlap: Tensor) -> Tensor:
    return (overlap & valid[:, None, :]).int().argmax(-1)


def _rank(draws: Tensor, among: Tensor) -> Tensor:
    return draws.masked_fill(~among, 2.0).argsort(stable=True, dim=1).argsort(1)


def at_least_one(
    visible: Mapping[str, Tensor], valid: Mapping[str, Tensor], draws: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """`visible` with the token of the smallest draw added to rows in which nothing at all is visible.

    Args:
        visible, valid, draws: modality -> (B, N) each, as in `show`.
    """
    if not visible:
        return {}
    none = ~torch.stack([mask.any(1) for mask in visible.values()]).any(0)
    hidden = {name: draws[name].masked_fill(~valid[name], 2.0) for name in visible}
    least = torch.stack([value.amin(1) for value in hidden.values()]).amin(0)
    chosen = {name: none[:, None] & valid[name] & (hidden[name] == least[:, None]) for name in visible}
    return {name: mask | chosen[name] for name, mask in visible.items()}


def reveal(batch: Batch, visible: Mapping[str, Tensor]) -> Batch:
    """The batch with the visible tokens only: a hidden token is one that is not there, so it costs nothing.

    Args:
        batch: B rows.
        visible: modality -> (B, N) bool; a modality that is not named stays whole.
    """
    seen = {
        name: Cells(cells.fields, cells.valid & visible[name]) if name in visible else cells
        for name, cells in batch.cells.items()
    }
    return replace(batch, cells=seen)


def _enough(valid: Tensor, ratio: float, draws: Tensor, at_least_one: Tensor | None) -> Tensor | float:
    """Draws below this are taken: the ratio, or just more than the row's smallest draw where that is above it."""
    if at_least_one is None:
        return ratio
    smallest = (
        draws.masked_fill(~valid, 1.0).amin(1, keepdim=True) if valid.shape[1] else draws.new_ones((len(draws), 1))
    )
    above = smallest.nextafter(torch.full_like(smallest, 2.0)).clamp(min=ratio)
    return torch.where(at_least_one[:, None], above, ratio)


def exchange(cells: Cells, rows: Tensor, others: Cells) -> Cells:
    """The cells with those of `rows` (B,) bool replaced, whole, by those of `others`, longer or shorter."""
    longest = max(cells.valid.shape[1], others.valid.shape[1])
    cells, others = lengthen(cells, longest), lengthen(others, longest)
    fields = {
        name: torch.where(rows.view(-1, *[1] * (value.ndim - 1)), others.fields[name], value)
        for name, value in cells.fields.items()
    }
    return Cells(fields, torch.where(rows[:, None], others.valid, cells.valid))


def take(cells: Cells, rows: Tensor) -> Cells:
    """The cells of some rows, (R,) int64."""
    return Cells({name: value[rows] for name, value in cells.fields.items()}, cells.valid[rows])


def lengthen(cells: Cells, length: int) -> Cells:
    """The cells with padding up to `length` tokens."""
    more = length - cells.valid.shape[1]
    if not more:
        return cells
    fields = {n: torch.cat([v, v.new_zeros((len(v), more, *v.shape[2:]))], 1) for n, v in cells.fields.items()}
    return Cells(fields, torch.cat([cells.valid, cells.valid.new_zeros((len(cells.valid), more))], 1))


def first(tokens: Tokens) -> Embedded:
    """The first valid token of each row; a row without one is not present and its vector is zero."""
    present = tokens.valid.any(1)
    at = tokens.valid.int().argmax(1) if tokens.valid.shape[1] else present.long()
    z = tokens.x[torch.arange(len(at), device=at.device), at] if tokens.valid.shape[1] else tokens.x.sum(1)
    return Embedded(z.masked_fill(~present[:, None], 0.0), present)


def summarise(content: Tensor, whole: Tensor, valid: Tensor) -> Tensor:
    """Packed content (K, D) in which the tokens `whole` (K,) bool are the mean of the other tokens of their row.

    A row with nothing else keeps what stands there.
    """
    row = valid.nonzero()[:, 0]
    others = ~whole
    total = content.new_zeros((len(valid), content.shape[1])).index_add(0, row[others], content[others])
    count = torch.zeros_like(total[:, :1]).index_add(0, row[others], torch.ones_like(content[others, :1]))
    use = whole & (count[row, 0] > 0)
    return torch.where(use[:, None], (total / count.clamp(min=1))[row], content)


def attention_mask(valid: Tensor) -> Tensor:
    """(B, N) -> (B, 1, 1, N) bool for scaled_dot_product_attention: True where a key may be attended."""
    return valid[:, None, None, :]


def clean(tokens: Tokens) -> Tokens:
    """Zeros where a token is not valid, with zero gradient."""
    return Tokens(tokens.x.masked_fill(~tokens.valid[..., None], 0.0), tokens.valid)


def pool(tokens: Tokens) -> Embedded:
    """Mean over the valid tokens of each row; a row without one is not present and its vector is zero."""
    count = tokens.valid.sum(1, keepdim=True)
    total = clean(tokens).x.sum(1)
    return Embedded(total / count.clamp(min=1), count[:, 0] > 0)


def average(vectors: Sequence[Embedded]) -> Embedded:
    """Mean of several vectors of each row over those that are present; not normalised."""
    present = torch.stack([v.present for v in vectors])
    z = torch.stack([v.z for v in vectors]).masked_fill(~present[..., None], 0.0)
    return Embedded(z.sum(0) / present.sum(0).clamp(min=1)[:, None], present.any(0))


def masked_mean(values: Tensor, mask: Tensor) -> Term:
    """Mean of `values` where `mask` is True, over what counts and never over the batch.

    An empty mask gives exactly 0 with exactly zero gradient: `values` stays in the graph.
    """
    count = mask.sum()
    total = values.masked_fill(~mask, 0.0).sum()
    return Term(total / count.clamp(min=1), count)


def moments(x: Tensor, present: Tensor, world: World) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (D,), variance (D,) and number of the rows of `x` (B, D) that are present, of all processes.

    Of no row both are 0, with exactly zero gradient.
    """
    x, count = x.masked_fill(~present[:, None], 0.0), world.gather(present.sum()[None]).sum()
    least = count.clamp(min=1)
    mean = world.gather(x.sum(0)[None]).sum(0) / least
    # from the distances, because a difference of squares loses the digits of a small variance
    squares = (x - mean).masked_fill(~present[:, None], 0.0).square().sum(0)
    return mean, world.gather(squares[None]).sum(0) / least, count


def join(parts: Parts) -> Tokens:
    """All parts as one row of tokens, in the order of the mapping: (B, sum of N, D)."""
    return Tokens(
        torch.cat([tokens.x for tokens in parts.values()], 1), torch.cat([tokens.valid for tokens in parts.values()], 1)
    )


def split(tokens: Tokens, like: Mapping[str, Tokens]) -> dict[str, Tokens]:
    """`join` undone: the pieces of `tokens`, named and sized as in `like`."""
    sizes = [part.valid.shape[1] for part in like.values()]
    xs, valids = torch.split(tokens.x, sizes, 1), torch.split(tokens.valid, sizes, 1)
    return {name: Tokens(x, valid) for name, x, valid in zip(like, xs, valids, strict=True)}
