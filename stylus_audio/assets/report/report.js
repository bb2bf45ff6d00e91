"use strict";

// One player at a time.
document.addEventListener("play", (event) => {
  for (const player of document.querySelectorAll("audio")) {
    if (player !== event.target) player.pause();
  }
}, true);

// A click on the head of a column sorts by it; what has no value stays below.
for (const table of document.querySelectorAll("table.sorted")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      const value = (row) => row.cells[column].querySelector("data")?.value;
      const order = (one, other) =>
        column ? value(one) - value(other) : one.cells[0].textContent.localeCompare(other.cells[0].textContent);
      const rows = [...body.rows];
      const known = rows.filter((row) => !column || value(row) !== undefined);
      known.sort((one, other) => (down ? order(other, one) : order(one, other)));
      body.append(...known, ...rows.filter((row) => !known.includes(row)));
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}
