"""The cards of clusters as one HTML page without script, network or other files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polymodal.evaluate.blocks import esc, score, table
from polymodal.evaluate.pictures import data_uri
from polymodal.evaluate.style import CSS
from polymodal.tasks.clusters import Agreement, Card

__all__ = ["cluster_page"]

_PICTURES = 1500  # at most on a page: about 4 kB each
_SIDE = 120

_OWN = """
.frame{display:block;max-width:1180px}
.clusters{display:grid;gap:22px;margin-top:26px}
.cluster{border:1px solid var(--line);border-radius:14px;padding:20px 22px 22px;background:var(--card)}
.cluster h2{font-size:18px;margin:0 0 2px}
.cluster .facts{color:var(--soft);font-size:13.5px;margin:0 0 14px;max-width:none}
header{margin-bottom:22px}
.cluster .facts b{color:var(--ink);font-weight:600}
.typical{display:grid;grid-template-columns:repeat(auto-fill,minmax(132px,1fr));gap:12px}
.said{display:flex;flex-wrap:wrap;gap:7px;margin:16px 0 0;padding:0;list-style:none}
p.said{display:block}
.said li{background:var(--panel);border-radius:99px;padding:4px 12px;font-size:13px;line-height:1.4}
.said li small{color:var(--soft);margin-left:6px}
.said li i{font-style:normal;color:var(--soft);margin-right:5px}
@media (max-width:900px){.typical{grid-template-columns:repeat(3,minmax(0,1fr))}}
"""


def cluster_page(
    title: str,
    command: str,
    cards: Sequence[Card],
    agreements: Sequence[Agreement],
    facts: Sequence[str],
    pictures: Mapping[str, bytes],
) -> str:
    """The whole document. Every text that came from a catalogue is escaped.

    Args:
        facts: sentences under the title. pictures: id -> encoded PNG or JPEG, of typical items.
    """
    most = max(1, _PICTURES // max(len(cards), 1))
    body = "".join(_card(card, pictures, most) for card in cards)
    said = "".join(f"<p>{esc(fact)}</p>" for fact in facts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{esc(title)}</title><style>{CSS}{_OWN}</style></head><body><div class='frame'><main>"
        f'<header><p class="eyebrow">polymodal clusters</p><h1>{esc(title)}</h1>'
        f'<span class="command">Made by <code>{esc(command)}</code></span></header>{said}'
        f'<div class="clusters">{body}</div>{_agreement(agreements)}'
        "<footer><p>Typical items are those nearest to the centre of their cluster. Telling terms are said by more "
        "items of the cluster than chance allows (log-odds against all other items, two standard deviations and "
        "more); the numbers are items that say it, of those that have the modality, inside and outside.</p></footer>"
        "</main></div></body></html>\n"
    )


def _agreement(found: Sequence[Agreement]) -> str:
    if not found:
        return ""
    rows = [
        (
            esc(one.label),
            f"{one.items:,}",
            f"{one.values}",
            *(_beside(one, name) for name in ("nmi", "ari", "purity")),
        )
        for one in found
    ]
    head = ("label", "n:items", "n:values", "n:NMI", "n:ARI", "n:purity")
    return f"<h3>Agreement with labels</h3>{table(head, rows)}<p class='muted'>In the second line: by chance.</p>"


def _beside(one: Agreement, name: str) -> str:
    return f"{score(getattr(one, name))}<br><span class='ci'>{max(one.by_chance[name], 0.0):.3f}</span>"


def _card(card: Card, pictures: Mapping[str, bytes], most: int) -> str:
    stable = "" if card.stability != card.stability else f" · stability <b>{card.stability:.2f}</b>"
    labels = "".join(
        f" · {esc(name)} <b>{esc(', '.join(f'{value} {n}' for value, n in values))}</b>"
        for name, values in card.labels.items()
        if values
    )
    items = "".join(_item(*one, pictures) for one in card.typical[:most])
    told = "".join(
        f"<li><i>{esc(t.source)}</i>{esc(t.term)}<small>{t.inside}/{t.size} · {t.outside}/{t.rest}</small></li>"
        for t in card.telling
    )
    head = ", ".join(t.term for t in card.telling[:3]) or "nothing telling"
    return (
        f'<section class="cluster" id="cluster-{card.number}" style="margin-top:0"><h2>{card.number}. {esc(head)}</h2>'
        f'<p class="facts"><b>{card.size:,}</b> items, {card.share:.1%} · mean cosine <b>{card.cosine:.2f}</b>'
        f'{stable}{labels}</p><div class="typical">{items}</div><ul class="said">{told}</ul></section>'
    )


def _item(name: str, title: str, cosine: float, pictures: Mapping[str, bytes]) -> str:
    uri = data_uri(pictures[name], _SIDE) if name in pictures else None
    shown = f'<img src="{uri}" alt="">' if uri else "<span>no picture</span>"
    return (
        f'<div class="card"><div class="picture">{shown}</div><div class="text"><b>{esc(title or name)}</b>'
        f"<small>{esc(name)} · {cosine:.2f}</small></div></div>"
    )
