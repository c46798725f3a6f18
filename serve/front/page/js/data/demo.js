/** Tools that the page itself answers, to try tool calls without writing any. */

const tool = (name, description, properties) => ({
  type: "function",
  function: {
    name,
    description,
    parameters: { type: "object", properties, required: Object.keys(properties) },
  },
});

export const DEMO_TOOLS = [
  tool("current_time", "The date and the time of day in a time zone.", {
    time_zone: { type: "string", description: "An IANA name such as Asia/Tokyo." },
  }),
  tool("calculate", "One step of arithmetic.", {
    left: { type: "number" },
    operator: { type: "string", enum: ["+", "-", "*", "/"] },
    right: { type: "number" },
  }),
];

const ANSWERS = {
  current_time({ time_zone: timeZone }) {
    const told = { dateStyle: "full", timeStyle: "long", timeZone };
    return { time: new Intl.DateTimeFormat("en", told).format(new Date()) };
  },
  calculate({ left, operator, right }) {
    const steps = { "+": left + right, "-": left - right, "*": left * right, "/": left / right };
    if (!Number.isFinite(steps[operator])) throw new Error("no number comes of it");
    return { result: steps[operator] };
  },
};

/** Whether the page answers a call: to its own tools, not to another one of that name. */
export function isDemo(call, tools) {
  const own = JSON.stringify(DEMO_TOOLS.find((one) => one.function.name === call.name));
  return own !== undefined && tools.some((one) => JSON.stringify(one) === own);
}

/** Return what the page answers to a call, as JSON; what can't be answered is told to the model. */
export function demoAnswer(call) {
  try {
    return JSON.stringify(ANSWERS[call.name](JSON.parse(call.arguments || "{}")));
  } catch (error) {
    return JSON.stringify({ error: error.message });
  }
}
