// Counts while a threshold is dragged. The form's counts[k] are the labels that reach k hundredths: all, and relevant.
"use strict";

const form = document.querySelector("[data-thresholds]");
const [all, relevant] = JSON.parse(form?.dataset.thresholds ?? "[[0],[0]]");

function show() {
  const at = { positive: Number(form.positive.value), negative: Number(form.negative.value) };
  const positives = all[at.positive];
  const negatives = all[0] - all[at.negative];
  const rest = all[0] - positives - negatives;
  const found = { positives, negatives, agreeing: relevant[at.positive], neither: Math.max(rest, 0), both: Math.max(-rest, 0) };
  for (const [name, count] of Object.entries(found)) {
    document.querySelector(`[data-count="${name}"]`).textContent = count.toLocaleString("en");
  }
  for (const [name, value] of Object.entries(at)) {
    form.querySelector(`[data-value="${name}"]`).textContent = (value / 100).toFixed(2);
    const mark = document.querySelector(`[data-mark="${name}"]`);
    mark.setAttribute("x1", value * 6);
    mark.setAttribute("x2", value * 6);
  }
}

form?.addEventListener("input", (event) => event.target.type === "range" && show());
