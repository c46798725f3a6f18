/** The conversation that is open, and the one answer that may be on its way. */

import { chat } from "./data/api.js";
import { demoAnswer, isDemo } from "./data/demo.js";
import { Answer, pendingCalls, roundsOf, wire } from "./data/messages.js";
import { fields, settings, tools } from "./data/settings.js";
import * as store from "./data/store.js";
import { newId } from "./view/dom.js";

const MAX_ROUNDS = 8; // of tool calls that the page answers unasked
const TITLE_CHARACTERS = 60;

export class Chat {
  /** Begin with nothing said; `view` shows what happens. */
  constructor(view) {
    this.view = view;
    this.model = "";
    this.run = null;
    this.conversation = fresh();
  }

  /** The messages that are shown: of a turn that is on its way those that it began with. */
  get messages() {
    return this.isHere(this.run) ? this.run.base : this.conversation.messages;
  }

  /** Whether a run is of the conversation that is open. */
  isHere(run) {
    return run?.conversation === this.conversation;
  }

  /** Whether something can be asked now; settings that can't be sent are shown. */
  isFree() {
    return !this.run && this.view.isReady();
  }

  /** Open a conversation, or a new one. */
  async open(id) {
    const isRunning = id && this.run?.conversation.id === id;
    const found = isRunning ? this.run.conversation : id && (await store.get(id));
    this.conversation = found || fresh();
    this.view.draw();
  }

  /** Forget a conversation, and what is on its way for it. */
  async forget(id) {
    if (this.run?.conversation.id === id) {
      this.run.isDropped = true;
      this.stop();
    }
    await store.remove(id);
    if (this.conversation.id === id) await this.open("");
  }

  stop() {
    this.run?.abort.abort();
  }

  send(text) {
    return this.ask([...this.messages, { role: "user", content: text }], { text });
  }

  regenerate(index) {
    return this.ask(this.messages.slice(0, index));
  }

  /** Have the model go on with its last answer. */
  goOn() {
    return this.ask(this.messages, { isGoingOn: true });
  }

  /** Say something else at a place: what followed goes once the new answer is here. */
  async edit(index, content) {
    const changed = { ...this.messages[index], content };
    if (changed.role === "user") return this.ask([...this.messages.slice(0, index), changed]);
    this.conversation.messages = this.messages.with(index, changed);
    await this.keep(this.conversation);
  }

  /** Give the results of the last answer's calls, in their order. */
  answerCalls(results) {
    const told = pendingCalls(this.messages).map(({ id }, i) => ({
      role: "tool",
      call: id,
      content: results[i],
    }));
    return this.ask([...this.messages, ...told]);
  }

  /**
   * Get the answer to `base`. Until it is here the conversation stays as it is: a turn that fails
   * leaves no trace.
   */
  async ask(base, { isGoingOn = false, text = "" } = {}) {
    if (!this.isFree()) return;
    const answer = new Answer(isGoingOn ? base.at(-1) : undefined);
    const shown = isGoingOn ? base.slice(0, -1) : base;
    const { conversation } = this;
    const run = { conversation, base: shown, answer, text, abort: new AbortController() };
    this.run = run;
    this.view.begin(run);
    let fault = null;
    try {
      if (!this.model) await this.view.findModel();
      for await (const chunk of chat(this.body(base, isGoingOn), run.abort.signal)) {
        answer.push(chunk);
        if (this.isHere(run)) this.view.grow(run);
      }
    } catch (error) {
      fault = error;
    }
    this.run = null;
    const isStopped = run.abort.signal.aborted;
    if (isStopped && answer.hasGrown) answer.message.figures.finish = "stopped";
    if (run.isDropped) this.view.draw();
    else if (fault && !(isStopped && answer.hasGrown)) {
      this.view.fail(run, isStopped ? null : fault, () => this.ask(base, { isGoingOn, text }));
    } else await this.commit(run);
  }

  body(base, isGoingOn) {
    return {
      model: this.model,
      messages: wire(settings.system, base),
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
      ...fields(),
      ...(isGoingOn && { continue_final_message: true }),
    };
  }

  async commit(run) {
    const { conversation, base, answer } = run;
    conversation.messages = [...base, answer.message];
    conversation.title ||= titleOf(base);
    await this.keep(conversation);
    this.view.finish(run);
    const calls = pendingCalls(conversation.messages);
    const given = tools();
    const isOwn = settings.demo === "yes" && calls.length && calls.every((one) => isDemo(one, given));
    if (isOwn && this.isHere(run) && roundsOf(conversation.messages) < MAX_ROUNDS) {
      await this.answerCalls(calls.map(demoAnswer));
    }
  }

  async keep(conversation) {
    conversation.updated = Date.now();
    try {
      await store.put(conversation);
    } catch (error) {
      this.view.warn("not_kept", { reason: error.message });
    }
    this.view.draw();
  }
}

const fresh = () => ({ id: newId(), title: "", created: Date.now(), updated: 0, messages: [] });

function titleOf(messages) {
  const said = messages.find(({ role }) => role === "user")?.content.trim() ?? "";
  const [line] = said.split("\n");
  return line.length > TITLE_CHARACTERS ? `${line.slice(0, TITLE_CHARACTERS)}…` : line;
}
