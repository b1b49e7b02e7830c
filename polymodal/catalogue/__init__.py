"""Catalogues: tables and media on disk, what is wrong with them, prepared shards, the loader, a generated one."""
