"""From logits to a token: parameters, guides, draws.

Read `params`, then `draws`. A token depends on its row, its parameters and its seed alone.
"""
