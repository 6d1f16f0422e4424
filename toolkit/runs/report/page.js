// Sort the rows of a table by the column whose heading is clicked; without this script tables keep class order.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") !== "descending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      // Numbers by their value: to the collation, the 5 of 0.5 comes before the 43 of 0.43.
      const compare = (a, b) =>
        Number(value(a)) - Number(value(b)) || value(a).localeCompare(value(b), undefined, { numeric: true });
      const rows = [...table.tBodies[0].rows].sort((a, b) => (down ? compare(b, a) : compare(a, b)));
      table.tBodies[0].append(...rows);
    });
  });
}

// Show the picture of an item, with its caption, as large as the window has room for.
const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".item button")) {
  button.addEventListener("click", () => {
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    const shown = [button.firstElementChild, button.nextElementSibling].map((node) => node.cloneNode(true));
    dialog.replaceChildren(...shown, close);
    dialog.showModal();
  });
}
dialog?.addEventListener("click", () => dialog.close());
