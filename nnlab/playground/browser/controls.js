// What controls, keys and pointers do.

function wire() {
  const on = (id, event, action) => $(id).addEventListener(event, action);
  on("run", "click", () => run(!page.running));
  on("step", "click", oneStep);
  on("back", "click", oneBack);
  on("rewind", "click", rewind);
  on("pace", "change", () => {
    page.extra.pace = Number($("pace").value);
    writeHash();
  });
  on("stop", "change", () => {
    page.extra.stop = Math.max(0, Math.floor(Number($("stop").value)) || 0);
    writeHash();
  });
  for (const id of ["data", "loss", "optimizer"])
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
    const { points, problem } = readCsv($("csv").value);
    $("csv-message").textContent = problem;
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
