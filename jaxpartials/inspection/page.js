"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const boxes = data.boxes;
  const count = boxes.what.length;
  const [EQUATION, AROUND, BODY, LEAF, OUTPUT] = [0, 1, 2, 3, 4];
  const [X, Y, W, H] = [boxes.x, boxes.y, boxes.w, boxes.h].map((column) => Int32Array.from(column));
  const wires = Int32Array.from(data.wires);
  const canvas = document.querySelector("canvas");
  const area = document.getElementById("graph");
  const tip = document.getElementById("tip");
  const about = document.getElementById("about");
  const pen = canvas.getContext("2d");

  // Which findings a box is in, the dearest first, and whether it is among what need not be computed.
  const findingsOf = new Map();
  const spareIn = new Map();
  data.findings.forEach((finding, number) => {
    for (const [list, spare] of [[finding.spare, true], [finding.needed, false]]) {
      for (const box of list) {
        if (!findingsOf.has(box)) findingsOf.set(box, []);
        findingsOf.get(box).push(number);
        if (spare && !spareIn.has(box)) spareIn.set(box, number);
      }
    }
  });
  const readers = Array.from({length: count}, () => []);
  boxes.operands.forEach((list, box) => {
    for (const each of new Set(list)) if (typeof each === "number") readers[each].push(box);
  });

  let scale = 1, left = 0, top = 0; // the corner of the view, in the coordinates of the drawing
  let over = -1, chosen = -1, finding = -1;
  const hiddenKinds = new Set();
  let colours = {};
  let waiting = false, painted = false;

  // ---- drawing

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    colours = {};
    for (const name of ["page", "ink", "soft", "box", "edge", "rim", "around", "leaf", "accent", "on"]) {
      colours[name] = style.getPropertyValue("--" + name).trim();
    }
    colours.kinds = Array.from({length: data.kinds}, (_, k) => style.getPropertyValue("--k" + k).trim());
  }

  function draw() {
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(paint);
    }
  }

  // The finding whose colour a box has: the chosen one if there is one, else the dearest shown, and rather one in which
  // the box need not be computed.
  function colourOf(box) {
    const all = findingsOf.get(box);
    if (all === undefined) return -1;
    if (finding >= 0 && memberSets[finding].size) return all.includes(finding) ? finding : -1;
    const spare = spareIn.get(box);
    if (spare !== undefined && !hiddenKinds.has(data.findings[spare].kind)) return spare;
    const shown = all.find((number) => !hiddenKinds.has(data.findings[number].kind));
    return shown === undefined ? -1 : shown;
  }

  function isSpare(box, number) {
    return spareSets[number].has(box);
  }
  const spareSets = data.findings.map((each) => new Set(each.spare));
  const memberSets = data.findings.map((each) => new Set([...each.spare, ...each.needed]));

  function paint() {
    waiting = false;
    const ratio = window.devicePixelRatio || 1;
    const wide = area.clientWidth, high = area.clientHeight;
    if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
      canvas.width = Math.round(wide * ratio);
      canvas.height = Math.round(high * ratio);
    }
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.fillStyle = colours.page;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    const s = scale * ratio;
    pen.setTransform(s, 0, 0, s, -left * s, -top * s);
    const right = left + wide / scale, bottom = top + high / scale;
    const visible = (box) => X[box] < right && X[box] + W[box] > left && Y[box] < bottom && Y[box] + H[box] > top;

    for (let box = 0; box < count; box++) {
      if (boxes.what[box] !== AROUND && boxes.what[box] !== BODY) continue;
      if (visible(box)) paintAround(box);
    }
    paintWires(right, bottom);
    const marked = [];
    pen.textAlign = "center";
    for (let box = 0; box < count; box++) {
      if (boxes.what[box] === AROUND || boxes.what[box] === BODY || !visible(box)) continue;
      if (colourOf(box) >= 0) marked.push(box);
      else paintBox(box, -1);
    }
    for (const box of marked) paintBox(box, colourOf(box)); // over the others: they are to be seen from afar
    if (!painted) {
      painted = true;
      performance.mark("painted");
    }
  }

  function faded(box) {
    return finding >= 0 && memberSets[finding].size > 0 && !memberSets[finding].has(box);
  }

  function rim(box, number) {
    if (box === chosen || box === over) return [colours.accent, 2.5];
    return number >= 0 ? [colours.kinds[data.findings[number].kind], 1.8] : [colours.rim, 1];
  }

  function paintAround(box) {
    const number = colourOf(box);
    pen.globalAlpha = 1;
    pen.fillStyle = colours.around;
    pen.beginPath();
    pen.roundRect(X[box], Y[box], W[box], H[box], 9);
    pen.fill();
    if (number >= 0) {
      pen.globalAlpha = isSpare(box, number) ? 0.3 : 0.12;
      pen.fillStyle = colours.kinds[data.findings[number].kind];
      pen.fill();
      pen.globalAlpha = 1;
    }
    const [colour, width] = rim(box, number);
    pen.strokeStyle = colour;
    pen.lineWidth = Math.max(width, (number >= 0 ? 1.5 : 0.6) / scale);
    pen.stroke();
    if (scale < 0.28) return;
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.fillStyle = boxes.what[box] === AROUND ? colours.ink : colours.soft;
    pen.font = (boxes.what[box] === AROUND ? "600 " : "") + "11px system-ui, sans-serif";
    // The title stays in sight while the box is.
    const x = Math.min(Math.max(X[box], left) + 12, X[box] + W[box] - 150);
    pen.fillText(title(box), Math.max(x, X[box] + 12), Y[box] + 14);
  }

  function title(box) {
    const name = data.names[boxes.name[box]];
    const inside = boxes.what[box] === AROUND ? firstInside[box] : -1;
    const turns = inside >= 0 ? boxes.runs[inside] / boxes.runs[box] : 1;
    return turns > 1 ? name + "  ×" + quantity(turns) + (name === "while" ? " assumed" : "") : name;
  }
  const firstInside = new Int32Array(count).fill(-1);
  for (let box = count - 1; box >= 0; box--) if (boxes.parent[box] >= 0) firstInside[boxes.parent[box]] = box;

  function paintWires(right, bottom) {
    const focus = over >= 0 ? over : chosen;
    const operands = new Set(focus >= 0 ? boxes.operands[focus] : []);
    const bold = [];
    pen.strokeStyle = colours.edge;
    pen.lineWidth = Math.max(1, 0.35 / scale);
    pen.globalAlpha = finding >= 0 ? 0.25 : scale < 0.2 ? 0.35 : 0.7;
    pen.beginPath();
    const least = 1.5 / scale;
    let drawn = 0;
    for (let at = 0; at < wires.length; at += 6) {
      const x0 = wires[at], y0 = wires[at + 1], x1 = wires[at + 2], y1 = wires[at + 3];
      if (y1 < top || y0 > bottom || (x0 < left && x1 < left) || (x0 > right && x1 > right)) continue;
      if (focus >= 0) {
        const source = wires[at + 4], target = wires[at + 5];
        const way = operands.has(source) && (target === focus || (target < 0 && y1 <= Y[focus]));
        if (source === focus || way) bold.push(at);
      }
      if (y1 - y0 + Math.abs(x1 - x0) < least) continue;
      wire(x0, y0, x1, y1);
      if (++drawn % 4000 === 0) { // long paths are slow to stroke
        pen.stroke();
        pen.beginPath();
      }
    }
    pen.stroke();
    pen.globalAlpha = 1;
    if (bold.length) {
      pen.strokeStyle = colours.accent;
      pen.lineWidth = Math.max(2, 1 / scale);
      pen.beginPath();
      for (const at of bold) wire(wires[at], wires[at + 1], wires[at + 2], wires[at + 3]);
      pen.stroke();
    }
  }

  function wire(x0, y0, x1, y1) {
    pen.moveTo(x0, y0);
    if (scale < 0.2 || (x0 === x1 && y1 - y0 < 300)) {
      pen.lineTo(x1, y1);
      return;
    }
    const bend = (y1 - y0) / 2;
    // A long wire goes round what stands between its ends.
    const aside = bend > 200 ? Math.min(bend / 3, 160) * (x1 < x0 ? -1 : 1) : 0;
    pen.bezierCurveTo(x0 + aside, y0 + bend, x1 + aside, y1 - bend, x1, y1);
  }

  function paintBox(box, number) {
    const what = boxes.what[box];
    const least = number >= 0 ? 3 / scale : 0; // findings stay visible from afar
    const w = Math.max(W[box], least), h = Math.max(H[box], least);
    const x = X[box] + (W[box] - w) / 2, y = Y[box] + (H[box] - h) / 2;
    const spare = number >= 0 && isSpare(box, number);
    const kind = number >= 0 ? colours.kinds[data.findings[number].kind] : null;
    pen.globalAlpha = faded(box) ? 0.35 : 1;
    pen.fillStyle = spare ? kind : what === LEAF || what === OUTPUT ? colours.leaf : colours.box;
    if (scale < 0.2) {
      if (number >= 0) pen.fillStyle = kind;
      else if (what === EQUATION) pen.fillStyle = colours.rim;
      if (number >= 0 && !spare) pen.globalAlpha *= 0.6;
      pen.fillRect(x, y, w, h);
      pen.globalAlpha = 1;
      return;
    }
    pen.beginPath();
    pen.roundRect(x, y, w, h, what === EQUATION ? 5 : 14);
    pen.fill();
    const [colour, width] = rim(box, number);
    pen.strokeStyle = colour;
    pen.lineWidth = Math.max(width, 0.8 / scale);
    pen.stroke();
    if (scale > 0.3) {
      pen.textBaseline = "middle";
      const middle = x + w / 2;
      pen.fillStyle = spare ? colours.on : colours.ink;
      pen.font = (what === EQUATION ? "600 " : "") + "11px system-ui, sans-serif";
      pen.fillText(data.names[boxes.name[box]], middle, y + 11);
      if (!spare) pen.fillStyle = colours.soft;
      pen.font = "9px ui-monospace, Menlo, Consolas, monospace";
      const types = boxes.types[box];
      if (types.length) pen.fillText(data.types[types[0]] + (types.length > 1 ? " …" : ""), middle, y + 23);
    }
    pen.globalAlpha = 1;
  }

  // ---- the view

  function zoom(factor, x, y) {
    const before = scale;
    scale = Math.min(Math.max(scale * factor, 0.002), 4);
    left += x / before - x / scale;
    top += y / before - y / scale;
    draw();
  }

  function show(x0, y0, x1, y1, most) {
    const wide = area.clientWidth, high = area.clientHeight;
    scale = Math.min(wide / (x1 - x0 + 60), high / (y1 - y0 + 60), most);
    left = (x0 + x1) / 2 - wide / scale / 2;
    top = (y0 + y1) / 2 - high / scale / 2;
    draw();
  }

  function showBoxes(list, least) {
    let [x0, y0, x1, y1] = [Infinity, Infinity, -Infinity, -Infinity];
    for (const box of list) {
      x0 = Math.min(x0, X[box]);
      y0 = Math.min(y0, Y[box]);
      x1 = Math.max(x1, X[box] + W[box]);
      y1 = Math.max(y1, Y[box] + H[box]);
    }
    if (x0 > x1) return;
    show(x0, y0, x1, y1, 1.2);
    if (scale < least) { // too far apart for one view: the first of them, large enough to read
      const box = list[0];
      scale = 0.6;
      left = X[box] + W[box] / 2 - area.clientWidth / scale / 2;
      top = Y[box] + H[box] / 2 - area.clientHeight / scale / 3;
      draw();
    }
  }

  function fit() {
    show(0, 0, data.width, data.height, 1.2);
  }

  function at(event) {
    const frame = canvas.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  }

  // The innermost box at a point of the canvas, or -1. Inner boxes come after outer ones.
  function hit(x, y) {
    const px = left + x / scale, py = top + y / scale, near = Math.min(3 / scale, 12);
    let found = -1;
    for (let box = 0; box < count; box++) {
      const free = boxes.what[box] === AROUND || boxes.what[box] === BODY ? 0 : near;
      if (px >= X[box] - free && px <= X[box] + W[box] + free && py >= Y[box] - free && py <= Y[box] + H[box] + free) {
        found = box;
      }
    }
    return found;
  }

  // ---- what is told about a box

  function quantity(number) {
    for (const letter of ["", "k", "M", "G", "T", "P"]) {
      if (number < 999.5) return Number(number.toPrecision(3)) + letter;
      number /= 1000;
    }
    return Number(number.toPrecision(3)) + "E";
  }

  function make(tag, text, className) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  }

  function typesOf(box) {
    return boxes.types[box].map((type) => data.types[type]).join(", ");
  }

  function operandsOf(box) {
    return boxes.operands[box].map((each) => (typeof each === "number" ? typesOf(each) : each)).join(", ");
  }

  function runsOf(box) {
    const runs = boxes.runs[box];
    return runs === 1 ? "runs once" : "runs " + quantity(runs) + " times";
  }

  function costOf(box) {
    const [operations, bytes, runs] = [boxes.operations[box], boxes.bytes[box], boxes.runs[box]];
    const each = quantity(operations * runs) + " operations, " + quantity(bytes * runs) + "B";
    return each + ", " + (100 * boxes.share[box]).toFixed(1) + "% of the estimated time";
  }

  function placeOf(box) {
    const place = data.places[boxes.place[box]];
    return place === undefined ? null : {file: place[0], line: place[1], fn: place[2], text: place[3]};
  }

  function short(place) {
    return place.file.replace(/\\/g, "/").split("/").pop() + ":" + place.line + " (" + place.fn + ")";
  }

  function isEquation(box) {
    return boxes.what[box] === EQUATION || boxes.what[box] === AROUND;
  }

  function showTip(box, x, y) {
    tip.hidden = box < 0;
    if (box < 0) return;
    tip.replaceChildren(make("b", title(box)));
    const read = operandsOf(box);
    tip.append(make("div", (read && isEquation(box) ? read + " → " : "") + typesOf(box)));
    if (isEquation(box)) {
      tip.append(make("div", costOf(box)), make("div", runsOf(box)));
      const place = placeOf(box);
      if (place) tip.append(make("div", short(place)));
    } else if (boxes.what[box] === BODY) tip.append(make("div", runsOf(box)));
    for (const number of findingsOf.get(box) || []) {
      const spare = isSpare(box, number) ? "" : " (this one is needed)";
      tip.append(make("div", data.findings[number].name + spare, "chip k" + data.findings[number].kind));
    }
    const wide = tip.offsetWidth, high = tip.offsetHeight;
    tip.style.left = Math.max(4, x + 16 + wide > area.clientWidth ? x - wide - 10 : x + 16) + "px";
    tip.style.top = Math.max(4, y + 16 + high > area.clientHeight ? y - high - 10 : y + 16) + "px";
  }

  function link(text, act, className) {
    const element = make("button", text, "link" + (className ? " " + className : ""));
    element.addEventListener("click", act);
    return element;
  }

  function choose(box) {
    chosen = box;
    draw();
    if (box < 0) {
      about.replaceChildren(make("p", "Click a finding to see its equations, or an equation to see its source line."));
      return;
    }
    about.replaceChildren(make("h2", title(box)));
    const place = placeOf(box);
    if (place) {
      const where = make("p", short(place), "place");
      where.title = place.file + ":" + place.line;
      about.append(where);
      if (place.text) about.append(make("pre", place.text));
    } else if (isEquation(box)) about.append(make("p", "No line of yours: an equation of JAX's own."));
    const list = make("dl");
    const row = (name, ...things) => {
      const cell = make("dd");
      cell.append(...things);
      list.append(make("dt", name), cell);
    };
    if (boxes.types[box].length) row("gives", typesOf(box));
    if (isEquation(box)) {
      row("cost", costOf(box) + ", " + runsOf(box));
    }
    const named = (each) => typeof each !== "number" ? each + " " : link(title(each) + " " + typesOf(each), () => go(each));
    const some = (all) => all.slice(0, 12).map(named).concat(all.length > 12 ? ["and " + (all.length - 12) + " more"] : []);
    if (boxes.operands[box].length) row("reads", ...some(boxes.operands[box]));
    if (readers[box].length) row("read by", ...some(readers[box]));
    const found = findingsOf.get(box) || [];
    if (found.length) {
      row("findings", ...found.map((number) =>
        link(data.findings[number].name, () => chooseFinding(number), "chip k" + data.findings[number].kind)));
    }
    about.append(list);
  }

  function go(box) {
    const wide = area.clientWidth / scale, high = area.clientHeight / scale;
    if (scale < 0.4) scale = 0.8;
    if (X[box] < left || X[box] + W[box] > left + wide || Y[box] < top || Y[box] + H[box] > top + high || scale === 0.8) {
      left = X[box] + W[box] / 2 - area.clientWidth / scale / 2;
      top = Y[box] + H[box] / 2 - area.clientHeight / scale / 2;
    }
    choose(box);
  }

  // ---- the table

  const table = document.getElementById("table");
  const rows = Array.from(table.querySelectorAll("tbody.finding"));
  const keys = new Map(rows.map((row) => [row, JSON.parse(row.dataset.keys)]));
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const filter = document.getElementById("filter");
  const kinds = Array.from(document.querySelectorAll(".kind"));
  const heads = Array.from(table.querySelectorAll("th"));

  const nothingDrawn = "No equation of the program is marked for this finding: it is about work that is not in the "
    + "program as it was traced, on a line that no equation of it comes from.";

  function chooseFinding(number) {
    finding = finding === number ? -1 : number;
    for (const row of rows) row.classList.toggle("chosen", Number(row.dataset.finding) === finding);
    if (finding >= 0) {
      const row = rows.find((each) => Number(each.dataset.finding) === finding);
      row.scrollIntoView({block: "nearest"});
      const members = data.findings[finding].spare.concat(data.findings[finding].needed);
      showBoxes(members, 0.15);
      if (!members.length) {
        chosen = -1;
        about.replaceChildren(make("h2", data.findings[finding].name), make("p", nothingDrawn));
      }
    }
    draw();
  }

  function filterRows() {
    const text = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = hiddenKinds.has(Number(row.dataset.kind)) || !words.get(row).includes(text);
      if (!row.hidden) shown++;
    }
    document.querySelector(".none").hidden = shown > 0;
    draw();
  }

  function sortBy(column, downwards) {
    const sign = downwards ? -1 : 1;
    rows.sort((a, b) => {
      const [x, y] = [keys.get(a)[column], keys.get(b)[column]];
      return sign * (typeof x === "number" ? x - y : x.localeCompare(y, undefined, {numeric: true}));
    });
    table.append(...rows);
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", downwards ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  for (const row of rows) {
    row.addEventListener("click", () => chooseFinding(Number(row.dataset.finding)));
    row.addEventListener("keydown", (event) => {
      if (event.key === "Enter") chooseFinding(Number(row.dataset.finding));
    });
  }
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const now = head.getAttribute("aria-sort");
    const numbers = rows.length > 0 && typeof keys.get(rows[0])[column] === "number";
    sortBy(column, now === null ? numbers : now === "ascending");
  }));
  filter.addEventListener("input", filterRows);
  for (const kind of kinds) {
    kind.addEventListener("click", () => {
      const number = Number(kind.dataset.kind);
      if (hiddenKinds.has(number)) hiddenKinds.delete(number);
      else hiddenKinds.add(number);
      kind.setAttribute("aria-pressed", String(!hiddenKinds.has(number)));
      filterRows();
    });
  }
  filterRows();

  // ---- the pointer and the keys

  let drag = null;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [x, y] = at(event);
    zoom(Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0015)), x, y);
  }, {passive: false});
  canvas.addEventListener("pointerdown", (event) => {
    drag = {x: event.clientX, y: event.clientY, left, top, moved: false};
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) {
      const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
      if (Math.abs(dx) + Math.abs(dy) > 4) drag.moved = true;
      if (drag.moved) {
        left = drag.left - dx / scale;
        top = drag.top - dy / scale;
        canvas.className = "drag";
        showTip(-1);
        draw();
      }
      return;
    }
    const [x, y] = at(event);
    const box = hit(x, y);
    if (box !== over) {
      over = box;
      draw();
    }
    canvas.className = box >= 0 ? "over" : "";
    showTip(box, x, y);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) choose(hit(...at(event)));
    drag = null;
    canvas.className = "";
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("pointerleave", () => {
    over = -1;
    showTip(-1);
    draw();
  });
  const middle = () => [area.clientWidth / 2, area.clientHeight / 2];
  const acts = {in: () => zoom(1.4, ...middle()), out: () => zoom(1 / 1.4, ...middle()), fit};
  for (const button of document.querySelectorAll(".buttons button")) {
    button.addEventListener("click", acts[button.dataset.act]);
  }
  canvas.addEventListener("keydown", (event) => {
    const step = 80 / scale;
    const moves = {ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step]};
    if (moves[event.key]) {
      left += moves[event.key][0];
      top += moves[event.key][1];
      event.preventDefault();
      draw();
    } else if (event.key === "+" || event.key === "=") acts.in();
    else if (event.key === "-") acts.out();
    else if (event.key === "0") fit();
    else if (event.key === "Escape") choose(-1);
  });
  new ResizeObserver(draw).observe(area);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    draw();
  });

  readColours();
  fit();
  if (scale < 0.06) { // nothing could be read of the whole: its dearest finding, or its beginning
    const first = data.findings.findIndex((each) => each.spare.length + each.needed.length > 0);
    const all = first < 0 ? [] : data.findings[first].spare.concat(data.findings[first].needed);
    if (all.length) showBoxes(all, 0.15);
    else show(0, 0, Math.min(data.width, 2 * area.clientWidth), Math.min(data.height, 2 * area.clientHeight), 1.2);
  }

  // For programs that drive the page: where boxes stand in the window, and what is chosen.
  window.view = {
    boxes: (name) => Array.from({length: count}, (_, box) => box).filter((box) => data.names[boxes.name[box]] === name),
    at: (box) => {
      const frame = canvas.getBoundingClientRect();
      const x = (X[box] + W[box] / 2 - left) * scale, y = (Y[box] + Math.min(H[box] / 2, 12) - top) * scale;
      return [frame.left + x, frame.top + y];
    },
    get state() {
      return {scale, left, top, over, chosen, finding, highlighted: finding < 0 ? [] : [...memberSets[finding]]};
    },
  };
})();
