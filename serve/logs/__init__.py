"""What a server says of itself: lines of a log, files that are put aside, spans of a trace.

Read `options`, `lines`, `outlet`, then `files` and `tracing`. No line holds a prompt, an answer or
a key: what a client sent is told by its size, its id and the name of its fault. A line is one line,
whatever is in it.
"""
