"use strict";
(function () {
  function value(row, column) {
    const cell = row.cells[column];
    return cell ? cell.textContent.trim() : "";
  }
  function number(text) {
    return text === "" ? NaN : parseFloat(text.replace(/,/g, ""));
  }
  function compare(a, b, numeric, sign) {
    if (!numeric) { return sign * a.localeCompare(b); }
    const x = number(a), y = number(b);
    // Rows without a number stay at the end, in whichever order.
    if (isNaN(x) || isNaN(y)) { return isNaN(x) - isNaN(y); }
    return sign * (x - y);
  }
  function sort(table, head, column) {
    const down = head.getAttribute("aria-sort") === "ascending";
    const numeric = head.classList.contains("n");
    const body = table.tBodies[0];
    const rows = Array.from(body.rows);
    rows.sort(function (a, b) {
      return compare(value(a, column), value(b, column), numeric, down ? -1 : 1);
    });
    rows.forEach(function (row) { body.appendChild(row); });
    Array.from(head.parentNode.cells).forEach(function (cell) { cell.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }
  // Figures stand in lanes, so that a tall one leaves no hole beside it. One whose table is opened stays in its lane.
  const GAP = 14;
  function lay(figures) {
    const cards = Array.from(figures.children);
    const count = getComputedStyle(figures).gridTemplateColumns.split(" ").length;
    const ends = new Array(count).fill(1);
    const isSame = figures.dataset.lanes === String(count);
    if (!figures.offsetHeight) { return; }
    figures.dataset.lanes = String(count);
    figures.classList.toggle("lanes", count > 1);
    cards.forEach(function (card) {
      const isWide = card.classList.contains("tabular");
      const lane = isSame && card.dataset.lane ? Number(card.dataset.lane) : ends.indexOf(Math.min(...ends));
      const start = isWide ? Math.max(...ends) : ends[lane];
      const end = start + card.offsetHeight + GAP;
      card.dataset.lane = String(lane);
      card.style.gridRow = count > 1 ? start + " / " + end : "";
      card.style.gridColumn = count > 1 && !isWide ? String(lane + 1) : "";
      if (isWide) { ends.fill(end); } else { ends[lane] = end; }
    });
  }
  document.querySelectorAll(".figures").forEach(function (figures) {
    const observer = new ResizeObserver(function () { lay(figures); });
    observer.observe(figures);
    Array.from(figures.children).forEach(function (card) { observer.observe(card); });
    lay(figures);
  });
  document.querySelectorAll("table").forEach(function (table) {
    table.classList.add("sortable");
    Array.from(table.tHead.rows[0].cells).forEach(function (head, column) {
      head.tabIndex = 0;
      head.addEventListener("click", function () { sort(table, head, column); });
      head.addEventListener("keydown", function (event) {
        if (event.key === "Enter") { sort(table, head, column); }
      });
    });
  });
})();
