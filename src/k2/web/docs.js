// The reference of the HTTP interface, drawn from /openapi.json, with a line to try each GET.

const EXAMPLES = { interval: "1m", date: "2014-03-11", symbol: "BTCUSDT" };

function make(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...inside);
  return made;
}

/** What a JSON schema asks for, in a few words. */
function worded(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.filter((s) => s.type !== "null").map(worded).join(" or ");
  const type = [schema.type ?? "any"].flat().filter((name) => name !== "null").join(" or ");
  const said = [schema.enum ? schema.enum.join(" | ") : type];
  if (type === "array") said[0] = `list of ${worded(schema.items)}`;
  if (schema.minimum !== undefined && schema.maximum !== undefined) {
    said.push(`${schema.minimum} to ${schema.maximum.toLocaleString("en-US")}`);
  }
  if (schema.maxItems !== undefined) said.push(`at most ${schema.maxItems}`);
  if (schema.default !== undefined && schema.default !== null && schema.default !== "") {
    const text = JSON.stringify(schema.default);
    if (text !== "[]") said.push(`default ${text}`);
  }
  return said.join(", ");
}

function described(schema = {}) {
  return schema.description ?? schema.anyOf?.find((one) => one.description)?.description ?? "";
}

/** Text in which backticks mark code. */
function marked(text) {
  return text.split("`").map((part, at) => (at % 2 ? make("code", {}, part) : part));
}

function table(title, rows) {
  if (!rows.length) return [];
  const lines = rows.map(([name, type, text]) =>
    make("tr", {}, make("td", {}, name), make("td", {}, type), make("td", {}, ...marked(text))));
  return [make("h4", {}, title), make("table", {}, make("tbody", {}, ...lines))];
}

function trial(path) {
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => EXAMPLES[name] ?? "1");
  const needs = filled.startsWith("/v1/bars") ? "?symbol=BTCUSDT&last=5" : "";
  const input = make("input", { "aria-label": "Path to ask for", spellcheck: "false" });
  input.value = filled + needs;
  const button = make("button", { type: "button" }, "Ask");
  const output = make("pre", { hidden: "" });
  async function ask() {
    const response = await fetch(input.value, { cache: "no-store" }).catch((error) => error);
    output.hidden = false;
    if (response instanceof Error) output.textContent = response.message;
    else {
      const text = await response.text();
      const json = response.headers.get("content-type")?.includes("json");
      const shown = json ? JSON.stringify(JSON.parse(text), null, 2) : text;
      output.textContent = `${response.status}\n${shown.slice(0, 20000)}`;
    }
  }
  button.addEventListener("click", ask);
  input.addEventListener("keydown", (event) => event.key === "Enter" && ask());
  return [make("div", { class: "try" }, input, button), output];
}

function operation(path, method, told) {
  const parameters = (told.parameters ?? []).map((one) => [
    one.name + (one.required ? " *" : ""),
    worded(one.schema),
    one.description ?? described(one.schema),
  ]);
  const body = told.requestBody?.content?.["application/json"]?.schema;
  const fields = Object.entries(body?.properties ?? {}).map(([name, schema]) => [
    name + (body.required?.includes(name) ? " *" : ""),
    worded(schema),
    described(schema),
  ]);
  const ok = told.responses["200"]?.content?.["application/json"]?.schema?.properties?.data?.items;
  const section = make("section", { class: "operation", id: `${method}${path}` });
  const title = make("h3", {}, make("span", { class: `method ${method}` }, method.toUpperCase()));
  title.append(make("code", {}, path));
  section.append(
    title,
    make("p", {}, ...marked(told.description ?? told.summary ?? "")),
    ...table("Parameters", parameters),
    ...table("Body, JSON", fields),
    ...(ok ? table("Answers", [["data", `list of ${worded(ok)}`, told.summary ?? ""]]) : []),
    ...(method === "get" ? trial(path) : []),
  );
  return section;
}

function shape(name, schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([field, one]) => [
    field,
    worded(one),
    described(one),
  ]);
  const section = make("section", { class: "operation", id: `shape-${name}` });
  section.append(make("h3", {}, name), ...table("Fields", rows));
  return section;
}

async function draw() {
  const told = await (await fetch("/openapi.json")).json();
  const byTag = new Map();
  const main = document.getElementById("reference");
  const contents = document.getElementById("contents");
  const paragraphs = told.info.description.trim().split("\n\n");
  main.replaceChildren(...paragraphs.map((text) => make("p", {}, ...marked(text))));
  for (const [path, methods] of Object.entries(told.paths)) {
    for (const [method, one] of Object.entries(methods)) {
      const tag = one.tags?.[0] ?? "other";
      if (!byTag.has(tag)) byTag.set(tag, []);
      byTag.get(tag).push([path, method, one]);
    }
  }
  for (const [tag, operations] of byTag) {
    contents.append(make("h2", {}, tag));
    for (const [path, method, one] of operations) {
      const mark = make("span", { class: `method ${method}` }, method.toUpperCase());
      contents.append(make("a", { href: `#${method}${path}` }, mark, path));
      main.append(operation(path, method, one));
    }
  }
  contents.append(make("h2", {}, "Rows"));
  for (const [name, schema] of Object.entries(told.components.schemas)) {
    if (!schema.properties) continue;
    contents.append(make("a", { href: `#shape-${name}` }, name));
    main.append(shape(name, schema));
  }
}

draw();
