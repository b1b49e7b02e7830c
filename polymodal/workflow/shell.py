"""What happens around a command: errors become one message and an exit code, Ctrl-C says what to do next."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from polymodal.types import BadInput, MediaError, PolymodalError
from polymodal.workflow.terminal import INTERRUPTED, complain

__all__ = ["run_app"]


def run_app(app: App, arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code: 0, 2 for bad input, 3 for interrupted and saved, 1 for other errors."""
    tokens = list(arguments)
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return complain(str(error), 2, f"See: polymodal {tokens[0] + ' ' if tokens and tokens[0] in app else ''}--help")
    except (BadInput, MediaError) as error:
        return complain(str(error), 2)
    except PolymodalError as error:
        return complain(str(error), INTERRUPTED if type(error).__name__ == "Interrupted" else 1)
    except BrokenPipeError:
        # whoever read our output has stopped, as `head` does; nothing more may be written there
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.ENOTDIR):
            raise
        return complain(f"{error.filename}: {error.strerror}", 1)
    except KeyboardInterrupt:
        return complain(*_stopped(tokens))
    return 0


def _stopped(tokens: Sequence[str]) -> tuple[str, int]:
    """What to say after Ctrl-C, and the exit code: what is half done is kept where a command can go on with it."""
    command = tokens[0] if tokens else ""
    if command in ("bench", "compare", "demo", "prepare"):
        return f"Stopped. Go on with the same command: {shlex.join(['polymodal', *tokens])}", INTERRUPTED
    if command == "train":
        return "Stopped. Go on from the last checkpoint with: polymodal train --resume RUN", INTERRUPTED
    return "Stopped. Nothing was changed.", 130
