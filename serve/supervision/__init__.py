"""Services that are started in order, watched, started again and drained.

Read `supervisor`, then `service`.
"""
