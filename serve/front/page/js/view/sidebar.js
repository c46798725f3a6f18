/** The conversations that are kept: found, opened, renamed, removed, carried out and in. */

import * as store from "../data/store.js";
import { $, download, iconButton, isEnter, isEscape, make, newId } from "./dom.js";
import { t } from "./texts.js";

const DAY_MS = 86_400_000;
const NARROW = matchMedia("(max-width: 52rem)");

export class Sidebar {
  /** `page` opens a conversation, forgets one, asks and warns. */
  constructor(page) {
    this.page = page;
    $("find").addEventListener("input", () => this.draw());
    $("new").addEventListener("click", () => this.choose(""));
    $("menu").addEventListener("click", () => this.show(!this.isShown));
    $("shade").addEventListener("click", () => this.show(false));
    $("sidebar").addEventListener("keydown", (event) => {
      if (isEscape(event) && NARROW.matches) this.show(false);
    });
    NARROW.addEventListener("change", () => this.show(!NARROW.matches));
    this.show(!NARROW.matches);
  }

  /** Show or hide the list; on a narrow page it lies over the conversation. */
  show(isShown) {
    this.isShown = isShown;
    document.body.classList.toggle("with-sidebar", isShown);
    $("sidebar").inert = !isShown;
    $("menu").setAttribute("aria-expanded", String(isShown));
    if (!NARROW.matches) return;
    $("main").inert = isShown;
    if (isShown) $("new").focus();
    else $("menu").focus();
  }

  choose(id) {
    if (NARROW.matches) this.show(false);
    this.page.open(id);
  }

  /** Show the conversations whose title or text has what is looked for. */
  async draw() {
    const wanted = $("find").value.trim().toLowerCase();
    const has = (one) =>
      [one.title, ...one.messages.map(({ content }) => content)].some((text) => text.toLowerCase().includes(wanted));
    const kept = await store.all();
    const found = wanted ? kept.filter(has) : kept;
    $("list").replaceChildren(...groups(found).flatMap(([name, own]) => this.group(name, own)));
    $("none").hidden = found.length > 0;
    $("none").textContent = t(wanted ? "none_found" : "none_kept");
  }

  group(name, conversations) {
    const items = conversations.map((one) => this.item(one));
    return [make("h2", { text: name }), make("ul", {}, ...items)];
  }

  item(conversation) {
    const { id, title } = conversation;
    const isOpen = this.page.chat.conversation.id === id;
    const current = isOpen ? { "aria-current": "page" } : {};
    const open = make("button", { type: "button", class: "open", text: title, title, ...current });
    open.addEventListener("click", () => this.choose(id));
    const item = make("li", { class: isOpen ? "item current" : "item" }, open);
    const named = (key) => `${t(key)}: ${title}`;
    const tools = make("span", { class: "item-tools" });
    tools.append(
      iconButton("edit", named("rename"), () => this.rename(item, conversation), "rename"),
      iconButton("out", named("export"), () => this.export([conversation]), "export"),
      iconButton("bin", named("delete"), () => this.remove(conversation), "delete"),
    );
    item.append(tools);
    return item;
  }

  rename(item, conversation) {
    const field = make("input", { type: "text", "aria-label": t("rename"), maxlength: "200" });
    field.value = conversation.title;
    let isDone = false;
    const end = async (keep) => {
      if (isDone) return;
      isDone = true;
      const title = field.value.trim();
      if (keep && title) await this.page.rename(conversation.id, title);
      await this.draw();
    };
    field.addEventListener("keydown", (event) => {
      if (isEnter(event)) end(true);
      if (isEscape(event)) {
        event.stopPropagation();
        end(false);
      }
    });
    field.addEventListener("blur", () => end(true));
    item.replaceChildren(field);
    field.select();
  }

  async remove(conversation) {
    const { title } = conversation;
    if (await this.page.ask(t("delete_sure", { title }), t("delete"))) {
      await this.page.chat.forget(conversation.id);
      await this.draw();
      $("new").focus();
    }
  }

  export(conversations) {
    download("nemotrt-conversations.json", store.exported(conversations));
  }

  /** Take the conversations of a file: all of them or none. */
  async import(file) {
    try {
      const found = store.imported(await file.text(), newId);
      for (const one of found) await store.put(one);
      this.page.note("imported", { count: found.length });
    } catch (error) {
      this.page.warn("not_imported", { name: file.name, reason: error.message });
    }
    await this.draw();
  }
}

/** Return conversations by when they were last gone on with. */
function groups(conversations) {
  const today = new Date().setHours(0, 0, 0, 0);
  const nameOf = ({ updated }) => {
    if (updated >= today) return t("today");
    return t(updated >= today - DAY_MS ? "yesterday" : "earlier");
  };
  const found = new Map();
  for (const one of conversations) {
    const name = nameOf(one);
    found.set(name, [...(found.get(name) ?? []), one]);
  }
  return [...found];
}
