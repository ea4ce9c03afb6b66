"use strict";
// Looks numbers up and draws them. A curve is {rate, logs, saturation, weight}, all in whole units of log10, by lag.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const { radii, lengths, networks, initialisations, units } = data;

// -- what was measured ---------------------------------------------------------------------------------------------------------

const stream = (() => {
  const text = atob(data.stream), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return data.width === 2 ? new Int16Array(bytes.buffer) : new Int32Array(bytes.buffer);
})();

const starts = [];  // where each curve begins, in the order in which they were written: initialisation, network, radius, length
let end = 0;
for (const _ of initialisations) for (const network of networks) for (const _ of radii) for (const T of lengths) {
  starts.push(end);
  end += 1 + T * (network.splits ? 3 : 1);
}

function curve(i, n, r, t) {
  let at = starts[((i * networks.length + n) * radii.length + r) * lengths.length + t];
  const T = lengths[t], rate = stream[at++], logs = [0];
  for (let k = 1; k <= T; k++) logs.push(logs[k - 1] + stream[at++]);
  const part = () => { const own = [NaN]; for (let k = 1; k <= T; k++) own.push(stream[at++]); return own; };
  const gains = logs.map((value, k) => (k ? value - logs[k - 1] : NaN));
  if (networks[n].splits) return { rate, logs, gains, saturation: part(), weight: part() };
  if (networks[n].kind === "linear") return { rate, logs, gains, saturation: logs.map((_, k) => (k ? 0 : NaN)), weight: gains };
  return { rate, logs, gains, saturation: null, weight: null };
}

// -- how numbers are written ---------------------------------------------------------------------------------------------------

const minus = (text) => text.replace("-", "−");
const raised = (n) => String(n).replace(/[-\d]/g, (c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]));

function power(log) {
  // 10^log with three digits; log itself when the power is too long to read
  if (!Number.isFinite(log)) return "–";
  if (log >= -3 && log < 4) return minus(String(Number((10 ** log).toPrecision(3))));
  let exponent = Math.floor(log), digits = (10 ** (log - exponent)).toFixed(2);
  if (digits === "10.00") { digits = "1.00"; exponent += 1; }
  return `${digits} · 10${raised(exponent)}`;
}
const four = (log) => minus(log.toFixed(4));

function verdict(rate) {
  const word = rate < -data.preserved ? "vanishing" : rate > data.preserved ? "exploding" : "preserved";
  return { word, text: `a factor of ${power(rate)} per step` };
}

// -- drawing -------------------------------------------------------------------------------------------------------------------

const NS = "http://www.w3.org/2000/svg";
function put(parent, name, attributes, text) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function html(parent, name, attributes, text) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function ticks(low, high, most) {
  // Round numbers from low to high, at most so many.
  const rough = (high - low) / most, scale = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * scale).find((s) => s >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

function frame(svg, height, last) {
  const width = Math.max(svg.parentNode.clientWidth, 200);
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  const box = { left: 54, right: width - (width < 560 ? 14 : 118), top: 12, bottom: height - 42, width };
  box.x = (k) => box.left + (box.right - box.left) * (last ? k / last : 0);
  const each = Math.max(3, Math.floor((box.right - box.left) / 90));
  for (const k of ticks(0, last, each)) {
    if (k !== Math.round(k)) continue;
    put(svg, "line", { class: "grid", x1: box.x(k), x2: box.x(k), y1: box.top, y2: box.bottom });
    put(svg, "text", { class: "tick", x: box.x(k), y: box.bottom + 17, "text-anchor": "middle" }, String(k));
  }
  put(svg, "text", { class: "axis", x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, "k, steps back from the last state →");
  return box;
}

function path(svg, box, ys, name, attributes = {}) {
  const points = ys.map((y, k) => (Number.isFinite(y) ? `${box.x(k).toFixed(1)} ${y.toFixed(1)}` : null)).filter(Boolean);
  return put(svg, "path", { class: name, d: points.length ? `M${points.join("L")}` : "", ...attributes });
}

function named(svg, box, names) {
  // Names at the ends of their lines, moved apart where they would overlap.
  if (box.width < 560) return;
  for (const n of names) n.at = Math.min(Math.max(n.at, box.top + 2), box.bottom - 2);
  names.sort((a, b) => a.at - b.at);
  for (let i = 1; i < names.length; i++) names[i].at = Math.max(names[i].at, names[i - 1].at + 15);
  for (let i = names.length - 1, floor = box.bottom - 4; i >= 0; i--) {
    names[i].at = Math.min(names[i].at, floor);
    floor = names[i].at - 15;
  }
  for (const n of names) put(svg, "text", { class: `name ${n.class}`, x: box.right + 8, y: n.at + 4 }, n.text);
}

const REACH = [0.3, 1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300];
const reach = (value) => REACH.find((limit) => limit >= value - 1e-9) ?? value;

function drawCurves({ shown, analytic, direct }) {
  const svg = $("curve"), last = lengths[state.t];
  const box = frame(svg, window.innerWidth < 560 ? 270 : 380, last);
  const all = [...shown.map((s) => s.logs), analytic];
  const logarithmic = state.axis === "log";
  const top = logarithmic ? reach(Math.max(...all.map((l) => Math.max(...l)))) : 0;
  const bottom = logarithmic ? -reach(Math.max(...all.map((l) => -Math.min(...l)))) : 0;
  const own = [shown[0].logs, analytic];
  const most = logarithmic ? 0 : Math.min(10 ** Math.max(...own.map((l) => Math.max(...l))), 1e300) * 1.05;
  const y = (log) => logarithmic
    ? box.top + (box.bottom - box.top) * ((top - log) / (top - bottom))
    : box.bottom - (box.bottom - box.top) * Math.min(10 ** log / most, 1.2);
  if (logarithmic) {
    const whole = ticks(bottom, top, 7).filter((d) => Math.abs(d - Math.round(d)) < 1e-9 || top - bottom < 3);
    for (const d of whole) label(d, Math.abs(d - Math.round(d)) < 1e-9 ? `10${raised(Math.round(d))}` : power(d), d === 0);
  } else {
    for (const value of ticks(0, most, 5)) label(Math.log10(value), value === 0 ? "0" : power(Math.log10(value)), value === 1);
  }
  function label(log, text, one) {
    const at = text === "0" ? box.bottom : y(log);
    put(svg, "line", { class: one ? "grid one" : "grid", x1: box.left, x2: box.right, y1: at, y2: at });
    put(svg, "text", { class: "tick", x: box.left - 7, y: at + 4, "text-anchor": "end" }, text.replace(" · ", "·").replace(/\.?0+·/, "·").replace(/^1·/, ""));
  }
  put(put(svg, "clipPath", { id: "inside" }), "rect",
    { x: box.left, y: box.top - 4, width: box.right - box.left + 4, height: box.bottom - box.top + 6 });
  const lines = put(svg, "g", { "clip-path": "url(#inside)" });
  for (const s of shown.slice(1).reverse()) path(lines, box, s.logs.map(y), `line faint ${s.kind}`);
  path(lines, box, analytic.map(y), "line analytic");
  if (direct) path(lines, box, direct.map(y), `line direct ${shown[0].kind}`);
  path(lines, box, shown[0].logs.map(y), `line own ${shown[0].kind}`);
  const names = shown.map((s, i) => ({ text: s.short, at: y(s.logs[last]), class: `${s.kind}${i ? " faint" : ""}` }));
  names.push({ text: "∣λ∣ᵏ", at: y(analytic[last]), class: "analytic" });
  if (direct) names.push({ text: "σ(b_f)ᵏ", at: y(direct[last]), class: shown[0].kind });
  named(svg, box, names);
  const k = state.k;
  put(svg, "line", { class: "cursor", x1: box.x(k), x2: box.x(k), y1: box.top, y2: box.bottom });
  put(svg, "circle", { class: "dot analytic", cx: box.x(k), cy: Math.max(y(analytic[k]), box.top), r: 3.5 });
  put(svg, "circle", { class: `dot ${shown[0].kind}`, cx: box.x(k), cy: Math.max(y(shown[0].logs[k]), box.top), r: 5 });
  svg.box = box;
}

function drawParts(own) {
  const svg = $("parts"), last = lengths[state.t];
  const box = frame(svg, window.innerWidth < 560 ? 180 : 200, last);
  const split = own.kind === "rnn" ? [["saturation", own.saturation], ["weight", own.weight]] : [];
  const rows = [["gain", own.gains], ...split];
  const values = rows.flatMap(([, row]) => row.filter(Number.isFinite));
  const top = Math.max(0.15, ...values) + 0.03, bottom = Math.min(-0.15, ...values) - 0.03;
  const y = (log) => box.top + (box.bottom - box.top) * ((top - log) / (top - bottom));
  const fits = (value) => Math.log10(value) <= top && Math.log10(value) >= bottom;
  const coarse = [0.001, 0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 100].filter(fits);
  for (const value of coarse.length > 2 ? coarse : [0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.4, 1.7, 2].filter(fits)) {
    const log = Math.log10(value);
    put(svg, "line", { class: value === 1 ? "grid one" : "grid", x1: box.left, x2: box.right, y1: y(log), y2: y(log) });
    put(svg, "text", { class: "tick", x: box.left - 7, y: y(log) + 4, "text-anchor": "end" }, String(value));
  }
  for (const [name, row] of rows) path(svg, box, row.map(y), `line part ${name === "gain" ? `own ${own.kind}` : name}`);
  named(svg, box, rows.map(([name, row]) => ({ text: name, at: y(row[last]), class: name === "gain" ? own.kind : name })));
  put(svg, "line", { class: "cursor", x1: box.x(state.k), x2: box.x(state.k), y1: box.top, y2: box.bottom });
  svg.box = box;
}

// -- the page ------------------------------------------------------------------------------------------------------------------

const nearest = (list, value) => list.reduce((best, v, i) => (Math.abs(v - value) < Math.abs(list[best] - value) ? i : best), 0);
const state = { i: 0, n: Math.min(1, networks.length - 1), r: nearest(radii, 0.9), t: nearest(lengths, 100), k: 0, axis: "log", others: true };

function choices(id, name, list, own) {
  list.forEach((text, index) => {
    const label = html($(id), "label", {});
    html(label, "input", { type: "radio", name, value: index }).checked = index === own;
    if (name === "network") html(label, "span", { class: `swatch ${networks[index].kind}` });
    label.append(` ${text}`);
  });
}

const brief = (network) => network.name.replace("forget bias", "b_f =");

function prepare() {
  choices("networks", "network", networks.map((n) => n.name), state.n);
  choices("initialisations", "initialisation", initialisations, state.i);
  $("radius").max = radii.length - 1;
  $("length").max = lengths.length - 1;
  const presets = [
    ["0.9¹⁰⁰", "A linear recurrence does exactly what its eigenvalues say.", { n: "linear", i: 0, r: 0.9, T: 100 }],
    ["1.1¹⁰⁰", "… and explodes just as surely. Look at it on the linear axis, too.", { n: "linear", i: 0, r: 1.1, T: 100 }],
    ["λ = 1 and still gone", "Orthogonal weights keep all; tanh takes its share at every step.", { n: "tanh RNN", i: 0, r: 1, T: 100 }],
    ["Saturated", "Large weights push the units to ±1, where tanh is flat.", { n: "tanh RNN", i: 2, r: 1.5, T: 100 }],
    ["More than ∣λ∣", "A random matrix is not normal: single steps gain up to σ_max > ∣λ∣. Eigenvalues decide only the limit.", { n: "linear", i: 1, r: 0.95, T: 30 }],
    ["Open the forget gate", "With a bias of 4 the LSTM’s highway ⊙ f keeps through 200 steps what the others lose.", { n: "LSTM, forget bias 4", i: 0, r: 0.9, T: 200 }],
    ["… or close it", "An LSTM by itself guarantees nothing: with a bias of −1 it forgets faster than the RNN.", { n: "LSTM, forget bias −1", i: 0, r: 0.9, T: 100 }],
  ];
  for (const [title, text, to] of presets) {
    const button = html(html($("presets"), "li", {}), "button", { type: "button" });
    html(button, "strong", {}, title);
    html(button, "span", {}, text);
    button.addEventListener("click", () => {
      state.n = Math.max(0, networks.findIndex((n) => n.name === to.n));
      Object.assign(state, { i: to.i, r: nearest(radii, to.r), t: nearest(lengths, to.T) });
      state.k = lengths[state.t];
      show();
      $("verdict").scrollIntoView({ block: "nearest" });
    });
  }
  state.k = lengths[state.t];
  for (const form of document.querySelectorAll(".settings")) form.addEventListener("submit", (event) => event.preventDefault());
  for (const form of document.querySelectorAll(".settings")) form.addEventListener("input", () => {
    const kept = state.k === lengths[state.t];
    state.r = Number($("radius").value);
    state.t = Number($("length").value);
    state.n = Number(document.querySelector("[name=network]:checked").value);
    state.i = Number(document.querySelector("[name=initialisation]:checked").value);
    state.axis = document.querySelector("[name=axis]:checked").value;
    state.others = $("others").checked;
    state.k = kept ? lengths[state.t] : Math.min(state.k, lengths[state.t]);
    show();
  });
  $("lag").addEventListener("input", () => { state.k = Number($("lag").value); show(); });
  for (const id of ["curve", "parts"]) {
    $(id).addEventListener("pointermove", (event) => {
      const { box } = $(id), last = lengths[state.t], { left } = $(id).getBoundingClientRect();
      if (!box) return;
      const k = Math.round(((event.clientX - left - box.left) / (box.right - box.left)) * last);
      state.k = Math.min(Math.max(k, 0), last);
      show();
    });
  }
  window.addEventListener("resize", show);
  document.querySelector("details").addEventListener("toggle", show);
}

function show() {
  const { i, n, r, t } = state, T = lengths[t], network = networks[n];
  const own = { ...curve(i, n, r, t), kind: network.kind, short: brief(network) };
  const shown = [own];
  if (state.others) {
    networks.forEach((other, index) => {
      if (other.usual && other.kind !== network.kind) shown.push({ ...curve(i, index, r, t), kind: other.kind, short: brief(other) });
    });
  }
  const drawn = shown.map((s) => ({ ...s, logs: s.logs.map((v) => v / units) }));
  const analytic = own.logs.map((_, k) => k * data.log10_radii[r]);
  const direct = network.direct === null ? null : own.logs.map((_, k) => k * network.direct);
  const parts = Object.fromEntries(["gains", "saturation", "weight"].map((p) => [p, own[p] && own[p].map((v) => v / units)]));

  $("radius").value = r;
  $("length").value = t;
  $("radius").setAttribute("aria-valuetext", String(radii[r]));
  $("length").setAttribute("aria-valuetext", `${T} steps`);
  $("radius-shown").textContent = radii[r].toFixed(2);
  $("length-shown").textContent = T;
  document.querySelectorAll("[name=network]")[n].checked = true;
  document.querySelectorAll("[name=initialisation]")[i].checked = true;
  $("lag").max = T;
  $("lag").value = state.k;
  $("lag").setAttribute("aria-valuetext", `${state.k} steps back, step ${T - state.k}`);
  $("lag-shown").textContent = `k = ${state.k}`;

  const end = drawn[0].logs[T], said = verdict(own.rate / units);
  $("verdict").replaceChildren();
  html($("verdict"), "span", { class: `word ${said.word}` }, said.word);
  $("verdict").append(` ${said.text}. `);
  if (end > 0.01) $("verdict").append("It has grown to ");
  html($("verdict"), "strong", {}, power(end));
  $("verdict").append(end > 0.01 ? ` times its size ${T} steps back.` : ` of the gradient is left ${T} steps back.`);

  const k = state.k;
  const rows = [
    ["measured ‖δ‖/‖δ_T‖", power(drawn[0].logs[k]), four(drawn[0].logs[k]), "own ratio"],
    ["formula ∣λ∣ᵏ", power(analytic[k]), four(analytic[k]), "formula"],
    ["gain of the step", power(parts.gains[k]), "", "gain"],
    ["saturation part", parts.saturation ? power(parts.saturation[k]) : "–", "", "saturation"],
    ["weight part", parts.weight ? power(parts.weight[k]) : "–", "", "weight"],
  ];
  $("readout").replaceChildren();
  for (const [name, value, log, role] of rows) {
    const cell = html($("readout"), "div", { class: role });
    html(cell, "dt", {}, name);
    const shownValue = html(cell, "dd", {}, value);
    if (log) html(shownValue, "small", {}, `log₁₀ = ${log}`);
  }
  $("parts-caption").textContent = parts.saturation
    ? network.kind === "linear"
      ? "What each step multiplies by. A linear recurrence has no tanh: the weight part is all."
      : "What each step multiplies by: saturation ‖D δ‖/‖δ‖, D = diag(1 − h²), times weight ‖W_hhᵀ D δ‖/‖D δ‖."
    : "What each step multiplies by. In a gated network the gain is a sum over ways, so it does not split into two factors.";

  drawCurves({ shown: drawn, analytic, direct });
  drawParts({ ...parts, kind: network.kind });
  const summary = `${network.name}, ∣λ∣ = ${radii[r]}, T = ${T}, ${initialisations[i]}: ${said.word}, ${said.text}; ` +
    `‖δ‖ is ${power(end)} times as large ${T} steps back, where ∣λ∣ᵏ is ${power(analytic[T])}.`;
  $("curve").setAttribute("aria-label", `Gradient by steps back. ${summary}`);
  $("parts").setAttribute("aria-label", `Gain of each step. ${$("parts-caption").textContent}`);
  table(T, drawn, analytic, parts, summary);
}

function table(T, drawn, analytic, parts, summary) {
  if (!document.querySelector("details").open) return;
  const place = document.querySelector("details table");
  place.caption.textContent = summary;
  const head = ["k", "step t", "ratio", "log₁₀ ratio", "∣λ∣ᵏ", "gain", "saturation", "weight"];
  place.tHead.replaceChildren();
  place.tBodies[0].replaceChildren();
  const row = html(place.tHead, "tr", {});
  for (const text of head) html(row, "th", { scope: "col" }, text);
  for (let k = 0; k <= T; k++) {
    const line = html(place.tBodies[0], "tr", {});
    html(line, "th", { scope: "row" }, String(k));
    const numbers = [
      String(T - k), power(drawn[0].logs[k]), four(drawn[0].logs[k]), power(analytic[k]), power(parts.gains[k]),
      parts.saturation ? power(parts.saturation[k]) : "–", parts.weight ? power(parts.weight[k]) : "–",
    ];
    for (const text of numbers) html(line, "td", {}, text);
  }
}

prepare();
show();
