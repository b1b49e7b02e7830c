"""Uses an installed polymodal, wherever it is: `make wheel-check` and test_wheel.py run this outside the checkout."""

import subprocess
import sys
from importlib import resources
from pathlib import Path

import polymodal

HERE = Path(__file__).parents[2]
home = Path(polymodal.__file__).parent
if home == HERE / "polymodal":
    sys.exit(f"this is the checkout, not an installed package: {home}")

page = resources.files("polymodal") / "service" / "page"
for name in ("index.html", "app.js", "style.css"):
    if not (page / name).read_text(encoding="utf-8"):
        sys.exit(f"{name} is empty")
if not (resources.files("polymodal") / "py.typed").is_file():
    sys.exit("py.typed is missing")
for name in polymodal.__all__:
    getattr(polymodal, name)

# the whole package imports, every component is found
import polymodal.cli  # noqa: E402
import polymodal.service.app  # noqa: E402
from polymodal.config import discover  # noqa: E402

found = {kind: list(discover(f"polymodal.{kind}")) for kind in ("modalities", "objectives", "recipes")}
code = "import sys; from polymodal.cli import main; sys.exit(main(['version']))"
version = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
print(version.stdout.strip(), "from", home, *(f"{kind}: {', '.join(names)}" for kind, names in found.items()), sep="\n")
