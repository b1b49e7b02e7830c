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


def run(command: list[str], where: Path, stdin: str = "", **environment: str) -> str:
    paths = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CI": "true",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        command,
        input=stdin,
        cwd=where,
        env={**os.environ, **paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_links_exist(document):
    text = document.read_text()
    to_come = {"catalogue.toml", *re.findall(r"<!-- file: (\S+) -->", text), "polymodal/recipes/agree.py"}
    for name in re.findall(r"`((?:[\w.-]+/)*\w+\.(?:py|md|toml))`", text):
        assert name in to_come or list(ROOT.glob(name)) or list((ROOT / "polymodal").rglob(name)), name
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (document.parent / link).exists(), link


def test_names_of_the_tour_exist():
    source = "\n".join(path.read_text() for path in (ROOT / "polymodal").rglob("*.py"))
    text = (ROOT / "docs" / "tour.md").read_text()
    names = {
        part for name in re.findall(r"`([A-Za-z_.]+)`", text) if not name.endswith(".py") for part in name.split(".")
    }
    assert len(names) > 30
    missing = [
        name for name in names if name and name not in ("toml", "catalogue") and not re.search(rf"\b{name}\b", source)
    ]
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


# -- commands and examples ------------------------------------------------------------------------------------------

# what makes a command of the README quick enough for a test, and changes nothing else about it
QUICK = {
    "demo": "--items 120",
    "train": "--set train.steps=2 train.batch_size=16",
    "evaluate": "--max-items 20 --resamples 20",
    "retrieve": "--max-queries 20 --resamples 20",
    "classify": "--resamples 20 --min-items 2",
    "cluster": "--starts 2",
}
COMMANDS = """
import shlex, sys
from polymodal.cli import main
for line in sys.stdin.read().splitlines():
    code = main(shlex.split(line, comments=True)[1:])
    if code:
        sys.exit(f"{line}: {code}")
"""


@pytest.mark.slow
def test_the_commands_and_the_example_of_the_readme_run(tmp_path):
    commands = "\n".join(blocks("README.md", "run", "bash"))
    lines = [line.partition("  #")[0].strip() for line in commands.splitlines()]
    ours = [line for line in lines if line.startswith("polymodal ")]
    assert [line for line in lines if line and line not in ours] == ["source .venv/bin/activate"]
    quick = [f"{line} {QUICK.get(line.split()[1], '')}" for line in ours if "serve" not in line.split()]
    assert len(quick) >= 19
    # in one process, because each would load torch anew
    said = run([sys.executable, "-c", COMMANDS], tmp_path, stdin="\n".join(quick))
    assert "nearest to text red lamp, table material=wood, where price" in said
    made = "report/report.html found/retrieval.json predictions.csv clusters/clusters.html duplicates.csv wrong.csv"
    made += " review.csv topics.parquet explained/explain.md"
    assert [name for name in made.split() if not (tmp_path / "shop" / name).exists()] == []
    (example,) = blocks("README.md", "run", "python")
    assert len(run([sys.executable, "-c", example], tmp_path).splitlines()) == 3


def test_every_command_and_option_of_the_documents_exists():
    from polymodal.cli import app

    for document in DOCUMENTS:
        for name, rest in re.findall(r"(?<!from )\bpolymodal ([a-z][a-z-]*)\b([^`\n#]*)", "\n".join(code_of(document))):
            command, words = app[name], rest.split()
            while words and words[0] in command:
                command = command[words.pop(0)]
            arguments = command.assemble_argument_collection() if command.default_command else ()
            known = {option for argument in arguments for option in argument.names}
            assert set(re.findall(r"(?<!\S)--?[a-z][\w-]*", rest)) <= known, (document.name, name, rest)


def code_of(document: Path) -> list[str]:
    text = document.read_text()
    return re.findall(r"```bash\n(.*?)```", text, re.DOTALL) + re.findall(r"`([^`\n]+)`", text)


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
    ['data="."', 'objective={"kind": "agree"}', "train.steps=2", "train.batch_size=8"])
train(recipe, Path("run"))
vectors = Embedder.load(Path("run")).embed([Record("query", {"where": (48.2, 16.4)})])
assert vectors.vectors.shape == (1, 3 * 128), vectors.vectors.shape  # shared, and a block a modality
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
    only = "geo or agree-towers+trunk or test_components and agree"
    here = {"PYTHONPATH": str(tmp_path)}
    contract = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:xdist",
        "-p",
        "no:cacheprovider",
        "tests/contract",
        "-k",
        only,
    ]
    said = run(contract, tmp_path, **here)
    assert int(re.search(r"(\d+) passed", said)[1]) >= 14
    (text,) = [text for text in blocks_of_toml("docs/adding_a_modality.md") if "geo" in text]
    (tmp_path / "geo.toml").write_text(text)
    assert "trained agree" in run([sys.executable, "-c", TRAIN], tmp_path, **here)


def blocks_of_toml(name: str) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)
