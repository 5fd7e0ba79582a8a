// The endpoint's operations as its own OpenAPI description has them, each to be tried; nothing from elsewhere.
"use strict";

const at = (id) => document.getElementById(id);

function element(tag, text, children = []) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

// A schema with its reference followed, and null as one of several left out.
function resolved(api, schema) {
  if (!schema) return {};
  if (schema.$ref) {
    const { $ref: reference, ...rest } = schema;
    return { ...resolved(api, api.components.schemas[reference.split("/").pop()]), ...rest };
  }
  const some = schema.anyOf || schema.oneOf;
  if (!some) return schema;
  const kinds = some.filter((kind) => kind.type !== "null").map((kind) => resolved(api, kind));
  return kinds.length === 1 ? { ...kinds[0], ...schema, anyOf: undefined } : { ...schema, kinds };
}

function typeOf(api, schema) {
  const found = resolved(api, schema);
  if (found.kinds) return found.kinds.map((kind) => typeOf(api, kind)).join(" or ");
  if (found.enum) return found.enum.map((value) => JSON.stringify(value)).join(", ");
  if (found.const !== undefined) return JSON.stringify(found.const);
  if (found.type === "array") return `list of ${typeOf(api, found.items)}`;
  return found.title && found.properties ? found.title : found.type || "anything";
}

const LIMITS = [["minimum", "from"], ["maximum", "to"], ["minItems", "at least"], ["maxItems", "at most"],
  ["minLength", "characters, at least"], ["maxLength", "characters, at most"]];

function about(api, schema, required) {
  const found = resolved(api, schema);
  const parts = LIMITS.filter(([key]) => found[key] !== undefined).map(([key, word]) => `${word} ${found[key]}`);
  if (found.default !== undefined) parts.push(`${JSON.stringify(found.default)} by default`);
  if (required) parts.unshift("required");
  return [found.description, parts.join(", ")].filter(Boolean).join(" ");
}

function table(api, rows) {
  return element("table", undefined, rows.map(([name, schema, required]) => element("tr", undefined, [
    element("th", name), element("td", typeOf(api, schema)), element("td", about(api, schema, required)),
  ])));
}

function fields(api, schema) {
  const found = resolved(api, schema);
  const required = new Set(found.required || []);
  return Object.entries(found.properties || {}).map(([name, one]) => [name, one, required.has(name)]);
}

async function send(method, path, parameters, body) {
  let target = path;
  const query = new URLSearchParams();
  for (const { parameter, input } of parameters) {
    if (parameter.in === "path") target = target.replace(/\{[^}]*\}/, encodeURIComponent(input.value));
    else if (input.value) query.set(parameter.name, input.value);
  }
  const headers = body ? { "content-type": "application/json" } : {};
  if (at("key").value) headers["x-api-key"] = at("key").value;
  const address = query.size ? `${target}?${query}` : target;
  const response = await fetch(address, { method: method.toUpperCase(), headers, body: body?.value });
  const text = await response.text();
  let shown = text;
  try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* metrics are plain text */ }
  return `${response.status} ${response.statusText}\n${shown}`;
}

function trial(api, method, path, operation, example) {
  const parameters = (operation.parameters || []).filter((one) => one.in !== "header").map((parameter) => {
    const input = element("input");
    input.setAttribute("aria-label", parameter.name);
    input.placeholder = parameter.name;
    return { parameter, input };
  });
  let body;
  if (operation.requestBody) {
    body = element("textarea");
    body.value = example === undefined ? "{}" : JSON.stringify(example, null, 2);
    body.rows = Math.min(12, body.value.split("\n").length + 1);
    body.setAttribute("aria-label", `body of ${path}`);
  }
  const answer = element("pre");
  answer.setAttribute("aria-live", "polite");
  const button = element("button", "Send");
  button.type = "button";
  button.addEventListener("click", async () => {
    answer.textContent = "…";
    try { answer.textContent = await send(method, path, parameters, body); } catch (error) { answer.textContent = String(error); }
  });
  return element("div", undefined, [...parameters.map((one) => one.input), ...(body ? [body] : []), button, answer]);
}

function operationOf(api, method, path, operation) {
  const schema = operation.requestBody?.content?.["application/json"]?.schema;
  const answer = operation.responses?.["200"] || operation.responses?.["201"];
  const given = answer?.content?.["application/json"]?.schema;
  const parts = [element("p", operation.description || operation.summary || "")];
  const asked = (operation.parameters || []).map((one) => [one.name, { ...one.schema, description: one.description }, one.required]);
  if (asked.length) parts.push(element("h3", "Parameters"), table(api, asked));
  if (schema) parts.push(element("h3", "Body"), table(api, fields(api, schema)));
  if (given && fields(api, given).length) parts.push(element("h3", "Answer"), table(api, fields(api, given)));
  const errors = Object.entries(operation.responses || {}).filter(([status]) => Number(status) >= 400);
  if (errors.length) {
    parts.push(element("h3", "Errors"), element("table", undefined, errors.map(([status, one]) =>
      element("tr", undefined, [element("th", status), element("td", one.description)]))));
  }
  const examples = schema ? resolved(api, schema).examples || [] : [];
  parts.push(element("h3", "Try it"), trial(api, method, path, operation, examples[0]));
  const head = element("summary", undefined, [element("code", `${method.toUpperCase()} ${path}`), ` ${operation.summary || ""}`]);
  return element("details", undefined, [head, ...parts]);
}

async function start() {
  try {
    const api = await (await fetch("/openapi.json")).json();
    at("title").textContent = `${api.info.title} ${api.info.version}`;
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        at("operations").append(operationOf(api, method, path, operation));
      }
    }
  } catch (error) {
    at("problem").textContent = `the description could not be read: ${error.message}`;
  }
}

at("login").addEventListener("submit", (event) => event.preventDefault());
start();
