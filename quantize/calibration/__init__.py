"""Activation ranges from texts: the model run block by block, observed.

Read `calibrate`.
"""
