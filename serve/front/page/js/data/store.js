/** Conversations in the browser's IndexedDB, and as a file that goes out and comes in. */

import { FIGURES } from "./messages.js";

const FORMAT = "nemotrt-conversations";
const VERSION = 1;
const NAME = "conversations";
const memory = new Map(); // where the browser keeps nothing for this page
const others = new BroadcastChannel("nemotrt.conversations");
let database = null;

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** Open the store; return whether what it takes outlives this page. */
export async function openStore() {
  try {
    const request = indexedDB.open("nemotrt", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(NAME, { keyPath: "id" });
    database = await done(request);
  } catch {
    database = null;
  }
  return database !== null;
}

const table = (mode) => database.transaction(NAME, mode).objectStore(NAME);

/** Return all conversations, the newest first. */
export async function all() {
  const found = database ? await done(table("readonly").getAll()) : [...memory.values()];
  return found.sort((a, b) => b.updated - a.updated);
}

/** Return a conversation, or undefined. */
export async function get(id) {
  return database ? done(table("readonly").get(id)) : structuredClone(memory.get(id));
}

/** Keep a conversation as it is now. */
export async function put(conversation) {
  if (database) await done(table("readwrite").put(conversation));
  else memory.set(conversation.id, structuredClone(conversation));
  others.postMessage(conversation.id);
}

/** Remove a conversation. */
export async function remove(id) {
  if (database) await done(table("readwrite").delete(id));
  else memory.delete(id);
  others.postMessage(id);
}

/** Call back with the id of a conversation that another tab has changed. */
export const onChange = (listener) =>
  others.addEventListener("message", ({ data }) => listener(data));

/** Return conversations as the text of a file. */
export const exported = (conversations) =>
  JSON.stringify({ format: FORMAT, version: VERSION, conversations }, null, 1);

/**
 * Return the conversations of an exported file, of known fields alone.
 *
 * Throws an Error that says what is wrong with it.
 */
export function imported(text, newId) {
  const file = JSON.parse(text);
  expect(file?.format === FORMAT && file.version === VERSION, `format must be ${FORMAT} ${VERSION}`);
  expect(Array.isArray(file.conversations), "conversations must be a list");
  return file.conversations.map((one, i) => {
    const at = `conversations[${i}]`;
    expect(Array.isArray(one?.messages), `${at}.messages must be a list`);
    return {
      id: newId(), // one that is here already stays as it is
      title: textOf(one.title, `${at}.title`),
      created: numberOf(one.created, `${at}.created`),
      updated: numberOf(one.updated, `${at}.updated`),
      messages: one.messages.map((message, n) => messageOf(message, `${at}.messages[${n}]`)),
    };
  });
}

function messageOf(message, at) {
  const content = textOf(message?.content, `${at}.content`);
  if (message.role === "user") return { role: "user", content };
  if (message.role === "tool") {
    return { role: "tool", content, call: textOf(message.call, `${at}.call`) };
  }
  expect(message.role === "assistant", `${at}.role must be user, assistant or tool`);
  const answer = { role: "assistant", content, reasoning: "", calls: [], figures: {} };
  if (message.reasoning !== undefined) answer.reasoning = textOf(message.reasoning, `${at}.reasoning`);
  const calls = message.calls ?? [];
  expect(Array.isArray(calls), `${at}.calls must be a list`);
  answer.calls = calls.map((call, i) => ({
    id: textOf(call?.id, `${at}.calls[${i}].id`),
    name: textOf(call.name, `${at}.calls[${i}].name`),
    arguments: textOf(call.arguments, `${at}.calls[${i}].arguments`),
  }));
  for (const name of FIGURES.filter((one) => message.figures?.[one] !== undefined)) {
    answer.figures[name] = numberOf(message.figures[name], `${at}.figures.${name}`);
  }
  const { finish } = message.figures ?? {};
  if (finish !== undefined) answer.figures.finish = textOf(finish, `${at}.figures.finish`);
  return answer;
}

function expect(holds, message) {
  if (!holds) throw new Error(message);
}

function textOf(value, at) {
  expect(typeof value === "string", `${at} must be a text`);
  return value;
}

function numberOf(value, at) {
  expect(Number.isFinite(value), `${at} must be a number`);
  return value;
}
