/** One turn of a conversation as an article: what was said, what came of it, what can be done. */

import { argumentsFault } from "../data/check.js";
import { demoAnswer, isDemo } from "../data/demo.js";
import { tools } from "../data/settings.js";
import { copyButton, fitHeight, icon, iconButton, isEnter, isEscape, make } from "./dom.js";
import { MarkdownView } from "./markdown.js";
import { t } from "./texts.js";

export class Turn {
  /** Make the article of a message; `chat` does what its buttons say. */
  constructor(message, chat) {
    this.message = message;
    this.chat = chat;
    this.element = make("article", { class: `turn ${message.role}`, "aria-label": t(message.role) });
    this.said = make("div", { class: message.role === "user" ? "text" : "content" });
    this.foot = make("footer", { class: "foot" });
    this.element.append(this.said, this.foot);
    this.markdown = message.role === "user" ? null : new MarkdownView(this.said);
  }

  /** Show the message as it is: `place` is where it stands, and what is known of its calls. */
  update(place) {
    this.place = place;
    if (this.markdown) this.updateAnswer();
    else this.said.textContent = this.message.content;
    this.updateFoot();
  }

  updateAnswer() {
    const { content, reasoning, calls } = this.message;
    const { isLive } = this.place;
    this.element.setAttribute("aria-busy", String(isLive));
    this.element.classList.toggle("live", isLive);
    if (reasoning) this.updateTrace();
    this.markdown.update(content, !isLive);
    if (!calls.length || !this.isNew("calls", [this.message.calls, this.callsPlace()])) return;
    this.calls ??= this.said.insertAdjacentElement("afterend", make("div", { class: "calls" }));
    this.calls.replaceChildren(...calls.map((call) => this.callCard(call)));
    const pending = this.place.isLast && !isLive ? this.place.pending : [];
    if (pending.length) this.calls.append(this.resultsButton());
  }

  /** Whether a part is to be made anew: then what is typed or has the focus there would go. */
  isNew(part, state) {
    const key = JSON.stringify([document.documentElement.lang, state]);
    const isNew = this[`${part}Key`] !== key;
    this[`${part}Key`] = key;
    return isNew;
  }

  callsPlace() {
    const { isLive, isLast, results, pending } = this.place;
    return [isLive, isLast, pending, this.message.calls.map(({ id }) => results.get(id))];
  }

  updateTrace() {
    const { reasoning, content, calls, figures } = this.message;
    const isThinking = this.place.isLive && !content && !calls.length;
    if (!this.trace) {
      this.trace = make("div", { class: "trace", tabindex: "0", role: "region", "aria-label": t("reasoning") });
      this.summary = make("summary");
      this.element.prepend(make("details", {}, this.summary, this.trace));
    }
    const count = figures.reasoning_tokens;
    const told = isThinking ? t("thinking_now") : t("reasoning");
    this.summary.textContent = count ? `${told} · ${t("tokens", { count })}` : told;
    const fed = this.trace.textContent;
    if (reasoning.startsWith(fed)) this.trace.append(reasoning.slice(fed.length));
    else this.trace.textContent = reasoning;
  }

  updateFoot() {
    const { isLive, isLast, index } = this.place;
    const told = figuresText(this.message.figures ?? {});
    if (!this.isNew("foot", [told, isLive, isLast, index])) return;
    const line = make("span", { class: "figures", text: told });
    const own = this.message.role === "user" ? null : line;
    this.foot.replaceChildren(...[own, isLive ? null : this.actions()].filter((one) => one));
  }

  actions() {
    const { message, place, chat } = this;
    const box = make("span", { class: "actions" });
    box.append(copyButton(t("copy"), t("copied"), () => message.content || message.reasoning));
    box.append(iconButton("edit", t("edit"), () => this.beginEdit(), "edit"));
    if (message.role === "user") return box;
    box.append(
      iconButton("again", t("regenerate"), () => chat.regenerate(place.index), "regenerate"),
    );
    if (place.isLast && message.content && !message.calls.length) {
      box.append(iconButton("on", t("continue"), () => chat.goOn(), "continue"));
    }
    return box;
  }

  callCard(call) {
    const card = make("div", { class: "call" });
    const head = make("code", { class: "signature", text: `${call.name}(${call.arguments})` });
    card.append(make("div", { class: "call-head" }, icon("tool"), head));
    const given = tools();
    const { isLive, isLast, results, pending } = this.place;
    if (isLive) return card;
    const wrong = argumentsFault(call, given);
    if (wrong) card.append(make("p", { class: "warning", text: t("arguments_wrong", { wrong }) }));
    if (results.has(call.id)) {
      card.append(make("div", { class: "result", text: results.get(call.id) }));
    } else if (isLast && pending.some(({ id }) => id === call.id)) {
      card.append(...resultEditor(call, given));
    }
    return card;
  }

  resultsButton() {
    const send = () => {
      const areas = [...this.calls.querySelectorAll("textarea")];
      this.chat.answerCalls(areas.map((area) => area.value));
    };
    return make("button", { type: "button", class: "main send-results", text: t("send_results"), on: { click: send } });
  }

  /** Put an editor in place of what was said. */
  beginEdit() {
    if (this.editor || this.chat.run) return;
    const area = make("textarea", { "aria-label": t("edit") });
    area.value = this.message.content;
    const end = () => {
      this.editor.remove();
      this.editor = null;
      this.element.classList.remove("edited");
      this.foot.querySelector(".edit")?.focus();
    };
    const save = () => {
      const text = area.value.trim();
      if (!text || !this.chat.isFree()) return; // then it stays to be sent later
      end();
      this.chat.edit(this.place.index, text);
    };
    const isUser = this.message.role === "user";
    const name = t(isUser ? "save_and_send" : "save");
    this.editor = make(
      "div",
      { class: "editor" },
      area,
      make("p", { class: "note", text: t(isUser ? "edit_note" : "edit_answer_note") }),
      make("button", { type: "button", class: "main", text: name, on: { click: save } }),
      make("button", { type: "button", text: t("cancel"), on: { click: end } }),
    );
    area.addEventListener("input", () => fitHeight(area));
    area.addEventListener("keydown", (event) => {
      if (isEscape(event)) end();
      if (!isUser || !isEnter(event)) return;
      event.preventDefault();
      save();
    });
    this.element.classList.add("edited");
    this.element.append(this.editor);
    fitHeight(area);
    area.focus();
  }
}

function resultEditor(call, given) {
  const label = t("result_of", { name: call.name });
  const area = make("textarea", { rows: "2", "aria-label": label, placeholder: label });
  const fill = () => {
    area.value = demoAnswer(call);
  };
  const button = { type: "button", class: "demo", text: t("demo_answer"), on: { click: fill } };
  return isDemo(call, given) ? [area, make("button", button)] : [area];
}

/** Return what is measured of an answer, as one line. */
function figuresText(figures) {
  const number = (value, digits = 0) => value.toFixed(digits);
  const parts = [];
  if (figures.ttft_ms !== undefined) parts.push(t("ttft", { ms: number(figures.ttft_ms) }));
  if (figures.tokens) parts.push(t("tokens", { count: figures.tokens }));
  if (figures.tokens_per_s) parts.push(t("rate", { rate: number(figures.tokens_per_s, 1) }));
  if (figures.reasoning_tokens) parts.push(t("reasoning_count", { count: figures.reasoning_tokens }));
  if (figures.cached_tokens !== undefined) {
    parts.push(t("cached", { cached: figures.cached_tokens, asked: figures.prompt_tokens }));
  }
  if (figures.finish === "length") parts.push(t("cut"));
  if (figures.finish === "stopped") parts.push(t("stopped"));
  return parts.join(" · ");
}
