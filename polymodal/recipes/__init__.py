"""Runs as data: one module a recipe, each with `recipe(kinds, size, ...)`."""
