"""Measured throughputs beside the plan's: validation, calibration, fits."""
