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
