"""Requests that share an engine: who gets a slot, what each step feeds, what is kept.

Read `scheduler`, the step loop, then `running_request`; `slot_holders` gives and takes slots,
`line` says who is next, `reuse` where a sequence begins and what it leaves for others.
`live` has the scheduler run what several callers of one thread wait for.
"""
