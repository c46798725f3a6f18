"""TensorRT's words for why it refuses a graph, shortened, with what they mean for us."""

MEANINGS = {
    "must have type Float, Half, or BFloat16": "the native KV cache takes 16 bit values only",
    "HW-specific datatypes": "the target GPU has no arithmetic of that type",
    "No implementation for attention": "no fused attention kernel fits these heads",
    "out of memory": "the compiler ran out of memory",
}
# What the library says on every machine without a driver: no reason for a refusal.
NOISE = ("CUDA driver version is insufficient", "catchCudaError", "--- Begin", "--- End")
MAX_LINES = 6


def explain(messages: list[str]) -> str:
    """Return the messages that matter, and the meaning of those that we know."""
    lines = [line.strip() for message in messages for line in message.splitlines()]
    telling = [line for line in lines if line and not any(noise in line for noise in NOISE)]
    unique = list(dict.fromkeys(telling or lines))
    known = [meaning for words, meaning in MEANINGS.items() if any(words in x for x in unique)]
    text = " ".join(unique[:MAX_LINES])
    return f"{text} That is: {'; '.join(known)}." if known else text
