/** Markdown as elements: parsed by marked, cleaned by DOMPurify, coloured by highlight.js. */

import DOMPurify from "../../vendor/dompurify/purify.es.mjs";
import { Marked } from "../../vendor/marked/marked.esm.js";
import { copyButton, make } from "./dom.js";
import { t } from "./texts.js";

const CLEAN = {
  ALLOWED_TAGS: [
    ..."a blockquote br code del em h3 h4 h5 h6 hr input li ol p pre span strong".split(" "),
    ..."table tbody td th thead tr ul".split(" "),
  ],
  ALLOWED_ATTR: ["align", "checked", "class", "disabled", "href", "start", "title", "type"],
  ADD_URI_SAFE_ATTR: ["align", "checked", "disabled", "start", "type"], // the next line is not for these
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const MARKS = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escape = (text) => text.replace(/[&<>"']/g, (mark) => MARKS[mark]);

// Formulas are shown as they are written: Markdown would take their backslashes.
const formula = {
  name: "formula",
  level: "inline",
  start: (text) => text.match(/\\[([]|\$\$/)?.index,
  tokenizer(text) {
    const [raw] = text.match(/^(?:\\\([^]+?\\\)|\\\[[^]+?\\\]|\$\$[^]+?\$\$)/) ?? [];
    return raw && { type: "formula", raw };
  },
  renderer: ({ raw }) => `<code class="formula">${escape(raw)}</code>`,
};
// CommonMark ends no emphasis between a bracket or a full stop and a letter. Japanese has no spaces.
const strongJapanese = {
  name: "strongJapanese",
  level: "inline",
  start: (text) => text.match(/\*\*/)?.index,
  tokenizer(text) {
    const [raw, inner] = text.match(/^\*\*(?!\s)([^*\n]*[\u3000-\u9fff\uff00-\uffef][^*\n]*)(?<!\s)\*\*/) ?? [];
    return raw && { type: "strong", raw, text: inner, tokens: this.lexer.inlineTokens(inner) };
  },
};
const marked = new Marked({
  breaks: true,
  extensions: [formula, strongJapanese],
  renderer: {
    html: ({ text }) => escape(text), // what a model writes as HTML is shown, not done
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6); // h1 and h2 are the page's own
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

DOMPurify.addHook("afterSanitizeAttributes", (element) => {
  if (element.tagName !== "A") return;
  element.setAttribute("target", "_blank");
  element.setAttribute("rel", "noopener noreferrer nofollow");
});

/** An answer that grows: of its blocks only those are made anew that have changed. */
export class MarkdownView {
  constructor(element) {
    this.element = element;
    this.blocks = [];
  }

  /** Show a text; the last block of one that is not done yet still changes, and has no colours. */
  update(text, isDone) {
    const tokens = marked.lexer(text).filter((token) => token.type !== "space");
    let kept = 0;
    while (kept < this.blocks.length && this.blocks[kept].raw === tokens[kept]?.raw) kept += 1;
    for (const block of this.blocks.splice(kept)) block.element.remove();
    for (const token of tokens.slice(kept)) {
      const element = make("div", {}, elements(marked.parser([token])));
      this.element.append(element);
      this.blocks.push({ raw: token.raw, element, isColoured: false });
    }
    const settled = isDone ? this.blocks : this.blocks.slice(0, -1);
    for (const block of settled.filter((one) => !one.isColoured)) {
      block.isColoured = true;
      for (const code of block.element.querySelectorAll("pre code")) colour(code);
    }
  }
}

function elements(html) {
  const fragment = DOMPurify.sanitize(html, CLEAN);
  for (const table of fragment.querySelectorAll("table")) {
    const frame = { class: "wide", tabindex: "0", role: "region", "aria-label": t("table") };
    table.replaceWith(make("div", frame, table.cloneNode(true)));
  }
  for (const pre of fragment.querySelectorAll("pre")) frameCode(pre);
  for (const box of fragment.querySelectorAll("input")) box.setAttribute("aria-label", t("task"));
  return fragment;
}

const languageOf = (code) => code?.className.match(/language-(\S+)/)?.[1] ?? "";

function frameCode(pre) {
  const language = languageOf(pre.querySelector("code"));
  const copies = copyButton(t("copy_code"), t("copied"), () => pre.textContent.replace(/\n$/, ""));
  const head = make("div", { class: "code-head" }, make("span", { text: language }), copies);
  const frame = make("div", { class: "code" });
  pre.replaceWith(frame);
  pre.setAttribute("tabindex", "0");
  frame.append(head, pre);
}

async function colour(code) {
  const language = languageOf(code);
  if (!language) return;
  const { default: hljs } = await import("../../vendor/highlight/highlight.min.js");
  if (!hljs.getLanguage(language)) return;
  const { value } = hljs.highlight(code.textContent, { language, ignoreIllegals: true });
  code.replaceChildren(DOMPurify.sanitize(value, CLEAN));
}
