/** Joins the page's parts: what is chosen, what is asked of the daemon, and what it tells. */

import { ask, listen } from "./api.js";
import { ClipPanel } from "./clip.js";
import { Dials, MENUS } from "./dials.js";
import { attempt, byId, bytes, make } from "./dom.js";
import { ignoreElsewhere } from "./drop.js";
import { Queue } from "./queue.js";
import { Result } from "./result.js";
import { StylesPanel } from "./styles.js";
import { Wall } from "./wall.js";

const dials = new Dials(byId("dials"), () => changed());
// What was asked for beside the dials, such as a segment, is of its clip.
const clip = new ClipPanel(() => changed(), () => {
  dials.drop();
  wall.clear();
});
// So are weights of the sounds that they were for.
const styles = new StylesPanel(() => dials.forget("style_weight"));
const result = new Result((about) => again(about));
const queue = new Queue((number) => result.show(number));
const wall = new Wall(() => ({ clip: clip.clip, loop: clip.loop, styles: styles.all() }), dials, (style) => attempt(() => render([style], whole)));
/** Jobs that this page has asked for: their results are shown when they are there. */
const own = new Set(JSON.parse(sessionStorage.getItem("own") ?? "[]"));
const PREVIEW = 6;
let restoring = true;

/** Asks for a render; `wanted` makes of the settings what is asked for. */
async function render(references, wanted = (values) => values) {
  if (!clip.clip) throw new Error("Choose a clip first.");
  if (!references.length) throw new Error("Choose a sound first: a style of the library, or a reference of your own.");
  const [first, ...others] = references;
  const values = Object.entries(wanted(dials.values())).flat();
  const [job, note] = await ask("/stylus/render", clip.clip.path, first, ...others.flatMap((style) => ["style", style]), ...values);
  own.add(job);
  sessionStorage.setItem("own", JSON.stringify([...own]));
  byId("chosen").textContent = note ? `Job ${job}: ${note}` : `Job ${job} is in the queue.`;
}

/** Of the loudest passage; where a segment was asked for, of its beginning. */
function preview({ start, end, ...values }) {
  if (start === undefined && end === undefined) return { ...values, preview: PREVIEW };
  const seconds = (time) => (/samples|smp/.test(time) ? parseInt(time) / clip.about.sample_rate : parseFloat(time));
  const last = Math.min(seconds(end ?? Infinity), seconds(start ?? 0) + PREVIEW, clip.about.seconds);
  return { ...values, start: start ?? 0, end: last };
}

/** The wall's button says the whole clip, in one sound. */
const whole = ({ start, end, style_weight, ...values }) => values;

async function again(about) {
  const before = clip.clip?.path;
  if (!(await clip.show({ path: about.content, name: about.content.split(/[\\/]/).pop() }))) return;
  if (clip.clip.path !== before) wall.clear();
  const library = new Set(styles.styles.map((style) => style.name));
  styles.chosen.clear();
  for (const style of about.styles) {
    const known = styles.styles.find((one) => one.path === style.path);
    if (!known && !styles.references.some((one) => one.path === style.path)) styles.references.push(style);
    styles.chosen.add(known && library.has(known.name) ? known.name : style.path);
  }
  styles.draw();
  dials.fill(about.asked);
  byId("settings-title").scrollIntoView({ block: "center" });
}

/** Keep what is chosen, so that a reload changes nothing; the wall hears the dials at once. */
function changed() {
  wall?.turned();
  if (restoring) return;
  const kept = {
    clip: clip.clip, loop: clip.loop, references: styles.references, chosen: [...styles.chosen], dials: dials.values(),
  };
  localStorage.setItem("kept", JSON.stringify(kept));
}

async function restore() {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem("kept") ?? "{}");
  } catch {
    /* nothing that could be read */
  }
  styles.references = kept.references ?? [];
  styles.chosen = new Set(kept.chosen ?? []);
  const about = await styles.refresh();
  if (about) offer(about);
  dials.fill(kept.dials ?? {});
  const named = clipOfAddress();
  const shown = named && (await clip.show(named.clip, named.loop));
  if (!named && kept.clip) await clip.show(kept.clip, kept.loop);
  restoring = false;
  if (shown) dials.drop();
  const audition = JSON.parse(sessionStorage.getItem("audition") ?? "null");
  if (audition && clip.clip && isOf(audition, named)) wall.take(audition);
}

/** Whether an audition is of the clip that is shown; where a loop was named, of that very one. */
function isOf({ path, start, length }, named) {
  const near = (one, other) => Math.abs(one - other) < 1e-3;
  return path === clip.clip.path && (!named || (near(start, clip.loop.start) && near(length, clip.loop.length)));
}

/** The clip that another program has opened the page with, by `#clip=PATH&start=SECONDS&length=SECONDS`; else null. */
function clipOfAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const path = said.get("clip");
  if (!path) return null;
  // A reload is to keep what has been chosen since.
  history.replaceState(null, "", "/");
  const [start, length] = [Number(said.get("start")), Number(said.get("length"))];
  return { clip: { path, name: path.split(/[\\/]/).pop() }, loop: length > 0 ? { start, length } : null };
}

function offer({ presets, models }) {
  const [preset, model] = MENUS;
  dials.offer("preset", [...preset.items, ...presets.map((name) => [name, name])]);
  dials.offer("model", [...model.items, ...models.map((name) => [name, name])]);
}

function gauges(about) {
  styles.setWarm(about.warm);
  const gauge = (name, text, value, max) => make("div", {}, make("dt", { textContent: name }),
    make("dd", {}, text, value === undefined ? "" : make("meter", { min: 0, max, value, "aria-label": name })));
  byId("gauges").replaceChildren(
    gauge("State", about.state), gauge("Model", about.model), ...(about.trouble ? [gauge("Not loaded", about.trouble)] : []), gauge("Device", about.device),
    gauge("Memory", `${bytes(about.resident_bytes)} of ${bytes(about.memory_bytes)} `, about.memory_used_bytes, about.memory_bytes),
    ...(about.device_bytes ? [gauge("On the device", bytes(about.device_bytes))] : []),
    gauge("Styles kept", `${about.cached_styles} (${bytes(about.cache_bytes)})`),
  );
}

const heard = (job) => {
  wall.heard(job);
  if (!["done", "failed", "cancelled"].includes(job.state) || !own.delete(job.id)) return;
  sessionStorage.setItem("own", JSON.stringify([...own]));
  const came = { done: "is done", failed: `failed: ${job.error}`, cancelled: "was cancelled" };
  byId("chosen").textContent = `Job ${job.id} ${came[job.state]}`;
  // What somebody is listening to stays; the queue has a button for the other.
  if (job.state === "done" && job.path && !result.isHeard) attempt(() => result.show(job.id));
};

listen({
  all({ jobs, daemon }) {
    queue.all(jobs);
    gauges(daemon);
    jobs.forEach(heard);
  },
  job(job) {
    queue.job(job);
    heard(job);
  },
  progress(word) {
    queue.progress(word);
    wall.heard({ id: word.job });
  },
  daemon: gauges,
  connected(there) {
    const said = there ? "connected" : "waiting for the daemon …";
    // The same words anew would be read out anew.
    if (byId("connection").textContent !== said) byId("connection").textContent = said;
    document.body.dataset.connected = String(there);
  },
});

byId("render").onclick = () => attempt(() => render([...styles.chosen]));
byId("preview").onclick = () => attempt(() => render([...styles.chosen], preview));
/** For whoever measures the page. */
window.stylus = { wall, dials };
// Another program may have added a style meanwhile.
addEventListener("focus", () => {
  if (!restoring && document.body.dataset.connected === "true") styles.refresh();
});
ignoreElsewhere();
restore();
