"""Guides from JSON schemas, regular expressions and grammars, tried and cached.

Read `grammar`.
"""
