/** Elements, made of text and listeners alone: no string becomes HTML here. */

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

/** Return a new element: `on` are its listeners, `text` its text, the rest its attributes. */
export function make(tag, { on = {}, text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== undefined && value !== false) element.setAttribute(name, value);
  }
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  if (text !== undefined) element.textContent = text;
  element.append(...children.filter((child) => child));
  return element;
}

/** Return one of the icons that chat.html draws. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Return a button of an icon, with its name for those who don't see it. */
export function iconButton(name, label, action, className = "") {
  const attributes = { type: "button", class: `quiet ${className}`, "aria-label": label, title: label };
  return make("button", { ...attributes, on: { click: action } }, icon(name));
}

/**
 * Whether a key press means "done": Enter, but neither Shift+Enter nor an input method's.
 *
 * While one composes, Enter chooses a candidate; keyCode 229 is Safari's word for it.
 */
export const isEnter = (event) =>
  event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229;

/** Likewise for Escape, which ends a composition first. */
export const isEscape = (event) =>
  event.key === "Escape" && !event.isComposing && event.keyCode !== 229;

/** Have a text area be as high as its text, as far as its style lets it. */
export function fitHeight(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}

/** Copy a text; a page that came by plain HTTP has no clipboard but the old command. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = make("textarea", { class: "unseen" });
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Return a button that copies what `read` returns, and says so. */
export function copyButton(label, done, read) {
  const button = iconButton("copy", label, async () => {
    await copy(read());
    button.replaceChildren(icon("check"));
    say(done);
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}

/** Say something to screen readers alone. */
export function say(text) {
  $("status").textContent = "";
  $("status").textContent = text;
}

/** Hand the user a file. */
export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Return a random name. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
