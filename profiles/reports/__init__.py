"""Report: one self-contained HTML page of a profile result."""
