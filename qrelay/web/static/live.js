// Keeps a part of the page as the server shows it now. Its HTML is rendered, and escaped, by the server.
"use strict";

const MOST_WAIT_S = 60;
const live = document.querySelector("[data-live]");
const state = document.querySelector("[data-state]");
let last = "";
let wait = 1; // seconds until the next try, once the server refuses

function show(event) {
  const { html } = JSON.parse(event.data);
  const inside = live.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
  if (html !== last) live.innerHTML = last = html;
  if (inside) [...live.querySelectorAll("[aria-label]")].find((each) => each.getAttribute("aria-label") === inside)?.focus();
  state.textContent = "Live.";
  wait = 1;
}

// A browser tries again by itself where nobody answers, and never where a stream is refused (as beyond max_streams).
function failed({ target }) {
  if (target.readyState !== EventSource.CLOSED) {
    state.textContent = "The console does not answer; trying again.";
    return;
  }
  state.textContent = `Not live: the console keeps as many pages up to date as it may. Next try in ${wait} s.`;
  setTimeout(listen, wait * 1000);
  wait = Math.min(2 * wait, MOST_WAIT_S);
}

function listen() {
  const source = new EventSource(live.dataset.live);
  source.onmessage = show;
  source.onerror = failed;
  source.addEventListener("problem", (event) => (state.textContent = JSON.parse(event.data).error.message));
}

listen();
