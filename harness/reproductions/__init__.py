"""Bugs in the field, shown again from nothing: one module a story."""
