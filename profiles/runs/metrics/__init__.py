"""Metrics: each a declaration with unit, formula and source, computed from recorded samples."""
