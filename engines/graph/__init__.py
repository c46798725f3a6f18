"""One module a target, each turning the model description into that target's graph."""
