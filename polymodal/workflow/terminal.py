"""Results on standard output; progress and errors on standard error, plain lines where nobody watches a terminal."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

__all__ = ["bar", "caution", "complain", "console", "emit", "stage_bar"]

INTERRUPTED = 3  # exit code: stopped by Ctrl-C, saved, can go on
_PLAIN_WIDTH = 120
_EVERY = 10.0  # seconds between plain lines


def console() -> Console | None:
    """Where progress goes: standard error; nowhere in the other processes of a torchrun."""
    return Console(stderr=True) if _leads() else None


def _leads() -> bool:
    return os.environ.get("RANK", "0") == "0"


def emit(as_json: bool, content: Any, *text: RenderableType) -> None:
    """A result on standard output: JSON and nothing else, or for people."""
    if not _leads():
        return
    if as_json:
        print(json.dumps(content, ensure_ascii=False, indent=1))
        return
    shown = Console(highlight=False)
    if not shown.is_terminal:
        shown = Console(highlight=False, width=_PLAIN_WIDTH)
    for part in text:
        shown.print(Text(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str))


def complain(message: str, code: int, hint: str = "") -> int:
    """An error on standard error, without a traceback; returns the exit code."""
    shown = Console(stderr=True, highlight=False, soft_wrap=True)
    shown.print("[bold yellow]polymodal:[/]" if code == INTERRUPTED else "[bold red]polymodal:[/]", end=" ")
    shown.print(message.strip(), markup=False)
    if hint:
        shown.print(hint, markup=False, style="dim")
    return code


def caution(message: str) -> None:
    """A warning on standard error; nothing where there is none to give."""
    if message and _leads():
        shown = Console(stderr=True, highlight=False)
        if not shown.is_terminal:
            shown = Console(stderr=True, highlight=False, width=_PLAIN_WIDTH)
        shown.print("[bold yellow]warning:[/]", Text(message))


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def stage_bar(console: Console | None) -> Iterator[Callable[[str, int, int], None]]:
    """A callback (stage, done, in all) that moves a bar named by the stage; silent without a console."""
    if console is None:
        yield lambda _stage, _done, _total: None
        return
    shown = _progress(console)
    task = shown.add_task("", total=None)
    said = time.monotonic()

    def move(stage: str, done: int, total: int) -> None:
        nonlocal said
        shown.update(task, description=stage, completed=done, total=total)
        if not console.is_terminal and time.monotonic() - said > _EVERY:
            said = time.monotonic()
            console.print(f"{stage} {done}/{total}", highlight=False)

    with shown:
        yield move


@contextmanager
def bar(title: str, console: Console | None) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, in all) that moves a bar."""
    with stage_bar(console) as move:
        yield lambda done, total: move(title, done, total)
