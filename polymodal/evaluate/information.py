"""What two sources tell about a label together and apart, in bits, from the log-loss of probes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from polymodal.evaluate.intervals import Clusters, Floats, Interval, intervals, within
from polymodal.evaluate.values import Result
from polymodal.types import BadInput, MissingExtra

__all__ = ["PairSplit", "ProbabilityProbe", "information_gain", "label_entropy", "split_pair"]

_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class PairSplit(Result):
    """What sources a and b tell about a label Y, in bits.

    Args:
        first, second: their names. items: tested.
        entropy: of the label under the frequencies of the learnt items: what knowing it is worth.
        alone_first, alone_second, together: estimates of I(A; Y), I(B; Y), I(A, B; Y).
        shared: told by either one. unique_first, unique_second: by that one only. synergy: only by both together.

    shared + unique_first = I(A; Y), and all four sum to I(A, B; Y). An interval is over the tested items, with the
    probes fixed.
    """

    first: str
    second: str
    items: int
    entropy: float
    alone_first: Interval
    alone_second: Interval
    together: Interval
    shared: Interval
    unique_first: Interval
    unique_second: Interval
    synergy: Interval


class ProbabilityProbe:
    """Multinomial logistic regression whose probabilities are meant: it is chosen by log-loss, not by accuracy.

    Args:
        vectors: (n, E) to learn from. labels: n of them, at least two different ones.
        penalties: candidates for C, the inverse strength of the L2 penalty. One more candidate knows the label
            frequencies only.

    Raises:
        BadInput: one label only. MissingExtra: scikit-learn is not installed.
    """

    def __init__(
        self, vectors: npt.NDArray[np.floating], labels: Sequence[str], penalties: Sequence[float] = _PENALTIES
    ) -> None:
        try:
            from sklearn.exceptions import ConvergenceWarning
            from sklearn.linear_model import LogisticRegression
        except ImportError:
            raise MissingExtra("scikit-learn", "report") from None
        names, codes = np.unique(np.asarray(labels), return_inverse=True)
        if len(names) < 2:
            raise BadInput("labels", "at least two labels among the items to learn from", len(names))
        self.labels = tuple(str(name) for name in names)
        self.log_prior: Floats = np.log(np.bincount(codes) / len(codes))
        data = np.asarray(vectors, np.float64)
        spread = data.std(0)
        # a column without spread (the block of a modality that is not there) carries nothing but rounding noise
        self._columns = np.flatnonzero(spread > 1e-7)
        self._centre, self._spread = data.mean(0)[self._columns], spread[self._columns]
        inputs, self._fits = self._standard(data), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            fit: Any = LogisticRegression(max_iter=200, tol=1e-3, warm_start=True)
            for penalty in sorted(penalties):
                fit.set_params(C=penalty).fit(inputs, codes)
                self._fits.append((fit.coef_.copy(), fit.intercept_.copy()))

    def _standard(self, vectors: npt.NDArray[np.floating]) -> Floats:
        return np.asarray((vectors[:, self._columns] - self._centre) / self._spread, np.float64)

    def candidates(self, vectors: npt.NDArray[np.floating]) -> Floats:
        """Log-probabilities by every candidate, the one that knows frequencies only first: (C + 1, n, labels)."""
        inputs = self._standard(np.asarray(vectors, np.float64))
        out = [np.broadcast_to(self.log_prior, (len(inputs), len(self.labels)))]
        for weights, bias in self._fits:
            logits = inputs @ weights.T + bias
            if logits.shape[1] == 1:  # two labels have one logit
                logits = np.concatenate([-logits, logits], 1) / 2
            top = logits - logits.max(1, keepdims=True)
            out.append(top - np.log(np.exp(top).sum(1, keepdims=True)))
        return np.stack(out)


def information_gain(
    probe: ProbabilityProbe, vectors: npt.NDArray[np.floating], labels: Sequence[str], *, seed: int = 0
) -> Floats:
    """log2 p(y | x) - log2 p(y) of every tested item, (n,): its mean is a lower bound of I(X; Y), up to sampling.

    Which candidate of the probe judges one half of the items (drawn by `seed`) is chosen on the other half, so no item
    has a say in what it is judged by. A label that was not learnt gives NaN.
    """
    code = {label: at for at, label in enumerate(probe.labels)}
    known = np.asarray([code.get(label, -1) for label in labels], np.int64)
    found = probe.candidates(vectors)
    own = np.take_along_axis(found, np.maximum(known, 0)[None, :, None], 2)[:, :, 0]
    gain = np.where(known >= 0, (own - own[0]) / np.log(2), np.nan)
    half = np.random.default_rng(seed).permutation(len(known)) % 2 == 0
    out = np.full(len(known), np.nan)
    for judged, choosing in ((half, ~half), (~half, half)):
        usable = choosing & (known >= 0)
        best = int(gain[:, usable].mean(1).argmax()) if usable.any() else 0
        out[judged] = gain[best, judged]
    return out


def split_pair(
    names: tuple[str, str],
    gains: tuple[Floats, Floats, Floats],
    entropy: float,
    *,
    resamples: int = 1000,
    seed: int = 0,
    clusters: Clusters = None,
) -> PairSplit:
    """What two sources tell apart and together, from `information_gain` of each and of both.

    ::

        of an item:  c = a + b - ab,   shared = c where a, b, ab and c are all above 0 or all below, else 0
        in the mean: unique A = A - shared,   unique B = B - shared,   synergy = AB - A - B + shared

    Three mutual informations do not settle four amounts: shared - synergy alone is theirs, and how much is shared is a
    definition. This one counts, item by item, the surprise that both sources take away and that is the same surprise.
    The smaller of the two informations, the usual choice, calls two independent halves of a label shared.

    **Signs**: gains are those of probes. A probe that learnt too little makes AB too small: then shared is too large,
    and what only one knows, or both together, too small, even below zero. Nothing is cut off at zero.

    Args:
        gains: of A, of B, of A and B together, (n,) each, of the same items; NaN rows are left out.
        entropy: of the label, bits.
        clusters: (n,) items that are no independent observations: of the intervals.

    Source: Ince 2017, "Measuring multivariate redundant information with pointwise common change in surprisal".
    Differences: gains of probes in place of a known distribution, and the joint as it is: there it is the one of the
    largest entropy that has the same pairs.
    Raises: BadInput: no item can be judged.
    """
    judged = np.asarray(np.isfinite(np.stack(gains)).all(0), np.bool_)
    a, b, both = np.stack(gains)[:, judged]
    if not len(a):
        raise BadInput("gains", "at least one item that can be judged", "none")
    common = a + b - both
    signs = np.sign(np.where(np.abs(np.stack([a, b, both, common])) > 1e-9, np.stack([a, b, both, common]), 0.0))
    shared = np.where(np.abs(signs.sum(0)) == 4, common, 0.0)
    columns = np.stack([a, b, both, shared, a - shared, b - shared, both - a - b + shared], 1)
    found = intervals(columns, resamples=resamples, seed=seed, clusters=within(clusters, judged))
    return PairSplit(*names, len(a), entropy, *found)


def label_entropy(probe: ProbabilityProbe) -> float:
    """Entropy of the learnt label frequencies, bits."""
    return float(-(np.exp(probe.log_prior) * probe.log_prior).sum() / np.log(2))
