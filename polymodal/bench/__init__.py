"""Controlled experiments: one module a question, each with `run(options) -> Result`. `polymodal bench NAME` runs one.

What is shared by them stands in `_base`; a module that starts with an underscore is no experiment.
"""
