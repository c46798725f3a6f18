"""What one request may ask for; the engine's process, Triton's model and the front share these.

A request beyond a limit is refused with the limit's name and value before the work begins.
"""

from collections.abc import Callable, Sequence

from nemotrt.errors import ConfigError, NemotrtError

CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"  # OpenAI's code
MAX_STOP_STRINGS = 64
MAX_STOP_CHARACTERS = 8192  # of all stop strings of a request: 8 ms to compile
MAX_STOP_TOKEN_IDS = 64
MAX_BIAS_CHARACTERS = 8192  # of all words that a request biases
MAX_BYTES_PER_TOKEN = 64  # a longer text can't fit: refused before it costs a tokenizer's time
USUAL_CHARACTERS_PER_TOKEN = 8  # few texts have more; those are tokenized to their end at once
TOKENS_AT_A_CUT = 64
MAX_GUIDE_CHARACTERS = 1 << 18
MAX_MESSAGES = 4096
MAX_PARTS = 8192  # content parts and tool calls of a chat's messages
MAX_TOOLS = 512
MAX_PROMPTS = 128
MAX_CHOICES = 512  # prompts times n
MAX_SALT_CHARACTERS = 256
MAX_NAME_CHARACTERS = 128  # of an adapter
MAX_PROMPT_LOG_PROBS = 1 << 18  # what a response and its clients' threads bear
MAX_PROMPT_IDS = 1 << 18  # of all prompts of a request; one of max_seq_len always fits

# A body: what stands beside the text and bounds itself, and each character of the longest prompt as
# JSON writes it.
BODY_BYTES, BODY_BYTES_PER_TOKEN, MAX_BODY_BYTES = 4 << 20, 4 * MAX_BYTES_PER_TOKEN, 16 << 20


class TooLongError(ConfigError):
    """A prompt is longer than what the engine holds; exit code 2."""


def refusal_code(error: NemotrtError) -> str:
    """Return the machine-readable reason of a refused request."""
    return CONTEXT_LENGTH_EXCEEDED if isinstance(error, TooLongError) else "invalid_request"


def most_body_bytes(max_seq_len: int) -> int:
    """Return the size from which a body holds more than an engine of this length can take."""
    return min(MAX_BODY_BYTES, BODY_BYTES + BODY_BYTES_PER_TOKEN * max_seq_len)


def check_count(name: str, count: int, limit: int, unit: str = "entries") -> None:
    """Raise ConfigError where `name` has more than it may."""
    if count > limit:
        raise ConfigError(f"{name} has {count} {unit}; the limit is {limit}.")


def check_stops(name: str, stop: list[str] | tuple[str, ...]) -> None:
    """Raise ConfigError for too many stop strings, or too long ones."""
    check_count(name, len(stop), MAX_STOP_STRINGS)
    check_count(name, sum(map(len, stop)), MAX_STOP_CHARACTERS, "characters in all")


def check_adapter(name: str | None) -> None:
    """Raise ConfigError for a name that is too long, or empty: that would be none, unseen."""
    if name == "":
        raise ConfigError("lora_name must have 1 character or more; leave it out for none.")
    check_count("lora_name", len(name or ""), MAX_NAME_CHARACTERS, "characters")


def check_salt(salt: str | None) -> None:
    """Raise ConfigError for a salt that is too long, or empty: that would be none, unseen."""
    if salt == "":
        raise ConfigError("cache_salt must have 1 character or more; leave it out for none.")
    check_count("cache_salt", len(salt or ""), MAX_SALT_CHARACTERS, "characters")


def check_text(name: str, num_characters: int, max_seq_len: int) -> None:
    """Raise TooLongError for a text that can't fit, however it is tokenized."""
    if num_characters > max_seq_len * MAX_BYTES_PER_TOKEN:
        raise TooLongError(
            f"{name} has {num_characters} characters; the engine holds {max_seq_len} tokens."
        )


def check_head(text: str, max_seq_len: int, encode: Callable[[str], Sequence[int]]) -> None:
    """Raise TooLongError where a text's beginning alone is more tokens than the engine holds.

    So a text that is far too long costs no more than one that fits. The cut may change some tokens
    beside it.
    """
    head = text[: max_seq_len * USUAL_CHARACTERS_PER_TOKEN]
    if len(head) < len(text) and len(encode(head)) > max_seq_len + TOKENS_AT_A_CUT:
        raise TooLongError(
            f"the prompt has more than {max_seq_len} tokens; the engine holds {max_seq_len} with "
            "the output."
        )


def check_room(num_prompt_tokens: int, max_seq_len: int, *, min_output: int = 1) -> int:
    """Return the tokens that a prompt leaves for the output; TooLongError below `min_output`."""
    if num_prompt_tokens + min_output > max_seq_len:
        raise TooLongError(
            f"the prompt has {num_prompt_tokens} tokens; the engine holds {max_seq_len} "
            "with the output."
        )
    return max_seq_len - num_prompt_tokens
