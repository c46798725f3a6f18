"""The engine's own process: connections, admission, the loop, delivery.

Read `host`, then `loop`. Invariants: one thread owns the scheduler; others leave closures in
its inbox; a request ends once, with one last update.
"""
