"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const texts = Object.keys(data.texts).sort((a, b) => data.texts[a] - data.texts[b]);
const column = (name, i) => texts[data.columns[name][i]];
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");
const MATH = "http://www.w3.org/1998/Math/MathML", SVG = "http://www.w3.org/2000/svg";

function bytes(text) {
  const raw = atob(text), all = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) all[i] = raw.charCodeAt(i);
  return all.buffer;
}
const norms = new Float64Array(bytes(data.norms));
const arriving = (i) => norms[2 * i], leaving = (i) => norms[2 * i + 1];
const gain = (i) => arriving(i) === 0 ? NaN : leaving(i) / arriving(i);

function make(tag, attributes = {}, ...children) {
  const space = attributes.space;
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "space" || value === null || value === undefined) continue;
    element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function written(x, digits = 3) {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (x === 0) return "0";
  const size = Math.abs(x);
  let text = size >= 1e-3 && size < 1e5 ? Number(x.toPrecision(digits)).toString() : x.toExponential(digits - 1);
  text = text.replace("-", "−");
  return text.replace(/e[+]?(−|-)?(\d+)/, (_, sign, power) => "·10" + (sign ? "⁻" : "") + [...power].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join(""));
}

const lowered = (number) => [...String(number)].map((c) => c === "-" ? "₋" : "₀₁₂₃₄₅₆₇₈₉"[c]).join("");

// -- formulas: MathML from trees, with text only ---------------------------------------------------------------------------------
const TAGS = {i: "mi", w: "mi", n: "mn", o: "mo", t: "mtext"};
function math(tree) {
  if (typeof tree === "number") return math(data.trees[tree]);
  if (typeof tree === "string") {
    const leaf = make(TAGS[tree[0]] || "mtext", {space: MATH}, tree.slice(1));
    if (tree[0] === "o" && "()[]".includes(tree.slice(1))) leaf.setAttribute("stretchy", "false");
    return leaf;
  }
  if (tree[0] === "r") return make("mrow", {space: MATH}, ...tree.slice(1).map(math));
  const [, base, below, above] = tree;
  const script = (text) => typeof text === "string"
    ? make(/[a-z]/i.test(text) ? "mtext" : "mn", {space: MATH}, text === "ᵀ" ? "T" : text) : math(text);
  const parts = [math(base)];
  if (below) parts.push(script(below));
  if (above !== null) parts.push(script(above));
  return make(above === null ? "msub" : below ? "msubsup" : "msup", {space: MATH}, ...parts);
}
const formula = (...parts) => make("math", {space: MATH}, ...parts);
const operator = (text) => make("mo", {space: MATH}, text);
const symbol = (number) => data.symbols[number];

// -- heat maps -------------------------------------------------------------------------------------------------------------------
const unpacked = new Map();
function heat(number) {
  if (!unpacked.has(number)) {
    const [shape, rows, columns, scale, packed] = data.maps[number];
    const entries = Float64Array.from(new Float32Array(bytes(packed)), (x) => x * scale);
    const whole = [shape.slice(0, -1).reduce((a, b) => a * b, 1), shape.length ? shape[shape.length - 1] : 1];
    const size = [rows ? rows.length : whole[0], columns ? columns.length : whole[1]];
    let most = 0;
    for (const x of entries) if (Number.isFinite(x)) most = Math.max(most, Math.abs(x));
    unpacked.set(number, {shape, rows, columns, entries, whole, size, most});
  }
  return unpacked.get(number);
}
function colours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => { const hex = style.getPropertyValue(name).trim(); return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)); };
  return {low: read("--low"), mid: read("--mid"), high: read("--high")};
}
const place = (picked, k) => picked ? picked[k] : k;

function heatmap(title, number, most, palette, space) {
  const map = heat(number), [rows, columns] = map.size;
  const [role, name] = title;
  const caption = make("figcaption", {}, make("small", {}, role), make("b", {}, name), make("span", {}, map.shape.length ? map.shape.join(" × ") : "a number"));
  if (!map.entries.length) return make("figure", {}, caption, make("p", {class: "note"}, "no entries"));
  const wanted = columns <= 6 ? 48 : columns <= 16 ? 22 : columns <= 32 ? 11 : 6;
  const width = Math.max(3, Math.min(wanted, Math.floor(space / columns)));
  const height = Math.max(3, Math.min(columns <= 6 ? 30 : wanted, Math.floor(230 / rows)));
  const canvas = make("canvas", {tabindex: "0", role: "img"});
  const density = devicePixelRatio || 1, w = columns * width, h = rows * height;
  canvas.width = Math.round(w * density); canvas.height = Math.round(h * density);
  canvas.style.width = w + "px";
  const pen = canvas.getContext("2d");
  const label = `${role} ${name}, ${map.shape.join(" by ") || "a number"}, entries of size up to ${written(map.most)}`;
  canvas.setAttribute("aria-label", `${label}. Arrow keys read single entries.`);
  let cursor = -1;
  function paint() {
    pen.setTransform(density, 0, 0, density, 0, 0);
    for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) {
      const x = map.entries[r * columns + c], part = Number.isFinite(x) && most > 0 ? Math.min(Math.abs(x) / most, 1) : 0;
      const end = x < 0 ? palette.low : palette.high;
      const rgb = palette.mid.map((m, k) => Math.round(m + (end[k] - m) * part));
      pen.fillStyle = `rgb(${rgb})`;
      pen.fillRect(c * width, r * height, width, height);
      const bright = 0.3 * rgb[0] + 0.59 * rgb[1] + 0.11 * rgb[2] > 140;
      if (!Number.isFinite(x)) {
        pen.strokeStyle = bright ? "#000" : "#fff";
        pen.beginPath(); pen.moveTo(c * width, r * height); pen.lineTo((c + 1) * width, (r + 1) * height); pen.stroke();
      }
      if (width >= 40 && height >= 18) {
        pen.fillStyle = bright ? "#111" : "#fff";
        pen.font = "12px system-ui, sans-serif"; pen.textAlign = "center"; pen.textBaseline = "middle";
        const size = Math.abs(x);
        const text = size !== 0 && Number.isFinite(x) && (size < 0.001 || size >= 1e4) ? x.toExponential(0).replace("-", "−").replace("e-", "e−").replace("e+", "e") : written(x, 2);
        pen.fillText(text, (c + 0.5) * width, (r + 0.5) * height + 1, width - 3);
      }
      if (width >= 8 && height >= 8) {
        pen.strokeStyle = dark.matches ? "#0004" : "#fff8"; pen.lineWidth = 1;
        pen.strokeRect(c * width + 0.5, r * height + 0.5, width, height);
      }
    }
    if (cursor >= 0) {
      pen.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--text"); pen.lineWidth = 2;
      pen.strokeRect((cursor % columns) * width + 1, Math.floor(cursor / columns) * height + 1, width - 2, height - 2);
    }
  }
  const read = make("div", {class: "read", "aria-live": "polite"});
  function point(at) {
    cursor = at;
    const r = Math.floor(at / columns), c = at % columns;
    read.textContent = at < 0 ? "" : `[${map.shape.length > 1 ? place(map.rows, r) + ", " : ""}${place(map.columns, c)}]  ${written(map.entries[at], 5)}`;
    paint();
  }
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const c = Math.floor((event.clientX - box.left) / box.width * columns), r = Math.floor((event.clientY - box.top) / box.height * rows);
    if (c >= 0 && r >= 0 && c < columns && r < rows) point(r * columns + c);
  });
  canvas.addEventListener("pointerleave", () => point(-1));
  canvas.addEventListener("focus", () => point(Math.max(cursor, 0)));
  canvas.addEventListener("blur", () => point(-1));
  canvas.addEventListener("keydown", (event) => {
    const move = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns}[event.key];
    if (move === undefined) return;
    event.preventDefault(); event.stopPropagation();
    const next = cursor + move;
    if (next >= 0 && next < rows * columns && (Math.abs(move) > 1 || columns === 1 || Math.floor(next / columns) === Math.floor(cursor / columns))) point(next);
  });
  paint();
  const details = make("details", {}, make("summary", {}, "as a table"));
  details.addEventListener("toggle", () => {
    if (!details.open || details.children.length > 1) return;
    const body = make("tbody");
    for (let r = 0; r < rows; r++) {
      const row = make("tr", {}, make("th", {scope: "row"}, String(place(map.rows, r))));
      for (let c = 0; c < columns; c++) row.append(make("td", {}, written(map.entries[r * columns + c], 4)));
      body.append(row);
    }
    const head = make("tr", {}, make("th"), ...Array.from({length: columns}, (_, c) => make("th", {scope: "col"}, String(place(map.columns, c)))));
    details.append(make("div", {tabindex: "0", role: "region", "aria-label": label}, make("table", {}, make("caption", {class: "unseen"}, label), make("thead", {}, head), body)));
  });
  const picked = map.rows || map.columns ? make("div", {class: "read"}, `shown: ${rows} of ${map.whole[0]} rows, ${columns} of ${map.whole[1]} columns`) : null;
  const scale = make("div", {class: "scale"}, `−${written(most)}`, make("i"), `+${written(most)}`);
  const figure = make("figure", {}, caption, canvas, scale, read, picked, details);
  figure.style.width = Math.max(w, 136) + "px";
  return figure;
}

// -- the current multiplication ------------------------------------------------------------------------------------------------
let now = 0, chosen = null, playing = 0;
const WORDS = {
  add: "The edge of a sum: the cotangent passes on unchanged.",
  scale: "Every entry of the cotangent is multiplied by a factor of its own: the local Jacobian is diagonal.",
  matmul: "The cotangent is multiplied by a matrix.",
  route: "Nothing is multiplied: entries are moved, repeated or added up.",
};
function told(i) {
  const kind = column("kind", i), form = data.arrays[i] ? data.arrays[i][3] : null;
  if (form === "left") return "Each weight’s share of the gradient: its input times the cotangent of its output, summed over the batch.";
  if (form === "right") return "Every vector (row) of the cotangent is multiplied by the matrix: this mixes the units, and stretches or shrinks.";
  return WORDS[kind];
}
function inText(i) {
  const label = column("label", i), from = `δ${symbol(data.from[i])}`, kind = column("kind", i);
  if (kind === "scale") return `${from} ${label}`;
  if (kind === "matmul") return label.startsWith("· ") ? `${label.slice(2)} ${from}` : `${label} ${from}`;
  return kind === "add" ? from : `${label} of ${from}`;
}
const into = new Map();
data.target.forEach((node, i) => { if (leaving(i) !== 0) into.set(node, (into.get(node) || 0) + 1); });

function showStep() {
  const i = now, t = data.time[i], gate = column("gate", i);
  const where = [t === null ? "" : `time ${t}`, gate ? `${gate} gate` : "", column("scope", i)].filter(Boolean).join(", ");
  $("step-title").textContent = `${symbol(data.from[i])} → ${symbol(data.to[i])}`;
  if (where) $("step-title").append(make("span", {class: "note"}, `   ${where}`));
  const own = data.lines[data.target[i]], written_ = data.formulas[i];
  $("formula").replaceChildren(written_ !== null && own
    ? formula(math(own[0]), operator(into.get(data.target[i]) > 1 ? "+=" : "="), math(written_))
    : `δ${symbol(data.to[i])} ${into.get(data.target[i]) > 1 ? "+=" : "="} ${inText(i)}`);
  const lost = i === data.lost ? ` Most is lost here: it is ${data.measure}.` : "";
  $("words").textContent = told(i) + lost + (into.get(data.target[i]) > 1 ? ` One of ${into.get(data.target[i])} contributions to the cotangent of ${symbol(data.to[i])}.` : "");
  const maps = $("maps"), arrays = data.arrays[i];
  if (!arrays) {
    maps.replaceChildren(make("p", {class: "note"}, data.keep === "norms"
      ? "The trace kept norms only, so there are no numbers to show. Trace with keep=\"arrays\" (the default) to see them."
      : "Of this step the page has norms only; heat maps are for what the graph shows step by step."));
  } else {
    const [cotangent, factor, contribution, form, name] = arrays, palette = colours();
    const most = (number) => number === null ? 0 : heat(number).most;
    const same = $("shared").checked, shared = Math.max(most(cotangent), most(contribution));
    const count = factor === null ? 2 : 3, narrow = innerWidth <= 520;
    const space = narrow ? maps.clientWidth - 4 : Math.max(136, Math.floor((maps.clientWidth - (count - 1) * 44) / count));
    const figure = (title, number, limit) => heatmap(title, number, limit, palette, Math.min(space, 330));
    const first = figure(["cotangent of", symbol(data.from[i])], cotangent, same ? shared : most(cotangent));
    const last = figure(["contribution to", symbol(data.to[i])], contribution, same ? shared : most(contribution));
    const sign = (text) => make("span", {class: "sign"}, text);
    let row = [first, sign(form === "add" ? "=" : "→"), last];
    if (factor !== null) {
      const middle = figure([form === "scale" ? "factor" : "matrix", name], factor, most(factor));
      row = form === "left" ? [middle, sign("·"), first, sign("="), last] : [first, sign(form === "scale" ? "⊙" : "·"), middle, sign("="), last];
    }
    maps.replaceChildren(...row);
  }
  $("same").hidden = !arrays;
  $("gain").replaceChildren(`‖cotangent‖ ${written(arriving(i))} × gain `, make("b", {}, written(gain(i))), ` = ‖contribution‖ ${written(leaving(i))}`);
}

function showChain() {
  const own = data.target[now], todo = [own], seen = new Set([own]), order = [];
  let cut = false;
  while (todo.length && order.length < 400) {
    todo.sort((a, b) => a - b);
    const node = todo.shift(), line = data.lines[node];
    if (!line) { cut = true; continue; }
    order.push(node);
    for (const source of line[3]) if (!seen.has(source)) { seen.add(source); todo.push(source); }
  }
  const shown = order.length > 12 ? [...order.slice(0, 8), null, ...order.slice(-3)] : order;
  if (order.length && cut && !shown.includes(null)) shown.push(null);
  $("lines").replaceChildren(...shown.map((node, at) => {
    if (node === null) return make("div", {class: "gap"}, order.length > 12 ? `… ${order.length - 11} lines …` : "… and on to the loss");
    const [left, units, more, , norm] = data.lines[node];
    const row = formula(math(left), operator("="));
    const piece = ([tree, steps]) => {
      const part = math(tree);
      if (at === 0 && steps.includes(now)) part.setAttribute("class", "this");
      return part;
    };
    units.forEach((unit, k) => {
      const joined = Array.isArray(unit[0]) && Array.isArray(unit[0][1]) && typeof unit[0][0] !== "string";
      if (k && (joined || unit[0][1] !== "o−")) row.append(operator("+"));
      if (!joined) { row.append(piece(unit)); return; }
      const cells = unit.map((one) => make("mtr", {space: MATH}, make("mtd", {space: MATH}, piece(one))));
      row.append(make("mtable", {space: MATH, class: "column"}, ...cells));
    });
    if (more) row.append(operator("+"), make("mtext", {space: MATH}, `… ${more} terms`));
    return make("div", {class: at === 0 ? "first" : null}, row, make("span", {class: "size"}, norm === null ? "" : `norm ${written(norm)}`));
  }));
  if (!order.length) $("lines").replaceChildren(make("div", {class: "gap"}, "Written for the steps that the graph shows one by one."));
  const used = new Set();
  const collect = (tree) => { if (typeof tree === "number") used.add(tree); else if (Array.isArray(tree)) tree.forEach(collect); };
  shown.forEach((node) => node !== null && collect([data.lines[node][0], data.lines[node][1].map((unit) => unit[0])]));
  $("notes").textContent = [...new Set([...used].map((number) => data.notes[number]).filter(Boolean))].slice(0, 6).join("; ");
}

// -- the graph -----------------------------------------------------------------------------------------------------------------
const paper = $("paper"), drawing = paper.querySelector("svg");
let showGraph = () => {}, zoom = () => {};
if (drawing) {
  drawing.setAttribute("role", "img");
  drawing.setAttribute("aria-label", "Graph of the backward multiplications");
  const natural = [parseFloat(drawing.getAttribute("width")) * 4 / 3, parseFloat(drawing.getAttribute("height")) * 4 / 3];
  let factor = 1;
  zoom = (to) => {
    factor = Math.min(Math.max(to, 0.05), 3);
    drawing.style.width = natural[0] * factor + "px"; drawing.style.height = natural[1] * factor + "px";
  };
  drawing.removeAttribute("width"); drawing.removeAttribute("height");
  const whole = () => Math.min((paper.clientWidth - 4) / natural[0], (paper.clientHeight - 4) / natural[1]);
  const readable = 0.75;
  zoom(whole() > 0.7 * readable ? Math.min(whole(), 1) : Math.max(Math.min((paper.clientHeight - 18) / natural[1], 1), readable));
  const edges = data.edges.map((steps, k) => ({steps: new Set(steps), last: Math.max(...steps), parts: [...drawing.querySelectorAll(".e" + k)]}));
  const nodes = new Map();
  for (const element of drawing.querySelectorAll("g.node")) {
    const key = [...element.classList].map((name) => /^n(\d+)$/.exec(name)).find(Boolean);
    if (key) nodes.set(Number(key[1]), element);
  }
  for (const edge of drawing.querySelectorAll("g.edge")) {
    const plate = edge.querySelector('path:not([fill="none"])');
    if (plate) { plate.classList.add("plate"); edge.querySelectorAll("text").forEach((text) => text.classList.add("on-plate")); }
    if (edge.querySelectorAll('path[fill="none"]').length > 1) edge.classList.add("double");
  }
  edges.forEach((edge) => edge.parts.forEach((part) => part.addEventListener("click", () => go(Math.min(...edge.steps)))));
  showGraph = (jump) => {
    const reached = new Set([0]), here = new Set();
    let focus = null;
    edges.forEach((edge, k) => {
      const current = edge.steps.has(now), done = edge.last <= now;
      for (const part of edge.parts) { part.classList.toggle("now", current); part.classList.toggle("done", done); }
      if (done || current) data.ends[k].forEach((node) => reached.add(node));
      if (current) { data.ends[k].forEach((node) => here.add(node)); focus = focus || edge.parts[0]; }
    });
    for (const [key, steps] of Object.entries(data.boxes)) {
      if (steps.includes(now)) { here.add(Number(key)); focus = focus || nodes.get(Number(key)); }
      if (steps[0] <= now) reached.add(Number(key));
    }
    nodes.forEach((element, key) => { element.classList.toggle("now", here.has(key)); element.classList.toggle("done", reached.has(key)); });
    if (!focus) return;
    const box = focus.getBoundingClientRect(), frame = paper.getBoundingClientRect();
    const dx = box.left + box.width / 2 - frame.left - frame.width / 2, dy = box.top + box.height / 2 - frame.top - frame.height / 2;
    if (jump || Math.abs(dx) > frame.width * 0.3 || Math.abs(dy) > frame.height * 0.3)
      paper.scrollBy({left: dx, top: dy, behavior: jump || calm.matches || playing ? "instant" : "smooth"});
  };
  $("larger").addEventListener("click", () => { zoom(factor * 1.35); showGraph(true); });
  $("smaller").addEventListener("click", () => { zoom(factor / 1.35); showGraph(true); });
  $("fit").addEventListener("click", () => zoom(whole()));
  const sample = {add: "M0 3.5H30M0 6.5H30", scale: "M0 5H30", matmul: "M0 5H30", route: "M0 5H30"};
  const entry = (path, attributes, text) => $("legend").append(make("li", {}, make("svg", {space: SVG, viewBox: "0 0 30 10", "aria-hidden": "true"}, make("path", {space: SVG, d: path, fill: "none", ...attributes})), text));
  const kinds = new Set(data.columns.kind.map((k) => texts[k]));
  for (const [kind, meaning] of Object.entries(data.meanings)) if (kinds.has(kind) && kind !== "route")
    entry(sample[kind], {stroke: `var(--${kind})`, "stroke-width": kind === "add" ? 1.2 : 2.6, "stroke-dasharray": kind === "matmul" ? "6 3" : null}, meaning);
  if (data.highway) entry("M0 5H30", {stroke: "var(--highway)", "stroke-width": 6}, "highway: no matrix from state to state");
  entry("M0 5H30", {stroke: "var(--now)", "stroke-width": 5}, "now");
} else for (const id of ["larger", "smaller", "fit"]) $(id).hidden = true;

// -- what is left --------------------------------------------------------------------------------------------------------------
const plots = data.curves.map((curve) => {
  const W = Math.min(680, Math.max(290, $("plots").clientWidth)), H = 230, L = 54, R = 14, T = 12, B = 36;
  const ys = curve.y.filter((y) => y !== null), xs = curve.x;
  const top = Math.max(0, ...ys.map(Math.ceil)), bottom = Math.min(-1, ...ys.map(Math.floor));
  const x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1);
  const X = (x) => L + (x - x0) / (x1 - x0) * (W - L - R), Y = (y) => T + (top - y) / (top - bottom) * (H - T - B);
  const view = make("svg", {space: SVG, viewBox: `0 0 ${W} ${H}`, role: "img"});
  const add = (tag, attributes, ...children) => { const element = make(tag, {space: SVG, ...attributes}, ...children); view.append(element); return element; };
  const every = Math.max(1, Math.ceil((top - bottom) / 6));
  for (let y = top; y >= bottom; y -= every) {
    add("line", {class: "grid", x1: L, x2: W - R, y1: Y(y), y2: Y(y)});
    add("text", {class: "tick", x: L - 8, y: Y(y) + 4, "text-anchor": "end"}, y === 0 ? "1" : "10" + (y < 0 ? "⁻" : "") + [...String(Math.abs(y))].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join(""));
  }
  const step = Math.max(1, Math.ceil((x1 - x0) / 10));
  for (let x = x0; x <= x1; x += step) add("text", {class: "tick", x: X(x), y: H - B + 16, "text-anchor": "middle"}, String(x));
  add("text", {class: "axis", x: (L + W - R) / 2, y: H - 4, "text-anchor": "middle"}, curve.axis);
  const order = xs.map((_, k) => k).filter((k) => curve.y[k] !== null).sort((a, b) => xs[a] - xs[b]);
  const line = (keep) => order.filter(keep).map((k) => `${X(xs[k]).toFixed(1)},${Y(curve.y[k]).toFixed(1)}`).join(" ");
  add("polyline", {class: "ahead", points: line(() => true)});
  const grown = add("polyline", {class: "so-far"});
  const dots = xs.length <= 60 ? order.map((k) => [k, add("circle", {class: "dot", r: 3.5, cx: X(xs[k]), cy: Y(curve.y[k])})]) : [];
  const head = add("circle", {class: "dot", r: 6});
  const said = make("p");
  const name = curve.state ? `‖δₜ‖ / ‖δ${lowered(curve.start)}‖` : "‖δ‖ / ‖δ at the loss‖";
  const title = make("p", {class: "note"}, (curve.name ? `${curve.name}: ` : "on the way that carries most: ") + `${name}, on a logarithmic axis`);
  $("plots").append(title, view, said);
  return () => {
    const done = (k) => curve.reached[k] <= now;
    grown.setAttribute("points", line(done));
    dots.forEach(([k, dot]) => dot.setAttribute("class", done(k) ? "dot" : "dot ahead"));
    const at = order.filter(done).sort((a, b) => curve.reached[b] - curve.reached[a])[0];
    head.style.display = at === undefined ? "none" : "";
    if (at !== undefined) { head.setAttribute("cx", X(xs[at])); head.setAttribute("cy", Y(curve.y[at])); }
    const left = at === undefined ? "" : `${curve.state ? `At t = ${xs[at]}` : `After ${xs[at]} multiplications`}: ${written(Math.pow(10, curve.y[at]))} is left`
      + (Math.abs(curve.y[at]) > 300 ? ` (10 to the power ${curve.y[at].toFixed(1)})` : "") + ".";
    said.textContent = left || "Nothing has arrived there yet.";
    view.setAttribute("aria-label", `${name}. ${said.textContent}`);
  };
});
if (!plots.length) $("curve").hidden = true;

// -- the ledger ----------------------------------------------------------------------------------------------------------------
const PAGE = 50;
let found = Array.from({length: data.count}, (_, i) => i), page = 0;
function options(id, values, all) {
  $(id).replaceChildren(...(all ? [make("option", {value: ""}, all)] : []), ...values.map((value) => make("option", {value: String(value)}, String(value))));
}
const times = [...new Set(data.time)].filter((t) => t !== null).sort((a, b) => a - b);
options("of-kind", [...new Set(data.columns.kind)].map((k) => texts[k]).sort(), "all");
options("of-gate", [...new Set(data.columns.gate)].map((k) => texts[k]).filter(Boolean).sort(), "all");
options("of-time", times, "all");
options("time", times, "–");
if (!times.length) for (const id of ["time", "of-time"]) $(id).parentElement.hidden = true;
if ($("of-gate").children.length < 2) $("of-gate").parentElement.hidden = true;
function filter() {
  const kind = $("of-kind").value, time = $("of-time").value, gate = $("of-gate").value;
  const words = $("of-text").value.toLowerCase().split(/\s+/).filter(Boolean);
  found = [];
  for (let i = 0; i < data.count; i++) {
    if (kind && column("kind", i) !== kind || time && String(data.time[i]) !== time || gate && column("gate", i) !== gate) continue;
    if (words.length) {
      const all = `${symbol(data.from[i])} ${symbol(data.to[i])} ${column("label", i)} ${column("op", i)} ${column("scope", i)} ${column("gate", i)} ${column("kind", i)}`.toLowerCase();
      if (!words.every((word) => all.includes(word))) continue;
    }
    found.push(i);
  }
  follow();
}
let shown_rows = null, shown_page = -1;
function follow() {
  const at = found.indexOf(now);
  page = at >= 0 ? Math.floor(at / PAGE) : Math.min(page, Math.max(0, Math.ceil(found.length / PAGE) - 1));
  if (shown_rows !== found || page !== shown_page) rows();
  for (const row of $("rows").querySelectorAll("tbody tr"))
    if (Number(row.dataset.step) === now) row.setAttribute("aria-current", "step"); else row.removeAttribute("aria-current");
}
function rows() {
  shown_rows = found; shown_page = page;
  const body = $("rows").querySelector("tbody");
  body.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map((i) => {
    const g = gain(i), bar = make("span", {class: "bar", "aria-hidden": "true"});
    bar.style.width = Number.isFinite(g) ? Math.min(60, 30 * g) + "px" : "0";
    const row = make("tr", {"data-step": i},
      make("td", {}, make("button", {"aria-label": `Go to multiplication ${i + 1}`}, String(i + 1))),
      make("td", {class: "number"}, data.time[i] === null ? "" : String(data.time[i])),
      make("td", {}, `${symbol(data.from[i])} → ${symbol(data.to[i])}`),
      make("td", {}, make("span", {class: `kind ${column("kind", i)}`, role: "img", "aria-label": column("kind", i)}), column("label", i)),
      make("td", {class: "number"}, written(g), bar), make("td", {class: "number"}, written(leaving(i))), make("td", {}, column("gate", i)));
    row.addEventListener("click", () => go(i));
    return row;
  }));
  const pages = Math.max(1, Math.ceil(found.length / PAGE));
  $("found").textContent = found.length === data.count ? `${data.count} multiplications` : `${found.length} of ${data.count} multiplications`;
  $("page").textContent = `page ${page + 1} of ${pages}`;
  $("page-back").disabled = page === 0; $("page-on").disabled = page >= pages - 1;
  $("pages").hidden = pages === 1;
}
for (const id of ["of-kind", "of-time", "of-gate"]) $(id).addEventListener("change", filter);
$("of-text").addEventListener("input", filter);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("clear").addEventListener("click", () => { $("filters").reset(); filter(); });
$("page-back").addEventListener("click", () => { page--; rows(); });
$("page-on").addEventListener("click", () => { page++; rows(); });

// -- playing -------------------------------------------------------------------------------------------------------------------
function show(jump) {
  $("place").value = now + 1;
  $("place").setAttribute("aria-valuetext", `${now + 1} of ${data.count}`);
  $("count").textContent = `${now + 1} of ${data.count}`;
  $("time").value = data.time[now] === null ? "" : String(data.time[now]);
  showStep(); showChain(); showGraph(jump); plots.forEach((plot) => plot()); follow();
  $("back").disabled = $("first").disabled = now === 0;
  $("forward").disabled = $("last").disabled = now === data.count - 1;
  if (!playing) $("live").textContent = `Multiplication ${now + 1} of ${data.count}: ${symbol(data.from[now])} to ${symbol(data.to[now])}, ${column("label", now)}, gain ${written(gain(now))}.`;
  document.documentElement.dataset.step = now;
}
function go(i, jump = true) { now = Math.min(Math.max(i, 0), data.count - 1); show(jump); }
function beside(direction) {
  if (!$("only").checked) return now + direction;
  const ahead = direction > 0 ? found.find((i) => i > now) : [...found].reverse().find((i) => i < now);
  return ahead === undefined ? now : ahead;
}
function stop() { clearTimeout(playing); playing = 0; $("play").classList.remove("playing"); $("play").setAttribute("aria-label", "Play"); }
function tick() {
  const next = beside(1);
  if (next === now || next >= data.count) { stop(); show(false); return; }
  go(next, false);
  if (playing) playing = setTimeout(tick, 1000 / Number($("speed").value));
}
function toggle() {
  if (playing) { stop(); show(false); return; }
  if (now === data.count - 1) go(0);
  $("play").classList.add("playing"); $("play").setAttribute("aria-label", "Pause");
  playing = setTimeout(tick, 1000 / Number($("speed").value));
}
const halt = (action) => () => { stop(); action(); };
$("lost").title = `${data.measure[0].toUpperCase()}${data.measure.slice(1)} (L)`;
$("place").max = data.count;
$("place").addEventListener("input", () => { stop(); go(Number($("place").value) - 1); });
$("first").addEventListener("click", halt(() => go(0)));
$("last").addEventListener("click", halt(() => go(data.count - 1)));
$("back").addEventListener("click", halt(() => go(beside(-1), false)));
$("forward").addEventListener("click", halt(() => go(beside(1), false)));
$("play").addEventListener("click", toggle);
$("lost").addEventListener("click", halt(() => go(data.lost)));
$("time").addEventListener("change", () => { stop(); const at = data.time.findIndex((t) => String(t) === $("time").value); if (at >= 0) go(at); });
$("shared").addEventListener("change", showStep);
$("help").addEventListener("click", () => $("keys").showModal());
dark.addEventListener("change", showStep);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || $("keys").open) return;
  const typed = event.target.closest("input, select, textarea");
  if (typed && !(typed.type === "range" && event.key === " ")) return;
  const act = {
    ArrowRight: halt(() => go(beside(1), false)), ArrowLeft: halt(() => go(beside(-1), false)),
    Home: halt(() => go(0)), End: halt(() => go(data.count - 1)), " ": toggle,
    l: halt(() => go(data.lost)), L: halt(() => go(data.lost)), t: () => $("time").focus(), T: () => $("time").focus(),
    "/": () => $("of-text").focus(), "?": () => $("keys").showModal(),
  }[event.key];
  if (!act || event.key === " " && event.target.closest("button, summary, a")) return;
  event.preventDefault();
  act();
});
show(true);
})();
