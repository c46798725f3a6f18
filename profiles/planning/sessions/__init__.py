"""Agents as a load: what of their sessions is kept, how long each turn waits, how many are served.

Read `load` (the sessions), `kept` (which tokens, and how many bytes), `turns` (one turn's time),
`rate` (all agents at once), then `answer`.
"""
