// One table at a time, sorted, ranked and searched.  Without this script the page shows all of
// them, best entries first.  It reads the tables and nothing else: no text becomes markup.
(() => {
  "use strict";
  const boards = [...document.querySelectorAll(".board")];
  const [scenario, search, count] = ["scenario", "search", "count"].map((id) => document.getElementById(id));
  const radios = (name) => [...document.querySelectorAll(`input[name=${name}]`)];
  const checked = (name) => (radios(name).find((radio) => radio.checked) || {}).value;
  let board = null;

  const rowsOf = (section) => [...section.querySelector("tbody").rows];
  const number = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function valueOf(cell) {
    return cell.dataset.v === undefined ? cell.textContent : cell.dataset.v;
  }

  function sort(section, head, down) {
    const column = Number(head.dataset.col);
    const rows = rowsOf(section);
    for (const row of rows) row.key = valueOf(row.cells[column]);
    const numbers = rows.every((row) => row.key !== "" && !Number.isNaN(Number(row.key)));
    const compare = numbers ? (a, b) => a.key - b.key : (a, b) => number.compare(a.key, b.key);
    rows.sort((a, b) => (down ? compare(b, a) : compare(a, b)) || a.place - b.place);
    section.querySelector("tbody").append(...rows);
    for (const other of section.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  }

  function rankBy(section, which) {
    section.dataset.show = which;
    for (const cell of section.querySelectorAll(".s")) {
      cell.hidden = which !== "0" && cell.dataset.s !== which;
    }
    for (const row of rowsOf(section)) {
      row.cells[0].textContent = row.cells[0].dataset.ranks.split(" ")[which];
    }
    const column = which === "0" ? 3 : 2 + 2 * Number(which);
    sort(section, section.querySelector(`th[data-col="${column}"]`), true);
  }

  function filter() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rowsOf(board)) {
      const text = `${row.cells[1].textContent} ${row.cells[2].textContent}`.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    const total = rowsOf(board).length;
    count.textContent = shown ? `Showing ${shown} of ${total}.` : `No entry of ${total} has “${search.value.trim()}”.`;
  }

  function show(section) {
    board = section;
    for (const other of boards) other.classList.toggle("here", other === section);
    const { challenge, phase } = section.dataset;
    for (const radio of radios("challenge")) radio.checked = radio.value === challenge;
    for (const radio of radios("phase")) {
      radio.checked = radio.value === phase;
      radio.disabled = !boards.some((b) => b.dataset.challenge === challenge && b.dataset.phase === radio.value);
    }
    const names = [...section.querySelectorAll("th.group")].map((head) => head.textContent);
    scenario.replaceChildren(...["Average", ...names].map((name, i) => new Option(name, String(i))));
    scenario.value = section.dataset.show || "0";
    filter();
    measure();
  }

  function choose() {
    const mine = boards.filter((b) => b.dataset.challenge === checked("challenge"));
    show(mine.find((b) => b.dataset.phase === checked("phase")) || mine[0]);
    try { history.replaceState(null, "", `#${board.id}`); } catch (error) { /* not allowed here: the table shows all the same */ }
  }

  function fromAddress() {
    show(boards.find((b) => `#${b.id}` === location.hash) || board || boards[0]);
  }

  // Said in words where a table is wider than the screen: phones show no bar to scroll by.
  function measure() {
    for (const frame of document.querySelectorAll(".scroll")) {
      frame.classList.toggle("over", frame.scrollWidth > frame.clientWidth);
    }
  }

  for (const section of boards) {
    rowsOf(section).forEach((row, i) => { row.place = i; });
    for (const head of section.querySelectorAll("th[data-col]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        sort(section, head, now ? now === "ascending" : head.dataset.first !== "up");
      });
    }
    rankBy(section, "0");
  }
  for (const radio of [...radios("challenge"), ...radios("phase")]) radio.addEventListener("change", choose);
  scenario.addEventListener("change", () => rankBy(board, scenario.value));
  search.addEventListener("input", filter);
  window.addEventListener("hashchange", fromAddress);
  document.documentElement.classList.add("js");
  document.getElementById("controls").hidden = count.hidden = false;
  fromAddress();
  new ResizeObserver(measure).observe(document.getElementById("main"));
  for (const id of ["all", "scenario"]) document.getElementById(id).addEventListener("change", measure);
  measure();
})();
