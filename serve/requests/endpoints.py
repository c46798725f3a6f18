"""Where a body can be sent: the one list of these paths."""

from enum import StrEnum


class Endpoint(StrEnum):
    """What a body was sent to, as its path."""

    CHAT = "/v1/chat/completions"
    CHAT_TOKENS = "/v1/chat/completions/input_tokens"
    COMPLETIONS = "/v1/completions"
    RESPONSES = "/v1/responses"
    RESPONSE_TOKENS = "/v1/responses/input_tokens"
    MESSAGES = "/v1/messages"
    COUNT_TOKENS = "/v1/messages/count_tokens"
    TOKENIZE = "/tokenize"
    DETOKENIZE = "/detokenize"

    @property
    def operation(self) -> str:
        """What a span calls the work of an engine for it; "" where there is none.

        Source: OpenTelemetry's semantic conventions for generative AI, gen_ai.operation.name.
        """
        if self in (Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.MESSAGES):
            return "chat"
        return "text_completion" if self is Endpoint.COMPLETIONS else ""
