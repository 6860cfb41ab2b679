"use strict";

const open = (element) => element.getAttribute("aria-expanded") === "true";
const set = (element, on) => element.setAttribute("aria-expanded", String(on));

/* A button shows the scores of all sentences of what it controls; a sentence shows its own. */
function toggle(element) {
  const on = !open(element);
  set(element, on);
  if (element.matches("button.toggle")) {
    const all = document.getElementById(element.getAttribute("aria-controls"));
    all.querySelectorAll(".s[role=button], button.toggle").forEach((part) => set(part, on));
  }
}

document.addEventListener("click", (event) => {
  const element = event.target.closest(".s[role=button], button.toggle");
  /* who selects text does not want to open it */
  if (element && (element.matches("button") || !String(getSelection()))) toggle(element);
});

document.addEventListener("keydown", (event) => {
  if ((event.key === "Enter" || event.key === " ") && event.target.matches(".s[role=button]")) {
    event.preventDefault();
    toggle(event.target);
  }
});
