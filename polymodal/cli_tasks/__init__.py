"""The commands of the downstream tasks: one file each, with a function `register(app)`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from cyclopts import App

__all__ = ["register"]


def register(app: App) -> None:
    """Add the commands of every file here to an app."""
    for found in pkgutil.iter_modules(__path__):
        if not found.name.startswith("_"):
            import_module(f"{__name__}.{found.name}").register(app)
