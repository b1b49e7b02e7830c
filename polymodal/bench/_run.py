"""Finding the experiments, running one, and writing what it found."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from polymodal.bench._base import Options, Result
from polymodal.bench._kept import write_whole
from polymodal.bench._plots import table_marks
from polymodal.config import discover, nearest
from polymodal.types import BadInput

__all__ = ["BenchRun", "list_experiments", "run_experiment"]

PACKAGE = "polymodal.bench"
_QUICK = "Made with --quick: a budget of seconds, to see that it works. The figures mean nothing."


@dataclass(frozen=True)
class BenchRun:
    """An experiment's result and the files it is in."""

    result: Result
    folder: Path
    quick: bool

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        files = {"json": self.folder / "result.json", "markdown": self.folder / "result.md"}
        pictures = [str(self.folder / name) for name in sorted(self.result.pictures)]
        written = {**{k: str(v) for k, v in files.items()}, "pictures": pictures}
        return {**self.result.to_json(), "quick": self.quick, "files": written}


def list_experiments(package: str = PACKAGE) -> dict[str, str]:
    """Name -> its question: the constant QUESTION of the module, or the first sentence of its docstring."""
    out = {}
    for name, module in discover(package).items():
        said = getattr(module, "QUESTION", None) or (inspect.getdoc(module) or "").split("\n\n")[0]
        out[name] = " ".join(str(said).split())
    return out


def run_experiment(
    name: str,
    out: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    quick: bool = False,
    settings: Sequence[str] = (),
    command: str = "",
    say: Callable[[str], None] = lambda _: None,
    package: str = PACKAGE,
) -> BenchRun:
    """Run an experiment and write result.json, result.md and its PNGs into `out`/NAME (`out`/NAME-quick for `quick`).

    Repetitions that an experiment keeps (`bench._kept`) stand in the folder `kept` beside them and are used again.

    Raises:
        BadInput: an unknown experiment, no seed or one twice, a setting without `=`; what the experiment refuses.
    """
    modules = discover(package)
    if name not in modules:
        known = nearest(name, list(modules)) or "There is none yet."
        raise BadInput("bench", "an experiment", repr(name), known)
    if not seeds or len(set(seeds)) != len(seeds):
        raise BadInput("--seeds", "one or more different numbers", " ".join(map(str, seeds)) or "none")
    if out.is_file():
        raise BadInput("--out", "a folder", f"the file {out}")
    folder = out / (f"{name}-quick" if quick else name)
    options = Options(tuple(seeds), quick, folder / "kept", say, _pairs(settings))
    result = cast(Result, cast(Any, modules[name]).run(options))
    if not result.pictures:
        result = replace(result, pictures=_pictures(result))
    _write(folder, result, quick, command)
    return BenchRun(result, folder, quick)


def _pictures(result: Result) -> dict[str, bytes]:
    """A picture of every table with figures."""
    drawn = {f"{result.name}-{at}.png": table_marks(table) for at, table in enumerate(result.tables, 1)}
    return {name: content for name, content in drawn.items() if content is not None}


def _pairs(settings: Sequence[str]) -> dict[str, str]:
    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name.strip():
            raise BadInput("--set", "NAME=VALUE", repr(setting))
        found[name.strip()] = value.strip()
    return found


def _write(folder: Path, result: Result, quick: bool, command: str) -> None:
    """Pictures first and result.json last: where it stands, the others do too."""
    for name, content in result.pictures.items():
        write_whole(folder / name, content)
    title = f"# {result.name}"
    notes = [f"Made by `{command}`."] if command else []
    notes += [f"**{_QUICK}**"] if quick else []
    shown = [f"![{Path(name).stem}]({name})" for name in sorted(result.pictures)]
    text = "\n\n".join([title, *notes, result.to_markdown(), *shown]) + "\n"
    write_whole(folder / "result.md", text.encode())
    whole = {**result.to_json(), "quick": quick, "command": command}
    write_whole(folder / "result.json", json.dumps(whole, ensure_ascii=False, indent=1).encode())
    if not any((folder / "kept").glob("*")):
        shutil.rmtree(folder / "kept", ignore_errors=True)
