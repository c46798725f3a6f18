"""What the planner answers: one deployment, the best of many, a sweep, a comparison.

Read `deployment`, then `options` and `plan`.
"""
