// Sorts and filters the tables of this page. Without JavaScript they stand there all the same, in the order of the run.
"use strict";
document.querySelectorAll("table.data").forEach((table) => {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells], rows = [...body.rows];
  const number = (cell) => { const v = parseFloat(cell.textContent); return Number.isNaN(v) ? null : v; };
  const numeric = heads.map((_, i) => i > 1 && rows.some((row) => number(row.cells[i]) !== null));
  const sort = (index) => {
    const down = heads[index].getAttribute("aria-sort") === "ascending" || (numeric[index] && !heads[index].hasAttribute("aria-sort") && heads[index].dataset.worst === "high");
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[index].setAttribute("aria-sort", down ? "descending" : "ascending");
    const keys = new Map(rows.map((row) => [row, numeric[index] ? number(row.cells[index]) : row.cells[index].textContent]));
    rows.sort((a, b) => {
      const x = keys.get(a), y = keys.get(b);
      if (x === null || y === null) return (x === null) - (y === null); // no value: last, whichever way
      const order = numeric[index] ? x - y : x.localeCompare(y, undefined, { numeric: true });
      return down ? -order : order;
    });
    body.append(...rows);
  };
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(index));
    head.append(button);
  });
  if (rows.length < 5) return;
  const tools = document.createElement("div"), label = document.createElement("label"), input = document.createElement("input"), said = document.createElement("span");
  tools.className = "tools";
  label.textContent = "Rows with ";
  input.type = "search";
  said.setAttribute("role", "status");
  label.append(input);
  tools.append(label, said);
  table.closest(".scroll").before(tools);
  const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row) => { row.hidden = !words.every((word) => texts.get(row).includes(word)); shown += !row.hidden; });
    said.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });
});
