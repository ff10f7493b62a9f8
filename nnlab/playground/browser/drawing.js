// Pictures: maps of units over the plane, points, links and the curve of the loss.

const GRID = 60; // points along a side of a map

/** The middle of every pixel of a map, from the upper left. */
function gridPoints(side = GRID) {
  const xy = new Float32Array(2 * side * side);
  for (let row = 0, t = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      xy[t++] = ((2 * column + 1) / side - 1) * RANGE;
      xy[t++] = (1 - (2 * row + 1) / side) * RANGE;
    }
  }
  return xy;
}

/** The colours of the style sheet as [red, green, blue]. */
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const rgb = (name) => {
    const text = style.getPropertyValue(name).trim();
    return [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16));
  };
  const css = (name) => style.getPropertyValue(name).trim();
  return {
    classes: [0, 1, 2, 3].map((k) => rgb("--class" + k)),
    names: [0, 1, 2, 3].map((k) => css("--class" + k)),
    paper: rgb("--paper"),
    ...{ ink: css("--ink"), quiet: css("--quiet"), rule: css("--rule"), bad: css("--bad") },
  };
}

/** Paint a number from -1 (colour of class 0) over 0 (paper) to 1 (colour of class 1). */
function paintSigned(pixels, place, value, colours) {
  const size = Math.min(1, Math.abs(value)) * 0.9;
  const colour = colours.classes[value < 0 ? 0 : 1];
  for (let k = 0; k < 3; k++) {
    pixels[place + k] = colours.paper[k] + size * (colour[k] - colours.paper[k]);
  }
  pixels[place + 3] = 255;
}

/** The map of one unit: `values` are those of all units of a layer on the grid. */
function drawUnit(canvas, values, unit, wide, colours, scale) {
  const side = canvas.width;
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  let size = scale;
  if (!size) {
    for (let k = 0; k < side * side; k++) {
      size = Math.max(size || 1e-9, Math.abs(values[k * wide + unit]));
    }
  }
  for (let k = 0; k < side * side; k++) {
    paintSigned(image.data, 4 * k, values[k * wide + unit] / size, colours);
  }
  context.putImageData(image, 0, 0);
}

/** The map of the output: probabilities of classes, or the number of a regression. */
function drawOutput(canvas, outputs, probabilities, wide, colours, sharp) {
  const side = Math.round(Math.sqrt(outputs.length / wide));
  if (canvas.width !== side) canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  for (let k = 0; k < side * side; k++) {
    const place = 4 * k;
    if (wide === 1) {
      const value = outputs[k];
      paintSigned(image.data, place, sharp ? Math.sign(value) : value, colours);
    } else if (wide === 2) {
      const value = probabilities[2 * k + 1] - probabilities[2 * k];
      paintSigned(image.data, place, sharp ? Math.sign(value) : value, colours);
    } else {
      const best = largest(probabilities, k * wide, wide);
      for (let c = 0; c < 3; c++) {
        let mixed = 0;
        for (let j = 0; j < wide; j++) {
          const share = sharp ? +(j === best) : probabilities[k * wide + j] ** 2;
          mixed += share * 0.9 * (colours.classes[j][c] - colours.paper[c]);
        }
        image.data[place + c] = colours.paper[c] + mixed;
      }
      image.data[place + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

/** Points: a shape and a colour for each class; those of a regression by their number. */
function drawPoints2d(canvas, parts, regression, colours) {
  const context = canvas.getContext("2d");
  const side = canvas.width;
  context.clearRect(0, 0, side, side);
  for (const { part, filled } of parts) {
    part.labels.forEach((label, k) => {
      const x = ((part.xy[2 * k] / RANGE + 1) / 2) * side;
      const y = ((1 - part.xy[2 * k + 1] / RANGE) / 2) * side;
      const kind = regression ? (label < 0 ? 0 : 1) : label;
      const r = regression ? 3 + 4 * Math.abs(label) : 6.5;
      context.beginPath();
      if (kind === 0 || regression) context.arc(x, y, r, 0, 2 * Math.PI);
      else if (kind === 1) context.rect(x - r * 0.85, y - r * 0.85, 1.7 * r, 1.7 * r);
      else polygon(context, x, y, r * 1.2, kind === 2 ? 3 : 4);
      context.fillStyle = colours.names[kind];
      context.strokeStyle = filled ? "#fff" : "#000";
      context.lineWidth = filled ? 1.5 : 2;
      context.fill();
      context.stroke();
    });
  }
}

function polygon(context, x, y, r, corners) {
  for (let k = 0; k < corners; k++) {
    const angle = (2 * Math.PI * k) / corners - Math.PI / 2;
    context.lineTo(x + r * Math.cos(angle), y + r * Math.sin(angle));
  }
  context.closePath();
}

const CURVE = { left: 64 / 600, right: 12 / 600 }; // margins, as shares of the width

/** Curves of loss for training and test, with numbers at the axes. */
function drawCurve(canvas, history, colours) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  const seen = history.filter((entry) => entry.train !== null);
  if (!seen.length) return;
  const [left, right] = [CURVE.left * width, width - CURVE.right * width];
  const [bottom, top] = [height - 30, 14];
  const last = Math.max(1, seen[seen.length - 1].step);
  const high = Math.max(...seen.flatMap((entry) => [entry.train, entry.test ?? 0]), 1e-6);
  const x = (step) => left + (step / last) * (right - left);
  const y = (loss) => bottom - (loss / high) * (bottom - top);
  context.font = "20px system-ui, sans-serif";
  context.fillStyle = colours.quiet;
  context.strokeStyle = colours.rule;
  for (const part of [0, 0.5, 1]) {
    context.beginPath();
    context.moveTo(left, y(part * high));
    context.lineTo(right, y(part * high));
    context.stroke();
    context.textAlign = "right";
    context.fillText((part * high).toPrecision(2), left - 8, y(part * high) + 7);
  }
  context.textAlign = "left";
  context.fillText("step 0", left, height - 6);
  context.textAlign = "right";
  context.fillText(String(last), right, height - 6);
  for (const [name, colour, dash] of [
    ["train", colours.ink, []],
    ["test", colours.names[1], [8, 5]],
  ]) {
    const points = seen.filter((entry) => entry[name] !== null);
    context.strokeStyle = colour;
    context.lineWidth = 2.5;
    context.setLineDash(dash);
    context.beginPath();
    points.forEach((entry) => context.lineTo(x(entry.step), y(entry[name])));
    context.stroke();
    context.setLineDash([]);
  }
}

/** Make the lines between the boxes of units, in the order of the weights. */
function placeLinks(svg, columns, layers) {
  const frame = svg.getBoundingClientRect();
  const places = columns.map((boxes) =>
    boxes.map((box) => {
      const { left, right, top, height } = box.getBoundingClientRect();
      return {
        left: left - frame.left,
        right: right - frame.left,
        y: top + height / 2 - frame.top,
      };
    }),
  );
  const lines = [];
  layers.forEach((layer, k) => {
    for (const from of places[k]) {
      for (const to of places[k + 1]) {
        const middle = (from.right + to.left) / 2;
        const bend = `C${middle} ${from.y} ${middle} ${to.y} ${to.left} ${to.y}`;
        lines.push(`<path d="M${from.right} ${from.y}${bend}" fill="none"/>`);
      }
    }
  });
  // The second group is wide and not seen: a thin line is hard to point at.
  svg.innerHTML = `<g>${lines.join("")}</g><g class="wide">${lines.join("")}</g>`;
}

/** Give lines their width, by |w|, and colour and dashes, by the sign. */
function drawLinks(svg, layers, colours) {
  let line = svg.firstChild.firstChild;
  for (const layer of layers) {
    const most = layer.w.reduce((m, w) => Math.max(m, Math.abs(w)), 1e-9);
    for (const w of layer.w) {
      line.setAttribute("stroke", colours.names[w < 0 ? 0 : 1]);
      line.setAttribute("stroke-width", (0.4 + (4.6 * Math.abs(w)) / most).toFixed(1));
      line.setAttribute("stroke-dasharray", w < 0 ? "none" : "9 3");
      line = line.nextSibling;
    }
  }
}

/** Lines through points over a common x, each scaled to the frame; used for rules. */
function drawLines(canvas, xs, lines, mark, colours) {
  const context = canvas.getContext("2d");
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  const all = lines.flatMap((line) => Array.from(line.ys)).filter(Number.isFinite);
  const [low, high] = [Math.min(...all, 0), Math.max(...all, 0)];
  const room = high - low || 1;
  const x = (value) => 46 + ((value - xs[0]) / (xs[xs.length - 1] - xs[0])) * (width - 60);
  const y = (value) => height - 26 - ((value - low) / room) * (height - 44);
  context.font = "18px system-ui, sans-serif";
  context.fillStyle = colours.quiet;
  context.strokeStyle = colours.rule;
  context.lineWidth = 1;
  for (const value of new Set([low, 0, high])) {
    context.beginPath();
    context.moveTo(46, y(value));
    context.lineTo(width - 14, y(value));
    context.stroke();
    context.textAlign = "right";
    context.fillText(value.toPrecision(2), 42, y(value) + 6);
  }
  context.textAlign = "left";
  context.fillText(`w = ${xs[0]}`, 46, height - 4);
  context.textAlign = "right";
  context.fillText(String(xs[xs.length - 1]), width - 14, height - 4);
  for (const { ys, colour, dash } of lines) {
    context.strokeStyle = colour;
    context.lineWidth = 2.5;
    context.setLineDash(dash);
    context.beginPath();
    ys.forEach((value, k) => context.lineTo(x(xs[k]), y(value)));
    context.stroke();
  }
  context.setLineDash([2, 4]);
  context.strokeStyle = colours.ink;
  context.beginPath();
  context.moveTo(x(mark), 8);
  context.lineTo(x(mark), height - 24);
  context.stroke();
  context.setLineDash([]);
}
