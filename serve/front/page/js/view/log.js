/** The turns of the conversation that is open, and the fault of one that failed. */

import { pendingCalls, resultsOf } from "../data/messages.js";
import { $, make, say } from "./dom.js";
import { t } from "./texts.js";
import { Turn } from "./turns.js";

const NEAR_PX = 80; // of the end: then the log follows what comes
const SHARE = 4; // drawing takes a fourth of the time at most

export class Log {
  constructor(chat) {
    this.chat = chat;
    this.turns = new WeakMap(); // by their messages, so that what is unchanged stays
    this.frame = 0;
    this.follows = true;
    $("log").addEventListener("scroll", () => {
      const { scrollHeight, scrollTop, clientHeight } = $("log");
      this.follows = scrollHeight - scrollTop - clientHeight < NEAR_PX;
      $("to-end").hidden = this.follows;
    });
    $("to-end").addEventListener("click", () => this.toEnd());
  }

  /** Show the messages, and the answer that is on its way. */
  draw() {
    const { chat } = this;
    const run = chat.isHere(chat.run) ? chat.run : null;
    const messages = run ? [...chat.messages, run.answer.message] : chat.messages;
    const results = resultsOf(messages);
    const pending = pendingCalls(messages);
    const elements = [];
    for (const [index, message] of messages.entries()) {
      if (message.role === "tool") continue; // shown with its call
      const isLast = index === messages.length - 1;
      const turn = this.turns.get(message) ?? new Turn(message, chat);
      this.turns.set(message, turn);
      this.place = { index, isLast, results, pending, isLive: Boolean(run) && isLast };
      turn.update(this.place);
      elements.push(turn.element);
    }
    order($("turns"), elements);
    $("welcome").hidden = messages.length > 0;
    if (this.follows) this.toEnd();
  }

  /** Draw what has come, but not more often than there is time for it. */
  grow(run) {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      const start = performance.now();
      if (this.chat.run === run && this.chat.isHere(run)) {
        this.turns.get(run.answer.message)?.update(this.place);
        if (this.follows) this.toEnd();
      }
      setTimeout(() => (this.frame = 0), (performance.now() - start) * SHARE);
    });
  }

  toEnd() {
    this.follows = true;
    $("to-end").hidden = true;
    $("log").scrollTop = $("log").scrollHeight;
  }

  /** Show why a turn failed; what had come of it is in no history. */
  fail(fault, partial, retry) {
    const box = make("div", { class: "error", role: "alert" }, make("p", { text: fault.message }));
    if (partial) {
      const rest = make("details", {}, make("summary", { text: t("had_come") }));
      rest.append(make("pre", { tabindex: "0", text: partial }));
      box.append(rest);
    }
    box.append(make("button", { type: "button", class: "retry", text: t("retry"), on: { click: retry } }));
    $("faults").replaceChildren(box);
    this.toEnd();
  }

  clearFault() {
    $("faults").replaceChildren();
  }
}

/** Have a parent hold these elements in this order, and move none that is in its place. */
function order(parent, elements) {
  elements.forEach((element, i) => {
    if (parent.children[i] !== element) parent.insertBefore(element, parent.children[i] ?? null);
  });
  while (parent.children.length > elements.length) parent.lastElementChild.remove();
}

/** Tell a screen reader how an answer ended. */
export function sayEnd({ figures, calls }) {
  if (calls.length) say(t("said_calls", { count: calls.length }));
  else say(t("said_done", { count: figures.tokens ?? 0 }));
}
