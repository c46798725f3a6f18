"""Spans of requests, by OpenTelemetry, where an endpoint is set; else nothing is imported.

The SDK's own variables say where spans go and which (OTEL_EXPORTER_OTLP_ENDPOINT and the others of
its specification). They are sent from a thread of the SDK's, in batches: no request waits for an
endpoint, and spans that it does not take are dropped.

The front has a span for each request. The engine has one for each sequence of it, with what became
of its time: `queue`, `prefill`, `decode`. Names of attributes are those of OpenTelemetry's semantic
conventions for HTTP and for generative AI. No span has a prompt, an answer or a key.
"""

import atexit
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nemotrt import needs
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.wire.trail import Trail, read_trail

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

# Source: OpenTelemetry's specification, OTLP exporter and SDK environment variables.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
FLUSH_S = 2.0  # at the end of a process
PROVIDER = "nemotrt"
STEPS = ("queue", "prefill", "decode")
ATTRIBUTES = {  # by the fields of a line in the log
    "status": "http.response.status_code",
    "input_tokens": "gen_ai.usage.input_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "error": "error.type",
    "tenant": "nemotrt.tenant",
    "request_id": "nemotrt.request_id",
    "sequence": "nemotrt.sequence",
    "outcome": "nemotrt.outcome",
}
TTFT_MS = "ttft_ms"


def is_asked() -> bool:
    """Whether the environment names an endpoint for spans, and does not switch them off."""
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporter = os.environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    has_endpoint = any(os.environ.get(name, "").strip() for name in ENDPOINTS)
    return has_endpoint and not is_off and exporter != "none"


def check_tracing() -> None:
    """Check what spans need, before anything starts.

    Raises:
        EnvironmentUnfitError: an endpoint is set, and a package is missing.
        ConfigError: it is to be spoken to by a protocol that is not here.
    """
    if not is_asked():
        return
    missing = [p.name for p in needs.EXTRAS["tracing"] if p.installed() is None or p.fault()]
    name = next(name for name in ENDPOINTS if os.environ.get(name, "").strip())
    if missing:
        raise EnvironmentUnfitError(
            f"{name} asks for traces, which need {', '.join(missing)}; install it with: "
            f"{needs.install('tracing')}; or unset {name}."
        )
    told = next((os.environ[name] for name in PROTOCOLS if os.environ.get(name)), PROTOCOL)
    if told != PROTOCOL:
        raise ConfigError(
            f"spans are sent by {PROTOCOL}, not {told!r}: unset {' and '.join(PROTOCOLS)}, and "
            f"give {name} the collector's HTTP port, mostly 4318."
        )
    endpoint = os.environ[name]
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"{name} must be an http or https address, got {endpoint!r}.")


class Tracing:
    """Makes the spans of one process."""

    def __init__(self, process: str, told: Mapping[str, str]) -> None:
        """Start the SDK; each request's span says what is `told`."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        own = Resource.create({"service.name": PROVIDER, "nemotrt.process": process})
        resource = own.merge(OTELResourceDetector().detect())  # what the environment says holds
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = provider.get_tracer(PROVIDER)
        self._told = {"gen_ai.provider.name": PROVIDER, **told}
        self._provider = provider
        atexit.register(self.close)

    def begin(self, method: str, route: str, headers: Mapping[str, str], operation: str) -> "Span":
        """Return the span of an HTTP request, part of the client's trace if it has one."""
        from opentelemetry.trace import SpanKind

        told = {"http.request.method": method, "http.route": route, "url.path": route}
        told |= {"gen_ai.operation.name": operation, **self._told}
        name, inside = f"{method} {route}", _context(read_trail(headers))
        return self._tracer.start_span(name, inside, kind=SpanKind.SERVER, attributes=told)

    def trail(self, span: "Span", request_id: str) -> Trail:
        """Return the trail of what is done for a span."""
        from opentelemetry.trace import set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {"request_id": request_id}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
        return read_trail(carrier)

    def end(self, span: "Span", fields: Mapping[str, Any]) -> None:
        """End the span of an HTTP request, of which a line in the log has these fields."""
        from opentelemetry.trace import StatusCode

        span.set_attributes(_attributes(fields))
        if fields["status"] >= 500:
            span.set_status(StatusCode.ERROR)
        span.end()

    def sequence(
        self,
        trail: Trail,
        submitted_s: float,
        ends_s: Sequence[float | None],
        fields: Mapping[str, Any],
    ) -> None:
        """Make the spans of a sequence that has ended just now.

        Times are of the monotonic clock; `ends_s` are those of STEPS, None for what it never left.
        """
        from opentelemetry.trace import set_span_in_context

        now_s, now_ns = time.monotonic(), time.time_ns()

        def at(moment_s: float) -> int:
            return now_ns - round((now_s - moment_s) * 1e9)

        start, told = at(submitted_s), {**self._told, **_attributes(fields)}
        whole = self._tracer.start_span(
            "generate", _context(trail), start_time=start, attributes=told
        )
        inside = set_span_in_context(whole)
        for name, end_s in zip(STEPS, ends_s, strict=True):
            end = now_ns if end_s is None else at(end_s)
            self._tracer.start_span(name, inside, start_time=start).end(end)
            if end_s is None:
                break  # it ended there
            start = end
        whole.end(now_ns)

    def close(self) -> None:
        """Send what is left, for a moment at most: an endpoint that is down holds up no stop."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(FLUSH_S)


def start_tracing(process: str, told: Mapping[str, str]) -> Tracing | None:
    """Return what makes spans, None where nobody asked for them; raises like `check_tracing`."""
    check_tracing()
    return Tracing(process, told) if is_asked() else None


def _context(trail: Trail) -> "Context":
    """Return the context that a trail comes from; a trace of its own where there is none."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(trail.fields(), Context())


def _attributes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line's fields as attributes; the time to the first chunk is in seconds there."""
    found = {name: fields[key] for key, name in ATTRIBUTES.items() if fields.get(key, "") != ""}
    if TTFT_MS in fields:
        found["gen_ai.response.time_to_first_chunk"] = fields[TTFT_MS] / 1e3
    return found
