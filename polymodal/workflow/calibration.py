"""The calibration of an index's recommendations: a JSON file in its folder, which goes when the index is rebuilt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from polymodal.tasks.probability import Calibrator, parse_calibrator
from polymodal.types import BadInput, ModelMismatch
from polymodal.workflow.files import write_json

__all__ = ["read_calibration", "write_calibration"]

FILE = "calibration.json"
_AGAIN = "Fit it again: polymodal recommend-eval INDEX PAIRS --write"


def read_calibration(index: Path, model: str) -> dict[str, Calibrator]:
    """What is asked ("topic", "history", ...) -> calibrator; {} where the index has none.

    Raises:
        ModelMismatch: it was fitted to another model's scores. BadInput: a damaged file.
    """
    path = index / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = {str(name): parse_calibrator(one) for name, one in data["of"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(str(path), "the file as it was written", str(error), _AGAIN) from None
    if data.get("model") != model:
        raise ModelMismatch(str(path), f"scores of model {model}", f"scores of model {data.get('model')}", _AGAIN)
    return found


def write_calibration(index: Path, model: str, found: Mapping[str, Calibrator]) -> Path:
    """Add calibrators to those of the index (a file that cannot be used is replaced), in one step; returns the file."""
    try:
        kept = {**read_calibration(index, model), **found}
    except BadInput:
        kept = dict(found)
    path = index / FILE
    return write_json(path, {"model": model, "of": {name: one.to_json() for name, one in kept.items()}})
