"use strict";
document.documentElement.classList.add("scripted");
const data = JSON.parse(document.getElementById("data").textContent);
const status = document.getElementById("status");

// The theme: the system's, until the button chooses the other one.
const theme = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : system.matches;
}
function nameTheme() { theme.textContent = isDark() ? "Light" : "Dark"; }
theme.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
system.addEventListener("change", nameTheme);
theme.hidden = false;
nameTheme();

// A figure's numbers as text.
function csvCell(value) {
  if (value === null) return "";
  if (typeof value === "number") return String(value);
  // A spreadsheet would read a text that begins so as a formula.
  const text = /^[=+\-@\t\r]/.test(value) ? "'" + value : value;
  return /[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}
function asCsv(figure) {
  return [figure.columns, ...figure.rows].map((row) => row.map(csvCell).join(",")).join("\n") + "\n";
}
function asJson(figure) {
  const named = figure.rows.map((row) => Object.fromEntries(row.map((value, index) => [figure.columns[index], value])));
  return JSON.stringify({ title: figure.title, rows: named }, null, 1);
}
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Pages from a file may not use the clipboard directly.
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
}
for (const button of document.querySelectorAll("button[data-copy]")) {
  const label = button.textContent;
  button.addEventListener("click", async () => {
    const figure = data[button.dataset.figure];
    await copy(button.dataset.copy === "csv" ? asCsv(figure) : asJson(figure));
    button.focus();
    button.textContent = "Copied";
    status.textContent = figure.title + ": copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  });
}

// Frames: on the left of the slider those of the full run, on the right those of the policy.
const clips = [];
for (const figure of document.querySelectorAll(".comparison")) {
  const svg = figure.querySelector("svg");
  const split = figure.querySelector(".split");
  split.addEventListener("input", () => { svg.style.setProperty("--split", split.value + "%"); });
  const difference = figure.querySelector(".difference");
  difference.addEventListener("click", () => {
    const on = figure.classList.toggle("differing");
    difference.setAttribute("aria-pressed", on);
    split.disabled = on;
  });
  if (figure.dataset.frames) clips.push(asClip(figure, svg));
}
// A clip is a strip of frames; both strips are moved at once, so they cannot get out of step.
function asClip(figure, svg) {
  const height = svg.viewBox.baseVal.height;
  const count = Number(figure.dataset.frames);
  const slider = figure.querySelector(".frame");
  const button = figure.querySelector(".play");
  const clip = { playing: false, show, play };
  function show(frame) {
    slider.value = frame % count + 1;
    for (const image of svg.querySelectorAll("image")) image.setAttribute("y", -height * (frame % count));
  }
  function play(on) {
    clip.playing = on;
    button.textContent = on ? "Pause" : "Play";
    button.setAttribute("aria-pressed", on);
  }
  clip.next = () => show(Number(slider.value));
  slider.addEventListener("input", () => { play(false); show(slider.value - 1); });
  button.addEventListener("click", () => play(!clip.playing));
  return clip;
}
if (clips.length) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  for (const clip of clips) clip.play(!calm);
  setInterval(() => { for (const clip of clips) if (clip.playing) clip.next(); }, 125);
}

// A printed page shows everything.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) {
    details.dataset.wasOpen = details.open;
    details.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = details.dataset.wasOpen === "true";
});
