"""Which two modalities of a row are compared, and whose cell takes the place of one of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from polymodal import presence
from polymodal.draws import seed_of, uniform
from polymodal.tensors import Term

__all__ = ["choose", "eligible_partners", "partners", "same_or_not"]


def choose(allowed: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """One of the allowed things of each row, all with the same chance.

    Args:
        allowed: (B, P) bool. draws: (B, P) uniform in [0, 1).

    Returns:
        (B,) int64 and (B,) bool: which, and whether the row has any (where not, which is meaningless).

    Source: the largest of independent uniform numbers is each with the same chance.
    """
    return draws.masked_fill(~allowed, -1.0).argmax(1), allowed.any(1)


def eligible_partners(present: Tensor, groups: Tensor, digests: Tensor, own: slice = slice(None)) -> Tensor:
    """Whose cell may stand in for a row's as a wrong one: (G,), (G,), (G,) -> (B, G) bool, row b by column c.

    Row c has the modality, is not of b's group and its cell has other content. `own` are the B rows that ask, among
    the G of all processes.

    Source: the test of InterBERT's loader, "not of the same image", made for catalogues, in which products repeat
        pictures and sizes of one product are rows of their own.
    """
    others = (groups[own, None] != groups[None]) & (digests[own, None] != digests[None])
    return present[own, None] & present[None] & others


def partners(eligible: Tensor, keys: Tensor, seed: int, own: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """A row drawn for each row among those eligible for it, all with the same chance.

    The number drawn for (b, c) is a function of the two rows' keys: rows that are not eligible, their order and padding
    change nothing.

    Args:
        eligible: (B, G) bool. keys: (G,) int64. seed: of `draws.seed_of`. own: the B rows among the G.

    Returns:
        (B,) int64 and (B,) bool: the partner's place among the G (the row's own where there is none), and whether there
        is one.

    Source: ours; uniform mismatching as in ViLBERT (Lu et al. 2019, section 3.1).
    """
    mine = (uniform(seed, keys[own], 2) * (1 << 24)).long()  # two numbers of 24 bits: a hash that does not commute
    pair = ((mine[:, 0] << 24) + mine[:, 1])[:, None] ^ keys[None]
    draws = uniform(seed_of(seed, "partner"), pair.flatten(), 1).view(eligible.shape)
    which, some = choose(eligible, draws)
    return torch.where(some, which, torch.arange(len(keys), device=keys.device)[own]), some


def same_or_not(logits: Tensor, same: Tensor, kind: Tensor, counted: Tensor, kinds: Sequence[int]) -> list[Term]:
    """Binary cross-entropy of each row's question "do these two belong together?", one mean for each kind of question.

    Args:
        logits: (B,). same: (B,) bool, the answer. kind: (B,) int64, which two modalities. counted: (B,) bool.
        kinds: the numbers to make terms of.

    Source: image-text matching of ViLBERT, LXMERT, UNITER (two-way softmax there, which is the same function of the
        difference of its logits).
    Differences: a term per pair of modalities, over the rows that were asked about it.
    """
    loss = F.binary_cross_entropy_with_logits(logits.float(), same.float(), reduction="none")
    return [presence.masked_mean(loss, counted & (kind == at)) for at in kinds]
