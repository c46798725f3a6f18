"""What a request may ask of sampling at most, for those who only plan it: nothing is imported."""

MAX_BIASES = 1024  # tokens with a logit_bias: room for them is kept on a GPU
