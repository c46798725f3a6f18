"""Bounds and sampling fields that every door to the engine shares."""
