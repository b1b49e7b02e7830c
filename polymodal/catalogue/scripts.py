"""Which writing systems a text is in, by Unicode block: enough to say what languages a tokenizer has to deal with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["SCRIPTS", "count_scripts", "main_script"]

# first code point, last, script; sorted. Source: Unicode Blocks.txt 16.0, only the blocks that catalogues use.
_RANGES: tuple[tuple[int, int, str], ...] = (
    (0x30, 0x39, "digits"),
    (0x41, 0x5A, "Latin"),
    (0x61, 0x7A, "Latin"),
    (0xAA, 0xAA, "Latin"),
    (0xBA, 0xBA, "Latin"),
    (0xC0, 0x24F, "Latin"),
    (0x250, 0x2AF, "Latin"),
    (0x370, 0x3FF, "Greek"),
    (0x400, 0x52F, "Cyrillic"),
    (0x530, 0x58F, "Armenian"),
    (0x590, 0x5FF, "Hebrew"),
    (0x600, 0x65F, "Arabic"),
    (0x660, 0x669, "digits"),
    (0x66A, 0x77F, "Arabic"),
    (0x900, 0x97F, "Devanagari"),
    (0x980, 0x9FF, "Bengali"),
    (0xA00, 0xA7F, "Gurmukhi"),
    (0xA80, 0xAFF, "Gujarati"),
    (0xB80, 0xBFF, "Tamil"),
    (0xC00, 0xC7F, "Telugu"),
    (0xC80, 0xCFF, "Kannada"),
    (0xD00, 0xD7F, "Malayalam"),
    (0xD80, 0xDFF, "Sinhala"),
    (0xE00, 0xE7F, "Thai"),
    (0xE80, 0xEFF, "Lao"),
    (0x1000, 0x109F, "Myanmar"),
    (0x10A0, 0x10FF, "Georgian"),
    (0x1100, 0x11FF, "Hangul"),
    (0x1200, 0x139F, "Ethiopic"),
    (0x1780, 0x17FF, "Khmer"),
    (0x1C90, 0x1CBF, "Georgian"),
    (0x1E00, 0x1EFF, "Latin"),
    (0x1F00, 0x1FFF, "Greek"),
    (0x2C60, 0x2C7F, "Latin"),
    (0x2E80, 0x2FDF, "Han"),
    (0x3005, 0x3007, "Han"),
    (0x3041, 0x30FF, "Kana"),
    (0x3130, 0x318F, "Hangul"),
    (0x31F0, 0x31FF, "Kana"),
    (0x3400, 0x4DBF, "Han"),
    (0x4E00, 0x9FFF, "Han"),
    (0xA960, 0xA97F, "Hangul"),
    (0xAC00, 0xD7FF, "Hangul"),
    (0xF900, 0xFAFF, "Han"),
    (0xFB1D, 0xFB4F, "Hebrew"),
    (0xFB50, 0xFDFF, "Arabic"),
    (0xFE70, 0xFEFF, "Arabic"),
    (0xFF10, 0xFF19, "digits"),
    (0xFF21, 0xFF5A, "Latin"),
    (0xFF66, 0xFF9D, "Kana"),
    (0x1F300, 0x1FAFF, "pictographs"),
    (0x20000, 0x323AF, "Han"),
)
SCRIPTS: tuple[str, ...] = tuple(dict.fromkeys(name for _, _, name in _RANGES))
_FIRST = np.array([first for first, _, _ in _RANGES], np.uint32)
_LAST = np.array([last for _, last, _ in _RANGES], np.uint32)
_CODE = np.array([SCRIPTS.index(name) for _, _, name in _RANGES])
_LETTERS = np.array([name not in ("digits", "pictographs") for name in SCRIPTS])


def count_scripts(text: str) -> npt.NDArray[np.int64]:
    """Characters of `text` per entry of `SCRIPTS`; spaces, punctuation and other scripts are not counted."""
    points = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)
    place = np.searchsorted(_FIRST, points, "right") - 1
    inside = (place >= 0) & (points <= _LAST[place])
    return np.bincount(_CODE[place[inside]], minlength=len(SCRIPTS))


def main_script(counts: npt.NDArray[np.int64]) -> str:
    """The script of most letters; "digits" or "other" for a text without letters."""
    letters = counts * _LETTERS
    if letters.any():
        return SCRIPTS[int(letters.argmax())]
    return "digits" if counts[SCRIPTS.index("digits")] else "other"
