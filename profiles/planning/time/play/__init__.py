"""The scheduler of an engine played out: `requests` (what is asked), then `scheduler`."""
