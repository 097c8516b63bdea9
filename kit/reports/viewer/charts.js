"use strict";
// The charts: tables, bars and curves of a path. Each cell and bar is a button that sets filters.

const SVG = "http://www.w3.org/2000/svg";
const CURVE_SIDE = 100;

/** An element with attributes and children; texts become text nodes, never markup. */
function make(tag, attributes = {}, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const SVG_TAGS = new Set(["svg", "rect", "text", "path", "circle", "line"]);

function decimal(value) {
  return value === null || value === undefined ? "–" : value.toFixed(3);
}

function counted(number) {
  return number.toLocaleString("en-US");
}

function panel(title, note, ...children) {
  const words = note ? [make("p", { class: "note" }, note)] : [];
  return make("section", { class: "panel", "aria-label": title }, make("h3", {}, title), ...words, ...children);
}

/** A list of horizontal bars: each row has a name, a number as text, a share 0..1 and the filters that it sets. */
function bars(rows, choose, isChosen) {
  return make("ul", { class: "bars" }, ...rows.map((row) => make("li", {}, barButton(row, choose, isChosen))));
}

function barButton(row, choose, isChosen) {
  const bar = make("span", { class: "bar" });
  bar.style.setProperty("--share", row.share || 0);
  const button = make(
    "button",
    { type: "button", class: "row", "aria-pressed": isChosen(row.filters), title: row.title },
    make("span", { class: "name" }, row.name),
    bar,
    make("span", { class: "value" }, row.value),
  );
  button.addEventListener("click", () => choose(row.filters));
  return button;
}

/** The losses by cause: how many, a bar each. */
function causesPanel(counts, names, choose, isChosen) {
  const most = Math.max(1, ...counts);
  const rows = names.map((name, cause) => ({
    name,
    value: counted(counts[cause]),
    share: counts[cause] / most,
    title: `show the images with: ${name}`,
    filters: { truth: "", answered: "", cause: String(cause), from: "", below: "" },
  }));
  return panel("Causes of loss", "detections and missed boxes", bars(rows, choose, isChosen));
}

/** The confusion matrix as a table of buttons. */
function confusionPanel(matrix, labels, choose, isChosen) {
  const most = (row) => Math.max(1, ...(row < labels.length ? matrix.slice(0, -1).flat() : matrix[row]));
  const head = make("tr", {}, make("th", { scope: "col" }, "true \\ answered"),
    ...[...labels, "missed"].map((label) => make("th", { scope: "col", class: "upright", title: label }, label)));
  const body = matrix.map((counts, row) =>
    make("tr", {}, make("th", { scope: "row", title: labels[row] }, labels[row] ?? "no true box"),
      ...counts.map((count, column) => {
        if (row === labels.length && column === labels.length) return make("td", {});
        const filters = { truth: String(row), answered: String(column), cause: "", from: "", below: "" };
        const words = `true: ${labels[row] ?? "none"}, answered: ${labels[column] ?? "missed"}: ${count}`;
        const button = make("button",
          { type: "button", class: row === column ? "cell hit" : "cell", "aria-label": words, title: words,
            "aria-pressed": isChosen(filters), "data-row": row, "data-column": column },
          counted(count));
        button.style.setProperty("--share", count / most(row));
        button.addEventListener("click", () => choose(filters));
        return make("td", {}, button);
      })),
  );
  const table = make("table", { class: "confusion" }, make("thead", {}, head), make("tbody", {}, ...body));
  return panel("Confusion matrix", "at IoU 0.5; a click shows the images of a cell",
    make("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "confusion matrix" }, table));
}

/** The average precision of each class at the slider's step, with its interval at 0. */
function precisionPanel(scores, labels, step, choose, isChosen) {
  const classes = Object.entries(scores.classes).sort(([, a], [, b]) => (b.ap50[step] ?? 0) - (a.ap50[step] ?? 0));
  const rows = classes.map(([label, of]) => ({
    name: `${label} (${of.boxes})`,
    value: decimal(of.ap50[step]),
    share: of.ap50[step],
    title: `95% at threshold 0: ${decimal(of.interval[0])} to ${decimal(of.interval[1])}; show its images`,
    filters: { truth: String(labels.indexOf(label)), answered: "", cause: "", from: "", below: "" },
  }));
  const note = `mAP@0.5 ${decimal(scores.map50[step])} at threshold ${(step / SLIDER_STEPS).toFixed(2)}, all images`;
  return panel("Average precision", note, bars(rows, choose, isChosen));
}

/** The histogram of the confidences, a button for each bin. */
function histogramPanel(counts, choose, isChosen) {
  const most = Math.max(1, ...counts.map((count) => Math.log1p(count)));
  const columns = counts.map((count, bin) => {
    const [from, to] = [bin / BINS, (bin + 1) / BINS];
    const below = bin + 1 < BINS ? String(to) : "";
    const filters = { truth: "", answered: "", cause: "", from: String(from), below };
    const words = `confidence ${from.toFixed(2)} to ${to.toFixed(2)}: ${counted(count)}`;
    const button = make("button",
      { type: "button", class: "column", "aria-label": words, title: words, "aria-pressed": isChosen(filters) },
      make("span", { class: "bar" }));
    button.style.setProperty("--share", Math.log1p(count) / most);
    button.addEventListener("click", () => choose(filters));
    return button;
  });
  return panel("Confidence", "detections by confidence, 0 to 1; heights are logarithmic",
    make("div", { class: "columns", role: "group", "aria-label": "histogram of the confidences" }, ...columns));
}

/** Precision over recall, a small picture for each class; the point is the slider's. */
function curvesPanel(scores, step) {
  const pictures = Object.entries(scores.classes).map(([label, of]) => {
    const across = ([recall]) => (recall * CURVE_SIDE).toFixed(1);
    const up = ([, precision]) => ((1 - precision) * CURVE_SIDE).toFixed(1);
    const start = of.curve.length ? [[0, of.curve[0][1]]] : [];
    const line = [...start, ...of.curve].map((point) => `${across(point)} ${up(point)}`).join(" L ");
    const point = of.points[step];
    const words = `${label}: recall ${decimal(point[0])}, precision ${decimal(point[1])}`;
    return make("figure", { class: "curve" },
      make("svg", { viewBox: "-4 -4 108 108", role: "img", "aria-label": words },
        make("rect", { class: "frame", width: CURVE_SIDE, height: CURVE_SIDE }),
        line ? make("path", { class: "line", d: `M ${line}` }) : null,
        point[1] === null ? null : make("circle", { class: "dot", cx: across(point), cy: up(point), r: 5 })),
      make("figcaption", {}, label, make("span", {}, `${decimal(point[0])} · ${decimal(point[1])}`)));
  });
  return panel("Precision over recall", "the point is the slider's: recall · precision",
    make("div", { class: "curves" }, ...pictures));
}
