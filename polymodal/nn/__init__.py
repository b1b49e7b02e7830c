"""Building blocks that know tokens and nothing of modalities, objectives or catalogues."""
