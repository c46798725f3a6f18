"""The command that serves a plan, in the words of the engine that it is for.

Read `tables/*.yaml`, one engine each, then `launch`.
"""
