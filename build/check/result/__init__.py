"""What a check finds, and how it is told: a fault, rows, the report, its page.

`fault.py` names the stages; `rows.py` is what was compared and timed; `report.py` is all of it.
"""
