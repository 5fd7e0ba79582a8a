// The page to try the endpoint with: a history on the left, lists side by side on the right.
"use strict";

const at = (id) => document.getElementById(id);
const history = []; // {item_id, title, time}: when it was chosen, in seconds since 1970
let asked = 0; // number of the newest round of requests: older answers are not shown

// What is asked for side by side. A strategy that this endpoint does not have is left out.
const LISTS = [
  { name: "top", strategy: null, about: "the most likely next items" },
  { name: "mmr", strategy: "mmr", about: "likely, and unlike each other" },
  { name: "dpp", strategy: "dpp", about: "likely, and spread out" },
  { name: "beam", strategy: "beam", about: "likely as a sequence" },
  { name: "diverse", strategy: "diverse", about: "several sequences that differ" },
];
let lists = [];
let knobs = new Set();

async function call(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  };
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) {
    const [problem] = answer.problems || [];
    const more = problem ? `: ${problem.place} ${problem.problem}; ${problem.fix}` : "";
    throw new Error(answer.error + more);
  }
  return answer;
}

function element(tag, text, children = []) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

function button(text, act) {
  const made = element("button", text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

const shown = (item) => item.title || item.item_id;

function later(milliseconds, act) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, milliseconds);
  };
}

async function search() {
  const words = at("search").value.trim();
  const found = words ? (await call(`/v1/items?q=${encodeURIComponent(words)}`)).items : [];
  if (words !== at("search").value.trim()) return;
  at("found").replaceChildren(...found.map((item) => element("li", undefined, [
    button(shown(item), () => choose(item)),
  ])));
}

function choose(item) {
  history.push({ ...item, time: Math.floor(Date.now() / 1000) });
  showHistory();
  recommend();
}

function showHistory() {
  at("history").replaceChildren(...history.map((item, place) => element("li", undefined, [
    button(shown(item), () => { history.splice(place, 1); showHistory(); recommend(); }),
  ])));
}

function requestFor(list) {
  const user = at("user").value.trim();
  const body = { k: Number(at("k").value) || 10 };
  if (user) body.user_id = user;
  else body.history = history.map(({ item_id, time }) => ({ item: item_id, time }));
  if (list.strategy) {
    body.strategy = list.strategy;
    if (knobs.has("diversity")) body.diversity = Number(at("diversity").value);
  }
  return body;
}

async function listOf(list) {
  const answer = await call("/v1/recommend", requestFor(list));
  const rows = answer.items.map((item) => element("li", shown(item)));
  const notes = [list.about, answer.source === "model" ? "" : `from ${answer.source}`,
    answer.fallback ? `default list (${answer.fallback})` : ""];
  return element("article", undefined, [
    element("h3", list.name),
    element("small", notes.filter(Boolean).join("; ")),
    element("ol", undefined, rows),
  ]);
}

// A model that only ranks has no lists of the other strategies, which is said in their place.
const listOrReason = (list) => list.strategy === null ? listOf(list) : listOf(list).catch((error) =>
  element("article", undefined, [element("h3", list.name), element("small", error.message)]));

async function recommend() {
  const round = ++asked;
  try {
    const made = await Promise.all(lists.map(listOrReason));
    if (round !== asked) return;
    at("lists").replaceChildren(...made);
    at("problem").textContent = "";
  } catch (error) {
    if (round === asked) at("problem").textContent = error.message;
  }
}

async function start() {
  const [model, api] = await Promise.all([call("/v1/model"), call("/openapi.json")]);
  at("model").textContent = `${model.name}@${model.version}, ${model.sizes.items} items`;
  const fields = api.components.schemas.RecommendRequest.properties;
  const known = JSON.stringify(fields.strategy || {});
  lists = LISTS.filter((list) => !list.strategy || known.includes(`"${list.strategy}"`));
  knobs = new Set(Object.keys(fields));
  at("diversity").disabled = !knobs.has("diversity");
  at("search").addEventListener("input", later(150, () => search().catch(tell)));
  for (const id of ["user", "k"]) at(id).addEventListener("input", later(250, recommend));
  at("diversity").addEventListener("input", () => {
    at("diversity-value").value = at("diversity").value;
  });
  at("diversity").addEventListener("input", later(250, recommend));
  await recommend();
}

function tell(error) {
  at("problem").textContent = error.message;
}

start().catch(tell);
