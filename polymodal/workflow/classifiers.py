"""A classifier as a folder: tensors and JSON with checksums, and the tuned model where there is one."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from polymodal.embed import Embedder, model_folder
from polymodal.evaluate import LinearFit
from polymodal.tasks.classify import Classifier, Neighbours
from polymodal.tensors import stable_hash
from polymodal.train.checkpoint import read_folder, write_folder
from polymodal.types import BadInput, ModelMismatch

__all__ = ["Saved", "check_folder", "load_classifier", "save_classifier"]

_FACTS = "classifier.json"


@dataclass(frozen=True)
class Saved:
    """A classifier and what it was made from.

    Args:
        label: what it predicts. method: `probe`, `knn` or `finetune`. base: digest of the model that it began from.
        counts: label value -> items that it learnt from. learnt: hashes of their ids and of those it was tuned on.
    """

    classifier: Classifier
    label: str
    method: str
    base: str
    counts: Mapping[str, int]
    learnt: frozenset[int]

    def knows(self, name: str) -> bool:
        """Whether the item of that id was learnt from or tuned on."""
        return stable_hash(name) in self.learnt


def save_classifier(folder: Path, saved: Saved, ids: Collection[str], model: Mapping[str, bytes] | None = None) -> Path:
    """Write a folder; one that is there is replaced.

    Args:
        ids: what was learnt from and tuned on.
        model: files of the tuned model (see `embed.export`): the folder is then also a model folder.

    Raises:
        BadInput: the folder holds something else.
    """
    check_folder(folder)
    classifier, head = saved.classifier, saved.classifier.head
    arrays: dict[str, Any] = {"shift": classifier.shift, "learnt": np.asarray([stable_hash(i) for i in ids], np.int64)}
    facts: dict[str, Any] = {
        "format": 1,
        "label": saved.label,
        "method": saved.method,
        "labels": list(head.labels),
        "counts": dict(saved.counts),
        "base": saved.base,
        "model": None if model else classifier.model,  # the folder's own model, whose digest holds this file's
        "temperature": classifier.temperature,
    }
    if isinstance(head, LinearFit):
        arrays |= {"weight": head.weight, "bias": head.bias, "centre": head.centre, "spread": head.spread}
        facts |= {"head": "linear", "penalty": head.penalty, "converged": head.converged}
    else:
        arrays |= {"vectors": head.vectors, "codes": head.codes}
        facts |= {"head": "neighbours", "k": head.k}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
    files = {"classifier.safetensors": save_tensors(tensors), _FACTS: json.dumps(facts, ensure_ascii=False).encode()}
    return write_folder(folder, {**(model or {}), **files})


def check_folder(folder: Path) -> None:
    """Raises BadInput where a classifier cannot be written: a file, or a folder of something else."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / _FACTS).is_file()):
        raise BadInput("--save", "a new folder, or one of a classifier", folder)


def load_classifier(folder: Path, model: Path, device: str = "cpu") -> tuple[Saved, Embedder]:
    """The classifier in a folder and the model that makes its vectors.

    Args:
        model: that it was made with; a tuned classifier brings its own, and takes its own folder here too.

    Raises:
        BadInput: no classifier. ModelMismatch: it was made with another model. CorruptCheckpoint: a damaged folder.
    """
    if not (folder / _FACTS).is_file():
        raise BadInput(
            "--classifier", "the folder of a classifier", folder, "Make one: polymodal classify MODEL DATA --save DIR"
        )
    tensors, files = read_folder(folder)
    facts, arrays = json.loads(files[_FACTS]), tensors["classifier"]
    given = Embedder.load(model, device)
    own = facts["model"] is None
    if given.model != facts["base"] and not (own and model_folder(model).samefile(folder)):
        raise ModelMismatch(
            "model", f"{facts['base']}, which the classifier was made with", given.model, "Name that model."
        )
    embedder = Embedder.load(folder, device) if own else given
    classifier = Classifier(
        _head(facts, arrays), embedder.model if own else facts["model"], _array(arrays["shift"]), facts["temperature"]
    )
    learnt = frozenset(arrays["learnt"].tolist())
    return Saved(classifier, facts["label"], facts["method"], facts["base"], facts["counts"], learnt), embedder


def _head(facts: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> LinearFit | Neighbours:
    labels = tuple(facts["labels"])
    if facts["head"] == "linear":
        parts = {name: _array(arrays[name]) for name in ("weight", "bias", "centre", "spread")}
        return LinearFit(labels, **parts, penalty=facts["penalty"], converged=facts["converged"])
    return Neighbours(labels, _array(arrays["vectors"]), _array(arrays["codes"]), facts["k"])


def _array(tensor: Tensor) -> Any:
    return tensor.numpy()
