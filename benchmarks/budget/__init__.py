"""Schemes that make a network smaller, at equal multiply-adds; `__main__.py` says how to run it."""
