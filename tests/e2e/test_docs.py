"""What the documents say is true: commands and examples run, files and names exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from polymodal.catalogue.schema import CatalogueConfig

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = r"<!-- {mark} -->\n```{language}\n(.*?)```"


def blocks(name: str, mark: str, language: str = r"\w+") -> list[tuple[str, ...]]:
    return re.findall(BLOCK.format(mark=mark, language=language), (ROOT / name).read_text(), re.DOTALL)


def run(command: list[str], where: Path, **environment: str) -> str:
    paths = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "CI": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=where, env={**os.environ, **paths, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_links_exist(document):
    text = document.read_text()
    for name in re.findall(r"`((?:[\w.-]+/)*\w+\.(?:py|md|toml))`", text):
        near = [ROOT / name, ROOT / "polymodal" / name, ROOT / "docs" / name, ROOT / "polymodal" / "modalities" / name]
        new = re.search(rf"file: \S*{re.escape(name)} ", text) or name in ("catalogue.toml", "polymodal/recipes/pairs.py")
        near += [(ROOT / "polymodal" / folder / name) for folder in ("index",)]
        assert new or any(path.exists() for path in near), name
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (document.parent / link).exists(), link


def test_names_of_the_tour_exist():
    source = "\n".join(path.read_text() for path in (ROOT / "polymodal").rglob("*.py"))
    text = (ROOT / "docs" / "tour.md").read_text()
    names = {part for name in re.findall(r"`([A-Za-z_.]+)`", text) if not name.endswith(".py") for part in name.split(".")}
    assert len(names) > 30
    missing = [name for name in names if name and name not in ("toml", "catalogue") and not re.search(rf"\b{name}\b", source)]
    assert missing == []


def test_every_document_is_in_the_index():
    listed = re.findall(r": (\w+\.md)", (ROOT / "mkdocs.yml").read_text())
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_catalogue_of_the_readme_is_valid(tmp_path):
    (text,) = blocks("README.md", "checked: catalogue.toml")
    (tmp_path / "catalogue.toml").write_text(text)
    config = CatalogueConfig.read(tmp_path / "catalogue.toml")
    config.check()
    assert list(config.modalities) == ["image", "title", "attributes"]


# -- new components -------------------------------------------------------------------------------------------------

TRAIN = """
import json
from pathlib import Path
import numpy as np
from polymodal import Embedder, Record
from polymodal.workflow.training import find_recipe, train

rng = np.random.default_rng(0)
places = rng.uniform((-80, -170), (80, 170), (24, 2)).tolist()
lines = [{"id": str(i), "title": f"thing {i % 5}", "latitude": a, "longitude": b} for i, (a, b) in enumerate(places)]
lines[3]["latitude"] = lines[3]["longitude"] = None
Path("items.jsonl").write_text("\\n".join(map(json.dumps, lines)))
Path("catalogue.toml").write_text('''
table = "items.jsonl"
id = "id"
[modalities.title]
kind = "text"
columns = ["title"]
''' + Path("geo.toml").read_text())
recipe = find_recipe("scale", {"title": "text", "where": "geo"}).override(
    ['data="."', 'objective={"kind": "pairs"}', "train.steps=2", "train.batch_size=8"])
train(recipe, Path("run"))
vectors = Embedder.load(Path("run")).embed([Record("query", {"where": (48.2, 16.4)})])
assert vectors.vectors.shape == (1, 128), vectors.vectors.shape
print("trained", recipe.objective.kind)
"""


@pytest.mark.slow
def test_a_new_modality_and_a_new_objective_are_one_file_each(tmp_path):
    for folder in ("polymodal", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "unit", "e2e"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for document in ("docs/adding_a_modality.md", "docs/adding_an_objective.md"):
        ((path, code),) = blocks(document, r"file: (\S+)", "python")
        assert not (tmp_path / path).exists()
        (tmp_path / path).write_text(code)
        run([sys.executable, "-m", "ruff", "check", path], tmp_path)
        run([sys.executable, "-m", "ruff", "format", "--check", path], tmp_path)
    only = "geo or pairs-towers+trunk or test_components and pairs"
    here = {"PYTHONPATH": str(tmp_path)}
    contract = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "tests/contract", "-k", only]
    said = run(contract, tmp_path, **here)
    assert int(re.search(r"(\d+) passed", said)[1]) >= 14
    (text,) = [text for text in blocks_of_toml("docs/adding_a_modality.md") if "geo" in text]
    (tmp_path / "geo.toml").write_text(text)
    assert "trained pairs" in run([sys.executable, "-c", TRAIN], tmp_path, **here)


def blocks_of_toml(name: str) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
