"use strict";
// The page itself: its state, which is the address after "#", the filters, the cards, the large view, the keyboard.

const page = JSON.parse(document.getElementById("data").textContent);
const { labels, images } = page;
const BOXES_ON_CARD = 5;
const BOXES_IN_LARGE = 20;
const LETTER_ON_CARD = 0.042; // height of a letter, as a share of the picture's
const LETTER_IN_LARGE = 0.02;
const LETTER_WIDTH = 0.68; // of its height, about
const KEY_STEP = 5; // of the slider
const SAME_BOX_PX = 1;
const NEAR_PX = 600; // of the window: as far around it cards have their pictures
const DEFAULTS = {
  path: page.source === "submission" ? "one" : "many", side: 0, slider: 0,
  order: page.orders.length ? "0" : NAME_ORDER, reverse: false,
  truth: "", answered: "", cause: "", from: "", below: "", fold: "", patient: "", boxes: "", text: "", right: "",
  prior: "", finding: "", marks: true, brightness: 100, contrast: 100, invert: false, open: "",
};
let state = { ...DEFAULTS };
let shown = []; // the images that pass, in order

const byId = (id) => document.getElementById(id);
const different = (values) => [...new Set(values)].sort((a, b) => (a < b ? -1 : Number(a > b)));
const sideNames = page.sides.map((side) => side.name);

// ---- the controls: one for each key of the state that a user sets, left out if it has nothing to choose ----

function controls() {
  const classes = labels.map((label, index) => [String(index), label]);
  const scored = page.sides.length > 0;
  const judged = scored && page.sides[0].scores.one.classes !== undefined;
  const any = (test) => images.some((image) => image.sides.some(test));
  const folds = different(images.map((image) => image.fold).filter((fold) => fold !== null));
  const patients = different(images.map((image) => image.patient));
  const rights = sideNames.length > 1
    ? [["10", `only ${sideNames[0]}`], ["01", `only ${sideNames[1]}`], ["11", "both"], ["00", "neither"]]
    : [["1", "yes"], ["0", "no"]];
  const rows = [
    select("order", "Sort by", [...page.orders.map((name, index) => [String(index), name]), [NAME_ORDER, "name"]]),
    check("reverse", "Reverse"),
    sideNames.length > 1 && select("side", "Run of the charts", sideNames.map((name, index) => [String(index), name])),
    (judged || any((side) => side.many?.length)) && select("path", "Boxes",
      [["many", "all candidates"], ["one", "one box, as submitted"]]),
    select("truth", "True class", judged ? [["", "any"], ...classes, [String(labels.length), "no true box"]]
      : images.some((image) => image.truth.length) ? [["", "any"], ...classes] : []),
    scored && select("answered", "Answered class",
      [["", "any"], ...classes, ...(judged ? [[String(labels.length), "missed"]] : [])]),
    judged && select("cause", "Cause of loss", [["", "any"], ...page.causes.map((name, index) => [String(index), name])]),
    judged && select("right", sideNames.length > 1 ? "Right" : "Answered right", [["", "any"], ...rights]),
    any((side) => side.prior) && select("prior", "Answered by",
      [["", "any"], ["candidate", "a candidate"], ["prior", "the location prior"]]),
    scored && number("from", "A box from confidence"),
    scored && number("below", "A box below confidence"),
    select("finding", "Finding of the audit", page.findings.length
      ? [["", "any"], ...page.findings.map((finding, index) => [String(index), finding.check])] : []),
    select("fold", "Fold", folds.length > 1 ? [["", "any"], ...folds.map((fold) => [String(fold), String(fold)])] : []),
    page.source !== "submission" && select("boxes", "True boxes",
      [["", "any"], ["0", "0"], ["1", "1"], ["2", "2"], ["3", "3 or more"]]),
    select("patient", "Patient", patients.length < images.length
      ? [["", "any"], ...patients.map((name) => [name, name])] : []),
  ];
  return rows.filter(Boolean);
}

function labelled(key, words, control) {
  control.id = `control-${key}`;
  control.dataset.key = key;
  return make("label", { class: "control", for: control.id }, make("span", {}, words), control);
}

function select(key, words, options) {
  if (options.length < 2) return null;
  return labelled(key, words, make("select", {}, ...options.map(([value, text]) => make("option", { value }, text))));
}

function check(key, words) {
  return labelled(key, words, make("input", { type: "checkbox" }));
}

function number(key, words) {
  return labelled(key, words, make("input", { type: "number", min: 0, max: 1, step: 0.01 }));
}

const keyed = () => document.querySelectorAll("[data-key]");

/** Put the state into the controls. */
function showState() {
  for (const control of keyed()) {
    const value = state[control.dataset.key];
    if (control.type === "checkbox") control.checked = value;
    else if (control.value !== String(value)) control.value = value;
  }
}

/** A value of the address or of a control, of the type that its key has; the default for what is none. */
function typed(key, text) {
  const usual = DEFAULTS[key];
  if (typeof usual === "boolean") return text === true || text === "1";
  if (typeof usual === "number") return Number.isFinite(Number(text)) ? Math.round(Number(text)) : usual;
  return String(text);
}

function change(changes) {
  state = { ...state, ...changes };
  if (state.side >= sideNames.length || state.side < 0) state.side = 0;
  state.slider = Math.min(SLIDER_STEPS, Math.max(0, state.slider));
  if (state.path !== "one") state.path = "many";
  if (state.order !== NAME_ORDER && page.orders[Number(state.order)] === undefined) state.order = DEFAULTS.order;
  render();
}

// ---- the address: what differs from the defaults ----

function address() {
  const parts = new URLSearchParams();
  for (const [key, usual] of Object.entries(DEFAULTS)) {
    if (state[key] !== usual) parts.set(key, typeof usual === "boolean" ? Number(state[key]) : state[key]);
  }
  return `#${parts}`;
}

function readAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const given = Object.keys(DEFAULTS).filter((key) => parts.has(key)).map((key) => [key, typed(key, parts.get(key))]);
  change({ ...DEFAULTS, ...Object.fromEntries(given) });
}

// ---- the whole page, from the state ----

function render() {
  const focus = focused();
  const set = images.filter((image) => inSet(image, state));
  shown = ordered(set.filter((image) => fits(image, state, labels)), state);
  byId("count").textContent = String(shown.length);
  if (page.sides.length) byId("slider-value").textContent = (state.slider / SLIDER_STEPS).toFixed(2);
  document.documentElement.style.setProperty("--brightness", state.brightness / 100);
  document.documentElement.style.setProperty("--contrast", state.contrast / 100);
  document.documentElement.style.setProperty("--invert", Number(state.invert));
  document.body.classList.toggle("bare", !state.marks);
  if (page.sides.length) byId("charts").replaceChildren(...charts(set));
  byId("gallery").replaceChildren(...shown.map(card));
  fillNear();
  restoreFocus(focus);
  showState();
  showLarge();
  const goal = address();
  if (location.hash !== goal && !(goal === "#" && location.hash === "")) history.replaceState(null, "", goal);
}

function charts(set) {
  const scores = page.sides[state.side].scores[state.path];
  const choose = (filters) => change(isChosen(filters) ? cleared(filters) : filters);
  const isChosen = (filters) => Object.entries(filters).every(([key, value]) => state[key] === value);
  const cleared = (filters) => Object.fromEntries(Object.keys(filters).map((key) => [key, ""]));
  const counts = histogramPanel(histogram(set, state), choose, isChosen);
  if (!scores.classes) return [counts];
  return [
    confusionPanel(confusion(set, state, labels), labels, choose, isChosen),
    causesPanel(countCauses(set, state, labels), page.causes, choose, isChosen),
    precisionPanel(scores, labels, state.slider, choose, isChosen),
    counts,
    curvesPanel(scores, state.slider),
  ];
}

/** What has the focus, a chart's button or a card: both are made anew, the focus stays. */
function focused() {
  const chart = [...byId("charts").querySelectorAll("button")].indexOf(document.activeElement);
  return { chart, card: document.activeElement?.closest(".card")?.dataset.name };
}

function restoreFocus({ chart, card }) {
  if (chart >= 0) byId("charts").querySelectorAll("button")[chart]?.focus();
  if (card !== undefined) buttonOf(card)?.focus({ preventScroll: true });
}

function buttonOf(name) {
  return [...document.querySelectorAll(".card")].find((item) => item.dataset.name === name)?.querySelector(".open");
}

// ---- a card: made at once, its pictures when it comes near the window ----

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) fill(entry.target);
}, { rootMargin: `${NEAR_PX}px` });

/** The pictures of the cards near the window, at once: the watcher's come a frame later, with a flicker. */
function fillNear() {
  const isNear = ({ top, bottom }) => top < window.innerHeight + NEAR_PX && bottom > -NEAR_PX;
  const near = [...byId("gallery").children].filter((item) => isNear(item.getBoundingClientRect()));
  near.forEach(fill); // after the reading: one layout, not one a card
}

function card(image) {
  const pictures = make("span", { class: "pictures" }, ...placeholders(image));
  const button = make("button", { type: "button", class: "open", "aria-label": `open ${image.name}` }, pictures);
  button.addEventListener("click", () => change({ open: image.name }));
  const item = make("li", { class: "card", "data-name": image.name }, button,
    make("p", { class: "name" }, image.name), make("p", { class: "words" }, words(image)));
  watcher.observe(item);
  return item;
}

/** What is drawn side by side: the image once for each side, or the image and its copies. */
function pictured(image) {
  if (page.sides.length > 1) return page.sides.map((side, index) => ({ image, side: index, caption: side.name }));
  return [image, ...image.beside.map((index) => images[index])].map((one) => ({ image: one, side: 0, caption: one.name }));
}

function placeholders(image) {
  return pictured(image).map((one) => {
    const frame = make("span", { class: "frame" });
    frame.style.aspectRatio = `${one.image.thumbSize[0]} / ${one.image.thumbSize[1]}`;
    return frame;
  });
}

function fill(item) {
  watcher.unobserve(item);
  const image = images.find((one) => one.name === item.dataset.name);
  const frames = item.querySelectorAll(".frame");
  pictured(image).forEach((one, index) => {
    frames[index].replaceChildren(...picture(one, BOXES_ON_CARD, LETTER_ON_CARD));
  });
}

/** The picture of an image with its boxes: the image element has the words, the drawing over it is hidden. */
function picture({ image, side, caption }, most, letters) {
  const text = image.sides.length > 1 ? `${image.name}, ${caption}: ${words(image, side)}` : `${image.name}: ${words(image)}`;
  const img = make("img", { alt: text, src: `data:image/jpeg;base64,${page.thumbs[image.thumb]}` });
  return [img, drawing(image, side, most, image.size[1] * letters)];
}

/** The boxes, the most important last and so on top, each with its words unless these would lie over others. */
function drawing(image, side, most, letter) {
  const [width, height] = image.size;
  const drawn = make("svg", { class: "marks", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true",
    preserveAspectRatio: "none" });
  const boxes = marks(image, side, most);
  drawn.append(...boxes.map(({ box: [left, top, right, bottom], kind }) =>
    make("rect", { class: kind, x: left, y: top, width: right - left, height: bottom - top })));
  const taken = [];
  for (const { box: [left, top, , bottom], kind, text } of boxes.reverse()) {
    const isBelow = kind === "true" ? bottom + letter < height : top < letter;
    const long = text.length * letter * LETTER_WIDTH;
    const place = {
      x: Math.max(0, Math.min(left, width - long)),
      y: isBelow ? Math.min(bottom + letter, height - 2) : top - letter * 0.25,
      long,
    };
    const isFree = taken.every((other) => Math.abs(other.y - place.y) > letter
      || other.x > place.x + place.long || place.x > other.x + other.long);
    if (!isFree) continue;
    taken.push(place);
    drawn.append(make("text", { class: kind, x: place.x, y: place.y, "font-size": letter }, text));
  }
  return drawn;
}

/** The boxes to draw: the best candidates that are not the answer, true boxes, and last the answers. */
function marks(image, side, most) {
  const text = (row) => `${labels[row[ROW.label]]} ${(row[ROW.score] / SCORE_STEPS).toFixed(2)}`;
  const found = image.truth.map((box) => ({ box, kind: "true", text: labels[box[ROW.label]] }));
  if (!image.sides.length) return found;
  const answers = state.path === "one" ? detections(image, state, side, "one") : image.sides[side].one || [];
  const same = (a, b) => a[ROW.label] === b[ROW.label] && [0, 1, 2, 3].every((i) => Math.abs(a[i] - b[i]) <= SAME_BOX_PX);
  const rivals = runnersUp(image, side);
  const best = rivals.filter((row) => !answers.some((answer) => same(row, answer)))
    .sort((a, b) => b[ROW.score] - a[ROW.score]).slice(0, most);
  return [
    ...best.reverse().map((box) => ({ box, kind: "candidate", text: text(box) })),
    ...found,
    ...answers.map((box) => ({ box, kind: "answer", text: text(box) })),
  ];
}

/** The candidates to draw and to list: of one box, only those of a submission, which has no true boxes beside it. */
function runnersUp(image, side) {
  return state.path === "one" && page.source !== "submission" ? [] : detections(image, state, side, "many");
}

/** What a card says of its image. */
function words(image, only = null) {
  const parts = [];
  const names = (rows) => rows.map((row) => labels[row[ROW.label]]).join(", ");
  if (page.source !== "submission") parts.push(`true: ${names(image.truth) || "no box"}`);
  image.sides.forEach((side, index) => {
    if (only !== null && only !== index) return;
    const said = (side.one || []).map((row) =>
      `${labels[row[ROW.label]]} ${(row[ROW.score] / SCORE_STEPS).toFixed(2)}` +
      `${row.length > ROW.cause ? ` (${page.causes[row[ROW.cause]]})` : ""}${side.prior ? ", by the prior" : ""}`);
    const who = image.sides.length > 1 ? `${sideNames[index]}: ` : "answered: ";
    if (said.length) parts.push(who + said.join(", "));
    else if (side.right !== null) parts.push(`${who}${side.right ? "right" : "wrong"}`);
  });
  parts.push(...image.findings.map(([number, note]) => page.findings[number].check + (note ? ` (${note})` : "")));
  if (state.order !== NAME_ORDER && page.source !== "data" && image.orders[Number(state.order)] !== null) {
    parts.push(`${page.orders[Number(state.order)]}: ${decimal(image.orders[Number(state.order)])}`);
  }
  return parts.join("; ");
}

// ---- the large view ----

function showLarge() {
  const dialog = byId("large");
  const image = images.find((one) => one.name === state.open);
  if (!image) {
    if (dialog.open) dialog.close();
    return;
  }
  byId("large-name").textContent = image.name;
  byId("large-words").textContent = [words(image), `patient ${image.patient}`,
    image.fold === null ? null : `fold ${image.fold}`, `${image.size[0]} x ${image.size[1]} px`]
    .filter(Boolean).join("; ");
  byId("large-file").href = image.file;
  byId("large-place").textContent = `${shown.indexOf(image) + 1 || "–"} of ${shown.length}`;
  byId("large-pictures").replaceChildren(...pictured(image).map((one) => {
    const frame = make("div", { class: "frame" }, ...picture(one, BOXES_IN_LARGE, LETTER_IN_LARGE));
    frame.style.aspectRatio = `${one.image.thumbSize[0]} / ${one.image.thumbSize[1]}`;
    return make("figure", {}, frame, make("figcaption", {}, one.caption));
  }));
  byId("large-boxes").replaceChildren(...boxRows(image));
  if (!dialog.open) dialog.showModal();
}

function boxRows(image) {
  const row = (who, box, score, cause) => make("tr", {},
    ...[who, labels[box[ROW.label]], score, cause, box.slice(0, 4).join(", ")].map((text) => make("td", {}, text)));
  const rows = image.truth.map((box) => row("true box", box, "", ""));
  image.sides.forEach((side, index) => {
    const name = image.sides.length > 1 ? `${sideNames[index]}: ` : "";
    const of = (kind, list) => list.map((box) => row(name + kind, box, (box[ROW.score] / SCORE_STEPS).toFixed(4),
      box.length > ROW.cause ? page.causes[box[ROW.cause]] : ""));
    const rivals = runnersUp(image, index);
    rows.push(...of("answer", side.one || []));
    rows.push(...of("candidate", [...rivals].sort((a, b) => b[ROW.score] - a[ROW.score]).slice(0, BOXES_IN_LARGE)));
    const more = rivals.length - BOXES_IN_LARGE;
    if (more > 0) rows.push(make("tr", {}, make("td", { colspan: 5 }, `${name}${counted(more)} more of lower scores`)));
  });
  return rows;
}

/** Move by so many images: the open one, or the focus on the cards. */
function move(by) {
  const cards = [...document.querySelectorAll(".card .open")];
  const open = shown.findIndex((image) => image.name === state.open);
  const at = state.open ? open : cards.indexOf(document.activeElement);
  const goal = at < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, at + by));
  if (!shown.length) return;
  if (state.open) change({ open: shown[goal].name });
  else cards[goal].focus();
}

function close() {
  const name = state.open;
  change({ open: "" });
  buttonOf(name)?.focus();
}

// ---- keys and events ----

function columns() {
  const tops = [...document.querySelectorAll(".card")].map((item) => item.offsetTop);
  return Math.max(1, tops.filter((top) => top === tops[0]).length);
}

const KEYS = {
  ArrowRight: () => move(1), j: () => move(1), ArrowLeft: () => move(-1), k: () => move(-1),
  ArrowDown: () => move(state.open ? 1 : columns()), ArrowUp: () => move(state.open ? -1 : -columns()),
  "/": () => { if (state.open) close(); byId("control-text").focus(); },
  "+": () => change({ slider: state.slider + KEY_STEP }), "-": () => change({ slider: state.slider - KEY_STEP }),
  b: () => change({ marks: !state.marks }), i: () => change({ invert: !state.invert }),
  "?": () => byId("help").showModal(),
};

/** Whether an arrow moves to another image: on a page without a focus only those aside do, the others scroll. */
function arrowMoves(event) {
  const isAside = event.key === "ArrowLeft" || event.key === "ArrowRight";
  return state.open || event.target.closest(".card") || (isAside && event.target === document.body);
}

function pressed(event) {
  const control = event.target.closest("input, select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
  if (event.key === "Escape" && control?.dataset.key === "text") control.blur();
  if (control && !(["checkbox", "range"].includes(control.type) && event.key.length === 1)) return;
  const act = Object.hasOwn(KEYS, event.key) ? KEYS[event.key] : null;
  if (!act || (event.key.startsWith("Arrow") && !arrowMoves(event))) return;
  event.preventDefault();
  act();
}

function start() {
  byId("controls").append(...controls());
  byId("total").textContent = String(images.length);
  for (const control of keyed()) {
    control.addEventListener("input", () => {
      const key = control.dataset.key;
      change({ [key]: typed(key, control.type === "checkbox" ? control.checked : control.value) });
    });
  }
  byId("reset").addEventListener("click", () => change({ ...DEFAULTS }));
  byId("previous").addEventListener("click", () => move(-1));
  byId("next").addEventListener("click", () => move(1));
  byId("large").addEventListener("close", () => { if (state.open) close(); });
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  document.addEventListener("keydown", pressed);
  window.addEventListener("hashchange", readAddress);
  window.addEventListener("beforeprint", () => document.querySelectorAll(".card").forEach(fill));
  if (window.matchMedia("(max-width: 700px)").matches) {
    for (const part of document.querySelectorAll("main details")) part.open = false;
  }
  readAddress();
}

start();
