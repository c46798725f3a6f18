"""One module per target, each turning the model description into that target's graph.

`step_inputs` has what they share; read `standard` first.
"""
