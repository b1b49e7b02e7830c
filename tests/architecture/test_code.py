"""Sizes, and what may not stand in the code at all. Complexity, broad except and missing docstrings are ruff's."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from polymodal.config import discover
from polymodal.objective import Objective

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "polymodal").rglob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# module or function that runs what it reads, or reads without limits -> what to use
REFUSED = {
    "pickle": "JSON, safetensors or Parquet",
    "dill": "JSON, safetensors or Parquet",
    "shelve": "JSON, safetensors or Parquet",
    "marshal": "JSON, safetensors or Parquet",
    "joblib": "JSON, safetensors or Parquet",
    "cloudpickle": "JSON, safetensors or Parquet",
    "torch.load": "safetensors.torch",
    "torch.save": "safetensors.torch",
    "eval": "a parser",
    "exec": "a function",
    "os.system": "subprocess with a list",
}


def test_there_is_something_to_look_at():
    assert len(FILES) > 80


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)
    assert list(refused(ast.parse(text))) == []


def refused(tree: ast.AST) -> Iterator[str]:
    """What stands in a file that may not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in REFUSED)
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            yield from (name for name in names if name in REFUSED)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in REFUSED:
                yield called
            if called in ("np.load", "numpy.load") and "allow_pickle=False" not in ast.unparse(node):
                yield f"{called} without allow_pickle=False"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from torch import load",
        "torch.load(f)",
        "eval(x)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
    ],
)
def test_what_is_refused_is_seen(code):
    assert list(refused(ast.parse(code)))


def test_allowed_loading_is_allowed():
    assert not list(refused(ast.parse("np.load(f, mmap_mode='r', allow_pickle=False)\nmodel.eval()\njson.load(f)")))


def test_functions_are_short():
    lengths = [
        node.end_lineno - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, FUNCTIONS)
    ]
    assert np.percentile(lengths, 90) <= 35


def test_components_say_where_they_come_from():
    """Losses and objectives are other people's ideas: a paper, an equation or a file, and where we depart from it."""
    silent = []
    for module in discover("polymodal.losses").values():
        said = [
            inspect.getdoc(getattr(module, name)) or ""
            for name in module.__all__
            if inspect.isfunction(getattr(module, name))
        ]
        silent += [f"{module.__name__}: {text.splitlines()[0]}" for text in said if "Source:" not in text]
    for module in discover("polymodal.objectives").values():
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Objective) and value.__module__ == module.__name__:
                text = inspect.getdoc(value) or ""
                if "Source:" not in text or "Differences" not in text:
                    silent.append(value.__name__)
    assert silent == []
