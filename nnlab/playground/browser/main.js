// The page: its state, the loop of frames, and what follows the weights.

const $ = (id) => document.getElementById(id);
const RATES = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const PENALTIES = [0, 0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1];
const PACES = [1, 2, 5, 10, 20, 50, 100];
const NICE = {
  x1: "x₁",
  x2: "x₂",
  "x1^2": "x₁²",
  "x2^2": "x₂²",
  x1x2: "x₁x₂",
  sin2x1: "sin 2x₁",
  sin2x2: "sin 2x₂",
};

const page = {
  ...{ running: false, selected: { layer: 0, unit: 0, input: 0 }, pen: -1, history: [], frames: 0 },
  ...{ extra: { ...EXTRA }, hidden: [], lines: "", grid: gridPoints(), changes: [] },
};

function begin() {
  const read = readAddress(location.hash.slice(1));
  page.extra = read.extra;
  page.hidden = read.hidden;
  page.lesson = new Lesson(read.settings, read.own);
  page.lines = $("lesson-text").textContent = read.lines;
  for (const part of [...PANELS, ...CONTROLS]) {
    const element = PANELS.includes(part) ? $("panel-" + part) : ($(part).closest("label") ?? $(part));
    element.classList.toggle("hidden", read.hidden.includes(part));
  }
  page.colours = readColours();
  page.hand ??= new Hand($("hand"));
  build();
  say(read.problem);
}

function say(text) {
  $("message").textContent = text;
}

function run(on) {
  const ended = page.running && !on;
  page.running = on;
  $("run").textContent = on ? "❚❚ Pause" : "▶ Train";
  cancelAnimationFrame(page.next);
  if (on) page.next = requestAnimationFrame(frame);
  if (ended) drawNumbers();
}

function frame() {
  train(page.extra.pace);
  draw();
  page.frames++;
  if (page.running) page.next = requestAnimationFrame(frame);
}

function train(steps) {
  const { lesson } = page;
  for (let k = 0; k < steps; k++) {
    if (page.extra.stop && lesson.epoch >= page.extra.stop) {
      run(false);
      say(`Stopped after epoch ${lesson.epoch}, as asked.`);
      return;
    }
    if (!lesson.trainStep()) {
      run(false);
      say(lesson.problem || "There are no points to train on.");
      return;
    }
  }
}

function oneStep() {
  run(false);
  train(1);
  draw();
}

function oneBack() {
  run(false);
  if (!page.lesson.stepBack()) say("There is no step to take back.");
  else say("");
  page.history = page.history.filter((entry) => entry.step <= page.lesson.step);
  draw();
}

function rewind() {
  run(false);
  if (page.lesson.step) remember();
  page.lesson.rewind();
  page.history = [];
  say("");
  draw();
}

/** Everything that changes with the weights. */
function draw() {
  const { lesson, colours, grid } = page;
  const { settings, layers } = lesson;
  const count = grid.length / 2;
  page.gridInputs ??= inputsOf(settings, grid);
  const values = forward(layers, page.gridInputs, count);
  values.forEach(({ a }, k) => {
    const boxes = page.columns[k + 1];
    const scale = ["tanh", "sigmoid", "hard_tanh"].includes(layers[k].activation) ? 1 : 0;
    boxes.forEach((box, unit) => {
      drawUnit(box.firstChild, a, unit, layers[k].fanOut, colours, scale);
    });
  });
  const outputs = values[values.length - 1].a;
  const wide = outputsOf(settings);
  const probabilities = sharesOf(settings, outputs, count);
  page.values = { outputs, probabilities, layers: values };
  const shown = page.hover;
  if (shown)
    drawUnit($("map"), values[shown.layer].a, shown.unit, layers[shown.layer].fanOut, colours);
  else drawOutput($("map"), outputs, probabilities, wide, colours, page.extra.sharp);
  drawLinks($("links"), layers, colours);
  $("epoch").textContent = lesson.epoch;
  $("count").textContent = lesson.step;
  if (!page.running || page.frames % 5 === 0) drawNumbers();
}

/** What is read and need not follow every frame: scores, curve and panels. */
function drawNumbers() {
  const { lesson, colours } = page;
  const [onTrain, onTest] = [lesson.measure(lesson.train), lesson.measure(lesson.test)];
  record(onTrain, onTest);
  drawCurve($("curve"), page.history, colours);
  nameDead();
  const score = (name, { loss, accuracy }) =>
    loss === null
      ? ""
      : `${name}: loss ${loss.toFixed(4)}` +
        (accuracy === null ? "" : `, ${accuracy.toFixed(1)} % right`);
  $("scores").textContent = [score("training", onTrain), score("test (dashed)", onTest)]
    .filter(Boolean)
    .join(" · ");
  drawUnitPanel($("unit"), lesson, page.selected, setWeight);
  drawRulePanel($("rule"), lesson, { ...page.selected, ...page.hover }, colours);
}

/** How much of each class the outputs are: probabilities, or outputs cut off at 0 and 1. */
function sharesOf(settings, outputs, count) {
  if (settings.loss === "cross_entropy") return lab.softmax(count, outputsOf(settings), outputs)[0];
  const low = lowTarget(settings);
  return outputs.map((value) => Math.max(0, Math.min(1, (value - low) / (1 - low))));
}

function record(onTrain, onTest) {
  const { history, lesson } = page;
  const entry = { step: lesson.step, train: onTrain.loss, test: onTest.loss };
  if (history.length && history[history.length - 1].step === entry.step) history.pop();
  history.push(entry);
  if (history.length > 600) page.history = history.filter((_, k) => k % 2 === 0);
}

/** Mark units that give the same for every training point, and say which. */
function nameDead() {
  const { lesson } = page;
  if (!lesson.train.count) return;
  const values = forward(lesson.layers, lesson.train.inputs, lesson.train.count);
  const dead = [];
  values.slice(0, -1).forEach(({ a }, k) => {
    const wide = lesson.layers[k].fanOut;
    for (let unit = 0; unit < wide; unit++) {
      let constant = true;
      for (let p = unit; p < a.length && constant; p += wide) constant = a[p] === a[unit];
      page.columns[k + 1][unit].classList.toggle("dead", constant);
      if (constant) dead.push(`unit ${unit + 1} of layer ${k + 1}`);
    }
  });
  $("about").textContent = dead.length
    ? `Dead: ${dead.join(", ")}, the same number for every training point.`
    : "Boxes show a unit over the plane. Lines are weights: width the size, dashes and orange positive, blue negative.";
}

wire();
begin();
