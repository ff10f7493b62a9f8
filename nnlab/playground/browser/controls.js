// What controls, keys and pointers do.

function wire() {
  const on = (id, event, action) => $(id).addEventListener(event, action);
  on("run", "click", () => run(!page.running));
  on("step", "click", oneStep);
  on("back", "click", oneBack);
  on("rewind", "click", rewind);
  on("undo", "click", undo);
  on("pace", "change", () => {
    page.extra.pace = Number($("pace").value);
    writeHash();
  });
  on("stop", "change", () => {
    const epoch = Number($("stop").value);
    const whole = Number.isInteger(epoch) && epoch >= 0;
    say(whole ? "" : "Nothing was changed: stop at epoch must be a whole number, or empty.");
    if (whole) page.extra.stop = epoch;
    $("stop").value = page.extra.stop || "";
    writeHash();
  });
  for (const id of ["data", "start", "loss", "optimizer"])
    on(id, "change", () => change({ [id]: $(id).value }));
  for (const id of ["classes", "noise", "share", "rate", "l1", "l2"]) {
    on(id, "change", () => change({ [id]: Number($(id).value) }));
  }
  for (const id of ["points", "seed", "batch"]) {
    on(id, "change", () => change({ [id]: $(id).value === "" ? NaN : Number($(id).value) }));
  }
  on("reseed", "click", () => change({ seed: Math.floor(Math.random() * 10000) }));
  on("norm", "change", () => change({ norm: $("norm").checked }));
  on("everywhere", "change", everywhere);
  on("add-layer", "click", () => {
    const { layers } = page.lesson.settings;
    const like = layers[layers.length - 1] ?? TABLES.defaults.layers[0];
    change({ layers: [...layers, { ...like, units: Math.min(4, like.units) }] });
  });
  on("show-test", "change", () => {
    page.extra.test = +$("show-test").checked;
    drawDots();
    writeHash();
  });
  on("sharp", "change", () => {
    page.extra.sharp = +$("sharp").checked;
    draw();
    writeHash();
  });
  on("dots", "click", (event) => {
    if (page.pen < 0) return;
    const [x, y] = placeOf(event);
    addPoint(x, y);
  });
  on("dots", "pointermove", readMap);
  on("dots", "pointerleave", () => ($("reading").innerHTML = "&nbsp;"));
  on("csv-take", "click", () => {
    const { points, problem, named } = readCsv($("csv").value);
    $("csv-message").textContent = problem || named;
    // In random order, since the first ones are for training and rows are often sorted.
    const { seed } = page.lesson.settings;
    const order = randomOrder(points.length, seed, TABLES.streams.split);
    if (!problem) takeOwn(order.map((k) => points[k]));
  });
  on("csv-show", "click", () => {
    const { train, test } = page.lesson;
    const rows = [train, test].flatMap((part) =>
      part.labels.map((label, k) =>
        [part.xy[2 * k].toFixed(3), part.xy[2 * k + 1].toFixed(3), label].join(", "),
      ),
    );
    $("csv").value = ["x, y, class", ...rows].join("\n");
  });
  on("save", "click", save);
  on("load", "change", load);
  on("link", "click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      $("file-message").textContent = "The link is copied.";
    } catch {
      $("file-message").textContent = "The link is in the address bar.";
    }
  });
  $("rule").addEventListener("change", (event) => {
    page.selected.input = Number(event.target.value);
    draw();
  });
  on("curve", "pointermove", readCurve);
  on("curve", "pointerleave", () => ($("curve-reading").innerHTML = "&nbsp;"));
  wireLinks(on);
  wireHand(on);
  document.addEventListener("keydown", keys);
  window.addEventListener("resize", () => build());
  window.addEventListener("hashchange", () => {
    if (location.hash.slice(1) !== page.address) {
      run(false);
      page.history = [];
      begin();
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    page.colours = readColours();
    build();
  });
}

/** Put all hidden layers into one arithmetic. */
function everywhere() {
  const arithmetic = $("everywhere").value;
  const { layers } = page.lesson.settings;
  // Signs of the two coordinates say little, so models keep the layer before signs in floats.
  const binary = arithmetic === "binary" && layers.length > 1;
  change({
    layers: layers.map((l, k) => ({ ...l, arithmetic: binary && !k ? "float" : arithmetic })),
  });
  if (binary) say("The first layer stays float: a binary layer sees only the signs of its inputs.");
}

/** A line shows its weight where it is pointed at, and after a click the weight may be changed. */
function wireLinks(on) {
  const [box, label, input] = [$("edit"), $("edit").firstChild, $("edit-value")];
  const close = () => {
    page.link = null;
    box.hidden = true;
  };
  const place = (event) => {
    const frame = $("panel-network").getBoundingClientRect();
    box.style.left = `${Math.min(event.clientX - frame.left + 8, frame.width - 180)}px`;
    box.style.top = `${event.clientY - frame.top + 12}px`;
  };
  const open = (event, editing) => {
    const lines = event.target.closest(".wide");
    if (!lines || (page.link && !editing)) return;
    const link = linkAt(Array.prototype.indexOf.call(lines.children, event.target));
    const value = page.lesson.layers[link.layer].w[link.place];
    box.hidden = false;
    box.classList.toggle("editing", editing);
    label.textContent = editing ? link.name : `${link.name}: ${show(value)}, click to change`;
    place(event);
    if (!editing) return;
    page.link = link;
    input.value = +value.toPrecision(6);
    input.select();
  };
  on("links", "pointermove", (event) => open(event, false));
  on("links", "pointerleave", () => page.link || close());
  on("links", "click", (event) => open(event, true));
  on("edit-value", "keydown", (event) => {
    if (event.key === "Enter") input.blur();
    if (event.key === "Escape") close();
  });
  on("edit-value", "blur", () => {
    const { link } = page;
    close();
    const value = Number(input.value);
    if (!link || input.value === "" || !Number.isFinite(value)) return;
    if (value !== +page.lesson.layers[link.layer].w[link.place].toPrecision(6)) {
      setWeight(link.layer, "w", link.place, value);
    }
  });
}

/** The weight of a line, by its number: its layer, its place there, and its name. */
function linkAt(number) {
  const { settings, layers } = page.lesson;
  let [layer, place] = [0, number];
  while (place >= layers[layer].w.length) place -= layers[layer++].w.length;
  const [from, to] = [Math.floor(place / layers[layer].fanOut), place % layers[layer].fanOut];
  const before = layer ? `unit ${from + 1} of layer ${layer}` : NICE[settings.inputs[from]];
  const after = layer < layers.length - 1 ? `unit ${to + 1} of layer ${layer + 1}` : `output ${to + 1}`;
  return { layer, place, name: `${before} → ${after}` };
}

/** Say what the curve shows at the step that is pointed at. */
function readCurve(event) {
  const { left, width } = $("curve").getBoundingClientRect();
  const last = page.history[page.history.length - 1]?.step ?? 0;
  const share = ((event.clientX - left) / width - CURVE.left) / (1 - CURVE.left - CURVE.right);
  const far = (entry) => Math.abs(entry.step - share * last);
  const near = page.history.reduce((best, entry) => (far(entry) < far(best) ? entry : best));
  const losses = [["training", near.train], ["test", near.test]].filter(([, loss]) => loss !== null);
  $("curve-reading").textContent =
    `step ${near.step}: ` + losses.map(([name, loss]) => `${name} ${loss.toFixed(4)}`).join(", ");
}

function wireHand(on) {
  options($("hand-arithmetic"), same(Object.keys(TABLES.arithmetics)), "float");
  const restart = () => {
    const worked = $("hand-what").value === "worked";
    $("hand-arithmetic").disabled = !worked;
    page.hand.start(worked ? workedLesson($("hand-arithmetic").value) : copiedLesson(page.lesson));
  };
  on("hand-what", "change", restart);
  on("hand-arithmetic", "change", restart);
  on("hand-restart", "click", restart);
  on("hand-next", "click", () => page.hand.next());
  on("hand-back", "click", () => page.hand.back());
  on("hand-all", "click", () => page.hand.whole());
}

function keys(event) {
  const typing = event.target.closest("input, select, textarea, button, summary");
  const text = event.target.closest("input:not([type=range], [type=checkbox], [type=radio]), textarea");
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && !text) {
    event.preventDefault();
    undo();
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const actions = {
    " ": () => run(!page.running),
    ArrowRight: oneStep,
    ArrowLeft: oneBack,
    r: rewind,
    R: rewind,
  };
  const free = !typing || (typing.matches("button") && event.key !== " ");
  if (!(event.key in actions) || !free) return;
  event.preventDefault();
  actions[event.key]();
}

function placeOf(event) {
  const frame = $("dots").getBoundingClientRect();
  const x = ((event.clientX - frame.left) / frame.width) * 2 * RANGE - RANGE;
  const y = RANGE - ((event.clientY - frame.top) / frame.height) * 2 * RANGE;
  return [x, y].map((value) => Math.max(-RANGE, Math.min(RANGE, +value.toFixed(3))));
}

/** Say what the network answers at the place that is pointed at. */
function readMap(event) {
  const [x, y] = placeOf(event);
  const { settings, layers } = page.lesson;
  const values = forward(layers, inputsOf(settings, Float32Array.of(x, y)), 1);
  const outputs = values[values.length - 1].a;
  const probabilities = sharesOf(settings, outputs, 1);
  const words = isRegression(settings)
    ? show(outputs[0])
    : Array.from(probabilities, (p, k) => `class ${k}: ${(100 * p).toFixed(1)} %`).join(", ");
  $("reading").textContent = `(${x.toFixed(2)}, ${y.toFixed(2)}): ${words}`;
}

function save() {
  const text = JSON.stringify(page.lesson);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = `nnlab-${page.lesson.settings.data}-${page.lesson.step}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function load() {
  const [file] = $("load").files;
  if (!file) return;
  try {
    restore(JSON.parse(await file.text()));
    $("file-message").textContent = "";
  } catch (error) {
    $("file-message").textContent = `${file.name} is not a network that this page has saved.`;
  }
  $("load").value = "";
}
