/** The server's OpenAI door: who answers, what it takes, and an answer as it streams. */

const KEY = "nemotrt.key"; // for this tab alone, and in no export

/** A request that was refused or failed. */
export class Fault extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

export const readKey = () => sessionStorage.getItem(KEY) ?? "";
export const keepKey = (key) => sessionStorage.setItem(KEY, key);

function headers() {
  const key = readKey();
  return { "Content-Type": "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function checked(answer) {
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null); // a proxy's error page is no JSON
  throw new Fault(body?.error?.message ?? `${answer.status} ${answer.statusText}`, answer.status);
}

/** Return the models' names and limits. */
export async function readModels() {
  const answer = await checked(await fetch("v1/models", { headers: headers() }));
  return (await answer.json()).data;
}

/** Return the server's OpenAPI document. */
export async function readDocument() {
  return (await checked(await fetch("openapi.json", { headers: headers() }))).json();
}

/** Yield the chunks of an answer; a stream that breaks off is a fault. */
export async function* chat(body, signal) {
  const sent = { method: "POST", headers: headers(), body: JSON.stringify(body), signal };
  const answer = await checked(await fetch("v1/chat/completions", sent));
  let isWhole = false;
  for await (const data of events(answer)) {
    isWhole = data === "[DONE]";
    if (isWhole) continue;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Fault(chunk.error.message);
    yield chunk;
  }
  if (!isWhole) throw new Fault("the answer broke off.");
}

/** Yield the data of server-sent events. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (held + value).split(/\r?\n\r?\n/);
      held = parts.pop();
      for (const part of parts) {
        const lines = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trimStart()).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // nobody reads on, so the server need not write on
  }
}
