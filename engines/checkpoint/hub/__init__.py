"""Checkpoints by name: a folder, a built-in model, or a repository of the Hugging Face hub.

Read `folder`, which says what a name means, then `cache` and `download`. A path that exists wins;
the local cache goes before the network; only safetensors, tokenizer, template and config files are
ever downloaded. A snapshot that lacks a file is never taken for a checkpoint.
"""
