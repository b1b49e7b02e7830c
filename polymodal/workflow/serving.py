"""The search page over an index folder."""

from __future__ import annotations

import socket
from pathlib import Path

from rich.console import Console

from polymodal.types import BadInput
from polymodal.workflow.searching import open_engine

__all__ = ["serve_index"]


def serve_index(
    index: Path, model: Path | None, host: str, port: int, device: str = "cpu", console: Console | None = None
) -> None:
    """Serve until Ctrl-C.

    Raises:
        BadInput: no index, a port that is taken.
        ModelMismatch: another model than the one that built the index.
        MissingExtra: FastAPI or uvicorn is not installed.
    """
    from polymodal.service.app import serve

    _check_port(host, port)
    engine = open_engine(index, model, device)
    if console is not None:
        shown = "127.0.0.1" if host in ("0.0.0.0", "") else host  # noqa: S104 (only compared)
        console.print(
            f"\nSearch {len(engine.index)} items at [bold]http://{shown}:{port}[/]   (Ctrl-C stops)", highlight=False
        )
    serve(engine, host, port)


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", "") or str(error)
            raise BadInput(
                "--port", "a port that is free", f"{host}:{port} ({reason})", f"Try: --port {port % 60000 + 1}"
            ) from None
