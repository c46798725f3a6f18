"""This machine as a planner's device: measured rates, cached by machine."""
