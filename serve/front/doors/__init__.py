"""The doors beside OpenAI's chat and completions; each leads into the one chat request.

Read `prepare`, then `responses` and `messages`: there `conversation` makes a chat of a body, and
`call` makes the door's own items of the chat's chunks.
"""
