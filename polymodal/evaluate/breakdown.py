"""Figures by group of items: presence pattern, head/torso/tail of the labels, or any other key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from polymodal.evaluate.intervals import Interval, Together, clusters_of, interval
from polymodal.evaluate.values import Result, Subset, subset_name

__all__ = ["GroupScore", "breakdown", "by_band", "by_pattern", "label_bands"]


@dataclass(frozen=True)
class GroupScore(Result):
    """The mean over the items of one group."""

    name: str
    n: int
    score: Interval


def breakdown(
    values: Mapping[str, float],
    groups: Mapping[str, str],
    *,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> tuple[GroupScore, ...]:
    """Mean of `values` (id -> figure) in every group (id -> name), largest group first, then by name.

    Items without a group or with NaN are left out.

    Args:
        together: id -> group of items that are no independent observations: of the intervals.
    """
    members: dict[str, dict[str, float]] = {}
    for name, value in values.items():
        if name in groups and np.isfinite(value):
            members.setdefault(groups[name], {})[name] = float(value)
    ordered = sorted(members, key=lambda g: (-len(members[g]), g))
    out = []
    for group in ordered:
        found, clusters = np.asarray(list(members[group].values())), clusters_of(list(members[group]), together)
        out.append(GroupScore(group, len(found), interval(found, resamples=resamples, seed=seed, clusters=clusters)))
    return tuple(out)


def by_pattern(
    values: Mapping[str, float],
    presence: Mapping[str, Subset],
    *,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> tuple[GroupScore, ...]:
    """`breakdown` by which modalities an item has."""
    patterns = {i: subset_name(p) for i, p in presence.items()}
    return breakdown(values, patterns, resamples=resamples, seed=seed, together=together)


def label_bands(counts: Mapping[str, int], *, head: float = 0.5, torso: float = 0.8) -> dict[str, str]:
    """Label -> `head`, `torso` or `tail`.

    Labels are taken by falling frequency (ties by name): head until they cover the share `head` of all items (the
    label that crosses the line belongs to it), torso until `torso`, the rest is the tail.

    Args:
        counts: label -> number of (training) items.
    """
    total = sum(counts.values())
    bands: dict[str, str] = {}
    covered = 0
    for label in sorted(counts, key=lambda name: (-counts[name], name)):
        bands[label] = "head" if covered < head * total else "torso" if covered < torso * total else "tail"
        covered += counts[label]
    return bands


def by_band(
    values: Mapping[str, float],
    labels: Mapping[str, str],
    counts: Mapping[str, int],
    *,
    resamples: int = 1000,
    seed: int = 0,
    together: Together = None,
) -> tuple[GroupScore, ...]:
    """`breakdown` by head, torso and tail of the labels; a label that `counts` lacks is tail. In that order."""
    bands = label_bands(counts)
    groups = {i: bands.get(label, "tail") for i, label in labels.items()}
    found = breakdown(values, groups, resamples=resamples, seed=seed, together=together)
    return tuple(sorted(found, key=lambda g: ("head", "torso", "tail").index(g.name)))
