"""A GGUF file as a checkpoint: its tensors by the hub's names, its config, its tokenizer.

Read `file`, then `tensors`, then `folder`. Nothing of llama.cpp is needed.
"""
