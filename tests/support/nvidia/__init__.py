"""NVIDIA's real Python bindings as oracles: fetched, imported over stubs, read, held against.

Read `wheels` (a cached download), `dump` (what runs in the process that imports a binding), `api`
(what it says, as classes and signatures), `uses` (what our source asks of it, followed by types)
and `flat_uses` (the same of modules of functions).
"""
