"""What the commands do, as functions: each takes paths and settings, and returns what the command prints."""
