"""Is an item of the kind that was learnt? Distances to the classes, and how well a score tells strangers apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from polymodal.types import BadInput

__all__ = ["Mahalanobis", "auroc"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mahalanobis:
    """Distance of a vector to the nearest class, all classes having one covariance.

    ::

        s(z) = min_c (z - mu_c)^T S^-1 (z - mu_c)

    Args:
        means: (C, E), one per class. inverse: (E, E), the pseudo-inverse of S.

    Source: Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution Samples", equations 1 and 2;
        Fort et al. 2021 with features of transformers, the protocol of M3AE's figure 6.
    Differences: the pseudo-inverse, so that directions without any spread do not count instead of failing.
    """

    means: Floats
    inverse: Floats

    @classmethod
    def fit(cls, vectors: npt.ArrayLike, labels: npt.ArrayLike) -> Self:
        """Means and the covariance around them (divided by n) of vectors (n, E) with labels (n,).

        Raises:
            BadInput: no vector, another number of labels, numbers that are not finite.
        """
        z, names = np.asarray(vectors, np.float64), np.asarray(labels)
        if z.ndim != 2 or not len(z) or names.shape != (len(z),):
            raise BadInput("vectors, labels", "(n, E) and (n,), n > 0", f"{z.shape} and {names.shape}")
        if not np.isfinite(z).all():
            raise BadInput("vectors", "finite numbers", "NaN or infinity")
        _, at = np.unique(names, return_inverse=True)
        count = np.bincount(at)
        means = np.zeros((len(count), z.shape[1]))
        np.add.at(means, at, z)
        means /= count[:, None]
        off = z - means[at]
        inverse: Floats = np.asarray(np.linalg.pinv(off.T @ off / len(z), hermitian=True), np.float64)
        return cls(means, inverse)

    def score(self, vectors: npt.ArrayLike) -> Floats:
        """s of each vector: (n, E) -> (n,), 0 at a mean, greater for strangers."""
        z = np.asarray(vectors, np.float64)
        own = np.einsum("ne,ef,nf->n", z, self.inverse, z)
        cross = z @ self.inverse @ self.means.T
        of_means = np.einsum("ce,ef,cf->c", self.means, self.inverse, self.means)
        scores: Floats = np.maximum(own[:, None] - 2 * cross + of_means, 0.0).min(1)
        return scores


def auroc(known: npt.ArrayLike, strange: npt.ArrayLike) -> float:
    """Chance that a stranger scores higher than a known item, ties counted half: 1 tells all apart, 0.5 none.

    Args:
        known, strange: scores (n,) and (m,), higher for what is held to be strange.

    Raises:
        BadInput: one of them is empty, or holds NaN.

    Source: the Mann-Whitney statistic, by midranks; equals the area under the curve of true over false positives.
    """
    one, two = np.asarray(known, np.float64).ravel(), np.asarray(strange, np.float64).ravel()
    if not len(one) or not len(two) or np.isnan(one).any() or np.isnan(two).any():
        raise BadInput("scores", "at least one of each, no NaN", f"{len(one)} and {len(two)}")
    _, at, count = np.unique(np.concatenate([one, two]), return_inverse=True, return_counts=True)
    midrank = np.cumsum(count) - (count - 1) / 2
    rank = float(midrank[at[len(one) :]].sum())
    return (rank - len(two) * (len(two) + 1) / 2) / (len(one) * len(two))
