for (const section of document.querySelectorAll("section")) {
  const selects = [...section.querySelectorAll(".filters select")];
  const filter = () => {
    const wanted = Object.fromEntries(selects.filter((one) => one.value).map((one) => [one.name, one.value]));
    const differs = (name, value) => name in wanted && wanted[name] !== value;
    for (const table of section.querySelectorAll(".sorts")) {
      const names = [...table.querySelectorAll("thead button")].map((button) => button.dataset.name);
      for (const row of [...table.tBodies].flatMap((body) => [...body.rows]))
        row.hidden = names.some((name, column) => differs(name, row.cells[column].textContent));
    }
    for (const part of section.querySelectorAll(".only"))
      part.toggleAttribute("hidden", Object.entries(part.dataset).some(([name, value]) => differs(name, value)));
    for (const pivot of section.querySelectorAll(".pivot")) {
      pivot.hidden = differs("task", pivot.dataset.task) || differs("stage", pivot.dataset.stage);
      const [head, ...rows] = pivot.querySelectorAll("tr");
      for (const row of rows) row.hidden = differs("finder", row.cells[0].textContent);
      for (const row of [head, ...rows])
        for (let i = 1; i < row.cells.length; i++) row.cells[i].hidden = differs("density_name", head.cells[i].textContent);
    }
  };
  for (const select of selects) select.addEventListener("change", filter);
}
for (const table of document.querySelectorAll(".sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const number = head.classList.contains("n");
    const value = (row) => number ? parseFloat(row.cells[column].dataset.v) : row.cells[column].textContent;
    const less = (a, b) => number
      ? (isNaN(a) - isNaN(b)) || (isNaN(a) ? 0 : (down ? b - a : a - b))
      : (down ? b.localeCompare(a) : a.localeCompare(b));
    for (const body of table.tBodies)
      body.append(...[...body.rows].sort((a, b) => less(value(a), value(b))));
  }));
}
