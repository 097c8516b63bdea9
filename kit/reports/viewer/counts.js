"use strict";
// What the page counts and filters: functions of the page's data (docs/view.md) and of the state, without any element.
//
// An event is a detection that the slider leaves, or a true box that none of these finds. Its row is the true class
// (`labels.length`: no true box), its column the answered class (`labels.length`: missed), as in the confusion matrix.

const ROW = { label: 4, score: 5, cause: 6, box: 7 }; // where they stand in the row of a detection
const CAUSE = { right: 0, wrongClass: 1, wrongPlace: 2, duplicate: 3, background: 4, missed: 5 };
const SCORE_STEPS = 10000; // of a score
const SLIDER_STEPS = 100;
const BINS = 20; // of the histogram of the confidences
const NAME_ORDER = "name";

/** The detections of one path ("one", "many") of one side on an image that the slider leaves; none if not scored. */
function detections(image, state, side = state.side, path = state.path) {
  const rows = image.sides[side] && image.sides[side][path];
  const least = state.slider * (SCORE_STEPS / SLIDER_STEPS);
  return (rows || []).filter((row) => row[ROW.score] >= least);
}

/** The events of an image on the path of the state. */
function events(image, state, labels) {
  const nothing = labels.length;
  const side = image.sides[state.side];
  if (!side || !side[state.path]) return [];
  const rows = detections(image, state);
  const found = rows.map((row) => {
    const cause = row[ROW.cause];
    const onTrueBox = cause === CAUSE.right || cause === CAUSE.wrongClass;
    const trueClass = onTrueBox ? image.truth[row[ROW.box]][ROW.label] : nothing;
    return { row: trueClass, column: row[ROW.label], cause, score: row[ROW.score] };
  });
  if (!rows.length || rows[0].length > ROW.cause) found.push(...unfound(image, rows, nothing));
  return found;
}

/** The true boxes that no detection takes and no wrong class lies on; "missed" if no misplaced box is near either. */
function unfound(image, rows, nothing) {
  const touched = (...causes) =>
    new Set(rows.filter((row) => causes.includes(row[ROW.cause])).map((row) => row[ROW.box]));
  const taken = touched(CAUSE.right, CAUSE.wrongClass);
  const near = touched(CAUSE.wrongPlace);
  return image.truth.flatMap((box, index) =>
    taken.has(index)
      ? []
      : [{ row: box[ROW.label], column: nothing, cause: near.has(index) ? null : CAUSE.missed, score: null }],
  );
}

/** Whether an image passes the filters that do not look at single detections. */
function inSet(image, state) {
  const boxes = image.truth.length;
  return (
    (state.fold === "" || image.fold === Number(state.fold)) &&
    (state.patient === "" || image.patient === state.patient) &&
    (state.boxes === "" || (state.boxes === "3" ? boxes >= 3 : boxes === Number(state.boxes))) &&
    image.name.toLowerCase().includes(state.text.toLowerCase()) &&
    (state.right === "" || rightness(image) === state.right) &&
    (state.prior === "" || image.sides[state.side].prior === (state.prior === "prior")) &&
    (state.finding === "" || image.findings.some(([number]) => number === Number(state.finding)))
  );
}

/** Which sides answer an image right, a letter for each ("10": only the first); "" without a true box. */
function rightness(image) {
  return image.sides.map((side) => (side.right === null ? "" : Number(side.right))).join("");
}

/** Whether an image has an event that fits the filters of class, cause and confidence together. */
function fits(image, state, labels) {
  const { truth, answered, cause, from, below } = state;
  if (!answered && !cause && !from && !below) {
    if (!truth) return true;
    if (Number(truth) < labels.length) return image.truth.some((box) => box[ROW.label] === Number(truth));
  }
  const ranged = from !== "" || below !== "";
  return events(image, state, labels).some(
    (event) =>
      (!truth || event.row === Number(truth)) &&
      (!answered || event.column === Number(answered)) &&
      (!cause || event.cause === Number(cause)) &&
      (!ranged || (event.score !== null && inRange(event.score / SCORE_STEPS, from, below))),
  );
}

function inRange(score, from, below) {
  return (from === "" || score >= Number(from)) && (below === "" || score < Number(below));
}

/** The images in the order of the state: by a falling value, those without one last, then by name. */
function ordered(images, state) {
  const byName = (a, b) => (a.name < b.name ? -1 : Number(a.name > b.name));
  if (state.order === NAME_ORDER) return [...images].sort(state.reverse ? (a, b) => byName(b, a) : byName);
  const value = (image) => image.orders[Number(state.order)];
  const direction = state.reverse ? -1 : 1;
  return [...images].sort((a, b) => {
    const [first, second] = [value(a), value(b)];
    if (first === second) return byName(a, b);
    if (first === null || second === null) return first === null ? 1 : -1;
    return direction * (second - first);
  });
}

/** By cause (right, wrong class ... missed), how many detections or missed boxes the images have. */
function countCauses(images, state, labels) {
  const counts = new Array(Object.keys(CAUSE).length).fill(0);
  for (const image of images) {
    for (const event of events(image, state, labels)) {
      if (event.cause !== null && event.cause !== undefined) counts[event.cause] += 1;
    }
  }
  return counts;
}

/** The confusion matrix: a row for each true class and one for no true box, a column for each answer and "missed". */
function confusion(images, state, labels) {
  const matrix = [...labels, null].map(() => new Array(labels.length + 1).fill(0));
  for (const image of images) {
    for (const event of events(image, state, labels)) matrix[event.row][event.column] += 1;
  }
  return matrix;
}

/** How many detections have a confidence of 0 to .05, of .05 to .1, ... of .95 to 1. */
function histogram(images, state) {
  const counts = new Array(BINS).fill(0);
  for (const image of images) {
    for (const row of detections(image, state)) {
      counts[Math.min(BINS - 1, Math.floor((row[ROW.score] * BINS) / SCORE_STEPS))] += 1;
    }
  }
  return counts;
}
