"""The command kit: options that dataclasses tell, `--config FILE`, and what all commands share.

A frozen dataclass tells its options with `option()`, so that a default, a help text and a range
stand in the dataclass alone; `@options_of(Dataclass)` gives them to a command and hands it the
dataclass. Read `options`, then `shared`.
"""
