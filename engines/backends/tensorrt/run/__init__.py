"""An open plan on its GPU: state and weights in device memory, and the calls of a step."""
