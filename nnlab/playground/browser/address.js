// The address holds every setting: `#data=spiral&layers=adder:6:relu,float:2:tanh&…`. What is as by
// default is left out. For lessons, `hide=data,rate` hides panels and controls, and `text=…` stands above them.

const PLAIN = ["data", "last", "output", "start", "loss", "optimizer"];
const WHOLE = ["classes", "noise", "points", "share", "seed", "batch"];
const REAL = ["rate", "l1", "l2"];
const EXTRA = { stop: 0, pace: 10, test: 0, sharp: 0 }; // of the page alone
const PANELS = ["data", "network", "output", "unit", "rule", "hand"];
const CONTROLS = [
  ...["classes", "noise", "share", "points", "seed", "reseed", "pen", "csv-box", "everywhere"],
  ...["add-layer", "start", "norm", "loss", "optimizer", "rate", "batch", "l1", "l2", "costs"],
  ...["show-test", "sharp", "curve", "save", "load", "link", "pace", "stop", "back", "undo"],
];

function defaultSettings() {
  return JSON.parse(JSON.stringify(TABLES.defaults));
}

/** Whether a number can be one of `EXTRA`: whole, and a pace that a frame has time for. */
function isExtra(name, value) {
  if (name === "pace") return Number.isInteger(value) && value >= 1 && value <= 1000;
  return Number.isInteger(value) && value >= 0;
}

/** The address of a lesson, without `#`. */
function writeAddress(settings, own, extra, hidden, lines) {
  const standard = defaultSettings();
  const parts = new URLSearchParams();
  for (const name of [...PLAIN, ...WHOLE, ...REAL]) {
    if (settings[name] !== standard[name]) parts.set(name, settings[name]);
  }
  if (settings.norm !== standard.norm) parts.set("norm", settings.norm ? 1 : 0);
  if (settings.inputs.join() !== standard.inputs.join()) {
    parts.set("inputs", settings.inputs.join());
  }
  const layers = (list) => list.map((l) => [l.arithmetic, l.units, l.activation].join(":")).join();
  if (layers(settings.layers) !== layers(standard.layers)) {
    parts.set("layers", layers(settings.layers));
  }
  for (const [name, value] of Object.entries(EXTRA)) {
    if (extra[name] !== value) parts.set(name, extra[name]);
  }
  if (settings.data === "own") {
    parts.set("own", own.map((point) => point.map((x) => +x.toFixed(3)).join(",")).join(";"));
  }
  if (hidden.length) parts.set("hide", hidden.join());
  if (lines) parts.set("text", lines);
  return parts.toString().replaceAll("%2C", ",").replaceAll("%3A", ":").replaceAll("%3B", ";");
}

/** Settings, own points and the rest that an address says, and a sentence on what it says wrongly. */
function readAddress(text) {
  const settings = defaultSettings();
  const extra = { ...EXTRA };
  let own = [];
  let hidden = [];
  let lines = "";
  const wrong = [];
  for (const [name, value] of new URLSearchParams(text)) {
    const before = JSON.stringify(settings);
    if (PLAIN.includes(name)) settings[name] = value;
    else if (WHOLE.includes(name) || REAL.includes(name)) settings[name] = Number(value);
    else if (name === "norm") settings.norm = value === "1";
    else if (name === "inputs") settings.inputs = value.split(",");
    else if (name === "layers") {
      settings.layers = value
        .split(",")
        .filter(Boolean)
        .map((part) => {
          const [arithmetic, units, activation] = part.split(":");
          return { arithmetic, units: Number(units), activation };
        });
    } else if (Object.hasOwn(EXTRA, name) && isExtra(name, Number(value))) extra[name] = Number(value);
    else if (name === "text") lines = value.slice(0, 2000);
    else if (name === "hide") {
      const known = [...PANELS, ...CONTROLS];
      hidden = value.split(",").filter((part) => known.includes(part));
      if (hidden.length < value.split(",").length) wrong.push(name);
    } else if (name === "own") {
      own = value
        .split(";")
        .filter(Boolean)
        .map((point) => point.split(",").map(Number));
      if (!own.every((point) => wrongPoint(point) === "")) [own] = [[], wrong.push("own")];
    } else wrong.push(name);
    if (wrongSetting(settings)) {
      Object.assign(settings, JSON.parse(before));
      wrong.push(name);
    }
  }
  if (settings.data === "own" && !own.length) settings.data = "circle";
  settings.classes = Math.max(settings.classes, classesOf(own));
  if (isRegression(settings)) settings.loss = "squared";
  const problem = wrong.length
    ? `The address says ${wrong.join(", ")} in a way that is not known.`
    : "";
  return { settings, own, extra, hidden, lines, problem };
}

/** What is wrong with settings, or "". The limits are those of `Settings.check` in Python. */
function wrongSetting(settings) {
  const names = {
    data: TABLES.data,
    last: Object.keys(TABLES.arithmetics),
    output: Object.keys(TABLES.activations),
    start: TABLES.starts,
    loss: TABLES.losses,
    optimizer: Object.keys(TABLES.optimizers),
  };
  for (const [name, known] of Object.entries(names)) {
    if (!known.includes(settings[name])) return `${name} must be one of ${known.join(", ")}`;
  }
  const ranges = { classes: [2, 4], noise: [0, 50], points: [2, 2000], share: [10, 90] };
  Object.assign(ranges, { batch: [1, 2000], seed: [0, 4294967295] });
  for (const [name, [low, high]] of Object.entries(ranges)) {
    const value = settings[name];
    if (!Number.isInteger(value) || value < low || value > high) {
      return `${name} must be a whole number from ${low} to ${high}`;
    }
  }
  for (const name of REAL) {
    if (!(settings[name] >= 0 && settings[name] <= 1000)) return `${name} must be a number from 0`;
  }
  const { inputs, layers } = settings;
  if (!inputs.length || !inputs.every((name) => TABLES.features.includes(name))) {
    return "a network needs an input or more";
  }
  if (layers.length > 8) return "a network has at most 8 hidden layers";
  for (const layer of layers) {
    if (!(layer.arithmetic in TABLES.arithmetics) || !(layer.activation in TABLES.activations)) {
      return "a layer needs an arithmetic and an activation";
    }
    if (!Number.isInteger(layer.units) || layer.units < 1 || layer.units > 16) {
      return "a layer has 1 to 16 units";
    }
  }
  return "";
}

/** How many classes points are of. */
function classesOf(own) {
  return Math.max(0, ...own.map((point) => point[2] + 1));
}

/** What is wrong with a point [x, y, class], or "". */
function wrongPoint(point) {
  if (point.length !== 3 || !point.every(Number.isFinite)) return "is not x, y, class";
  if (!(Number.isInteger(point[2]) && point[2] >= 0 && point[2] <= 3)) {
    return "has a class other than 0, 1, 2 or 3";
  }
  return "";
}

/**
 * Points in text of rows "x, y, class", and a sentence if one is none; a heading is skipped. Classes
 * may be numbers or, if the first is one, names, which are numbered as they come.
 */
function readCsv(text) {
  const points = [];
  const bad = [];
  let names = null;
  text.split(/\r?\n/).forEach((line, k) => {
    if (!line.trim() || (!points.length && !bad.length && /^[\s"]*[a-z]/i.test(line))) return;
    const parts = line.split(/[,;\t]/.test(line) ? /[,;\t]/ : /\s+/).map((part) => part.trim());
    const point = parts.map((part) => (part ? Number(part) : NaN));
    if (parts.length === 3 && parts[2]) {
      names ??= Number.isNaN(point[2]) ? [] : false;
      if (names && !names.includes(parts[2])) names.push(parts[2]);
      if (names) point[2] = names.indexOf(parts[2]);
    }
    const problem = names?.length > 4 ? "is of a fifth class" : wrongPoint(point);
    if (problem) bad.push(`row ${k + 1} ${problem}`);
    else points.push(point);
  });
  if (bad.length) {
    const more = bad.length > 1 ? ` (and ${bad.length - 1} more)` : "";
    return { points: [], problem: `Nothing was taken, since ${bad[0]}${more}.` };
  }
  if (!points.length) return { points, problem: "There are no rows; expected x, y, class." };
  if (points.length > 2000) return { points: [], problem: "There are more than 2,000 rows." };
  const named = (names || []).map((name, k) => `${name} is class ${k}`).join(", ");
  return { points: scaled(points), problem: "", named };
}

/** Points moved into the plane that is shown, if some lie outside. */
function scaled(points) {
  if (points.every(([x, y]) => Math.abs(x) <= RANGE && Math.abs(y) <= RANGE)) return points;
  const axes = [0, 1].map((axis) => {
    const numbers = points.map((point) => point[axis]);
    const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
    return (x) => (high > low ? ((x - low) / (high - low) - 0.5) * 1.8 * RANGE : 0);
  });
  return points.map(([x, y, label]) => [axes[0](x), axes[1](y), label]);
}
