"""Types of options that several commands have."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

__all__ = ["Count", "Device", "Files", "Flag", "Json", "Numbers", "Settings", "Size", "Texts", "command"]

Size = Literal["tiny", "small", "base"]
Device = Literal["cpu", "cuda"]
Flag = Annotated[bool, Parameter(negative=())]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print the result as JSON, and nothing else.")]
_MANY = Parameter(consume_multiple=True, negative=())
Texts = Annotated[list[str] | None, _MANY]
Files = Annotated[list[Path] | None, _MANY]
Numbers = Annotated[list[int] | None, _MANY]
Settings = Annotated[list[str] | None, Parameter(name="--set"), _MANY]
Count = Annotated[int, Parameter(name=["-k", "--k"])]


def command() -> str:
    """What was typed, for pages and files to name."""
    return shlex.join(["polymodal", *sys.argv[1:]])
