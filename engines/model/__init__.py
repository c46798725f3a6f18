"""What the model is: its config, its tensors' names, its description, its number formats.

Read `model_config`, then `description`: the whole model in a page, for any emitter.
"""
