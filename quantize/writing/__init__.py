"""The writer: every byte planned first, then filled shard by shard.

Read `writer`. Invariants: a killed run can be resumed; nothing unfinished looks finished.
"""
