"""Search over an index: `Engine` without HTTP, `app` as a thin shell round it, `cards` for what a result shows.

Never imports torch; an embedder is handed in and known only as the Protocol `Embeds`.
"""

from polymodal.service.cards import Card, CardMedia, Cards, MediaFile, write_cards
from polymodal.service.engine import Engine, MediaStore

__all__ = ["Card", "CardMedia", "Cards", "Engine", "MediaFile", "MediaStore", "write_cards"]
