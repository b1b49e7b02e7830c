"""A catalogue looked at before anything is made of it: the audit, and the guessed `catalogue.toml`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polymodal.catalogue.audit import Audit, audit
from polymodal.catalogue.guess import Guess, guess
from polymodal.catalogue.reader import Catalogue
from polymodal.catalogue.schema import CONFIG_NAME
from polymodal.types import BadInput
from polymodal.workflow.files import write_text

__all__ = ["GuessResult", "audit_data", "guess_data"]


def audit_data(
    data: Path, *, decode: bool = True, limit: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Audit:
    """What a raw catalogue holds, lacks and gets wrong.

    Raises:
        BadInput: no catalogue there; prepared shards, whose media are decoded already.
    """
    if (data / "manifest.json").is_file():
        raise BadInput(
            "data",
            "a catalogue as it lies on disk",
            f"prepared shards in {data}",
            "Their faults are in quarantine.jsonl there.",
        )
    catalogue = Catalogue.open(data)
    if not decode:
        return audit(catalogue, decode=False, limit=limit, progress=progress)
    # the decoders need torch, which takes seconds to load
    from polymodal.workflow.training import decoders, find_recipe

    return audit(catalogue, decoders(find_recipe("scale", catalogue.modalities)), limit=limit, progress=progress)


@dataclass(frozen=True)
class GuessResult:
    """The guessed config, its text with the reasons, and where it was written, if it was."""

    guessed: Guess
    written: Path | None

    def to_text(self) -> str:
        """The TOML under its reasons, and where it was written."""
        return self.guessed.to_text() + (f"\nWritten to {self.written}.\n" if self.written else "")

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        reasons = {name: {"role": role, "reason": why} for name, (role, why) in self.guessed.reasons.items()}
        return {
            "config": self.guessed.config.model_dump(mode="json"),
            "columns": reasons,
            "written": None if self.written is None else str(self.written),
        }


def guess_data(data: Path, write: bool = False) -> GuessResult:
    """Guess the mapping of columns, and write it beside the table if asked to.

    Raises:
        BadInput: no table; a `catalogue.toml` that is there already.
    """
    found, target = guess(data), (data if data.is_dir() else data.parent) / CONFIG_NAME
    if not write:
        return GuessResult(found, None)
    if target.exists():
        raise BadInput("--write", f"no {CONFIG_NAME} yet", str(target), "Edit that file, or remove it first.")
    write_text(target, found.to_text())
    return GuessResult(found, target)
