"""Imports: results of other tools, as profile results."""
