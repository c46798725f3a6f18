"""How long a step takes: operators, each bound by its slowest resource.

Read `step`, then `roofline`; `closed_loop` puts steps together.
"""
