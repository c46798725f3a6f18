"""The OpenAI endpoints: from a request's fields to an answer's chunks.

Read `prepare`, then `chat_endpoint` and `chat_answer`.
"""
