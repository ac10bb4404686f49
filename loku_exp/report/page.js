"use strict";
const value = (row, n) => row.cells[n] ? row.cells[n].dataset.v || row.cells[n].textContent.trim() : "";
const number = (text) => {
  const rate = text.match(/^([0-9]+) of ([0-9]+)/);
  const found = text.match(/^(?:[<>] )?([-+]?[0-9.]+(e[-+]?[0-9]+)?)/i);
  return rate ? rate[1] / rate[2] : found ? parseFloat(found[1]) : NaN;
};
const compare = (a, b) => Number.isNaN(number(a)) || Number.isNaN(number(b)) ? a.localeCompare(b, "en", { numeric: true }) : number(a) - number(b);
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((head, n) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way);
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a, n), value(b, n)];
        if (!x || !y) return !x - !y; // what is absent comes last
        return way === "ascending" ? compare(x, y) : compare(y, x);
      });
      body.append(...rows);
    };
  });
}
for (const field of document.querySelectorAll("input.filter")) {
  field.closest("p").hidden = false;
  field.oninput = () => {
    const words = field.value.toLowerCase().split(",").map((word) => word.trim());
    const rows = [...document.getElementById(field.dataset.of).tBodies[0].rows];
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    field.nextElementSibling.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} runs`;
  };
}
const hint = () => {
  for (const box of document.querySelectorAll(".scroll")) {
    box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1);
  }
};
addEventListener("resize", hint);
hint();
