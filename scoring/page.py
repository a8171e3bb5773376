"""The frame of the report page: its style, its script, and its content security policy.

The policy allows only this style and this script, by their hashes, so the page can neither run nor
fetch anything that a name in it may contain.  The script shows values along the curve; in a frame
that forbids scripts, everything else still works.
"""

import base64
import hashlib
from html import escape

STYLE = """
:root { color-scheme: light; --paper: #fff; --ink: #1c2024; --soft: #59626e; --line: #d9dee4;
  --tint: #f2f5f8; --curve: #1558b0; --mark: #b3261e; --read: #8a4b00; }
@media screen and (prefers-color-scheme: dark) { :root { color-scheme: dark; --paper: #14171a;
  --ink: #e8eaed; --soft: #a9b1bb; --line: #353c44; --tint: #1e2328; --curve: #8ab4f8;
  --mark: #f28b82; --read: #f6c177; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.5rem 0 .25rem; }
h2 small { color: var(--soft); font-size: .9rem; font-weight: 400; margin-left: .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
.headline { display: flex; flex-wrap: wrap; align-items: baseline; gap: .1rem .75rem;
  margin: 1rem 0; padding: .75rem 1rem; max-width: none; background: var(--tint);
  border-left: 4px solid var(--curve); }
.headline strong { font-size: 2rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.note { color: var(--soft); }
.wide { overflow-x: auto; margin: 1.25rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.scores { width: 100%; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { padding: .4rem .6rem; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: normal; }
thead th { vertical-align: bottom; background: var(--tint); }
th { font-weight: 600; }
th:first-child { text-align: left; }
tbody th { font-weight: 400; }
.ranked th, .ranked td { font-weight: 700; background: var(--tint); }
.range { display: block; color: var(--soft); font-size: .8rem; font-weight: 400; }
.compared td { white-space: nowrap; }
.compared tbody th { min-width: 5.5rem; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.25rem; margin: .25rem 0 0; padding: 0;
  list-style: none; font-size: .9rem; }
.legend li { white-space: nowrap; }
.legend svg { display: inline; width: 30px; height: 10px; }
.plots { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; }
figure { margin: .5rem 0; flex: 1 1 20rem; max-width: 29rem; min-width: 0; }
figcaption { color: var(--soft); font-size: .9rem; }
svg { display: block; width: 100%; height: auto; touch-action: pan-y; }
.live svg { cursor: crosshair; }
svg text { fill: var(--soft); font: 12px system-ui, sans-serif; }
.grid { stroke: var(--line); fill: none; }
.band { fill: var(--curve); fill-opacity: .2; stroke: none; }
.chance { stroke: var(--soft); stroke-dasharray: 5 4; fill: none; }
.mark { stroke: var(--mark); stroke-dasharray: 1 3; stroke-width: 1.5; fill: none; }
.ceiling { stroke: var(--read); stroke-width: 2; fill: none; }
.ceiling0 { stroke-dasharray: 2 4; }
.ceiling1 { stroke-dasharray: 9 4; }
.key { list-style: none; margin: .5rem 0; padding: 0; max-width: 46rem; }
.key li { display: inline-flex; align-items: center; gap: .4rem; margin-right: 1.25rem; }
.key svg { flex: none; width: 34px; height: 12px; }
.curve { stroke: var(--curve); stroke-width: 2; stroke-linejoin: round; fill: none; }
.dot { fill: var(--mark); stroke: var(--paper); stroke-width: 1.5; }
.reading { display: none; stroke: var(--read); stroke-width: 1.5; fill: none;
  pointer-events: none; }
.reading circle { fill: var(--read); stroke: var(--paper); }
.reading.on { display: block; }
.read { display: none; }
.live .read { display: grid; grid-template-columns: minmax(0, 1fr); gap: .25rem; max-width: 60rem;
  margin: .5rem 0; padding: .6rem .8rem; background: var(--tint); border-radius: .4rem; }
.read input { width: 100%; height: 1.75rem; margin: 0; accent-color: var(--curve); }
.read output { min-height: 3em; font-variant-numeric: tabular-nums; }
.read output b { color: var(--read); }
details { margin: .75rem 0; }
summary { cursor: pointer; padding: .25rem 0; color: var(--curve); }
.points { margin-top: .5rem; font-size: .9rem; }
.points th, .points td { padding: .15rem .6rem; }
:focus-visible { outline: 3px solid var(--curve); outline-offset: 2px; }
dl { max-width: 46rem; }
dt { font-weight: 600; margin-top: .6rem; }
dd { margin: 0; }
@media (min-width: 48rem) { .scores .range { white-space: nowrap; }
  .read output { min-height: 1.5em; } }
@media (max-width: 30rem) { body { padding: 1rem .75rem 2rem; } h1 { font-size: 1.35rem; }
  .scores { font-size: .8rem; } .scores th, .scores td { padding: .35rem .2rem; }
  .scores thead th { font-size: .75rem; }
  .scores .range { font-size: .7rem; }
  .scores.compared th, .scores.compared td { padding: .35rem .15rem; }
  .compared tbody th { min-width: 4.2rem; font-size: .75rem; }
  .scores.compared .range { font-size: .62rem; letter-spacing: -.01em; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; }
  .live .read, details { display: none; }
  .wide { overflow: visible; margin: .75rem 0; }
  .reading.on { display: none; }
  .headline, thead th, .ranked th, .ranked td, .band { print-color-adjust: exact;
    -webkit-print-color-adjust: exact; }
  h2 { margin-top: 1rem; break-after: avoid; }
  section, tr, figure, dl div { break-inside: avoid; }
  .plots { flex-wrap: nowrap; } figure { flex: 1 1 0; } }
"""

SCRIPT = """
(function () {
  "use strict";
  function percent(rate) { return Number((100 * rate).toPrecision(3)) + "%"; }
  // The points of the curve stand in the section's table, and nowhere else.
  function pointsOf(section) {
    var rows = Array.from(section.querySelectorAll(".points tbody tr"), function (row) {
      var numbers = Array.from(row.cells, function (cell) { return parseFloat(cell.textContent); });
      numbers[0] = numbers[0] / 100;
      return numbers;
    });
    rows.push(rows[0].map(function () { return 1; }));
    return rows;
  }
  // A point between two others is reached by choosing between their thresholds at random.
  function at(points, rate) {
    var i = points.findIndex(function (point) { return point[0] >= rate; });
    if (i < 0) return points[points.length - 1];
    if (i === 0 || points[i][0] === rate) return points[i];
    var left = points[i - 1], right = points[i];
    var share = (rate - left[0]) / (right[0] - left[0]);
    return left.map(function (value, k) { return value + share * (right[k] - value); });
  }
  function place(rate, decade) {
    return decade ? 1 - Math.log10(Math.max(rate, Math.pow(10, decade))) / decade : rate;
  }
  function rateAt(svg, event) {
    var view = svg.viewBox.baseVal, box = svg.dataset.box.split(" ").map(Number);
    var seen = svg.getBoundingClientRect(), decade = Number(svg.dataset.decade);
    var x = ((event.clientX - seen.left) * view.width / seen.width - box[0]) / box[2];
    x = Math.min(1, Math.max(0, x));
    return decade ? Math.pow(10, decade * (1 - x)) : x;
  }
  function point(svg, fpr, tpr) {
    var box = svg.dataset.box.split(" ").map(Number), decade = Number(svg.dataset.decade);
    var x = box[0] + box[2] * place(fpr, decade), y = box[1] + box[2] * (1 - place(tpr, decade));
    var group = svg.querySelector(".reading");
    group.querySelector("path").setAttribute(
      "d", "M" + x + " " + box[1] + "v" + box[2] + "M" + box[0] + " " + y + "h" + box[2]);
    group.querySelector("circle").setAttribute("cx", x);
    group.querySelector("circle").setAttribute("cy", y);
    group.classList.add("on");
  }
  function start(section) {
    var points = pointsOf(section), slider = section.querySelector("input");
    var output = section.querySelector("output");
    var pictures = Array.from(section.querySelectorAll("svg.roc"));  // the key has swatches
    function say(rate) {
      var found = at(points, Math.max(rate, points[0][0]));
      var value = document.createElement("b");
      value.textContent = "TPR " + found[1].toFixed(3);
      output.replaceChildren("At " + percent(found[0]) + " FPR: ", value);
      if (found.length > 2)
        output.append(", 95% interval " + found[2].toFixed(3) + " to " + found[3].toFixed(3));
      slider.setAttribute("aria-valuetext", percent(found[0]) + " FPR");
      return found;
    }
    function show(rate) {
      var found = say(rate);
      pictures.forEach(function (svg) { point(svg, found[0], found[1]); });
    }
    slider.max = points.length - 1;
    slider.value = points.findIndex(function (other) { return other[0] === 0.1; });
    say(0.1);
    slider.addEventListener("input", function () { show(points[slider.value][0]); });
    pictures.forEach(function (svg) {
      function follow(event) {
        var rate = rateAt(svg, event), distance = function (other) {
          return Math.abs(place(other[0], -3) - place(rate, -3));
        };
        slider.value = points.reduce(function (best, other, i) {
          return distance(other) < distance(points[best]) ? i : best;
        }, 0);
        show(rate);
      }
      svg.addEventListener("pointermove", follow);
      svg.addEventListener("pointerdown", follow);
      // The name stays, without the browser's tooltip, which would cover the curve.
      var name = svg.querySelector("title");
      svg.setAttribute("aria-label", name.textContent);
      svg.removeAttribute("aria-labelledby");
      svg.setAttribute("aria-describedby", svg.querySelector("desc").id);
      name.remove();
    });
  }
  document.querySelectorAll("section.scenario").forEach(start);
  document.body.classList.add("live");
})();
"""


def _hashed(text: str) -> str:
    """The name of an inline style or script in a content security policy: its hash."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "'sha256-%s'" % base64.b64encode(digest).decode("ascii")


def document(title: str, body: str, made: str = "") -> str:
    """A complete web page with the HTML `body`; `title` is plain text without markup.

    `made` says below everything when and with what the page was made; it is escaped.
    """
    if made:
        body += '\n<p class="note">%s</p>' % escape(made)
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src %s; script-src %s"
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" content="%s">'
            % (policy % (_hashed(STYLE), _hashed(SCRIPT))),
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<title>%s</title>" % title,
            "<style>%s</style>\n</head>\n<body>\n<main>" % STYLE,
            body,
            "</main>\n<script>%s</script>\n</body>\n</html>\n" % SCRIPT,
        ]
    )
