"""lm-eval's tasks on an engine in this process, and two models compared item by item.

Read `run`, then `engine_model`, which is what lm-eval asks; `paired` compares. Only `engine_model`
and `run` import lm-eval, when tasks are asked for.
"""
