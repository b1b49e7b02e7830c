"""An audit as text for a terminal: sections of aligned lines, the warnings last, where the eye ends up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["to_text"]


def to_text(audit: Mapping[str, Any], listed: int = 20) -> str:
    """The text of `Audit.to_json()`, with at most `listed` entries of each list."""
    rows = max(audit["rows"], 1)
    extent = "" if audit["complete"] else f" of {audit['total']} (not complete)"
    media = "media decoded" if audit["decoded"] else "media not decoded"
    lines = [
        f"{audit['path']}",
        f"{audit['rows']} rows{extent}, {audit['dropped']} left out, {audit['empty']} with nothing; {media}",
    ]
    lines += _section("Modalities", ("name", "kind", "present", "share", "distinct", "identical"), _modalities(audit))
    patterns = [(name, n, f"{n / rows:.1%}") for name, n in audit["patterns"].items()]
    lines += _section("Present together", ("modalities", "rows", "share"), patterns, listed)
    lines += _section("Splits", ("split", "rows"), [(name or "(none)", n) for name, n in audit["splits"].items()])
    lines += _section(
        "Labels (values/rows)", ("label", "values", "head", "torso", "tail", "once", "most frequent"), _labels(audit)
    )
    if audit["groups"]:
        g = audit["groups"]
        lines += [
            "",
            f"Groups: {g['groups']} of {g['rows']} rows, the largest {g['largest']}, {g['cut']} cut by a split",
        ]
    for name, found in audit["scripts"].items():
        cells = [(script, s["rows"], s["in"], f"{s['letters']:.1%}") for script, s in found.items()]
        lines += _section(f"Scripts of {name}", ("script", "main in rows", "in rows", "of letters"), cells, listed)
        lengths = audit["modalities"][name].get("characters", {})
        lines += ["  characters: " + ", ".join(f"{q} {n}" for q, n in lengths.items())] if lengths else []
    for name, found in audit["attributes"].items():
        head = ("attribute", "rows", "share", "numbers", "words", "values", "not finite")
        lines += _section(f"Attributes of {name}", head, _attributes(found), listed)
    if audit["duplicates"]:
        repeated = [(name, n + 1) for name, n in audit["duplicates"].items()]
        lines += _section("Ids that occur more than once", ("id", "times"), repeated, listed)
    bad = [(name or "(row)", reason, n) for name, found in audit["reasons"].items() for reason, n in found.items()]
    if bad:
        lines += _section("Quarantine", ("modality", "reason", "entries"), bad)
        entries = [
            (e["id"], e["modality"], e["source"][:60], e["reason"], e["detail"][:60]) for e in audit["quarantine"]
        ]
        lines += _section("Entries", ("id", "modality", "source", "reason", "detail"), entries, listed)
    lines += ["", "Warnings:" if audit["warnings"] else "No warnings."]
    return "\n".join([*lines, *(f"  ! {text}" for text in audit["warnings"])]) + "\n"


def _modalities(audit: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (name, m["kind"], m["present"], f"{m['share']:.1%}", m["distinct"], m["identical"])
        for name, m in audit["modalities"].items()
    ]


def _labels(audit: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (
            name,
            found["values"],
            *(f"{found[part]['values']}/{found[part]['rows']}" for part in ("head", "torso", "tail")),
            found["singletons"],
            ", ".join(f"{value[:24]} {n}" for value, n in list(found["top"].items())[:3]),
        )
        for name, found in audit["labels"].items()
    ]


def _attributes(found: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (
            name[:40],
            a["rows"],
            f"{a['share']:.1%}",
            a["numeric"],
            a["symbolic"],
            f"{a['values']}{'+' if a['values_capped'] else ''}",
            a["not_finite"],
        )
        for name, a in found.items()
    ]


def _section(title: str, head: Sequence[str], rows: Iterable[Sequence[Any]], listed: int | None = None) -> list[str]:
    cells = [[str(cell).replace("\n", " ") for cell in row] for row in rows]
    if not cells:
        return []
    shown = cells if listed is None else cells[:listed]
    widths = [max(len(row[i]) for row in [list(head), *shown]) for i in range(len(head))]
    lines = [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *shown]
    ]
    more = [f"  … and {len(cells) - len(shown)} more"] if len(shown) < len(cells) else []
    return ["", title, *(line.rstrip() for line in lines), *more]
