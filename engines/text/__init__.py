"""Between text and tokens: tokenizers, streams of text, stop strings, thinking.

Read `tokenizer`, then `text_stream`. Text goes out only when nothing may change it any more.
"""
