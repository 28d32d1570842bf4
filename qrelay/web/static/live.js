// Keeps a part of the page as the server shows it now. Its HTML is rendered, and escaped, by the server.
"use strict";

const live = document.querySelector("[data-live]");
const state = document.querySelector("[data-state]");
const source = new EventSource(live.dataset.live);
let last = "";

source.onmessage = (event) => {
  const { html } = JSON.parse(event.data);
  const inside = live.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
  if (html !== last) live.innerHTML = last = html;
  if (inside) [...live.querySelectorAll("[aria-label]")].find((each) => each.getAttribute("aria-label") === inside)?.focus();
  state.textContent = "Live.";
};
source.onerror = () => (state.textContent = "The console does not answer; trying again.");
source.addEventListener("problem", (event) => (state.textContent = JSON.parse(event.data).error.message));
