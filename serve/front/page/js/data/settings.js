/** What the user has set: kept as it was typed, and as fields of a request. */

import { faultOf, readJson, readTools, schemaFault } from "./check.js";

const KEPT = "nemotrt.settings";
export const NO_LIMIT = 4096; // of the slider; beyond it the model thinks as long as it likes
export const NUMBERS = [
  "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
  "frequency_penalty", "max_completion_tokens", "seed",
];
export const DEFAULTS = {
  language: "auto",
  theme: "auto",
  model: "",
  system: "",
  thinking: "auto",
  budget: String(NO_LIMIT),
  tools: "",
  tool_choice: "auto",
  demo: "yes",
  format: "text",
  schema: "",
  stop: "",
  ...Object.fromEntries(NUMBERS.map((name) => [name, ""])),
};

export const settings = { ...DEFAULTS };

/** Read what was kept; of another version's values those that are known. */
export function loadSettings() {
  const { value } = readJson(localStorage.getItem(KEPT) ?? "", "{}");
  for (const [name, kept] of Object.entries(value ?? {})) {
    if (Object.hasOwn(DEFAULTS, name) && typeof kept === "string") settings[name] = kept;
  }
}

/** Set one value and keep it. */
export function set(name, value) {
  settings[name] = value;
  const changed = Object.entries(settings).filter(([key, own]) => own !== DEFAULTS[key]);
  localStorage.setItem(KEPT, JSON.stringify(Object.fromEntries(changed)));
}

/** Return what is wrong, by the setting's name. */
export function faults() {
  const found = {};
  for (const name of NUMBERS.filter((one) => settings[one] !== "")) {
    found[name] = faultOf(name, Number(settings[name]));
  }
  found.stop = faultOf("stop", stopWords());
  found.tools = readTools(settings.tools).fault;
  if (settings.format === "json_schema") {
    const { value, fault } = readJson(settings.schema, "{}");
    found.schema = fault || schemaFault(value);
  }
  return Object.fromEntries(Object.entries(found).filter(([, fault]) => fault));
}

/** Return the tools that the model is given. */
export const tools = () => readTools(settings.tools).value;

/** Return the fields of a request, beside its messages. */
export function fields() {
  const given = tools();
  const body = {};
  for (const name of NUMBERS) if (settings[name] !== "") body[name] = Number(settings[name]);
  if (settings.stop) body.stop = stopWords();
  if (settings.thinking !== "auto") {
    body.chat_template_kwargs = { enable_thinking: settings.thinking === "on" };
  }
  const budget = Number(settings.budget);
  if (budget < NO_LIMIT && settings.thinking !== "off") body.max_thinking_tokens = budget;
  if (given.length) body.tools = given;
  if (given.length && settings.tool_choice !== "auto") body.tool_choice = settings.tool_choice;
  if (settings.format !== "text") body.response_format = format();
  return body;
}

function format() {
  if (settings.format === "json_object") return { type: "json_object" };
  const schema = JSON.parse(settings.schema || "{}");
  return { type: "json_schema", json_schema: { name: "answer", schema } };
}

const stopWords = () => settings.stop.split("\n").filter((word) => word);
