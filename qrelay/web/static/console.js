// The keyboard, and grades without loading the page again. Every page works without this script too: keys press
// what is on the page, and a form that the script does not send the browser sends.
"use strict";

const items = () => [...document.querySelectorAll("[data-item]")];
const current = () => document.querySelector("[data-item][aria-current]");
const graded = []; // ids of passages in the order in which they were graded here
const said = document.getElementById("said");

function say(words) {
  said.textContent = words;
}

function choose(item) {
  if (!item) return;
  current()?.removeAttribute("aria-current");
  item.setAttribute("aria-current", "true");
  item.focus({ preventScroll: true });
  item.scrollIntoView({ block: item.offsetHeight > innerHeight / 2 ? "start" : "nearest" });
}

function step(by) {
  const all = items();
  const at = all.indexOf(current());
  choose(at < 0 ? all[0] : all[Math.min(Math.max(at + by, 0), all.length - 1)]);
}

function undo() {
  const last = document.getElementById(graded.at(-1) ?? "") ?? current() ?? document;
  const button = last.querySelector("[data-undo]") ?? document.querySelector("form.undo [data-undo]");
  if (button) button.click();
  else say("Nothing of yours to take back here.");
}

function grade(digit) {
  const item = current() ?? items()[0];
  item?.querySelector(`button[name="grade"][value="${digit}"]`)?.click();
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  n: () => document.querySelector('a[rel="next"]')?.click(),
  p: () => document.querySelector('a[rel="prev"]')?.click(),
  o: () => current()?.querySelector("a.open")?.click(),
  Enter: () => current()?.querySelector("a.open")?.click(),
  u: undo,
  b: () => document.querySelector('[data-key="b"]')?.click(),
  w: () => (current() ?? items()[0])?.querySelector('input[name="note"]')?.focus(),
  "/": () => document.querySelector("[data-search]")?.focus(),
  "?": () => {
    const help = document.getElementById("help");
    help.open = !help.open;
    if (help.open) help.querySelector("summary").focus();
  },
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const { target, key } = event;
  if (target.closest("input, select, textarea")) {
    if (key === "Escape") choose(target.closest("[data-item]") ?? items()[0]);
    return;
  }
  if (key === "Enter" && target.closest("a, button, summary")) return;
  const action = /^[0-9]$/.test(key) ? () => grade(key) : KEYS[key];
  if (!action || event.repeat) return;
  event.preventDefault();
  action();
});

document.addEventListener("focusin", (event) => {
  const item = event.target.closest?.("[data-item]");
  if (item && item !== current()) {
    current()?.removeAttribute("aria-current");
    item.setAttribute("aria-current", "true");
  }
});

async function send(form, button) {
  const item = form.closest("[data-item]");
  if (item.getAttribute("aria-busy") === "true") return;
  item.setAttribute("aria-busy", "true");
  const taking = form.classList.contains("undo");
  say(taking ? "Taking back…" : `Saving grade ${button.value}…`);
  try {
    const headers = { "x-part": "1", accept: "application/json" };
    const body = new URLSearchParams(new FormData(form, button));
    const answer = await fetch(form.action, { method: "POST", body, headers });
    if (!answer.ok) throw refused((await answer.json()).error);
    const holder = document.createElement("template");
    holder.innerHTML = (await answer.text()).trim();
    put(item, holder.content.firstElementChild, taking);
    say(taking ? "Taken back." : `Saved: grade ${button.value}.`);
  } catch (error) {
    item.removeAttribute("aria-busy");
    item.classList.add("failed");
    const unheard = error instanceof TypeError;
    const why = unheard ? "the console does not answer" : error.message;
    const again = unheard || error.retryable ? ". Press it again." : "";
    say(`${taking ? "Not taken back" : "Not saved"}: ${why}${again}`);
  }
}

function refused({ message, retryable }) {
  return Object.assign(new Error(message), { retryable });
}

function put(item, made, taking) {
  const at = graded.indexOf(item.id);
  if (at >= 0) graded.splice(at, 1);
  if (!taking) graded.push(item.id);
  item.replaceWith(made);
  const all = items();
  choose(taking ? made : all[all.indexOf(made) + 1] ?? made);
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-part]")) return;
  event.preventDefault();
  send(event.target, event.submitter);
});

const guide = document.querySelector(".guide");
if (guide && matchMedia("(min-width: 62rem)").matches) guide.open = true;
const place = document.getElementById(location.hash.slice(1));
if (place?.matches("[data-item]")) choose(place);
