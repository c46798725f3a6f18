"""State that is kept: what a sequence computed serves every later one that begins alike.

Read `prefix_tree` (who shares what), `prefix_cache` (the byte limit), `keep_points` (where states
are taken). `../kept_state` says what a state is made of, `scheduling/reuse` when it is used.

Invariants:

- A kept state belongs to one text of token ids of one salt; nothing finds it by less.
- What is kept never changes: edges are cut and dropped, their arrays are not written again.
- A sequence begins at a state that is a proper prefix of its prompt: it always feeds a token.
- Room is made before a state is taken: the bytes held never exceed the limit.
- States are taken and given between steps, when a slot holds exactly the tokens of its key.
"""
