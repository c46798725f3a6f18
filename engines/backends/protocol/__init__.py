"""What a backend is: the protocol, its options, what it plans and which GPUs it knows.

Read `backend` first. It knows no backend by name; `..registry` does.
"""
