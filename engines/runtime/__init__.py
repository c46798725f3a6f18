"""What every engine shares: slots, the scheduler, requests, generation.

Read `engine` (the protocol), then `scheduling/scheduler`, the step loop. Invariants: the scheduler
alone gives and takes slots, between steps; `state/slots` alone clears and moves their rows; a slot
belongs to one sequence; a step reads and writes only the slots that it is fed.
"""
