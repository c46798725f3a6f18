"""Codes of weights: as files pack them, and the scales of groups of 4-bit codes.

Read `packed`, then `groups`.
"""
