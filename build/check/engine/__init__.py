"""An engine's own steps against an independent computation of the same weights on the CPU.

`script.py` is what is fed; `reference.py` chooses what it is held against; `bounds.py` says how far
apart they may be; `check.py` goes through the stages.
"""
