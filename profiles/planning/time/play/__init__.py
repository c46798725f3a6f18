"""Steps put together: the closed loop, and an engine's scheduler played out.

Read `closed_loop`, then `requests` and `scheduler`.
"""
