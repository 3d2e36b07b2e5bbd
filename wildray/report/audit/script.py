"""What a sheet does: show a pair, take a verdict, remember it.

Out: ``SCRIPT``. All text that came from data is set as text, never as markup. Every change is written to the browser's
storage at once, under the sheet's id and the reviewer's name; where a browser has none, the page says so.
"""

from __future__ import annotations

SCRIPT = r"""
"use strict";
(() => {
const $ = (id) => document.getElementById(id);
const sheet = JSON.parse($("sheet").textContent);
const items = sheet.items, total = items.length, place = "wildray-audit:" + sheet.id;
const keyOf = (item) => item.anchor_id + ":" + item.positive_id;
const known = new Set(items.map(keyOf));
let state = null, since = 0, empty = false;

function stored() {
  try { return JSON.parse(localStorage.getItem(place)) || { current: "", reviewers: {} }; }
  catch (error) { return { current: "", reviewers: {} }; }
}
function keep() {
  try {
    const all = stored();
    all.current = state.reviewer;
    all.reviewers[state.reviewer] = state;
    localStorage.setItem(place, JSON.stringify(all));
    return true;
  } catch (error) { return false; }
}
function fresh(name) {
  return { reviewer: name, started_at: new Date().toISOString(), at: 0, verdicts: {}, history: [] };
}
function done() { return Object.keys(state.verdicts).length; }
function say(text) { $("status").textContent = text; $("status-end").textContent = text; }
function complain(text) { $("said").textContent = text; $("said").hidden = false; }
function only(id) {
  for (const one of ["start", "judge", "end"]) $(one).hidden = one !== id;
  $("other").hidden = id === "start";
}

function inWords(item) {
  const fact = item.facts, number = (value, digits) => value.toFixed(digits);
  return ["IoU " + number(fact.iou, 2), "margin " + number(fact.margin, 2), "gap " + number(fact.gap_s, 1) + " s",
    "score " + number(fact.min_score, 2), fact.density + (fact.density === 1 ? " box" : " boxes") + " in the frame",
    "linker " + sheet.linker, "camera " + item.camera].join(" · ");
}
function show(index) {
  only("judge");
  state.at = Math.min(Math.max(index, 0), total - 1);
  const item = items[state.at], verdict = state.verdicts[keyOf(item)];
  since = performance.now();
  ["left", "right"].forEach((side, number) => {
    const behind = empty && item.places[number];
    $(side).src = behind || item.crops[number];
    $(side).alt = (behind ? "empty place of the " : "") + side + " crop of pair " + (state.at + 1);
  });
  document.querySelector(".sides").classList.toggle("place", empty && item.places.some(Boolean));
  for (const word of sheet.words) {
    $("say-" + word).setAttribute("aria-pressed", String(Boolean(verdict) && verdict.verdict === word));
  }
  $("facts").textContent = verdict
    ? "Judged " + sheet.names[verdict.verdict].toLowerCase() + ". " + inWords(item)
    : "What is known of this pair is shown after your verdict.";
  $("progress").value = done();
  $("count").textContent = "pair " + (state.at + 1) + " of " + total + ", " + done() + " judged";
  $("back").disabled = state.at === 0;
  $("next").disabled = state.at === total - 1;
  $("undo").disabled = state.history.length === 0;
  $("place").disabled = !item.places.some(Boolean);
  $("open").disabled = done() === total;
  if (!keep()) say("This browser keeps nothing: save the verdicts before you close the page.");
}
function openFrom(index) {
  for (let step = 0; step < total; step++) {
    const at = (index + step) % total;
    if (!state.verdicts[keyOf(items[at])]) return at;
  }
  return -1;
}
function judge(word) {
  const item = items[state.at], key = keyOf(item), before = state.verdicts[key] || null;
  const seconds = Math.min((performance.now() - since) / 1000, 600) + (before ? before.seconds : 0);
  state.history.push([key, state.at, before]);
  state.verdicts[key] = {
    verdict: word, at: new Date().toISOString(), seconds: Math.round(seconds * 10) / 10,
    changes: before ? before.changes + 1 : 0,
  };
  empty = false;
  say("Pair " + (state.at + 1) + ": " + sheet.names[word].toLowerCase() + ".");
  told(state.at);
  if (done() === total && (before === null || state.at === total - 1)) finish();
  else if (state.at + 1 < total) show(state.at + 1);
  else show(openFrom(0));
}
function told(index) {
  const item = items[index], verdict = state.verdicts[keyOf(item)], last = $("last");
  last.replaceChildren();
  last.hidden = false;
  for (const source of item.crops) {
    const picture = document.createElement("img");
    picture.src = source;
    picture.alt = "";
    last.append(picture);
  }
  const text = document.createElement("span"), word = document.createElement("b");
  word.textContent = sheet.names[verdict.verdict];
  last.className = verdict.verdict;
  text.append("Pair " + (index + 1) + ": ", word, " · " + inWords(item));
  last.append(text);
}
function undo() {
  const last = state.history.pop();
  if (!last) return;
  const [key, at, before] = last;
  if (before) state.verdicts[key] = before; else delete state.verdicts[key];
  $("last").hidden = true;
  say("The verdict on pair " + (at + 1) + " is taken back.");
  show(at);
}
function finish() {
  keep();
  say("");
  only("end");
  const counts = sheet.words.map((word) =>
    Object.values(state.verdicts).filter((one) => one.verdict === word).length + " " + sheet.names[word].toLowerCase());
  $("sum").textContent = total + " pairs: " + counts.join(", ") + ".";
  $("ended").focus();
}
function save() {
  const rows = items.filter((item) => state.verdicts[keyOf(item)]).map((item) => ({
    anchor_id: item.anchor_id, positive_id: item.positive_id, ...state.verdicts[keyOf(item)],
  }));
  const content = {
    format: sheet.format, version: sheet.version, sheet: sheet.id, pairs: sheet.pairs, reviewer: state.reviewer,
    started_at: state.started_at, saved_at: new Date().toISOString(), num_pairs: total, verdicts: rows,
  };
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  link.download = "verdicts-" + sheet.id + "-" + state.reviewer.replace(/[^A-Za-z0-9_-]+/g, "_") + ".json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(rows.length + " verdicts saved as " + link.download + ".");
}
function begin(name) {
  const before = stored().reviewers[name];
  state = before && before.verdicts && before.history ? before : fresh(name);
  const open = openFrom(state.at);
  if (open < 0) finish();
  else {
    show(open);
    $("judging").focus();
    if (done()) say("Welcome back, " + name + ": " + done() + " of " + total + " are judged.");
  }
}
function leave() {
  state = null;
  say("");
  $("last").hidden = true;
  $("said").hidden = true;
  $("name").value = "";
  $("load").value = "";
  only("start");
  $("name").focus();
}
function refused(content) {
  if (!content || content.format !== sheet.format || content.version !== sheet.version) return "it is no verdict file.";
  if (content.sheet !== sheet.id || content.pairs !== sheet.pairs) return "it is of another sheet.";
  if (typeof content.reviewer !== "string" || !content.reviewer.trim()) return "it names no reviewer.";
  if (!Array.isArray(content.verdicts)) return "it has no verdicts.";
  const seen = new Set();
  for (const row of content.verdicts) {
    if (!row || !known.has(keyOf(row))) return "it has a pair that is not on this sheet.";
    if (!sheet.words.includes(row.verdict)) return "it has an unknown verdict.";
    if (seen.has(keyOf(row))) return "it judges a pair twice.";
    seen.add(keyOf(row));
  }
  return "";
}
function load(text) {
  let content = null;
  try { content = JSON.parse(text); }
  catch (error) { complain("The file cannot be used: it is cut short, or no JSON."); return; }
  const why = refused(content);
  if (why) { complain("The file cannot be used: " + why); return; }
  const name = content.reviewer.trim(), before = stored().reviewers[name];
  state = before && before.verdicts && before.history ? before : fresh(name);
  for (const row of content.verdicts) {
    const held = state.verdicts[keyOf(row)], at = String(row.at || "");
    if (!held || held.at < at) {
      state.verdicts[keyOf(row)] = {
        verdict: row.verdict, at: at, seconds: Number(row.seconds) || 0, changes: Number(row.changes) || 0,
      };
    }
  }
  keep();
  begin(name);
}

const moves = {
  back: () => show(state.at - 1), next: () => show(state.at + 1), undo: undo,
  open: () => { const at = openFrom(state.at + 1); if (at >= 0) show(at); },
  place: () => { empty = !empty && items[state.at].places.some(Boolean); show(state.at); },
};
const hotkeys = { ArrowLeft: "back", Backspace: "back", ArrowRight: "next", z: "undo", o: "open", b: "place" };
for (const [id, act] of Object.entries(moves)) {
  $(id).addEventListener("click", () => { if (id !== "place") empty = false; act(); });
}
for (const word of sheet.words) $("say-" + word).addEventListener("click", () => judge(word));
$("save").addEventListener("click", save);
$("save-end").addEventListener("click", save);
$("other").addEventListener("click", leave);
$("again").addEventListener("click", () => show(state.at));
$("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (name) begin(name); else complain("Write your name first: it goes into the file.");
});
$("load").addEventListener("change", (event) => {
  const file = event.target.files[0];
  if (file) file.text().then(load, () => complain("The file cannot be read."));
});
document.addEventListener("keydown", (event) => {
  if (state === null || event.target.tagName === "INPUT" || event.altKey || event.metaKey || event.repeat) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey && key !== "z") return;
  if ($("judge").hidden) {
    if (!$("end").hidden && key === "z") { event.preventDefault(); undo(); }
    else if (!$("end").hidden && hotkeys[key] === "back") { event.preventDefault(); show(state.at); }
    return;
  }
  const word = Object.hasOwn(sheet.keys, key) ? sheet.keys[key] : null;
  const move = Object.hasOwn(hotkeys, key) ? hotkeys[key] : null;
  if (word) { event.preventDefault(); judge(word); }
  else if (move && !$(move).disabled) { event.preventDefault(); if (move !== "place") empty = false; moves[move](); }
  else if (move) event.preventDefault();
});
window.addEventListener("beforeunload", (event) => { if (state && done() && !keep()) event.preventDefault(); });
$("name").value = stored().current || "";
if ($("name").value && stored().reviewers[$("name").value]) begin($("name").value);
else $("name").focus();
})();
"""
