/** A stem beside what it was made from: seen on one time axis, heard in sync, measured, and to be had. */

import { download, job as jobOf, overview, spectrogram } from "./api.js";
import { Comparison } from "./compare.js";
import { attempt, byId, complain, make, time } from "./dom.js";
import { waveform } from "./waveform.js";

export class Result {
  /** `again` is called with a job's details when its settings are wanted back. */
  constructor(again) {
    this.again = again;
    this.shown = null;
  }

  /** Whether somebody listens to it. */
  get isHeard() {
    return Boolean(this.comparison?.wanted);
  }

  /** Shows a job's stem; raises what the daemon says where it is gone. */
  async show(number) {
    // Of several that are asked for the last one is shown.
    this.shown = number;
    const about = await jobOf(number);
    if (!about.path || this.shown !== number) return;
    byId("result").hidden = false;
    const body = byId("result-body");
    body.replaceChildren(make("p", { textContent: "Reading …", role: "status" }));
    body.scrollIntoView({ block: "nearest" });
    await this.comparison?.close();
    const paths = [about.path, about.content, about.styles[0]?.path];
    let seen;
    try {
      seen = await Promise.all(paths.map((path) => overview(path).catch((error) => (path === about.path ? Promise.reject(error) : null))));
    } catch (error) {
      if (this.shown === number) body.replaceChildren();
      throw error;
    }
    if (this.shown !== number) return;
    this.build(body, about, seen);
    byId("result-title").textContent = `Result: ${about.path.split(/[\\/]/).pop()}`;
  }

  build(body, about, [stem, content, style]) {
    const seconds = stem.seconds;
    const of = (key, name, path, one, offset, loops) =>
      one && { key, name, path, about: one, rate: one.sample_rate, samples: one.samples, lufs: one.lufs, offset, loops };
    const tracks = [
      of("stem", "Stem", about.path, stem, 0, false),
      of("content", "Clip", about.content, content, about.start_sample / (content?.sample_rate ?? 1), false),
      of("style", about.styles.length > 1 ? "Sound (the first)" : "Sound", about.styles[0]?.path, style, 0, true),
    ].filter(Boolean);
    const comparison = (this.comparison = new Comparison(tracks, seconds));
    const rows = tracks.map((track) => this.track(track, seconds, (to) => go(to)));
    const group = make("div", { role: "radiogroup", "aria-label": "What is heard" }, ...rows.map((row) => row.element));
    const play = make("button", { type: "button", className: "main", textContent: "Play", onclick: () => toggle() });
    const at = make("span", { className: "small", textContent: `0:00.0 of ${time(seconds)}` });
    const say = () => {
      play.textContent = comparison.wanted ? "Pause" : "Play";
    };
    const toggle = async () => {
      const begun = comparison.wanted ? comparison.pause() : attempt(() => comparison.play());
      say();
      await begun;
      say();
    };
    const go = async (to) => {
      await attempt(() => comparison.seek(to));
      say();
    };
    comparison.onPosition = (now) => {
      group.style.setProperty("--at", now / seconds);
      at.textContent = `${time(now)} of ${time(seconds)}`;
    };
    comparison.onError = (error) => {
      complain(error);
      say();
    };
    comparison.onEnd = () => {
      say();
      comparison.onPosition(0);
    };
    const choose = (key) => {
      comparison.choose(key);
      for (const row of rows) row.check(row.track.key === key);
    };
    // As they lie there, which is by chance where nobody is to know which is which.
    let order = rows;
    rows.forEach((row) => {
      row.button.onclick = () => choose(row.track.key);
      row.button.onkeydown = (event) => {
        const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
        if (!by) return;
        event.preventDefault();
        const other = order[(order.indexOf(row) + by + order.length) % order.length];
        choose(other.track.key);
        other.button.focus();
      };
    });
    choose("stem");
    const blind = make("button", { type: "button", textContent: "Blind", "aria-pressed": "false", title: "Hide which is which, in an order of chance" });
    blind.onclick = () => {
      const on = blind.getAttribute("aria-pressed") !== "true";
      blind.setAttribute("aria-pressed", String(on));
      order = on ? shuffled(rows) : rows;
      group.replaceChildren(...order.map((row) => row.element));
      order.forEach((row, number) => row.hide(on ? `Sound ${number + 1}` : null));
      if (on) choose(order[0].track.key);
    };
    const seek = make("input", { type: "range", min: 0, max: seconds, step: 0.01, value: 0, "aria-label": "Position", oninput: () => go(Number(seek.value)) });
    const before = comparison.onPosition;
    comparison.onPosition = (now) => {
      before(now);
      seek.value = now;
    };
    body.replaceChildren(
      make("div", { className: "row" }, play, blind, at,
        make("a", { href: download(about.path), download: "", className: "button", textContent: "Download the stem" }),
        make("button", { type: "button", textContent: "Render again with …", title: "Take its clip, sounds and settings back, to change them", onclick: () => this.again(about) })),
      make("p", { className: "small", textContent: "All are heard at the loudness of the softest, at the same moment. Arrow keys change between them." }),
      group, make("div", { className: "axis", "aria-hidden": "true" }, ...[0, 0.25, 0.5, 0.75, 1].map((share) => make("span", { textContent: time(share * seconds) }))), seek,
      ...this.words(about));
    // Only now do they have a width.
    for (const row of rows) row.draw();
  }

  track(track, seconds, go) {
    const long = track.about.seconds;
    const stretch = { width: `${(100 * long) / seconds}%`, "margin-left": `${(-100 * track.offset) / seconds}%` };
    const wave = make("div", { className: "wave" });
    const image = make("img", { src: spectrogram(track.path), alt: `Mel-spectrogram of ${track.name}, 20 Hz to 20 kHz` });
    const canvas = make("div", { className: "canvas" }, make("div", { className: "stretch", style: stretch }, wave, image), make("div", { className: "cursor" }));
    canvas.onclick = (event) => {
      const box = canvas.getBoundingClientRect();
      go(((event.clientX - box.left) / box.width) * seconds);
    };
    const button = make("button", { type: "button", role: "radio", textContent: track.name, data: { track: track.key } });
    return {
      track, button,
      element: make("div", { className: "track" }, button, canvas),
      draw: () => waveform(wave, track.about),
      check: (on) => {
        button.setAttribute("aria-checked", String(on));
        button.tabIndex = on ? 0 : -1;
      },
      // A picture would tell which it is.
      hide: (name) => {
        button.textContent = name ?? track.name;
        canvas.style.visibility = name ? "hidden" : "visible";
      },
    };
  }

  words(about) {
    const copied = (label, text) => {
      const said = make("span", { className: "small", role: "status" });
      const copy = async () => {
        const done = await attempt(() => navigator.clipboard.writeText(text).then(() => true));
        said.textContent = done ? "copied" : "";
      };
      return make("div", {}, make("div", { className: "row" }, make("h3", { textContent: label }),
        make("button", { type: "button", textContent: "Copy", "aria-label": `Copy: ${label}`, onclick: copy }), said), make("code", { textContent: text, tabIndex: 0 }));
    };
    return [
      about.notes.length ? make("ul", {}, ...about.notes.map((note) => make("li", { textContent: note }))) : null,
      make("h3", { textContent: "Measured" }),
      make("dl", { className: "metrics" }, ...about.metrics.map(({ name, title, unit, value }) =>
        make("div", { title: name }, make("dt", { textContent: unit ? `${title} (${unit})` : title }), make("dd", { textContent: value.toFixed(3) })))),
      copied("As a command", about.command), copied("As an OSC message", about.message),
    ].filter(Boolean);
  }
}

function shuffled(rows) {
  const order = [...rows];
  for (let last = order.length - 1; last > 0; last -= 1) {
    const other = Math.floor(Math.random() * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}
