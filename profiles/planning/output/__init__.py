"""A plan as a table and as charts."""
