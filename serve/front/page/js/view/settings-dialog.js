/** The settings as a form: each field is a setting by its name, checked as it is typed. */

import { keepKey, readKey } from "../data/api.js";
import { readTools, schemaOf } from "../data/check.js";
import { DEMO_TOOLS } from "../data/demo.js";
import { DEFAULTS, NO_LIMIT, NUMBERS, faults, loadSettings, set, settings } from "../data/settings.js";
import { $, fitHeight, make } from "./dom.js";
import { t } from "./texts.js";

export class SettingsDialog {
  /** Fill the form; `page` hears of each change. */
  constructor(page) {
    this.page = page;
    loadSettings();
    $("numbers").append(...NUMBERS.map(numberField));
    for (const field of fieldsOf()) {
      field.value = settings[field.dataset.setting];
      field.addEventListener("input", () => this.take(field));
    }
    $("key").value = readKey();
    $("key").addEventListener("change", () => {
      keepKey($("key").value.trim());
      page.onKey();
    });
    $("settings-open").addEventListener("click", () => this.open());
    $("settings-close").addEventListener("click", () => $("settings").close());
    $("settings").addEventListener("submit", (event) => event.preventDefault());
    $("settings").addEventListener("click", ({ target }) => {
      if (target === $("settings")) $("settings").close(); // beside it
    });
    $("tools-demo").addEventListener("click", () => this.addDemoTools());
    $("tools-tidy").addEventListener("click", () => this.tidyTools());
    $("sampling-reset").addEventListener("click", () => this.reset([...NUMBERS, "stop"]));
    this.show();
  }

  /** Open the form, at a field that is at fault if there is one. */
  open(name) {
    if (!$("settings").open) $("settings").showModal();
    for (const area of $("settings").querySelectorAll("textarea")) fitHeight(area);
    const field = name && document.querySelector(`[data-setting="${name}"]`);
    (field || $("settings-close")).focus();
  }

  take(field) {
    set(field.dataset.setting, field.value);
    if (field.tagName === "TEXTAREA") fitHeight(field);
    this.show();
    this.page.onSetting(field.dataset.setting);
  }

  /** Show what is at fault, what is out of use, and how much the model may think. */
  show() {
    const found = faults();
    for (const field of fieldsOf()) {
      const wrong = found[field.dataset.setting];
      const line = $(`${field.id}-fault`);
      if (!line) continue;
      line.textContent = wrong ? t("not_valid", { wrong }) : "";
      field.setAttribute("aria-invalid", String(Boolean(wrong)));
    }
    $("settings-open").classList.toggle("at-fault", Object.keys(found).length > 0);
    $("schema-part").hidden = settings.format !== "json_schema";
    $("budget").disabled = settings.thinking === "off";
    const budget = Number(settings.budget);
    const text = budget < NO_LIMIT ? t("tokens", { count: budget }) : t("no_limit");
    $("budget-text").textContent = text;
    $("budget").setAttribute("aria-valuetext", text);
    const { value, fault } = readTools(settings.tools);
    $("tools-count").textContent = fault ? "" : t("tools_count", { count: value.length });
    document.documentElement.style.colorScheme = settings.theme === "auto" ? "" : settings.theme;
  }

  /** Take the bounds of the numbers from the server's document. */
  showBounds() {
    for (const name of NUMBERS) {
      const { minimum, exclusiveMinimum, maximum, type } = schemaOf(name);
      const least = minimum ?? exclusiveMinimum;
      const field = $(`setting-${name}`);
      field.step = type === "integer" ? "1" : "any";
      if (least !== undefined && maximum !== undefined) field.placeholder = `${least} – ${maximum}`;
    }
    this.show();
  }

  addDemoTools() {
    const { value, fault } = readTools(settings.tools);
    if (fault) return this.open("tools");
    const names = value.map((tool) => tool.function.name);
    const added = DEMO_TOOLS.filter((tool) => !names.includes(tool.function.name));
    this.write("tools", JSON.stringify([...value, ...added], null, 2));
  }

  tidyTools() {
    const { value, fault } = readTools(settings.tools);
    if (!fault) this.write("tools", JSON.stringify(value, null, 2));
  }

  reset(names) {
    for (const name of names) this.write(name, DEFAULTS[name]);
  }

  write(name, value) {
    const field = document.querySelector(`[data-setting="${name}"]`);
    field.value = value;
    this.take(field);
  }
}

const fieldsOf = () => document.querySelectorAll("[data-setting]");

function numberField(name) {
  const id = `setting-${name}`;
  const described = { "aria-describedby": `${id}-fault` };
  const input = make("input", { id, type: "number", step: "any", "data-setting": name, ...described });
  const label = make("label", { for: id, text: name }); // the API's own names, in any language
  return make("div", {}, label, input, make("p", { id: `${id}-fault`, class: "fault" }));
}
