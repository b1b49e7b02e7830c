"""JSON files of millions of entries, one entry at a time; a malformed entry is passed over and told of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TextIO

__all__ = ["Content", "content_of", "entries"]

# an entry that is longer is not read
_LONGEST = 1 << 20
_CHUNK = 1 << 22
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
# {"id": {...}} · [{...}] · {"id": anything else} · ["id", ...] · a JSON object a line · neither
Content = Literal["records by id", "records", "keys", "words", "lines", "nothing"]
# where the next entry may begin, after one that cannot be read
_NEXT = {
    "records by id": re.compile(r',\s*(?="(?:[^"\\]|\\.){1,300}"\s*:\s*\{)'),
    "records": re.compile(r"\}\s*,\s*(?=\{)"),
    "keys": re.compile(r',\s*(?="(?:[^"\\]|\\.){1,300}"\s*:)'),
    "words": re.compile(r',\s*(?=["\d-])'),
}
Report = Callable[[str, str], None]  # reason, detail


def content_of(path: Path) -> Content:
    """What a file holds, by its beginning."""
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        head = stream.read(1 << 16).lstrip()
    if re.match(r'\{\s*("(?:[^"\\]|\\.)*"\s*:\s*\{|\})', head):
        return "lines" if path.suffix.lower() in (".jsonl", ".ndjson") else "records by id"
    if re.match(r'\{\s*"(?:[^"\\]|\\.)*"\s*:', head):
        return "lines" if path.suffix.lower() in (".jsonl", ".ndjson") else "keys"
    if re.match(r"\[\s*\{", head):
        return "records"
    return "words" if re.match(r'\[\s*["\d\]-]', head) else "nothing"


def entries(path: Path, content: Content, report: Report) -> Iterator[tuple[str, Any]]:
    """(key, value) of each entry; the key of a list's or line's entry is "".

    Memory holds 5 MiB of the file. Text that UTF-8 cannot hold is replaced.

    Args:
        path: of the file.
        content: as `content_of` says.
        report: told reason and detail of each entry that cannot be read; reading goes on behind it.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        found = _lines(stream, report) if content == "lines" else _Walk(stream, content, report).entries()
        for key, value in found:
            yield _clean(key), _clean(value)


def _lines(stream: TextIO, report: Report) -> Iterator[tuple[str, Any]]:
    number = 0
    while line := stream.readline(_LONGEST + 1):
        number += 1
        if len(line) > _LONGEST:
            report("over the limits", f"line {number}: more than {_LONGEST} characters")
            while line and not line.endswith("\n"):
                line = stream.readline(_LONGEST)
        elif line.strip():
            try:
                yield "", json.loads(line)
            except (ValueError, RecursionError) as error:
                report("malformed", f"line {number}: {error}")


class _Walk:
    """One pass over a file that is one JSON object or list."""

    def __init__(self, stream: TextIO, content: Content, report: Report) -> None:
        self._stream, self._content, self._report = stream, content, report
        self._text, self._at, self._before, self._ended = "", 0, 0, False

    def entries(self) -> Iterator[tuple[str, Any]]:
        keyed = self._peek() == "{"
        self._at += 1
        while True:
            sign = self._peek()
            if sign == "":
                self._report("truncated", "the file ends before its last bracket")
                return
            if sign in "}]":
                self._at += 1
                if self._peek() == "":
                    return
                # what follows a malformed entry; the file's own last bracket has nothing behind it
                continue
            if sign == ",":
                self._at += 1
                continue
            place = self._before + self._at
            try:
                entry = self._entry(keyed)
            except (ValueError, RecursionError) as error:
                reason = "malformed" if self._resume() else "truncated"
                self._report(reason, f"the entry at character {place}: {error}")
                if reason == "truncated":
                    return
            else:
                yield entry

    def _entry(self, keyed: bool) -> tuple[str, Any]:
        text, at, key = self._text, self._at, ""
        if keyed:
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, at)
            if not isinstance(key, str) or text[at : at + 1] != ":":
                raise ValueError("a key and a colon are needed")
            at = _skip(text, at + 1)
        value, self._at = _DECODER.raw_decode(text, at)
        return key, value

    def _peek(self) -> str:
        """The next sign that is no blank, with the whole of a longest entry behind it in memory; "" at the end."""
        while True:
            self._fill()
            self._at = _skip(self._text, self._at)
            if self._at < len(self._text) - _LONGEST or self._ended:
                return self._text[self._at : self._at + 1]

    def _fill(self) -> None:
        if not self._ended and len(self._text) - self._at <= _LONGEST:
            chunk = self._stream.read(_CHUNK)
            self._ended = not chunk
            self._before += self._at
            self._text, self._at = self._text[self._at :] + chunk, 0

    def _resume(self) -> bool:
        """Goes to the next place where an entry may begin; False where there is none."""
        self._at += 1
        while True:
            found = _NEXT[self._content].search(self._text, self._at)
            if found is not None:
                self._at = found.end()
                return True
            if self._ended:
                self._at = len(self._text)
                return False
            # the place may be cut by the end of what is in memory
            self._at = max(self._at, len(self._text) - 1000)
            self._fill()


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match is not None else at


def _clean(value: Any) -> Any:
    """Text without lone surrogates, which no file can hold."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_clean(part) for part in value]
    if isinstance(value, dict):
        return {_clean(name): _clean(part) for name, part in value.items()}
    return value
