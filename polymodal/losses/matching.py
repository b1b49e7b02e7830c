"""Matching: do two cells belong to one item? The loss, and which of the cells that do not are hard to tell."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from polymodal import presence
from polymodal.losses._exact import products
from polymodal.tensors import Term

__all__ = ["count_symbols", "hard_pool", "in_pool", "match", "tfidf"]


def match(logits: Tensor, mismatched: Tensor, counted: Tensor) -> Term:
    """Cross entropy of "these two are of one item", the mean over the rows that count.

    ::

        l_b = -log softmax(s_b)[y_b],    y_b = 0 matched, 1 mismatched

    Args:
        logits: (B, 2), the first of a match.
        mismatched: (B,) bool.
        counted: (B,) bool, rows that have both sides; what stands elsewhere is never read.

    Source: InterBERT, arXiv 2003.13198, image-text matching; black4321/InterBERT at 7ccabb1 (index 0 is the match).
    Differences: presence.
    """
    safe = logits.float().masked_fill(~counted[:, None], 0.0)
    return presence.masked_mean(F.cross_entropy(safe, mismatched.long(), reduction="none"), counted)


def tfidf(counts: Tensor, among: Tensor, own: slice = slice(None)) -> Tensor:
    """Cosines of TF-IDF vectors, (G, V) and (B, G) bool -> (B, G).

    ::

        x_bv = count_bv * (ln((1 + n) / (1 + df_v)) + 1),    s_bc = x_b . x_c / (|x_b| |x_c|)

    Args:
        counts: (G, V), how often each symbol stands in each row.
        own: the B rows that are anchors, among the G of all processes.
        among: the rows that n and df of anchor b are counted over. Each anchor has its own, so that its cosines do not
            depend on rows that it could never be paired with.

    Source: Salton and Buckley 1988; InterBERT chooses hard captions by it (arXiv 2003.13198). The smoothed idf and the
        L2 norm are scikit-learn's defaults.
    Differences: InterBERT's document frequencies are of the whole corpus.
    """
    x, known = counts.float(), among.float()
    frequency = products("bc,cv->bv", known, (x > 0).float())
    idf = ((1 + known.sum(1, keepdim=True)) / (1 + frequency)).log() + 1
    weight, anchors = idf.square(), x[own]
    length = (weight * anchors.square()).sum(1, keepdim=True).sqrt()
    other = products("bv,cv->bc", weight, x.square()).sqrt()
    return products("bv,cv->bc", weight * anchors, x) / (length * other).clamp(min=1e-12)


def count_symbols(symbols: Tensor, valid: Tensor) -> Tensor:
    """How often each symbol of the batch stands in each row: (B, N) int64 and bool -> (B, V) int64.

    Source: ours. V is the number of different symbols that are there, not the size of a vocabulary.
    """
    known, at = torch.unique(symbols[valid], return_inverse=True)
    row = valid.nonzero()[:, 0]
    return torch.bincount(row * len(known) + at, minlength=len(valid) * len(known)).view(len(valid), -1)


def hard_pool(similarity: Tensor, eligible: Tensor, band: tuple[float, float] = (0.0, 0.5), top: int = 30) -> Tensor:
    """The candidates most similar to each anchor within a band: (B, G) -> (B, min(top, G)) int64, -1 where there are
    fewer.

    Args:
        similarity: (B, G).
        eligible: (B, G) bool.
        band: lowest similarity, and the one that must not be reached: what is above it is as good as the same.
        top: how many.

    Most similar first; ties, to five decimals, by place.

    Source: InterBERT, arXiv 2003.13198: the 30 captions of highest TF-IDF similarity below 0.5. With
        `similarity = -distance` and an open band it is the pool of nearest images of its retrieval fine-tuning
        (black4321/InterBERT at 7ccabb1, `hard_negative.pkl`).
    Differences: none.
    """
    near = (similarity.double() * 1e5).round() / 1e5
    inside = eligible & (near >= band[0]) & (near < band[1])
    order = near.masked_fill(~inside, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :top]
    return order.masked_fill(~inside.gather(1, order), -1)


def in_pool(pool: Tensor, count: int) -> Tensor:
    """A pool of places as a mask: (B, K) of `hard_pool` -> (B, count) bool.

    Source: ours.
    """
    mask = torch.zeros((len(pool), count + 1), dtype=torch.bool, device=pool.device)
    return mask.scatter(1, pool.masked_fill(pool < 0, count), True)[:, :count]
