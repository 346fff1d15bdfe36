"""Household tasks: ALFWorld's own engine behind a picture, a text and named commands."""
