"""One vector per catalogue item."""
