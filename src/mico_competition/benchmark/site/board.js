// Rows by access, tables by privacy.  Without this script the page shows all of them.
(() => {
  "use strict";
  const boards = [...document.querySelectorAll(".board")];
  const boxes = [...document.querySelectorAll("input[name=access]")];
  const radios = [...document.querySelectorAll("input[name=privacy]")];
  const count = document.getElementById("count");

  function filter() {
    const wanted = boxes.filter((box) => box.checked).map((box) => box.value);
    const privacy = radios.find((radio) => radio.checked).value;
    let shown = 0, all = 0;
    for (const board of boards) {
      board.hidden = privacy !== "mean" && board.dataset.privacy !== privacy;
      for (const row of board.querySelectorAll("tbody tr")) {
        row.hidden = !wanted.includes(row.dataset.access);
        if (!board.hidden) { all += 1; shown += !row.hidden; }
      }
    }
    count.textContent = `Showing ${shown} of ${all} rows.`;
    measure();
  }

  // Said in words where a table is wider than the screen: phones show no bar to scroll by.
  function measure() {
    for (const frame of document.querySelectorAll(".scroll")) {
      frame.classList.toggle("over", frame.scrollWidth > frame.clientWidth);
    }
  }

  for (const input of [...boxes, ...radios]) input.addEventListener("change", filter);
  document.documentElement.classList.add("js");
  document.getElementById("controls").hidden = count.hidden = false;
  new ResizeObserver(measure).observe(document.getElementById("main"));
  filter();
})();
