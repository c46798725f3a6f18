"""What every engine shares: slots, the scheduler, requests, generation.

Read `engine` (the protocol), `scheduler`, the step loop, then `running_request`. Invariants: the
scheduler alone gives and takes slots, between steps; `state/slots` alone clears and moves their
rows; a slot belongs to one sequence; a step reads and writes only the slots that it is fed.
"""
