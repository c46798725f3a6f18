"""Exact speculation without a draft model: tokens that a text has had before are guessed.

Read `speculation`, then `lookup` (what is guessed) and `worth` (how much). Guesses change no token:
each is compared with what is chosen from its own logits, by its own random number.
"""
