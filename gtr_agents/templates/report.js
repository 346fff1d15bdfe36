"use strict";

// Everything is put on the page as text, never as markup: a model may have written it.
function element(tag, style, text) {
  const node = document.createElement(tag);
  if (style) node.className = style;
  if (text !== undefined) node.textContent = text;
  return node;
}

function showReadout(event, rows) {
  const readout = document.getElementById("readout");
  readout.replaceChildren(...rows);
  readout.hidden = false;
  const left = Math.min(event.clientX + 14, window.innerWidth - readout.offsetWidth - 8);
  readout.style.left = `${Math.max(8, left)}px`;
  readout.style.top = `${Math.max(8, event.clientY - readout.offsetHeight - 14)}px`;
}

function hideReadout() {
  document.getElementById("readout").hidden = true;
}

function readCharts() {
  for (const chart of document.querySelectorAll("svg.chart")) {
    const columns = JSON.parse(chart.dataset.hover || "[]");
    if (!columns.length) continue;
    const cross = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cross.setAttribute("class", "cross");
    cross.setAttribute("y1", "8");
    cross.setAttribute("y2", String(chart.viewBox.baseVal.height - 26));
    const hide = () => { hideReadout(); cross.remove(); };
    chart.addEventListener("pointerleave", hide);
    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * chart.viewBox.baseVal.width;
      const nearest = columns.reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a));
      cross.setAttribute("x1", nearest.x);
      cross.setAttribute("x2", nearest.x);
      chart.append(cross);
      const rows = nearest.rows.map(([label, role, value]) => {
        const row = element("div", role);
        row.append(element("i"), `${label} `, element("b", "", value));
        return row;
      });
      showReadout(event, [element("div", "muted", nearest.head), ...rows]);
    });
  }
}
