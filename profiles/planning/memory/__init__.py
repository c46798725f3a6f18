"""How many sequences fit: weights, state per request, workspace.

Read `capacity`, which bisects over the others.
"""
