"""Scales and what is folded into weights: SmoothQuant, common ranges, unfolding."""
