"""OpenAI's /v1/responses: items in, items out, and answers that later requests go on from.

Read `conversation`, then `call` with its `output`, then `kept`.
"""
