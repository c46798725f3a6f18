/** What is written as JSON, held against the server's own OpenAPI document. */

import { Validator } from "../../vendor/json-schema/validator.js";

// As far as a schema of arguments or of an answer can be told wrong before it is sent.
const SCHEMA = {
  $defs: {
    schema: {
      type: ["object", "boolean"],
      properties: {
        type: { anyOf: [{ $ref: "#/$defs/type" }, { type: "array", items: { $ref: "#/$defs/type" } }] },
        properties: { type: "object", additionalProperties: { $ref: "#/$defs/schema" } },
        required: { type: "array", items: { type: "string" }, uniqueItems: true },
        items: { $ref: "#/$defs/schema" },
        enum: { type: "array" },
        anyOf: { $ref: "#/$defs/list" },
        oneOf: { $ref: "#/$defs/list" },
        allOf: { $ref: "#/$defs/list" },
        description: { type: "string" },
      },
    },
    list: { type: "array", minItems: 1, items: { $ref: "#/$defs/schema" } },
    type: { enum: ["array", "boolean", "integer", "null", "number", "object", "string"] },
  },
  $ref: "#/$defs/schema",
};
let components = { schemas: {} };

/** Take the server's document, which says what each field of a request may be. */
export function useDocument(document) {
  components = document.components;
}

/** Return the schema of a chat's field; any value fits as long as the document is not here. */
export function schemaOf(field, isList = false) {
  const { anyOf = [], ...own } = components.schemas.ChatRequest?.properties[field] ?? {};
  const forms = anyOf.filter(({ type }) => type !== "null");
  return forms.find(({ type }) => (type === "array") === isList) ?? forms[0] ?? own;
}

/** Return what is wrong with a value of a field, in words, the first thing only; "" if nothing. */
export const faultOf = (field, value) =>
  fault({ ...schemaOf(field, Array.isArray(value)), components }, value);

/** Return what is wrong with a JSON schema. */
export const schemaFault = (schema) => fault(SCHEMA, schema);

/** Return what is wrong with a call's arguments, by the tools that the model was given. */
export function argumentsFault(call, tools) {
  const own = tools.find((tool) => tool.function?.name === call.name);
  try {
    const given = JSON.parse(call.arguments || "{}");
    return own?.function.parameters ? fault(own.function.parameters, given) : "";
  } catch (error) {
    return error.message;
  }
}

/** Return the tools in a text, and what is wrong with it. */
export function readTools(text) {
  const read = readJson(text, "[]");
  if (read.fault) return { value: [], fault: read.fault };
  const tools = read.value;
  const wrong = faultOf("tools", tools) || namesFault(tools) || parametersFault(tools);
  return { value: wrong ? [] : tools, fault: wrong };
}

/** Return the value of a JSON text, and what is wrong with it. */
export function readJson(text, empty = "null") {
  try {
    return { value: JSON.parse(text.trim() || empty), fault: "" };
  } catch (error) {
    return { value: null, fault: error.message };
  }
}

function namesFault(tools) {
  const names = tools.map((tool) => tool?.function?.name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  return twice === undefined ? "" : `two tools are called ${twice}`;
}

function parametersFault(tools) {
  for (const [i, tool] of tools.entries()) {
    const wrong = schemaFault(tool.function.parameters ?? {});
    if (wrong) return `[${i}].function.parameters ${wrong}`;
  }
  return "";
}

function fault(schema, value) {
  let found;
  try {
    found = new Validator(schema, "2020-12", false).validate(value).errors;
  } catch (error) {
    return error.message; // a schema that leads nowhere
  }
  const depth = ({ instanceLocation: at }) => at.split("/").length;
  const deepest = found.sort((a, b) => depth(b) - depth(a)).find((one) => one.keyword !== "false");
  return deepest ? `${pathOf(deepest.instanceLocation)}${deepest.error}` : "";
}

/** Return a JSON pointer as people write it: #/0/function/name is [0].function.name. */
function pathOf(pointer) {
  const parts = pointer.split("/").slice(1);
  const path = parts.map((part) => (/^\d+$/.test(part) ? `[${part}]` : `.${part}`)).join("");
  return path && `${path.replace(/^\./, "")}: `;
}
