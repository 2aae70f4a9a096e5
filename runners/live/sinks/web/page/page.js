"use strict";

const SECOND_MS = 1000;
const $ = (id) => document.getElementById(id);
const after = (ms) => new Promise((done) => setTimeout(done, ms));
const number = (value, digits = 1) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const bright = { live: true, file: true };
const stageNames = { capture: "capture (wait)", fit: "fit", infer: "infer", finish: "finish", deliver: "deliver", age: "frame age" };

// --- the picture: one is asked for when the last is shown, so that a slow network gets fewer, and never old ones

let source = 0; // which is shown, of several
let asking = new AbortController();
let paused = false;
let shown = null; // { blob, number }
let resume = () => {};

async function watching() {
  while (paused || document.hidden) await new Promise((done) => { resume = done; });
}

async function show(blob, which) {
  const bitmap = await createImageBitmap(blob);
  const canvas = $("picture");
  if (paused) return bitmap.close();
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  shown = { blob, number: which };
  canvas.dataset.number = which;
}

async function watch() {
  let last = 0;
  for (;;) {
    await watching();
    const [from, timer] = [source, setTimeout(() => asking.abort(), 20 * SECOND_MS)];
    try {
      const answer = await fetch(`/picture?source=${from}&after=${last}`, { signal: asking.signal });
      if (answer.status === 200) {
        last = Number(answer.headers.get("X-Number"));
        const blob = await answer.blob();
        if (from === source) await show(blob, last);
      } else if (answer.status !== 204) {
        await after(SECOND_MS);
      }
    } catch {
      if (from === source) await after(SECOND_MS);
    }
    clearTimeout(timer);
    if (asking.signal.aborted) asking = new AbortController();
    if (from !== source) last = 0;
  }
}

$("which").addEventListener("change", () => {
  source = $("which").selectedIndex;
  $("snapshot").href = `/snapshot.jpg?source=${source}`;
  asking.abort();
  if (latest !== null) tell(latest);
});

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
  $("held").hidden = !paused;
  resume();
});
document.addEventListener("visibilitychange", () => resume());

$("snapshot").addEventListener("click", (event) => {
  if (!paused || shown === null) return; // the server's, in full size
  event.preventDefault();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(shown.blob);
  link.download = `edgecnn-paused-${shown.number}.jpg`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10 * SECOND_MS);
});

// --- the score threshold

let holding = 0; // until when what the server says of it is not shown, because somebody moves it
let sending = null;

$("score").addEventListener("input", () => {
  holding = Date.now() + 2 * SECOND_MS;
  $("score-now").textContent = Number($("score").value).toFixed(2);
  if (sending === null) sending = setTimeout(send, 100);
});

async function send() {
  sending = null;
  let wrong = "The score was not changed: no answer.";
  try {
    const body = JSON.stringify({ score: Number($("score").value), source });
    const answer = await fetch("/score", { method: "POST", headers: { "Content-Type": "application/json" }, body });
    wrong = answer.ok ? "" : `The score was not changed: ${await answer.text()}`;
  } catch { /* said below */ }
  $("wrong").textContent = wrong;
  $("wrong").hidden = wrong === "";
}

// --- figures

let latest = null;
let history = [];
let run = null; // when it started
let historySeconds = 120;

async function ask() {
  for (;;) {
    const asked = Date.now();
    if (!document.hidden) {
      try {
        const since = history.length ? history[history.length - 1].second : 0;
        const answer = await fetch(`/status?since=${since}`, { signal: AbortSignal.timeout(5 * SECOND_MS) });
        if (answer.status === 401) {
          location.assign("/"); // another run: it asks for its token
          return;
        }
        if (!answer.ok) throw new Error(await answer.text());
        tell(await answer.json());
      } catch {
        setState("no answer");
        notice("The run has ended, or can’t be reached.");
      }
    }
    await after(Math.max(200, SECOND_MS - (Date.now() - asked)));
  }
}

function setState(state) {
  $("state").textContent = state;
  $("state").dataset.state = state;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = text === "";
  document.querySelector(".view").classList.toggle("stale", text !== "");
}

function tell(status) {
  if (run !== status.started_unix_ms) {
    run = status.started_unix_ms;
    history = [];
  }
  historySeconds = status.history_s;
  history = history.concat(status.history).slice(-historySeconds);
  latest = { ...status, history: [] };
  tellSource(status.sources);
  $("rate").textContent = number(status.rate_fps);
  $("age").textContent = number(status.age.p50_ms);
  $("infer").textContent = number(status.stages.infer.p50_ms);
  $("dropped").textContent = Object.values(status.recently_dropped).reduce((sum, count) => sum + count, 0);
  const score = (status.sources[source] ?? status.sources[0]).score;
  $("scoring").hidden = $("score-hint").hidden = score === null;
  if (score !== null && Date.now() > holding) {
    $("score").value = score;
    $("score-now").textContent = score.toFixed(2);
  }
  tables(status);
  charts();
  const { task, format, precision, device, runtime, version } = status.run;
  const failed = Object.entries(status.faults).filter(([, count]) => count).map(([sink, count]) => `${sink} failed: ${count}`);
  $("run").textContent = [`${task}, ${format} ${precision} on ${device}`, runtime, `edgecnn ${version}`,
    `${status.frames} results`, ...failed].join(" · ");
}

function tellSource(sources) {
  const of = sources[source] ?? sources[0];
  setState(of.state);
  const silent = of.silent_s !== null && of.silent_s > 2;
  if (bright[of.state] && !silent) notice(of.frame === null ? "Waiting for the first result." : "");
  else {
    const since = of.silent_s === null ? "No result yet." : `No result for ${of.silent_s.toFixed(0)} s.`;
    notice(bright[of.state] || !of.why ? since : `${since} The source ${of.why}`);
  }
  sees(of.sees);
  $("source").textContent = $("source").title = of.name;
  document.title = `${of.name} – edgecnn`;
  const several = sources.length > 1;
  $("which").hidden = !several;
  $("source").hidden = several;
  const names = sources.map(({ name, state }) => (state === of.state || bright[state] ? name : `${name} (${state})`));
  if (several && $("which").dataset.names !== names.join("\n")) {
    $("which").dataset.names = names.join("\n");
    $("which").replaceChildren(...names.map((name) => element("option", name)));
    $("which").selectedIndex = source;
  }
}

function sees(words) {
  const texts = words.length ? words : ["nothing"];
  $("sees").replaceChildren(...texts.map((text) => element("span", text)));
}

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

function row(name, cells) {
  const made = document.createElement("tr");
  const head = element("th", name);
  head.scope = "row";
  made.append(head, ...cells.map((cell) => element("td", cell)));
  return made;
}

function tables(status) {
  const stages = [...Object.entries(status.stages), ["age", status.age]];
  $("latency").tBodies[0].replaceChildren(...stages.map(([stage, of]) =>
    row(stageNames[stage] ?? stage, [of.p50_ms, of.p90_ms, of.p99_ms, of.longest_ms].map((ms) => number(ms, 1)))));
  $("drops").tBodies[0].replaceChildren(...Object.entries(status.dropped).map(([stage, count]) =>
    row(stage, [status.recently_dropped[stage] ?? 0, count])));
}

// --- charts

function charts() {
  line("chart-rate", [["frames/s", (point) => point.rate_fps]]);
  line("chart-age", [...percentiles("age"), ["longest", (point) => point.longest_age_ms]]);
  line("chart-infer", percentiles("infer"));
  line("chart-stages", ["fit", "infer", "finish", "deliver"].map((stage) => [stage, (point) => point.stages_ms[stage]]));
  const where = history.length ? Object.keys(history[history.length - 1].dropped) : [];
  line("chart-dropped", where.map((stage) => [stage, (point) => point.dropped[stage] ?? 0]), true);
}

// Of the minute before each second.
function percentiles(what) {
  return ["p50", "p90", "p99"].map((name) => [name, (point) => point[what][`${name}_ms`]]);
}

// The next of 1, 2, 5, 10, 20 … that nothing exceeds.
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

function line(id, series, stacked = false) {
  const canvas = $(id);
  const drawn = (value) => history.some((point) => (stacked ? value(point) > 0 : (value(point) ?? null) !== null));
  keys(canvas, series.map(([name, value]) => (drawn(value) ? name : "")));
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const rows = series.map(([, value]) => history.map(value));
  const sums = history.map((_, index) => rows.reduce((sum, row) => sum + (row[index] ?? 0), 0));
  const top = ceiling(Math.max(0, ...(stacked ? sums : rows.flat().map((value) => value ?? 0))));
  const [left, bottom] = [46, height - 18];
  const newest = history.length ? history[history.length - 1].second : 0;
  const x = (second) => width - 2 - ((newest - second) / historySeconds) * (width - left - 2);
  const y = (value) => bottom - (value / top) * (bottom - 6);
  pen.font = `${width < 420 ? 13 : 12}px system-ui, sans-serif`;
  pen.fillStyle = colour("--quiet");
  pen.strokeStyle = colour("--line");
  pen.lineWidth = 1;
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  for (const value of [0, top / 2, top]) {
    pen.beginPath();
    pen.moveTo(left, Math.round(y(value)) + 0.5);
    pen.lineTo(width, Math.round(y(value)) + 0.5);
    pen.stroke();
    pen.fillText(String(Number(value.toPrecision(3))), left - 6, y(value));
  }
  pen.textBaseline = "bottom";
  pen.fillText("now", width, height);
  pen.textAlign = "left";
  pen.fillText(`${historySeconds} s ago`, left, height);
  if (stacked) bars(pen, rows, x, y, colour);
  else rows.forEach((row, index) => curve(pen, row, x, y, colour(`--s${index % 6}`)));
}

function curve(pen, row, x, y, colour) {
  pen.strokeStyle = colour;
  pen.lineWidth = 2;
  pen.lineJoin = "round";
  pen.beginPath();
  let drawing = false; // a second in which nothing came is a gap
  row.forEach((value, index) => {
    if (value === null || value === undefined) drawing = false;
    else {
      const [px, py] = [x(history[index].second), y(value)];
      if (drawing) pen.lineTo(px, py);
      else pen.moveTo(px, py), pen.lineTo(px + 0.1, py);
      drawing = true;
    }
  });
  pen.stroke();
}

function bars(pen, rows, x, y, colour) {
  history.forEach((point, index) => {
    let sum = 0;
    const left = x(point.second - 1) + 0.5;
    const wide = Math.max(1, x(point.second) - left - 0.5);
    rows.forEach((row, which) => {
      const value = row[index] ?? 0;
      if (value > 0) {
        pen.fillStyle = colour(`--s${which % 6}`);
        pen.fillRect(left, y(sum + value), wide, y(sum) - y(sum + value));
      }
      sum += value;
    });
  });
}

function keys(canvas, names) {
  const caption = canvas.parentElement.querySelector("figcaption");
  if (names.length < 2 || caption.dataset.names === names.join()) return;
  caption.dataset.names = names.join();
  caption.querySelectorAll(".key").forEach((old) => old.remove());
  names.forEach((name, index) => {
    if (name === "") return; // too few samples: no line is drawn
    const key = element("span", name);
    key.className = "key";
    key.dataset.series = index % 6;
    caption.append(key);
  });
}

window.addEventListener("resize", charts);

// --- events: asked for now and then; what comes from a label or a camera's name is text, never markup

let listed = "";

async function askForEvents() {
  for (;;) {
    if (!document.hidden) {
      try {
        const answer = await fetch("/events", { signal: AbortSignal.timeout(10 * SECOND_MS) });
        if (answer.ok) tellEvents(await answer.json());
      } catch { /* the figures say that nothing is reached */ }
    }
    await after(5 * SECOND_MS);
  }
}

function tellEvents({ kept, most, events }) {
  $("events").hidden = !kept;
  $("no-events").hidden = events.length > 0;
  $("events-title").textContent = events.length < most ? "Events" : `The newest ${most} events`;
  const names = events.map(({ event }) => event).join("\n");
  if (names === listed) return;
  listed = names;
  $("event-list").replaceChildren(...events.map(eventCard));
}

function eventCard(of) {
  const [card, button, picture] = [document.createElement("li"), document.createElement("button"), document.createElement("img")];
  picture.src = eventFile(of, "best.jpg");
  picture.loading = "lazy";
  picture.alt = "";
  picture.addEventListener("error", () => picture.classList.add("gone"));
  button.type = "button";
  button.append(picture, element("b", eventWords(of)), element("span", eventTime(of)), element("span", of.camera));
  button.addEventListener("click", () => showEvent(of));
  card.append(button);
  return card;
}

const eventFile = ({ event }, name) => `/events/${encodeURIComponent(event)}/${name}`;
const eventTime = (of) => new Date(of.began_unix_ns / 1e6).toLocaleString();

// "2 person in gate, dog", the most first.
function eventWords({ objects }) {
  const counts = new Map();
  for (const { label, zone } of objects) {
    const words = zone ? `${label} in ${zone}` : label;
    counts.set(words, (counts.get(words) ?? 0) + 1);
  }
  const sorted = [...counts].sort(([, one], [, other]) => other - one);
  return sorted.map(([words, count]) => (count > 1 ? `${count} ${words}` : words)).join(", ") || "nothing";
}

function showEvent(of) {
  $("event-title").textContent = `${of.camera}, ${eventTime(of)}`;
  $("event-wrong").hidden = $("event-picture").hidden = true;
  $("event-clip").hidden = false;
  $("event-clip").poster = $("event-picture").src = eventFile(of, "best.jpg");
  $("event-clip").src = $("event-file").href = eventFile(of, "clip.mp4");
  $("event-file").download = `${of.event}.mp4`;
  $("event-objects").replaceChildren(...of.objects.map(({ label, zone, score, seconds }) =>
    element("li", `${label} ${score.toFixed(2)}${zone ? ` in ${zone}` : ""}, ${seconds.toFixed(1)} s`)));
  $("event").showModal();
  $("event-clip").play().catch(() => { /* the viewer presses the button */ });
}

$("event-clip").addEventListener("error", () => {
  if (!$("event").open) return;
  $("event-clip").hidden = true;
  $("event-wrong").hidden = $("event-picture").hidden = false;
});
$("event-close").addEventListener("click", () => $("event").close());
$("event").addEventListener("click", (press) => { if (press.target === $("event")) $("event").close(); });
$("event").addEventListener("close", () => {
  $("event-clip").removeAttribute("src"); // or it would go on loading
  $("event-clip").load();
});

// --- dark and light: the system's, until somebody chooses

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = theme === "dark" ? "Light" : "Dark";
  charts();
}

function storedTheme() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null;
  }
}

$("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem("theme", theme);
  } catch { /* it is then forgotten */ }
  setTheme(theme);
});
prefersDark.addEventListener("change", () => storedTheme() ?? setTheme(prefersDark.matches ? "dark" : "light"));

setTheme(storedTheme() ?? (prefersDark.matches ? "dark" : "light"));
watch();
ask();
askForEvents();
