/** The page's words, in the language of the browser or of the settings. */

export const LANGUAGES = ["en", "ja"];
let texts = {};

/** Read a language's words; "auto" is the first of the browser's that there is. */
export async function loadTexts(choice) {
  const wanted = choice === "auto" ? navigator.languages.map((one) => one.slice(0, 2)) : [choice];
  const language = wanted.find((one) => LANGUAGES.includes(one)) ?? LANGUAGES[0];
  texts = await (await fetch(new URL(`../../texts/${language}.json`, import.meta.url))).json();
  document.documentElement.lang = language;
}

/** Return a text, with values for its {names}. */
export const t = (key, values = {}) =>
  texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);

/** Write the words into what chat.html has: texts, names of buttons, hints. */
export function translate(root) {
  for (const one of root.querySelectorAll("[data-text]")) one.textContent = t(one.dataset.text);
  for (const one of root.querySelectorAll("[data-hint]")) one.placeholder = t(one.dataset.hint);
  for (const one of root.querySelectorAll("[data-label]")) {
    one.setAttribute("aria-label", t(one.dataset.label));
    if (one.tagName === "BUTTON") one.title = t(one.dataset.label);
  }
}
