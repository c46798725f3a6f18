"""How long a step takes: operators, each bound by its slowest resource.

Read `step`, then `roofline`; `play` puts steps together.
"""
