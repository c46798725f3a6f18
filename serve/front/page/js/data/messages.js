/** The messages of a conversation: as they are kept, as they are sent, and one that comes in. */

/** What may be known of an answer, beside how it ended. */
export const FIGURES = [
  "ttft_ms", "tokens", "tokens_per_s", "prompt_tokens", "cached_tokens", "reasoning_tokens",
];
const LEAST_MS = 20; // over less, a rate says nothing

/** Return the messages as the server takes them. */
export function wire(system, messages) {
  const sound = new Set(messages.flatMap(({ calls }) => calls ?? []).filter(isSound).map(({ id }) => id));
  const sent = messages.map((one) => {
    if (one.role === "user") return { role: "user", content: one.content };
    if (one.role === "tool") {
      return sound.has(one.call) && { role: "tool", tool_call_id: one.call, content: one.content };
    }
    const calls = one.calls.filter(({ id }) => sound.has(id)).map(({ id, name, arguments: given }) => ({
      id,
      type: "function",
      function: { name, arguments: given },
    }));
    return {
      role: "assistant",
      content: one.content,
      ...(one.reasoning && { reasoning_content: one.reasoning }),
      ...(calls.length && { tool_calls: calls }),
    };
  });
  const first = system.trim() ? [{ role: "system", content: system }] : [];
  return [...first, ...sent.filter((one) => one)];
}

/** Whether a call can be sent back: one that was cut off has arguments that are no JSON. */
function isSound(call) {
  try {
    JSON.parse(call.arguments || "{}");
    return true;
  } catch {
    return false;
  }
}

/** Return the results of calls by the calls' ids. */
export const resultsOf = (messages) =>
  new Map(messages.filter(({ role }) => role === "tool").map(({ call, content }) => [call, content]));

/** Return the calls that wait for a result: those of the last answer, once nothing followed it. */
export function pendingCalls(messages) {
  const last = messages.at(-1);
  return last?.role === "assistant" ? last.calls.filter(isSound) : [];
}

/** Return how many answers with calls there were since the user said something. */
export function roundsOf(messages) {
  const since = messages.slice(messages.findLastIndex(({ role }) => role === "user") + 1);
  return since.filter(({ calls }) => calls?.length).length;
}

/** An answer that comes in, and what is measured of it. */
export class Answer {
  /** Begin one; `earlier` is the message that it goes on with. */
  constructor(earlier) {
    const { content = "", reasoning = "" } = earlier ?? {};
    this.message = { role: "assistant", content, reasoning, calls: [], figures: {} };
    this.start = performance.now();
    this.first = null; // when the first text came, and how many tokens with it
    this.usage = {};
  }

  /** Whether anything came. */
  get hasGrown() {
    return this.first !== null;
  }

  push(chunk) {
    if (chunk.usage) this.usage = chunk.usage;
    for (const { delta, finish_reason: reason } of chunk.choices ?? []) {
      this.delta(delta);
      if (reason) this.message.figures.finish = reason;
    }
    this.measure();
  }

  delta({ reasoning_content: reasoning, content, tool_calls: calls }) {
    if (!(reasoning || content || calls?.length)) return;
    this.last = performance.now();
    this.first ??= { at: this.last, tokens: this.usage.completion_tokens };
    if (reasoning) this.message.reasoning += reasoning;
    if (content) this.message.content += content;
    for (const { index, id, function: part } of calls ?? []) {
      this.message.calls[index] ??= { id, name: part.name, arguments: "" };
      this.message.calls[index].arguments += part.arguments ?? "";
    }
  }

  /** The rate is of the tokens after the first text, over the time from it to the last one. */
  measure() {
    if (!this.first) return;
    const { completion_tokens: tokens, prompt_tokens: asked } = this.usage;
    const time = this.last - this.first.at;
    const told = {
      ttft_ms: Math.round(this.first.at - this.start),
      tokens,
      tokens_per_s: time < LEAST_MS ? NaN : ((tokens - this.first.tokens) * 1000) / time,
      prompt_tokens: asked,
      cached_tokens: this.usage.prompt_tokens_details?.cached_tokens,
      reasoning_tokens: this.usage.completion_tokens_details?.reasoning_tokens,
    };
    for (const [name, value] of Object.entries(told)) {
      if (Number.isFinite(value)) this.message.figures[name] = value;
    }
  }
}
