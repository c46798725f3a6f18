/**
 * The chat page. `chat.js` is what happens; `data/` what is kept, sent and checked; `view/` what is
 * seen. This file joins them, and has the box that one writes in.
 */

import { Chat } from "./chat.js";
import { readDocument, readModels } from "./data/api.js";
import { useDocument } from "./data/check.js";
import { faults, settings } from "./data/settings.js";
import * as store from "./data/store.js";
import { $, fitHeight, iconButton, isEnter, isEscape, make, say } from "./view/dom.js";
import { Log, sayEnd } from "./view/log.js";
import { SettingsDialog } from "./view/settings-dialog.js";
import { Sidebar } from "./view/sidebar.js";
import { loadTexts, t, translate } from "./view/texts.js";

const DRAFT = "nemotrt.draft"; // what is typed or on its way, should the page be loaded anew
const TOUCH = matchMedia("(hover: none)");

class Page {
  async start() {
    const isKept = await store.openStore();
    this.chat = new Chat(this);
    await loadTexts(JSON.parse(localStorage.getItem("nemotrt.settings") ?? "{}").language ?? "auto");
    translate(document);
    this.settings = new SettingsDialog(this);
    this.log = new Log(this.chat);
    this.sidebar = new Sidebar(this);
    this.listen();
    this.suggest();
    $("prompt").value = sessionStorage.getItem(DRAFT) ?? "";
    fitHeight($("prompt"));
    await this.open(location.hash.slice(1));
    if (!isKept) this.warn("not_kept", { reason: t("no_store") });
    await this.onKey();
  }

  listen() {
    const prompt = $("prompt");
    $("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    prompt.addEventListener("input", () => this.keepDraft());
    prompt.addEventListener("keydown", (event) => {
      if (isEnter(event)) {
        event.preventDefault();
        $("form").requestSubmit();
      } else if (event.key === "ArrowUp" && !prompt.value && !event.isComposing) {
        event.preventDefault();
        [...document.querySelectorAll(".turn.user .edit")].at(-1)?.click();
      }
    });
    $("stop").addEventListener("click", () => this.chat.stop());
    document.addEventListener("keydown", (event) => {
      const isCommand = event.ctrlKey || event.metaKey;
      if (isEscape(event) && !document.querySelector("dialog[open]")) this.chat.stop();
      else if (isCommand && event.shiftKey && event.key.toLowerCase() === "o") this.open("");
      else if (isCommand && !event.shiftKey && event.key.toLowerCase() === "k") this.find();
      else return;
      if (isCommand) event.preventDefault();
    });
    addEventListener("hashchange", () => this.open(location.hash.slice(1)));
    $("export").addEventListener("click", async () => this.sidebar.export(await store.all()));
    $("import").addEventListener("click", () => $("file").click());
    $("file").addEventListener("change", async () => {
      for (const file of $("file").files) await this.sidebar.import(file);
      $("file").value = "";
    });
    $("forget").addEventListener("click", () => this.forgetAll());
    store.onChange((id) => this.onOtherTab(id));
  }

  find() {
    this.sidebar.show(true);
    $("find").focus();
  }

  keepDraft() {
    sessionStorage.setItem(DRAFT, $("prompt").value);
    fitHeight($("prompt"));
  }

  write(text) {
    $("prompt").value = text;
    this.keepDraft();
  }

  send() {
    const text = $("prompt").value.trim();
    if (text) this.chat.send(text);
  }

  /** Open a conversation by its name; "" is a new one. */
  async open(id) {
    if (id && id === this.chat.conversation.id) return;
    this.log.clearFault();
    this.log.follows = true;
    await this.chat.open(id);
    if (!TOUCH.matches) $("prompt").focus(); // there it would raise a keyboard unasked
  }

  async rename(id, title) {
    const isOpen = this.chat.conversation.id === id;
    const conversation = isOpen ? this.chat.conversation : await store.get(id);
    if (!conversation) return;
    conversation.title = title;
    await store.put(conversation);
    this.draw();
  }

  async forgetAll() {
    if (!(await this.ask(t("forget_sure"), t("forget")))) return;
    for (const { id } of await store.all()) await this.chat.forget(id);
    await this.sidebar.draw();
  }

  /** Show the conversation that is open, and its name in the list and in the address. */
  draw() {
    const { conversation, run } = this.chat;
    const isKept = conversation.messages.length > 0;
    const { pathname, search } = location;
    history.replaceState(null, "", isKept ? `#${conversation.id}` : pathname + search);
    document.title = conversation.title ? `${conversation.title} – nemotrt` : "nemotrt";
    $("title").textContent = conversation.title || t("new");
    $("send").disabled = Boolean(run);
    $("send").hidden = Boolean(run);
    $("stop").hidden = !run;
    this.log.draw();
    this.showRoom();
    this.sidebar.draw();
  }

  /** Show how much of the model's context the conversation takes. */
  showRoom() {
    const { figures = {} } = this.chat.messages.findLast((one) => one.figures?.prompt_tokens) ?? {};
    const used = (figures.prompt_tokens ?? 0) + (figures.tokens ?? 0);
    $("room").hidden = !(used && this.most);
    $("room").textContent = used && this.most ? t("room", { used, most: this.most }) : "";
  }

  /** Whether the settings can be sent; if not, show the one at fault. */
  isReady() {
    const [name] = Object.keys(faults());
    if (name) this.settings.open(name);
    return !name;
  }

  begin(run) {
    this.log.clearFault();
    this.log.follows = true;
    if (run.text && $("prompt").value.trim() === run.text) {
      $("prompt").value = ""; // its draft stays until the turn is kept
      fitHeight($("prompt"));
    }
    this.draw();
    say(t("said_begun"));
  }

  grow(run) {
    this.log.grow(run);
  }

  finish(run) {
    this.keepDraft();
    sayEnd(run.answer.message);
  }

  /** Show that a turn failed, or was stopped before anything came; its text can be sent again. */
  fail(run, fault, retry) {
    const isHere = this.chat.isHere(run);
    if (run.text && isHere && !$("prompt").value) this.write(run.text);
    this.draw();
    if (!fault || !isHere) return;
    const { reasoning, content } = run.answer.message;
    this.log.fail(fault, run.answer.hasGrown ? content || reasoning : "", () => {
      if ($("prompt").value.trim() === run.text) this.write("");
      retry();
    });
    if (fault.status === 401) this.settings.open();
  }

  /** Tell of something, for a while. */
  note(key, values) {
    this.warn(key, values);
    setTimeout(() => $("notice").replaceChildren(), 6000);
  }

  warn(key, values) {
    const close = iconButton("close", t("close"), () => $("notice").replaceChildren());
    $("notice").replaceChildren(make("p", { text: t(key, values) }), close);
  }

  /** Ask whether something is to be done that can't be undone. */
  ask(question, action) {
    const dialog = $("sure");
    $("sure-text").textContent = question;
    $("sure-yes").textContent = action;
    dialog.returnValue = "";
    dialog.showModal();
    $("sure-no").onclick = () => dialog.close();
    $("sure-yes").onclick = () => dialog.close("yes");
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    });
  }

  async onSetting(name) {
    if (name === "model") await this.findModel().catch(() => {});
    if (name !== "language") return;
    await loadTexts(settings.language);
    translate(document);
    this.settings.show();
    this.suggest();
    this.draw();
  }

  /** Read what needs a key: the models' names, and what the server takes. */
  async onKey() {
    try {
      await this.findModel();
      useDocument(await readDocument());
      this.settings.showBounds();
    } catch (error) {
      this.warn("no_server", { reason: error.message });
    }
  }

  async findModel() {
    const models = await readModels();
    const names = models.map(({ id }) => id);
    this.chat.model = names.includes(settings.model) ? settings.model : names[0];
    this.most = models[0].max_model_len;
    $("model").textContent = this.chat.model;
    $("model-choice").replaceChildren(...names.map((name) => make("option", { value: name, text: name })));
    $("model-choice").value = this.chat.model;
    this.showRoom();
  }

  async onOtherTab(id) {
    const { conversation, run } = this.chat;
    const found = id === conversation.id && !run && (await store.get(id));
    if (found) this.chat.conversation = found;
    this.draw();
  }

  suggest() {
    const names = ["suggest_1", "suggest_2", "suggest_3", "suggest_4"];
    const buttons = names.map((name) => {
      const use = () => {
        this.write(t(name));
        $("prompt").focus();
      };
      return make("button", { type: "button", class: "suggestion", text: t(name), on: { click: use } });
    });
    $("suggestions").replaceChildren(...buttons);
  }
}

new Page().start();
