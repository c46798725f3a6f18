"""Anthropic's /v1/messages: blocks in, blocks out.

Read `conversation`, then `call` with its `blocks`.
"""
