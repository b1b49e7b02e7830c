"""Who may import whom. `lint-imports` checks the rules (pyproject.toml); here: each of them can fail."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "polymodal"

# what somebody adds to which file -> the rule that must refuse it
BREAKS = [
    ("types.py", "import torch", "no-torch"),
    ("config.py", "from polymodal.tensors import Batch", "layers"),
    ("presence.py", "from polymodal.model import Model", "layers"),
    ("nn/blocks.py", "from polymodal.modality import Modality", "layers"),
    ("modality.py", "from polymodal.catalogue.reader import Catalogue", "layers"),
    ("modalities/text.py", "from polymodal.modalities.image import Image", "modalities"),
    ("modalities/text.py", "from polymodal.model import Model", "layers"),
    ("model.py", "from polymodal.modalities.text import Text", "no-concrete-modality"),
    ("losses/contrastive.py", "from polymodal.model import Model", "layers"),
    ("objectives/other.py", "from polymodal.objectives.scale import Scale", "objectives"),
    ("objectives/scale.py", "from polymodal.catalogue.reader import Catalogue", "layers"),
    ("catalogue/loader.py", "from polymodal.modalities.text import Text", "no-concrete-modality"),
    ("catalogue/loader.py", "from polymodal.train.trainer import Trainer", "layers"),
    ("recipe.py", "from polymodal.objectives.scale import ScaleConfig", "no-concrete-objective"),
    ("train/trainer.py", "from polymodal.objectives.scale import Scale", "no-concrete-objective"),
    ("embed.py", "from polymodal.modalities.text import Text", "no-concrete-modality"),
    ("index/exact.py", "from polymodal.tensors import stable_hash", "no-torch"),
    ("evaluate/topk.py", "import torch", "no-torch"),
    ("service/engine.py", "from polymodal.embed import Embedder", "service"),
    ("recipes/scale.py", "from polymodal.train.trainer import Trainer", "recipes-are-data"),
    ("workflow/training.py", "import polymodal.cli", "layers"),
    ("cli_import.py", "import polymodal.cli", "layers"),
    ("surprise.py", "", "layers"),
]


@pytest.fixture(scope="module")
def contracts() -> dict[str, str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {contract["id"]: contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]}


@pytest.mark.parametrize(("file", "line", "rule"), BREAKS, ids=lambda value: str(value).replace("polymodal.", ""))
def test_a_forbidden_import_is_refused(file, line, rule, contracts, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "polymodal", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "polymodal" / file).open("a") as out:
        out.write(f"\n{line}\n")
    said = _lint(tmp_path, rule)
    assert said.returncode == 1, said.stdout
    if file == "surprise.py":
        assert "surprise" in said.stdout
    else:
        assert f"{contracts[rule]} BROKEN" in " ".join(said.stdout.split())


def test_every_rule_is_broken_once(contracts):
    assert {rule for _, _, rule in BREAKS} == set(contracts)


def _lint(directory: Path, rule: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    command = [sys.executable, "-c", code, "--contract", rule, "--no-cache"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_index_metrics_and_service_run_without_torch():
    """The rules are about files; this is about what happens: the front door must not pull torch in either."""
    code = "import sys, polymodal, polymodal.index.exact, polymodal.evaluate, polymodal.service.engine; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0


def test_nobody_inside_uses_the_front_door():
    modules = {path.stem for path in PACKAGE.iterdir()}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "polymodal":
                assert {alias.name for alias in node.names} <= modules, path


def test_the_front_door_opens():
    import polymodal

    assert len(polymodal.__all__) <= 16
    for name in polymodal.__all__:
        assert getattr(polymodal, name).__name__ == name
    with pytest.raises(AttributeError, match="Recipes"):
        polymodal.Recipes  # noqa: B018
