/** The audition wall: the clip's loop in every style, each to be heard as soon as its gains are there. */

import { ask, attack, audition, score, sound, spectrogram } from "./api.js";
import { Audition } from "./audition.js";
import { attempt, byId, make } from "./dom.js";

export class Wall {
  /** `about` gives clip, loop and the styles to hear; `render` renders the whole clip in one. */
  constructor(about, dials, render) {
    Object.assign(this, { about, dials, render });
    this.job = null;
    this.index = null;
    this.loaded = new Set();
    this.loading = Promise.resolve();
    this.player = new Audition();
    byId("audition").onclick = () => attempt(() => this.begin());
    byId("wall-play").onclick = () => this.toggle();
    byId("wall-render").onclick = () => this.player.chosen && this.render(this.path());
  }

  get playing() {
    return byId("wall-play").getAttribute("aria-pressed") === "true";
  }

  path() {
    return this.index.styles.find((style) => style.name === this.player.chosen)?.path;
  }

  async begin() {
    const { clip, loop, styles } = this.about();
    if (!clip) throw new Error("Choose a clip first.");
    if (!styles.length) throw new Error("There is no sound yet: drop references, or keep some in the library.");
    const values = this.dials.turned();
    const asked = ["keep", "model"].filter((name) => values[name] !== undefined).flatMap((name) => [name, values[name]]);
    // All of the library needs no names, which may be many.
    const named = styles.some((style) => /[\\/]/.test(style)) ? styles.flatMap((style) => ["style", style]) : [];
    const [job, count] = await ask("/stylus/audition", clip.path, loop.start, loop.start + loop.length, ...named, ...asked);
    this.begun = performance.now();
    this.take({ job, path: clip.path, ...loop });
    byId("wall-status").textContent = `Waiting for the first of ${count} styles …`;
  }

  /** Forget it: another clip has been chosen, or another audition. */
  clear() {
    this.stop();
    this.job = this.index = this.end = null;
    this.loaded.clear();
    byId("tiles").replaceChildren();
    byId("wall-play").disabled = byId("wall-render").disabled = true;
    byId("wall-status").textContent = "";
    sessionStorage.removeItem("audition");
  }

  /** Hear an audition `{job, path, start, length}`, one that was begun before the page was loaded too. */
  take(audition) {
    this.clear();
    this.job = audition.job;
    sessionStorage.setItem("audition", JSON.stringify(audition));
    this.look();
  }

  /** Called with every word on a job. */
  heard(job) {
    if (job.id !== this.job) return;
    if (["done", "failed", "cancelled"].includes(job.state)) {
      this.end = job;
      this.say();
    }
    this.look();
  }

  /** Fetch what has come since; one look after the other. */
  look() {
    const job = this.job;
    if (job === null || this.due) return;
    this.due = true;
    this.loading = this.loading.then(async () => {
      this.due = false;
      if (job === this.job) await this.fetch(job);
    }).catch(() => {
      /* it has not begun yet, or the daemon starts anew: the next word asks again */
    });
  }

  async fetch(job) {
    const index = await audition(job);
    if (job !== this.job || !index.styles) return;
    if (!this.index) {
      const [loop, envelope] = [await sound(index.content, index.start, index.samples), await attack(job)];
      if (job !== this.job) return;
      // More than two channels are heard by their first two.
      const opened = this.player.setClip(loop.channels.slice(0, 2), loop.rate, envelope);
      opened.catch((error) => attempt(() => Promise.reject(error)));
      this.player.setDials(this.dials.live());
      this.index = index;
      this.draw();
      byId("wall-play").disabled = false;
    }
    const shape = {
      channels: index.gain_channels, frames: index.frames, bands: index.bands, low: index.low, high: index.high,
      hop: 1 / index.frame_rate,
    };
    for (const [number, style] of index.styles.entries()) {
      if (style.error) this.mark(style.name, style.error);
      if (!style.ready || this.loaded.has(style.name)) continue;
      const gains = await score(job, number);
      if (job !== this.job) return;
      this.player.addStyle(style.name, gains, shape);
      this.loaded.add(style.name);
      this.mark(style.name, null);
      const last = index.styles.length;
      this.say(index);
      if (this.loaded.size === 1) {
        byId("tiles").dataset.first = ((performance.now() - this.begun) / 1000).toFixed(2);
        this.choose(style.name);
      }
      if (this.loaded.size === last) byId("tiles").dataset.all = ((performance.now() - this.begun) / 1000).toFixed(2);
    }
    this.say(index);
  }

  /** How far it is, and what came of it. */
  say({ styles } = this.index ?? { styles: [] }) {
    const failed = styles.filter((style) => style.error);
    const words = [];
    if (this.end?.state === "failed") words.push(this.end.error);
    if (this.end?.state === "cancelled") words.push("Cancelled.");
    if (this.loaded.size || failed.length) words.push(`${this.loaded.size} of ${styles.length} styles`);
    if (failed.length) words.push(`${failed.length} could not be heard`);
    if (words.length) byId("wall-status").textContent = words.join(", ").replace("., ", ". ");
    if (this.end) for (const one of document.querySelectorAll("#tiles .small")) if (one.textContent === "…") one.textContent = "not auditioned";
  }

  draw() {
    const tile = (name, text, image) => make("button", {
      type: "button", data: { tile: name ?? "" }, disabled: name !== null, "aria-pressed": "false", onclick: () => this.choose(name),
    }, image && make("img", { src: image, alt: "", loading: "lazy" }), make("span", { textContent: text }), make("span", { className: "small", textContent: name === null ? "untouched" : "…" }));
    byId("tiles").replaceChildren(tile(null, "The clip itself", null), ...this.index.styles.map((style) => tile(style.name, style.name, spectrogram(style.path))));
    this.press();
  }

  mark(name, error) {
    const tile = document.querySelector(`#tiles [data-tile="${CSS.escape(name)}"]`);
    tile.disabled = error !== null;
    tile.lastChild.textContent = error ?? "to be heard";
  }

  choose(name) {
    this.player.choose(name);
    byId("wall-render").disabled = name === null;
    this.press();
  }

  press() {
    for (const tile of byId("tiles").children) tile.setAttribute("aria-pressed", String((tile.dataset.tile || null) === this.player.chosen));
  }

  toggle() {
    if (this.playing) this.stop();
    else {
      this.player.play();
      this.show(true);
    }
  }

  stop() {
    this.player.stop();
    this.show(false);
  }

  show(playing) {
    byId("wall-play").setAttribute("aria-pressed", String(playing));
    byId("wall-play").textContent = playing ? "Stop" : "Play";
  }

  /** The dials have been turned. */
  turned() {
    this.player.setDials(this.dials.live());
  }
}
