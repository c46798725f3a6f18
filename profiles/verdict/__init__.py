"""Verdict: is one run faster than another, by how much, and may they be compared at all."""
